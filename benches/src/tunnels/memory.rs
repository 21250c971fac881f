//! What agents and streams without traffic cost: private memory of the server, and of the agent.

use std::{net::TcpStream, time::Duration};

use harness::{connect, round_trip};

use crate::{measure::status_bytes, poll::rest, rows::Quantity, subject::Subject};

/// Agents beside the first one.
pub(crate) const AGENTS: u16 = 100;
/// Streams at the same time.
const STREAMS: u16 = 1000;
/// Bytes that each stream has echoed before it is idle.
const FIRST: usize = 100;
/// Time for a process to finish what it does at first, and to give memory back.
const SETTLE: Duration = Duration::from_secs(3);

fn memory<const N: usize>(pids: [u32; N]) -> [f64; N] {
    rest(SETTLE);
    pids.map(|pid| status_bytes(pid, "RssAnon"))
}

/// Memory of a server for each agent that is connected and has no streams.
pub(crate) fn agents(subject: &mut Subject) -> Vec<(Quantity, f64)> {
    let server = [subject.server_id()];
    let [before] = memory(server);
    subject.add_further();
    let [after] = memory(server);
    vec![(Quantity::Server, (after - before) / f64::from(AGENTS))]
}

/// Memory of a server and of its agent for each stream without traffic.
pub(crate) fn streams(subject: &Subject) -> Vec<(Quantity, f64)> {
    let ends = [subject.server_id(), subject.agent_id()];
    let before = memory(ends);
    let open: Vec<TcpStream> = (0..STREAMS).map(|_| stream(subject.ports.echo)).collect();
    let after = memory(ends);
    drop(open);
    let named = [Quantity::Server, Quantity::Agent].into_iter().zip(before.into_iter().zip(after));
    named.map(|(quantity, (before, after))| (quantity, (after - before) / f64::from(STREAMS))).collect()
}

fn stream(port: u16) -> TcpStream {
    let mut stream = connect(port).expect("connect");
    round_trip(&mut stream, &[9; FIRST]).expect("echo");
    stream
}
