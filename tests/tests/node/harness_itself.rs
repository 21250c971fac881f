//! What the tests promise about themselves: a node that is one, beside others, without a way out, and gone when its holder
//! is.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use harness::{Node, programs, until};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

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
        args: [serve, --name, 'peer: ']
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
    let routes = harness::Said::by(node.command("ip").args(["route"]), "").ok();
    let ways: Vec<&str> = routes.lines().filter(|line| !line.contains("node0") && !line.contains("cni0")).collect();
    assert_eq!(ways, [""; 0], "every route ends inside:\n{routes}");
    let devices = harness::Said::by(node.command("ip").args(["-brief", "link"]), "").ok();
    let foreign = |line: &&str| !["lo", "node0", "cni0", "veth"].iter().any(|known| line.starts_with(known));
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

/// Set for the process that is to be killed.
const HOLDER: &str = "PORTLANE_TEST_HOLDER";

#[test]
fn a_node_whose_holder_is_killed_leaves_nothing() {
    if programs::existing_cluster().is_some() {
        return;
    }
    if env::var_os(HOLDER).is_some() {
        hold();
    }
    let mut holder = Command::new(env::current_exe().expect("own path"))
        .args(["--exact", "harness_itself::a_node_whose_holder_is_killed_leaves_nothing", "--nocapture"])
        .env(HOLDER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(holder.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let held = lines.find_map(|line| line.strip_prefix("held: ").map(str::to_owned)).expect("a node");
    let folder = Path::new(&held).parent().expect("a folder").to_owned();
    assert!(harness::processes_of(&folder) > 0, "it runs");
    holder.kill().expect("it is killed");
    holder.wait().expect("it is gone");
    until("all of its processes are gone", || harness::processes_of(&folder) == 0);
    until("its control groups are gone", || !groups_with_dead_keepers());
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains("portlane"), "{mounts}");
}

/// Starts a node, says where, and waits to be killed.
fn hold() -> ! {
    let node = Node::start();
    println!("held: {}", node.logs().display());
    loop {
        thread::park();
    }
}

/// Whether a control group is left whose keeper is not.
fn groups_with_dead_keepers() -> bool {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let groups = hierarchies.flat_map(|hierarchy| fs::read_dir(hierarchy.path()).into_iter().flatten().flatten());
    let names = groups.map(|group| group.file_name().to_string_lossy().into_owned());
    names
        .filter_map(|name| name.strip_prefix("portlane-test-").map(str::to_owned))
        .any(|keeper| !Path::new("/proc").join(keeper).exists())
}
