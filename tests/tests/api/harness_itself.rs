//! What the tests promise about their own control planes.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use harness::{ControlPlane, programs, programs::KubernetesVersion, until};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::ConfigMap,
};
use kube::{Api, api::ListParams};

/// Whether the tests start servers at all.
fn ours() -> bool {
    programs::existing_cluster().is_none()
}

#[test]
fn two_servers_at_once_have_nothing_in_common() {
    if !ours() {
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
    if !ours() {
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
    if !ours() {
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

#[test]
fn a_server_whose_holder_is_killed_leaves_nothing() {
    if env::var_os(HOLDER).is_some() {
        hold();
    }
    if !ours() {
        return;
    }
    let mut holder = Command::new(env::current_exe().expect("own path"))
        .args(["--exact", "harness_itself::a_server_whose_holder_is_killed_leaves_nothing", "--nocapture"])
        .env(HOLDER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(holder.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let held = lines.find_map(|line| line.strip_prefix("held: ").map(str::to_owned)).expect("a server");
    let folder = Path::new(&held).parent().expect("a folder").to_owned();
    assert!(harness::processes_of(&folder) >= 3, "etcd, the API server and their keeper run");
    holder.kill().expect("it is killed");
    holder.wait().expect("it is gone");
    until("all of its processes are gone", || harness::processes_of(&folder) == 0);
    until("its data is gone", || !folder.join("data").exists());
    assert!(fs::exists(folder.join("logs/kube-apiserver.log")).is_ok_and(|kept| kept), "its logs are kept");
}

/// Starts a server, says where, and waits to be killed.
fn hold() -> ! {
    let server = ControlPlane::start(KubernetesVersion::Oldest);
    println!("held: {}", server.logs().display());
    loop {
        thread::park();
    }
}
