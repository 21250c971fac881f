//! The rates of a door: strangers, known peers and greedy sources beside each other.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use proxy_api::doors::{Admission, Bounds, Evict, LONGEST_TURN, PlaceId, Places, Rate, Rates, Refusal};

use super::{admitted, bounds, ms};

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
    let rates = Rates { all: rate(all), source: rate(source), evenly: true };
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
fn a_source_that_is_known_by_other_means_gets_in_while_strangers_take_the_rate_of_all_and_has_its_own_rate() {
    let rate = |times| Rate::per_second(times, 2 * times);
    let rates = Some(Rates { all: rate(1000), source: rate(200), evenly: false });
    let mut places = Places::new(Bounds { rates, ..bounds(100, 100, 500, Evict::WorkLast) });
    assert_eq!((0..5000).filter(|at| connects(&mut places, numbered(1 + at), ms(0))).count(), 2000);
    let begun = (0..500).filter(|_| matches!(places.admit_known(numbered(0), ms(0)), Admission::Admit(_))).count();
    assert_eq!((begun, places.known()), (400, 400));
    assert_eq!(places.admit_known(numbered(0), ms(0)), Admission::Refuse(Refusal::SourceRate));
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
    let rates = Rates { all: Rate::per_second(1000, 100_000), source: Rate::per_second(1, 10), evenly: false };
    let mut places = Places::new(Bounds { rates: Some(rates), ..bounds(10, 10, 2, Evict::Never) });
    assert!((0..16_384).all(|at| connects(&mut places, numbered(at), ms(0))));
    let proxy = admitted(places.admit(numbered(20_000), ms(0)));
    assert_eq!(places.authenticate(proxy, ms(0)), Ok(None));
    let further = (30_000..40_000).filter(|at| connects(&mut places, numbered(*at), ms(0))).count();
    assert_eq!(further, 9, "of ten, of which the proxy took one");
    assert!(connects(&mut places, numbered(20_000), ms(0)));
    assert_eq!(places.sources(), 16_384 + 2);
}

// C10
#[test]
fn the_handshakes_of_a_burst_begin_evenly() {
    let mut places = with_rates((10, 20), (10, 20));
    let turn = |at| {
        let place = admitted(places.admit(numbered(at), ms(0)));
        places.turn(place)
    };
    let turns: Vec<Duration> = (0..20).map(turn).collect();
    let evenly: Vec<Duration> = (0..20).map(|at| ms(at / 2 * 200)).collect();
    assert_eq!(turns, evenly, "two lanes with five a second each");
}

#[test]
fn a_greedy_source_waits_longer_for_its_handshakes_than_others() {
    let mut places = with_rates((10, 20), (10, 20));
    let mut greedy = Duration::ZERO;
    while let Admission::Admit(place) = places.admit(numbered(1), ms(0)) {
        greedy = places.turn(place);
    }
    let other = admitted(places.admit(numbered(2), ms(0)));
    assert!(places.turn(other) < greedy / 2, "{:?} and {greedy:?}", places.turn(other));
}

// C3: each greedy connection that waits for its turn holds a place, and may not be evicted.
#[test]
fn greedy_sources_that_come_in_bursts_leave_places_and_turns_to_others() {
    let rate = |times| Rate::per_second(times, 2 * times);
    let rates = Some(Rates { all: rate(200), source: rate(50), evenly: true });
    let mut places = Places::new(Bounds { rates, ..bounds(512, 64, 5000, Evict::Silent) });
    let mut waiting: Vec<(Duration, PlaceId)> = Vec::new();
    for step in 0..200_u32 {
        let now = ms(u64::from(step) * 100);
        for (_, place) in waiting.extract_if(.., |(turn, _)| *turn <= now) {
            places.waits(place, now);
        }
        for source in (1..=8).flat_map(|source| [source; 64]) {
            let (Admission::Admit(place) | Admission::AdmitAfterEvicting { place, .. }) =
                places.admit(numbered(source), now)
            else {
                continue;
            };
            places.asks(place, now);
            waiting.push((now + places.turn(place), place));
        }
        let good = match places.admit(numbered(100 + step), now) {
            Admission::Admit(place) | Admission::AdmitAfterEvicting { place, .. } => place,
            Admission::Refuse(why) => panic!("refused after {now:?}: {}", why.as_str()),
        };
        assert!(places.turn(good) <= ms(1500), "{:?} after {now:?}", places.turn(good));
        places.release(good, now);
    }
}

// C10
#[test]
fn the_turn_of_a_handshake_comes_before_a_proxy_gives_up_and_nobody_is_refused_for_it() {
    let rate = |times| Rate::per_second(times, 2 * times);
    let rates = Some(Rates { all: rate(200), source: rate(50), evenly: true });
    let mut places = Places::new(Bounds { rates, ..bounds(1000, 64, 200, Evict::Silent) });
    let known = |at: u32| (numbered(1000 + at), ms(u64::from(at) * 50));
    for (source, now) in (0..200).map(known) {
        let place = admitted(places.admit(source, now));
        assert_eq!(places.authenticate(place, now), Ok(None));
        places.release(place, now);
    }
    let now = ms(100_000);
    let mut turns_of = |source| {
        let Admission::Admit(place) = places.admit(source, now) else { return None };
        Some(places.turn(place))
    };
    // As much as greedy sources, newcomers and known proxies may use up at once, one after the other.
    let greedy: Vec<Duration> = (1..=8).flat_map(|at| [at; 64]).filter_map(|at| turns_of(numbered(at))).collect();
    let newcomers: Vec<Duration> = (0..600).filter_map(|at| turns_of(numbered(5000 + at))).collect();
    let known: Vec<Duration> = (0..200).map(|at| turns_of(known(at).0).expect("a known proxy gets in")).collect();
    assert_eq!(greedy.len() + newcomers.len(), 400, "all tokens are used up");
    assert!(known.iter().all(|turn| *turn < LONGEST_TURN), "{:?}", known.last());
}
