//! A flow to an agent, whose datagrams the thread of the tunnels passes on.

use std::{cell::Cell, rc::Rc, sync::atomic::Ordering::Relaxed};

use tokio::task::yield_now;

use super::{Flow, Gone};
use crate::{
    agents::FlowEnd,
    core::{end::EndReason, trains::Datagram},
    net,
    shared::Dropped,
    udp::{UdpListener, drop_datagrams, upstream},
    worker::Worker,
};

/// Replies that a flow sends before it yields to other tasks of the worker.
const TURN: usize = 64;
/// How long a refused flow stays, in milliseconds, and drops what its client sends, unless another endpoint may have the
/// client. Otherwise each datagram would ask the agent anew.
const REFUSED_MILLIS: u64 = 1000;

/// The way of a flow to its agent.
pub(in crate::udp) struct ToAgent {
    pub(super) end: FlowEnd,
    /// Whether another endpoint has just failed for the client.
    is_second: bool,
    /// When the agent has refused the flow or left it, in milliseconds of the process clock.
    refused_at: Cell<Option<u64>>,
    /// Why, for the log.
    cause: Cell<Option<String>>,
}

impl ToAgent {
    pub(in crate::udp) fn new(end: FlowEnd, is_second: bool) -> Self {
        Self { end, is_second, refused_at: Cell::new(None), cause: Cell::new(None) }
    }

    /// Why the agent has refused the flow, if it has; once.
    pub(super) fn take_cause(&self) -> Option<String> {
        self.cause.take()
    }

    fn is_refused(&self, now: u64) -> bool {
        self.refused_at.get().is_some_and(|at| now.saturating_sub(at) < REFUSED_MILLIS)
    }
}

impl Flow {
    /// Relays what comes of the agent. A flow that the agent refuses stays until its client sends again.
    pub(super) async fn carry_from_agent(&self, worker: &Rc<Worker>, socket: &UdpListener, agent: &ToAgent) {
        let mut turn = 0;
        loop {
            let datagram = tokio::select! {
                biased;
                () = self.mark.ended() => return socket.evict(worker, self),
                datagram = agent.end.recv() => datagram,
            };
            let Some(datagram) = datagram else { break };
            let whole = [Datagram { at: 0, len: datagram.len() }];
            let limited_at = self.listener.limiter.bytes.is_limited().then(|| worker.process.clock.millis());
            // A datagram alone is sent, or dropped and counted.
            let _ = self.reply_train(worker, socket, &datagram, &whole, limited_at);
            self.endpoint.succeeded();
            self.mark.answer();
            socket.touch(&self.key, worker.process.clock.millis());
            turn += 1;
            if turn % TURN == 0 {
                yield_now().await;
            }
        }
        drop_datagrams(&self.listener, Dropped::SendFailed, agent.end.unread());
        self.hear(worker, agent);
        if agent.refused_at.get().is_none() {
            return socket.end_flow(worker, self, EndReason::BackendReset);
        }
        self.mark.ended().await;
        socket.evict(worker, self);
    }

    /// Sends a datagram to the agent. Where too many wait, the oldest of the flow are dropped.
    pub(super) fn hand_over(
        &self,
        worker: &Worker,
        agent: &ToAgent,
        datagram: &[u8],
    ) -> Result<(), Result<Dropped, Gone>> {
        let Some(dropped) = agent.end.send(datagram) else {
            // The task of the flow may not have had its turn since.
            self.hear(worker, agent);
            let is_refused = agent.is_refused(worker.process.clock.millis());
            return Err(if is_refused { Ok(Dropped::SendFailed) } else { Err(Gone::Closed) });
        };
        if dropped > 0 {
            drop_datagrams(&self.listener, Dropped::SendBufferFull, dropped);
        }
        Ok(())
    }

    /// Notes why the agent has left the flow, if it has said so. The endpoint is charged where its target, or the way to
    /// it, is at fault: not where a list has no such target, or a bound is reached.
    fn hear(&self, worker: &Worker, agent: &ToAgent) {
        let Some(error) = agent.end.failure() else { return };
        let now = worker.process.clock.millis();
        agent.refused_at.set(Some(now));
        agent.cause.set(Some(error.to_string()));
        self.stats.failures.fetch_add(1, Relaxed);
        if net::is_of_the_endpoint(&error) {
            upstream::charge(worker, &self.listener, &self.backend, &self.endpoint, &error);
        }
        // The next datagram goes to another endpoint if there is one. Endpoints that refuse one after the other are not
        // asked in turns: then the client waits.
        let is_again = agent.is_second && now.saturating_sub(self.started) < REFUSED_MILLIS;
        if !is_again {
            self.blame();
        }
    }
}
