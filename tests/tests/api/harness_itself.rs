//! What the tests promise about their own control planes.

use std::{
    env,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use harness::{ControlPlane, programs::KubernetesVersion, until};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::ConfigMap,
};
use kube::{Api, api::ListParams};
use rustix::process::{Pid, Signal, kill_process};

use crate::server;

#[test]
fn two_servers_at_once_have_nothing_in_common() {
    if !server::ours(&[]) {
        return;
    }
    let [one, two] = [(); 2].map(|()| ControlPlane::start(KubernetesVersion::Oldest));
    let namespace = one.namespace("only-here");
    let said = two.kubectl(&["get", "namespace", namespace.name()]).refused();
    assert!(said.contains("not found"), "{said}");
    let stranger = one.kubectl(&["--kubeconfig", &two.kubeconfig().display().to_string(), "get", "ns"]).ok();
    assert!(!stranger.contains(namespace.name()), "{stranger}");
}

#[test]
fn a_controller_manager_rolls_out_and_collects_garbage() {
    if !server::ours(&["kube-controller-manager"]) {
        return;
    }
    let server = ControlPlane::start_with_controller_manager(KubernetesVersion::Oldest);
    let namespace = server.namespace("controllers").for_pods();
    namespace.kubectl(&["create", "deployment", "web", "--image=none", "--replicas=2"]).ok();
    namespace.until::<Deployment>("web", "has its Pods", |web| {
        web.status.as_ref().and_then(|status| status.replicas) == Some(2)
    });
    let owner = namespace.get::<Deployment>("web").and_then(|web| web.metadata.uid).expect("a uid");
    namespace.apply(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: owned, ownerReferences: \
         [{{apiVersion: apps/v1, kind: Deployment, name: web, uid: {owner}}}]}}}}"
    ));
    namespace.kubectl(&["delete", "deployment", "web"]).ok();
    namespace.until_gone::<ConfigMap>("owned");
    let sets: Api<ReplicaSet> = namespace.api();
    until("its ReplicaSets are gone", || {
        harness::block_on(sets.list(&ListParams::default())).is_ok_and(|list| list.items.is_empty())
    });
}

#[test]
fn a_condition_that_does_not_come_is_told_with_the_object_and_the_logs() {
    if !server::ours(&[]) {
        return;
    }
    let server = ControlPlane::start(KubernetesVersion::Oldest);
    let namespace = server.namespace("patience").with_patience(std::time::Duration::from_millis(300));
    namespace.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: slow}, data: {speed: none}}");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        namespace.until::<ConfigMap>("slow", "is fast", |_| false);
    }));
    let panic = result.expect_err("it never is");
    let message = panic.downcast_ref::<String>().expect("a message");
    for part in ["ConfigMap slow: not so within 300ms: is fast", "speed: none", "the end of", "kube-apiserver.log"] {
        assert!(message.contains(part), "{part:?} is not in\n{message}");
    }
}

/// Set for the process that is to be killed.
const HOLDER: &str = "PORTLANE_TEST_HOLDER";

/// A test process that holds a server.
struct Holder {
    process: Child,
    keeper: i32,
    folder: PathBuf,
}

impl Holder {
    fn start(test: &str) -> Self {
        let mut process = Command::new(env::current_exe().expect("own path"))
            .args(["--exact", test, "--nocapture"])
            .env(HOLDER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let held = lines.find_map(|line| line.strip_prefix("held: ").map(str::to_owned)).expect("a server");
        let (keeper, logs) = held.split_once(' ').expect("a number and a folder");
        let folder = Path::new(logs).parent().expect("a folder").to_owned();
        let holder = Self { process, keeper: keeper.parse().expect("a number"), folder };
        assert!(holder.processes() >= 3, "etcd, the API server and their keeper run");
        holder
    }

    fn processes(&self) -> usize {
        harness::processes_of(&self.folder)
    }

    fn has_data(&self) -> bool {
        self.folder.join("data").exists()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a server, says so, and holds it until it is killed or its own holder is.
fn hold() -> ! {
    let server = ControlPlane::start(KubernetesVersion::Oldest);
    println!("held: {} {}", server.keeper().expect("its own"), server.logs().display());
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    std::process::exit(1);
}

#[test]
fn a_server_whose_holder_is_killed_leaves_nothing_but_logs() {
    if env::var_os(HOLDER).is_some() {
        hold();
    }
    if !server::ours(&[]) {
        return;
    }
    let mut holder = Holder::start("harness_itself::a_server_whose_holder_is_killed_leaves_nothing_but_logs");
    holder.process.kill().expect("it is killed");
    until("all of its processes are gone", || holder.processes() == 0);
    assert!(!holder.has_data(), "its data is gone");
    assert!(holder.folder.join("logs/kube-apiserver.log").exists(), "its logs are kept");
}

#[test]
fn a_server_whose_keeper_is_killed_ends_and_the_next_one_sweeps() {
    if env::var_os(HOLDER).is_some() {
        hold();
    }
    if !server::ours(&[]) {
        return;
    }
    let holder = Holder::start("harness_itself::a_server_whose_keeper_is_killed_ends_and_the_next_one_sweeps");
    kill_process(Pid::from_raw(holder.keeper).expect("a number"), Signal::KILL).expect("it is killed");
    until("all of its processes are gone", || holder.processes() == 0);
    assert!(holder.has_data(), "nobody was left to remove it");
    drop(ControlPlane::start(KubernetesVersion::Oldest));
    assert!(!holder.has_data(), "but the next one has");
}
