//! The API server is away while a tunnel is used, and while another instance of the agent enrols.

use std::{
    collections::BTreeSet,
    env,
    net::SocketAddr,
    time::{Duration, Instant},
};

use harness::{Event, Node, Outpost, Program, greeting, round_trip, until};

use super::{Bed, FORWARD, TARGET, scene};
use crate::fleet::client;

/// Seconds without an API server.
const AWAY: u64 = 20;
/// The variable with the seconds of a longer outage.
const LONG: &str = "PORTLANE_AWAY_SECONDS";
/// Number of the machine of the agent.
const MACHINE: u8 = 80;
/// Number of the machine of the instance that enrols during the outage.
const LATE_MACHINE: u8 = 82;
/// Why that instance has to wait.
const UNANSWERED: &str = "the operator, which signs certificates, does not answer";

/// Twenty seconds, or as many as `PORTLANE_AWAY_SECONDS` says.
#[test]
fn without_an_api_server_sessions_visitors_and_agents_that_reconnect_are_served_and_an_enrolment_waits() {
    let Some((node, _turn)) = scene::node() else { return };
    let long = env::var(LONG).ok().map(|number| number.parse::<u64>().expect("PORTLANE_AWAY_SECONDS is a number"));
    let away = Duration::from_secs(long.unwrap_or(AWAY));
    let namespace = scene::namespace(node, "away");
    client(&namespace);
    let outpost = Outpost::numbered(node, MACHINE);
    let _service = scene::echo(&outpost, TARGET, "home: ");
    let gateway = scene::ready_gateway(&namespace, "replicas: 1, drainSeconds: 5");
    let bed = Bed { node, namespace, outpost, gateway };
    // Two instances may enrol, with a join string that outlasts the outage.
    let manifests = FORWARD.replace("  targets:", "  enrolment: {redemptions: 2, expireSeconds: 604800}\n  targets:");
    bed.namespace.apply(&manifests);
    let agent = bed.enrolled();
    let mut session = bed.session();
    let join = scene::join(&bed.namespace);

    let pause = node.pause("kube-apiserver");
    let mut late = Late::start(node, &join);
    let (started, mut rounds) = (Instant::now(), 0);
    while rounds == 0 || started.elapsed() < away {
        // A new visitor, and an agent whose connection is cut.
        bed.a_session_outlives_its_carrier(&agent);
        let message = format!("round {rounds}");
        let answer = round_trip(&mut session, message.as_bytes()).expect("the session continues");
        assert_eq!(answer, message.as_bytes());
        rounds += 1;
    }
    late.waits();
    drop(pause);
    eprintln!("the agent has connected again {rounds} times in {:?} without an API server", started.elapsed());

    let back = Instant::now();
    let changed = manifests.replace("port: 80,", "port: 81,");
    until("the API server takes a change", || bed.namespace.try_apply(&changed));
    let address = SocketAddr::new(gateway.ip(), 81);
    let visit = || node.connect(address).and_then(|mut visitor| greeting(&mut visitor)).ok();
    until("the change has come to the gateway", || visit().is_some());
    late.agent.wait("enrolled", "");
    until("visitors come to the instance that enrolled late", || visit().as_deref() == Some("late: "));
    eprintln!("it served visitors {:?} after the API server was back", back.elapsed());
}

/// An instance that is started during the outage, which nobody helps.
struct Late {
    agent: Program,
    started: Instant,
    _service: Program,
    _outpost: Outpost,
}

impl Late {
    fn start(node: &Node, join: &str) -> Self {
        let outpost = Outpost::numbered(node, LATE_MACHINE);
        let service = scene::echo(&outpost, TARGET, "late: ");
        let agent = scene::starting_agent(&outpost, "late", &[TARGET], join);
        Self { agent, started: Instant::now(), _service: service, _outpost: outpost }
    }

    /// It says why, and that it tries again, once a minute, and is still there.
    fn waits(&mut self) {
        until("the agent tells why it waits", || reasons(&self.agent).iter().any(|why| why.contains(UNANSWERED)));
        let told = reasons(&self.agent);
        let different: BTreeSet<&String> = told.iter().collect();
        let minutes = usize::try_from(self.started.elapsed().as_secs() / 60).expect("a test ends");
        assert!(told.len() <= different.len() * (minutes + 1), "each reason is told once a minute: {told:#?}");
        assert!(self.agent.is_running(), "it does not give up");
        assert!(self.agent.events().iter().all(|event| event["event"] != "enrolled"), "nobody can sign");
    }
}

/// Why the enrolment waits, as often as the agent has told it.
fn reasons(agent: &Program) -> Vec<String> {
    let reason = |event: &Event| {
        let message = event["message"].as_str().unwrap_or_default();
        let (why, _) = message.split_once("; the next attempt ").expect("the time of the next attempt");
        why.to_owned()
    };
    agent.events().iter().filter(|event| event["event"] == "enrolment").map(reason).collect()
}
