//! Schedules the application of one gateway's children: at once after a change, after a growing pause if applying
//! failed or if another client changed a child, and at long intervals in any case.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    schedule::{
        SILENCE,
        children::{Ended, Marks},
    },
    world::child::{ChildKind, Mark, Shown},
};

/// Interval of applying children again, in case the watches missed a change by another client.
const RESYNC: Duration = Duration::from_secs(600);
/// Pause after the first failure, and shortest time between an apply and the repair of a later change by another
/// client. The pause doubles with every further failure, or repair of the same child.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// How long applying may fail before the status of a fleet that was applied before reports the failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// The state of every child in the watches.
pub(super) type Seen = BTreeMap<ChildKind, Shown>;

/// Why children are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The desired children are new.
    Changed,
    /// The last apply failed.
    Failed,
    /// Another client changed or deleted these children.
    Drift(Vec<ChildKind>),
    /// The last apply was long ago.
    Resync,
}

/// The state to apply.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// Hash of all inputs of the children.
    pub(super) hash: String,
    /// Generation of the gateway.
    pub(super) generation: Option<i64>,
}

struct Running {
    attempt: u64,
    began: Duration,
    wanted: Wanted,
    seen: Seen,
    /// The children that this attempt repairs.
    drift: Vec<ChildKind>,
}

struct Done {
    wanted: Wanted,
    at: Duration,
    marks: Marks,
}

impl Done {
    /// The children that differ from their last apply.
    fn drift(&self, seen: &Seen) -> Vec<ChildKind> {
        let is_other =
            |(kind, mark): &(&ChildKind, &Mark)| seen.get(*kind).is_some_and(|shown| shown.differs_from(**mark));
        self.marks.iter().filter(is_other).map(|(kind, _)| *kind).collect()
    }
}

struct Failing {
    why: String,
    /// Begin of the first attempt that failed.
    since: Duration,
    /// End of the last attempt.
    at: Duration,
    /// Number of attempts that failed.
    count: u32,
    /// The state that the last attempt applied.
    wanted: Wanted,
    /// The children in the watches when the last attempt began.
    seen: Seen,
}

/// The attempts to apply the children of one gateway.
#[derive(Default)]
pub(super) struct Attempts {
    running: Option<Running>,
    /// The last attempt that succeeded.
    done: Option<Done>,
    /// The attempts that have failed since then.
    failing: Option<Failing>,
    /// Number of repairs of a child in a row, and the time of the last one.
    repairs: BTreeMap<ChildKind, (u32, Duration)>,
}

impl Attempts {
    /// Whether an attempt is in progress.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether no attempt has ended yet.
    pub(super) fn is_untried(&self) -> bool {
        self.done.is_none() && self.failing.is_none()
    }

    /// The state that was applied last; `None` if no attempt succeeded.
    pub(super) fn applied(&self) -> Option<&Wanted> {
        self.done.as_ref().map(|done| &done.wanted)
    }

    /// The failure to apply, for the status; `None` while the status should not report a failure. `was_applied` says
    /// whether this fleet was applied in an earlier term.
    pub(super) fn failure(&self, was_applied: bool, now: Duration) -> Option<&str> {
        let failing = self.failing.as_ref()?;
        let is_new_fleet = self.done.is_none() && !was_applied;
        (is_new_fleet || now >= failing.since + PATIENCE).then_some(failing.why.as_str())
    }

    /// The cause for which an attempt is due; `None` if none is.
    pub(super) fn due(&self, wanted: &Wanted, seen: &Seen, now: Duration) -> Option<Cause> {
        if self.is_running() {
            return None;
        }
        if let Some(failing) = &self.failing {
            // An apply that failed may succeed once the gateway or a child has changed.
            let is_same = failing.wanted == *wanted && failing.seen == *seen;
            let pause = if is_same { pause(failing.count.saturating_sub(1)) } else { PAUSE };
            return (now >= failing.at + pause).then_some(Cause::Failed);
        }
        let Some(done) = self.done.as_ref().filter(|done| done.wanted == *wanted) else { return Some(Cause::Changed) };
        if now >= done.at + RESYNC {
            return Some(Cause::Resync);
        }
        let drift = done.drift(seen);
        // Right after an apply, the watches may still show the earlier state. The growing pause keeps two controllers
        // that undo each other's writes from doing so without end.
        let is_due = |kind: &ChildKind| now >= done.at + pause(self.repairs(*kind, now));
        drift.iter().any(is_due).then_some(Cause::Drift(drift))
    }

    /// Number of repairs of a child in a row. A fight over a child has ended if the child needed no repair for the time
    /// of a resync.
    fn repairs(&self, kind: ChildKind, now: Duration) -> u32 {
        let last = self.repairs.get(&kind).filter(|(_, at)| now < *at + RESYNC);
        last.map_or(0, |(count, _)| *count)
    }

    /// Records that an attempt begins.
    pub(super) fn begin(&mut self, attempt: u64, cause: Cause, wanted: Wanted, seen: Seen, now: Duration) {
        let drift = match cause {
            Cause::Drift(drift) => {
                for kind in &drift {
                    let count = self.repairs(*kind, now).saturating_add(1);
                    self.repairs.insert(*kind, (count, now));
                }
                drift
            }
            Cause::Changed | Cause::Failed | Cause::Resync => Vec::new(),
        };
        self.running = Some(Running { attempt, began: now, wanted, seen, drift });
    }

    /// Records that an attempt ended. The result of an abandoned attempt is ignored.
    pub(super) fn end(&mut self, attempt: u64, result: Result<Marks, String>, now: Duration) -> Ended {
        let Some(running) = self.running.take_if(|running| running.attempt == attempt) else { return Ended::Outdated };
        match result {
            Ok(marks) => {
                self.failing = None;
                self.done = Some(Done { wanted: running.wanted, at: now, marks });
                if running.drift.is_empty() { Ended::Applied } else { Ended::Repaired(running.drift) }
            }
            Err(why) => self.fail(running, why, now),
        }
    }

    /// Gives up an attempt without a result; returns whether one was given up.
    pub(super) fn give_up(&mut self, now: Duration) -> bool {
        let Some(running) = self.running.take_if(|running| now >= running.began + SILENCE) else { return false };
        let why = format!("applying the children did not finish within {} s", SILENCE.as_secs());
        self.fail(running, why, now);
        true
    }

    fn fail(&mut self, Running { began, wanted, seen, .. }: Running, why: String, now: Duration) -> Ended {
        let before = self.failing.take();
        let (since, count) = before.as_ref().map_or((began, 0), |before| (before.since, before.count));
        let is_new = before.is_none_or(|before| before.why != why);
        let count = count.saturating_add(1);
        self.failing = Some(Failing { why: why.clone(), since, at: now, count, wanted, seen });
        Ended::Failed { why, is_new }
    }
}

/// The pause after a failure or repair that `before` others preceded.
fn pause(before: u32) -> Duration {
    PAUSE.saturating_mul(1_u32.checked_shl(before).unwrap_or(u32::MAX)).min(MAX_PAUSE)
}
