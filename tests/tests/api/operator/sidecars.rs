//! Sidecars: pods change their group whenever a forward that selects them comes or goes, and traffic is not disturbed.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use crds::PortForward;
use harness::{
    Backend, Behaviour, FleetPod, Operator, connect, free_port, programs::KubernetesVersion, round_trip, until,
};
use serde_json::json;

use super::until_ready;

fn sidecar(name: &str, app: &str, port: u16, backend: u16) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{sidecar: \
         {{selector: {{matchLabels: {{app: {app}}}}}}}}}, sessions: {{onUpdate: Close}}, listeners: [{{name: tcp, protocol: TCP, \
         port: {port}, backends: [{{local: {{port: {backend}}}}}]}}]}}}}"
    )
}

#[test]
fn forwards_that_come_and_go_leave_the_others_in_their_pods_alone() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("sidecars");
    let operator = Operator::start(&namespace);
    let backend = Backend::start(Behaviour::Echo);
    let (port, other) = (free_port(), free_port());
    namespace.apply(&sidecar("db", "shop", port, backend.port));
    until_ready(&namespace, "db", "True", "NoMatchingPods");
    let (_pod, proxy) = FleetPod::with_sidecar(&namespace, &operator);
    let ready = until_ready(&namespace, "db", "True", "Ready");
    assert_eq!(ready.status.expect("status").data_plane.expect("counts").summary, "1/1");

    let mut session = connect(port).expect("db listens");
    let load = Hammer::start(port);
    for _ in 0..5 {
        // The pod moves to a group with both forwards, and back to the group with db alone.
        namespace.write::<PortForward>(&sidecar("cache", "shop", other, backend.port));
        until_ready(&namespace, "cache", "True", "Ready");
        namespace.kubectl(&["delete", "portforward", "cache"]).ok();
        until("the listener of cache is gone", || connect(other).is_err());
    }
    assert_eq!(
        round_trip(&mut session, b"still").expect("echo"),
        b"still",
        "a change of another forward ended a session"
    );
    // The proxy restarts with the kept configuration of a group that has changed meanwhile.
    namespace.write::<PortForward>(&sidecar("cache", "shop", other, backend.port));
    until_ready(&namespace, "cache", "True", "Ready");
    until("the proxy keeps its configuration", || {
        std::fs::read_to_string(proxy.path("configuration.json")).is_ok_and(|text| text.contains("cache"))
    });
    let (connections, refused) = load.stop();
    assert!(connections > 100 && refused == 0, "{refused} of {connections} connections were refused or broke");
    let proxy = proxy.stopped();
    namespace.kubectl(&["delete", "portforward", "cache"]).ok();
    let _proxy = proxy.started();
    until("the listener of the deleted forward is gone", || connect(port).is_ok() && connect(other).is_err());
    until_ready(&namespace, "db", "True", "Ready");

    namespace.kubectl(&["label", "pod", "shop-1", "app=other", "--overwrite"]).ok();
    until("a pod that no forward selects does not listen", || connect(port).is_err());
    until_ready(&namespace, "db", "True", "NoMatchingPods");
    // The forward moves from one pod to another: its group stays, with another pod in it.
    FleetPod::create(&namespace, "third-1", "app", &json!({"app": "third", "portlane.dev/proxy": "sidecar"}));
    namespace.apply(&sidecar("db", "other", port, backend.port));
    until("a newly selected pod listens", || connect(port).is_ok());
    namespace.apply(&sidecar("db", "third", port, backend.port));
    until("a pod that the selector no longer matches does not listen", || connect(port).is_err());
}

/// Opens one session after the other, each with a round trip.
struct Hammer {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    work: thread::JoinHandle<usize>,
}

impl Hammer {
    fn start(port: u16) -> Self {
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, failures) = (stop.clone(), failed.clone());
        let once = move || -> io::Result<()> {
            let mut session = connect(port)?;
            round_trip(&mut session, b"load").map(drop)
        };
        let work = thread::spawn(move || {
            let mut connections = 0;
            while !stopped.load(Relaxed) {
                connections += 1;
                failures.fetch_add(usize::from(once().is_err()), Relaxed);
            }
            connections
        });
        Self { stop, failed, work }
    }

    /// Ends the load; gives the number of connections, and how many of them failed.
    fn stop(self) -> (usize, usize) {
        self.stop.store(true, Relaxed);
        let connections = self.work.join().expect("no panic");
        (connections, self.failed.load(Relaxed))
    }
}
