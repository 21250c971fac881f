//! When checks are due, when failures are reported, and when a loop counts as hanging.

use std::time::Duration;

use operator_core::{
    schedule::{
        backoff::Backoff,
        deliveries::{Answer, answer, pause},
        liveness::{Pulse, SILENCE, complaint},
        schemas::{Compared, Comparisons},
        upkeep::{Cause, Checked, Gate, Next, Rounds},
    },
    world::schema::Lack,
};

use crate::scene::ms;

fn rounds() -> Rounds {
    Rounds::new(ms(10_000), ms(500), ms(3000))
}

#[test]
fn checks_are_rare_while_all_is_well_and_frequent_while_something_is_missing() {
    let mut rounds = rounds();
    for _ in 0..5 {
        assert_eq!(rounds.checked(Checked::Incomplete), Next { pause: ms(500), is_news: false });
    }
    for _ in 0..5 {
        assert_eq!(rounds.checked(Checked::Done), Next { pause: ms(10_000), is_news: false });
    }
}

#[test]
fn a_failure_for_another_cause_is_news_and_so_is_one_after_a_success() {
    let mut cause = Cause::default();
    assert!(cause.failed("unreachable"), "the first");
    assert!(!cause.failed("unreachable"));
    assert!(cause.failed("404"), "the first cause must not hide the second");
    assert!(cause.failed("unreachable"), "the first cause is back");
    cause.succeeded();
    assert!(cause.failed("unreachable"), "writes succeeded in between");
}

#[test]
fn a_failure_is_reported_once_and_retried_ever_later() {
    let mut rounds = rounds();
    let mut failed = |why: &str| rounds.checked(Checked::Failed(why));
    assert_eq!(failed("refused"), Next { pause: ms(500), is_news: true });
    let pauses: Vec<Next> = (0..4).map(|_| failed("refused")).collect();
    let expected = [1000, 2000, 3000, 3000].map(|pause| Next { pause: ms(pause), is_news: false });
    assert_eq!(pauses, expected);
    assert!(failed("no answer").is_news, "it fails for another reason");
    assert!(!failed("no answer").is_news);
    assert_eq!(rounds.checked(Checked::Done).pause, ms(10_000));
    assert_eq!(rounds.checked(Checked::Failed("no answer")), Next { pause: ms(500), is_news: true });
}

fn lack(count: usize, ignored_count: usize) -> [Lack; 1] {
    [Lack { kind: "PortForward".to_owned(), count, ignored_count, ..Lack::default() }]
}

#[test]
fn a_difference_of_crds_counts_once_two_comparisons_agree_and_is_logged_once() {
    let mut comparisons = Comparisons::default();
    let mut compared = |count, ignored| comparisons.compared(&lack(count, ignored));
    let first = Compared { result: "outdated", is_news: false, is_settled: false, checked: Checked::Incomplete };
    assert_eq!(compared(2, 0), first);
    assert_eq!(compared(1, 0), first, "another difference: the upgrade is under way");
    assert_eq!(compared(1, 0), Compared { is_news: true, is_settled: true, ..first });
    assert_eq!(compared(1, 0), Compared { is_settled: true, ..first });
    let complete = Compared { result: "complete", is_news: false, is_settled: true, checked: Checked::Done };
    assert_eq!(compared(0, 0), complete, "nothing is missing, which counts at once");
    assert_eq!(compared(0, 0), complete);
    assert_eq!(compared(1, 0), first, "the difference is back");
}

#[test]
fn a_newer_crd_is_compared_again_soon_until_the_difference_is_confirmed() {
    let mut comparisons = Comparisons::default();
    let first = Compared { result: "newer", is_news: false, is_settled: false, checked: Checked::Incomplete };
    assert_eq!(comparisons.compared(&lack(0, 3)), first);
    let second = Compared { is_news: true, is_settled: true, checked: Checked::Done, ..first };
    assert_eq!(comparisons.compared(&lack(0, 3)), second);
    assert_eq!(comparisons.compared(&lack(0, 3)), Compared { is_news: false, ..second });
}

#[test]
fn notices_are_retried_while_a_retry_may_succeed_and_dropped_after_the_fifth_try() {
    let of = |codes: &[u16]| -> Vec<Answer> { codes.iter().map(|code| answer(*code)).collect() };
    assert_eq!(of(&[200, 204, 299]), [Answer::Delivered; 3]);
    assert_eq!(of(&[429, 500, 503, 599]), [Answer::Later; 4]);
    assert_eq!(of(&[199, 301, 400, 404, 428, 430, 499, 600]), [Answer::Refused; 8]);
    let pauses: Vec<Duration> = (0..9).map_while(pause).collect();
    assert_eq!(pauses, [ms(1000), ms(2000), ms(5000), ms(15_000)]);
}

#[test]
fn a_backoff_never_exceeds_its_limit() {
    let mut backoff = Backoff::new(ms(5000), ms(3000));
    assert_eq!((backoff.pause(), backoff.pause()), (ms(3000), ms(3000)));
    backoff.reset();
    assert_eq!(backoff.pause(), ms(3000));
    let mut endless = Backoff::new(Duration::from_secs(1), Duration::MAX);
    assert!((0..200).all(|_| endless.pause() > Duration::ZERO), "no overflow");
}

#[test]
fn a_gate_opens_when_the_work_is_done_or_the_time_is_up_and_stays_open() {
    let mut gate = Gate::new(ms(15_000));
    assert!(!gate.opens(false, ms(0)));
    assert_eq!(gate.left(ms(14_000)), ms(1000), "the next check is no later");
    assert!(!gate.opens(false, ms(14_999)));
    assert!(gate.opens(false, ms(15_000)));
    assert!(gate.opens(false, ms(15_001)));
    assert_eq!(gate.left(ms(15_001)), Duration::MAX);
    let mut early = Gate::new(ms(15_000));
    assert!(early.opens(true, ms(1)));
    assert!(early.opens(false, ms(2)), "it is not shut again");
}

// C4
#[test]
fn a_loop_that_is_silent_for_too_long_is_named() {
    let pulses = |driver: u64, lease: u64| {
        let pulse = |name, last| Pulse { name, last: ms(last), patience: SILENCE };
        [pulse("the driver", driver), pulse("the leader election", lease)]
    };
    let now = ms(100_000);
    let late = now.saturating_sub(SILENCE);
    assert!(SILENCE < Duration::from_secs(30), "a loop that hangs is reported within 30 s");
    assert_eq!(complaint(&pulses(99_900, 95_000), now), None);
    let at = u64::try_from(late.as_millis()).expect("short");
    assert_eq!(complaint(&pulses(at, 99_000), now), None, "exactly the longest silence");
    let driver = complaint(&pulses(at - 1000, 99_000), now).expect("the driver hangs");
    assert_eq!(driver, "the driver has not made progress for 26 s");
    let both = complaint(&pulses(0, 10_000), now).expect("both hang");
    assert_eq!(both, "the driver has not made progress for 100 s, the leader election has not made progress for 90 s");
    let of_future = [Pulse { name: "x", last: ms(5), patience: SILENCE }];
    assert_eq!(complaint(&of_future, ms(0)), None, "a sign from the future");
}
