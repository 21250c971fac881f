//! Bodies of requests. A body must be complete in time and within a size limit, and each source may have few bytes of
//! large bodies at once.

use std::{
    hash::RandomState,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use proxy_api::doors::{Refusal, Shares};
use tokio::time::{Instant, timeout, timeout_at};

/// Timeout of a body.
const BODY: Duration = Duration::from_secs(10);
/// Largest body, in bytes. An API server accepts objects of no more than 3 MiB.
const MAX: usize = 8 << 20;
/// Largest body, in bytes, that needs no room among large bodies. The review of a pod has a few kilobytes.
const SMALL: usize = 128 << 10;
/// Bytes of large bodies at the same time: of all sources, and of one.
const LARGE: (usize, usize) = (64 << 20, 16 << 20);
/// Bytes of large bodies that strangers may have: the rest is for API servers that are known.
const OF_STRANGERS: usize = 48 << 20;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The body did not arrive in time.
    Late,
    /// The body is larger than [`MAX`].
    TooLarge,
    /// The client closed the connection before the end of the body.
    Incomplete,
    /// There is no room for the body among large bodies.
    Busy,
}

/// Units that sources hold, shared by all connections.
#[derive(Clone)]
pub(super) struct Pool(Arc<Mutex<Shares<RandomState>>>);

impl Pool {
    /// Like [`Shares::new`].
    pub(super) fn new(all: usize, per_source: usize) -> Self {
        Self(Arc::new(Mutex::new(Shares::new(all, per_source))))
    }

    /// Takes units, which are freed when the result is dropped.
    pub(super) fn take(&self, source: IpAddr, units: usize) -> Result<Held, Refusal> {
        let mut held = Held { pool: self.clone(), source, units: 0 };
        held.grow(units).map(|()| held)
    }

    fn with<T>(&self, change: impl FnOnce(&mut Shares<RandomState>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Units of a source.
pub(super) struct Held {
    pool: Pool,
    source: IpAddr,
    units: usize,
}

impl Held {
    /// Takes this many more units.
    fn grow(&mut self, units: usize) -> Result<(), Refusal> {
        self.pool.with(|shares| shares.take(self.source, units))?;
        self.units += units;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pool.with(|shares| shares.give_back(self.source, self.units));
    }
}

/// The sender of a body: its source, and whether the client is known.
pub(super) type Sender = (IpAddr, bool);

/// Room for large bodies, in bytes.
pub(super) struct Room {
    all: Pool,
    /// The part of the room that strangers have, so that they cannot take all.
    strangers: Pool,
}

impl Default for Room {
    fn default() -> Self {
        let (all, per_source) = LARGE;
        Self { all: Pool::new(all, per_source), strangers: Pool::new(OF_STRANGERS, per_source) }
    }
}

/// The room of a large body.
pub(super) struct Taken {
    of_all: Held,
    of_strangers: Option<Held>,
}

impl Taken {
    /// Takes this many more bytes. After an error, the caller frees all room of the body.
    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        if let Some(held) = &mut self.of_strangers {
            held.grow(bytes)?;
        }
        self.of_all.grow(bytes)
    }
}

impl Room {
    fn take(&self, (source, is_known): Sender, bytes: usize) -> Result<Taken, Refusal> {
        let of_strangers = if is_known { None } else { Some(self.strangers.take(source, bytes)?) };
        Ok(Taken { of_all: self.all.take(source, bytes)?, of_strangers })
    }

    /// Reads the whole body, with its room if it is large. Room is taken as bytes arrive, so that a slow client holds
    /// no more than it has sent. A body without room is still read to its end, as by [`skip`].
    pub(super) async fn collect(
        &self,
        sender: Sender,
        mut body: impl Body<Data = Bytes> + Unpin,
    ) -> Result<(Bytes, Option<Taken>), BodyError> {
        let by = Instant::now() + BODY;
        let collected = timeout_at(by, self.collected(sender, &mut body)).await.unwrap_or(Err(BodyError::Late));
        if matches!(collected, Err(BodyError::Busy)) {
            let _ = timeout_at(by, skipped(&mut body)).await;
        }
        collected
    }

    async fn collected(
        &self,
        sender: Sender,
        body: &mut (impl Body<Data = Bytes> + Unpin),
    ) -> Result<(Bytes, Option<Taken>), BodyError> {
        // A body without a `Content-Length` may have any size.
        let most = body.size_hint().upper().map_or(Ok(MAX), usize::try_from).unwrap_or(usize::MAX);
        if most > MAX {
            return Err(BodyError::TooLarge);
        }
        let (mut whole, mut room) = (Vec::new(), None::<Taken>);
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(|_| BodyError::Incomplete)?.into_data().unwrap_or_default();
            let length = whole.len() + data.len();
            if length > MAX {
                return Err(BodyError::TooLarge);
            }
            let taken = match &mut room {
                Some(room) => room.grow(data.len()),
                None if length > SMALL => self.take(sender, length).map(|held| room = Some(held)),
                None => Ok(()),
            };
            taken.map_err(|_| BodyError::Busy)?;
            whole.extend_from_slice(&data);
        }
        Ok((whole.into(), room))
    }
}

/// Reads the body and discards it, if it arrives in time and is no larger than [`MAX`]. A refusal that is sent before
/// that may reach its client as a reset, and clients do not retry those.
pub(super) async fn skip(mut body: impl Body<Data = Bytes> + Unpin) {
    // If the body is late, the refusal is sent at the timeout.
    let _ = timeout(BODY, skipped(&mut body)).await;
}

async fn skipped(body: &mut (impl Body<Data = Bytes> + Unpin)) {
    let mut length = 0_usize;
    while let Some(Ok(frame)) = body.frame().await {
        length = length.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        if length > MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        net::Ipv4Addr,
        pin::Pin,
        task::{Context, Poll},
    };

    use http_body_util::Full;
    use hyper::body::Frame;

    use super::*;

    const STRANGER: Sender = (IpAddr::V4(Ipv4Addr::LOCALHOST), false);

    fn body(bytes: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![b' '; bytes]))
    }

    fn held(room: &Room) -> usize {
        room.all.with(|shares| shares.held())
    }

    /// A body of this many frames of a KiB that are still to come.
    struct Frames(usize);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some(left) = self.0.checked_sub(1) else { return Poll::Ready(None) };
            self.0 = left;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 1024])))))
        }
    }

    #[tokio::test]
    async fn a_body_without_room_is_read_before_it_is_refused_so_that_its_client_gets_the_answer() {
        let room = Room { all: Pool::new(LARGE.0, SMALL), ..Room::default() };
        let mut refused = Frames(1000);
        assert_eq!(room.collect(STRANGER, &mut refused).await.map(|_| ()), Err(BodyError::Busy));
        assert_eq!((refused.0, held(&room)), (0, 0));
        let mut endless = Frames(100_000);
        skip(&mut endless).await;
        assert_eq!(endless.0, 100_000 - MAX / 1024 - 1);
    }

    // C3
    #[tokio::test]
    async fn large_bodies_take_room_and_too_large_ones_are_refused_unread() {
        let room = Room::default();
        let (small, none) = room.collect(STRANGER, body(SMALL)).await.expect("a body");
        assert!(small.len() == SMALL && none.is_none());
        let (large, taken) = room.collect(STRANGER, body(MAX)).await.expect("a body");
        assert_eq!((large.len(), held(&room)), (MAX, MAX));
        drop(taken);
        assert_eq!(held(&room), 0);
        assert_eq!(room.collect(STRANGER, body(MAX + 1)).await.map(|_| ()), Err(BodyError::TooLarge));
    }

    #[tokio::test]
    async fn a_source_with_large_bodies_leaves_room_for_those_of_others() {
        let room = Room::default();
        let mut bodies = Vec::new();
        for _ in 0..2 {
            bodies.push(room.collect(STRANGER, body(MAX)).await.expect("a body"));
        }
        let further = room.collect(STRANGER, body(SMALL + 1)).await.map(|_| ());
        assert_eq!(further, Err(BodyError::Busy), "at once, and not when its time is up");
        assert!(room.collect(STRANGER, body(SMALL)).await.is_ok(), "small ones need no room");
        let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert!(room.collect((other, false), body(MAX)).await.is_ok());
    }

    // C3
    #[tokio::test]
    async fn an_api_server_that_is_known_finds_room_while_strangers_have_all_of_theirs() {
        let (room, address) = (Room::default(), |last: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
        let mut bodies = Vec::new();
        for at in 0..6 {
            bodies.push(room.collect((address(at / 2), false), body(MAX)).await.expect("a body"));
        }
        let further = room.collect((address(9), false), body(SMALL + 1)).await.map(|_| ());
        assert_eq!((further, held(&room)), (Err(BodyError::Busy), OF_STRANGERS));
        for _ in 0..2 {
            bodies.push(room.collect((address(10), true), body(MAX)).await.expect("a body"));
        }
        let of_one = room.collect((address(10), true), body(SMALL + 1)).await.map(|_| ());
        assert_eq!((of_one, held(&room)), (Err(BodyError::Busy), LARGE.0), "a source has its bound, known or not");
        drop(bodies);
        assert_eq!((held(&room), room.strangers.with(|shares| shares.held())), (0, 0));
        assert!(room.collect((address(9), false), body(MAX)).await.is_ok(), "all of it is free again");
    }
}
