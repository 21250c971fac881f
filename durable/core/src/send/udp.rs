//! A sink over UDP.

use std::collections::VecDeque;

use super::{Outgoing, Verdict, delivered};

/// Datagrams that are given to the system at once.
const BATCH: usize = 64;

/// Datagrams to a sink that never answers: a message is delivered when the system took it. Each is sent
/// once.
#[derive(Debug, Default)]
pub struct Udp {
    /// Numbers and lengths of datagrams that the caller has not sent yet.
    pushed: VecDeque<(u64, usize)>,
}

impl Udp {
    /// How many messages may be pushed now.
    pub fn room(&self) -> usize {
        BATCH.saturating_sub(self.pushed.len())
    }

    /// Adds one datagram to `out`: give each push an empty one. Then call [`Udp::sent`] or
    /// [`Udp::too_long`], once for each push and in their order.
    pub fn push(&mut self, message: Outgoing, out: &mut Vec<u8>) {
        let Outgoing { number, payload } = message;
        out.extend_from_slice(&payload);
        self.pushed.push_back((number, payload.len()));
    }

    /// Settles the oldest datagram, which the system took.
    pub fn sent(&mut self, verdicts: &mut Vec<Verdict>) {
        if let Some((number, _)) = self.pushed.pop_front() {
            delivered(verdicts, number);
        }
    }

    /// Settles the oldest datagram, which is too long for the system (`EMSGSIZE`). No later attempt would differ.
    pub fn too_long(&mut self, verdicts: &mut Vec<Verdict>) {
        if let Some((number, bytes)) = self.pushed.pop_front() {
            let reason = format!(
                "{bytes} bytes are too long for a datagram to the sink: lower maxMessageBytes, or use a sink over TCP"
            );
            verdicts.push(Verdict::Poison { number, reason });
        }
    }
}
