//! A session that lasts as long as a siege.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{
        PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::{PAUSE, SIDECAR, Siege, address};
use crate::{greeting, round_trip};

/// What the client says again and again.
const WORD: &[u8] = b"still here";

/// What became of a session that is held all the time.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Words that came back.
    pub echoes: usize,
    /// The longest time until a word came back.
    pub slowest: Duration,
    /// Why the session broke, or could not be opened again after that.
    pub breaks: Vec<String>,
}

impl Held {
    pub(super) fn merge(&mut self, other: Self) {
        self.echoes += other.echoes;
        self.slowest = self.slowest.max(other.slowest);
        self.breaks.extend(other.breaks);
    }
}

impl Siege<'_> {
    /// Opens the session, through the sidecar that stays: a proxy of the gateway may go when the gateway is scaled in, and
    /// its sessions go with it.
    pub(super) fn open_session(&self) -> io::Result<TcpStream> {
        let ip = self.sidecars().iter().find_map(address).ok_or_else(|| io::Error::other("the pod has no address"))?;
        let mut session = self.node.connect(SocketAddr::new(ip, SIDECAR))?;
        greeting(&mut session)?;
        Ok(session)
    }

    /// Holds the session until `ended`, and opens it again if it breaks.
    pub(super) fn hold(&self, ended: &AtomicBool) -> Held {
        let mut session = self.long_session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = Held::default();
        while !ended.load(Relaxed) {
            let begun = Instant::now();
            match self.echo(&mut session) {
                Ok(()) => {
                    held.echoes += 1;
                    held.slowest = held.slowest.max(begun.elapsed());
                }
                Err(error) => held.breaks.push(format!("{error}, {:.1?} after the start", self.elapsed())),
            }
            thread::park_timeout(PAUSE);
        }
        held
    }

    /// Sends a word and waits until it is back. A session that breaks is forgotten.
    fn echo(&self, session: &mut Option<TcpStream>) -> io::Result<()> {
        let mut open = match session.take() {
            Some(open) => open,
            None => self.open_session()?,
        };
        if round_trip(&mut open, WORD)? != WORD {
            return Err(io::Error::other("another word came back"));
        }
        *session = Some(open);
        Ok(())
    }
}
