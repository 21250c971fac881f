//! The order of attempts in the connect phase: both address families, and when a retry has to pause.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod entries;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use entries::{address, entry};
use proxy::core::backends::{
    address::{Address, AgentAddress},
    balance::{Draw, Entry, Targets},
    endpoint::{Checked, Endpoint},
    race::{HEAD_START, Race, is_beaten, is_charged},
};
use proxy_api::Policy;

const FOUR: [&str; 2] = ["10.0.0.1:1", "10.0.0.2:1"];
const SIX: [&str; 2] = ["[fd00::1]:1", "[fd00::2]:1"];
const POLICIES: [Policy; 4] = [Policy::RoundRobin, Policy::Random, Policy::LeastConnections, Policy::SourceHash];

fn behind_agent(instance: &str) -> Address {
    let (uid, agent, host) = ("u".into(), "shop/home".into(), "127.0.0.1".into());
    Address::Agent(Arc::new(AgentAddress { uid, agent, instance: instance.into(), host, port: 1 }))
}

fn targets(entries: Vec<Entry>) -> Targets {
    Targets::new(entries)
}

fn draw(source: u8) -> Draw {
    Draw { ticket: 0, chance: 0, source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, source)), now: 0 }
}

/// Targets with one entry of these endpoints.
fn one(endpoints: &[&str]) -> Targets {
    targets(vec![entry("e", 1, 0, endpoints)])
}

/// The endpoint with this address.
fn endpoint<'a>(targets: &'a Targets, text: &str) -> &'a Endpoint {
    let mut endpoints = targets.entries.iter().flat_map(|entry| &entry.endpoints);
    endpoints.find(|endpoint| endpoint.address == address(text)).expect("an endpoint with the address")
}

/// The address to try in parallel with the first that was tried.
fn other_family(targets: &Targets, policy: Policy, source: u8, tried: &[&str]) -> Option<String> {
    let last = endpoint(targets, tried[0]);
    let tried: Vec<Address> = tried.iter().map(|text| address(text)).collect();
    targets.other_family(policy, draw(source), ("e", last), &tried).map(|endpoint| endpoint.address.to_string())
}

#[test]
fn the_next_attempt_waits_for_the_head_start_or_begins_when_the_last_has_failed() {
    let at = Duration::from_millis;
    let mut race = Race::new(3, false);
    race.began(at(0));
    assert_eq!(race.next_at(), Some(HEAD_START));
    race.failed(at(40));
    assert_eq!((race.next_at(), race.is_lost()), (Some(at(40)), true));
    race.began(at(40));
    assert_eq!((race.next_at(), race.is_lost()), (Some(at(40) + HEAD_START), false));
    race.began(at(300));
    assert_eq!(race.next_at(), None, "three attempts are made");
    race.failed(at(310));
    assert_eq!((race.next_at(), race.is_lost()), (None, false));
    race.failed(at(320));
    assert!(race.is_lost());
}

#[test]
fn an_attempt_without_room_is_postponed_and_is_no_attempt() {
    let mut race = Race::new(2, false);
    race.began(Duration::ZERO);
    race.postponed(HEAD_START);
    assert_eq!(race.next_at(), Some(HEAD_START * 2));
}

#[test]
fn one_attempt_in_parallel_is_none_of_the_attempts() {
    let mut race = Race::new(1, true);
    assert!(race.began(Duration::ZERO));
    assert_eq!(race.next_at(), Some(HEAD_START), "also if one attempt is allowed");
    assert!(!race.began(HEAD_START));
    assert_eq!(race.next_at(), None, "there is one extra attempt");
    let mut race = Race::new(1, true);
    race.began(Duration::ZERO);
    race.failed(HEAD_START / 2);
    assert_eq!((race.next_at(), race.is_lost()), (None, true), "after a failure there is nothing to be parallel with");
}

#[test]
fn silence_is_charged_if_the_other_family_wins_after_the_head_start() {
    let [four, six] = &[FOUR[0], SIX[0]].map(address);
    let longer = HEAD_START + Duration::from_millis(1);
    assert!(is_beaten(six, four, longer) && is_beaten(four, six, longer));
    assert!(!is_beaten(six, four, HEAD_START), "it had no more than the head start");
    assert!(!is_beaten(six, &address(SIX[1]), longer), "one slow server says nothing of its family");
}

#[test]
fn without_an_endpoint_to_try_in_parallel_the_others_no_attempt_is_due() {
    let mut race = Race::new(3, false);
    race.began(Duration::ZERO);
    race.exhausted();
    assert_eq!((race.next_at(), race.is_lost()), (None, false), "the attempts that run continue");
    race.failed(HEAD_START);
    assert_eq!((race.next_at(), race.is_lost()), (None, true));
}

#[test]
fn an_attempt_that_began_late_is_not_charged_with_the_silence() {
    let at = Duration::from_millis;
    assert!(is_charged(at(5000), at(5000)) && is_charged(at(2500), at(5000)));
    assert!(!is_charged(at(2499), at(5000)));
}

#[test]
fn an_entry_knows_whether_it_has_both_families() {
    let is_dual = |endpoints: &[&str]| targets(vec![entry("e", 1, 0, endpoints)]).entries[0].is_dual();
    assert!(is_dual(&[SIX[0], FOUR[0], SIX[1]]));
    assert!(!is_dual(&FOUR) && !is_dual(&SIX) && !is_dual(&[]));
}

#[test]
fn an_address_behind_an_agent_is_of_no_family_and_nothing_is_tried_in_parallel_with_it() {
    let [one, other] = ["one", "other"].map(behind_agent);
    let endpoints = [&one, &other].map(|address| Arc::new(Endpoint::new(address.clone()))).to_vec();
    let both = targets(vec![Entry { endpoints, ..entry("e", 1, 0, &[]) }]);
    assert!(!both.entries[0].is_dual());
    for policy in POLICIES {
        let last = &both.entries[0].endpoints[0];
        assert!(both.other_family(policy, draw(1), ("e", last), std::slice::from_ref(&one)).is_none(), "{policy:?}");
    }
    let longer = HEAD_START + Duration::from_millis(1);
    for winner in [&other, &address(FOUR[0]), &address(SIX[0])] {
        assert!(!is_beaten(&one, winner, longer) && !is_beaten(winner, &one, longer));
    }
}

#[test]
fn the_attempt_in_parallel_is_of_the_other_family_of_the_same_entry() {
    for policy in POLICIES {
        let both = targets(vec![entry("other", 1, 0, &[FOUR[1]]), entry("e", 1, 0, &[SIX[0], FOUR[0], SIX[1]])]);
        assert_eq!(other_family(&both, policy, 1, &[SIX[0]]).as_deref(), Some(FOUR[0]), "{policy:?}");
        assert_eq!(other_family(&both, policy, 1, &[SIX[0], FOUR[0]]), None, "{policy:?}: it was tried");
        let second = other_family(&both, policy, 1, &[FOUR[0], SIX[0]]);
        assert_eq!(second.as_deref(), Some(SIX[1]), "{policy:?}: the one that was not tried");
        assert_eq!(other_family(&one(&FOUR), policy, 1, &[FOUR[0]]), None, "{policy:?}: one family");
    }
}

#[test]
fn no_endpoint_is_tried_in_parallel_with_another_that_is_fitter() {
    let both = one(&[SIX[0], FOUR[0]]);
    endpoint(&both, FOUR[0]).set_checked(Checked::Down);
    assert_eq!(other_family(&both, Policy::RoundRobin, 1, &[SIX[0]]), None);
    endpoint(&both, SIX[0]).set_checked(Checked::Down);
    assert_eq!(other_family(&both, Policy::RoundRobin, 1, &[SIX[0]]).as_deref(), Some(FOUR[0]));
}

#[test]
fn the_policy_chooses_within_the_other_family_and_no_turn_is_used_up() {
    let both = one(&[SIX[0], FOUR[0], FOUR[1]]);
    endpoint(&both, FOUR[0]).active.store(1, Relaxed);
    assert_eq!(other_family(&both, Policy::LeastConnections, 1, &[SIX[0]]).as_deref(), Some(FOUR[1]));
    for policy in POLICIES {
        let _ = other_family(&both, policy, 1, &[SIX[0]]);
    }
    assert_eq!(both.entries[0].stats.turns.load(Relaxed), 0);
    // A source keeps its endpoint, whatever the draw, and sources spread.
    let chosen = |source, chance| {
        let draw = Draw { chance, ..draw(source) };
        let last = endpoint(&both, SIX[0]);
        both.other_family(Policy::SourceHash, draw, ("e", last), &[]).map(|endpoint| endpoint.address.clone())
    };
    assert!((0..50).all(|source| chosen(source, 0) == chosen(source, u64::MAX)));
    let all: BTreeSet<Option<Address>> = (0..50).map(|source| chosen(source, 0)).collect();
    assert_eq!(all.len(), 2);
}

// D11
#[test]
fn only_endpoints_that_a_pick_would_find_are_untried() {
    let mut targets = targets(vec![
        entry("primary", 1, 0, &["10.0.0.1:1"]),
        entry("off", 0, 0, &["10.0.0.2:1"]),
        entry("standby", 1, 1, &["10.0.0.3:1"]),
    ]);
    let tried = [address("10.0.0.1:1")];
    assert!(targets.has_untried(0, &[]));
    assert!(!targets.has_untried(0, &tried), "neither the standby nor the entry of weight 0 is picked");
    targets.entries[0].endpoints[0].set_checked(Checked::Down);
    assert!(targets.has_untried(0, &tried), "now the standby is");
    targets.entries[2].endpoints[0].set_checked(Checked::Down);
    assert!(targets.has_untried(0, &tried), "none is healthy, so all are tried");
    targets.entries.truncate(2);
    assert!(!targets.has_untried(0, &tried));
}
