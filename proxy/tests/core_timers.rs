//! Timers with a virtual clock: never early whatever the phase of clock and sweep, and at most a second late.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use proxy::core::{
    sessions::{
        end::EndReason,
        timers::{TimerState, cut, has_passed, is_silent},
    },
    workers::rounds::{Occupied, ROUND_MILLIS, Rounds, SLICE_MILLIS, SLICES, Visit, first_slice, places_of, slice_of},
};
use proxy_api::Timeouts;

fn times(idle_seconds: u32, half_close_seconds: u32, max_session_seconds: Option<u32>) -> Timeouts {
    Timeouts {
        connect_seconds: 5,
        idle_seconds,
        half_close_seconds,
        udp_idle_seconds: 60,
        keepalive_seconds: 60,
        handshake_seconds: None,
        max_session_seconds,
    }
}

const NEW: TimerState = TimerState { started: 0, active_at: 0, half_closed: false, end_at: None };

#[test]
fn a_limit_is_over_only_when_even_the_latest_event_is_that_old() {
    for (since, limit, now, expected) in [
        (0, 1000, 999, false),
        (0, 1000, 1000, false),
        (0, 1000, 1001, true),
        (5, 0, 5, false),
        (5, 0, 6, true),
        (9, 0, 5, false),
        (0, u64::MAX, u64::MAX, true),
        (1, u64::MAX, u64::MAX, false),
    ] {
        assert_eq!(has_passed(since, limit, now), expected, "{since} {limit} {now}");
    }
}

#[test]
fn the_limit_of_silence_is_another_once_one_side_has_finished() {
    let times = times(10, 3, None);
    let half = TimerState { half_closed: true, ..NEW };
    for (state, last) in [(NEW, 10_000), (half, 3000)] {
        assert!(!is_silent(&state, &times, last), "{state:?}");
        assert!(is_silent(&state, &times, last + 1), "{state:?}");
    }
}

#[test]
fn a_session_is_cut_at_its_scheduled_end_or_its_age_however_active_it_is() {
    let active = |now: u64| TimerState { active_at: now, ..NEW };
    let old = times(10, 3, Some(5));
    assert_eq!(cut(&active(5000), &old, 5000), None);
    assert_eq!(cut(&active(5001), &old, 5001), Some(EndReason::MaxSession));
    assert_eq!(cut(&active(5001), &times(10, 3, None), u64::MAX), None);
    let scheduled = TimerState { end_at: Some((4000, EndReason::Updated)), ..active(4000) };
    assert_eq!(cut(&scheduled, &old, 4000), None);
    assert_eq!(cut(&scheduled, &old, 4001), Some(EndReason::Updated));
    assert_eq!(cut(&scheduled, &old, 6000), Some(EndReason::Updated), "the end that was asked for explains itself");
}

#[test]
fn silence_is_a_clean_end_only_if_it_cuts_nothing() {
    for (half_closed, in_flight, expected) in [
        (false, false, EndReason::Idle),
        (true, false, EndReason::HalfClosed),
        (false, true, EndReason::Stalled),
        (true, true, EndReason::Stalled),
    ] {
        let reason = EndReason::of_silence(half_closed, in_flight);
        assert_eq!(reason, expected);
        assert_eq!(reason.is_clean(), !half_closed && !in_flight);
    }
}

#[test]
fn every_place_belongs_to_one_slice_and_few_sessions_are_all_in_the_first() {
    for size in [0, 1, 255, 256, 257, 16_384, 16_385, 100_000] {
        let mut visited: Vec<usize> = Vec::new();
        for slice in 0..SLICES {
            let before = visited.len();
            visited.extend(places_of(slice, size));
            assert!(visited.iter().skip(before).all(|place| slice_of(*place) == slice));
            assert!(visited.len() - before <= size.div_ceil(SLICES) + 256, "no slice has much more than its share");
        }
        visited.sort_unstable();
        assert!(visited.into_iter().eq(0..size), "{size}");
    }
    assert!((0..256).all(|place| slice_of(place) == 0));
}

// D9
#[test]
fn the_sweep_wakes_once_a_round_and_for_each_slice_that_has_sessions() {
    let occupied = Occupied::default();
    let mut rounds = Rounds::new(0);
    let wakes = |rounds: &mut Rounds, occupied: &Occupied| {
        let mut wakes: Vec<u64> = Vec::new();
        while wakes.last().is_none_or(|at| at % ROUND_MILLIS != 0) {
            let at = rounds.plan(|slice| occupied.has(slice));
            assert!(rounds.due(at).count() > 0);
            wakes.push(at);
        }
        wakes
    };
    assert_eq!(wakes(&mut rounds, &occupied), [ROUND_MILLIS]);
    let (second, last) = (256, 256 * (SLICES - 1));
    for place in [0, 1, second, last, last + 1] {
        occupied.add(place);
    }
    let busy = [SLICE_MILLIS, SLICE_MILLIS * 63, ROUND_MILLIS].map(|after| ROUND_MILLIS + after);
    assert_eq!(wakes(&mut rounds, &occupied), busy);
    occupied.remove(last);
    occupied.remove(second);
    assert_eq!(wakes(&mut rounds, &occupied), [SLICE_MILLIS * 63, ROUND_MILLIS].map(|after| ROUND_MILLIS * 2 + after));
}

#[test]
fn for_a_round_after_a_freeze_nobody_is_judged_and_then_everybody_is() {
    let mut rounds = Rounds::new(0);
    rounds.plan(|_| true);
    let frozen: Vec<Visit> = rounds.due(60_000).collect();
    assert_eq!(frozen.len(), SLICES, "each slice once, however many rounds were missed");
    assert!(frozen.iter().all(|visit| !visit.is_judged));
    let mut judged: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    for _ in 0..2 * SLICES {
        let at = rounds.plan(|_| true);
        for visit in rounds.due(at) {
            judged.entry(visit.slice).or_default().push(visit.is_judged);
        }
    }
    assert_eq!(judged.len(), SLICES);
    assert!(judged.values().all(|judged| *judged == [false, true]), "{judged:?}");
}

#[test]
fn a_sweep_was_frozen_if_it_wakes_more_than_half_a_second_late() {
    for (late, is_judged) in [(500, true), (501, false)] {
        let mut rounds = Rounds::new(0);
        let planned = rounds.plan(|_| true);
        assert!(rounds.due(planned + late).all(|visit| visit.is_judged == is_judged), "{late}");
    }
}

#[test]
fn sixteen_sockets_begin_with_the_same_slice_and_the_next_ones_with_the_next() {
    let slices = [0, 15, 16, 32, 16 * 63, 16 * 64 - 1, 16 * 64].map(first_slice);
    assert_eq!(slices, [0, 0, 1, 2, 63, 63, 0]);
}

#[test]
fn a_worker_that_is_always_late_judges_all_the_same() {
    let mut rounds = Rounds::new(0);
    let mut visits = (1..10_u64).map(|turn| {
        rounds.plan(|_| true);
        rounds.due(turn * 5000).all(|visit| visit.is_judged)
    });
    assert_eq!(visits.next(), Some(false));
    assert!(visits.all(|is_judged| is_judged));
}

/// Microseconds as the process clock shows them.
fn shown(micros: u64) -> u64 {
    micros / 1000
}

/// Runs a sweep whose wakes are late by these microseconds, over and over, and returns when the session in this place is
/// silent, in microseconds. Events are the times of bytes.
fn ends_at(start: u64, place: usize, events: &[u64], late: &[u64], idle_seconds: u32) -> u64 {
    let times = times(idle_seconds, 1, None);
    let occupied = Occupied::default();
    occupied.add(place);
    let mut rounds = Rounds::new(shown(start));
    let mut lateness = late.iter().cycle();
    loop {
        let at = rounds.plan(|slice| occupied.has(slice));
        let now = at * 1000 + lateness.next().expect("a cycle");
        for visit in rounds.due(shown(now)) {
            let active_at = events.iter().copied().filter(|event| *event <= now).max().map(shown);
            let Some(active_at) = active_at.filter(|_| visit.slice == slice_of(place)) else { continue };
            if visit.is_judged && is_silent(&TimerState { active_at, ..NEW }, &times, shown(now)) {
                return now;
            }
        }
    }
}

proptest! {
    #[test]
    fn a_session_ends_never_before_its_time_and_at_most_a_second_late(
        start in 0_u64..10_000_000,
        place in 0_usize..40_000,
        idle in 1_u32..4,
        // Pauses, in millionths of the limit.
        gaps in proptest::collection::vec(0_u64..1_000_000, 0..30),
        // Usual delays of a timer and of the tasks before it.
        late in proptest::collection::vec(0_u64..20_000, 1..10),
    ) {
        let limit = u64::from(idle) * 1_000_000;
        let mut events = vec![start];
        for gap in gaps {
            events.push(events.last().expect("the start") + limit * gap / 1_000_000);
        }
        let last = *events.last().expect("the start");
        let end = ends_at(start, place, &events, &late, idle);
        prop_assert!(end >= last + limit, "{} before its time", last + limit - end);
        prop_assert!(end <= last + limit + 1_000_000, "{} late", end - last - limit);
    }
}
