//! Fleets that follow live connections: a real HPA, the metrics API of the operator, and the emptiest pod leaves first.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use harness::{Namespace, Node, until, until_within};

use crate::{
    fleet::{self, GATEWAY, Load, OPERATOR, SCALED, forward, operated, proxies, shop, until_it_drains, wait_for},
    shared,
};

fn gateway() -> String {
    GATEWAY.replace(
        "replicas: 2, drainSeconds: 5",
        "drainSeconds: 60, autoscaling: {minReplicas: 1, maxReplicas: 3, targetConnectionsPerPod: 100, behavior: {scaleDown: \
         {stabilizationWindowSeconds: 0}}}",
    )
}

/// Pods of the fleet that stay.
fn staying(namespace: &Namespace<'_>) -> Vec<String> {
    let columns = "--output=custom-columns=NAME:.metadata.name,GONE:.metadata.deletionTimestamp";
    let table = namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", "--no-headers", columns]).ok();
    let lines = table.lines().filter(|line| line.ends_with("<none>"));
    lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// Waits for what follows from the load. Panics with the pods, the HPA, the metrics API, the gateway and the operator's
/// log.
#[track_caller]
fn follows(namespace: &Namespace<'_>, what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + SCALED;
    while !done() {
        if Instant::now() > deadline {
            let cluster = namespace.cluster();
            let seen = [
                namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", COSTS]),
                namespace.kubectl(&["describe", "hpa", "edge"]),
                cluster.kubectl(&["get", "apiservice", "v1beta2.custom.metrics.k8s.io", "-o", "yaml"]),
                namespace.kubectl(&["get", "fgw", "edge", "-o", "yaml"]),
                cluster.kubectl(&["logs", "-n", OPERATOR, "-l", "app.kubernetes.io/component=operator", "--tail=30"]),
            ];
            panic!("{what}, within {SCALED:?}\n{}", seen.map(|said| said.stdout + &said.stderr).join("\n---\n"));
        }
        thread::park_timeout(Duration::from_millis(500));
    }
}

const COSTS: &str = "--output=custom-columns=NAME:.metadata.name,BEGAN:.metadata.creationTimestamp,\
                     COST:.metadata.annotations.controller\\.kubernetes\\.io/pod-deletion-cost";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

fn cost(namespace: &Namespace<'_>, pod: &str) -> i32 {
    let column = "--output=jsonpath={.metadata.annotations.controller\\.kubernetes\\.io/pod-deletion-cost}";
    namespace.kubectl(&["get", "pod", pod, column]).stdout.parse().unwrap_or(0)
}

#[test]
fn a_fleet_grows_with_its_connections_and_the_emptiest_pod_leaves_first() {
    let Some(node) = shared::node_with_a_host() else { return };
    let namespace = shop(operated(), "scaling");
    namespace.apply(&gateway());
    namespace.apply(&forward("web"));
    wait_for(&namespace, "portforward/web");
    until("the fleet begins with one proxy", || staying(&namespace).len() == 1);
    let first = proxies(&namespace)[0].clone();
    let many = Load::start(node, &[first.1], 200);
    let some = Load::start(node, &[first.1], 100);
    follows(&namespace, "the fleet has three proxies", || staying(&namespace).len() == 3);
    follows(&namespace, "each proxy has 100 sessions", || {
        namespace.kubectl(&["get", "hpa", "edge"]).stdout.contains("100/100")
    });
    eprintln!("{}", namespace.kubectl(&["get", "hpa"]).ok());
    until_within(SCALED, "all proxies are ready", || {
        let ready = ["get", "deploy", "edge", "--output=jsonpath={.status.readyReplicas}"];
        namespace.kubectl(&ready).stdout == "3"
    });
    wait_for(&namespace, "forwardgateway/edge");
    let active = "--output=jsonpath={.status.conditions[?(@.type==\"ScalingActive\")].status}";
    // Another test replaces the leader, and an HPA has no metrics until a new one has heard of all proxies.
    until_within(SCALED, "the HPA scales", || namespace.kubectl(&["get", "fgw", "edge", active]).stdout == "True");

    until("the growth is an event", || {
        namespace.kubectl(&["get", "events", "--field-selector=reason=ScaledOut"]).stdout.contains("instead of 1")
    });

    let others: Vec<(String, SocketAddr)> =
        proxies(&namespace).into_iter().filter(|(name, _)| *name != first.0).collect();
    // A deletion cost that somebody else has set stays.
    let by_hand = format!("{DELETION_COST}=1000");
    namespace.kubectl(&["annotate", "pod", &first.0, &by_hand, "--overwrite"]).ok();
    let (few, more) = (Load::start(node, &[others[0].1], 10), Load::start(node, &[others[1].1], 40));
    follows(&namespace, "deletion costs follow sessions", || {
        let costs = [&first.0, &others[0].0, &others[1].0].map(|pod| cost(&namespace, pod));
        costs[0] > costs[2] && costs[2] > costs[1] && costs[1] > 0
    });
    assert!(many.stop() > 100);
    until_within(SCALED, "one proxy leaves", || staying(&namespace).len() == 2);
    let left = staying(&namespace);
    assert_eq!(cost(&namespace, &first.0), 1000);
    assert!(left.contains(&first.0) && left.contains(&others[1].0), "{left:?}: the emptiest, {}, left", others[0].0);
    // Sessions of the draining proxy continue, and so do those of the others.
    until_it_drains(node, others[0].1, &few);
    for load in [few, some, more] {
        assert!(load.stop() > 100);
    }
    until_within(SCALED, "without load the fleet is at minReplicas", || staying(&namespace).len() == 1);
}

/// Opens one session after the other through the fleet's Service while `work` runs.
fn visitors<T>(node: &Node, service: SocketAddr, work: impl FnOnce() -> T) -> (T, usize) {
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !stop.load(Relaxed) {
                let greeted = node.connect(service).and_then(|mut session| fleet::greeting(&mut session));
                assert_eq!(greeted.expect("a new session is accepted"), "web: ");
                served.fetch_add(1, Relaxed);
                thread::park_timeout(Duration::from_millis(10));
            }
        });
        let stopping = Stopping(&stop);
        let done = work();
        drop(stopping);
        load.join().expect("every new session is accepted");
        (done, served.load(Relaxed))
    })
}

/// Sets the flag on drop, also if the work panics.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_fleet_rolls_over_without_breaking_a_session() {
    let Some(node) = shared::node_with_a_host() else { return };
    let namespace = shop(operated(), "rolling");
    namespace.apply(&GATEWAY.replace("drainSeconds: 5", "drainSeconds: 60"));
    namespace.apply(&forward("web"));
    wait_for(&namespace, "portforward/web");
    wait_for(&namespace, "forwardgateway/edge");
    let service = namespace.kubectl(&["get", "service", "edge", "--output=jsonpath={.spec.clusterIP}:80"]).ok();
    let service: SocketAddr = service.parse().expect("an address");
    until("the Service routes", || node.connect(service).is_ok());
    let old = proxies(&namespace);
    let load = Load::start(node, &old.iter().map(|(_, address)| *address).collect::<Vec<_>>(), 40);
    let ((), served) = visitors(node, service, || {
        let rolled =
            GATEWAY.replace("drainSeconds: 5", "drainSeconds: 60, podTemplate: {annotations: {rolled: again}}");
        namespace.apply(&rolled);
        until_within(SCALED, "new proxies have replaced the old ones", || {
            let now = staying(&namespace);
            now.len() == 2 && old.iter().all(|(name, _)| !now.contains(name))
        });
        wait_for(&namespace, "portforward/web");
        for (_, address) in &old {
            until_it_drains(node, *address, &load);
        }
    });
    assert!(served > 100, "there must be new sessions all the time: {served}");
    assert!(load.stop() > 1000, "the load ran, and no session of an old pod broke");
}
