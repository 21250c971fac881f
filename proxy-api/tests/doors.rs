//! The places at a door under bounds, and the token bucket.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    hash::RandomState,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use proptest::prelude::*;
use proxy_api::doors::{Admission, Bounds, Bucket, Evict, PlaceId, Places, Rate, Rates, Refusal, Shares};

#[path = "doors/networks.rs"]
mod networks;
#[path = "doors/rates.rs"]
mod rates;

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn bounds(strangers: usize, per_source: usize, known: usize, evict: Evict) -> Bounds {
    Bounds { strangers, per_source, known, evict, rates: None }
}

/// The place of a connection that got a free place.
fn admitted(admission: Admission) -> PlaceId {
    match admission {
        Admission::Admit(place) => place,
        other => panic!("not admitted to a free place: {other:?}"),
    }
}

fn evicted(admission: Admission) -> PlaceId {
    match admission {
        Admission::AdmitAfterEvicting { evicted, .. } => evicted,
        other => panic!("no connection had to leave: {other:?}"),
    }
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    let (rate, mut bucket) = (Rate::per_second(10, 3), Bucket::default());
    let taken = |bucket: &mut Bucket, now| (0..5).filter(|_| bucket.take(rate, now)).count();
    assert_eq!(taken(&mut bucket, ms(0)), 3);
    assert_eq!(bucket.wait(rate, ms(0)), ms(100));
    assert_eq!(taken(&mut bucket, ms(99)), 0);
    assert_eq!(taken(&mut bucket, ms(100)), 1);
    assert!(!bucket.is_full(ms(399)) && bucket.is_full(ms(400)));
    assert_eq!(taken(&mut bucket, ms(60_000)), 3, "a long pause saves no more than the burst");
    bucket.spend(rate, 5, ms(120_000));
    assert_eq!(bucket.wait(rate, ms(120_000)), ms(300), "two of five were not there, and the next one is the third");
}

#[test]
fn a_full_door_refuses_if_nobody_leaves() {
    let mut places = Places::new(bounds(3, 2, 0, Evict::Never));
    let first = admitted(places.admit(ip(1), ms(0)));
    let _ = admitted(places.admit(ip(1), ms(1)));
    assert_eq!(places.admit(ip(1), ms(2)), Admission::Refuse(Refusal::SourceFull));
    let _ = admitted(places.admit(ip(2), ms(3)));
    assert_eq!(places.admit(ip(3), ms(4)), Admission::Refuse(Refusal::Full));
    places.release(first, ms(5));
    let _ = admitted(places.admit(ip(3), ms(5)));
    assert_eq!(places.strangers(), 3);
}

#[test]
fn a_source_beyond_its_share_loses_its_own_connection_that_was_silent_for_the_longest() {
    let mut places = Places::new(bounds(10, 2, 0, Evict::Any));
    let other = admitted(places.admit(ip(2), ms(0)));
    let first = admitted(places.admit(ip(1), ms(1)));
    let second = admitted(places.admit(ip(1), ms(2)));
    places.asks(first, ms(3));
    places.waits(first, ms(4));
    assert_eq!(evicted(places.admit(ip(1), ms(5))), second, "its own connection that has been silent the longest");
    places.release(second, ms(6));
    assert_eq!(places.strangers(), 3, "the release of an evicted connection changes nothing");
    places.release(other, ms(7));
    assert_eq!(places.strangers(), 2);
}

// C3
#[test]
fn the_api_server_gets_in_and_keeps_its_idle_connections_under_a_flood_of_silent_ones() {
    let mut places = Places::new(bounds(8, 4, 0, Evict::Any));
    let pooled = admitted(places.admit(ip(1), ms(0)));
    places.asks(pooled, ms(1));
    places.waits(pooled, ms(2));
    for at in 0..100 {
        let hostile = ip(10 + u8::try_from(at % 3).expect("small"));
        let admission = places.admit(hostile, ms(10 + at));
        assert!(
            !matches!(admission, Admission::AdmitAfterEvicting { evicted, .. } if evicted == pooled),
            "{admission:?}"
        );
    }
    assert_eq!(places.strangers(), 8);
    let newcomer = places.admit(ip(1), ms(500));
    assert_ne!(evicted(newcomer), pooled, "the second connection of the API server takes a place of the flood");
}

#[test]
fn requests_in_work_stay_where_only_silent_connections_leave() {
    let mut places = Places::new(bounds(2, 2, 2, Evict::Silent));
    let silent = admitted(places.admit(ip(1), ms(0)));
    let asking = admitted(places.admit(ip(1), ms(1)));
    places.asks(asking, ms(2));
    let Admission::AdmitAfterEvicting { place, evicted } = places.admit(ip(2), ms(3)) else { panic!("full") };
    assert_eq!(evicted, silent);
    places.asks(place, ms(4));
    assert_eq!(places.admit(ip(3), ms(5)), Admission::Refuse(Refusal::Full));
}

#[test]
fn requests_in_work_leave_last_where_anyone_may_leave() {
    let mut places = Places::new(bounds(2, 2, 0, Evict::Any));
    let asking = admitted(places.admit(ip(1), ms(0)));
    places.asks(asking, ms(0));
    let silent = admitted(places.admit(ip(1), ms(1)));
    let Admission::AdmitAfterEvicting { place, evicted: gone } = places.admit(ip(2), ms(2)) else { panic!("full") };
    assert_eq!(gone, silent);
    places.asks(place, ms(3));
    assert_eq!(evicted(places.admit(ip(3), ms(4))), asking, "slow readers cannot hold every place");
}

/// The door of the webhook, without its rates, with 512 connections that came from 60 sources and are silent.
fn besieged() -> Places {
    let mut places = Places::new(bounds(512, 256, 512, Evict::WorkLast));
    (0..512_u64).for_each(|at| {
        let _ = admitted(places.admit(ip(10 + u8::try_from(at % 60).expect("small")), ms(at)));
    });
    places
}

/// The connections that leave while each of the 60 sources opens nine more.
fn renewed(places: &mut Places) -> Vec<PlaceId> {
    let from = |at: u64| ip(10 + u8::try_from(at % 60).expect("small"));
    (0..540_u64).map(|at| evicted(places.admit(from(at), ms(1000 + at)))).collect()
}

// C3
#[test]
fn sixty_sources_with_silent_connections_end_no_request_of_one_with_more_connections() {
    let mut places = besieged();
    let requests: Vec<PlaceId> = (0..10)
        .map(|_| {
            let (Admission::Admit(place) | Admission::AdmitAfterEvicting { place, .. }) = places.admit(ip(1), ms(900))
            else {
                panic!("a newcomer always gets in")
            };
            places.asks(place, ms(900));
            place
        })
        .collect();
    let gone = renewed(&mut places);
    assert!(requests.iter().all(|request| !gone.contains(request)));
}

// C3
#[test]
fn sixty_sources_end_no_connection_of_a_known_source_whether_it_waits_or_not() {
    let mut places = besieged();
    let known: Vec<PlaceId> = (0..10).map(|at| admitted(places.admit_known(ip(1), ms(900 + at)))).collect();
    places.asks(known[0], ms(950));
    let gone = renewed(&mut places);
    assert!(known.iter().all(|place| !gone.contains(place)));
    assert_eq!((places.strangers(), places.known()), (512, 10));
}

// C3
#[test]
fn a_crowd_of_requests_in_work_does_not_end_the_silent_connection_of_one_with_few() {
    let mut places = Places::new(bounds(512, 256, 512, Evict::WorkLast));
    for at in 0..512_u64 {
        let place = admitted(places.admit(ip(10 + u8::try_from(at % 60).expect("small")), ms(at)));
        places.asks(place, ms(at));
    }
    let Admission::AdmitAfterEvicting { place: quiet, .. } = places.admit(ip(1), ms(600)) else { panic!("full") };
    for at in 0..540_u64 {
        let admission = places.admit(ip(10 + u8::try_from(at % 60).expect("small")), ms(1000 + at));
        let Admission::AdmitAfterEvicting { place, evicted } = admission else { panic!("full: {admission:?}") };
        assert_ne!(evicted, quiet, "a request of a source with eight leaves first");
        places.asks(place, ms(1000 + at));
    }
}

// C3
#[test]
fn strangers_take_no_room_of_peers_that_have_authenticated() {
    let mut places = Places::new(bounds(2, 2, 2, Evict::Silent));
    for at in 0..2 {
        let proxy = admitted(places.admit(ip(1), ms(at)));
        places.asks(proxy, ms(at));
        assert_eq!(places.authenticate(proxy, ms(at)), Ok(None));
        assert_eq!(places.authenticate(proxy, ms(at)), Ok(None), "twice is no harm");
    }
    let _ = (admitted(places.admit(ip(2), ms(5))), admitted(places.admit(ip(3), ms(6))));
    assert_eq!((places.strangers(), places.known()), (2, 2));
    let Admission::AdmitAfterEvicting { place, .. } = places.admit(ip(1), ms(7)) else { panic!("full") };
    places.asks(place, ms(8));
    assert_eq!(places.authenticate(place, ms(8)), Err(Refusal::Full), "a third proxy finds no room, the others stay");
    assert_eq!((places.strangers(), places.known()), (1, 2), "and its place is free");
}

#[test]
fn a_peer_is_known_once_it_has_authenticated() {
    let mut places = Places::new(bounds(1, 1, 1, Evict::Never));
    let place = admitted(places.admit(ip(1), ms(0)));
    assert!(!places.is_known(place));
    assert_eq!(places.authenticate(place, ms(1)), Ok(None));
    assert!(places.is_known(place));
}

#[test]
fn each_refusal_has_a_label_of_its_own() {
    let labels = [Refusal::Rate, Refusal::SourceRate, Refusal::Full, Refusal::SourceFull].map(Refusal::as_str);
    assert_eq!(labels, ["rate", "source_rate", "full", "source_full"]);
}

#[test]
fn known_peers_that_are_silent_leave_for_known_newcomers() {
    let mut places = Places::new(bounds(2, 2, 1, Evict::Any));
    let old = admitted(places.admit(ip(1), ms(0)));
    assert_eq!(places.authenticate(old, ms(0)), Ok(None));
    let new = admitted(places.admit(ip(1), ms(1)));
    assert_eq!(places.authenticate(new, ms(1)), Ok(Some(old)));
    assert_eq!(places.authenticate(old, ms(2)), Err(Refusal::Full), "an evicted connection stays evicted");
}

#[test]
fn a_source_that_connects_too_often_takes_no_tokens_from_others() {
    let rates = Rates { all: Rate::per_second(10, 4), source: Rate::per_second(5, 2), evenly: false };
    let mut places = Places::new(Bounds { rates: Some(rates), ..bounds(100, 100, 0, Evict::Never) });
    let _ = (admitted(places.admit(ip(1), ms(0))), admitted(places.admit(ip(1), ms(0))));
    for _ in 0..10 {
        assert_eq!(places.admit(ip(1), ms(0)), Admission::Refuse(Refusal::SourceRate));
    }
    let _ = (admitted(places.admit(ip(2), ms(0))), admitted(places.admit(ip(3), ms(0))));
    assert_eq!(places.admit(ip(4), ms(0)), Admission::Refuse(Refusal::Rate));
    let _ = admitted(places.admit(ip(4), ms(100)));
}

#[test]
fn known_peers_take_no_places_of_strangers_and_the_greediest_of_them_pays() {
    let mut places = Places::new(bounds(1, 1, 3, Evict::Silent));
    let stranger = admitted(places.admit(ip(1), ms(0)));
    let quiet = admitted(places.admit_known(ip(2), ms(1)));
    let greedy = [2, 3].map(|at| admitted(places.admit_known(ip(3), ms(at))));
    for at in 4..20 {
        assert_ne!(evicted(places.admit_known(ip(3), ms(at))), quiet);
    }
    places.release(stranger, ms(20));
    places.release(quiet, ms(20));
    assert_eq!((places.strangers(), places.known()), (0, 2), "both had kept their places");
    assert!(greedy.into_iter().all(|place| places.authenticate(place, ms(21)).is_err()), "evicted");
    let mut none = Places::new(bounds(1, 1, 0, Evict::Any));
    assert_eq!(none.admit_known(ip(1), ms(0)), Admission::Refuse(Refusal::Full));
}

#[test]
fn a_source_holds_no_more_than_its_share_and_all_together_no_more_than_there_is() {
    let mut shares = Shares::<RandomState>::new(10, 4);
    assert_eq!((shares.take(ip(1), 4), shares.take(ip(1), 1)), (Ok(()), Err(Refusal::SourceFull)));
    assert_eq!((shares.take(ip(2), 4), shares.take(ip(3), 3)), (Ok(()), Err(Refusal::Full)));
    assert_eq!((shares.take(ip(3), 2), shares.held(), shares.sources()), (Ok(()), 10, 3));
    shares.give_back(ip(1), 4);
    assert_eq!((shares.held(), shares.sources()), (6, 2), "a source without units is forgotten");
    assert_eq!(shares.take(ip(1), 4), Ok(()));
}

#[test]
fn sources_are_forgotten_once_they_say_nothing() {
    let rates = Rates { all: Rate::per_second(1000, 1000), source: Rate::per_second(10, 2), evenly: false };
    let mut places = Places::new(Bounds { rates: Some(rates), ..bounds(10, 10, 0, Evict::Never) });
    for at in 0..10_000_u32 {
        let source = IpAddr::V4(Ipv4Addr::from_bits(at));
        let now = ms(u64::from(at) * 10);
        let place = admitted(places.admit(source, now));
        places.release(place, now);
    }
    assert!(places.sources() <= 200, "{} sources are kept", places.sources());
}

#[derive(Clone, Debug)]
enum Step {
    Admit(u8),
    Ask(usize),
    Wait(usize),
    Authenticate(usize),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u8).prop_map(Step::Admit),
        1 => any::<usize>().prop_map(Step::Ask),
        1 => any::<usize>().prop_map(Step::Wait),
        1 => any::<usize>().prop_map(Step::Authenticate),
        1 => any::<usize>().prop_map(Step::Release),
    ]
}

proptest! {
    #[test]
    fn no_bound_is_ever_exceeded_and_every_admitted_connection_has_one_place(
        steps in proptest::collection::vec(step(), 0..200),
        evict in prop_oneof![Just(Evict::Never), Just(Evict::Silent), Just(Evict::Any), Just(Evict::WorkLast)],
    ) {
        let mut places = Places::new(bounds(5, 3, 2, evict));
        let mut open: Vec<PlaceId> = Vec::new();
        for (at, step) in steps.into_iter().enumerate() {
            let now = ms(u64::try_from(at).expect("small"));
            let one = |index: usize, open: &[PlaceId]| (!open.is_empty()).then(|| open[index % open.len()]);
            match step {
                Step::Admit(last) => match places.admit(ip(last), now) {
                    Admission::Admit(place) => open.push(place),
                    Admission::AdmitAfterEvicting { place, evicted } => {
                        prop_assert!(open.contains(&evicted) && evict != Evict::Never);
                        open.retain(|it| *it != evicted);
                        open.push(place);
                    }
                    Admission::Refuse(_) => {
                        prop_assert!(!matches!(evict, Evict::Any | Evict::WorkLast), "a newcomer always gets in");
                    }
                },
                Step::Ask(index) => one(index, &open).into_iter().for_each(|place| places.asks(place, now)),
                Step::Wait(index) => one(index, &open).into_iter().for_each(|place| places.waits(place, now)),
                Step::Authenticate(index) => if let Some(place) = one(index, &open) {
                    match places.authenticate(place, now) {
                        Ok(Some(evicted)) => open.retain(|it| *it != evicted),
                        Ok(None) => {}
                        Err(_) => open.retain(|it| *it != place),
                    }
                },
                Step::Release(index) => if let Some(place) = one(index, &open) {
                    places.release(place, now);
                    open.retain(|it| *it != place);
                },
            }
            prop_assert!(places.strangers() <= 5 && places.known() <= 2);
            prop_assert_eq!(places.strangers() + places.known(), open.len());
        }
    }
}
