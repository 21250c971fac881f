//! When to log that the system drops datagrams before the proxy reads them.

use std::collections::BTreeMap;

use proxy_api::ListenerId;

/// Shortest pause between two notices about one listener, in seconds.
const PAUSE: u64 = 600;

/// The losses that the log already shows.
#[derive(Debug, Default)]
pub struct Losses(BTreeMap<ListenerId, Logged>);

#[derive(Clone, Copy, Debug)]
struct Logged {
    /// Datagrams lost at the last notice.
    count: u64,
    /// Time of the last notice, in seconds of the process clock.
    at: u64,
}

impl Losses {
    /// Forgets a listener that is gone, or has lost nothing.
    pub fn forget(&mut self, id: &ListenerId) {
        self.0.remove(id);
    }

    /// Takes the number of datagrams that a live listener has lost, at `now` (seconds of the process clock). Returns how
    /// many are new, if there are any, no more often than every ten minutes.
    pub fn observe(&mut self, id: &ListenerId, count: u64, now: u64) -> Option<u64> {
        if count == 0 {
            self.forget(id);
            return None;
        }
        let before = self.0.get(id).copied();
        if before.is_some_and(|before| before.count == count || now.saturating_sub(before.at) < PAUSE) {
            return None;
        }
        self.0.insert(id.clone(), Logged { count, at: now });
        Some(count.saturating_sub(before.map_or(0, |before| before.count)))
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::Origin;

    use super::*;

    fn id(name: &str) -> ListenerId {
        ListenerId::new(Origin::port_forward("ns", "f"), name)
    }

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
            logged.extend(losses.observe(&id, lost, now).map(|new| (now, new)));
        }
        assert_eq!(logged, [(5, 5), (605, 600), (1205, 95)]);
    }

    #[test]
    fn each_listener_has_its_own_pause() {
        let (a, b, mut losses) = (id("a"), id("b"), Losses::default());
        assert_eq!(losses.observe(&a, 1, 0), Some(1));
        assert_eq!([losses.observe(&a, 2, 1), losses.observe(&b, 3, 1)], [None, Some(3)]);
        assert_eq!([losses.observe(&a, 2, PAUSE), losses.observe(&b, 4, PAUSE)], [Some(1), None]);
    }

    #[test]
    fn a_listener_that_comes_back_has_lost_all_that_it_counts_since() {
        let (id, mut losses) = (id("a"), Losses::default());
        assert_eq!([losses.observe(&id, 7, 1), losses.observe(&id, 8, 1)], [Some(7), None]);
        losses.forget(&id);
        assert!(losses.0.is_empty());
        assert_eq!(losses.observe(&id, 7, 1), Some(7), "it lost some again");
        assert_eq!(losses.observe(&id, 0, 2), None);
        assert!(losses.0.is_empty(), "its counters began again");
    }
}
