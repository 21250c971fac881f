//! The places at a door under bounds, and the token bucket.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use proptest::prelude::*;
use proxy_api::doors::{Admission, Bounds, Bucket, Evict, PlaceId, Places, Rate, Rates, Refusal, Shares, source_of};

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
fn a_source_is_an_ipv4_address_or_an_ipv6_64() {
    let of = |text: &str| source_of(text.parse().expect("address"));
    assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
    assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
    assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
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
fn a_source_pays_for_itself() {
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
    let rates = Rates { all: Rate::per_second(10, 4), source: Rate::per_second(5, 2) };
    let mut places = Places::new(Bounds { rates: Some(rates), ..bounds(100, 100, 0, Evict::Never) });
    let _ = (admitted(places.admit(ip(1), ms(0))), admitted(places.admit(ip(1), ms(0))));
    for _ in 0..10 {
        assert_eq!(places.admit(ip(1), ms(0)), Admission::Refuse(Refusal::SourceRate));
    }
    let _ = (admitted(places.admit(ip(2), ms(0))), admitted(places.admit(ip(3), ms(0))));
    assert_eq!(places.admit(ip(4), ms(0)), Admission::Refuse(Refusal::Rate));
    let _ = admitted(places.admit(ip(4), ms(100)));
}

/// Whether a connection of this source, which ends at once, is admitted.
fn connects(places: &mut Places, source: IpAddr, now: Duration) -> bool {
    let Admission::Admit(place) = places.admit(source, now) else { return false };
    places.release(place, now);
    true
}

fn numbered(at: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + at))
}

/// For ten seconds, each hostile source of the step connects a hundred times a second. Returns how many of the good
/// source's connections are refused, so many at once each second, and how many of the hostile ones are admitted.
fn flood(
    places: &mut Places,
    hostile: impl Fn(u32) -> std::ops::Range<u32>,
    (good, at_once): (IpAddr, usize),
) -> (usize, usize) {
    let (mut refused, mut admitted) = (0, 0);
    for step in 0..1000_u32 {
        let now = ms(u64::from(step) * 10);
        admitted += hostile(step).filter(|at| connects(places, numbered(*at), now)).count();
        if step % 100 == 50 {
            refused += (0..at_once).filter(|_| !connects(places, good, now)).count();
        }
    }
    (refused, admitted)
}

fn with_rates(all: (u32, u32), source: (u32, u32)) -> Places {
    let rate = |(times, burst)| Rate::per_second(times, burst);
    let rates = Rates { all: rate(all), source: rate(source) };
    Places::new(Bounds { rates: Some(rates), ..bounds(100, 100, 5, Evict::Never) })
}

#[test]
fn a_greedy_source_cannot_starve_others_and_uses_what_is_left() {
    let mut places = with_rates((10, 20), (10, 20));
    let (refused, admitted) = flood(&mut places, |_| 1..2, (numbered(0), 1));
    assert_eq!(refused, 0);
    assert!((90..=120).contains(&admitted), "{admitted} of about a hundred");
}

#[test]
fn many_sources_that_take_the_rate_of_all_keep_nobody_out_who_connects_now_and_then() {
    for count in [6, 20, 200] {
        let mut places = with_rates((1000, 2000), (200, 400));
        let (refused, admitted) = flood(&mut places, |_| 1..1 + count, (numbered(0), 1));
        assert_eq!(refused, 0, "{count} hostile sources");
        assert!(admitted <= 12_000, "{admitted}: the rate of all holds");
    }
}

#[test]
fn a_known_source_gets_in_while_ever_new_sources_take_the_rate_of_all() {
    let mut places = with_rates((1000, 2000), (200, 400));
    let good = numbered(0);
    let proxy = admitted(places.admit(good, ms(0)));
    assert_eq!(places.authenticate(proxy, ms(0)), Ok(None));
    places.release(proxy, ms(0));
    let (refused, admitted) = flood(&mut places, |step| 1 + step * 20..1 + (step + 1) * 20, (good, 50));
    assert_eq!(refused, 0);
    assert!((11_000..=12_000).contains(&admitted), "{admitted}: nothing is left to others");
}

#[test]
fn known_sources_and_strangers_together_keep_to_the_rate_of_all_and_each_get_half_of_it() {
    // C10
    let mut places = with_rates((1000, 2000), (200, 400));
    for at in 0..5 {
        let proxy = admitted(places.admit(numbered(at), ms(0)));
        assert_eq!(places.authenticate(proxy, ms(0)), Ok(None));
        places.release(proxy, ms(0));
    }
    let (mut known, mut strangers) = (0, 0);
    for step in 0..2000_u32 {
        let now = ms(u64::from(step) * 10);
        known += (0..5).flat_map(|at| [at; 4]).filter(|at| connects(&mut places, numbered(*at), now)).count();
        let new = 5 + step * 20;
        strangers += (new..new + 20).filter(|at| connects(&mut places, numbered(*at), now)).count();
    }
    // Two bursts are there from the start: that of all, and the part of it that known sources may owe.
    let most = 20 * 1000 + 2000 + 1000;
    assert!(known + strangers <= most, "{known} and {strangers}");
    assert!(known >= 9_500 && strangers >= 6_000, "{known} and {strangers}");
}

#[test]
fn a_peer_that_was_connected_for_hours_is_known_when_it_comes_back() {
    let mut places = with_rates((10, 20), (10, 20));
    let good = numbered(0);
    let proxy = admitted(places.admit(good, ms(0)));
    assert_eq!(places.authenticate(proxy, ms(0)), Ok(None));
    let end = Duration::from_secs(2 * 3600);
    places.release(proxy, end);
    let mut comes_back = |now| {
        let strangers = (1..=40).filter(|at| connects(&mut places, numbered(*at), now)).count();
        assert_eq!(strangers, 20, "nothing is left to strangers");
        connects(&mut places, good, now)
    };
    assert!(comes_back(end));
    assert!(!comes_back(end + Duration::from_secs(3600)), "it is a stranger after an hour");
}

#[test]
fn sources_that_are_gone_are_forgotten_in_time_however_few_come_after_them() {
    let mut places = with_rates((1000, 2000), (200, 400));
    assert!((0..100).all(|at| connects(&mut places, numbered(at), ms(0))));
    assert!(connects(&mut places, numbered(0), ms(11_000)));
    assert_eq!(places.sources(), 1);
}

#[test]
fn a_share_of_a_rate_is_never_less_than_one_token_of_its_burst() {
    let rate = Rate::per_second(10, 20);
    assert_eq!((rate.part_of(1000), rate.part_of(0)), (rate.part_of(20), rate));
}

#[test]
fn newcomers_for_whom_there_is_no_room_in_the_table_share_one_rate_and_known_peers_do_not() {
    let rates = Rates { all: Rate::per_second(1000, 100_000), source: Rate::per_second(1, 10) };
    let mut places = Places::new(Bounds { rates: Some(rates), ..bounds(10, 10, 2, Evict::Never) });
    assert!((0..16_384).all(|at| connects(&mut places, numbered(at), ms(0))));
    let proxy = admitted(places.admit(numbered(20_000), ms(0)));
    assert_eq!(places.authenticate(proxy, ms(0)), Ok(None));
    let further = (30_000..40_000).filter(|at| connects(&mut places, numbered(*at), ms(0))).count();
    assert_eq!(further, 9, "of ten, of which the proxy took one");
    assert!(connects(&mut places, numbered(20_000), ms(0)));
    assert_eq!(places.sources(), 16_384 + 2);
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
    let mut shares = Shares::new(10, 4);
    assert_eq!((shares.take(ip(1), 4), shares.take(ip(1), 1)), (Ok(()), Err(Refusal::SourceFull)));
    assert_eq!((shares.take(ip(2), 4), shares.take(ip(3), 3)), (Ok(()), Err(Refusal::Full)));
    assert_eq!((shares.take(ip(3), 2), shares.held(), shares.sources()), (Ok(()), 10, 3));
    shares.give_back(ip(1), 4);
    assert_eq!((shares.held(), shares.sources()), (6, 2), "a source without units is forgotten");
    assert_eq!(shares.take(ip(1), 4), Ok(()));
}

#[test]
fn sources_are_forgotten_once_they_say_nothing() {
    let rates = Rates { all: Rate::per_second(1000, 1000), source: Rate::per_second(10, 2) };
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
        evict in prop_oneof![Just(Evict::Never), Just(Evict::Silent), Just(Evict::Any)],
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
                    Admission::Refuse(_) => prop_assert!(evict != Evict::Any, "a newcomer always gets in"),
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
