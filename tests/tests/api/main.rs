//! A real API server with the committed CRDs: what it accepts, refuses and shows. `on_both!` runs a test on the oldest
//! and on the newest Kubernetes that Portlane supports.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue panics")]

/// Makes two tests of each function: one on the oldest and one on the newest API server.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod oldest {
            $(#[test] fn $test() { crate::server::with(harness::programs::KubernetesVersion::Oldest, super::$test); })+
        }
        mod newest {
            $(#[test] fn $test() { crate::server::with(harness::programs::KubernetesVersion::Newest, super::$test); })+
        }
    };
}

mod agent_page;
mod agreement;
mod bounds;
mod charts;
mod earlier;
mod folders;
mod harness_itself;
mod kubectl;
mod live_api;
mod objects;
mod operator;
mod person;
mod rights;
mod rules;
mod server;

/// A valid forward.
const FORWARD: &str = "apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {name: db}
spec:
  placement: {sidecar: {selector: {matchLabels: {app: shop}}}}
  listeners:
  - name: pg
    protocol: TCP
    port: 5432
    backends: [{service: {name: pg, port: 5432}}]
";
