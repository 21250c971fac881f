//! The progress of one watch: logs a failure once, and counts watches that a namespace refuses.

use std::time::Instant;

use kube::runtime::watcher;
use prometheus_client::metrics::gauge::Gauge;

use super::Task;
use operator_core::{
    schedule::access::{Access, Failure, Judged},
    world::watched::{Kind, Seen, Source},
};

use crate::platform::metrics::LabelledGauge;

/// Classifies the failure of a watch or of its list.
pub(super) fn classified(error: &watcher::Error) -> Failure {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return Failure::Unclear;
    };
    Failure::of(status.code, &status.reason, &status.message)
}

/// Whether the CRDs of Portlane define a kind.
fn is_ours(kind: Kind) -> bool {
    matches!(kind, Kind::Forwards | Kind::Gateways)
}

/// A watch that is refused, counted until the watch lists again or ends.
struct Refusal(Gauge);

impl Refusal {
    fn counted(by: &LabelledGauge, kind: &'static str) -> Self {
        let gauge = by.get_or_create_owned(&[("kind", kind)]);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The progress of one watch.
pub(super) struct Progress {
    source: Source,
    started: Instant,
    access: Access,
    refused: LabelledGauge,
    refusal: Option<Refusal>,
    /// Whether the watch fails, and the failure is in the log.
    is_failing: bool,
    /// Whether the watch has listed its objects.
    is_listed: bool,
}

impl Progress {
    pub(super) fn new(task: &Task) -> Self {
        Self {
            source: task.source.clone(),
            started: Instant::now(),
            access: Access::new(task.source.kind, task.is_scoped),
            refused: task.metrics.watches_refused.clone(),
            refusal: None,
            is_failing: false,
            is_listed: false,
        }
    }

    /// Whether the watch has listed its objects since the last call.
    pub(super) fn take_listed(&mut self) -> bool {
        std::mem::take(&mut self.is_listed)
    }

    /// Records an event.
    pub(super) fn succeeded(&mut self, seen: &Seen) {
        self.is_failing = false;
        if matches!(seen, Seen::Synced) {
            self.is_listed = true;
            if self.access.listed() {
                drop(self.refusal.take());
                tracing::info!(source = ?self.source, "the operator may watch the namespace again");
            }
        }
    }

    /// Records a failure, and returns what to do next.
    pub(super) fn failed(&mut self, failure: Failure, error: &watcher::Error) -> Judged {
        let judged = self.access.failed(failure, self.started.elapsed());
        let source = &self.source;
        match judged {
            Judged::Retry if !self.is_failing && failure == Failure::NotServed && is_ours(source.kind) => {
                tracing::warn!(
                    ?source,
                    "the API server does not serve this kind: install the CRDs of the operator's \
                    release (chart portlane-crds); will retry"
                );
            }
            Judged::Retry if !self.is_failing => tracing::warn!(?source, %error, "watch failed, will retry"),
            Judged::Retry => {}
            Judged::Refused => {
                self.refusal = Some(Refusal::counted(&self.refused, source.kind.name()));
                tracing::warn!(
                    ?source,
                    %error,
                    "the operator may not watch this kind in the namespace: check the Role of the operator, or remove \
                    the namespace from --watch-namespaces; will retry"
                );
            }
            Judged::Withdrawn => tracing::warn!(
                ?source,
                "the operator still may not watch this kind in the namespace: its objects there no longer count; other \
                namespaces are not affected"
            ),
        }
        self.is_failing = true;
        judged
    }
}
