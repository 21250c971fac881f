//! Room for the messages of proxies, over all streams. A stream without room waits, and holds no room while it waits.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of revisions that proxies hold, while the operator compares them with its own.
const HELD: usize = 64 << 20;
/// Bytes of reports that wait for the driver.
const REPORTS: usize = 64 << 20;

/// Room of one kind.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes >> 10)))
    }

    /// Waits for room for this many bytes. Absent if the operator is shutting down.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.0.clone().acquire_many_owned(kib(bytes)).await.ok()
    }

    /// Waits for all the room of an answer that arrives in parts and should have this many bytes in total. Taking room
    /// part by part could deadlock: many streams would hold the room of their first parts, and wait for each other.
    pub(super) async fn share(&self, expected: usize) -> Option<Share> {
        let taken = self.take(expected).await?;
        Some(Share { room: self.clone(), taken })
    }
}

/// The room of an answer that arrives in parts.
pub(super) struct Share {
    room: Room,
    taken: OwnedSemaphorePermit,
}

impl Share {
    /// Grows the room to this many bytes in total, without waiting. Returns false if there is not enough room.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let has = u32::try_from(self.taken.num_permits()).unwrap_or(u32::MAX);
        let lacks = kib(bytes).saturating_sub(has);
        if lacks == 0 {
            return true;
        }
        let Ok(more) = self.room.0.clone().try_acquire_many_owned(lacks) else { return false };
        self.taken.merge(more);
        true
    }
}

/// Units of a room.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// All rooms.
#[derive(Clone, Debug)]
pub(super) struct Rooms {
    pub(super) held: Room,
    pub(super) reports: Room,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { held: Room::new(HELD), reports: Room::new(REPORTS) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_comes_in_parts_waits_before_the_first_part_and_never_later() {
        let room = Room::new(64 << 10);
        let mut one = room.share(24 << 10).await.expect("open");
        let mut other = room.share(24 << 10).await.expect("open");
        assert!(one.grow(24 << 10), "it has this room already");
        assert!(one.grow(40 << 10), "more than expected, and there is room");
        assert!(!other.grow(25 << 10), "there is none, and it does not wait");
        let third = room.share(16 << 10);
        assert!(timeout(Duration::ZERO, third).await.is_err(), "who has nothing yet waits");
        drop(one);
        assert!(other.grow(25 << 10) && room.share(16 << 10).await.is_some());
    }
}
