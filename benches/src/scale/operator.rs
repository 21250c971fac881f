//! The operator as in its image, and its resource usage.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{ControlPlane, Program, free_port, until};
use images::{Image, Platform, Profile};

/// Namespace of the operator's Lease and CA.
pub(super) const NAMESPACE: &str = "portlane";

/// A running operator.
pub(super) struct Operator {
    program: Program,
    health: u16,
    /// Port that proxies connect to.
    pub(super) stream: u16,
    /// Port of the webhook.
    pub(super) webhook: u16,
}

/// Resources that the operator has used so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Cost {
    /// CPU time in seconds.
    pub(super) cpu: f64,
    /// Resident memory now, in MiB.
    pub(super) memory: f64,
    /// Peak resident memory, in MiB.
    pub(super) peak_memory: f64,
    /// Bytes of changes sent to proxies.
    pub(super) bytes: f64,
    /// Objects and events written to the API server.
    pub(super) writes: f64,
    /// Number of translations, and seconds spent on them.
    pub(super) translations: (f64, f64),
}

/// Path of the program in the image, which is built if necessary.
fn of_the_image() -> PathBuf {
    images::build(Image::Operator, Platform::here(), Profile::Release).expect("the operator's image");
    images::target().join(Platform::here().target()).join("release/portlane-operator")
}

impl Operator {
    /// Starts an operator that watches all namespaces.
    pub(super) fn start(server: &ControlPlane, program: Option<&Path>) -> Self {
        let built = program.map_or_else(of_the_image, Path::to_owned);
        server.kubectl(&["create", "namespace", NAMESPACE]).ok();
        let (health, stream, webhook) = (free_port(), free_port(), free_port());
        let mut command = Command::new(built);
        command.env("KUBECONFIG", server.kubeconfig()).args(["--namespace", NAMESPACE, "--log", "warn"]);
        command.args(["--health-address", &format!("127.0.0.1:{health}")]);
        command.args(["--stream-address", &format!("127.0.0.1:{stream}")]);
        command.args(["--webhook-address", &format!("127.0.0.1:{webhook}")]);
        // All proxies are on this machine and come from one source.
        command.env("PORTLANE_CONNECTIONS_PER_SECOND", "100000").env("PORTLANE_MAX_UNAUTHENTICATED", "10000");
        command.env("PORTLANE_MAX_UNAUTHENTICATED_PER_SOURCE", "10000");
        let program = Program::start(command, tempfile::tempdir().expect("folder"));
        until("the operator is ready", || harness::http_get(health, "/readyz").is_ok_and(|(status, _)| status == 200));
        let operator = Self { program, health, stream, webhook };
        until("the operator leads", || operator.metric("leader") > 0.0);
        operator
    }

    fn metrics(&self) -> String {
        harness::http_get(self.health, "/metrics").expect("metrics").1
    }

    /// Value of a metric of the operator; 0 while the series is missing.
    pub(super) fn metric(&self, name: &str) -> f64 {
        harness::metric(&self.metrics(), &format!("portlane_operator_{name}")).unwrap_or(0.0)
    }

    /// Resources that the operator has used so far.
    pub(super) fn cost(&self) -> Cost {
        let pid = self.program.id();
        let text = self.metrics();
        let metric = |name: &str| harness::metric(&text, &format!("portlane_operator_{name}")).unwrap_or(0.0);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let kilobytes = |field: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
            line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let (_, after_name) = stat.rsplit_once(')').expect("a name");
        let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
        Cost {
            cpu: ticks / rustix::param::clock_ticks_per_second() as f64,
            memory: kilobytes("VmRSS:") / 1024.0,
            peak_memory: kilobytes("VmHWM:") / 1024.0,
            bytes: metric("sent_bytes_total"),
            writes: metric("status_writes_total{result=\"written\"}")
                + metric("events_total{result=\"written\"}")
                + metric("children_applied_total{result=\"applied\"}"),
            translations: (metric("translation_duration_seconds_count"), metric("translation_duration_seconds_sum")),
        }
    }
}
