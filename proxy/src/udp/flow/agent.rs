//! A flow to an agent, whose datagrams the thread of the tunnels passes on.

use std::{rc::Rc, sync::atomic::Ordering::Relaxed};

use tokio::task::yield_now;

use super::{Flow, Gone};
use crate::{
    core::{sessions::end::EndReason, udp::trains::Datagram},
    net,
    shared::Dropped,
    udp::{
        UdpListener, drop_datagrams,
        upstream::{self, ToAgent},
    },
    worker::Worker,
};

/// Replies that a flow sends before it yields to other tasks of the worker.
const TURN: usize = 64;

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
        if !agent.refusal.is_known() {
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
            let is_refused = agent.refusal.is_recent(worker.process.clock.millis());
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
        let gives_way = agent.refusal.note(error.to_string(), self.started, worker.process.clock.millis());
        self.stats.failures.fetch_add(1, Relaxed);
        if net::is_of_the_endpoint(&error) {
            upstream::charge(worker, &self.listener, &self.backend, &self.endpoint, &error);
        }
        if gives_way {
            self.blame();
        }
    }
}
