//! The messages of a proxy: no larger than the current phase of its stream allows, and complete in time.

use std::{fmt, future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use proxy_api::{FromProxy, MAX_HELLO_BYTES, weight::Weight};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};
use tonic::Status;

/// Length of the gRPC prefix in bytes: the compression flag and the length of the message.
const PREFIX: usize = 5;
/// Longest wait for the rest of a message that has begun to arrive.
const MESSAGE: Duration = Duration::from_secs(10);
/// Largest message, in bytes, that needs no room among large messages.
const SMALL: usize = MAX_HELLO_BYTES;
/// Bytes of large messages that may be incomplete at the same time, over all streams.
const LARGE: usize = 64 << 20;
/// Large messages that may be decoded at the same time, over all streams: a decoded message is many times larger.
const DECODING: usize = 2;
/// The heaviest message that is decoded: about 25 MiB in memory, of which the fields that this build does not know are
/// the largest part. A message of a proxy has no more than 1,000 listeners, endpoint sets or sessions.
const HEAVIEST: Weight = Weight { objects: 20_000, values: 100_000 };
/// Longest error of decoding that is sent back, in characters.
const ERROR: usize = 200;

/// Room for large messages, shared by all streams of a server.
pub(crate) struct Room {
    kib: Arc<Semaphore>,
    decoding: Semaphore,
}

impl Default for Room {
    fn default() -> Self {
        Self { kib: Arc::new(Semaphore::new(LARGE >> 10)), decoding: Semaphore::new(DECODING) }
    }
}

/// The messages of one stream.
pub struct Messages<B = Incoming> {
    body: B,
    buffer: BytesMut,
    /// Largest message that is accepted now, in bytes.
    most: usize,
    /// When the wait for the rest of an incomplete message began.
    since: Option<Instant>,
    room: Arc<Room>,
    /// Room of the incomplete message, if it is large.
    reserved: Option<OwnedSemaphorePermit>,
    /// Dropped with the messages, so that the connection learns that its messages are no longer read.
    _following: Option<oneshot::Sender<()>>,
}

impl<B> Messages<B> {
    pub(super) fn new(body: B, room: Arc<Room>) -> Self {
        let (buffer, most) = (BytesMut::new(), MAX_HELLO_BYTES);
        Self { body, buffer, most, since: None, room, reserved: None, _following: None }
    }

    /// Drops `following` when these messages are dropped.
    pub(super) fn held_by(self, following: oneshot::Sender<()>) -> Self {
        Self { _following: Some(following), ..self }
    }

    /// Sets the largest accepted message, in bytes. The first message has at most [`MAX_HELLO_BYTES`].
    pub fn allow(&mut self, most: usize) {
        self.most = most;
    }

    /// Length of the first message in the buffer, once its prefix has arrived.
    fn length(&self) -> Result<Option<usize>, Status> {
        let Some([compressed, length @ ..]) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        if *compressed != 0 {
            return Err(Status::unimplemented("messages must not be compressed"));
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.most {
            let most = self.most;
            return Err(Status::resource_exhausted(format!("a message has {length} bytes; the limit is now {most}")));
        }
        Ok(Some(length))
    }

    /// When the message that has begun to arrive must be complete.
    fn deadline(&self) -> Instant {
        self.since.unwrap_or_else(Instant::now) + MESSAGE
    }

    /// Waits until there is room for a message of `length` bytes.
    async fn reserve(&mut self, length: usize) -> Result<(), Status> {
        if length <= SMALL || self.reserved.is_some() {
            return Ok(());
        }
        let kib = u32::try_from(length.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = timeout_at(self.deadline(), self.room.kib.clone().acquire_many_owned(kib)).await;
        self.reserved = room.map_err(|_| Status::resource_exhausted("too many large messages at once"))?.ok();
        Ok(())
    }

    /// Takes the first message, which is complete, from the buffer.
    async fn decode(&mut self, length: usize) -> Result<FromProxy, Status> {
        let _turn = if length > SMALL { self.room.decoding.acquire().await.ok() } else { None };
        let mut message = self.buffer.split_to(PREFIX + length);
        message.advance(PREFIX);
        if self.buffer.is_empty() {
            // A buffer that was large once must not stay large.
            self.buffer = BytesMut::new();
        }
        self.since = None;
        let is_bearable = Weight::of(&message).is_within(HEAVIEST);
        let decoded = is_bearable.then(|| serde_json::from_slice(&message));
        self.reserved = None;
        let too_heavy = || Status::resource_exhausted("a message has too many objects or values");
        decoded.ok_or_else(too_heavy)?.map_err(|error| {
            let why: String = error.to_string().chars().take(ERROR).collect();
            Status::invalid_argument(format!("cannot decode the message: {why}"))
        })
    }
}

impl<B: Body<Data = Bytes, Error: fmt::Display> + Unpin> Messages<B> {
    /// Returns the next message; `None` at the end of the stream. The future may be dropped early: no bytes are lost.
    ///
    /// # Errors
    /// `ResourceExhausted`: too large. `DeadlineExceeded`: too slow. `InvalidArgument`: not a message. Another code:
    /// the connection broke.
    pub async fn message(&mut self) -> Result<Option<FromProxy>, Status> {
        if !self.buffer.is_empty() {
            // The time limit starts here: while the operator did not read, the peer could not send.
            self.since.get_or_insert_with(Instant::now);
        }
        loop {
            if let Some(length) = self.length()? {
                self.reserve(length).await?;
                if self.buffer.len() >= PREFIX + length {
                    return self.decode(length).await.map(Some);
                }
            }
            if !self.receive().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for more bytes. Returns false at the end of the stream.
    async fn receive(&mut self) -> Result<bool, Status> {
        let (deadline, is_within) = (self.deadline(), self.since.is_some());
        let body = &mut self.body;
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        let frame = if is_within {
            let slow = |_| Status::deadline_exceeded("a message did not arrive in time");
            timeout_at(deadline, frame).await.map_err(slow)?
        } else {
            frame.await
        };
        match frame {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if !data.is_empty() {
                    self.since.get_or_insert_with(Instant::now);
                    self.buffer.extend_from_slice(&data);
                }
                Ok(true)
            }
            Some(Err(error)) => Err(Status::unavailable(format!("the connection broke: {error}"))),
            None if self.buffer.is_empty() => Ok(false),
            None => Err(Status::invalid_argument("the stream ended within a message")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        convert::Infallible,
        task::{Context, Poll},
    };

    use hyper::body::Frame;
    use proxy_api::{Hello, MAX_REPORT_BYTES};

    use super::*;
    use crate::frame;

    /// A body of these chunks, which then ends, or else waits for ever.
    struct Chunks(VecDeque<Bytes>, bool);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.pop_front() {
                Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
                None if self.1 => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    fn messages(chunks: impl IntoIterator<Item = Bytes>, ends: bool) -> Messages<Chunks> {
        Messages::new(Chunks(chunks.into_iter().collect(), ends), Arc::default())
    }

    fn hello(bytes: usize) -> Bytes {
        let hello = Hello { software: "x".repeat(bytes), ..Hello::default() };
        frame(&FromProxy { hello: Some(hello), ..FromProxy::default() }).expect("encodes")
    }

    fn code<T: fmt::Debug>(result: Result<T, Status>) -> tonic::Code {
        result.expect_err("an error").code()
    }

    #[tokio::test]
    async fn messages_are_read_however_they_are_cut() {
        let both = [hello(1), hello(2)].concat();
        let bytes = both.iter().map(|byte| Bytes::copy_from_slice(&[*byte]));
        for mut messages in [messages(bytes, true), messages([Bytes::from(both.clone())], true)] {
            for expected in [1, 2] {
                let message = messages.message().await.expect("no error").expect("a message");
                assert_eq!(message.hello.expect("a hello").software.len(), expected);
            }
            assert!(messages.message().await.expect("no error").is_none());
            assert!(messages.buffer.capacity() == 0 && messages.since.is_none());
        }
    }

    // C2
    #[tokio::test]
    async fn a_message_larger_than_its_phase_allows_is_refused_by_its_length_alone() {
        let announced = |length: usize| {
            let length = u32::try_from(length).expect("small").to_be_bytes();
            Bytes::from([&[0_u8][..], &length[..]].concat())
        };
        let mut first = messages([announced(MAX_HELLO_BYTES + 1)], false);
        assert_eq!(code(first.message().await), tonic::Code::ResourceExhausted);
        let mut later = messages([announced(MAX_REPORT_BYTES + 1)], false);
        later.allow(MAX_REPORT_BYTES);
        assert_eq!(code(later.message().await), tonic::Code::ResourceExhausted);
    }

    // C2
    #[tokio::test]
    async fn a_message_of_many_small_values_is_refused_before_it_is_decoded() {
        let message = |times: usize| {
            let text = format!("{{\"load\":{{\"unknown\":[{}0]}}}}", "[0],".repeat(times));
            let length = u32::try_from(text.len()).expect("small").to_be_bytes();
            let mut messages = messages([Bytes::from([&[0_u8][..], &length[..], text.as_bytes()].concat())], true);
            messages.allow(MAX_REPORT_BYTES);
            messages
        };
        assert!(message(1000).message().await.expect("no error").is_some());
        assert_eq!(code(message(HEAVIEST.values).message().await), tonic::Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn garbage_half_messages_and_compression_end_the_stream() {
        for (chunk, expected) in [
            (Bytes::from_static(&[0, 0, 0, 0, 2, b'{', b'{']), tonic::Code::InvalidArgument),
            (Bytes::from_static(&[0, 0, 0]), tonic::Code::InvalidArgument),
            (Bytes::from_static(&[1, 0, 0, 0, 0]), tonic::Code::Unimplemented),
        ] {
            assert_eq!(code(messages([chunk], true).message().await), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_never_ends_is_late_and_an_idle_stream_is_not() {
        let mut half = messages([hello(1).slice(..9)], false);
        assert_eq!(code(half.message().await), tonic::Code::DeadlineExceeded);
        let mut idle = messages([hello(1)], false);
        assert!(idle.message().await.expect("no error").is_some());
        assert!(tokio::time::timeout(100 * MESSAGE, idle.message()).await.is_err(), "it waits");
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_does_not_count_against_the_peer() {
        let chunk = Bytes::from([&hello(1)[..], &hello(2)[..9]].concat());
        let mut messages = messages([chunk], false);
        assert!(messages.message().await.expect("no error").is_some());
        tokio::time::advance(2 * MESSAGE).await;
        let rest = tokio::time::timeout(MESSAGE / 2, messages.message()).await;
        assert!(rest.is_err(), "it waits for the rest: {rest:?}");
        assert_eq!(code(messages.message().await), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn large_messages_wait_for_room_and_give_it_back() {
        let room: Arc<Room> = Arc::default();
        let message = hello(SMALL);
        let mut large = Messages::new(Chunks([message.slice(..100), message.slice(100..)].into(), true), room.clone());
        large.allow(MAX_REPORT_BYTES);
        let all = room.kib.clone().acquire_many_owned(u32::try_from(LARGE >> 10).expect("small")).await.expect("open");
        assert_eq!(code(large.message().await), tonic::Code::ResourceExhausted, "no room in time");
        drop(all);
        let read = large.message().await;
        assert_eq!(code(read), tonic::Code::InvalidArgument, "the software version is beyond its own bound");
        assert_eq!(room.kib.available_permits(), LARGE >> 10);
    }
}
