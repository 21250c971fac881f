//! Ids of sessions: never the same twice in a process, and others in the next.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{collections::BTreeSet, sync::Arc, thread};

use proptest::prelude::*;
use proxy::core::sessions::session_ids::SessionIds;
use proxy_api::SessionId;

#[test]
fn ids_are_the_numbers_of_splitmix64() {
    let ids = Arc::new(SessionIds::new(0)).of_worker();
    let texts = [(); 3].map(|()| ids.next_id().to_string());
    assert_eq!(texts, ["e220a8397b1dcdaf", "6e789e6aa1b965f4", "06c45d188009454f"]);
}

#[test]
fn sessions_of_all_threads_have_ids_of_their_own() {
    let ids = Arc::new(SessionIds::new(7));
    let take = || {
        let own = ids.of_worker();
        (0..10_000).map(|_| own.next_id()).collect::<Vec<SessionId>>()
    };
    let taken = thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(take));
        threads.map(|thread| thread.join().expect("no panic")).concat()
    });
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>().len(), 40_000);
}

#[test]
fn workers_take_ids_in_blocks() {
    let take = |ids: &Arc<SessionIds>| ids.of_worker();
    let alone = take(&Arc::new(SessionIds::new(7)));
    let line: Vec<SessionId> = (0..768).map(|_| alone.next_id()).collect();
    let ids = Arc::new(SessionIds::new(7));
    let (one, other) = (take(&ids), take(&ids));
    let first: Vec<SessionId> = (0..256).map(|_| one.next_id()).collect();
    assert_eq!((&first[..], other.next_id(), one.next_id()), (&line[..256], line[256], line[512]));
}

proptest! {
    #[test]
    fn processes_have_different_ids(seeds in any::<[u64; 2]>()) {
        prop_assume!(seeds[0] != seeds[1]);
        let [one, other] = seeds.map(|seed| Arc::new(SessionIds::new(seed)).of_worker().next_id());
        prop_assert_ne!(one, other);
    }
}
