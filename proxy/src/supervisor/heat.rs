//! When a socket is hot: its connections come faster than one worker should accept them.

use std::sync::{Arc, Weak};

use crate::route::Served;

/// New connections between two looks, one second apart, that make a socket hot.
const HOT: u64 = 1000;

/// Observes the connections of one TCP socket.
#[derive(Debug, Default)]
pub(super) struct Heat {
    /// The route and its count of sessions at the last look.
    seen: (Weak<Served>, u64),
    /// Whether the socket was found hot before.
    was_hot: bool,
}

impl Heat {
    /// Called once a second with the route of the socket. True once: when at least 1000 connections have arrived since
    /// the last look, on the same route.
    pub(super) fn turns_hot(&mut self, served: &Arc<Served>) -> bool {
        // A listener counts its sessions over all its ports, so a range would also be sharded on its idle ports.
        if served.first().spec.load().end_port.is_some() {
            return false;
        }
        let opened = served.opened();
        let (known, before) = std::mem::replace(&mut self.seen, (Arc::downgrade(served), opened));
        let is_same = known.upgrade().is_some_and(|known| Arc::ptr_eq(&known, served));
        let is_hot = is_same && !self.was_hot && opened.saturating_sub(before) >= HOT;
        self.was_hot |= is_hot;
        is_hot
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::{
        shared::Shared,
        supervisor::fixtures::{id, listener},
    };

    fn served() -> Arc<Served> {
        Arc::new(Served::One(Shared::new(id("a"), listener(1, "b"), Arc::default(), Arc::default())))
    }

    fn connect(served: &Served, count: u64) {
        served.first().counters.opened.fetch_add(count, Relaxed);
    }

    #[test]
    fn a_quiet_socket_is_never_hot() {
        let (served, mut heat) = (served(), Heat::default());
        connect(&served, HOT * 5);
        for _ in 0..5 {
            assert!(!heat.turns_hot(&served), "the count alone says nothing");
            connect(&served, HOT - 1);
        }
    }

    #[test]
    fn a_busy_socket_turns_hot_once() {
        let (served, mut heat) = (served(), Heat::default());
        let looks: Vec<bool> = (0..4)
            .map(|_| {
                connect(&served, HOT);
                heat.turns_hot(&served)
            })
            .collect();
        assert_eq!(looks, [false, true, false, false]);
    }

    #[test]
    fn the_count_of_another_route_is_not_compared() {
        let (before, after, mut heat) = (served(), served(), Heat::default());
        assert!(!heat.turns_hot(&before));
        connect(&after, HOT);
        assert!(!heat.turns_hot(&after));
    }
}
