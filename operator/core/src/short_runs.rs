//! Apps that end with an error soon after their start: again and again, as `kubectl` shows by `CrashLoopBackOff`, or once, in a pod
//! that is not restarted.
//!
//! Such an app may be one whose port a listener has: the proxy of its pod is there before it, and a port that nobody declares
//! cannot be known. So at some of its starts it is left all ports of its pod, more and more rarely, as an app has other reasons to
//! end and may need its doors. Once it has run for a while the listeners come back; whose port is taken then is the app's.
//!
//! Times are in seconds of Unix time. Those of kubelet are of another clock: they are used only for what was there before anybody
//! looked.

use std::collections::BTreeMap;

use crate::ObjectKey;

/// Longest run that is a short one.
const SHORT: u32 = 60;
/// Seconds beyond its last run after which an app has got past what ended it.
const MARGIN: u32 = 10;
/// The short run in a row from which an app is told of.
const TOLD_FROM: u32 = 2;
/// The short run in a row after which it is first left all ports.
const LEFT_FROM: u32 = 4;
/// Seconds before a restart at which listeners leave.
const EARLY: u32 = 30;
/// Seconds after the time of a restart at which it is not waited for any more.
const OVERDUE: u32 = 60;
/// What kubelet waits before the second restart in a row; twice as long each further time, up to the longest.
const FIRST_WAIT: u32 = 10;
const LONGEST_WAIT: u32 = 300;
/// Seconds for which a pod is told of that is not restarted.
const TOLD_SECONDS: u32 = 600;

/// The last run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortRun {
    /// Its container.
    pub container: String,
    /// What it ended with; not 0.
    pub exit_code: i32,
    /// Seconds that it ran.
    pub seconds: u32,
    /// What came of it.
    pub then: Then,
}

/// What came of a run that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is to be restarted.
    Waits {
        /// For this time.
        restart: u32,
        /// Since it ended.
        since: i64,
        /// Seconds that kubelet lets pass, once it says so.
        wait: Option<u32>,
    },
    /// It runs again.
    Runs {
        /// For this time.
        restart: u32,
        /// Since then.
        since: i64,
    },
    /// The pod ended with it.
    Failed {
        /// Then.
        since: i64,
    },
}

impl ShortRun {
    /// Whether the run was a short one.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.seconds <= SHORT
    }

    fn restart(&self) -> Option<u32> {
        match self.then {
            Then::Waits { restart, .. } | Then::Runs { restart, .. } => Some(restart),
            Then::Failed { .. } => None,
        }
    }

    fn since(&self) -> i64 {
        match self.then {
            Then::Waits { since, .. } | Then::Runs { since, .. } | Then::Failed { since } => since,
        }
    }

    fn is_same_as(&self, other: &Self) -> bool {
        let kind = |run: &Self| (std::mem::discriminant(&run.then), run.restart());
        kind(self) == kind(other)
    }
}

/// What there is to say of an app that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Its container.
    pub container: String,
    /// What it ended with.
    pub exit_code: i32,
    /// Its pod ended with it.
    pub is_last: bool,
    /// No listener runs in its pod now.
    pub left_all_ports: bool,
}

impl Failing {
    pub(crate) fn words(&self) -> String {
        let Self { container, exit_code, .. } = self;
        let how = if self.is_last { "ended soon after its start" } else { "ends soon after each start" };
        let left = if self.left_all_ports { ", and is left all ports of its pod this time" } else { "" };
        format!(
            "container {container} {how} (exit code {exit_code}){left}: if its log says that an address is in use, declare in the \
             template the ports that it listens on (containerPort, or the annotation portlane.dev/app-ports)"
        )
    }
}

/// The pods with such apps, as they were seen by one leader.
#[derive(Clone, Debug, Default)]
pub struct ShortRuns {
    pods: BTreeMap<ObjectKey, Pod>,
}

#[derive(Clone, Debug, Default)]
struct Pod {
    apps: Vec<Seen>,
    /// As it was looked at last.
    failing: Option<Failing>,
}

#[derive(Clone, Debug)]
struct Seen {
    run: ShortRun,
    /// Since when it is as it is.
    since: i64,
    /// Restarts before the first short run in a row.
    before: u32,
    /// What kubelet said last that it waits. Newer ones say it only when they are about to restart.
    said: Option<u32>,
}

impl ShortRuns {
    /// Takes the short runs of a pod as they are now; whether there is anything else to say of it than before.
    pub fn note(&mut self, key: &ObjectKey, runs: &[ShortRun], now: i64) -> bool {
        if runs.is_empty() {
            return self.pods.remove(key).is_some_and(|pod| pod.failing.is_some());
        }
        let pod = self.pods.entry(key.clone()).or_default();
        let apps = std::mem::take(&mut pod.apps);
        let seen = |run: &ShortRun| {
            let before = apps.iter().find(|seen| seen.run.container == run.container);
            Seen::of(run.clone(), before, now)
        };
        pod.apps = runs.iter().map(seen).collect();
        let failing = pod.failing(now);
        std::mem::replace(&mut pod.failing, failing.clone()) != failing
    }

    /// What there is to say of a pod, as of the time when it was noted last.
    #[must_use]
    pub fn failing(&self, key: &ObjectKey) -> Option<&Failing> {
        self.pods.get(key)?.failing.as_ref()
    }

    /// Pods that are to be noted again, because time has passed.
    pub fn due(&self, now: i64) -> impl Iterator<Item = &ObjectKey> {
        self.pods.iter().filter(move |(_, pod)| pod.failing(now) != pod.failing).map(|(key, _)| key)
    }
}

impl Pod {
    /// What is said of a pod is said of its first app, unless another one is left all ports.
    fn failing(&self, now: i64) -> Option<Failing> {
        let mut all: Vec<Failing> = self.apps.iter().filter_map(|seen| seen.failing(now)).collect();
        all.sort_by_key(|failing| !failing.left_all_ports);
        all.into_iter().next()
    }
}

impl Seen {
    fn of(run: ShortRun, before: Option<&Self>, now: i64) -> Self {
        let restart = run.restart().unwrap_or(1);
        let now_said = match run.then {
            Then::Waits { wait, .. } => wait,
            Then::Runs { .. } | Then::Failed { .. } => None,
        };
        let said = now_said.or_else(|| before?.said);
        let first = restart.saturating_sub(1 + now_said.map_or(0, ends_before));
        match before {
            Some(before) if before.run.is_same_as(&run) => {
                Self { run, said, since: before.since, before: before.before.min(first) }
            }
            Some(before) if before.before < restart => Self { run, said, since: now, before: before.before.min(first) },
            _ => Self { since: run.since().min(now), run, said: now_said, before: first },
        }
    }

    /// Seconds that kubelet is to wait before this restart in a row, if it does not say.
    fn expected_wait(&self, in_a_row: u32) -> u32 {
        let usual = FIRST_WAIT.saturating_mul(1 << in_a_row.saturating_sub(TOLD_FROM).min(5)).min(LONGEST_WAIT);
        self.said.map_or(usual, |said| usual.min(said.saturating_mul(2)))
    }

    fn failing(&self, now: i64) -> Option<Failing> {
        let passed = now.saturating_sub(self.since);
        // A clock that was put back says nothing.
        let within = |seconds: u32| (0..=i64::from(seconds)).contains(&passed);
        let in_a_row = self.run.restart().map_or(1, |restart| restart.saturating_sub(self.before));
        let is_turn = in_a_row >= LEFT_FROM && in_a_row.is_power_of_two();
        let (is_told, left) = match self.run.then {
            Then::Waits { wait, .. } => {
                let wait = wait.unwrap_or_else(|| self.expected_wait(in_a_row));
                let is_soon = passed >= i64::from(wait) - i64::from(EARLY) && within(wait.saturating_add(OVERDUE));
                (in_a_row >= TOLD_FROM && within(LONGEST_WAIT + OVERDUE), is_turn && is_soon)
            }
            Then::Runs { .. } => {
                let is_early = within(self.run.seconds.saturating_add(MARGIN));
                (in_a_row >= TOLD_FROM && within(SHORT + MARGIN), is_turn && is_early)
            }
            Then::Failed { .. } => (within(TOLD_SECONDS), false),
        };
        is_told.then(|| Failing {
            container: self.run.container.clone(),
            exit_code: self.run.exit_code,
            is_last: matches!(self.run.then, Then::Failed { .. }),
            left_all_ports: left,
        })
    }
}

/// Ends in a row before the last one, of which nobody else may have seen any, by how long kubelet waits.
fn ends_before(wait: u32) -> u32 {
    let doubled = (wait / FIRST_WAIT).checked_ilog2().unwrap_or(0);
    if doubled == 0 { 0 } else { doubled + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ObjectKey {
        ObjectKey::new("ns", "p")
    }

    fn run(container: &str, then: Then) -> ShortRun {
        ShortRun { container: container.to_owned(), exit_code: 1, seconds: 5, then }
    }

    fn waits(restart: u32, since: i64, wait: Option<u32>) -> ShortRun {
        run("app", Then::Waits { restart, since, wait })
    }

    fn runs(restart: u32, since: i64) -> ShortRun {
        run("app", Then::Runs { restart, since })
    }

    /// Whether the pod is told of, and left all ports.
    fn said(pods: &ShortRuns) -> (bool, bool) {
        let failing = pods.failing(&key());
        (failing.is_some(), failing.is_some_and(|failing| failing.left_all_ports))
    }

    /// What kubelet waits before this restart in a row.
    fn usual(in_a_row: u32) -> Option<u32> {
        in_a_row.checked_sub(2).map(|further| (10 << further.min(5)).min(300))
    }

    /// Has an app fail so often, from this count of restarts on; gives when it was left all ports.
    fn fail(pods: &mut ShortRuns, from: u32, times: u32) -> Vec<u32> {
        let mut left = Vec::new();
        for restart in from..from + times {
            let (now, wait) = (i64::from(restart) * 1000, usual(restart - from + 1));
            let end = now + i64::from(wait.unwrap_or(0));
            pods.note(&key(), &[waits(restart, now, None)], now);
            pods.note(&key(), &[waits(restart, now, wait)], end - 1);
            let is_left = said(pods).1;
            pods.note(&key(), &[runs(restart, end)], end);
            assert_eq!(said(pods).1, is_left, "at {restart}");
            left.extend(is_left.then_some(restart));
        }
        left
    }

    #[test]
    fn an_app_is_left_all_ports_more_and_more_rarely() {
        assert_eq!(fail(&mut ShortRuns::default(), 1, 33), [4, 8, 16, 32]);
        assert_eq!(fail(&mut ShortRuns::default(), 100, 9), [103, 107], "what was long ago does not count");
    }

    #[test]
    fn it_is_told_of_from_the_second_time_on() {
        let mut pods = ShortRuns::default();
        assert!(!pods.note(&key(), &[waits(1, 0, None)], 0));
        assert!(!pods.note(&key(), &[runs(1, 1)], 1));
        assert!(pods.note(&key(), &[waits(2, 2, None)], 2));
        assert_eq!(said(&pods), (true, false));
        assert!(pods.note(&key(), &[], 3), "it ended well, or after long");
        assert!(!pods.note(&key(), &[waits(3, 4, None)], 4), "another row begins");
        assert_eq!(said(&pods), (false, false));
    }

    #[test]
    fn listeners_leave_shortly_before_the_restart_and_come_back_when_it_has_lasted() {
        let mut pods = ShortRuns::default();
        fail(&mut pods, 1, 7);
        let at = |pods: &mut ShortRuns, run: ShortRun, now: i64| {
            pods.note(&key(), &[run], now);
            said(pods)
        };
        assert_eq!(at(&mut pods, waits(8, 1000, Some(300)), 1000), (true, false));
        assert_eq!(pods.due(1269).count(), 0);
        assert_eq!(pods.due(1270).count(), 1, "half a minute before");
        assert_eq!(at(&mut pods, waits(8, 1000, Some(300)), 1270), (true, true));
        // By the clock of the node an hour has passed.
        assert_eq!(at(&mut pods, runs(8, -2300), 1300), (true, true));
        assert_eq!(at(&mut pods, runs(8, -2300), 1315), (true, true));
        assert_eq!(at(&mut pods, runs(8, -2300), 1316), (true, false), "longer than before");
        assert_eq!(at(&mut pods, runs(8, -2300), 1371), (false, false));
        assert_eq!(pods.due(9999).count(), 0);
    }

    #[test]
    fn a_restart_that_does_not_come_is_not_waited_for() {
        let mut pods = ShortRuns::default();
        fail(&mut pods, 1, 3);
        pods.note(&key(), &[waits(4, 1000, Some(40))], 1000);
        pods.note(&key(), &[waits(4, 1000, Some(40))], 1100);
        assert_eq!(said(&pods), (true, true));
        pods.note(&key(), &[waits(4, 1000, Some(40))], 1101);
        assert_eq!(said(&pods), (true, false));
        pods.note(&key(), &[waits(4, 1000, Some(40))], 1361);
        assert_eq!(said(&pods), (false, false));
        pods.note(&key(), &[waits(4, 1000, Some(40))], 900);
        assert_eq!(said(&pods), (false, false), "the clock was put back");
    }

    #[test]
    fn listeners_leave_in_time_also_if_kubelet_says_nothing_before_it_restarts() {
        let mut pods = ShortRuns::default();
        let mut left_after = |restart: u32, longest: u32| {
            let begin = i64::from(restart) * 1000;
            let wait = (10 << restart.saturating_sub(2)).min(longest);
            pods.note(&key(), &[waits(restart, begin, None)], begin);
            let found = (0..=i64::from(wait)).find(|passed| {
                pods.note(&key(), &[waits(restart, begin, None)], begin + passed);
                said(&pods).1
            });
            pods.note(&key(), &[waits(restart, begin, Some(wait))], begin + i64::from(wait));
            pods.note(&key(), &[runs(restart, begin)], begin + i64::from(wait));
            found
        };
        let found: Vec<Option<i64>> = (1..=8).map(|restart| left_after(restart, 300)).collect();
        assert_eq!(found, [None, None, None, Some(10), None, None, None, Some(270)]);
        // A kubelet that never waits long.
        pods = ShortRuns::default();
        let mut left_after = |restart: u32| {
            let begin = i64::from(restart) * 1000;
            pods.note(&key(), &[waits(restart, begin, None)], begin);
            let found = said(&pods).1;
            pods.note(&key(), &[waits(restart, begin, Some(5))], begin + 5);
            pods.note(&key(), &[runs(restart, begin)], begin + 5);
            found
        };
        let at_once: Vec<u32> = (1..=9).filter(|restart| left_after(*restart)).collect();
        assert_eq!(at_once, [4, 8]);
    }

    #[test]
    fn a_kubelet_that_forgets_how_long_it_waits_takes_nothing_back() {
        let mut pods = ShortRuns::default();
        fail(&mut pods, 1, 3);
        pods.note(&key(), &[waits(4, 1000, None)], 1000);
        pods.note(&key(), &[waits(4, 1000, Some(40))], 1010);
        assert_eq!(said(&pods), (true, true));
        assert!(!pods.note(&key(), &[waits(4, 1000, None)], 1012));
    }

    #[test]
    fn whoever_begins_to_lead_disturbs_no_app_that_runs() {
        let mut pods = ShortRuns::default();
        assert!(!pods.note(&key(), &[runs(4, 1000)], 5000));
        assert!(!pods.note(&key(), &[runs(4, 9000)], 5001), "the clock of the node is ahead");
        assert_eq!(said(&pods), (false, false));
        let mut pods = ShortRuns::default();
        assert!(pods.note(&key(), &[waits(37, 1000, Some(300))], 1100), "it has failed before, and is told of");
        assert_eq!(said(&pods), (true, false));
    }

    #[test]
    fn whoever_begins_to_lead_goes_on_where_the_other_was() {
        let mut pods = ShortRuns::default();
        pods.note(&key(), &[waits(4, 1000, None)], 1009);
        assert_eq!(said(&pods), (false, false), "it may be the first in a row");
        pods.note(&key(), &[waits(4, 1000, Some(40))], 1015);
        assert_eq!(said(&pods), (true, true), "kubelet waits so long after three others");
        assert_eq!([9, 10, 19, 20, 40, 80, 160, 300].map(ends_before), [0, 0, 0, 2, 3, 4, 5, 5]);
    }

    #[test]
    fn one_app_of_several_that_is_left_all_ports_is_enough() {
        let mut pods = ShortRuns::default();
        let other = run("other", Then::Runs { restart: 90, since: 0 });
        for restart in 1..=4 {
            let now = i64::from(restart) * 100;
            pods.note(&key(), &[other.clone(), waits(restart, now, Some(10))], now);
        }
        assert_eq!(
            pods.failing(&key()).map(|failing| (failing.container.as_str(), failing.left_all_ports)),
            Some(("app", true))
        );
    }

    #[test]
    fn a_pod_that_is_not_restarted_is_told_of_for_a_while() {
        let mut pods = ShortRuns::default();
        assert!(pods.note(&key(), &[run("app", Then::Failed { since: 1000 })], 1001));
        assert!(pods.failing(&key()).expect("it is told of").is_last);
        assert_eq!((pods.due(1600).count(), pods.due(1601).count()), (0, 1));
    }
}
