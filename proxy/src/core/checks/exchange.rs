//! A check that may send bytes and looks for others in the answer.

use super::Step;

#[derive(Debug)]
pub(super) struct Exchange {
    send: Vec<u8>,
    expect: Vec<u8>,
}

impl Exchange {
    pub(super) fn new(send: &[u8], expect: &[u8]) -> Self {
        Self { send: send.to_vec(), expect: expect.to_vec() }
    }

    pub(super) fn opening(&self) -> Vec<u8> {
        self.send.clone()
    }

    /// Looks for the bytes anywhere in what the server has sent.
    pub(super) fn next(&self, received: &[u8]) -> Step {
        let length = self.expect.len().max(1);
        if received.windows(length).any(|window| window == self.expect) {
            return Step::Passed(Vec::new());
        }
        Step::Read
    }
}
