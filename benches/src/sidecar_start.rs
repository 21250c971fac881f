//! Time from the start of a sidecar's process to the first response through the sidecar, with a real API server, operator
//! and token. The proxy has no last known configuration.
//!
//! `cargo run --release -p portlane-benches --bin sidecar-start`; the results are in `docs/performance.md`.
#![allow(clippy::expect_used, clippy::panic, reason = "a bench that fails panics")]

use std::time::{Duration, Instant};

use clap::Parser;
use harness::{
    Backend, Behaviour, ControlPlane, FleetPod, FleetProxy, Operator, connect, free_port, programs::KubernetesVersion,
    roots, round_trip, until,
};
use serde_json::json;

/// Measure the time from the start of a sidecar to the first response through it.
#[derive(Clone, Copy, Debug, Parser)]
struct Args {
    /// Number of sidecars, started one after the other.
    #[arg(long, default_value_t = 50)]
    starts: usize,
    /// Number of other forwards in the same pod.
    #[arg(long, default_value_t = 9)]
    others: usize,
}

fn main() {
    let args = Args::parse();
    let server = ControlPlane::start(KubernetesVersion::Newest);
    server.install_crds();
    let namespace = server.namespace("sidecar-start");
    let operator = Operator::start(&namespace);
    let backend = Backend::start(Behaviour::Echo);
    let ports: Vec<u16> = (0..=args.others).map(|_| free_port()).collect();
    namespace.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: app}}");
    let forward = |(at, port): (usize, &u16)| {
        json!({
            "apiVersion": "portlane.dev/v1alpha1", "kind": "PortForward", "metadata": {"name": format!("f{at}")},
            "spec": {
                "placement": {"sidecar": {"selector": {"matchLabels": {"app": "shop"}}}},
                "listeners": [{
                    "name": "tcp", "protocol": "TCP", "port": port,
                    "backends": [{"address": {"host": "127.0.0.1", "port": backend.port}}],
                }],
            },
        })
        .to_string()
    };
    let forwards: Vec<String> = ports.iter().enumerate().map(forward).collect();
    namespace.apply(&forwards.join("\n---\n"));
    let pod = FleetPod::create(&namespace, "shop-1", "app", &json!({"app": "shop", "portlane.dev/proxy": "sidecar"}));
    let token = pod.token(&namespace, "app", "portlane-operator");
    let roots = roots(&namespace);
    let answers = || connect(ports[0]).and_then(|mut stream| round_trip(&mut stream, b"first")).is_ok();
    // The operator knows the pod once the first sidecar serves.
    let first = FleetProxy::start(&token, &roots, operator.stream);
    until("the operator knows the pod", answers);
    drop(first);
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..args.starts {
        until("the port is free", || connect(ports[0]).is_err());
        let began = Instant::now();
        let _proxy = FleetProxy::start(&token, &roots, operator.stream);
        while !answers() {
            assert!(began.elapsed() < harness::PATIENCE, "the sidecar does not serve in time");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        times.push(began.elapsed());
    }
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_millis();
    println!("| starts | forwards in the pod | p50 | p99 | maximum |\n|---|---|---|---|---|");
    println!("| {} | {} | {} ms | {} ms | {} ms |", times.len(), ports.len(), at(50), at(99), at(100));
}
