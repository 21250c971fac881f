//! A sink over UDP.

use std::collections::VecDeque;

use super::{Outgoing, Verdict, delivered};

/// Datagrams that are given to the system at once.
const BATCH: usize = 64;

/// Datagrams to a sink that never answers: a message is delivered when the system took it. Each is sent
/// once.
#[derive(Debug, Default)]
pub struct Udp {
    /// Numbers and lengths of what the caller has not sent yet.
    pushed: VecDeque<(u64, usize)>,
}

impl Udp {
    /// How many messages it takes now.
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

    /// The system took the oldest datagram.
    pub fn sent(&mut self, verdicts: &mut Vec<Verdict>) {
        if let Some((number, _)) = self.pushed.pop_front() {
            delivered(verdicts, number);
        }
    }

    /// The system says that the oldest datagram is too long (`EMSGSIZE`). No later attempt differs.
    pub fn too_long(&mut self, verdicts: &mut Vec<Verdict>) {
        if let Some((number, bytes)) = self.pushed.pop_front() {
            let reason = format!(
                "{bytes} bytes are too long for a datagram to the sink: lower maxMessageBytes, or use a sink over TCP"
            );
            verdicts.push(Verdict::Poison { number, reason });
        }
    }
}
