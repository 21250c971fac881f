//! Doors in clusters with IPv6: a pod takes no places and no turns from others of its /64, and a host with a whole /64
//! takes none from others.

use std::{
    hash::RandomState,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use proxy_api::doors::{Admission, Bounds, Evict, PlaceId, Places, Rate, Rates, Refusal, Shares, Turns};

use super::{admitted, bounds, evicted, ip, ms};

/// An address of this /64.
fn six(network: u16, host: u32) -> IpAddr {
    let bits = 0x2001_0db8_u128 << 96 | u128::from(network) << 64 | u128::from(host);
    IpAddr::V6(Ipv6Addr::from_bits(bits))
}

// C3
#[test]
fn a_pod_leaves_places_to_its_neighbours_and_a_64_to_others() {
    let mut places = Places::new(bounds(16, 4, 0, Evict::Never));
    for host in 1..=3 {
        for _ in 0..4 {
            let _ = admitted(places.admit(six(1, host), ms(0)));
        }
        assert_eq!(places.admit(six(1, host), ms(0)), Admission::Refuse(Refusal::SourceFull));
    }
    assert_eq!(places.admit(six(1, 4), ms(0)), Admission::Refuse(Refusal::SourceFull), "three quarters of all");
    let other = admitted(places.admit(ip(1), ms(0)));
    let _ = admitted(places.admit(six(2, 1), ms(0)));
    places.release(other, ms(1));
    assert_eq!(places.sources(), 4, "without rates, a source without places is forgotten");
}

// C3
#[test]
fn hosts_with_a_64_each_cannot_take_the_connections_of_others() {
    for networks in [1, 2, 4] {
        let mut places = Places::new(bounds(16, 4, 0, Evict::Any));
        let good = [ip(1), six(9, 1)].map(|source| admitted(places.admit(source, ms(0))));
        for at in 0..1000_u32 {
            let network = u16::try_from(at % networks).expect("few");
            let admission = places.admit(six(network, at), ms(1 + u64::from(at)));
            if let Admission::AdmitAfterEvicting { evicted, .. } = admission {
                assert!(!good.contains(&evicted), "{networks} networks, connection {at}");
            }
        }
        let full = if networks == 1 { 14 } else { 16 };
        assert_eq!(places.strangers(), full, "{networks} networks");
    }
}

#[test]
fn in_a_network_without_a_place_the_source_with_the_most_pays() {
    let mut places = Places::new(bounds(16, 8, 0, Evict::Any));
    let quiet: Vec<PlaceId> = (2..=5).map(|host| admitted(places.admit(six(1, host), ms(0)))).collect();
    let greedy: Vec<PlaceId> = (0..8).map(|at| admitted(places.admit(six(1, 1), ms(1 + at)))).collect();
    for host in 6..9 {
        assert!(greedy.contains(&evicted(places.admit(six(1, host), ms(20)))));
    }
    for place in quiet {
        places.release(place, ms(30));
    }
    assert_eq!(places.strangers(), 12 - 4, "the quiet ones had kept their places");
}

// C3
#[test]
fn requests_in_work_of_a_network_do_not_end_the_silent_connection_of_a_neighbour_with_few() {
    let mut places = Places::new(bounds(64, 32, 0, Evict::WorkLast));
    let quiet = admitted(places.admit(six(1, 100), ms(0)));
    for at in 0..300_u32 {
        let now = ms(1 + u64::from(at));
        let (place, gone) = match places.admit(six(1, 1 + at % 8), now) {
            Admission::Admit(place) => (place, None),
            Admission::AdmitAfterEvicting { place, evicted } => (place, Some(evicted)),
            Admission::Refuse(why) => panic!("{}", why.as_str()),
        };
        assert_ne!(gone, Some(quiet), "connection {at}");
        places.asks(place, now);
    }
    assert_eq!(places.strangers(), 48);
}

/// A door as that of the webhook, with 5 known sources.
fn door() -> Places {
    let rate = |times| Rate::per_second(times, 2 * times);
    let rates = Rates { all: rate(1000), source: rate(200), evenly: false };
    Places::new(Bounds { rates: Some(rates), ..bounds(100, 100, 5, Evict::Never) })
}

/// Whether a connection of this source, which ends at once, is admitted.
fn connects(places: &mut Places, source: IpAddr, now: Duration) -> bool {
    let Admission::Admit(place) = places.admit(source, now) else { return false };
    places.release(place, now);
    true
}

/// For ten seconds, the hostile sources of each hundredth of a second connect. Returns how many of the good source's
/// connections are refused, so many at once each second, and how many of the hostile ones are admitted.
fn flood<H: Iterator<Item = IpAddr>>(
    places: &mut Places,
    hostile: impl Fn(u32) -> H,
    (good, at_once): (IpAddr, usize),
) -> (usize, usize) {
    let (mut refused, mut admitted) = (0, 0);
    for step in 0..1000_u32 {
        let now = ms(u64::from(step) * 10);
        admitted += hostile(step).filter(|source| connects(places, *source, now)).count();
        if step % 100 == 50 {
            refused += (0..at_once).filter(|_| !connects(places, good, now)).count();
        }
    }
    (refused, admitted)
}

// C3
#[test]
fn pods_that_connect_all_the_time_keep_no_neighbour_out() {
    for pods in [1, 3, 10] {
        let hostile = |_| (0..10).flat_map(move |_| (1..=pods).map(|host| six(1, host)));
        let (refused, admitted) = flood(&mut door(), hostile, (six(1, 1000), 1));
        assert_eq!(refused, 0, "{pods} pods");
        assert!(admitted <= 600 * 10 + 1200, "{admitted}: a network has three times the rate of a source");
    }
}

// C3
#[test]
fn hosts_that_use_each_address_of_their_64_once_keep_nobody_else_out() {
    for networks in [1, 2, 4] {
        let hostile = |step: u32| (0..40).map(move |at| six(u16::try_from(at % networks).unwrap_or(0), step * 40 + at));
        let mut places = door();
        let (refused, admitted) = flood(&mut places, hostile, (ip(1), 1));
        assert_eq!(refused, 0, "{networks} networks");
        let most = if networks == 1 { 600 * 10 + 1200 } else { 1000 * 10 + 2000 };
        assert!(admitted <= most, "{admitted} of {networks} networks");
    }
}

// C3
#[test]
fn a_known_source_is_not_held_to_the_rate_of_its_network() {
    let (mut places, good) = (door(), six(1, 1000));
    let proxy = admitted(places.admit(good, ms(0)));
    assert_eq!(places.authenticate(proxy, ms(0)), Ok(None));
    places.release(proxy, ms(0));
    let hostile = |step: u32| (0..40).map(move |at| six(1, 2000 + step * 40 + at));
    let (refused, _) = flood(&mut places, hostile, (good, 50));
    assert_eq!(refused, 0);
    let neighbours = (0..50).filter(|_| connects(&mut places, six(1, 1), ms(10_000))).count();
    assert!(neighbours < 50, "{neighbours}: a neighbour is not known");
}

#[test]
fn one_network_cannot_fill_the_table_of_sources() {
    let rates = Rates { all: Rate::per_second(1000, 100_000), source: Rate::per_second(1, 100_000), evenly: false };
    let mut places = Places::new(Bounds { rates: Some(rates), ..bounds(10, 10, 2, Evict::Never) });
    assert!((1..=20_000).all(|host| connects(&mut places, six(1, host), ms(0))));
    assert_eq!(places.sources(), 4096 + 1, "the others count as one");
    assert!(connects(&mut places, ip(1), ms(0)));
    assert_eq!(places.sources(), 4096 + 2);
}

#[test]
fn what_is_held_is_bounded_by_address_and_by_network() {
    let mut shares = Shares::<RandomState>::new(16, 4);
    for host in 1..=3 {
        assert_eq!((shares.take(six(1, host), 4), shares.take(six(1, host), 1)), (Ok(()), Err(Refusal::SourceFull)));
    }
    assert_eq!(shares.take(six(1, 4), 1), Err(Refusal::SourceFull));
    assert_eq!((shares.take(ip(1), 4), shares.take(six(2, 1), 1)), (Ok(()), Err(Refusal::Full)));
    shares.give_back(six(1, 1), 4);
    assert_eq!((shares.take(six(1, 4), 4), shares.held(), shares.sources()), (Ok(()), 16, 4));
}

#[test]
fn requests_wait_for_the_turn_of_their_network_and_probes_do_not() {
    let mut turns = Turns::new(Rate::per_second(10, 1));
    let waits: Vec<bool> = (1..=4).map(|host| turns.wait(six(1, host), ms(0)).is_zero()).collect();
    assert_eq!(waits, [true, true, true, false], "three times the rate of a source");
    assert!(turns.wait(six(2, 1), ms(0)).is_zero() && turns.wait(six(1, 1), ms(0)) == ms(100));
    let mut probes = Turns::new(Rate::per_second(10, 1));
    assert!((1..=100).all(|host| probes.take(six(1, host), ms(0))));
}
