//! What the tests of tunnels share: a node whose operator signs for agents, a gateway, and agents on machines beside it.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use harness::{Namespace, Node, OPERATOR, Outpost, Program, binary, install, until};
use k8s_openapi::api::core::v1::{Secret, Service};

use crate::{fleet::wait_for, shared};

/// Port of the gateway that agents dial.
pub(super) const TUNNELS: u16 = 7443;

/// Variables of the person who runs the tests that would misdirect an agent.
const PERSONAL: [&str; 7] =
    ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "PORTLANE_JOIN"];

/// The turn of a test to have the node, until it is dropped. Each of them takes the operator away.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // After a test that failed the next one has its turn, too.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The node of these tests, with an operator, and the turn of the caller: the tests of other modules need their operator.
/// `None`, with a printed line, if the tests were given a cluster.
pub(super) fn node() -> Option<(&'static Node, MutexGuard<'static, ()>)> {
    static NODE: OnceLock<Node> = OnceLock::new();
    if !shared::are_nodes_ours() {
        return None;
    }
    let turn = turn();
    let node = NODE.get_or_init(|| {
        let node = Node::start();
        install(&node, &["--set", "tunnels.enabled=true", "--set", "replicas=1"]);
        node
    });
    bring_operator_back(node);
    Some((node, turn))
}

/// Takes the operator away.
pub(super) fn take_operator_away(node: &Node) {
    node.kubectl(&["scale", "deploy/portlane-operator", "-n", OPERATOR, "--replicas=0"]).ok();
    until("the operator is gone", || node.kubectl(&["get", "pods", "-n", OPERATOR, "-o", "name"]).ok().is_empty());
}

/// Brings the operator back, unless it is there.
pub(super) fn bring_operator_back(node: &Node) {
    node.kubectl(&["scale", "deploy/portlane-operator", "-n", OPERATOR, "--replicas=1"]).ok();
    node.kubectl(&["rollout", "status", "deploy/portlane-operator", "-n", OPERATOR, "--timeout=180s"]).ok();
}

/// A namespace with the most restricted profile of Pod Security.
pub(super) fn namespace<'a>(node: &'a Node, purpose: &str) -> Namespace<'a> {
    node.namespace(purpose).for_pods().restricted()
}

/// The gateway with so many pods, and with what `tunnels` has.
fn gateway(size: &str, tunnels: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {{name: edge}}, spec: {{{size}, tunnels: \
         {{{tunnels}}}}}}}"
    )
}

/// A gateway that says where agents reach it, which is the address of its Service here; gives that address. `size` has
/// `replicas` and `drainSeconds`.
pub(super) fn ready_gateway(namespace: &Namespace<'_>, size: &str) -> SocketAddr {
    namespace.apply(&gateway(size, ""));
    let address = |service: &Service| -> Option<IpAddr> { service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok() };
    let service = namespace.until::<Service>("edge", "has an address", |it| address(it).is_some());
    let gateway_address = SocketAddr::new(address(&service).expect("an address"), TUNNELS);
    resize(namespace, size, gateway_address);
    wait_for(namespace, "forwardgateway/edge");
    gateway_address
}

/// Gives the gateway another size.
pub(super) fn resize(namespace: &Namespace<'_>, size: &str, gateway_address: SocketAddr) {
    namespace.apply(&gateway(size, &format!("advertise: ['{gateway_address}']")));
}

/// The join string of agent `home`.
pub(super) fn join(namespace: &Namespace<'_>) -> String {
    let has_join = |it: &Secret| it.data.as_ref().is_some_and(|data| data.contains_key("join"));
    namespace.until::<Secret>("home-enrolment", "has a join string", has_join);
    let join = ["get", "secret", "home-enrolment", "--output=go-template={{.data.join | base64decode}}"];
    namespace.kubectl(&join).ok()
}

/// A service on the machine of an agent, which greets with a name.
pub(super) fn echo(outpost: &Outpost, port: u16, name: &str) -> Program {
    let program = binary("portlane-echo");
    let mut command = outpost.command(program.to_str().expect("a path in Unicode"));
    command.args(["serve", "--address", "127.0.0.1", "--port", &port.to_string(), "--name", name]);
    Program::start(command, tempfile::tempdir().expect("folder"))
}

/// An instance of agent `home`, which may lead to these ports of its machine, with a connection.
pub(super) fn agent(outpost: &Outpost, instance: &str, ports: &[u16], join: &str) -> Program {
    let agent = starting_agent(outpost, instance, ports, join);
    agent.wait("connected", "");
    agent
}

/// As [`agent`], without waiting for its connection.
pub(super) fn starting_agent(outpost: &Outpost, instance: &str, ports: &[u16], join: &str) -> Program {
    let folder = tempfile::tempdir().expect("folder");
    let (file, data) = (folder.path().join("join"), folder.path().join("data"));
    fs::write(&file, join).expect("written");
    let program = binary("portlane");
    let mut command = outpost.command(program.to_str().expect("a path in Unicode"));
    command.args(["agent", "--log", "json", "--name", instance]);
    for port in ports {
        command.args(["--allow", &format!("127.0.0.1:{port}")]);
    }
    command.arg("--join-file").arg(file).arg("--data").arg(data);
    for name in PERSONAL {
        command.env_remove(name);
    }
    Program::start(command, folder)
}
