//! From the endpoint of a flow to its client.

use std::{io, rc::Rc};

use quinn_udp::{RecvMeta, UdpSockRef};
use tokio::{io::Interest, task::yield_now};

use super::Flow;
use crate::{
    core::end::EndReason,
    net,
    shared::Dropped,
    sys,
    udp::{
        UdpListener,
        batch::{self, Batch, SLOT_BYTES},
        drop_datagrams, upstream,
    },
    worker::Worker,
};

/// What to wait for at the socket to the endpoint: replies, and ICMP errors.
const REPLIES: Interest = Interest::READABLE.add(Interest::ERROR);
/// Entries of a batch of replies. As a rule few wait, and each slot costs time also if it stays empty.
const REPLY_SLOTS: usize = 8;
/// Full batches of replies that a flow sends before it yields to other tasks of the worker. A turn of the listener may
/// send as many requests as several turns of a flow answer, so few replies a turn would fill the buffer of the flow.
const REPLY_TURNS: usize = 8;

impl Flow {
    /// Relays replies and notices errors until the flow ends.
    pub(super) async fn carry_replies(&self, worker: &Rc<Worker>, socket: &UdpListener) {
        loop {
            let ready = tokio::select! {
                biased;
                () = self.mark.ended() => return socket.evict(worker, self),
                // An ICMP error alone does not make a socket readable, and this client may never send again.
                ready = self.upstream.ready(REPLIES) => ready,
            };
            // `try_io` knows one interest at a time.
            let interest = match ready {
                Ok(ready) if ready.is_error() => Interest::ERROR,
                Ok(_) => Interest::READABLE,
                Err(_) => return,
            };
            let (mut moved, mut found) = (false, Batch::Empty);
            for _ in 0..REPLY_TURNS {
                let Some(batch) = self.carry_batch(worker, socket, interest) else {
                    return socket.end_flow(worker, self, EndReason::BackendReset);
                };
                found = batch;
                moved |= batch != Batch::Empty;
                if batch != Batch::Full {
                    break;
                }
            }
            if interest.is_error() {
                sys::drop_errors(&self.upstream);
            }
            if moved {
                self.endpoint.succeeded();
                self.mark.answer();
                socket.touch(&self.key, worker.process.clock.millis());
            }
            // After the last batch, the task waits for the next event, which lets the other tasks run.
            if found != Batch::Last {
                yield_now().await;
            }
        }
    }

    /// Sends a batch of replies to the client; `None` if the system has closed the socket.
    fn carry_batch(&self, worker: &Worker, socket: &UdpListener, interest: Interest) -> Option<Batch> {
        let mut buffer = worker.datagrams.borrow_mut();
        let mut metas = [RecvMeta::default(); REPLY_SLOTS];
        let mut batch = Batch::Empty;
        let mut count = 0;
        let read = self.upstream.try_io(interest, || {
            count = batch::receive(&socket.state, UdpSockRef::from(&self.upstream), &mut buffer, &mut metas)?;
            batch = Batch::of(count, REPLY_SLOTS);
            // The runtime then waits for the next event of the socket.
            if batch == Batch::Last { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        for (meta, bytes) in metas.iter().zip(buffer.chunks(SLOT_BYTES)).take(count) {
            self.carry_reply(worker, socket, bytes.get(..meta.len).unwrap_or_default());
        }
        match read {
            Err(error) if batch == Batch::Empty && upstream::is_closed(&error) => None,
            Err(error) if batch == Batch::Empty && error.kind() != io::ErrorKind::WouldBlock => {
                // The next datagram goes to another endpoint. Other errors, such as a path that takes only smaller
                // datagrams, say nothing about the endpoint.
                if net::is_of_the_endpoint(&error) && !self.unreachable.get() {
                    self.failed(worker, &error);
                }
                Some(batch)
            }
            _ => Some(batch),
        }
    }

    fn carry_reply(&self, worker: &Worker, socket: &UdpListener, bytes: &[u8]) {
        if !self.listener.limiter.bytes.take(bytes.len(), worker.process.clock.millis()) {
            return drop_datagrams(&self.listener, Dropped::Bandwidth, 1);
        }
        match socket.reply(self, bytes) {
            Ok(()) => self.down.set(self.down.get() + bytes.len() as u64),
            Err(reason) => drop_datagrams(&self.listener, reason, 1),
        }
    }
}
