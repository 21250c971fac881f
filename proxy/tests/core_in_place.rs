//! Properties of changes in place: what a part leads to is what the plan of everything leads to, and of ten thousand
//! listeners only those that a change concerns are planned.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod document;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use document::template;
use proptest::prelude::*;
use proxy::core::changes::{
    diff::{self, Running, Settled},
    in_place::{self, Part},
    set_users::SetUsers,
    touched::Touched,
};
use proxy_api::{
    Backend, Bind, Configuration, EndpointSet, FLEET, Listener, ListenerId, Named, Offer, Origin, PARTS, SocketKey,
    Target, Transport,
};

fn id(at: u16) -> ListenerId {
    ListenerId::new(Origin::port_forward("ns", format!("f{at:05}")), "l")
}

/// A listener with these endpoint sets as its backends.
fn listener(template: &Listener, port: u16, hostnames: &[String], sets: &[u8]) -> Offer {
    let socket = SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port };
    let backend = |set: &u8| {
        let target = Target::Endpoints(name(*set));
        Backend { id: format!("s{set}"), weight: 1, priority: 0, check_port: None, target }
    };
    let backends = sets.iter().map(backend).collect();
    Listener { socket, end_port: None, hostnames: hostnames.to_vec(), backends, ..template.clone() }.sealed().into()
}

fn name(set: u8) -> String {
    format!("ns/s{set}")
}

fn endpoints(port: u16) -> EndpointSet {
    [SocketAddr::from(([192, 0, 2, 1], port))].into_iter().collect()
}

fn settle(running: &Running, desired: &diff::Desired) -> Settled {
    settle_without(running, desired, &BTreeSet::new())
}

/// As [`settle`], where none of these ports can be opened.
fn settle_without(running: &Running, desired: &diff::Desired, lacking: &BTreeSet<u16>) -> Settled {
    let plan = diff::diff(running, desired);
    let unbound = plan.bind.iter().filter(|key| lacking.contains(&key.port)).copied().collect();
    plan.settle(&unbound)
}

fn run(configuration: &Configuration) -> Running {
    settle(&Running::default(), &diff::desired(configuration)).next
}

fn users(running: &Running) -> SetUsers {
    let mut users = SetUsers::default();
    for (id, listener) in &running.listeners {
        users.replace(id, None, Some(listener));
    }
    users
}

/// What an update that leads from one configuration to the other names.
fn named(before: &Configuration, next: &Configuration) -> Named {
    let mut named = Named::default();
    for part in next.changes_from(&before.held(), &BTreeSet::new(), PARTS) {
        named.listeners.extend(part.upserts.into_keys().chain(part.removals));
        named.endpoints.extend(part.endpoints.into_keys().chain(part.endpoint_removals));
    }
    named
}

/// Compares a part with the plan of everything.
fn compare(running: &Running, before: &Configuration, next: &Configuration, part: &Part) {
    compare_without(running, before, next, part, &BTreeSet::new());
}

/// As [`compare`], where none of these ports can be opened.
fn compare_without(
    running: &Running,
    before: &Configuration,
    next: &Configuration,
    part: &Part,
    lacking: &BTreeSet<u16>,
) {
    let whole = settle_without(running, &diff::desired(next), lacking);
    let settled = settle(&part.running, &part.desired);
    let mut merged = running.clone();
    merged.listeners.extend(settled.next.listeners.clone());
    assert_eq!(merged, whole.next);
    assert_eq!((&settled.applied, &settled.concerned), (&whole.applied, &whole.concerned));
    assert_eq!((&settled.close, settled.blocked.len()), (&whole.close, 0));
    let failed = settle_without(running, &diff::desired(before), lacking).blocked;
    assert!(failed.keys().eq(whole.blocked.keys()), "those that failed before fail, and no others");
    let touched = part.touched(&settled, &users(running), &merged);
    assert_eq!(touched, Touched::between((running, &before.endpoints), (&merged, &next.endpoints)));
    let mut followed = users(running);
    for id in &touched.changed {
        let [ran, runs] = [running, &merged].map(|state| state.listeners.get(id).map(|listener| &**listener));
        followed.replace(id, ran, runs);
    }
    assert_eq!(followed, users(&merged), "the index follows");
}

/// Ports and sets that random configurations use, so few that listeners share them.
const PORTS: u16 = 6;
const SETS: u8 = 4;

/// What a listener of a random configuration is made of: its port, and its sets.
type Made = (u16, BTreeSet<u8>);

fn made() -> impl Strategy<Value = BTreeMap<u16, Made>> {
    let one = (1..=PORTS, prop::collection::btree_set(0..SETS, 0..3));
    prop::collection::btree_map(0..6_u16, one, 0..6)
}

fn sets() -> impl Strategy<Value = BTreeMap<u8, u16>> {
    prop::collection::btree_map(0..=SETS, 1..4_u16, 0..5)
}

/// Each listener has a hostname of its own, so that none is in the way of another one. The last set is of the surroundings.
fn configuration(template: &Listener, made: &BTreeMap<u16, Made>, sets: &BTreeMap<u8, u16>) -> Configuration {
    let offer = |(at, (port, sets)): (&u16, &Made)| {
        let sets: Vec<u8> = sets.iter().copied().collect();
        (id(*at), listener(template, *port, &[format!("h{at}.example.com")], &sets))
    };
    let called = |set: u8| if set == SETS { FLEET.to_owned() } else { name(set) };
    Configuration {
        listeners: made.iter().map(offer).collect(),
        endpoints: sets.iter().map(|(set, port)| (called(*set), endpoints(*port))).collect(),
        ..Configuration::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_part_leads_to_what_the_plan_of_everything_leads_to(
        first in made(),
        others in made(),
        moves in any::<bool>(),
        both in (sets(), sets()),
        keeps_sets in any::<bool>(),
    ) {
        let template = template();
        let mut second = first.clone();
        for (at, (port, sets)) in others {
            if moves {
                second.insert(at, (port, sets));
            } else if let Some(known) = second.get_mut(&at) {
                known.1 = sets;
            }
        }
        let before = configuration(&template, &first, &both.0);
        let next = configuration(&template, &second, if keeps_sets { &both.0 } else { &both.1 });
        let running = run(&before);
        let is_around = before.endpoints.get(FLEET) != next.endpoints.get(FLEET);
        let found = in_place::part(&running, &before, &next, None);
        prop_assert_eq!(&found, &in_place::part(&running, &before, &next, Some(&named(&before, &next))));
        if let Some(part) = found {
            compare(&running, &before, &next, &part);
        } else {
            prop_assert!(moves || is_around, "everything that has changed has done so in place");
        }
    }
}

/// What a listener of a random configuration is made of that others may keep from its port: its port, its sets, and whether
/// it has a hostname, none, or is not supported.
type MadeOdd = (u16, BTreeSet<u8>, u8);

fn made_odd() -> impl Strategy<Value = BTreeMap<u16, MadeOdd>> {
    let one = (1..=PORTS, prop::collection::btree_set(0..SETS, 0..3), 0..4_u8);
    prop::collection::btree_map(0..6_u16, one, 0..6)
}

fn odd(template: &Listener, made: &BTreeMap<u16, MadeOdd>, sets: &BTreeMap<u8, u16>) -> Configuration {
    let offer = |(at, (port, sets, kind)): (&u16, &MadeOdd)| {
        let sets: Vec<u8> = sets.iter().copied().collect();
        let hostnames = if *kind == 1 { vec![format!("h{at}.example.com")] } else { Vec::new() };
        let offer = listener(template, *port, &hostnames, &sets);
        let (revision, what, raw) = (offer.revision().clone(), String::new(), serde_json::Value::Null);
        (id(*at), if *kind == 0 { Offer::Unsupported { revision, what, raw } } else { offer })
    };
    let endpoints = sets.iter().map(|(set, port)| (name(*set), endpoints(*port))).collect();
    Configuration { listeners: made.iter().map(offer).collect(), endpoints, ..Configuration::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn beside_listeners_that_have_failed_a_part_leads_to_what_the_plan_of_everything_leads_to(
        first in made_odd(),
        others in made_odd(),
        edits in prop::collection::btree_map(0..6_u16, prop::collection::btree_set(0..SETS, 0..3), 0..4),
        lacking in prop::collection::btree_set(1..=PORTS, 0..3),
        both in (sets(), sets()),
    ) {
        let template = template();
        let ran = run(&odd(&template, &first, &both.0));
        let mut second = first;
        second.extend(others);
        let before = odd(&template, &second, &both.0);
        let Settled { next: running, blocked: failed, .. } = settle_without(&ran, &diff::desired(&before), &lacking);
        let mut third = second.clone();
        for (at, sets) in edits {
            if let Some(known) = third.get_mut(&at) {
                known.1 = sets;
            }
        }
        let next = odd(&template, &third, &both.1);
        let mut changed = second.keys().filter(|at| second[*at].1 != third[*at].1);
        let concerns_failed = changed.any(|at| failed.contains_key(&id(*at)));
        let found = in_place::part(&running, &before, &next, None);
        prop_assert_eq!(&found, &in_place::part(&running, &before, &next, Some(&named(&before, &next))));
        match found.filter(|part| !part.concerns(|id| failed.contains_key(id))) {
            Some(part) => {
                prop_assert!(!concerns_failed);
                compare_without(&running, &before, &next, &part, &lacking);
            }
            None => prop_assert!(concerns_failed, "everything that has changed has done so in place"),
        }
    }
}

const COUNT: u16 = 10_000;

/// Listeners with a socket each; of each hundred, all have the same endpoint set.
fn many() -> Configuration {
    let template = template();
    Configuration {
        listeners: (0..COUNT)
            .map(|at| (id(at), listener(&template, 10_000 + at, &[], &[u8::try_from(at / 100).expect("a hundred")])))
            .collect(),
        endpoints: (0..100).map(|set| (format!("ns/s{set}"), endpoints(1))).collect(),
        ..Configuration::default()
    }
}

#[test]
fn endpoints_that_change_beside_ten_thousand_listeners_are_planned_for_their_users() {
    let before = many();
    let running = run(&before);
    let mut next = before.clone();
    next.endpoints.insert("ns/s7".to_owned(), endpoints(2));
    let changed = listener(&template(), 10_005, &[], &[8]);
    next.listeners.insert(id(5), changed);
    let part = in_place::part(&running, &before, &next, None).expect("in place");
    assert_eq!(in_place::part(&running, &before, &next, Some(&named(&before, &next))).as_ref(), Some(&part));
    assert_eq!((part.running.listeners.len(), part.desired.len(), part.sets.len()), (1, 1, 1));
    let settled = settle(&part.running, &part.desired);
    let mut merged = running.clone();
    merged.listeners.extend(settled.next.listeners.clone());
    let touched = part.touched(&settled, &users(&running), &merged);
    let targets: BTreeSet<ListenerId> = [5].into_iter().chain(700..800).map(id).collect();
    assert_eq!((touched.changed.len(), touched.targets), (1, targets));
    compare(&running, &before, &next, &part);
}
