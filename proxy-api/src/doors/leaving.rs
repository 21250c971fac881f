//! Decides which party may have one more place of a shared room, so that a few cannot fill it.
//!
//! The bound of each party follows the free places, as in switches whose ports share a buffer (Choudhury and Hahne,
//! 1998). There it is a multiple of the free space; here it is a multiple of its cube. A switch port frees its buffer
//! soon, but a connection may stay for hours. With a plain multiple, each party that arrives after another and stays
//! would leave the same part of what the previous one left, and a few of them would fill any room. With the cube, each
//! one leaves the larger part of a small rest.

use std::{net::IpAddr, time::Duration};

use super::{Admission, Places, Refusal, Source, weight};

/// A party may have this many times the cube of the free part of the room: alone three quarters, 48 × (1/4)³.
const TIMES: u128 = 48;
/// A source has its first places however many are free: one per this many places of the room, at least one and at most
/// [`MOST_FIRST`]. A client that opens a connection as its previous one ends has both for a moment.
const FIRST_PART: usize = 32;
/// Most places of one party that are admitted however many are free.
const MOST_FIRST: usize = 4;

/// Whether a party that has `own` places of a room of `most` may have one more, which leaves `free` places.
///
/// The first places, four in a room of 128 or more, are always admitted. One party alone gets three quarters of the
/// room, rounded down. However they come, stay and go, `n` parties leave 1/√(1 + 96 n) of the room free, less their
/// first places. So a room of 128 or more has a place for another party as long as 1552 n³ is not more than the square
/// of `most`, and a small one as long as 6 n² is not more than `most`.
#[must_use]
pub const fn leaves_room(own: usize, free: usize, most: usize) -> bool {
    own < first_places(most) || square(most).saturating_mul(own as u128) <= cube(free).saturating_mul(TIMES)
}

const fn square(places: usize) -> u128 {
    let places = places as u128;
    places.saturating_mul(places)
}

const fn cube(places: usize) -> u128 {
    square(places).saturating_mul(places as u128)
}

/// Places of one that are admitted while a place of a room of `most` is free: one, and four in a room of 128 or more.
const fn first_places(most: usize) -> usize {
    match most / FIRST_PART {
        0 => 1,
        part if part < MOST_FIRST => part,
        _ => MOST_FIRST,
    }
}

/// The number of places of a room of `most` with which a party gets no more while another place leaves `free`: a party
/// with fewer gets one more by [`leaves_room`].
#[must_use]
pub fn most_leaving_room(free: usize, most: usize) -> usize {
    let part = cube(free).saturating_mul(TIMES);
    match part.checked_div(square(most)) {
        Some(own) if part < u128::MAX => {
            let own = usize::try_from(own).unwrap_or(usize::MAX);
            own.saturating_add(1).max(first_places(most))
        }
        // There is no bound, or the result exceeds what can be counted.
        _ => usize::MAX,
    }
}

impl Places {
    /// Like [`Places::admit`], but a few sources cannot take all places of strangers: see [`leaves_room`]. A source
    /// counts as having a third of the places of its IPv6 /64, if that is more than its own.
    pub fn admit_leaving_room(&mut self, source: IpAddr, now: Duration) -> Admission {
        let (of_address, of_network) = self.sources.held(self.sources.counted_as(Source::of(source)));
        let own = weight(of_address, of_network);
        let (taken, most) = (self.strangers.len().saturating_add(1), self.bounds.strangers);
        match most.checked_sub(taken) {
            Some(free) if !leaves_room(own, free, most) => Admission::Refuse(Refusal::SourceFull),
            _ => self.admit(source, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::doors::{Bounds, Evict};

    /// Whether a party that has so many places may have one more, which leaves so many free, of so many.
    type Rule = fn(usize, usize, usize) -> bool;

    /// The parties in a room, by the number of their places.
    struct Room {
        rule: Rule,
        most: usize,
        held: Vec<usize>,
    }

    impl Room {
        fn of(most: usize, count: usize) -> Self {
            Self { rule: leaves_room, most, held: vec![0; count] }
        }

        fn free(&self) -> usize {
            self.most - self.held.iter().sum::<usize>()
        }

        fn enter(&mut self, who: usize) -> bool {
            let admitted = self.free().checked_sub(1).is_some_and(|free| (self.rule)(self.held[who], free, self.most));
            self.held[who] += usize::from(admitted);
            admitted
        }

        /// Fills a room with `count` parties, one after another. Each takes all that it gets, and stays.
        fn filled_by(count: usize, most: usize) -> Self {
            let mut room = Self::of(most, count);
            for who in 0..count {
                while room.enter(who) {}
            }
            room
        }

        /// The fewest parties that are known to fill a room: some take all that they get, one after another, and then
        /// the others take their first places.
        fn fewest_that_fill(rule: Rule, most: usize) -> usize {
            let mut room = Self { rule, ..Self::of(most, 0) };
            let mut fewest = most;
            while room.free() > 0 {
                let (who, others) = (room.held.len(), room.free().div_ceil(first_places(most)));
                fewest = fewest.min(who + others);
                room.held.push(0);
                while room.enter(who) {}
            }
            fewest
        }
    }

    #[test]
    fn each_of_those_who_stay_gets_less_and_leaves_more_to_the_next() {
        assert_eq!(Room::filled_by(1, 16).held, [12]);
        assert_eq!(Room::filled_by(2, 16).held, [12, 2]);
        assert_eq!(Room::filled_by(3, 16).held, [12, 2, 1]);
        assert_eq!(Room::filled_by(4, 16).held, [12, 2, 1, 1], "a first place is admitted while one is free");
        assert_eq!(Room::filled_by(3, 25_000).held, [18_750, 2896, 1001]);
        assert_eq!([20, 50].map(|count| Room::filled_by(count, 25_000).free()), [628, 370]);
    }

    // D7
    #[test]
    fn it_takes_more_parties_to_fill_a_room_than_with_a_smaller_power_of_what_is_free() {
        let as_many: Rule = |own, free, most| own < first_places(most) || own <= free;
        let squared: Rule = |own, free, most| own < first_places(most) || own * most <= 12 * free * free;
        let of = |most| [as_many, squared, leaves_room].map(|rule| Room::fewest_that_fill(rule, most));
        assert_eq!(of(25_000), [14, 50, 143]);
        assert_eq!(of(624), [8, 10, 15]);
    }

    #[test]
    fn small_rooms_serve_who_comes_first() {
        let of_one = |most| Room::filled_by(1, most).held[0];
        assert_eq!([1, 2, 3, 4, 5, 8].map(of_one), [1, 1, 2, 3, 3, 6]);
        assert!(leaves_room(0, 0, 0) && leaves_room(0, 0, usize::MAX));
        assert!(leaves_room(9, usize::MAX, usize::MAX), "no bound at all");
    }

    #[test]
    fn a_source_at_a_door_leaves_room_to_others() {
        let bounds = Bounds { strangers: 16, per_source: 16, known: 0, evict: Evict::Never, rates: None };
        let (mut places, now) = (Places::new(bounds), Duration::ZERO);
        let mut come = |last: u8| places.admit_leaving_room(IpAddr::from([192, 0, 2, last]), now);
        let mut fill = |last: u8| (0..16).take_while(|_| matches!(come(last), Admission::Admit(_))).count();
        assert_eq!([1, 1, 2, 3, 4].map(&mut fill), [12, 0, 2, 1, 1]);
        assert_eq!(come(1), Admission::Refuse(Refusal::Full));
    }

    #[test]
    fn without_a_bound_there_is_no_most() {
        assert_eq!(
            [(0, 0), (usize::MAX, usize::MAX)].map(|(free, most)| most_leaving_room(free, most)),
            [usize::MAX; 2]
        );
        assert_eq!(most_leaving_room(0, usize::MAX), MOST_FIRST, "the first places");
    }

    #[test]
    fn a_client_with_few_connections_gets_the_next_one_in_a_room_that_is_nearly_full() {
        assert_eq!([0, 31, 32, 63, 64, 96, 128, 25_000].map(first_places), [1, 1, 1, 1, 2, 3, 4, 4]);
        assert_eq!([0, 1, 3, 4].map(|own| leaves_room(own, 0, 624)), [true, true, true, false]);
        assert_eq!([0, 1].map(|own| leaves_room(own, 0, 63)), [true, false]);
    }

    proptest! {
        #[test]
        fn one_gets_no_more_with_the_most_that_it_may_have(most in 1_usize..100_000, free in 0_usize..100_000) {
            let bound = most_leaving_room(free.min(most), most);
            prop_assert!(leaves_room(bound - 1, free.min(most), most) && !leaves_room(bound, free.min(most), most));
        }

        #[test]
        fn one_alone_gets_three_quarters(most in 1_usize..100_000) {
            prop_assert_eq!(Room::filled_by(1, most).held[0], (most * 3 / 4).max(1));
        }

        #[test]
        fn however_some_come_stay_and_go_there_is_a_place_for_another_one(
            most in 6_usize..2000,
            count in 1_usize..20,
            steps in vec((0_usize..20, 0_usize..2000, any::<bool>()), 0..60),
        ) {
            let first = first_places(most);
            let fits = |count: &usize| {
                if first == MOST_FIRST { 1552 * count.pow(3) <= most * most } else { 6 * count * count <= most }
            };
            let count = (1..=count).rev().find(fits).unwrap_or(1);
            let mut room = Room::of(most, count);
            for (who, places, comes) in steps {
                let who = who % count;
                if comes {
                    for _ in 0..places {
                        room.enter(who);
                    }
                } else {
                    room.held[who] = room.held[who].saturating_sub(places);
                }
                prop_assert!(room.free() >= 1, "{:?} of {}", room.held, most);
                let left = room.free() + first * count;
                prop_assert!(left * left * (1 + 96 * count) >= most * most, "{:?} of {}", room.held, most);
            }
        }
    }
}
