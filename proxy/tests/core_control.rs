//! What the control thread does for an event, in counts: an event touches what it concerns.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod document;

use std::{
    cell::Cell,
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use proxy::core::{
    changes::lacking::Lacking,
    logging::logged_refusals::{LogAction, LoggedRefusals, MOST},
    ports::own_addresses::OwnAddresses,
    resolution::{
        dns::families::Resolution,
        names::{Change, Failing, Names, Transition, hosts_of},
    },
};
use proxy_api::{Backend, Bind, FailureReason, Listener, ListenerId, Origin, SocketKey, Target, Transport};

fn id(at: usize) -> ListenerId {
    ListenerId::new(Origin::port_forward("ns", format!("f{at:05}")), "l")
}

fn backend(host: &str) -> Backend {
    let target = Target::Address { host: host.to_owned(), port: 80 };
    Backend { id: host.to_owned(), weight: 1, priority: 0, check_port: None, target }
}

/// A listener without backends.
fn template() -> Listener {
    Listener { backends: Vec::new(), ..document::template() }
}

/// A good answer with one address.
fn good(last: u8) -> Resolution {
    Resolution { addresses: Some(vec![ip(last)]), ..Resolution::default() }
}

/// A failure of a name without an address.
fn failed() -> Resolution {
    Resolution { failure: Some("timeout".to_owned()), ..Resolution::default() }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

/// The names of 10,000 listeners: 500, each of 20 listeners.
fn many() -> Names {
    let template = template();
    let listener = |at: usize| Listener { backends: vec![backend(&format!("db{}", at % 500))], ..template.clone() };
    let mut names = Names::default();
    (0..10_000).for_each(|at| drop(names.set(&id(at), hosts_of(&listener(at)))));
    names
}

fn set(hosts: &[&str]) -> BTreeSet<String> {
    hosts.iter().map(|host| (*host).to_owned()).collect()
}

/// Names of one listener.
fn names(hosts: &[&str]) -> Names {
    let mut names = Names::default();
    names.set(&id(0), set(hosts));
    names
}

#[test]
fn an_answer_touches_the_listeners_that_use_the_name_and_only_if_it_changed() {
    // D6: 500 names with a TTL of 5 s are a hundred answers a second.
    let mut names = many();
    let mut touched = |last: u8, now: u64| -> usize {
        let learn = |at: usize| {
            let host = format!("db{at}");
            let changed = names.learn(&host, good(last), now).changed;
            if changed { names.users(&host).count() } else { 0 }
        };
        (0..500).map(learn).sum()
    };
    assert_eq!(touched(1, 0), 10_000, "each listener once");
    for round in 1..10 {
        assert_eq!(touched(1, 5 * round), 0);
    }
    assert!(names.learn("db7", good(2), 60).changed);
    assert_eq!(names.users("db7").count(), 20);
}

#[test]
fn only_names_are_followed_and_a_listener_may_use_several() {
    let two = Listener { backends: vec![backend("db"), backend("192.0.2.1"), backend("other")], ..template() };
    assert_eq!(hosts_of(&two), set(&["db", "other"]));
}

#[test]
fn a_name_whose_only_user_is_renamed_keeps_its_addresses() {
    let mut names = names(&["db"]);
    names.learn("db", good(1), 0);
    assert_eq!(names.add(&id(1), &set(&["db"])), set(&["db"]));
    assert_eq!((names.set(&id(0), set(&[])), names.set(&id(1), set(&["db"]))), (set(&["db"]), set(&[])));
    assert_eq!((names.addresses("db"), names.users("db").count()), (&[ip(1)][..], 1));
    assert_eq!(names.add(&id(1), &set(&["new"])), set(&["new"]));
    assert_eq!(names.users("db").count(), 1, "an addition ends nothing");
}

#[test]
fn a_listener_that_changes_its_names_touches_those_and_leaves_the_names_of_others() {
    let mut names = many();
    names.learn("db7", good(1), 0);
    assert_eq!(names.set(&id(7), set(&["db7"])), set(&[]));
    assert_eq!(names.set(&id(7), set(&["new"])), set(&["db7", "new"]));
    assert_eq!((names.users("db7").count(), names.addresses("db7")), (19, &[ip(1)][..]));
    assert!(names.is_awaited("new"));
    assert_eq!(names.set(&id(7), set(&[])), set(&["new"]));
    assert_eq!(names.users("new").count(), 0);
}

#[test]
fn a_failure_turns_a_name_once_keeps_its_addresses_and_counts_from_its_start() {
    let mut names = names(&["db", "new"]);
    assert_eq!(names.learn("db", good(1), 0), Change { changed: true, ..Change::default() });
    assert_eq!((names.is_failing(), names.failing(60)), (false, Failing::default()));
    let fails = |changed, keeps| {
        let transition = Some(Transition::Fails { keeps, has_addresses: keeps });
        Change { changed, transition, truncated: None }
    };
    assert_eq!(names.learn("db", failed(), 1), fails(false, true));
    assert_eq!(names.learn("db", failed(), 2), Change::default());
    assert_eq!(names.learn("new", failed(), 4), fails(true, false));
    assert_eq!(names.addresses("db"), [ip(1)]);
    assert_eq!(names.failing(11), Failing { names: 2, longest_seconds: 10 });
    assert_eq!(names.learn("db", good(1), 12), Change { transition: Some(Transition::Resolves), ..Change::default() });
    assert_eq!(names.failing(14), Failing { names: 1, longest_seconds: 10 }, "the other one");
}

#[test]
fn a_name_fails_as_a_whole_if_one_of_its_families_fails() {
    let mut names = names(&["db"]);
    let partly = Resolution { failure: Some("its IPv6 addresses: timeout".to_owned()), ..good(1) };
    let change = names.learn("db", partly.clone(), 1);
    let transition = Some(Transition::Fails { keeps: false, has_addresses: true });
    assert_eq!(change, Change { changed: true, transition, truncated: None }, "there is no earlier answer");
    assert_eq!((names.addresses("db"), names.failing(3)), (&[ip(1)][..], Failing { names: 1, longest_seconds: 2 }));
    let moved = Resolution { addresses: good(2).addresses, ..partly };
    assert_eq!(names.learn("db", moved, 4), Change { changed: true, ..Change::default() }, "it has failed before");
}

#[test]
fn a_name_is_awaited_until_anything_is_heard_of_it() {
    let mut names = names(&["db", "new"]);
    assert!(names.is_awaited("db") && names.is_awaited("new") && !names.is_awaited("other"));
    assert!(names.learn("db", good(1), 0).changed && names.learn("new", failed(), 0).changed);
    assert!(!names.is_awaited("db") && !names.is_awaited("new"));
    names.set(&id(0), set(&[]));
    names.set(&id(0), set(&["db"]));
    assert!(names.is_awaited("db"), "it was forgotten");
}

#[test]
fn addresses_that_are_left_out_are_logged_once_and_counted() {
    let mut names = names(&["db"]);
    let large = Resolution { left_out: 7, ..good(1) };
    assert_eq!((names.learn("db", large.clone(), 0).truncated, names.truncated()), (Some(7), 1));
    assert_eq!((names.learn("db", large.clone(), 1).truncated, names.truncated()), (None, 1));
    assert_eq!((names.learn("db", good(1), 2).truncated, names.truncated()), (None, 0));
    assert_eq!((names.learn("db", large, 3).truncated, names.truncated()), (None, 1), "at the bound it is logged once");
}

#[test]
fn a_name_that_no_listener_uses_is_forgotten_and_its_late_answer_ignored() {
    let mut names = names(&["db"]);
    names.learn("db", good(1), 0);
    names.learn("db", failed(), 1);
    names.set(&id(0), set(&[]));
    assert!(!names.is_failing() && names.addresses("db").is_empty());
    assert_eq!(names.failing(9), Failing::default());
    assert_eq!(names.learn("db", good(1), 2), Change::default());
    assert!(names.addresses("db").is_empty() && names.hosts().next().is_none());
}

#[test]
fn whether_an_address_is_our_own_is_asked_once() {
    let asked = Cell::new(0);
    let ask = |address: IpAddr| {
        asked.set(asked.get() + 1);
        address == ip(7)
    };
    let mut own = OwnAddresses::default();
    for _ in 0..100 {
        assert!(own.is_own(ip(7), ask) && !own.is_own(ip(8), ask));
    }
    assert_eq!(asked.get(), 2);
}

#[test]
fn an_address_that_becomes_our_own_is_noticed_by_few_questions_at_a_time() {
    let address = |at: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + at));
    let mut own = OwnAddresses::default();
    for at in 0..1000 {
        own.is_own(address(at), |_| false);
    }
    let asked = Cell::new(0_u32);
    let ask = |of: IpAddr| {
        asked.set(asked.get() + 1);
        of == address(999)
    };
    let rounds = (0..1_000).take_while(|_| !own.renew(ask)).count();
    assert!(asked.get() <= 1000 && u32::try_from(rounds).is_ok_and(|rounds| asked.get() >= rounds), "{rounds} rounds");
    assert!(rounds > 10, "few at a time");
    assert!(own.is_own(address(999), |_| false), "it is remembered");
    assert!(!(0..100).any(|_| own.renew(ask)), "and is no news again");
}

#[test]
fn answers_that_change_together_are_news() {
    let mut own = OwnAddresses::default();
    for last in 1..=2 {
        own.is_own(ip(last), |_| false);
    }
    assert!(own.renew(|_| true));
}

#[test]
fn known_addresses_are_asked_about_64_at_a_time_in_turn() {
    let mut own = OwnAddresses::default();
    for last in 1..=65 {
        own.is_own(ip(last), |_| false);
    }
    let asked = Cell::new(0);
    let mut renewed = || {
        asked.set(0);
        let differs = own.renew(|_| {
            asked.set(asked.get() + 1);
            false
        });
        (asked.get(), differs)
    };
    assert_eq!([renewed(), renewed(), renewed(), renewed()], [(64, false), (1, false), (0, false), (64, false)]);
}

#[test]
fn the_address_beyond_the_most_that_are_known_has_all_asked_about_again() {
    let address = |at: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + at));
    let asked = Cell::new(0);
    let mut own = OwnAddresses::default();
    let mut is_asked = |at: u32| {
        asked.set(0);
        own.is_own(address(at), |_| {
            asked.set(asked.get() + 1);
            false
        });
        asked.get() > 0
    };
    assert!((0..16_384).all(&mut is_asked));
    assert!(!is_asked(0), "all of them are known");
    assert!(is_asked(16_384) && is_asked(0));
}

#[test]
fn refused_endpoints_are_logged_up_to_a_bound() {
    let address = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
    let mut logged = LoggedRefusals::default();
    let all: Vec<LogAction> = (0..1000).map(|port| logged.record(address(port))).collect();
    let count = |action: LogAction| all.iter().filter(|other| **other == action).count();
    assert_eq!((count(LogAction::Endpoint), count(LogAction::More)), (MOST, 1));
    assert_eq!([0, 999].map(|port| logged.record(address(port))), [LogAction::Nothing, LogAction::Nothing]);
}

#[test]
fn a_retry_tries_the_sockets_that_are_lacking_and_no_other() {
    let socket = |port: u16| SocketKey { transport: Transport::Tcp, bind: Bind::All, port };
    let in_use = || (FailureReason::AddressInUse, "in use".to_owned());
    let lacking: Lacking = [80, 81].map(|port| (socket(port), in_use())).into_iter().collect();
    assert!(Lacking::default().is_empty() && !lacking.is_empty());
    let mut tried = Vec::new();
    let news = lacking.has_news(|key| {
        tried.push(key.port);
        Some(in_use())
    });
    assert_eq!((news, tried), (false, vec![80, 81]));
    assert!(lacking.has_news(|key| Some(in_use()).filter(|_| key.port == 80)), "one can be opened");
    let other = (FailureReason::BindFailed, "too many files".to_owned());
    assert!(lacking.has_news(|_| Some(other.clone())), "the reported reason has changed");
    assert!(!Lacking::default().has_news(|_| None));
}
