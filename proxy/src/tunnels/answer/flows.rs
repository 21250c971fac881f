//! Forwards one flow of a worker: the datagrams between the worker's end and an instance of an agent.

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use tokio::{
    select,
    task::yield_now,
    time::{Instant, error::Elapsed, timeout},
};
use tunnel::{
    Flow, OpenError,
    endpoint::{Endpoint, Unopened},
};
use tunnel_core::Protocol;

use super::{failure, request};
use crate::{agents::FlowEnd, core::backends::address::AgentAddress};

/// How long an agent may take to confirm the target.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// A flow leaves an instance that has had no connection for this long, once another instance has one.
const AWAY: Duration = Duration::from_secs(1);
/// Bytes of a flow that are forwarded before other tasks of the thread get their turn: less than the queue for the
/// agent's connection holds, so that its task can empty that queue in between.
const TURN_BYTES: usize = 64 * 1024;
/// The cost of a datagram beside its bytes: empty datagrams take time, too.
const DATAGRAM_COST: usize = 1024;

/// Requests a flow, and forwards datagrams until either end leaves it.
pub(super) async fn answer(endpoint: &Endpoint, to: &AgentAddress, client: Option<SocketAddr>, worker: FlowEnd) {
    let ended = match begin(endpoint, to, client) {
        Ok(flow) => forward(endpoint, to, &flow, &worker).await,
        Err(error) => Err(error),
    };
    tracing::debug!(agent = %to.agent, instance = %to.instance, ?client, ?ended, "a flow to an agent has ended");
    if let Err(error) = ended {
        worker.fail(error);
    }
}

fn begin(endpoint: &Endpoint, to: &AgentAddress, client: Option<SocketAddr>) -> io::Result<Flow> {
    let (instance, open) = request(to, Protocol::Udp, client)?;
    endpoint.begin_flow_on(&to.uid, &instance, &open).map_err(failure)
}

/// Forwards both directions; neither waits for the other. The queues on the way drop and count datagrams that cannot be
/// sent in time. The first datagrams follow the request, and wait at the agent for its target. An error means that
/// another instance, or none, should have the flow.
async fn forward(endpoint: &Endpoint, to: &AgentAddress, flow: &Flow, worker: &FlowEnd) -> io::Result<()> {
    let mut answered = pin!(timeout(OPEN_WITHIN, flow.answered()));
    let mut is_open = false;
    let mut lost_at: Option<Instant> = None;
    let mut passed = 0;
    loop {
        let length = select! {
            answer = &mut answered, if !is_open => {
                accepted(answer)?;
                is_open = true;
                0
            }
            datagram = worker.recv() => {
                let Some(datagram) = datagram else { return Ok(()) };
                flow.send(&datagram);
                if flow.is_carried() {
                    lost_at = None;
                } else if lost_at.get_or_insert_with(Instant::now).elapsed() >= AWAY
                    && endpoint.has_another(&to.uid, &to.instance)
                {
                    let message = "the instance is not connected, but another one is";
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, message));
                }
                datagram.len()
            }
            datagram = flow.recv(), if is_open => {
                let Some(datagram) = datagram else { return Ok(()) };
                if worker.send(&datagram).is_none() {
                    return Ok(());
                }
                datagram.len()
            }
        };
        passed += DATAGRAM_COST + length;
        if passed >= TURN_BYTES {
            passed = 0;
            yield_now().await;
        }
    }
}

/// Turns the answer of the agent, or its absence in time, into a result.
fn accepted(answer: Result<Result<(), OpenError>, Elapsed>) -> io::Result<()> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the agent has not answered in time");
    answer.map_err(late)?.map_err(|error| failure(Unopened::Agent(error)))
}
