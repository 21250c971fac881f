//! Promises of the harness about its nodes: a node is a real one, isolated from other nodes and from the network, and
//! ends with its holder.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use harness::{Holder, Node, until};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use rustix::process::{Pid, Signal, kill_process};

use crate::shared;

#[test]
fn a_job_with_a_native_sidecar_completes() {
    let namespace = shared::cluster().namespace("job").for_pods();
    namespace.apply(
        "apiVersion: batch/v1
kind: Job
metadata: {name: greet}
spec:
  template:
    spec:
      restartPolicy: Never
      initContainers:
      - name: peer
        image: localhost/portlane/echo:0.1.0
        restartPolicy: Always
        args: [serve, --address, 0.0.0.0, --name, 'peer: ']
        startupProbe: {tcpSocket: {port: 7777}, periodSeconds: 1}
      containers:
      - name: greet
        image: localhost/portlane/echo:0.1.0
        args: [call, tcp, '127.0.0.1:7777', hello]
",
    );
    namespace.until::<Job>("greet", "has succeeded", |job| {
        job.status.as_ref().and_then(|status| status.succeeded) == Some(1)
    });
    assert!(namespace.kubectl(&["logs", "job/greet"]).ok().contains("peer: hello"));
}

#[test]
fn a_container_that_fails_its_liveness_probe_is_restarted() {
    let namespace = shared::cluster().namespace("probe").for_pods();
    namespace.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: sick}, spec: {terminationGracePeriodSeconds: 0, containers: \
         [{name: sick, image: 'localhost/portlane/echo:0.1.0', args: [pause], livenessProbe: {periodSeconds: 1, \
         failureThreshold: 1, tcpSocket: {port: 1}}}]}}",
    );
    namespace.until::<Pod>("sick", "was restarted", |pod| {
        let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        containers.into_iter().flatten().any(|container| container.restart_count > 0)
    });
}

#[test]
fn nothing_leads_out_of_a_node_and_its_own_addresses_are_not_here() {
    let Some(node) = shared::node_with_a_host() else { return };
    let api: SocketAddr = "192.0.2.1:6443".parse().expect("an address");
    drop(node.connect(api).expect("inside, the API server answers"));
    TcpStream::connect_timeout(&api, Duration::from_millis(300)).expect_err("outside, nothing has that address");
    let routes = harness::CommandOutput::of(node.command("ip").args(["route"]), "").ok();
    let ways: Vec<&str> = routes.lines().filter(|line| !line.contains("node0") && !line.contains("cni0")).collect();
    assert_eq!(ways, [""; 0], "every route ends inside:\n{routes}");
    let devices = harness::CommandOutput::of(node.command("ip").args(["-brief", "link"]), "").ok();
    // The outpost has no other way than by the node.
    let known = ["lo", "node0", "cni0", "veth", "outpost"];
    let foreign = |line: &&str| !known.iter().any(|known| line.starts_with(known));
    let foreign: Vec<&str> = devices.lines().filter(foreign).filter(|line| line.contains(" UP ")).collect();
    assert_eq!(foreign, [""; 0], "no device leads out:\n{devices}");
}

#[test]
fn two_nodes_do_not_notice_each_other() {
    let Some(first) = shared::node_with_a_host() else { return };
    let second = Node::start();
    let namespaces = [first.namespace("twin").for_pods(), second.namespace("twin").for_pods()];
    for namespace in &namespaces {
        namespace.apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: twin}, spec: {terminationGracePeriodSeconds: 0, containers: \
             [{name: twin, image: 'localhost/portlane/echo:0.1.0', args: [pause]}]}}",
        );
        namespace.until::<Pod>("twin", "runs", |pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        });
    }
    assert!(namespaces[0].kubectl(&["get", "namespace", namespaces[1].name()]).refused().contains("not found"));
}

/// A node with a running Pod that another process holds.
struct Held {
    holder: Holder,
    keeper: u32,
    /// Identity of the PID namespace, which every process of the node is in.
    namespace: PathBuf,
}

impl Held {
    fn by(test: &str) -> Self {
        let holder = Holder::start(test);
        let (init, keeper) = holder.line().split_once(' ').expect("two numbers");
        let namespace = fs::read_link(format!("/proc/{init}/ns/pid")).expect("the node runs");
        let keeper = keeper.parse().expect("a number");
        let held = Self { holder, keeper, namespace };
        // Two processes of the harness, eight components, and the shim of a Pod. The Pod's own processes are in a
        // namespace further in; its control group shows them.
        assert!(held.processes() >= 11, "{} processes run", held.processes());
        assert!(held.groups() > 0, "the node has a control group of its own");
        held
    }

    /// Number of processes in the node.
    fn processes(&self) -> usize {
        let processes = fs::read_dir("/proc").expect("processes").flatten();
        let namespaces = processes.filter_map(|process| fs::read_link(process.path().join("ns/pid")).ok());
        namespaces.filter(|namespace| *namespace == self.namespace).count()
    }

    /// Number of control groups of the node, in every hierarchy of cgroup v1 or at the root of v2.
    fn groups(&self) -> usize {
        let (root, name) = (Path::new("/sys/fs/cgroup"), format!("portlane-test-{}", self.keeper));
        let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        hierarchies.chain([root.to_owned()]).filter(|hierarchy| hierarchy.join(&name).exists()).count()
    }
}

fn hold() -> ! {
    let node = Node::start();
    let namespace = node.namespace("held").for_pods();
    namespace.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: idle}, spec: {containers: \
         [{name: idle, image: 'localhost/portlane/echo:0.1.0', args: [pause]}]}}",
    );
    namespace.until::<Pod>("idle", "runs", |pod| {
        pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
    });
    Holder::hold(&format!("{} {}", node.init(), node.keeper().expect("a node of its own")))
}

#[test]
fn a_node_whose_holder_is_killed_leaves_nothing() {
    if Holder::is_this() {
        hold();
    }
    if !shared::are_nodes_ours() {
        return;
    }
    let mut held = Held::by("harness_itself::a_node_whose_holder_is_killed_leaves_nothing");
    held.holder.kill();
    until("all processes of the node are gone", || held.processes() == 0);
    until("the control groups of the node are gone", || held.groups() == 0);
    until("the keeper of the node is gone", || !Path::new("/proc").join(held.keeper.to_string()).exists());
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains("/run/portlane"), "{mounts}");
}

#[test]
fn a_node_whose_keeper_is_killed_ends_and_the_next_one_sweeps() {
    if Holder::is_this() {
        hold();
    }
    if !shared::are_nodes_ours() {
        return;
    }
    let held = Held::by("harness_itself::a_node_whose_keeper_is_killed_ends_and_the_next_one_sweeps");
    let keeper = i32::try_from(held.keeper).ok().and_then(Pid::from_raw).expect("a number");
    kill_process(keeper, Signal::KILL).expect("the keeper is killed");
    until("all processes of the node are gone", || held.processes() == 0);
    drop(Node::start());
    assert_eq!(held.groups(), 0, "the next keeper sweeps what a killed keeper left");
}
