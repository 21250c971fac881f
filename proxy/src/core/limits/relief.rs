//! Which sessions are reset so that a shortage of memory ends: those of the sources that hold most in the buffers of their
//! sockets ([ADR 0128](../../../../docs/adr/0128-who-fills-the-memory-is-reset.md)).
//!
//! The longer a shortage lasts, the less a source may hold. So a shortage that a few sources cause ends soon, one of many
//! sources ends, too, and a peer that is slow for a moment loses nothing.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::IpAddr,
};

use crate::core::limits::{capacity::SESSION_BYTES, limiter::network};

/// The look at a shortage, one a second, from which on sessions are reset.
const PATIENCE: u64 = 3;
/// The part of the limit that a source must hold by then, a tenth. It falls with the square of the time.
const PART: u64 = 10;
/// Looks after which the part does not fall any more, which is then a hundred-thousandth: less than a session is spared,
/// unless the limit is large.
const LONGEST: u64 = 300;
/// Bytes that a session may hold and is never reset: no more than the room for sessions sets aside for them. Buffers of
/// this size fit beside each other, so no shortage is due to them.
pub const SPARED_BYTES: u64 = 8 << 10;
// An idle session takes 11 KiB.
const _: () = assert!((11 << 10) + SPARED_BYTES <= SESSION_BYTES);
/// Most sessions that are reset at a look.
const MOST_AT_ONCE: usize = 1024;

/// What a session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<K> {
    /// The session.
    pub session: K,
    /// Address of its client.
    pub client: IpAddr,
    /// Bytes in the buffers of its sockets, with what the system needs around them, and on their way between the two.
    pub bytes: u64,
}

/// How long memory has been short, in looks. Each look without a shortage takes one off again: a source that lets a
/// shortage end and brings it back at once has no new patience.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience(u64);

impl Patience {
    /// Counts a look, which has found that memory is short or is not.
    pub fn look(&mut self, is_short: bool) {
        self.0 = if is_short { (self.0 + 1).min(LONGEST) } else { self.0.saturating_sub(1) };
    }

    /// The bytes from which on a source has sessions reset, under this limit of the memory. `None`: nobody has any yet.
    #[must_use]
    pub fn least(self, limit: u64) -> Option<u64> {
        (self.0 >= PATIENCE).then(|| limit / PART * (PATIENCE * PATIENCE) / (self.0 * self.0))
    }
}

/// The sessions of one source.
struct OfSource<K> {
    bytes: u64,
    /// Those that are not spared, the largest first.
    sessions: BinaryHeap<(u64, Reverse<K>, IpAddr)>,
}

/// Chooses the sessions to reset so that `need` bytes are free, in this order: one after another the largest session of
/// the source that holds most then, as long as that is at least `least` bytes. None if all of them would not be enough:
/// something else holds the memory then. A source is a [`network`].
#[must_use]
pub fn choose<K: Copy + Ord>(held: impl IntoIterator<Item = Held<K>>, need: u64, least: u64) -> Vec<Held<K>> {
    let mut sources = BTreeMap::<IpAddr, OfSource<K>>::new();
    let mut all = 0_u64;
    for Held { session, client, bytes } in held {
        let empty = || OfSource { bytes: 0, sessions: BinaryHeap::new() };
        let source = sources.entry(network(client)).or_insert_with(empty);
        source.bytes = source.bytes.saturating_add(bytes);
        if bytes > SPARED_BYTES {
            all = all.saturating_add(bytes);
            source.sessions.push((bytes, Reverse(session), client));
        }
    }
    let mut order: BinaryHeap<_> = sources.iter().map(|(address, source)| (source.bytes, Reverse(*address))).collect();
    let (mut chosen, mut freed) = (Vec::new(), 0_u64);
    if all < need {
        return chosen;
    }
    while freed < need && chosen.len() < MOST_AT_ONCE {
        let Some((held, Reverse(address))) = order.pop().filter(|(held, _)| *held >= least) else { break };
        let largest = sources.get_mut(&address).and_then(|source| source.sessions.pop());
        // A source may hold much in sessions that are spared.
        let Some((bytes, Reverse(session), client)) = largest else { continue };
        freed = freed.saturating_add(bytes);
        chosen.push(Held { session, client, bytes });
        order.push((held.saturating_sub(bytes), Reverse(address)));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A session of the source with this last byte.
    fn held(session: u32, source: u8, bytes: u64) -> Held<u32> {
        Held { session, client: [192, 0, 2, source].into(), bytes }
    }

    /// The sessions that are chosen of these, given as source and bytes, in their order.
    fn chosen(sessions: &[(u8, u64)], need: u64, least: u64) -> Vec<u32> {
        let all = (0..).zip(sessions).map(|(session, &(source, bytes))| held(session, source, bytes));
        choose(all, need, least).into_iter().map(|held| held.session).collect()
    }

    #[test]
    fn the_largest_sessions_of_the_largest_source_go_until_the_need_is_met() {
        let all = [(1, 2 * MIB), (2, 5 * MIB), (1, 4 * MIB), (1, 3 * MIB), (2, MIB)];
        for (need, least, expected) in [
            (0, 0, vec![]),
            (1, 0, vec![2]),
            (4 * MIB, 0, vec![2]),
            // The other source holds more now.
            (4 * MIB + 1, 0, vec![2, 1]),
            (10 * MIB, 0, vec![2, 1, 3]),
            (15 * MIB, 0, vec![2, 1, 3, 0, 4]),
            // Something else holds the memory.
            (15 * MIB + 1, 0, vec![]),
            (15 * MIB, 2 * MIB, vec![2, 1, 3, 0]),
            (15 * MIB, 6 * MIB, vec![2, 1]),
            (15 * MIB, 9 * MIB, vec![2]),
            (15 * MIB, 9 * MIB + 1, vec![]),
        ] {
            assert_eq!(chosen(&all, need, least), expected, "{need} bytes, {least} of a source");
        }
    }

    #[test]
    fn sessions_that_hold_little_stay_however_many_there_are() {
        let mut all = vec![(1, SPARED_BYTES); 10_000];
        assert!(chosen(&all, 1, 0).is_empty());
        all.push((2, SPARED_BYTES + 1));
        assert_eq!(chosen(&all, 1, 0), [10_000], "of the source that holds less");
    }

    #[test]
    fn a_look_resets_a_bounded_number_of_sessions() {
        let all = vec![(1, 20 << 10); 10_000];
        assert_eq!(chosen(&all, 10_000 * (20 << 10), 0).len(), MOST_AT_ONCE);
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one_source() {
        let of = |session: u32, network: u16, host: u16, bytes: u64| {
            let client = IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]);
            Held { session, client, bytes }
        };
        let all = (0..4).map(|host| of(host.into(), 1, host, MIB)).chain([of(9, 2, 0, 2 * MIB)]);
        let chosen = choose(all, MIB, 4 * MIB);
        assert_eq!(chosen, [of(0, 1, 0, MIB)]);
    }

    #[test]
    fn a_source_may_hold_less_the_longer_a_shortage_lasts() {
        let mut patience = Patience::default();
        let mut least = |is_short: bool| {
            patience.look(is_short);
            patience.least(600 * MIB).map(|bytes| bytes / MIB)
        };
        assert_eq!([true, true, true, true].map(&mut least), [None, None, Some(60), Some(33)]);
        assert_eq!([false, false, false, false, false].map(&mut least), [Some(60), None, None, None, None]);
        for _ in 0..10_000 {
            least(true);
        }
        assert_eq!(least(true), Some(0), "less than a MiB");
        assert_eq!(patience.least(600 * MIB), Some(600 * MIB / 100_000));
    }

    #[test]
    fn a_shortage_that_comes_back_at_once_finds_no_new_patience() {
        let mut patience = Patience::default();
        for is_short in [[true; 8], [false; 8], [true; 8]].concat() {
            patience.look(is_short);
        }
        let mut again = patience;
        for _ in 0..2 {
            again.look(false);
        }
        again.look(true);
        assert_eq!((patience.least(700), again.least(700)), (Some(9), Some(12)));
    }

    #[test]
    fn the_largest_limit_has_its_part() {
        let mut patience = Patience::default();
        for _ in 0..PATIENCE {
            patience.look(true);
        }
        assert_eq!(patience.least(u64::MAX), Some(u64::MAX / 10));
    }

    proptest! {
        /// What is chosen frees no more than the need and one session; without its last session, less than the need. Each
        /// is the largest of the source that holds most at that point, and holds enough.
        #[test]
        fn only_the_largest_source_has_sessions_reset_and_no_more_than_are_needed(
            sessions in prop::collection::vec((0..4_u8, 0..100_u64), 0..60),
            need in 0..3000_u64,
            least in 0..1000_u64,
        ) {
            let kib = |bytes: u64| bytes << 10;
            let all: Vec<Held<u32>> =
                (0..).zip(sessions).map(|(session, (source, size))| held(session, source, kib(size))).collect();
            let chosen = choose(all.iter().copied(), kib(need), kib(least));
            let backwards = choose(all.iter().rev().copied(), kib(need), kib(least));
            prop_assert_eq!(&chosen, &backwards, "whatever the order");
            let sum: u64 = all.iter().map(|one| one.bytes).filter(|bytes| *bytes > SPARED_BYTES).sum();
            prop_assert!(sum >= kib(need) || chosen.is_empty(), "something else holds the memory");
            let mut left = all;
            let mut freed = 0;
            for one in &chosen {
                prop_assert!(freed < kib(need));
                let of = |client: IpAddr| left.iter().filter(move |other| other.client == client);
                let bytes = |client: IpAddr| of(client).map(|other| other.bytes).sum::<u64>();
                prop_assert!(bytes(one.client) >= kib(least));
                // Another source may hold more only in sessions that are spared.
                let has_more = |other: &Held<u32>| {
                    other.bytes > SPARED_BYTES && bytes(other.client) > bytes(one.client)
                };
                prop_assert!(!left.iter().any(has_more));
                prop_assert!(of(one.client).all(|other| other.bytes <= one.bytes) && one.bytes > SPARED_BYTES);
                freed += one.bytes;
                left.retain(|other| other.session != one.session);
            }
        }
    }
}
