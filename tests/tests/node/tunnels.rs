//! A tunnel in a cluster: a gateway, an agent on a machine that nothing can connect to, and visitors of a forward.

mod away;
mod fleet;
mod load;
mod scene;
mod sidecars;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crds::{AgentInstance, ForwardAgent};
use harness::{Namespace, Node, Outpost, Program, greeting, round_trip, until};
use k8s_openapi::api::core::v1::{Secret, Service};

use self::scene::TUNNELS;
use crate::{
    broken::names,
    fleet::{call, client, proxies, wait_for},
};

/// Port of the service on the machine of the agent.
const TARGET: u16 = 7777;
/// Longest time from a change of the agent that ends its sessions to their end.
const ENDED: Duration = Duration::from_secs(1);

/// The agent, and a forward to the service on its machine.
const FORWARD: &str = "apiVersion: portlane.dev/v1alpha1
kind: ForwardAgent
metadata: {name: home}
spec:
  gateway: {name: edge}
  targets: [{host: 127.0.0.1, port: 7777}]
---
apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {name: web}
spec:
  placement: {gateway: {name: edge}}
  listeners:
  - {name: tcp, protocol: TCP, port: 80, backends: [{tunnel: {agent: home, host: 127.0.0.1, port: 7777}}]}
";

#[test]
fn an_agent_without_a_way_in_serves_visitors_of_a_gateway_through_cuts_new_pods_and_an_absent_operator() {
    let Some((node, _turn)) = scene::node() else { return };
    let namespace = scene::namespace(node, "tunnels");
    client(&namespace);
    let outpost = Outpost::beside(node);
    let _service = scene::echo(&outpost, TARGET, "home: ");
    let gateway = scene::ready_gateway(&namespace, "replicas: 1, drainSeconds: 5");
    let bed = Bed { node, namespace, outpost, gateway };
    bed.namespace.apply(FORWARD);
    let agent = bed.enrolled();
    bed.is_told_in_status();
    bed.commands_name_the_instance();
    bed.a_session_outlives_its_carrier(&agent);
    bed.another_pod_takes_over();
    bed.suspension_ends_sessions(&agent);
    let agent = bed.rotation_ends_sessions(agent);
    bed.without_an_operator(&agent);
    bed.nothing_is_left();
}

/// What the test has.
struct Bed<'a> {
    node: &'a Node,
    namespace: Namespace<'a>,
    outpost: Outpost,
    /// Where agents dial.
    gateway: SocketAddr,
}

impl Bed<'_> {
    /// The agent, with the join string of its Secret.
    fn enrolled(&self) -> Program {
        let join = scene::join(&self.namespace);
        let agent = scene::agent(&self.outpost, "pi4", &[TARGET], &join);
        wait_for(&self.namespace, "portforward/web");
        self.until_served();
        agent
    }

    /// A new session is served through the Service of the gateway.
    #[track_caller]
    fn until_served(&self) {
        until("the service behind the agent answers", || call(&self.namespace, "tcp") == "home: hello");
    }

    /// A session through the Service of the gateway, from the host of the node.
    fn session(&self) -> TcpStream {
        let mut session = self.node.connect(SocketAddr::new(self.gateway.ip(), 80)).expect("the listener accepts");
        assert_eq!(greeting(&mut session).expect("a greeting"), "home: ");
        assert_eq!(round_trip(&mut session, b"one").expect("an echo"), b"one");
        session
    }

    fn is_told_in_status(&self) {
        let met = |agent: &ForwardAgent, type_: &str| {
            let conditions = agent.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|it| it.type_ == type_ && it.status == "True")
        };
        let is_pi4 = |instance: &AgentInstance| {
            (instance.name.as_str(), instance.carriers.as_str()) == ("pi4", "1/1") && !instance.version.is_empty()
        };
        let is_told = |agent: &ForwardAgent| {
            let instances = agent.status.as_ref().map(|status| status.instances.as_slice()).unwrap_or_default();
            ["Accepted", "Enrolled", "Connected", "Ready"].into_iter().all(|type_| met(agent, type_))
                && matches!(instances, [one] if is_pi4(one))
        };
        self.namespace.until::<ForwardAgent>("home", "every condition is true, with one instance", is_told);
        // Nobody may redeem the join string again.
        let is_gone = |it: &Secret| it.data.as_ref().is_none_or(|data| !data.contains_key("join"));
        self.namespace.until::<Secret>("home-enrolment", "has no join string", is_gone);
    }

    /// `kubectl portlane` shows the agent, and the instance that leads a live session to its target.
    fn commands_name_the_instance(&self) {
        let session = self.session();
        let (own, version) = (self.namespace.name(), env!("CARGO_PKG_VERSION"));
        let (listener, backend) = (format!("{own}/web/tcp"), format!("agent/{own}/home/127.0.0.1:{TARGET}"));
        names(&self.namespace, &["status", "--output=wide"], &[" home ", &format!("pi4 {version}")]);
        names(&self.namespace, &["conns", "web", "--output=wide"], &["1 session", &listener, " pi4 ", &backend]);
        let connected = format!("the proxy is connected to pi4 ({backend})");
        names(&self.namespace, &["trace", "web", "--from=client"], &[&connected, "reaches a backend"]);
        drop(session);
    }

    /// What was under way when the carrier was cut arrives by the next one.
    fn a_session_outlives_its_carrier(&self, agent: &Program) {
        let mut session = self.session();
        let seen = agent.events().len();
        self.outpost.cut(TUNNELS);
        session.write_all(b"two").expect("the listener reads");
        agent.wait_after(seen, "unreached", "");
        self.outpost.restore();
        let mut answer = [0; 3];
        session.read_exact(&mut answer).expect("the session continues");
        assert_eq!(&answer, b"two");
        assert_eq!(round_trip(&mut session, b"three").expect("an echo"), b"three");
    }

    /// The pod of the gateway is deleted: the agent finds the next one.
    fn another_pod_takes_over(&self) {
        let (pod, _) = proxies(&self.namespace).pop().expect("a proxy");
        self.namespace.kubectl(&["delete", "pod", &pod, "--timeout=60s"]).ok();
        let deleted = Instant::now();
        self.until_served();
        eprintln!("a new session was served {:?} after the pod of the gateway was gone", deleted.elapsed());
    }

    /// A change of the agent's spec resets a session through it within [`ENDED`].
    fn ends_sessions(&self, spec: &str) {
        let mut session = self.session();
        let begun = Instant::now();
        self.patch(spec);
        // The object is written at some time while kubectl runs.
        let written = begun.elapsed();
        let ended = session.read(&mut [0; 1]);
        let took = begun.elapsed();
        eprintln!("the session ended {took:?} after kubectl began to write {spec}, which took {written:?}");
        assert!(is_reset(&ended) && took < written + ENDED, "{spec}: {ended:?} after {took:?}, of kubectl {written:?}");
    }

    /// Changes the agent's spec.
    fn patch(&self, spec: &str) {
        let patch = format!("{{\"spec\": {spec}}}");
        self.namespace.kubectl(&["patch", "forwardagent", "home", "--type=merge", "--patch", &patch]).ok();
    }

    fn suspension_ends_sessions(&self, agent: &Program) {
        self.ends_sessions("{\"suspend\": true}");
        let is_suspended = |it: &ForwardAgent| {
            let conditions = it.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|it| it.type_ == "Connected" && it.reason == "Suspended")
        };
        self.namespace.until::<ForwardAgent>("home", "is suspended", is_suspended);
        until("the agent logs why", || has_logged(agent, "is suspended"));
        self.patch("{\"suspend\": false}");
        // The agent comes back by itself.
        self.until_served();
    }

    /// The certificate of the agent is revoked, so the agent enrols again. Gives the process that has.
    fn rotation_ends_sessions(&self, agent: Program) -> Program {
        self.ends_sessions("{\"enrolment\": {\"rotation\": 1}}");
        until("the agent logs why", || has_logged(&agent, "was revoked by rotation 1"));
        drop(agent);
        self.enrolled()
    }

    /// Sessions continue, and an agent that has lost its carrier connects again with its certificate. The operator
    /// stays away.
    fn without_an_operator(&self, agent: &Program) {
        scene::take_operator_away(self.node);
        self.a_session_outlives_its_carrier(agent);
        self.until_served();
    }

    /// Owner references are enough.
    fn nothing_is_left(&self) {
        self.namespace.kubectl(&["delete", "portforward/web", "forwardagent/home", "forwardgateway/edge"]).ok();
        self.namespace.until_gone::<Secret>("home-enrolment");
        self.namespace.until_gone::<Service>("edge");
    }
}

fn is_reset(ended: &io::Result<usize>) -> bool {
    ended.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

fn has_logged(agent: &Program, words: &str) -> bool {
    agent.events().iter().any(|event| event.to_string().contains(words))
}
