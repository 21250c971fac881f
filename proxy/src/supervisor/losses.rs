//! When to log that the system drops datagrams before the proxy reads them.

use std::collections::BTreeMap;

use proxy_api::ListenerId;

use super::notices::notice;
use crate::{
    log::{Level, Notice},
    net::UDP_BUFFER,
};

/// Shortest pause between two notices about one listener, in seconds.
const PAUSE: u64 = 600;

/// The losses that the log already shows.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeMap<ListenerId, Logged>);

#[derive(Debug)]
struct Logged {
    /// Datagrams lost at the last notice.
    count: u64,
    /// Time of the last notice, in seconds of the process clock.
    at: u64,
}

impl Losses {
    /// Takes the number of lost datagrams of each listener that has lost any, at `now` (seconds of the process clock);
    /// other listeners are forgotten. Returns a notice for each listener with new losses, no more often than every ten
    /// minutes.
    pub(super) fn observe(&mut self, seen: &BTreeMap<&ListenerId, u64>, now: u64) -> Vec<Notice> {
        self.0.retain(|id, _| seen.contains_key(id));
        let mut notices = Vec::new();
        for (&id, &count) in seen {
            let before = self.0.get(id).map(|logged| (logged.count, logged.at));
            if before.is_some_and(|(logged, at)| logged == count || now.saturating_sub(at) < PAUSE) {
                continue;
            }
            let lost = count.saturating_sub(before.map_or(0, |(logged, _)| logged));
            self.0.insert(id.clone(), Logged { count, at: now });
            notices.push(notice(Level::Warn, "datagrams_lost", id, message(lost)));
        }
        notices
    }
}

fn message(lost: u64) -> String {
    format!(
        "the system dropped {lost} datagram(s) because the receive buffer of a socket was full (reasons ReceiveBufferFull \
         and ReplyBufferFull of portlane_datagrams_dropped_total): for datagrams of clients, raise net.core.rmem_max of \
         the node to {UDP_BUFFER}; for replies, raise net.core.rmem_default; or give the proxy more CPU"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::fixtures::id;

    #[test]
    fn losses_are_logged_at_once_and_then_every_ten_minutes_while_there_are_more() {
        // D14
        let (id, mut losses) = (id("a"), Losses::default());
        let mut logged = Vec::new();
        for now in 0..2000 {
            let lost = match now {
                0..5 => 0,
                5..700 => now,
                _ => 700,
            };
            let seen = if lost == 0 { BTreeMap::new() } else { BTreeMap::from([(&id, lost)]) };
            logged.extend(losses.observe(&seen, now).into_iter().map(|notice| (now, notice.message)));
        }
        let times: Vec<u64> = logged.iter().map(|(now, _)| *now).collect();
        assert_eq!(times, [5, 605, 1205]);
        assert!(logged[1].1.contains("dropped 600 datagram"), "{}", logged[1].1);
        assert!(logged[1].1.contains("ReplyBufferFull") && logged[1].1.contains("rmem_default"), "{}", logged[1].1);
    }
}
