//! Bodies of requests: complete in time, no larger than a limit, and only a few large ones at once.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Timeout of a body, including the wait for room.
const BODY: Duration = Duration::from_secs(10);
/// Largest body, in bytes. An API server accepts objects of no more than 3 MiB.
const MAX: usize = 8 << 20;
/// Largest body, in bytes, that needs no room among large bodies. The review of a pod has a few kilobytes.
const SMALL: usize = 128 << 10;
/// Bytes of large bodies at the same time.
const LARGE: usize = 64 << 20;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It did not arrive in time, or there was no room for it.
    Late,
    /// It is larger than [`MAX`].
    TooLarge,
    /// The client closed the connection before the end.
    Incomplete,
}

/// Room for large bodies, shared by all connections.
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE >> 10)))
    }
}

impl Room {
    /// The whole body, with its room if it is large.
    pub(super) async fn collect(
        &self,
        body: impl Body<Data = Bytes> + Unpin,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), BodyError> {
        timeout(BODY, self.collected(body)).await.unwrap_or(Err(BodyError::Late))
    }

    async fn collected(
        &self,
        mut body: impl Body<Data = Bytes> + Unpin,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), BodyError> {
        // A body without a `Content-Length` may have any size.
        let most = body.size_hint().upper().map_or(Ok(MAX), usize::try_from).unwrap_or(usize::MAX);
        if most > MAX {
            return Err(BodyError::TooLarge);
        }
        let (mut whole, mut room) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(|_| BodyError::Incomplete)?.into_data().unwrap_or_default();
            let length = whole.len() + data.len();
            if length > MAX {
                return Err(BodyError::TooLarge);
            }
            if length > SMALL && room.is_none() {
                let kib = u32::try_from(most.div_ceil(1024)).unwrap_or(u32::MAX);
                room = self.0.clone().acquire_many_owned(kib).await.ok();
            }
            whole.extend_from_slice(&data);
        }
        Ok((whole.into(), room))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn body(bytes: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![b' '; bytes]))
    }

    // C3
    #[tokio::test]
    async fn large_bodies_take_room_and_too_large_ones_are_refused_unread() {
        let room = Room::default();
        let (small, none) = room.collect(body(SMALL)).await.expect("a body");
        assert!(small.len() == SMALL && none.is_none());
        let (large, held) = room.collect(body(MAX)).await.expect("a body");
        assert_eq!((large.len(), room.0.available_permits()), (MAX, (LARGE - MAX) >> 10));
        drop(held);
        assert_eq!(room.0.available_permits(), LARGE >> 10);
        assert_eq!(room.collect(body(MAX + 1)).await.map(|_| ()), Err(BodyError::TooLarge));
    }
}
