//! The answers to probes: whether the proxy has started, is live, and is ready.

use std::sync::atomic::Ordering::Relaxed;

use http_body_util::Full;
use hyper::{Response, StatusCode, body::Bytes};

use super::{Role, View, text};

/// Fails if a thread has died or hangs at `now` (seconds of the process clock).
pub(super) fn live(view: &View, now: u64) -> Response<Full<Bytes>> {
    match view.process.lives.complaints(now) {
        none if none.is_empty() => text(StatusCode::OK, "ok\n"),
        some => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", some.join("\n"))),
    }
}

/// Succeeds once a configuration was applied or the startup time has passed: a probe that never passes would keep the
/// app of a sidecar from starting.
pub(super) fn started(view: &View) -> Response<Full<Bytes>> {
    if view.startup.since.elapsed() >= view.startup.patience { text(StatusCode::OK, "ok\n") } else { serving(view) }
}

/// Succeeds once a configuration was applied, while the proxy is live. At the health address it fails during a drain, so
/// that load balancers outside Kubernetes stop sending. Kubelet, which asks the unix socket, gets the same answer as
/// before: Kubernetes sends no new sessions to a terminating pod anyway, and some networks (Cilium) drop a terminating
/// endpoint that is not serving, together with its live sessions.
pub(super) fn ready(view: &View, role: Role) -> Response<Full<Bytes>> {
    let answer = serving(view);
    // A dead thread is named, although its death begins a drain, too.
    let would_pass = answer.status() == StatusCode::OK;
    if would_pass && role == Role::Health && view.is_draining() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    answer
}

fn serving(view: &View) -> Response<Full<Bytes>> {
    if view.metrics.control.applied.load(Relaxed) > 0 {
        live(view, view.process.clock.seconds())
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "no configuration applied yet\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::workers::heartbeat::LONGEST_SILENCE, http::tests::view};

    #[test]
    fn a_thread_that_hangs_fails_livez_and_readyz() {
        let (view, _requests) = view();
        view.metrics.control.applied.store(1, Relaxed);
        let _stuck = view.process.lives.begin("worker-1");
        assert_eq!(live(&view, LONGEST_SILENCE).status(), StatusCode::OK);
        assert_eq!(ready(&view, Role::Health).status(), StatusCode::OK);
        assert_eq!(live(&view, LONGEST_SILENCE + 100).status(), StatusCode::SERVICE_UNAVAILABLE);
        view.process.lives.guard("worker-0").died();
        assert_eq!(ready(&view, Role::Health).status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn a_drain_fails_readyz_of_the_health_address_and_no_probe_of_kubelet() {
        let (view, requests) = view();
        view.metrics.control.applied.store(1, Relaxed);
        let statuses = || {
            let now = view.process.clock.seconds();
            [ready(&view, Role::Health), ready(&view, Role::Local), started(&view), live(&view, now)]
                .map(|response| response.status())
        };
        assert_eq!(statuses(), [StatusCode::OK; 4]);
        drop(requests);
        let ok = StatusCode::OK;
        assert_eq!(statuses(), [StatusCode::SERVICE_UNAVAILABLE, ok, ok, ok]);
        let told = || ready(&view, Role::Health).into_body().into_inner().expect("a body");
        assert_eq!(told(), "draining\n");
        view.process.lives.guard("worker-0").died();
        let why = String::from_utf8_lossy(&told()).into_owned();
        assert!(why.contains("worker-0"), "the reason for the drain: {why}");
    }
}
