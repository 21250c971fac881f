//! The life of one stream.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use proxy_api::{
    Digest, Drained, FromProxy, Held, Hello, Load, MAX_LISTENERS, MAX_LOADS, Origin, PARTS, ReportPart, ToProxy, Trust,
    Version,
};
use proxy_grpc::{Frame, Status, Streaming, frame};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::FromStream;
use operator_core::{ObjectKey, Snapshot, desired::ca::Trusted};

use crate::{
    outputs::publish::{Deltas, Target, encode},
    platform::metrics::{Metrics, count},
};

/// Longest time for a proxy to take one message.
const SLOW: Duration = Duration::from_secs(10);
/// Longest time for a proxy to say what it holds.
const HELLO: Duration = Duration::from_secs(20);
/// Snapshots that may be on their way before the proxy reports one of them; then newer ones wait.
const UNREPORTED: usize = 8;

/// What a stream follows.
pub(super) struct Following {
    pub(super) target: Target,
    pub(super) deltas: Arc<Deltas>,
    pub(super) unreadable: BTreeSet<Origin>,
}

/// One stream.
pub(super) struct Stream {
    pub(super) pod: ObjectKey,
    pub(super) id: u64,
    pub(super) following: Following,
    pub(super) messages: Streaming<FromProxy>,
    pub(super) out: mpsc::Sender<Result<Frame, Status>>,
    pub(super) driver: mpsc::Sender<FromStream>,
    pub(super) roots: watch::Receiver<Trusted>,
    pub(super) metrics: Arc<Metrics>,
}

/// Why a stream ended.
enum End {
    /// The proxy left.
    Proxy,
    /// This replica leads no more, or a newer stream of the pod is there.
    Replaced,
    /// It does not read.
    Slow,
    /// It said something that cannot be.
    Garbage(&'static str),
}

impl Stream {
    pub(super) async fn run(mut self) {
        let end = match self.follow().await {
            Err(end) => end,
            Ok(()) => End::Proxy,
        };
        let (reason, status) = match end {
            End::Proxy => ("proxy", None),
            End::Replaced => ("replaced", Some(Status::unavailable("this replica ends the stream; connect again"))),
            End::Slow => ("slow", Some(Status::resource_exhausted("messages are not taken in time"))),
            End::Garbage(what) => ("garbage", Some(Status::invalid_argument(what))),
        };
        count(&self.metrics.ended, "reason", reason);
        if let Some(status) = status {
            let _ = self.out.try_send(Err(status));
        }
        let _ = self.driver.send(FromStream::Gone { pod: self.pod, id: self.id }).await;
    }

    async fn follow(&mut self) -> Result<(), End> {
        let mut at = self.hello().await?;
        self.tell_roots().await?;
        // Numbers with the digests that were sent under them, until the proxy reports one.
        let mut sent: VecDeque<(u64, Digest)> = VecDeque::from([(number(&at), at.digest.clone())]);
        let mut behind = false;
        loop {
            if behind && sent.len() < UNREPORTED {
                at = self.step(&at).await?;
                sent.push_back((number(&at), at.digest.clone()));
                behind = false;
            }
            tokio::select! {
                // A term that is over, or a newer stream of this pod, is seen whatever the proxy does.
                changed = self.following.target.changed() => {
                    changed.map_err(|_| End::Replaced)?;
                    behind = true;
                }
                changed = self.roots.changed() => {
                    changed.map_err(|_| End::Replaced)?;
                    self.tell_roots().await?;
                }
                message = self.messages.message() => {
                    let Some(message) = told(message)? else { return Ok(()) };
                    if let Some(load) = message.load {
                        self.loaded(load).await?;
                    }
                    if let Some(Drained { cut }) = message.drained {
                        let drained = FromStream::Drained { pod: self.pod.clone(), id: self.id, cut };
                        self.driver.send(drained).await.map_err(|_| End::Replaced)?;
                    }
                    let Some(part) = message.report else { continue };
                    while sent.len() > 1 && sent.front().is_some_and(|(number, _)| *number < part.version.number) {
                        sent.pop_front();
                    }
                    self.report(part, &at, &sent).await?;
                }
            }
        }
    }

    /// Sends what leads to the snapshot of now.
    async fn step(&mut self, at: &Snapshot) -> Result<Arc<Snapshot>, End> {
        let next = self.following.target.borrow_and_update().clone();
        let frames = self.following.deltas.step(at, &next).map_err(|_| End::Garbage("not encodable"))?;
        for frame in frames.iter() {
            self.change(frame.clone()).await?;
        }
        Ok(next)
    }

    /// Learns what the proxy holds and brings it to the snapshot of its group.
    async fn hello(&mut self) -> Result<Arc<Snapshot>, End> {
        let first = timeout(HELLO, self.messages.message()).await.map_err(|_| End::Slow)?;
        let Ok(Some(FromProxy { hello: Some(hello), .. })) = first else {
            return Err(End::Garbage("the first message must be a hello"));
        };
        let now = self.following.target.borrow_and_update().clone();
        let frames = self.first(&hello, &now).await?;
        for frame in frames.iter() {
            self.change(frame.clone()).await?;
        }
        Ok(now)
    }

    /// What brings a proxy that has just come to this snapshot.
    async fn first(&mut self, hello: &Hello, now: &Snapshot) -> Result<Arc<Vec<Frame>>, End> {
        let nothing = Snapshot::empty(Version::default());
        let known = if !self.following.unreadable.is_empty() {
            None
        } else if hello.digest == now.digest {
            Some(now)
        } else {
            Some(&nothing).filter(|nothing| hello.digest == nothing.digest)
        };
        if let Some(known) = known {
            return self.following.deltas.step(known, now).map_err(|_| End::Garbage("not encodable"));
        }
        let held = self.held().await?;
        let parts = now.configuration().changes_from(&held, &self.following.unreadable, PARTS);
        encode(parts, now).map(Arc::new).map_err(|_| End::Garbage("not encodable"))
    }

    async fn held(&mut self) -> Result<Held, End> {
        let tell = ToProxy { tell_held: true, ..ToProxy::default() };
        self.send(frame(&tell).map_err(|_| End::Garbage("not encodable"))?).await?;
        let mut held = Held::default();
        while !held.commit {
            let message = timeout(HELLO, self.messages.message()).await.map_err(|_| End::Slow)?;
            let part = match message {
                Ok(Some(FromProxy { held: Some(part), .. })) => part,
                Ok(None) | Err(_) => return Err(End::Proxy),
                Ok(Some(_)) => return Err(End::Garbage("asked what it holds, the proxy said something else")),
            };
            held.listeners.extend(part.listeners);
            held.endpoints.extend(part.endpoints);
            held.commit = part.commit;
            if held.listeners.len() > MAX_LISTENERS || held.endpoints.len() > 16 * MAX_LISTENERS {
                return Err(End::Garbage("more listeners than a proxy takes"));
            }
        }
        Ok(held)
    }

    async fn tell_roots(&mut self) -> Result<(), End> {
        let roots = self.roots.borrow_and_update().bundle.clone();
        let message = ToProxy { trust: Some(Trust { roots }), ..ToProxy::default() };
        self.send(frame(&message).map_err(|_| End::Garbage("not encodable"))?).await
    }

    async fn change(&self, frame: Frame) -> Result<(), End> {
        self.metrics.changes.inc();
        self.metrics.change_bytes.inc_by(frame.len() as u64);
        self.send(frame).await
    }

    async fn send(&self, frame: Frame) -> Result<(), End> {
        match timeout(SLOW, self.out.send(Ok(frame))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Proxy),
            Err(_) => Err(End::Slow),
        }
    }

    async fn loaded(&self, load: Load) -> Result<(), End> {
        if load.forwards.len() > MAX_LOADS {
            return Err(End::Garbage("the load of more forwards than may be told one by one"));
        }
        let loaded = FromStream::Loaded { pod: self.pod.clone(), id: self.id, load: Box::new(load) };
        self.driver.send(loaded).await.map_err(|_| End::Replaced)
    }

    /// Passes a report on, if it is about something that this proxy was sent.
    async fn report(&self, mut part: ReportPart, at: &Snapshot, sent: &VecDeque<(u64, Digest)>) -> Result<(), End> {
        if part.version.epoch != at.version.epoch || part.version.number > number(at) {
            self.metrics.bad_reports.inc();
            return Err(End::Garbage("a report about a version that was never sent"));
        }
        let known = part.listeners.len();
        part.listeners.retain(|id, _| at.listeners.contains_key(id));
        if part.listeners.len() != known {
            tracing::debug!(pod = %self.pod, "a report names listeners that are not published any more");
        }
        let agreed = sent.iter().any(|(number, digest)| *number == part.version.number && *digest == part.digest);
        let (pod, id) = (self.pod.clone(), self.id);
        let report = FromStream::Reported { pod, id, part: Box::new(part), agreed };
        self.driver.send(report).await.map_err(|_| End::Replaced)
    }
}

fn number(snapshot: &Snapshot) -> u64 {
    snapshot.version.number
}

/// What a message says; nothing at the end of the stream. One that says nothing known is of a newer proxy.
fn told(message: Result<Option<FromProxy>, Status>) -> Result<Option<FromProxy>, End> {
    match message {
        Ok(Some(FromProxy { hello: None, held: None, report, load, drained })) => {
            Ok(Some(FromProxy { report, load, drained, ..FromProxy::default() }))
        }
        Ok(Some(_)) => Err(End::Garbage("a hello and what is held were told already")),
        Ok(None) => Ok(None),
        Err(status) if status.code() == proxy_grpc::Code::InvalidArgument => Err(End::Garbage("not a message")),
        Err(_) => Err(End::Proxy),
    }
}
