//! A check that may send bytes, and looks for certain bytes in the answer.

use super::Step;

#[derive(Debug)]
pub(super) struct Exchange {
    send: Vec<u8>,
    expect: Vec<u8>,
    /// Bytes of the answer that were already searched.
    searched: usize,
}

impl Exchange {
    pub(super) fn new(send: &[u8], expect: &[u8]) -> Self {
        Self { send: send.to_vec(), expect: expect.to_vec(), searched: 0 }
    }

    pub(super) fn opening(&self) -> Vec<u8> {
        self.send.clone()
    }

    /// Searches for the bytes anywhere in the answer. Searched bytes are not searched again, except for their end: the
    /// bytes may arrive in pieces.
    pub(super) fn next(&mut self, received: &[u8]) -> Step {
        let length = self.expect.len().max(1);
        let new = received.get(self.searched.saturating_sub(length - 1)..).unwrap_or_default();
        if new.windows(length).any(|window| window == self.expect) {
            return Step::Passed(Vec::new());
        }
        self.searched = received.len();
        Step::Read
    }
}
