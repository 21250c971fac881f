//! When a socket is hot: its connections come faster than one worker should accept them.

use std::{
    mem,
    sync::{Arc, Weak},
};

/// New connections between two observations, one second apart, that make a socket hot.
pub const HOT: u64 = 1000;

/// Observes the connections of one TCP socket with routes of this type.
#[derive(Debug)]
pub struct Heat<R> {
    /// The route and its count of connections at the last observation.
    seen: (Weak<R>, u64),
    /// Whether the socket was found hot before.
    was_hot: bool,
}

impl<R> Default for Heat<R> {
    /// The state of a socket that was never observed.
    fn default() -> Self {
        Self { seen: (Weak::new(), 0), was_hot: false }
    }
}

impl<R> Heat<R> {
    /// Called once a second with the route of the socket, and its total number of connections; `None`: they are not
    /// counted for this socket alone. Returns true once: when at least 1000 connections have arrived since the last
    /// observation, on the same route.
    pub fn turns_hot(&mut self, route: &Arc<R>, opened: Option<u64>) -> bool {
        let Some(opened) = opened else { return false };
        let (known, before) = mem::replace(&mut self.seen, (Arc::downgrade(route), opened));
        let is_same = known.upgrade().is_some_and(|known| Arc::ptr_eq(&known, route));
        let is_hot = is_same && !self.was_hot && opened.saturating_sub(before) >= HOT;
        self.was_hot = self.was_hot || is_hot;
        is_hot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_socket_is_never_hot() {
        let (route, mut heat) = (Arc::new(()), Heat::default());
        let looks = (5..10).map(|look| heat.turns_hot(&route, Some(HOT * 5 + look * (HOT - 1))));
        assert_eq!(looks.filter(|hot| *hot).count(), 0, "the count alone says nothing");
    }

    #[test]
    fn a_busy_socket_turns_hot_once() {
        let (route, mut heat) = (Arc::new(()), Heat::default());
        let looks = [1, 2, 3, 4].map(|look| heat.turns_hot(&route, Some(HOT * look)));
        assert_eq!(looks, [false, true, false, false]);
    }

    #[test]
    fn a_socket_that_was_quiet_turns_hot_later() {
        let (route, mut heat) = (Arc::new(()), Heat::default());
        let looks = [0, HOT - 1, 2 * HOT - 2, 3 * HOT - 2].map(|opened| heat.turns_hot(&route, Some(opened)));
        assert_eq!(looks, [false, false, false, true]);
    }

    #[test]
    fn the_count_of_another_route_is_not_compared() {
        let (before, after, mut heat) = (Arc::new(()), Arc::new(()), Heat::default());
        assert!(!heat.turns_hot(&before, Some(0)));
        assert!(!heat.turns_hot(&after, Some(HOT)));
        assert!(heat.turns_hot(&after, Some(2 * HOT)));
    }

    #[test]
    fn a_socket_whose_connections_are_not_counted_alone_is_never_hot() {
        let (route, mut heat) = (Arc::new(()), Heat::default());
        assert!(!heat.turns_hot(&route, Some(0)));
        assert!(!heat.turns_hot(&route, None));
        assert!(heat.turns_hot(&route, Some(HOT)), "what was seen before stays");
    }
}
