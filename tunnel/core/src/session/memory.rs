//! The memory that the streams of a session may use, and the session's share of the memory of the process.

use std::rc::Rc;

use super::Session;
use crate::backlog::FreeBlocks;
use crate::limits::{EARLY_CREDIT, FIRST_WINDOW};
use crate::open::Protocol;
use crate::pool::{OWN_BYTES, Pool, Share};
use crate::queue::shrink;
use crate::stream::receive::WindowRoom;

impl Session {
    /// Bounds the granted and kept bytes of this session by the memory that the sessions of a process share.
    #[must_use]
    pub fn within(mut self, pool: &Rc<Pool>) -> Self {
        self.share = Some(pool.share());
        self.count_memory();
        self
    }

    /// The window of a new stream, if there is memory for one. A flow needs no window.
    pub(super) fn first_window(&self, protocol: Protocol) -> Option<u64> {
        if protocol == Protocol::Udp {
            return Some(0);
        }
        let own = OWN_BYTES.saturating_sub(self.promised);
        let plenty = self.promised + FIRST_WINDOW <= self.limits.memory / 2
            && FIRST_WINDOW <= own.saturating_add(self.share_room());
        let window = if plenty { FIRST_WINDOW } else { EARLY_CREDIT }.min(self.limits.window.max(EARLY_CREDIT));
        let has_room = window <= own.saturating_add(self.last_room());
        (has_room && self.promised + window <= self.limits.memory).then_some(window)
    }

    /// The memory for a window that its stream has used. Windows share half of the memory: the rest is for new streams.
    pub(super) fn window_room(&self) -> WindowRoom {
        let shared = OWN_BYTES.saturating_sub(self.promised).saturating_add(self.share_room());
        let free = (self.limits.memory / 2).saturating_sub(self.promised).min(shared);
        let is_short = self.share.as_ref().is_some_and(Share::is_short);
        let least = if is_short { EARLY_CREDIT } else { FIRST_WINDOW };
        WindowRoom { free, largest: self.limits.window, least }
    }

    /// How many more bytes may be kept for resending. If none, some are kept already, and their acknowledgement frees
    /// memory, whatever other sessions do.
    pub(super) fn keepable(&self) -> u64 {
        let shared = OWN_BYTES.saturating_sub(self.kept).saturating_add(self.share_room());
        self.limits.memory.saturating_sub(self.kept).min(shared)
    }

    /// How many more bytes of datagrams may wait for their readers.
    pub(super) fn datagram_room(&self) -> usize {
        let spare = self.limits.datagrams.saturating_sub(self.datagram_bytes);
        spare.min(usize::try_from(self.last_room()).unwrap_or(usize::MAX))
    }

    /// Reports the session's memory to the pool. Frees empty blocks if it then exceeds what it leaves free.
    pub(super) fn count_memory(&mut self) {
        let Some(share) = &mut self.share else { return };
        let beyond = self.promised.saturating_sub(OWN_BYTES) + self.kept.saturating_sub(OWN_BYTES);
        let used = beyond + self.datagram_bytes as u64;
        let empty = self.free.bytes();
        share.hold(used + empty);
        if empty > 0 && share.is_short() {
            self.free = FreeBlocks::default();
            share.hold(used);
        }
    }

    /// Shrinks empty queues after a burst. Called only at heartbeats, so that busy sessions seldom allocate again.
    pub(super) fn shrink_queues(&mut self) {
        shrink(&mut self.ready);
        shrink(&mut self.starved);
        shrink(&mut self.notices);
        self.lane.shrink();
    }

    fn share_room(&self) -> u64 {
        self.share.as_ref().map_or(u64::MAX, Share::room)
    }

    fn last_room(&self) -> u64 {
        self.share.as_ref().map_or(u64::MAX, Share::last_room)
    }
}
