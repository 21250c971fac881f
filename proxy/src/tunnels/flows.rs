//! One flow of a worker: the datagrams between its end and an instance of an agent.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    select,
    task::yield_now,
    time::{Instant, timeout},
};
use tunnel::{Flow, endpoint::Endpoint};
use tunnel_core::Protocol;

use super::answer::{failure, request};
use crate::{agents::FlowEnd, core::address::AgentAddress};

/// How long an agent may take to connect the target. The first datagrams wait meanwhile.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// A flow leaves an instance that has been without a connection for so long, once another one has a connection.
const AWAY: Duration = Duration::from_secs(1);
/// Bytes of a flow that are passed on before other tasks of the thread have a turn: less than what may wait for the
/// connection of the agent, so that its task can empty that queue in between.
const TURN_BYTES: usize = 64 * 1024;
/// What a datagram counts of them beside its bytes, as empty ones take time too.
const DATAGRAM_COST: usize = 1024;

/// Opens a flow, and passes datagrams on until either end leaves it.
pub(super) async fn answer(endpoint: &Endpoint, to: &AgentAddress, client: Option<SocketAddr>, worker: FlowEnd) {
    let opened = select! {
        () = worker.left() => return,
        opened = timeout(OPEN_WITHIN, open(endpoint, to, client)) => opened,
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the agent has not answered in time");
    let flow = match opened.unwrap_or_else(|_| Err(late())) {
        Ok(flow) => flow,
        Err(error) => return worker.fail(error),
    };
    let ended = forward(endpoint, to, &flow, &worker).await;
    tracing::debug!(agent = %to.agent, instance = %to.instance, ?client, ?ended, "a flow to an agent has ended");
    if let Err(error) = ended {
        worker.fail(error);
    }
}

async fn open(endpoint: &Endpoint, to: &AgentAddress, client: Option<SocketAddr>) -> io::Result<Flow> {
    let (instance, open) = request(to, Protocol::Udp, client)?;
    endpoint.open_flow_on(&to.uid, &instance, &open).await.map_err(failure)
}

/// Neither direction waits for the other, and what cannot be sent in time is dropped and counted by the queues on its
/// way. An error means that another instance should have the flow.
async fn forward(endpoint: &Endpoint, to: &AgentAddress, flow: &Flow, worker: &FlowEnd) -> io::Result<()> {
    let mut lost_at: Option<Instant> = None;
    let mut passed = 0;
    loop {
        let length = select! {
            datagram = worker.recv() => {
                let Some(datagram) = datagram else { return Ok(()) };
                flow.send(&datagram);
                if flow.is_carried() {
                    lost_at = None;
                } else if lost_at.get_or_insert_with(Instant::now).elapsed() >= AWAY
                    && endpoint.has_another(&to.uid, &to.instance)
                {
                    let message = "the instance has no connection, and another one has";
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, message));
                }
                datagram.len()
            }
            datagram = flow.recv() => {
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
