//! The API server is away while a tunnel is used.

use std::{
    env,
    net::SocketAddr,
    time::{Duration, Instant},
};

use harness::{Outpost, greeting, round_trip, until};

use super::{Bed, FORWARD, TARGET, scene};
use crate::fleet::client;

/// Seconds without an API server.
const AWAY: u64 = 20;
/// The variable with the seconds of a longer outage.
const LONG: &str = "PORTLANE_AWAY_SECONDS";
/// Number of the machine of the agent.
const MACHINE: u8 = 80;

/// Twenty seconds, or as many as `PORTLANE_AWAY_SECONDS` says.
#[test]
fn without_an_api_server_sessions_new_visitors_and_an_agent_that_connects_again_are_served() {
    let Some((node, _turn)) = scene::node() else { return };
    let long = env::var(LONG).ok().map(|number| number.parse::<u64>().expect("PORTLANE_AWAY_SECONDS is a number"));
    let away = Duration::from_secs(long.unwrap_or(AWAY));
    let namespace = scene::namespace(node, "away");
    client(&namespace);
    let outpost = Outpost::numbered(node, MACHINE);
    let _service = scene::echo(&outpost, TARGET, "home: ");
    let gateway = scene::ready_gateway(&namespace, "replicas: 1, drainSeconds: 5");
    let bed = Bed { node, namespace, outpost, gateway };
    let agent = bed.enrolled();
    let mut session = bed.session();

    let pause = node.pause("kube-apiserver");
    let (started, mut rounds) = (Instant::now(), 0);
    while rounds == 0 || started.elapsed() < away {
        // A new visitor, and an agent whose connection is cut.
        bed.a_session_outlives_its_carrier(&agent);
        let message = format!("round {rounds}");
        let answer = round_trip(&mut session, message.as_bytes()).expect("the session continues");
        assert_eq!(answer, message.as_bytes());
        rounds += 1;
    }
    drop(pause);
    eprintln!("the agent has connected again {rounds} times in {:?} without an API server", started.elapsed());

    let changed = FORWARD.replace("port: 80,", "port: 81,");
    until("the API server takes a change", || bed.namespace.try_apply(&changed));
    let address = SocketAddr::new(gateway.ip(), 81);
    until("the change has come to the gateway", || {
        node.connect(address).and_then(|mut visitor| greeting(&mut visitor)).is_ok()
    });
}
