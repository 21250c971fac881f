//! The intake of messages: sockets that the caller has bound, and [`durable_core::intake`] on their bytes.

use std::any::Any;
use std::fmt;
use std::future::ready;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use durable_core::intake::Counts;
use proxy_api::partials::PartialShare;

mod room;
mod tcp;
mod udp;
mod wire;

pub use self::tcp::{TcpSettings, serve};
pub use self::udp::receive;
pub use self::wire::Protocol;
pub use durable_core::intake::{Framing, Limits, Oversize};

/// Bytes of the longest source: an IPv6 address in brackets, with a colon and a port.
const LONGEST_SOURCE: usize = 47;

/// A resource of the process that a connection holds. It is free again on drop.
pub type Hold = Box<dyn Any + Send>;

/// A future for the resource of a connection; `None`: there is no room for the connection.
type Asked = Pin<Box<dyn Future<Output = Option<Hold>> + Send>>;

/// The admission to the sockets of one listener, and their counts.
#[derive(Clone, Default)]
pub struct Intake {
    figures: Arc<Mutex<IntakeFigures>>,
    /// The last connection whose bytes are not what the framing says.
    violation: Arc<Mutex<String>>,
    admits: Option<Arc<dyn Fn(IpAddr) -> bool + Send + Sync>>,
    hold: Option<Arc<dyn Fn(IpAddr) -> Asked + Send + Sync>>,
    share: PartialShare,
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("figures", &self.figures).finish_non_exhaustive()
    }
}

/// Messages and connections since the start, and those that were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntakeFigures {
    /// Messages that were given to the store.
    pub messages: u64,
    /// Messages that were truncated to the bound.
    pub truncated: u64,
    /// Messages that were dropped because they are too long.
    pub too_long: u64,
    /// Datagrams that the system dropped, as they came faster than they were read.
    pub kernel_drops: u64,
    /// Connections that are open.
    pub connections: u64,
    /// Connections that were closed at once, and datagrams that were dropped, as their source is not admitted.
    pub denied: u64,
    /// Connections that were closed at once, as there are too many in all.
    pub refused_full: u64,
    /// Connections that were closed at once, as there are too many from their source.
    pub refused_source: u64,
    /// Connections that were closed, as the process has no room for them.
    pub refused_room: u64,
    /// Connections that were closed because nothing came, or no answer could be sent.
    pub idle: u64,
    /// Connections that were closed because their bytes are not what the framing says.
    pub violations: u64,
    /// Connections that were closed because their share of memory has no room for their messages that have not ended.
    pub crowded: u64,
    /// Connections that were closed because the log has no room for their messages, whose senders still have them.
    pub log_full: u64,
    /// Connections that were closed because the store is closed, or did not keep their messages for another reason.
    pub not_kept: u64,
    /// Connections that ended because what reads them panicked.
    pub panics: u64,
    /// Datagrams that were read and are lost, as what reads them panicked, or the store was closed meanwhile.
    pub lost: u64,
    /// Datagrams without a byte, which are no messages.
    pub empty: u64,
    /// Reads of connections that were shortened or delayed, as their share of memory had no room for a full read.
    pub short_reads: u64,
}

impl Intake {
    /// An intake that takes messages only from addresses for which `admits` is true. Others admit everybody.
    pub fn guarded(admits: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self { admits: Some(Arc::new(admits)), ..Self::default() }
    }

    /// Has each connection hold what `hold` returns for its source, for as long as the connection is open. A connection
    /// for which it returns `None` is closed. While one waits for it, no other connection of its socket is accepted.
    #[must_use]
    pub fn holding<F>(self, hold: impl Fn(IpAddr) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Hold>> + Send + 'static,
    {
        let hold = move |source: IpAddr| -> Asked { Box::pin(hold(source)) };
        Self { hold: Some(Arc::new(hold)), ..self }
    }

    /// Gives incomplete messages, and those that wait for the log, this share of memory. Without a share they have no
    /// bound.
    #[must_use]
    pub fn within(self, share: PartialShare) -> Self {
        Self { share, ..self }
    }

    /// Asks for the resource that a connection from this source holds.
    fn hold(&self, source: IpAddr) -> Asked {
        match &self.hold {
            Some(hold) => hold(source.to_canonical()),
            None => Box::pin(ready(Some(Box::new(()) as Hold))),
        }
    }

    /// Whether messages from this source are taken. A refusal is counted.
    fn admits(&self, source: IpAddr) -> bool {
        let admitted = self.admits.as_ref().is_none_or(|admits| admits(source.to_canonical()));
        if !admitted {
            self.count(|figures| figures.denied += 1);
        }
        admitted
    }

    /// The counts.
    pub fn figures(&self) -> IntakeFigures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last connection that [`IntakeFigures::violations`] counts, and what is wrong with its bytes, for people.
    pub fn violation(&self) -> String {
        self.violation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records a violation of the framing by a connection, and counts it.
    fn violates(&self, peer: SocketAddr, why: &str) {
        *self.violation.lock().unwrap_or_else(PoisonError::into_inner) = format!("{peer}: {why}");
        self.count(|figures| figures.violations += 1);
    }

    fn count(&self, count: impl FnOnce(&mut IntakeFigures)) {
        count(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn count_long(&self, before: Counts, now: Counts) {
        if before != now {
            self.count(|figures| {
                figures.truncated += now.truncated - before.truncated;
                figures.too_long += now.dropped - before.dropped;
            });
        }
    }
}

/// The source of messages: address and port, as they are written.
fn source(peer: SocketAddr) -> Arc<[u8]> {
    let mut words = [0_u8; LONGEST_SOURCE];
    let mut rest = words.as_mut_slice();
    // The buffer has room for every source.
    let _ = write!(rest, "{}", SocketAddr::new(peer.ip().to_canonical(), peer.port()));
    let count = LONGEST_SOURCE - rest.len();
    words.get(..count).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_its_address_and_port_in_the_form_of_its_family() {
        let longest = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535";
        assert_eq!(longest.len(), LONGEST_SOURCE);
        for (peer, expected) in [
            ("192.0.2.1:514", "192.0.2.1:514"),
            ("255.255.255.255:65535", "255.255.255.255:65535"),
            ("[::ffff:192.0.2.1]:514", "192.0.2.1:514"),
            ("[::1]:1", "[::1]:1"),
            ("[fe80::1%7]:514", "[fe80::1]:514"),
            (longest, longest),
        ] {
            let source = source(peer.parse().expect("an address"));
            assert_eq!(String::from_utf8_lossy(&source), expected);
        }
    }
}
