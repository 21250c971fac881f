//! Moves bytes between a client and a pod.
//!
//! The protocol of the API server has no half-close: it cannot say that a client has sent everything. So the pod keeps
//! its connection, and the session ends when the pod does, or has been silent for a while.

use std::{cell::Cell, pin::pin, time::Duration};

use futures_util::FutureExt;
use kubectl_core::forward::{
    failure::{End, Failure},
    replay::Replay,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep, sleep_until, timeout},
};

/// The most bytes that are read at once.
const BUFFER: usize = 16 << 10;
/// Longest silence of a pod after its client has sent everything. A client that has vanished looks the same, and its
/// session counts until then. containerd waits as long when kubectl reports a half-close.
const LINGER: Duration = Duration::from_secs(1);
/// The time for a client to close after its pod has closed.
const FINISH: Duration = Duration::from_secs(5);

/// The pod's side of a session.
pub(super) struct PodSide<S, E> {
    /// Name of the pod.
    pub(super) name: String,
    pub(super) stream: S,
    /// Resolves with a message of the container runtime, or with nothing when the connection breaks.
    pub(super) error: E,
}

/// How a session with a pod ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The pod has not seen the client: another attempt does not repeat anything.
    NeverConnected(Failure),
    /// The session has ended.
    Ended(End),
}

/// Moves bytes until the session ends. `answered` is called at the first byte of the pod. `pod_ends` resolves when the
/// pod is known to have ended.
pub(super) async fn relay<C, S, E>(
    client: &mut C,
    pod: &mut PodSide<S, E>,
    replay: &mut Replay,
    answered: impl FnOnce(),
    pod_ends: impl Future<Output = ()>,
) -> Outcome
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
    E: Future<Output = Option<String>> + Unpin,
{
    let name = pod.name.clone();
    tokio::select! {
        outcome = until_end(client, pod, replay, answered) => outcome,
        () = pod_ends => Outcome::Ended(End::PodEnded(name)),
    }
}

async fn until_end<C, S, E>(
    client: &mut C,
    pod: &mut PodSide<S, E>,
    replay: &mut Replay,
    answered: impl FnOnce(),
) -> Outcome
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
    E: Future<Output = Option<String>> + Unpin,
{
    if let Some(end) = until_answer(client, &mut pod.stream, replay).await {
        return match end {
            Side::Pod => without_answer(client, pod).await,
            Side::Client => Outcome::Ended(End::Client),
            Side::Silent => Outcome::Ended(End::Closed),
        };
    }
    answered();
    let end = match until_side(client, &mut pod.stream).await {
        Side::Pod => match why(pod) {
            Why::Closed => {
                finish(client).await;
                End::Closed
            }
            Why::Failed(message) => End::Reset(pod.name.clone(), message),
            Why::Broken => End::Broken(pod.name.clone()),
        },
        Side::Client => End::Client,
        Side::Silent => End::Closed,
    };
    Outcome::Ended(end)
}

/// The side that ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Pod,
    /// The client has sent everything, and the pod is silent.
    Silent,
}

/// Why the stream of a pod ended.
enum Why {
    /// The pod closed the connection.
    Closed,
    /// The container runtime reports a failure.
    Failed(String),
    /// The connection to the API server broke.
    Broken,
}

/// Returns why the stream of a pod has ended.
fn why<S, E: Future<Output = Option<String>> + Unpin>(pod: &mut PodSide<S, E>) -> Why {
    match (&mut pod.error).now_or_never() {
        // The client library keeps the sender of the error for as long as the connection is intact.
        None => Why::Closed,
        Some(None) => Why::Broken,
        Some(Some(message)) => Why::Failed(message),
    }
}

/// The outcome of a session whose pod ended before it sent anything.
async fn without_answer<C, S, E>(client: &mut C, pod: &mut PodSide<S, E>) -> Outcome
where
    C: AsyncRead + AsyncWrite + Unpin,
    E: Future<Output = Option<String>> + Unpin,
{
    match why(pod) {
        Why::Closed => {
            finish(client).await;
            Outcome::Ended(End::Closed)
        }
        Why::Failed(message) => match Failure::of_runtime(&message) {
            Some(failure) => Outcome::NeverConnected(failure),
            None => Outcome::Ended(End::Reset(pod.name.clone(), message)),
        },
        Why::Broken => Outcome::Ended(End::Broken(pod.name.clone())),
    }
}

/// Moves bytes until the pod answers, and stores the bytes of the client. Returns the side that ended the session
/// before that. The pod counts as having answered when no more bytes can be stored.
async fn until_answer<C, S>(client: &mut C, pod: &mut S, replay: &mut Replay) -> Option<Side>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The stored bytes come from earlier attempts with other pods.
    if !replay.bytes().is_empty() && pod.write_all(replay.bytes()).await.is_err() {
        return Some(Side::Pod);
    }
    let (mut up, mut down) = (vec![0; BUFFER], vec![0; BUFFER]);
    let mut silent_until: Option<Instant> = None;
    while replay.room() > 0 {
        let room = up.get_mut(..replay.room().min(BUFFER)).unwrap_or_default();
        tokio::select! {
            read = client.read(room), if silent_until.is_none() => match read {
                Ok(0) => silent_until = Some(Instant::now() + LINGER),
                Ok(length) => {
                    let bytes = up.get(..length).unwrap_or_default();
                    replay.keep(bytes);
                    // The end of the pod's stream, which is read next, explains a failure.
                    let _ = pod.write_all(bytes).await;
                }
                Err(_) => return Some(Side::Client),
            },
            read = pod.read(&mut down) => {
                let length = read.unwrap_or(0);
                if length == 0 {
                    return Some(Side::Pod);
                }
                let is_written = client.write_all(down.get(..length).unwrap_or_default()).await.is_ok();
                return (!is_written).then_some(Side::Client);
            }
            () = sleep_until(silent_until.unwrap_or_else(Instant::now)), if silent_until.is_some() => {
                return Some(Side::Silent);
            }
        }
    }
    None
}

/// Why a copy in one direction stopped.
enum Stop {
    /// The reader is at its end.
    End,
    /// Reading failed.
    Read,
    /// Writing failed.
    Write,
}

/// Moves bytes in both directions until one side ends the session.
async fn until_side<C, S>(client: &mut C, pod: &mut S) -> Side
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_pod, mut to_pod) = tokio::io::split(pod);
    let (sent, received) = (Cell::new(0), Cell::new(0));
    let mut up = pin!(copy(&mut from_client, &mut to_pod, &sent));
    let mut down = pin!(copy(&mut from_pod, &mut to_client, &received));
    let side_of = |stop: Stop| match stop {
        Stop::End | Stop::Read => Side::Pod,
        Stop::Write => Side::Client,
    };
    tokio::select! {
        stop = &mut down => return side_of(stop),
        stop = &mut up => match stop {
            Stop::Read => return Side::Client,
            // The pod's stream ends in both directions, and its end has the reason.
            Stop::Write => return side_of(down.await),
            Stop::End => {}
        },
    }
    loop {
        let before = received.get();
        tokio::select! {
            stop = &mut down => return side_of(stop),
            () = sleep(LINGER) => {
                if received.get() == before {
                    return Side::Silent;
                }
            }
        }
    }
}

/// Copies until one side stops, and counts the pieces.
async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), pieces: &Cell<u64>) -> Stop {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) => return Stop::End,
            Ok(length) => length,
            Err(_) => return Stop::Read,
        };
        if to.write_all(buffer.get(..length).unwrap_or_default()).await.is_err() {
            return Stop::Write;
        }
        pieces.set(pieces.get() + 1);
    }
}

/// Closes the client's side in order: the last bytes of the pod arrive, although the client may still be sending.
async fn finish<C: AsyncRead + AsyncWrite + Unpin>(client: &mut C) {
    let rest = async {
        let mut buffer = vec![0; BUFFER];
        if client.shutdown().await.is_ok() {
            while client.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        }
    };
    drop(timeout(FINISH, rest).await);
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::io::{DuplexStream, duplex};

    use super::*;

    type Error = std::pin::Pin<Box<dyn Future<Output = Option<String>>>>;

    /// A pod, and the end of its stream that the cluster has.
    fn pod(error: Error) -> (PodSide<DuplexStream, Error>, DuplexStream) {
        let (stream, cluster) = duplex(1 << 20);
        (PodSide { name: "a".to_owned(), stream, error }, cluster)
    }

    #[tokio::test]
    async fn bytes_go_both_ways_until_the_pod_closes() {
        let (mut client, mut inner) = duplex(1 << 20);
        let (mut pod, mut cluster) = pod(Box::pin(pending()));
        let mut replay = Replay::default();
        let was_answered = Cell::new(false);
        let far = async {
            client.write_all(b"question").await.expect("written");
            let mut question = [0; 8];
            cluster.read_exact(&mut question).await.expect("read");
            cluster.write_all(b"answer").await.expect("written");
            drop(cluster);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("read");
            drop(client);
            (question, answer)
        };
        let near = relay(&mut inner, &mut pod, &mut replay, || was_answered.set(true), pending());
        let (outcome, (question, answer)) = tokio::join!(near, far);
        assert_eq!((&question[..], answer.as_str()), (&b"question"[..], "answer"));
        assert_eq!(outcome, Outcome::Ended(End::Closed));
        assert!(was_answered.get());
    }

    #[tokio::test]
    async fn a_pod_that_refuses_is_replaced_and_the_next_gets_what_the_client_sent() {
        let (mut client, mut inner) = duplex(1 << 20);
        client.write_all(b"question").await.expect("written");
        let mut replay = Replay::default();
        let refused = "failed to connect to localhost:80: connection refused".to_owned();
        let (mut first, mut cluster) = pod(Box::pin(ready(Some(refused))));
        let near = relay(&mut inner, &mut first, &mut replay, || (), pending());
        let far = async {
            cluster.read_exact(&mut [0; 8]).await.expect("read");
            drop(cluster);
        };
        let (outcome, ()) = tokio::join!(near, far);
        assert!(matches!(outcome, Outcome::NeverConnected(Failure::Refused(_))), "{outcome:?}");

        let (mut second, mut cluster) = pod(Box::pin(pending()));
        let far = async {
            let mut question = [0; 8];
            cluster.read_exact(&mut question).await.expect("read");
            drop((cluster, client));
            question
        };
        let near = relay(&mut inner, &mut second, &mut replay, || (), pending());
        let (_, question) = tokio::join!(near, far);
        assert_eq!(&question, b"question");
    }

    #[tokio::test]
    async fn a_broken_connection_and_a_reset_are_not_an_end_in_order() {
        let reset = "read: connection reset by peer".to_owned();
        let broken = End::Broken("a".to_owned());
        for (error, expected) in [(None, broken), (Some(reset.clone()), End::Reset("a".to_owned(), reset))] {
            let (_client, mut inner) = duplex(1 << 20);
            let (mut pod, mut cluster) = pod(Box::pin(ready(error)));
            cluster.write_all(b"half an ans").await.expect("written");
            drop(cluster);
            let outcome = relay(&mut inner, &mut pod, &mut Replay::default(), || (), pending()).await;
            assert_eq!(outcome, Outcome::Ended(expected));
        }
    }

    #[tokio::test]
    async fn a_session_ends_with_its_pod() {
        let (_client, mut inner) = duplex(1);
        let (mut pod, _cluster) = pod(Box::pin(pending()));
        let outcome = relay(&mut inner, &mut pod, &mut Replay::default(), || (), ready(())).await;
        assert_eq!(outcome, Outcome::Ended(End::PodEnded("a".to_owned())));
    }

    #[tokio::test]
    async fn a_client_that_has_sent_everything_still_gets_its_answer() {
        let (mut client, mut inner) = duplex(1 << 20);
        let (mut pod, mut cluster) = pod(Box::pin(pending()));
        client.write_all(b"question").await.expect("written");
        client.shutdown().await.expect("the half of an end");
        let far = async {
            cluster.read_exact(&mut [0; 8]).await.expect("read");
            cluster.write_all(b"answer").await.expect("written");
            drop(cluster);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("read");
            answer
        };
        let mut replay = Replay::default();
        let near = relay(&mut inner, &mut pod, &mut replay, || (), pending());
        let (outcome, answer) = tokio::join!(near, far);
        assert_eq!((outcome, answer.as_str()), (Outcome::Ended(End::Closed), "answer"));
    }
}
