//! The memory of a window, beside the windows of other streams of the process.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};

use proxy_api::partials::{Partial, PartialShare};

/// Bytes of a message in the window beside its payload: its sender, the way of its acknowledgement, and its place.
const MESSAGE_COST: usize = 256;

/// The memory that a window holds, which is free again on drop.
#[derive(Debug)]
pub(super) struct Memory(RefCell<Partial>);

impl Memory {
    pub(super) fn of(share: &PartialShare) -> Self {
        // Whichever client sent the messages, they wait for one sink.
        Self(RefCell::new(share.partial(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }

    /// Takes how many messages the window holds, and bytes of them.
    pub(super) fn holds(&self, held: (usize, usize)) {
        // The caller has asked for room before the messages came.
        let _ = self.0.borrow_mut().holds(bytes(held));
    }

    /// Whether there is room for `more` bytes beside the messages and bytes that the window holds. An empty window
    /// always has room: without a message its stream would never move.
    pub(super) fn has_room(&self, held: (usize, usize), more: usize) -> bool {
        let mut partial = self.0.borrow_mut();
        let has_room = partial.holds(bytes(held).saturating_add(more));
        // Nothing is reserved: the server may have no message.
        let _ = partial.holds(bytes(held));
        has_room || held.0 == 0
    }
}

const fn bytes((messages, payload): (usize, usize)) -> usize {
    payload.saturating_add(messages.saturating_mul(MESSAGE_COST))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proxy_api::partials::Partials;

    use super::*;

    #[test]
    fn a_window_leaves_memory_to_those_of_other_streams_and_an_empty_one_always_has_some() {
        let all = Arc::new(Partials::new(48 << 20));
        let [one, two] = [(); 2].map(|()| Memory::of(&all.share("ns")));
        let mebibytes = |count: usize| (1, count << 20);
        assert!(one.has_room(mebibytes(12), 2 << 20));
        assert!(!one.has_room(mebibytes(15), 2 << 20), "a window has a third");
        one.holds(mebibytes(15));
        assert!(two.has_room(mebibytes(8), 2 << 20) && !two.has_room(mebibytes(10), 2 << 20), "beside the first");
        assert!(two.has_room((0, 0), 40 << 20));
        drop(one);
        assert!(two.has_room(mebibytes(10), 2 << 20), "what the first had is free");
    }
}
