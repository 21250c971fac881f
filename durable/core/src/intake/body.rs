//! The body of a message while it is received.

use super::{Counts, Limits, Oversize};

/// The first bytes of a message, up to the bound.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    /// Whether the message is longer than the bound.
    over: bool,
}

impl Body {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), over: false }
    }

    /// Bytes of memory that hold the body.
    pub(super) const fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds the bytes that fit. With `trims`, returns and NULs may turn out to be no part of the message, and do not
    /// make it too long.
    pub(super) fn push(&mut self, limits: Limits, more: &[u8], trims: bool) {
        if self.over {
            return;
        }
        let length = self.bytes.len();
        let room = limits.max_message_bytes.saturating_sub(length);
        let (fits, beyond) = more.split_at(more.len().min(room));
        self.over = beyond.iter().any(|byte| !(trims && is_trimmed(*byte)));
        if self.over && limits.oversize == Oversize::Drop {
            self.bytes = Vec::new();
            return;
        }
        let needed = length + fits.len();
        if needed > self.bytes.capacity() {
            // A vector that grows by itself may double beyond the bound.
            let wanted = needed.max(length.saturating_mul(2)).min(limits.max_message_bytes);
            self.bytes.reserve_exact(wanted - length);
        }
        self.bytes.extend_from_slice(fits);
    }

    /// Ends the message, and returns what is left of it.
    pub(super) fn take(&mut self, oversize: Oversize, counts: &mut Counts, trims: bool) -> Option<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.bytes);
        match (std::mem::take(&mut self.over), oversize) {
            (false, _) => {
                if trims {
                    let last = bytes.iter().rposition(|byte| !is_trimmed(*byte));
                    bytes.truncate(last.map_or(0, |last| last + 1));
                }
                Some(bytes)
            }
            (true, Oversize::Truncate) => {
                counts.truncated += 1;
                Some(bytes)
            }
            (true, Oversize::Drop) => {
                counts.dropped += 1;
                None
            }
        }
    }
}

const fn is_trimmed(byte: u8) -> bool {
    matches!(byte, b'\r' | 0)
}
