//! The room of the process for TCP sessions, and the bound of each party in it.

use proxy_api::doors::{leaves_room, most_leaving_room};

/// Room of the process for TCP sessions, in sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRoom {
    /// Most sessions.
    pub most: usize,
    /// Sessions that fit in beside those that have their room already, including the new one.
    pub free: usize,
}

impl SessionRoom {
    /// Whether a source or namespace with `own` other sessions may have one more: see [`leaves_room`].
    #[must_use]
    pub fn admits(self, own: usize) -> bool {
        leaves_room(own, self.free, self.most)
    }

    /// The room as seen by a session that has not taken its own yet.
    #[must_use]
    pub fn with_one_more(self) -> Self {
        Self { free: self.free.saturating_sub(1), ..self }
    }

    /// The number of sessions at which a source or namespace gets no more, depending on the free room.
    #[must_use]
    pub fn most_of_one(self) -> usize {
        most_leaving_room(self.free, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_place_yet_sees_the_room_without_its_own() {
        let room = |free| SessionRoom { most: 8, free };
        assert_eq!([3, 1, 0].map(|free| room(free).with_one_more()), [2, 0, 0].map(room));
    }

    #[test]
    fn one_gets_a_place_exactly_while_it_has_fewer_than_the_most_of_one() {
        for free in 0..=8 {
            let room = SessionRoom { most: 8, free };
            assert!(room.admits(room.most_of_one() - 1) && !room.admits(room.most_of_one()), "{free} free");
        }
    }
}
