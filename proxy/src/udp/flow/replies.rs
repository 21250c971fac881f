//! From the endpoint of a flow to its client.

use std::{convert::Infallible, io, rc::Rc};

use tokio::{io::Interest, net::UdpSocket, task::yield_now};

use super::Flow;
use crate::{
    core::{
        sessions::end::EndReason,
        udp::{
            batch::{Batch, Received, places},
            trains::{self, Datagram, Sent},
        },
    },
    shared::Dropped,
    sys,
    udp::{
        UdpListener, batch, drop_datagrams,
        upstream::{Way, is_closed},
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
        match &self.way {
            Way::Socket(upstream) => self.carry_from_socket(worker, socket, upstream).await,
            Way::Agent(agent) => self.carry_from_agent(worker, socket, agent).await,
        }
    }

    async fn carry_from_socket(&self, worker: &Rc<Worker>, socket: &UdpListener, upstream: &UdpSocket) {
        loop {
            let ready = tokio::select! {
                biased;
                () = self.mark.ended() => return socket.evict(worker, self),
                // An ICMP error alone does not make a socket readable, and this client may never send again.
                ready = upstream.ready(REPLIES) => ready,
            };
            // `try_io` knows one interest at a time.
            let interest = match ready {
                Ok(ready) if ready.is_error() => Interest::ERROR,
                Ok(_) => Interest::READABLE,
                Err(_) => return,
            };
            let (mut moved, mut found) = (false, Batch::Empty);
            for _ in 0..REPLY_TURNS {
                let Some(batch) = self.carry_batch(worker, socket, upstream, interest) else {
                    return socket.end_flow(worker, self, EndReason::BackendReset);
                };
                found = batch;
                moved |= batch != Batch::Empty;
                if batch != Batch::Full {
                    break;
                }
            }
            if interest.is_error() {
                sys::drop_errors(upstream);
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
    fn carry_batch(
        &self,
        worker: &Worker,
        socket: &UdpListener,
        upstream: &UdpSocket,
        interest: Interest,
    ) -> Option<Batch> {
        let mut buffer = worker.datagrams.borrow_mut();
        let mut received = [Received::default(); REPLY_SLOTS];
        let (mut batch, mut count) = (Batch::Empty, 0);
        let read = upstream.try_io(interest, || {
            count = batch::receive(&socket.state, upstream, &mut buffer, &mut received)?;
            batch = batch::found(count, REPLY_SLOTS);
            // The runtime then waits for the next event of the socket.
            if batch == Batch::Last { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        self.reply(worker, socket, upstream, (&buffer[..], received.get(..count).unwrap_or_default()));
        match read {
            Err(error) if batch == Batch::Empty && is_closed(&error) => None,
            Err(error) if batch == Batch::Empty && error.kind() != io::ErrorKind::WouldBlock => {
                // The next datagram goes to another endpoint. Other errors, such as a path that takes only smaller
                // datagrams, say nothing about the endpoint.
                if self.hops.is_of_the_endpoint(&error) && !self.unreachable.get() {
                    self.failed(worker, &error);
                }
                Some(batch)
            }
            _ => Some(batch),
        }
    }

    /// Sends received replies to the client.
    fn reply(
        &self,
        worker: &Worker,
        socket: &UdpListener,
        upstream: &UdpSocket,
        (bytes, received): (&[u8], &[Received]),
    ) {
        // Flows with one reply at a time, such as those of DNS, save the system call.
        if received.len() > 1 && !self.is_joined.replace(true) {
            sys::join_datagrams(upstream);
        }
        let mut datagrams = worker.datagram_places.borrow_mut();
        datagrams.clear();
        datagrams.extend(places(received, 0));
        let limited_at = self.listener.limiter.bytes.is_limited().then(|| worker.process.clock.millis());
        let trains = socket.trains(&self.trains_down, limited_at);
        // Nothing stops an unconnected socket.
        let _ = trains::pass(&datagrams, trains, |train| self.reply_train(worker, socket, bytes, train, limited_at));
    }

    /// Sends a train, or a datagram alone.
    pub(super) fn reply_train(
        &self,
        worker: &Worker,
        socket: &UdpListener,
        bytes: &[u8],
        train: &[Datagram],
        limited_at: Option<u64>,
    ) -> Sent<Infallible> {
        let mut scratch = worker.scratch.borrow_mut();
        let joined = trains::join(bytes, train, &mut scratch);
        if limited_at.is_some_and(|now| !self.listener.limiter.bytes.take(joined.len(), now)) {
            drop_datagrams(&self.listener, Dropped::Bandwidth, train.len());
            return Sent::Done;
        }
        match socket.reply(self, joined, trains::segment(train)) {
            Ok(()) => self.down.set(self.down.get() + joined.len() as u64),
            Err(Dropped::SendFailed) if train.len() > 1 => return Sent::Refused,
            Err(reason) => drop_datagrams(&self.listener, reason, train.len()),
        }
        Sent::Done
    }
}
