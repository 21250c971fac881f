//! Promises of the harness about its own control planes.

use std::path::{Path, PathBuf};

use harness::{ControlPlane, Holder, programs::KubernetesVersion, until};
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
    let refusal = two.kubectl(&["get", "namespace", namespace.name()]).refused();
    assert!(refusal.contains("not found"), "{refusal}");
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
    until("the ReplicaSets of the Deployment are gone", || {
        harness::block_on(sets.list(&ListParams::default())).is_ok_and(|list| list.items.is_empty())
    });
}

#[test]
fn a_condition_that_does_not_hold_in_time_is_reported_with_the_object_and_the_logs() {
    if !server::ours(&[]) {
        return;
    }
    let server = ControlPlane::start(KubernetesVersion::Oldest);
    let namespace = server.namespace("patience").with_patience(std::time::Duration::from_millis(300));
    namespace.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: slow}, data: {speed: none}}");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        namespace.until::<ConfigMap>("slow", "is fast", |_| false);
    }));
    let panic = result.expect_err("the condition never holds");
    let message = panic.downcast_ref::<String>().expect("a message");
    for part in ["ConfigMap slow: not true after 300ms: is fast", "speed: none", "the end of", "kube-apiserver.log"] {
        assert!(message.contains(part), "{part:?} is not in\n{message}");
    }
}

/// A control plane that another process holds.
struct Server {
    holder: Holder,
    keeper: i32,
    folder: PathBuf,
}

impl Server {
    fn held_by(test: &str) -> Self {
        let holder = Holder::start(test);
        let (keeper, logs) = holder.line().split_once(' ').expect("a number and a folder");
        let keeper = keeper.parse().expect("a number");
        let folder = Path::new(logs).parent().expect("a folder").to_owned();
        let server = Self { holder, keeper, folder };
        assert!(server.processes() >= 3, "etcd, the API server and their keeper must run");
        server
    }

    fn processes(&self) -> usize {
        harness::processes_of(&self.folder)
    }

    fn has_data(&self) -> bool {
        self.folder.join("data").exists()
    }
}

fn hold() -> ! {
    let server = ControlPlane::start(KubernetesVersion::Oldest);
    Holder::hold(&format!("{} {}", server.keeper().expect("a server of its own"), server.logs().display()))
}

#[test]
fn a_server_whose_holder_is_killed_leaves_nothing_but_logs() {
    if Holder::is_this() {
        hold();
    }
    if !server::ours(&[]) {
        return;
    }
    let mut server = Server::held_by("harness_itself::a_server_whose_holder_is_killed_leaves_nothing_but_logs");
    server.holder.kill();
    until("all processes of the server are gone", || server.processes() == 0);
    assert!(!server.has_data(), "the data of the server is removed");
    assert!(server.folder.join("logs/kube-apiserver.log").exists(), "the logs of the server are kept");
}

#[test]
fn a_server_whose_keeper_is_killed_ends_and_the_next_one_sweeps() {
    if Holder::is_this() {
        hold();
    }
    if !server::ours(&[]) {
        return;
    }
    let server = Server::held_by("harness_itself::a_server_whose_keeper_is_killed_ends_and_the_next_one_sweeps");
    kill_process(Pid::from_raw(server.keeper).expect("a number"), Signal::KILL).expect("the keeper is killed");
    until("all processes of the server are gone", || server.processes() == 0);
    assert!(server.has_data(), "no keeper was left to remove the data");
    drop(ControlPlane::start(KubernetesVersion::Oldest));
    assert!(!server.has_data(), "the next keeper removes the data");
}
