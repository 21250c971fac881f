//! Connections to a socket that match none of its listeners.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::core::logging::pace::Pace;

/// Why a connection matches no listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// No listener has the server name.
    UnknownServerName,
    /// The `ClientHello` has no server name.
    NoServerName,
    /// The client does not speak TLS.
    NotTls,
    /// No `ClientHello` within `handshakeSeconds`.
    HandshakeTimeout,
    /// Too many clients had not sent their `ClientHello` yet, and this one had waited longest.
    HandshakeLimit,
    /// The client closed without sending a byte, as health checks do.
    Probe,
    /// The client left before it sent its server name.
    ClientLeft,
    /// A PROXY header is required, and the peer is not in `trustedCIDRs`.
    UntrustedPeer,
    /// The PROXY header is missing or invalid.
    BadHeader,
}

impl Unroutable {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::UnknownServerName,
        Self::NoServerName,
        Self::NotTls,
        Self::HandshakeTimeout,
        Self::HandshakeLimit,
        Self::Probe,
        Self::ClientLeft,
        Self::UntrustedPeer,
        Self::BadHeader,
    ];

    /// Label value in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownServerName => "UnknownServerName",
            Self::NoServerName => "NoServerName",
            Self::NotTls => "NotTls",
            Self::HandshakeTimeout => "HandshakeTimeout",
            Self::HandshakeLimit => "HandshakeLimit",
            Self::Probe => "Probe",
            Self::ClientLeft => "ClientLeft",
            Self::UntrustedPeer => "UntrustedPeer",
            Self::BadHeader => "BadHeader",
        }
    }
}

/// Connections of one socket that matched no listener, by reason.
#[derive(Debug, Default)]
pub struct Unrouted {
    counts: [AtomicU64; Unroutable::ALL.len()],
    lines: [Pace; Unroutable::ALL.len()],
}

impl Unrouted {
    /// Counts one connection; returns the connections of this reason so far.
    pub fn count(&self, why: Unroutable) -> u64 {
        self.counts[why as usize].fetch_add(1, Relaxed) + 1
    }

    /// Whether to log the `count`th connection of this reason, which is refused at second `now`; if so, the connections
    /// of this reason since the last line.
    #[must_use]
    pub fn due(&self, why: Unroutable, now: u64, count: u64) -> Option<u64> {
        self.lines[why as usize].due(now, count)
    }

    /// The connections that no line of the log covers, by reason, if a line is due at second `now`.
    #[must_use]
    pub fn rest(&self, now: u64) -> Vec<(Unroutable, u64)> {
        let rest = |why: Unroutable| Some((why, self.lines[why as usize].rest(now, self.get(why))?));
        Unroutable::ALL.into_iter().filter_map(rest).collect()
    }

    /// Connections counted with this reason.
    #[must_use]
    pub fn get(&self, why: Unroutable) -> u64 {
        self.counts[why as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::core::logging::pace::EVERY;

    #[test]
    fn each_reason_has_a_place_and_a_label_of_its_own() {
        let unrouted = Unrouted::default();
        for (times, why) in (1..).zip(Unroutable::ALL) {
            let counts: Vec<u64> = (0..times).map(|_| unrouted.count(why)).collect();
            assert_eq!(counts.last(), Some(&times));
        }
        let counts = Unroutable::ALL.map(|why| unrouted.get(why));
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let labels = Unroutable::ALL.map(|why| (format!("{why:?}"), why.as_str().to_owned()));
        assert!(labels.iter().all(|(name, label)| name == label), "{labels:?}");
        assert_eq!(BTreeSet::from(labels).len(), Unroutable::ALL.len());
    }

    #[test]
    fn a_reason_is_told_beside_others_and_the_rest_of_it_once() {
        let unrouted = Unrouted::default();
        let told = |why| unrouted.due(why, 0, unrouted.count(why));
        assert_eq!([told(Unroutable::NotTls), told(Unroutable::NotTls)], [Some(1), None]);
        assert_eq!(told(Unroutable::BadHeader), Some(1), "another reason");
        unrouted.count(Unroutable::NotTls);
        assert!(unrouted.rest(EVERY - 1).is_empty());
        assert_eq!(unrouted.rest(EVERY), [(Unroutable::NotTls, 2)]);
        assert!(unrouted.rest(2 * EVERY).is_empty());
    }
}
