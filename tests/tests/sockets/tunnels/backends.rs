//! Backends behind agents: they are picked, checked, ejected, limited and counted as addresses are.

use std::{
    iter,
    net::TcpStream,
    time::{Duration, Instant},
};

use harness::{Backend, Behaviour, Listener, assert_reset, connect, forward, free_port, metric, until, until_within};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    SOON,
    bed::{Agent, Server, agent, behind, home, listener},
    bytes, echoed, session,
};
use crate::health::{LABELS, ONE, ask, named};

const AGENTS: [&str; 2] = ["home", "office"];
const EQUAL: [&str; 2] = ["weight: 1"; 2];
const ROUND_ROBIN: &str = "loadBalancing: {policy: RoundRobin}";

/// Agents `home` and `office`, each with a target that answers with 0 or 1, and listener `l`, which leads to both.
struct Pair {
    server: Server,
    /// The port of the listener.
    port: u16,
    /// Another field of the listener.
    field: &'static str,
    /// The ports of the targets.
    ports: [u16; 2],
    targets: [Option<Backend>; 2],
    agents: [Agent; 2],
    folders: [TempDir; 2],
}

/// Both agents and the forward. Each backend has another field, and so has the listener.
fn manifests(port: u16, ports: [u16; 2], backends: [&str; 2], field: &str) -> String {
    let (mut listener, mut text) = (Listener::tcp("l", port).with(field), String::new());
    for at in [0, 1] {
        listener = listener.backend(&format!("{}, {}", behind(AGENTS[at], ports[at]), backends[at]));
        text += &agent(AGENTS[at], &[ports[at]], "");
    }
    text + &forward("f", "", &[listener])
}

impl Pair {
    /// Both agents are connected, and the listener knows them.
    fn start(backends: [&str; 2], field: &'static str) -> Self {
        let (port, ports) = (free_port(), [free_port(), free_port()]);
        let targets = [0, 1].map(|name: u8| Some(named(ONE, ports[usize::from(name)], name)));
        let server = Server::start(&manifests(port, ports, backends, field), &[]);
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("folder"));
        let agents = [0, 1].map(|at: usize| {
            let join = server.join_of(AGENTS[at], "");
            Agent::connected("one", folders[at].path(), &[ports[at]], Some(&join))
        });
        let pair = Self { server, port, field, ports, targets, agents, folders };
        pair.until_known(0, 1.0);
        pair.until_known(1, 1.0);
        pair
    }

    /// Gives each backend another field.
    #[track_caller]
    fn edit(&self, backends: [&str; 2]) {
        let manifests = manifests(self.port, self.ports, backends, self.field);
        self.server.program.edit_and_wait(&manifests, "swapped", "f/l");
    }

    /// New sessions, one after the other, and how many of them each target has.
    #[track_caller]
    fn sessions(&self, count: usize) -> (Vec<TcpStream>, [usize; 2]) {
        let mut shares = [0; 2];
        let session = || {
            let mut session = connect(self.port).expect("connect");
            shares[usize::from(ask(&mut session).expect("an answer"))] += 1;
            session
        };
        let sessions = iter::repeat_with(session).take(count).collect();
        (sessions, shares)
    }

    /// How many of so many new sessions each target gets.
    #[track_caller]
    fn shares(&self, count: usize) -> [usize; 2] {
        self.sessions(count).1
    }

    /// A metric of one of the backends.
    fn of_backend(&self, name: &str, at: usize) -> Option<f64> {
        let backend = format!("agent/default/{}/127.0.0.1:{}", AGENTS[at], self.ports[at]);
        metric(&self.server.metrics(), &format!("{name}{{{LABELS},backend=\"{backend}\"}}"))
    }

    /// Waits until the listener knows so many instances of an agent.
    #[track_caller]
    fn until_known(&self, at: usize, instances: f64) {
        until(&format!("the listener knows {instances} instances of {}", AGENTS[at]), || {
            self.of_backend("portlane_backend_endpoints", at) == Some(instances)
        });
    }

    /// Waits for a notice that names the target of agent `home`, and the instance.
    #[track_caller]
    fn tells_of_home(&self, event: &str) {
        let notice = self.server.program.wait(event, "f/l");
        let endpoint = format!("agent/default/home/one/127.0.0.1:{}", self.ports[0]);
        assert!(notice["message"].as_str().is_some_and(|text| text.contains(&endpoint)), "{notice}");
    }
}

#[test]
fn weights_split_sessions_between_agents_exactly_and_an_agent_of_weight_zero_gets_none() {
    let pair = Pair::start(["weight: 3", "weight: 1"], ROUND_ROBIN);
    assert_eq!(pair.shares(40), [30, 10]);
    let counted = [0, 1].map(|at| pair.of_backend("portlane_backend_connections_total", at));
    assert_eq!(counted, [Some(30.0), Some(10.0)]);
    pair.edit(["weight: 0", "weight: 1"]);
    assert_eq!(pair.shares(8), [0, 8]);
}

#[test]
fn least_connections_fills_up_the_agent_that_holds_fewer_sessions() {
    let pair = Pair::start(["weight: 1", "weight: 0"], "loadBalancing: {policy: LeastConnections}");
    let (first, shares) = pair.sessions(4);
    assert_eq!(shares, [4, 0]);
    pair.edit(EQUAL);
    let (second, shares) = pair.sessions(4);
    assert_eq!(shares, [0, 4]);
    drop((first, second));
}

#[test]
fn the_agent_of_the_next_priority_serves_while_the_first_one_is_stopped() {
    let mut pair = Pair::start(["priority: 0", "priority: 1"], ROUND_ROBIN);
    assert_eq!(pair.shares(4), [4, 0]);
    pair.agents[0].program.signal(Signal::TERM);
    assert!(pair.agents[0].program.wait_for_end(SOON).success());
    pair.until_known(0, 0.0);
    assert_eq!(pair.shares(4), [0, 4]);
    pair.agents[0] = Agent::connected("one", pair.folders[0].path(), &[pair.ports[0]], None);
    pair.until_known(0, 1.0);
    assert_eq!(pair.shares(4), [4, 0]);
}

/// No failure counts here, so without the standby visitors would wait for the agent until the server gives it up, which
/// takes two minutes.
#[test]
fn the_agent_of_the_next_priority_serves_while_the_first_one_is_killed() {
    let field = "outlier: {consecutiveFailures: 1000, ejectSeconds: 1}";
    let mut pair = Pair::start(["priority: 0", "priority: 1"], field);
    let (held, shares) = pair.sessions(2);
    assert_eq!(shares, [2, 0]);
    pair.agents[0].program.signal(Signal::KILL);
    assert!(!pair.agents[0].program.wait_for_end(SOON).success());
    until_within(SOON, "the standby serves a visitor that comes after the server has noticed", || {
        let mut visitor = connect(pair.port).expect("connect");
        visitor.set_read_timeout(Some(Duration::from_secs(1))).expect("an option");
        ask(&mut visitor) == Some(1)
    });
    assert_eq!(pair.shares(8), [0, 8]);
    let known = pair.of_backend("portlane_backend_endpoints", 0);
    assert_eq!(known, Some(1.0), "the server still waits for the agent");
    pair.agents[0] = Agent::connected("one", pair.folders[0].path(), &[pair.ports[0]], None);
    until("the first agent serves again", || pair.shares(1) == [1, 0]);
    assert_eq!(pair.shares(4), [4, 0]);
    drop(held);
}

#[test]
fn a_check_through_an_agent_leads_sessions_away_while_nothing_listens_at_its_target() {
    let check = "healthCheck: {tcp: {}, intervalSeconds: 1, unhealthyThreshold: 1, healthyThreshold: 1}";
    let mut pair = Pair::start(EQUAL, check);
    let unhealthy = |pair: &Pair| pair.of_backend("portlane_backend_endpoints_unhealthy", 0);
    let failures = |pair: &Pair| pair.of_backend("portlane_backend_connect_failures_total", 0);
    pair.targets[0] = None;
    until("the check fails", || unhealthy(&pair) == Some(1.0));
    // On a stalled machine the check of the other agent may be late and fail; then both are tried for a while.
    until("no session tries the agent", || {
        let before = failures(&pair);
        pair.shares(8) == [0, 8] && failures(&pair) == before
    });
    pair.tells_of_home("unhealthy");
    pair.targets[0] = Some(named(ONE, pair.ports[0], 0));
    until("both agents have sessions again", || pair.shares(8) == [4, 4]);
}

#[test]
fn an_agent_whose_target_refuses_connections_is_ejected_after_so_many_in_a_row() {
    let mut pair = Pair::start(EQUAL, "outlier: {consecutiveFailures: 2, ejectSeconds: 3600}");
    pair.targets[0] = None;
    assert_eq!(pair.shares(8), [0, 8], "an attempt that fails is repeated at the other agent");
    assert_eq!(pair.of_backend("portlane_backend_connect_failures_total", 0), Some(2.0));
    pair.tells_of_home("ejected");
}

#[test]
fn limits_of_a_forward_hold_for_sessions_behind_an_agent() {
    const BYTES: usize = 250_000;
    let backend = Backend::start(Behaviour::Echo);
    let (port, folder) = (free_port(), tempfile::tempdir().expect("folder"));
    let limits = "limits: {bytesPerSecond: 400000, maxConnections: 2, onLimit: Reject}";
    let forward = forward("f", limits, &[listener("l", port, backend.port)]);
    let server = Server::start(&(home(&[backend.port], "") + &forward), &[]);
    let _agent = Agent::connected("one", folder.path(), &[backend.port], Some(&server.join("")));
    drop(session(port));
    let (sent, began) = (bytes(BYTES), Instant::now());
    assert!(echoed(port, &sent).expect("an echo") == sent);
    // Half a megabyte in both directions together, of which the burst of a quarter second is free.
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    let sessions = [session(port), session(port)];
    let asked = backend.count();
    assert_reset(connect(port), b"x");
    assert_eq!(backend.count(), asked, "the agent is not asked");
    let refused = format!("portlane_connections_closed_total{{{LABELS},reason=\"ConnectionLimit\"}}");
    until("the refusal is counted", || metric(&server.metrics(), &refused) >= Some(1.0));
    drop(sessions);
    drop(session(port));
}
