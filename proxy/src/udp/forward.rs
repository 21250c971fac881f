//! What a client-facing socket receives and sends.

use std::{io, rc::Rc};

use quinn_udp::{BATCH_SIZE, Transmit, UdpSockRef};
use tokio::{sync::Notify, task::yield_now};

use super::{
    UdpListener, batch, drop_datagrams,
    flow::{Flow, Gone},
};
use crate::{
    core::{
        sessions::end::EndReason,
        udp::{
            batch::{Batch, Received, places},
            flows::FlowKey,
            hop_limit::{self, UsedUp},
            trains::{Datagram, Stop, Trains},
        },
    },
    shared::Dropped,
    worker::Worker,
};

/// Full batches received before yielding to other tasks of the worker.
const TURNS: usize = 8;
/// Times that a datagram is tried, each at another endpoint if one is healthy.
const TRIES: usize = 2;

impl UdpListener {
    /// Serves the socket until it is closed.
    pub(super) async fn receive(self: &Rc<Self>, worker: &Rc<Worker>, close: &Notify) {
        loop {
            let mut ready = tokio::select! {
                biased;
                () = close.notified() => return,
                ready = self.socket.readable() => match ready { Ok(ready) => ready, Err(_) => return },
            };
            let mut batch = Batch::Full;
            for _ in 0..TURNS {
                batch = self.receive_batch(worker);
                if batch != Batch::Full {
                    ready.clear_ready();
                    break;
                }
            }
            drop(ready);
            // After the last batch, the task waits for the next event, which lets the other tasks run.
            if batch != Batch::Last {
                yield_now().await;
            }
        }
    }

    /// Receives and forwards one batch.
    fn receive_batch(self: &Rc<Self>, worker: &Rc<Worker>) -> Batch {
        let mut buffer = worker.datagrams.borrow_mut();
        let mut received = [Received::default(); BATCH_SIZE];
        let socket = self.socket.get_ref();
        let Ok(count) = batch::receive(&self.state, socket, &mut buffer, &mut received) else { return Batch::Empty };
        let now = worker.process.clock.millis();
        let mut datagrams = worker.datagram_places.borrow_mut();
        let mut slot = 0;
        let received = received.get(..count).unwrap_or_default();
        let of_one_kind = |entry: &Received| (key_of(entry), entry.hop_limit);
        for alike in received.chunk_by(|one, next| of_one_kind(one) == of_one_kind(next)) {
            let Some(first) = alike.first() else { continue };
            datagrams.clear();
            datagrams.extend(places(alike, slot));
            slot += alike.len();
            match hop_limit::next(first.hop_limit) {
                Ok(hops) => self.forward(worker, key_of(first), hops, (&buffer[..], &datagrams[..]), now),
                Err(UsedUp) => self.drop_used_up(key_of(first), datagrams.len()),
            }
        }
        batch::found(count, BATCH_SIZE)
    }

    /// Drops datagrams that have no hop left, which is a loop or what their sender wants.
    fn drop_used_up(&self, key: FlowKey, count: usize) {
        let route = self.route.load();
        let listener = route.first();
        // Who is not admitted cannot have a loop reported.
        let reason = Self::permit(listener, key.client.ip()).err().unwrap_or(Dropped::Loop);
        drop_datagrams(listener, reason, count);
    }

    /// Forwards datagrams of one client, which were received into a buffer, to its endpoint, each with this hop limit.
    fn forward(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        key: FlowKey,
        hops: Option<u8>,
        (bytes, mut rest): (&[u8], &[Datagram]),
        now: u64,
    ) {
        let (mut tries, mut charged) = (TRIES, None);
        while !rest.is_empty() {
            let flow = match self.flow(worker, key, now) {
                Ok(flow) => flow,
                Err(reason) => return drop_datagrams(self.route.load().first(), reason, rest.len()),
            };
            flow.set_hop_limit(hops);
            let Err(Stop { from, count, why }) = flow.send(worker, self, (bytes, rest), now) else { return };
            if from > 0 {
                (tries, charged) = (TRIES, None);
            }
            rest = rest.get(from..).unwrap_or_default();
            match why {
                // The error belongs to an earlier datagram, or to the route. This datagram was not sent, so try another
                // endpoint. Where no other one is healthy, both tries are those of one flow: the datagram fails once.
                Gone::Unreachable(_) if charged.replace(flow.endpoint().clone()).as_ref() == Some(flow.endpoint()) => {
                    flow.blame();
                }
                Gone::Unreachable(error) => flow.failed(worker, &error),
                Gone::Closed => self.end_flow(worker, &flow, EndReason::BackendReset),
            }
            tries -= 1;
            if tries == 0 {
                drop_datagrams(self.route.load().first(), Dropped::SendFailed, count);
                rest = rest.get(count..).unwrap_or_default();
                (tries, charged) = (TRIES, None);
            }
        }
    }

    /// Sends a reply, or a train of replies of `segment` bytes, to a client, from the local address that the client used.
    pub(super) fn reply(&self, flow: &Flow, bytes: &[u8], segment: Option<u16>) -> Result<(), Dropped> {
        let transmit = Transmit {
            destination: flow.key.client,
            ecn: None,
            contents: bytes,
            segment_size: segment.map(usize::from),
            src_ip: flow.key.local,
        };
        let socket = self.socket.get_ref();
        let send = || self.state.try_send(UdpSockRef::from(socket), &transmit);
        match self.fragments.send(socket, segment.is_some(), send) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Dropped::SendBufferFull),
            Err(_) => Err(Dropped::SendFailed),
        }
    }

    /// The trains that a flow may send. A limit of bandwidth counts each datagram, and so does each call then.
    pub(super) fn trains<'a>(&self, of_the_flow: &'a Trains, limited_at: Option<u64>) -> Option<&'a Trains> {
        Some(of_the_flow).filter(|_| self.has_trains && limited_at.is_none())
    }
}

fn key_of(entry: &Received) -> FlowKey {
    FlowKey { client: entry.from, local: entry.local }
}
