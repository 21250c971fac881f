//! What failed requests of watches mean, and when the API server is asked about a kind again.

use std::time::Duration;

use operator_core::{
    schedule::{
        access::{Access, Failure, Judged},
        discovery::{Discovery, Next, Served},
        retries::{MOST, Retries, SPREAD, shortened},
    },
    world::watched::Kind,
};

use crate::scene::ms;

const LOOK: Duration = Duration::from_secs(30);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The answers about `v1` and `v1beta1`.
fn answers(first: Served, second: Served) -> [(&'static str, Served); 2] {
    [("v1", first), ("v1beta1", second)]
}

#[test]
fn only_a_definite_answer_is_an_answer() {
    assert_eq!(Failure::of(403, "Forbidden", "pods is forbidden"), Failure::Forbidden);
    assert_eq!(Failure::of(404, "NotFound", "the server could not find the requested resource"), Failure::NotServed);
    assert_eq!(Failure::of(404, "Failed to parse error data", "404 page not found\n"), Failure::NotServed);
    let unclear = [
        (404, "Failed to parse error data", "<html>no such backend</html>"),
        (403, "Failed to parse error data", "blocked by the proxy of this company"),
        (401, "Unauthorized", "Unauthorized"),
        (410, "Expired", "too old resource version"),
        (429, "TooManyRequests", ""),
        (500, "InternalError", ""),
        (503, "ServiceUnavailable", "the request was made before all paths were installed"),
    ];
    for (code, reason, message) in unclear {
        assert_eq!(Failure::of(code, reason, message), Failure::Unclear, "{code} {reason}");
    }
}

#[test]
fn an_unclear_answer_about_any_version_is_no_absence() {
    // C1: the first request of all fails, as it does while an API server starts.
    let mut discovery = Discovery::default();
    let unclear = discovery.answered(&answers(Served::Unclear, Served::Unclear));
    assert_eq!(unclear, Next::Unclear { is_news: true, again: ms(250) });
    let half = discovery.answered(&answers(Served::Unclear, Served::No));
    assert_eq!(half, Next::Unclear { is_news: false, again: ms(500) }, "the version that did not answer may have it");
    assert_eq!(discovery.answered(&answers(Served::No, Served::Yes)), Next::Watch("v1beta1"));
}

#[test]
fn a_version_that_has_the_kind_is_watched_whatever_the_others_say() {
    let mut discovery = Discovery::default();
    assert_eq!(discovery.answered(&answers(Served::Unclear, Served::Yes)), Next::Watch("v1beta1"));
    assert_eq!(discovery.answered(&[("v1", Served::Yes)]), Next::Watch("v1"));
}

#[test]
fn absence_is_reported_once_and_looked_for_at_an_interval() {
    let mut discovery = Discovery::default();
    let nothing = answers(Served::No, Served::No);
    assert_eq!(discovery.answered(&nothing), Next::Absent { is_news: true, again: LOOK });
    for _ in 0..3 {
        assert_eq!(discovery.answered(&nothing), Next::Absent { is_news: false, again: LOOK });
    }
    assert!(matches!(discovery.answered(&answers(Served::No, Served::Unclear)), Next::Unclear { is_news: true, .. }));
    assert_eq!(discovery.answered(&nothing), Next::Absent { is_news: false, again: LOOK }, "nothing was listed since");
    assert_eq!(discovery.answered(&answers(Served::No, Served::Yes)), Next::Watch("v1beta1"));
    discovery.lost(true);
    assert_eq!(discovery.answered(&nothing), Next::Absent { is_news: true, again: LOOK }, "its objects are gone");
}

#[test]
fn pauses_after_unclear_answers_grow_to_half_a_minute_and_start_over() {
    let mut discovery = Discovery::default();
    let unclear = answers(Served::Unclear, Served::Unclear);
    let mut pauses = || match discovery.answered(&unclear) {
        Next::Unclear { again, .. } => again,
        other => panic!("{other:?}"),
    };
    let grown: Vec<Duration> = (0..9).map(|_| pauses()).collect();
    let expected = [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000].map(ms);
    assert_eq!(grown, expected);
    discovery.answered(&answers(Served::No, Served::No));
    assert_eq!(discovery.answered(&unclear), Next::Unclear { is_news: true, again: ms(250) });
}

#[test]
fn a_kind_that_discovery_lists_and_whose_requests_are_refused_is_not_asked_for_without_a_pause() {
    let mut discovery = Discovery::default();
    let pauses: Vec<Duration> = (0..3).map(|_| discovery.lost(false)).collect();
    assert_eq!(pauses, [250, 500, 1000].map(ms));
    assert_eq!(discovery.lost(true), ms(250), "it was listed: this is another loss");
}

fn refused(access: &mut Access, seconds: u64) -> Judged {
    access.failed(Failure::Forbidden, s(seconds))
}

#[test]
fn a_namespace_that_was_never_listed_counts_as_empty_after_ten_seconds_of_refusals() {
    let mut access = Access::new(Kind::Services, true);
    assert_eq!(refused(&mut access, 5), Judged::Refused);
    assert_eq!(refused(&mut access, 14), Judged::Retry);
    assert_eq!(refused(&mut access, 15), Judged::Withdrawn);
    for later in [16, 400, 4000] {
        assert_eq!(refused(&mut access, later), Judged::Retry, "it is reported once");
    }
    assert!(access.listed(), "permission is back");
    assert!(!access.listed());
}

#[test]
fn a_namespace_that_was_listed_keeps_its_objects_for_five_minutes() {
    let mut access = Access::new(Kind::Forwards, true);
    assert!(!access.listed());
    assert_eq!(refused(&mut access, 1000), Judged::Refused);
    assert_eq!(refused(&mut access, 1299), Judged::Retry);
    assert_eq!(refused(&mut access, 1300), Judged::Withdrawn);
    assert!(access.listed());
    assert_eq!(refused(&mut access, 2000), Judged::Refused, "it is refused again, with all the patience");
    assert_eq!(refused(&mut access, 2299), Judged::Retry);
}

#[test]
fn forwards_and_gateways_end_before_the_pods_of_their_proxies_are_forgotten() {
    for (kind, end) in [(Kind::Gateways, 300), (Kind::Agents, 300), (Kind::ProxyPods, 360), (Kind::Grants, 360)] {
        let mut access = Access::new(kind, true);
        access.listed();
        assert_eq!(refused(&mut access, 0), Judged::Refused);
        assert_eq!(refused(&mut access, end - 1), Judged::Retry, "{kind:?}");
        assert_eq!(refused(&mut access, end), Judged::Withdrawn, "{kind:?}");
    }
}

#[test]
fn refusals_count_only_in_a_row() {
    let mut access = Access::new(Kind::Forwards, true);
    assert_eq!(refused(&mut access, 0), Judged::Refused);
    assert_eq!(access.failed(Failure::Unclear, s(9)), Judged::Retry, "the API server restarts");
    assert_eq!(refused(&mut access, 11), Judged::Retry, "and refuses every client for a moment");
    assert_eq!(refused(&mut access, 20), Judged::Retry);
    assert_eq!(refused(&mut access, 21), Judged::Withdrawn);
}

#[test]
fn nothing_but_a_refusal_in_one_namespace_ever_counts_as_empty() {
    let mut everywhere = Access::new(Kind::Forwards, false);
    let mut scoped = Access::new(Kind::Forwards, true);
    for seconds in [0, 100, 10_000] {
        assert_eq!(refused(&mut everywhere, seconds), Judged::Retry, "an operator for all namespaces waits");
        for failure in [Failure::NotServed, Failure::Unclear] {
            assert_eq!(scoped.failed(failure, s(seconds)), Judged::Retry);
        }
    }
}

#[test]
fn a_refused_watch_of_children_never_makes_them_look_deleted() {
    for kind in [Kind::ServiceAccounts, Kind::Budgets, Kind::Policies] {
        for listed in [false, true] {
            let mut access = Access::new(kind, true);
            if listed {
                access.listed();
            }
            assert_eq!(refused(&mut access, 0), Judged::Refused, "{kind:?}");
            assert_eq!(refused(&mut access, 10_000), Judged::Retry, "{kind:?}");
            assert!(access.listed(), "permission is back");
        }
    }
}

#[test]
fn the_pauses_of_a_watch_grow_to_a_bound_that_chance_does_not_exceed() {
    let pauses = |chance: u32| {
        let mut retries = Retries::default();
        (0..8).map(|at| retries.failed(chance, s(60 * at)).as_millis()).collect::<Vec<u128>>()
    };
    assert_eq!(pauses(u32::MAX), [1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000]);
    assert_eq!(pauses(0), [800, 1600, 3200, 6400, 12_800, 15_000, 15_000, 15_000]);
}

#[test]
fn the_pauses_of_a_watch_start_over_after_an_event_and_after_minutes_without_a_failure() {
    let mut retries = Retries::default();
    for _ in 0..8 {
        retries.failed(0, s(1));
    }
    retries.succeeded();
    assert_eq!(retries.failed(0, s(2)), ms(800));
    assert_eq!(retries.failed(0, s(122)), ms(1600), "the watch may have hung until its deadline");
    assert_eq!(retries.failed(0, s(243)), ms(800), "the watch has worked for two minutes");
}

#[test]
fn a_pause_is_never_longer_for_a_return_of_the_api_server() {
    assert_eq!((shortened(MOST, 0), shortened(MOST, u32::MAX)), (ms(0), SPREAD));
    assert_eq!(shortened(ms(30), u32::MAX), ms(30));
}

#[test]
fn a_cluster_may_lack_agents_and_grants_and_nothing_else_that_is_waited_for() {
    let kinds = [Kind::Agents, Kind::Grants, Kind::Forwards, Kind::Gateways, Kind::Services, Kind::Slices];
    assert_eq!(kinds.map(Kind::is_optional), [true, true, false, false, false, false]);
}
