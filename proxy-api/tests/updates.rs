//! Updates in parts, the revisions that a proxy holds, and the digests that operator and proxy compare.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use proptest::prelude::*;
use proxy_api::{
    Assembler, CONTRACT, Change, ChangeError, Configuration, Digest, DigestSum, EndpointSet, Held, Listener,
    ListenerId, MAX_LISTENERS, Named, Offer, Revision, Version,
};

const V1: &str = include_str!("documents/v1.yaml");

fn v1() -> Configuration {
    Configuration::decode(V1.as_bytes()).expect("a document of version 1")
}

fn listener(port: u16) -> Listener {
    let mut listener = v1().supported().next().expect("a listener").1.clone();
    listener.socket.port = port;
    listener.sealed()
}

fn id(text: &str) -> ListenerId {
    text.parse().expect("a listener id")
}

fn revision(text: &str) -> Revision {
    Revision(text.into())
}

/// A set of this many endpoints.
fn endpoints(count: u16) -> EndpointSet {
    (0..count).map(|n| SocketAddr::from(([10, 0, 0, 1], 1 + n))).collect()
}

/// A configuration of these listeners, by name, with their ports.
fn configuration(listeners: &[(&str, u16)]) -> Configuration {
    let listeners = listeners.iter().map(|(name, port)| (id(name), Offer::from(listener(*port)))).collect();
    Configuration { listeners, ..Configuration::default() }
}

fn version(number: u64) -> Version {
    Version { epoch: "e".to_owned(), number }
}

fn names(parts: &[Change]) -> Vec<Vec<String>> {
    parts.iter().map(|part| part.upserts.keys().map(ToString::to_string).collect()).collect()
}

#[test]
fn held_revisions_are_split_into_parts_of_which_the_last_one_is_marked() {
    let held = Held {
        listeners: ["a/a/a", "a/a/b", "a/a/c"].map(|name| (id(name), revision(name))).into(),
        endpoints: ["x", "y"].map(|name| (name.to_owned(), revision(name))).into(),
        agents: ["u", "v"].map(|uid| (uid.to_owned(), revision(uid))).into(),
        peers: [("p".to_owned(), revision("p"))].into(),
        sidecars: [("s".to_owned(), revision("s"))].into(),
        commit: false,
    };
    let parts = held.clone().into_parts(2);
    let named = |part: &Held| part.endpoints.len() + part.agents.len() + part.peers.len() + part.sidecars.len();
    let sizes: Vec<_> = parts.iter().map(|part| part.listeners.len() + named(part)).collect();
    assert_eq!(sizes, [2, 2, 2, 2, 1]);
    assert_eq!(parts.iter().map(|part| part.commit).collect::<Vec<_>>(), [false, false, false, false, true]);
    let mut whole = Held { commit: true, ..Held::default() };
    for part in parts {
        whole.listeners.extend(part.listeners);
        whole.endpoints.extend(part.endpoints);
        whole.agents.extend(part.agents);
        whole.peers.extend(part.peers);
        whole.sidecars.extend(part.sidecars);
    }
    assert_eq!(whole, Held { commit: true, ..held.clone() });
    assert_eq!(held.into_parts(0).len(), 9, "a part has at least one item");
    assert_eq!(Held::default().into_parts(2), [Held { commit: true, ..Held::default() }]);
}

#[test]
fn the_held_revisions_of_a_configuration_are_those_of_its_listeners_and_endpoint_sets() {
    let held = v1().held();
    assert_eq!(held.listeners, BTreeMap::from([(id("shop/shop-db/pg"), revision("d2c9a9c0ffee0001"))]));
    assert_eq!(held.endpoints, BTreeMap::from([("shop/pg:5432".to_owned(), revision("c25788390008aab7"))]));
    assert!(held.commit);
}

#[test]
fn an_update_holds_new_changed_and_removed_items_and_no_others() {
    let mut old = configuration(&[("a/a/gone", 1), ("a/a/kept", 2), ("a/a/changed", 3)]);
    old.endpoints = ["gone", "kept", "changed"].map(|name| (name.to_owned(), endpoints(1))).into();
    let mut new = configuration(&[("a/a/kept", 2), ("a/a/changed", 4), ("a/a/new", 5)]);
    new.version = version(7);
    new.endpoints = [("kept", 1), ("changed", 2), ("new", 1)].map(|(name, n)| (name.to_owned(), endpoints(n))).into();
    let parts = new.changes_from(&old.held(), &BTreeSet::new(), 100);
    assert_eq!(parts.len(), 1);
    let part = &parts[0];
    assert_eq!((part.contract, &part.version, part.commit), (CONTRACT, &version(7), true));
    assert_eq!(part.removals, BTreeSet::from([id("a/a/gone")]));
    assert_eq!(names(&parts), [["a/a/changed", "a/a/new"]]);
    assert_eq!(part.endpoints.keys().collect::<Vec<_>>(), ["changed", "new"]);
    assert_eq!(part.endpoint_removals, BTreeSet::from(["gone".to_owned()]));
}

#[test]
fn no_listener_of_an_unreadable_forward_and_no_endpoint_set_is_removed() {
    let mut old = configuration(&[("ns/unreadable/tcp", 1), ("ns/deleted/tcp", 2), ("other/unreadable/tcp", 3)]);
    old.endpoints = BTreeMap::from([("set".to_owned(), endpoints(1))]);
    let unreadable = BTreeSet::from([proxy_api::Origin::port_forward("ns", "unreadable")]);
    let parts = Configuration::default().changes_from(&old.held(), &unreadable, 100);
    assert_eq!(parts[0].removals, BTreeSet::from([id("ns/deleted/tcp"), id("other/unreadable/tcp")]));
    assert!(parts[0].endpoint_removals.is_empty());
    let parts = Configuration::default().changes_from(&old.held(), &BTreeSet::new(), 100);
    assert_eq!((parts[0].removals.len(), parts[0].endpoint_removals.len()), (3, 1));
}

#[test]
fn parts_are_filled_and_only_the_last_one_commits() {
    let new = configuration(&[("a/a/a", 1), ("a/a/b", 2), ("a/a/c", 3), ("a/a/d", 4)]);
    let parts = new.changes_from(&Held::default(), &BTreeSet::new(), 2);
    assert_eq!(names(&parts), [["a/a/a", "a/a/b"], ["a/a/c", "a/a/d"]]);
    assert_eq!(parts.iter().map(|part| part.commit).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_set_counts_as_one_item_more_for_each_16_of_its_endpoints() {
    let sets = BTreeMap::from([
        ("a".to_owned(), endpoints(15)),
        ("b".to_owned(), endpoints(16)),
        ("c".to_owned(), endpoints(32)),
    ]);
    let new = Configuration { endpoints: sets, ..Configuration::default() };
    let parts = |per_part| {
        let parts = new.changes_from(&Held::default(), &BTreeSet::new(), per_part);
        parts.iter().map(|part| part.endpoints.keys().cloned().collect::<String>()).collect::<Vec<_>>()
    };
    assert_eq!(parts(6), ["abc"]);
    assert_eq!(parts(5), ["ab", "c"]);
    assert_eq!(parts(3), ["ab", "c"]);
    assert_eq!(parts(2), ["a", "b", "c"], "a set that is too large for a part has one of its own");
}

#[test]
fn a_part_of_another_version_before_the_commit_drops_both() {
    let current = Configuration { version: version(1), ..Configuration::default() };
    let part = |number, commit| Change { contract: CONTRACT, version: version(number), commit, ..Change::default() };
    let mut stream = Assembler::default();
    let first = Change { upserts: configuration(&[("a/a/a", 1)]).listeners, ..part(2, false) };
    assert_eq!(stream.take(&current, first), Ok(None));
    assert_eq!(stream.take(&current, part(3, true)), Err(ChangeError::Mixed { expected: 2, found: 3 }));
    let reached = stream.take(&current, part(3, true)).expect("a new update").expect("its only part");
    assert_eq!(reached, Configuration { version: version(3), ..Configuration::default() });
}

#[test]
fn an_assembled_configuration_has_the_contract_of_the_writer_of_the_update() {
    let part = Change { contract: 0, version: version(1), commit: true, ..Change::default() };
    let current = Configuration { version: version(0), ..Configuration::default() };
    let reached = Assembler::default().take(&current, part).expect("a newer version").expect("the only part");
    assert_eq!((current.contract, reached.contract), (CONTRACT, 0));
}

#[test]
fn an_update_to_more_listeners_than_a_proxy_accepts_is_refused() {
    let offer = Offer::from(listener(1));
    let update = |count: usize| Change {
        contract: CONTRACT,
        upserts: (0..count).map(|n| (id(&format!("ns/forward/l{n}")), offer.clone())).collect(),
        commit: true,
        ..Change::default()
    };
    let current = Configuration::default();
    let reached = Assembler::default().take(&current, update(MAX_LISTENERS)).expect("as many as accepted");
    assert_eq!(reached.expect("the only part").listeners.len(), MAX_LISTENERS);
    assert_eq!(Assembler::default().take(&current, update(MAX_LISTENERS + 1)), Err(ChangeError::TooMany));
}

#[test]
fn within_an_epoch_numbers_never_fall_and_another_epoch_begins_on_a_new_stream_only() {
    let other = |number| Version { epoch: "another".to_owned(), number };
    for new_stream in [false, true] {
        assert!(version(5).admits(&version(5), new_stream) && version(5).admits(&version(6), new_stream));
        assert!(!version(5).admits(&version(4), new_stream));
        assert_eq!(version(5).admits(&other(1), new_stream), new_stream);
        assert_eq!(version(5).admits(&other(9), new_stream), new_stream);
    }
}

#[test]
fn a_digest_kept_incrementally_equals_the_digest_of_the_remaining_items() {
    let (gone, kept) = (configuration(&[("a/a/gone", 1)]), configuration(&[("a/a/kept", 2)]));
    let revision_of = |configuration: &Configuration, name: &str| configuration.listeners[&id(name)].revision().clone();
    let mut sum = DigestSum::default();
    assert_eq!(sum.digest(), Digest("0".repeat(32)));
    sum.add_listener(&id("a/a/gone"), &revision_of(&gone, "a/a/gone"));
    assert_eq!(sum.digest(), gone.digest());
    sum.add_endpoints("gone", &endpoints(1));
    sum.add_listener(&id("a/a/kept"), &revision_of(&kept, "a/a/kept"));
    sum.add_endpoints("kept", &endpoints(2));
    sum.remove_listener(&id("a/a/gone"), &revision_of(&gone, "a/a/gone"));
    sum.remove_endpoints("gone", &endpoints(1));
    let remaining =
        Configuration { endpoints: BTreeMap::from([("kept".to_owned(), endpoints(2))]), version: version(9), ..kept };
    assert_eq!(sum.digest(), remaining.digest());
    sum.remove_endpoints("kept", &endpoints(2));
    assert_ne!(sum.digest(), remaining.digest());
}

#[test]
fn an_update_hashes_its_own_items_and_no_others_for_the_digest() {
    let ids: Vec<ListenerId> = (0..1000).map(|n| id(&format!("ns/f{n}/l"))).collect();
    let offer = Offer::from(listener(1));
    let listeners: BTreeMap<ListenerId, Offer> = ids.iter().map(|id| (id.clone(), offer.clone())).collect();
    let sets = ["kept", "gone"].map(|name| (name.to_owned(), endpoints(1))).into();
    let mut current = Configuration { listeners, endpoints: sets, version: version(1), ..Configuration::default() };
    let mut stream = Assembler::of(&current);
    assert_eq!((stream.digest(), stream.hashed()), (current.digest(), 0));
    let part = |number| Change { contract: CONTRACT, version: version(number), commit: true, ..Change::default() };
    let changes = [
        (Change { upserts: BTreeMap::from([(ids[7].clone(), listener(2).into())]), ..part(2) }, 2, "old and new"),
        (Change { removals: BTreeSet::from([ids[8].clone(), id("ns/unknown/l")]), ..part(3) }, 1, "only one was there"),
        (Change { endpoints: BTreeMap::from([("new".to_owned(), endpoints(2))]), ..part(4) }, 1, "a new set"),
        (Change { endpoint_removals: BTreeSet::from(["gone".to_owned()]), ..part(5) }, 1, "a set that goes"),
        (part(6), 0, "nothing but a version"),
    ];
    for (change, expected, why) in changes {
        let before = stream.hashed();
        current = stream.take(&current, change).expect("a newer version").expect("the only part");
        assert_eq!((stream.hashed() - before, stream.digest()), (expected, current.digest()), "{why}");
    }
}

#[test]
fn an_update_tells_what_all_of_its_parts_name_once_it_is_committed() {
    let mut old = configuration(&[("a/a/gone", 1), ("a/a/kept", 2), ("a/a/changed", 3)]);
    old.endpoints = ["gone", "kept", "changed"].map(|name| (name.to_owned(), endpoints(1))).into();
    let mut new = configuration(&[("a/a/kept", 2), ("a/a/changed", 4), ("a/a/new", 5)]);
    new.version = version(7);
    new.endpoints = [("kept", 1), ("changed", 2), ("new", 1)].map(|(name, n)| (name.to_owned(), endpoints(n))).into();
    let mut stream = Assembler::of(&old);
    let parts = new.changes_from(&old.held(), &BTreeSet::new(), 2);
    assert_eq!(parts.len(), 3);
    for part in parts {
        assert_eq!(stream.take_named(), Named::default(), "nothing is committed yet");
        stream.take(&old, part).expect("a newer version");
    }
    let sets = ["changed", "gone", "new"].map(str::to_owned);
    let listeners = ["a/a/changed", "a/a/gone", "a/a/new"].map(id);
    assert_eq!(stream.take_named(), Named { listeners: listeners.into(), endpoints: sets.into(), tunnels: false });
    assert_eq!(stream.take_named(), Named::default());
    let again = Change { contract: CONTRACT, version: version(8), commit: true, ..Change::default() };
    stream.take(&new, again).expect("a newer version");
    assert_eq!(stream.take_named(), Named::default(), "the next one names what is its own");
}

#[test]
fn updates_of_a_configuration_that_is_given_back_copy_it_once() {
    let sets = (0..1000).map(|n| (format!("ns/s{n}"), endpoints(1))).collect();
    let mut current = Configuration { endpoints: sets, version: version(1), ..Configuration::default() };
    let mut stream = Assembler::of(&current);
    for number in 2..50 {
        let endpoints = BTreeMap::from([(format!("ns/s{number}"), endpoints(2))]);
        let update =
            Change { contract: CONTRACT, version: version(number), commit: true, endpoints, ..Change::default() };
        let next = stream.take(&current, update).expect("a newer version").expect("the only part");
        stream.reuse(std::mem::replace(&mut current, next));
        assert_eq!(stream.digest(), current.digest());
    }
    assert_eq!(stream.copies(), 1);
    let many = (0..256).map(|n| (format!("ns/s{n}"), endpoints(3))).collect();
    let update = |number| Change { contract: CONTRACT, version: version(number), commit: true, ..Change::default() };
    let updates = [
        (Change { endpoints: many, ..update(50) }, 1, "the one before was small"),
        (update(51), 2, "to repeat so much would cost more than a copy"),
        (update(52), 2, "the one before was small again"),
    ];
    for (update, copies, why) in updates {
        let next = stream.take(&current, update).expect("a newer version").expect("the only part");
        stream.reuse(std::mem::replace(&mut current, next));
        assert_eq!((stream.copies(), stream.digest()), (copies, current.digest()), "{why}");
    }
    stream.rest();
    stream.rest();
    stream.take(&current, update(53)).expect("a newer version");
    assert_eq!(stream.copies(), 3, "what was given back was dropped meanwhile");
}

proptest! {
    /// Random updates in parts, some of which are given up.
    #[test]
    fn a_configuration_that_is_given_back_makes_no_difference(
        steps in prop::collection::vec((small(), small(), any::<bool>(), any::<bool>()), 1..12),
    ) {
        let (mut plain, mut current) = (Assembler::default(), Configuration::default());
        let (mut stream, mut same) = (Assembler::default(), Configuration::default());
        for (number, (first, second, is_committed, is_given_back)) in (1..).zip(steps) {
            let parts = [first, Change { commit: is_committed, ..second }];
            let mut reached = None;
            for part in parts.map(|part| Change { contract: CONTRACT, version: version(number), ..part }) {
                reached = plain.take(&current, part.clone()).ok().flatten();
                prop_assert_eq!(&reached, &stream.take(&same, part).ok().flatten());
            }
            if let Some(next) = reached {
                current = next.clone();
                let before = std::mem::replace(&mut same, next);
                if is_given_back {
                    stream.reuse(before);
                }
            }
            prop_assert_eq!((&current, plain.digest()), (&same, stream.digest()));
            prop_assert_eq!(current.digest(), plain.digest());
        }
    }
}

/// A part that changes and removes few of few items.
fn small() -> impl Strategy<Value = Change> {
    let some = || prop::collection::btree_map(0..4_u8, 0..3_u16, 0..3);
    let gone = || prop::collection::btree_set(0..4_u8, 0..3);
    (some(), gone(), some(), gone(), some(), gone()).prop_map(|(listeners, removed, sets, unset, peers, left)| {
        let name = |n: u8| format!("n{n}");
        let offer = listener(1);
        let upsert = |(n, port): (u8, u16)| {
            let offer = Offer::from(Listener { revision: revision(&port.to_string()), ..offer.clone() });
            (id(&format!("ns/f/{n}")), offer)
        };
        Change {
            upserts: listeners.into_iter().map(upsert).collect(),
            removals: removed.into_iter().map(|n| id(&format!("ns/f/{n}"))).collect(),
            endpoints: sets.into_iter().map(|(n, count)| (name(n), endpoints(count))).collect(),
            endpoint_removals: unset.into_iter().map(name).collect(),
            peers: peers.into_iter().map(|(n, at)| (name(n), IpAddr::from(Ipv4Addr::from(u32::from(at))))).collect(),
            peer_removals: left.into_iter().map(name).collect(),
            ..Change::default()
        }
    })
}

#[test]
fn parts_without_a_commit_leave_the_digest_as_it_was() {
    let current = configuration(&[("a/a/a", 1)]);
    let mut stream = Assembler::of(&current);
    let upserts = configuration(&[("a/a/b", 2)]).listeners;
    let part = Change { contract: CONTRACT, version: version(0), upserts, ..Change::default() };
    let current = Configuration { version: version(0), ..current };
    assert_eq!(stream.take(&current, part), Ok(None));
    assert_eq!(stream.digest(), current.digest());
}

#[test]
fn hashes_are_the_same_in_every_release() {
    assert_eq!(v1().endpoints["shop/pg:5432"].revision(), revision("c25788390008aab7"));
    assert_eq!(v1().digest(), Digest("6a1e943d50f0098cb887bce1836c77dd".to_owned()));
    assert_eq!(listener(5432).revision, revision("31da0443dd1fbee7"));
    let unsealed = Listener { revision: revision("anything"), ..listener(5432) };
    assert_eq!(unsealed.sealed(), listener(5432), "the previous revision is not part of the hash");
    assert_ne!(listener(5433).revision, listener(5432).revision);
}
