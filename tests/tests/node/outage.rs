//! The API server is away for two minutes, a proxy is killed meanwhile, and traffic is not disturbed.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use harness::{Namespace, Node, until, until_within};

use crate::{
    fleet::{self, CHARTS, GATEWAY, Load, OPERATOR, call, forward, install, proxies, shop, until_it_drains, wait_for},
    shared,
};

/// Time without an API server.
const OUTAGE: Duration = Duration::from_secs(120);

/// The node is this test's own: an outage would disturb other tests.
#[test]
fn without_an_api_server_for_two_minutes_traffic_continues_and_a_killed_proxy_serves_what_it_had() {
    if shared::node_with_a_host().is_none() {
        return;
    }
    let node = Node::start();
    install(&node, &[]);
    let namespace = shop(&node, "outage");
    namespace.apply(GATEWAY);
    namespace.apply(&forward("web"));
    wait_for(&namespace, "portforward/web");
    until("bytes go through the Service", || call(&namespace, "tcp") == "web: hello");
    let addresses = proxies(&namespace);
    let (spared, killed) = (addresses[0].clone(), addresses[1].clone());
    let load = Load::start(&node, &[spared.1], 40);
    the_leader_is_killed(&namespace);

    let pause = node.pause("kube-apiserver");
    let started = Instant::now();
    // A killed proxy serves its kept configuration again, although no operator can reach it.
    kill_proxy(&node, &killed.0);
    until_within(Duration::from_secs(60), "the killed proxy serves again", || greets(&node, killed.1));
    while started.elapsed() < OUTAGE {
        assert!(
            greets(&node, killed.1) && greets(&node, spared.1),
            "no new session is accepted after {:?}",
            started.elapsed()
        );
        pause_between_looks();
    }
    drop(pause);

    // With the API server back, a change reaches the proxies, and sessions from before the outage are still open.
    let back = Instant::now();
    until_within(Duration::from_secs(60), "the API server takes a change", || namespace.try_apply(&forward("other")));
    until_within(Duration::from_secs(60), "new sessions go to the other backend", || {
        call(&namespace, "tcp") == "other: hello"
    });
    eprintln!("a change flowed {:?} after the API server was back", back.elapsed());
    namespace.cluster().kubectl(&["delete", "lease", "portlane-operator", "-n", OPERATOR]).ok();
    namespace.apply(&forward("web"));
    until_within(Duration::from_secs(60), "a change flows under a new Lease", || {
        call(&namespace, "tcp") == "web: hello"
    });
    until_within(Duration::from_secs(90), "the forward is ready", || {
        namespace.kubectl(&["wait", "--for=condition=Ready", "portforward/web", "--timeout=1s"]).success
    });
    without_an_operator(&namespace);
    the_certificate_rotates(&namespace);
    assert!(load.stop() > 1000, "there was load, and no session broke");
    another_release_of_the_proxy(&node, &namespace);
    a_node_is_drained(&node, &namespace);
    nothing_is_left(&namespace);
}

/// The other replica of the operator takes over from a leader that is killed.
fn the_leader_is_killed(namespace: &Namespace<'_>) {
    let cluster = namespace.cluster();
    let holder = ["get", "lease", "portlane-operator", "-n", OPERATOR, "--output=jsonpath={.spec.holderIdentity}"];
    let holder = cluster.kubectl(&holder).ok();
    let pod = holder.split('_').next().expect("a pod").to_owned();
    cluster.kubectl(&["delete", "pod", &pod, "-n", OPERATOR, "--grace-period=0", "--force"]).ok();
    let killed = Instant::now();
    namespace.apply(&forward("other"));
    until_within(Duration::from_secs(60), "a change flows under the new leader", || {
        call(namespace, "tcp") == "other: hello"
    });
    eprintln!("a change flowed {:?} after the leader was killed", killed.elapsed());
    namespace.apply(&forward("web"));
    until("a change flows back", || call(namespace, "tcp") == "web: hello");
}

/// Kills the proxy in a pod; kubelet starts another one in its place.
fn kill_proxy(node: &Node, pod: &str) {
    let is_of = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == format!("HOSTNAME={pod}").as_bytes())
    };
    let proxy = node.processes("portlane-proxy").into_iter().find(is_of);
    node.kill(proxy.unwrap_or_else(|| panic!("pod {pod} has no proxy")));
}

fn greets(node: &Node, address: SocketAddr) -> bool {
    node.connect(address).and_then(|mut session| fleet::greeting(&mut session)).is_ok()
}

#[allow(clippy::disallowed_methods, reason = "the outage has to last, and the load runs by itself")]
fn pause_between_looks() {
    thread::sleep(Duration::from_millis(500));
}

/// Nothing waits for a missing operator: pods start uninjected, and namespaces are deleted.
fn without_an_operator(namespace: &Namespace<'_>) {
    let cluster = namespace.cluster();
    let scale = |to: &str| cluster.kubectl(&["scale", "deploy/portlane-operator", "-n", OPERATOR, to]).ok();
    scale("--replicas=0");
    until("the operator is gone", || cluster.kubectl(&["get", "pods", "-n", OPERATOR, "-o", "name"]).ok().is_empty());
    let label = "{\"spec\": {\"template\": {\"metadata\": {\"labels\": {\"portlane.dev/inject\": \"enabled\"}}}}}";
    namespace.kubectl(&["patch", "deploy/other", "--patch", label]).ok();
    namespace.kubectl(&["rollout", "status", "deploy/other", "--timeout=60s"]).ok();
    cluster.kubectl(&["create", "namespace", "short-lived"]).ok();
    cluster.kubectl(&["delete", "namespace", "short-lived", "--timeout=60s"]).ok();
    scale("--replicas=2");
    cluster.kubectl(&["rollout", "status", "deploy/portlane-operator", "-n", OPERATOR, "--timeout=60s"]).ok();
}

/// Certificates of the webhook change every few seconds while pods are created, and each pod gets its proxy.
fn the_certificate_rotates(namespace: &Namespace<'_>) {
    let cluster = namespace.cluster();
    let short = |setting: &str| {
        cluster.kubectl(&["set", "env", "deploy/portlane-operator", "-n", OPERATOR, setting]).ok();
        cluster.kubectl(&["rollout", "status", "deploy/portlane-operator", "-n", OPERATOR, "--timeout=60s"]).ok();
    };
    short("PORTLANE_CERTIFICATE_SECONDS=8");
    let (started, mut made) = (Instant::now(), 0);
    // A certificate lasts for eight seconds and is replaced after four.
    while started.elapsed() < Duration::from_secs(20) {
        let name = format!("made-{made}");
        namespace.apply(
            &"{apiVersion: v1, kind: Pod, metadata: {name: NAME, labels: {portlane.dev/inject: enabled}}, spec: \
              {terminationGracePeriodSeconds: 0, securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, \
              containers: [{name: app, image: 'localhost/portlane/echo:0.1.0', args: [pause], securityContext: \
              {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}"
                .replace("NAME", &name),
        );
        let containers = "--output=jsonpath={.spec.initContainers[*].name}";
        assert_eq!(namespace.kubectl(&["get", "pod", &name, containers]).ok(), "portlane-proxy", "pod {made}");
        namespace.kubectl(&["delete", "pod", &name, "--wait=false"]).ok();
        made += 1;
    }
    assert!(made > 5, "pods must be created all the time: {made}");
    short("PORTLANE_CERTIFICATE_SECONDS-");
}

/// An upgrade that brings another image of the proxy rolls the fleet over, and breaks no session.
fn another_release_of_the_proxy(node: &Node, namespace: &Namespace<'_>) {
    let pods = |column: &str| {
        let columns = format!("--output=jsonpath={{range .items[*]}}{{{column}}}/{{.status.phase}} {{end}}");
        namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", &columns]).ok()
    };
    namespace.apply(&GATEWAY.replace("drainSeconds: 5", "drainSeconds: 60"));
    until_within(Duration::from_secs(90), "two proxies that drain for a minute run, and no other", || {
        let graces = pods(".spec.terminationGracePeriodSeconds");
        let graces: Vec<&str> = graces.split_whitespace().collect();
        graces.len() == 2 && graces.iter().all(|it| it.starts_with(['6', '7']) && it.ends_with("/Running"))
    });
    namespace.kubectl(&["rollout", "status", "deploy/edge", "--timeout=60s"]).ok();
    wait_for(namespace, "forwardgateway/edge");
    let addresses: Vec<SocketAddr> = proxies(namespace).into_iter().map(|(_, address)| address).collect();
    let load = Load::start(node, &addresses, 20);
    let (old, new) = ("localhost/portlane/proxy:0.1.0", "localhost/portlane/proxy:next");
    let tagged = node.command("ctr").args(["--namespace", "k8s.io", "images", "tag", old, new]).status();
    assert!(tagged.expect("ctr runs").success());
    let upgrade = ["upgrade", "portlane", CHARTS[1], "--namespace", OPERATOR, "--reuse-values", "--set"];
    namespace
        .cluster()
        .helm(
            &[&upgrade[..], &["proxyImage.tag=next,customMetrics.enabled=true", "--wait", "--timeout", "100s"]]
                .concat(),
        )
        .ok();
    until_within(Duration::from_secs(90), "two proxies of the new image run beside the draining ones", || {
        pods(".spec.containers[0].image").matches("proxy:next/Running").count() == 2
    });
    wait_for(namespace, "portforward/web");
    for address in addresses {
        until_it_drains(node, address, &load);
    }
    assert!(load.stop() > 100, "the load ran, and no session broke");
    until_within(Duration::from_secs(60), "the old proxies are gone", || {
        !pods(".spec.containers[0].image").contains("proxy:0.1.0")
    });
    until("bytes go through the Service", || call(namespace, "tcp") == "web: hello");
}

/// `kubectl drain` waits for the sessions of a proxy, as long as they end before the deadline, and breaks none.
fn a_node_is_drained(node: &Node, namespace: &Namespace<'_>) {
    namespace.kubectl(&["scale", "forwardgateway/edge", "--replicas=1"]).ok();
    until_within(Duration::from_secs(60), "one proxy is left", || {
        let ready = ["get", "deploy", "edge", "--output=jsonpath={.status.replicas}/{.status.readyReplicas}"];
        namespace.kubectl(&ready).stdout == "1/1" && proxies(namespace).len() == 1
    });
    let address = proxies(namespace)[0].1;
    let load = Load::start(node, &[address], 20);
    let name = node.kubectl(&["get", "nodes", "--output=jsonpath={.items[0].metadata.name}"]).ok();
    thread::scope(|scope| {
        let drain = scope.spawn(|| {
            let only = ["--pod-selector=portlane.dev/gateway=edge", "--delete-emptydir-data", "--timeout=60s"];
            node.kubectl(&[&["drain", name.as_str()], &only[..]].concat())
        });
        until("the proxy leaves", || {
            let leaving = "--output=jsonpath={.items[*].metadata.deletionTimestamp}";
            !namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", leaving]).ok().is_empty()
        });
        until_it_drains(node, address, &load);
        assert!(!drain.is_finished(), "kubectl drain must wait for the sessions");
        assert!(load.stop() > 100, "the load ran, and no session broke");
        drain.join().expect("no panic").ok();
    });
    node.kubectl(&["uncordon", &name]).ok();
}

/// Deleting the gateway deletes its children, and uninstalling the charts deletes all that they created.
fn nothing_is_left(namespace: &Namespace<'_>) {
    namespace.kubectl(&["delete", "portforward/web", "forwardgateway/edge"]).ok();
    let kinds = "deployments,services,serviceaccounts,poddisruptionbudgets,networkpolicies,pods";
    until_within(Duration::from_secs(60), "the fleet is gone", || {
        let left = namespace.kubectl(&["get", kinds, "-l", "portlane.dev/gateway=edge", "-o", "name"]).ok();
        left.is_empty()
    });
    let cluster = namespace.cluster();
    cluster.helm(&["uninstall", "portlane", "--namespace", OPERATOR, "--wait"]).ok();
    let kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
    let named = cluster.kubectl(&["get", kinds, "-o", "name"]).ok();
    assert!(!named.contains("portlane"), "{named}");
    until("the operator's pods are gone", || {
        cluster.kubectl(&["get", "pods", "-n", OPERATOR, "-o", "name"]).ok().is_empty()
    });
    // A registered API that does not answer would block the deletion of every namespace.
    let apis = cluster.kubectl(&["get", "apiservices", "-o", "name"]).ok();
    assert!(!apis.contains("custom.metrics.k8s.io"), "{apis}");
    until("the endpoint of the metrics API is gone", || {
        let slices = cluster.kubectl(&["get", "endpointslices", "-n", OPERATOR, "-o", "name"]).ok();
        !slices.contains("portlane-metrics")
    });
    cluster.kubectl(&["delete", "namespace", OPERATOR, "--timeout=60s"]).ok();
}
