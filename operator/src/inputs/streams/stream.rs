//! One stream: brings the proxy to the snapshot of its group, sends changes, and passes reports to the driver.

mod signing;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_api::{
    AgentsReport, Drained, FromProxy, Held, Hello, Inspected, Load, MAX_REPORT_BYTES, Origin, PARTS, ReportPart,
    ToProxy, Trust,
    doors::{Bucket, Rate},
};
use proxy_grpc::{Code, Frame, Messages, Status, frame};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

pub(super) use self::signing::Signing;
use super::{
    FromStream,
    held::{Arriving, MAX_HELD},
    pending::Pending,
    room::{Rooms, Share},
    versions::{Connected, Versions},
};
use operator_core::{
    ProxyId, Snapshot,
    desired::ca::Trusted,
    publish::position::{Position, Reported, running},
};

use crate::{
    inputs::identity::Identity,
    outputs::publish::{Ask, Deltas, Target, encode},
    platform::metrics::{Metrics, count},
};

/// The longest time that a proxy may take to read one message.
const SLOW: Duration = Duration::from_secs(10);
/// Timeout of the hello.
const HELLO: Duration = Duration::from_secs(10);
/// The longest time for the proxy's whole answer about the revisions that it holds, once there is room for the answer.
const HELD: Duration = Duration::from_secs(20);
/// Bytes of revisions that a proxy may hold, without more room, beside those of the current snapshot and a quarter of
/// them.
const SPARE: usize = 64 << 10;
/// Reported listeners and sessions of one proxy that are read per second, and the burst: every listener three times.
const LISTENERS: (u32, u32) = (2000, 60_000);
/// The number of listeners that each message counts for in addition.
const MESSAGE: u32 = 20;

/// The inputs of an admitted stream, as set by the driver.
pub(super) struct Following {
    pub(super) target: Target,
    pub(super) deltas: Arc<Deltas>,
    pub(super) unreadable: BTreeSet<Origin>,
    pub(super) asks: mpsc::Receiver<Ask>,
}

/// The rate at which the messages of one proxy are read.
pub(super) struct Pace {
    started: Instant,
    bucket: Bucket,
}

impl Default for Pace {
    fn default() -> Self {
        Self { started: Instant::now(), bucket: Bucket::default() }
    }
}

impl Pace {
    fn rate() -> Rate {
        let (each_second, burst) = LISTENERS;
        Rate::per_second(each_second, burst)
    }

    /// Time until the next message is read.
    fn wait(&self) -> Duration {
        self.bucket.wait(Self::rate(), self.started.elapsed())
    }

    /// Records that a message with this many listeners or sessions was read.
    fn spend(&mut self, items: usize) {
        let tokens = MESSAGE.saturating_add(u32::try_from(items).unwrap_or(u32::MAX));
        self.bucket.spend(Self::rate(), tokens, self.started.elapsed());
    }
}

/// One stream and its proxy.
pub(super) struct Stream {
    pub(super) proxy: ProxyId,
    pub(super) identity: Identity,
    pub(super) id: u64,
    pub(super) following: Following,
    pub(super) pending: Pending,
    pub(super) signing: Signing,
    pub(super) messages: Messages,
    pub(super) pace: Pace,
    pub(super) out: mpsc::Sender<Result<Frame, Status>>,
    pub(super) driver: mpsc::Sender<FromStream>,
    pub(super) roots: watch::Receiver<Trusted>,
    pub(super) rooms: Rooms,
    pub(super) metrics: Arc<Metrics>,
    pub(super) versions: Arc<Versions>,
}

/// Why a stream ended.
pub(super) enum End {
    /// The proxy ended the stream.
    Proxy,
    /// The term is over, or a newer stream of the same pod replaces this one.
    Replaced,
    /// The proxy does not read or answer in time.
    Slow,
    /// A message violates the contract.
    Garbage(&'static str),
    /// A message was not read, for this reason (the label of a metric) and with this status.
    Unread(&'static str, Status),
}

impl From<Status> for End {
    /// The end of a stream whose next message could not be read.
    fn from(status: Status) -> Self {
        match status.code() {
            Code::InvalidArgument | Code::Unimplemented => Self::Unread("garbage", status),
            Code::ResourceExhausted => Self::Unread("too_large", status),
            Code::DeadlineExceeded => Self::Slow,
            _ => Self::Proxy,
        }
    }
}

impl Stream {
    pub(super) async fn run(mut self) {
        let end = match self.follow().await {
            Err(end) => end,
            Ok(()) => End::Proxy,
        };
        let (reason, status) = match end {
            End::Proxy => ("proxy", None),
            End::Replaced => ("replaced", Some(Status::unavailable("this replica ended the stream; connect again"))),
            End::Slow => ("slow", Some(Status::resource_exhausted("the proxy did not read or answer in time"))),
            End::Garbage(what) => ("garbage", Some(Status::invalid_argument(what))),
            End::Unread(why, status) => (why, Some(status)),
        };
        count(&self.metrics.ended, "reason", reason);
        if let Some(status) = status {
            let _ = self.out.try_send(Err(status));
        }
        let _ = self.driver.send(FromStream::Gone { proxy: self.proxy, id: self.id }).await;
    }

    async fn follow(&mut self) -> Result<(), End> {
        // The proxy is counted by its version while its stream is open. Handlers of messages are boxed: the task mostly
        // waits, and it always has room for its largest state.
        let (at, _counted) = Box::pin(self.hello()).await?;
        self.send_trust().await?;
        let mut position = Position::new(at);
        self.messages.allow(MAX_REPORT_BYTES);
        loop {
            if let Some(at) = position.due().cloned() {
                position.sent(self.step(&at).await?);
            }
            let wait = self.pace.wait();
            tokio::select! {
                // The target closes when the term is over or a newer stream of this pod opens, whatever the proxy does.
                changed = self.following.target.changed() => {
                    changed.map_err(|_| End::Replaced)?;
                    position.outdate();
                }
                changed = self.roots.changed() => {
                    changed.map_err(|_| End::Replaced)?;
                    self.send_trust().await?;
                }
                // A proxy whose messages have to wait gets no further inquiries.
                Some(ask) = self.following.asks.recv(), if wait.is_zero() => self.ask(ask).await?,
                Some(signed) = self.signing.next(), if !self.signing.is_idle() => self.signed(signed).await?,
                () = sleep(wait), if !wait.is_zero() => {}
                message = self.messages.message(), if wait.is_zero() => {
                    let Some(message) = after_hello(message?)? else { return Ok(()) };
                    if Box::pin(self.heard(message, &mut position)).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Passes a message to its recipient. Returns whether it was the proxy's last message.
    async fn heard(&mut self, message: FromProxy, position: &mut Position) -> Result<bool, End> {
        let listed = message.inspected.as_ref().map_or(0, |inspected| inspected.live.items());
        let agents = message.agents.as_ref().map_or(0, AgentsReport::items);
        self.pace.spend(message.report.as_ref().map_or(0, ReportPart::items) + listed + agents);
        if let Some(Inspected { id, live }) = message.inspected
            && !self.pending.answer(id, live)
        {
            count(&self.metrics.inquiries, "result", "ignored");
        }
        if let Some(load) = message.load {
            self.loaded(load).await?;
        }
        if let Some(report) = message.agents {
            self.agents(report).await?;
        }
        if let Some(sign) = message.sign {
            self.sign(sign).await?;
        }
        if let Some(part) = message.report {
            self.report(part, position).await?;
        }
        let Some(Drained { cut }) = message.drained else { return Ok(false) };
        let drained = FromStream::Drained { proxy: self.proxy.clone(), id: self.id, cut };
        self.driver.send(drained).await.map_err(|_| End::Replaced)?;
        Ok(true)
    }

    /// Sends the changes that lead to the current snapshot.
    async fn step(&mut self, at: &Snapshot) -> Result<Arc<Snapshot>, End> {
        let next = self.following.target.borrow_and_update().clone();
        let frames = self.following.deltas.step(at, &next).map_err(|_| End::Garbage("a message cannot be encoded"))?;
        for frame in frames.iter() {
            self.change(frame.clone()).await?;
        }
        Ok(next)
    }

    /// Receives the hello and brings the proxy to the snapshot of its group.
    async fn hello(&mut self) -> Result<(Arc<Snapshot>, Connected), End> {
        let first = timeout(HELLO, self.messages.message()).await.map_err(|_| End::Slow)??;
        let Some(FromProxy { hello: Some(hello), .. }) = first else {
            return Err(End::Garbage("the first message must be a hello"));
        };
        let counted = self.versions.connected(&self.proxy, &hello.software);
        let now = self.following.target.borrow_and_update().clone();
        let frames = self.first(&hello, &now).await?;
        for frame in frames.iter() {
            self.change(frame.clone()).await?;
        }
        Ok((now, counted))
    }

    /// The changes that bring a proxy that just connected to this snapshot.
    async fn first(&mut self, hello: &Hello, now: &Snapshot) -> Result<Arc<Vec<Frame>>, End> {
        if let Some(known) = running(&hello.digest, &self.following.unreadable, now) {
            return self.following.deltas.step(&known, now).map_err(|_| End::Garbage("a message cannot be encoded"));
        }
        let (held, _room) = self.held(now).await?;
        let parts = now.configuration().changes_from(&held, &self.following.unreadable, PARTS);
        encode(parts, now).map(Arc::new).map_err(|_| End::Garbage("a message cannot be encoded"))
    }

    /// Requests the revisions that the proxy holds, once there is room for the answer. Returns them with their room.
    async fn held(&mut self, now: &Snapshot) -> Result<(Held, Share), End> {
        let usual = now.weight_of_revisions();
        let expected = (usual + usual / 4 + SPARE).min(MAX_HELD);
        let mut target = self.following.target.clone();
        let share = tokio::select! {
            share = self.rooms.held.share(expected) => share,
            // The target closes when the term is over or a newer stream of this pod opens.
            _ = target.wait_for(|_| false) => None,
        };
        let mut share = share.ok_or(End::Replaced)?;
        let request = ToProxy { tell_held: true, ..ToProxy::default() };
        self.send(frame(&request).map_err(|_| End::Garbage("a message cannot be encoded"))?).await?;
        self.messages.allow(MAX_REPORT_BYTES);
        let held = timeout(HELD, self.receive_held(&mut share)).await.map_err(|_| End::Slow)??;
        Ok((held, share))
    }

    async fn receive_held(&mut self, share: &mut Share) -> Result<Held, End> {
        let mut arriving = Arriving::default();
        while !arriving.is_whole() {
            let part = match self.messages.message().await? {
                Some(FromProxy { held: Some(part), .. }) => part,
                Some(_) => return Err(End::Garbage("expected the revisions that the proxy holds")),
                None => return Err(End::Proxy),
            };
            arriving.add(part, share).map_err(|excess| {
                let (why, status) = excess.told();
                End::Unread(why, status)
            })?;
        }
        Ok(arriving.into_held())
    }

    async fn send_trust(&mut self) -> Result<(), End> {
        let roots = self.roots.borrow_and_update().bundle.clone();
        let message = ToProxy { trust: Some(Trust { roots }), ..ToProxy::default() };
        self.send(frame(&message).map_err(|_| End::Garbage("a message cannot be encoded"))?).await
    }

    /// Passes a question to the proxy, if its asker still waits and the proxy does not have too many questions.
    async fn ask(&mut self, ask: Ask) -> Result<(), End> {
        let Some(inquiry) = self.pending.take(ask) else { return Ok(()) };
        let message = ToProxy { inquiry: Some(inquiry), ..ToProxy::default() };
        self.send(frame(&message).map_err(|_| End::Garbage("a message cannot be encoded"))?).await
    }

    async fn change(&self, frame: Frame) -> Result<(), End> {
        self.metrics.changes.inc();
        self.metrics.change_bytes.inc_by(frame.len() as u64);
        self.send(frame).await
    }

    pub(super) async fn send(&self, frame: Frame) -> Result<(), End> {
        match timeout(SLOW, self.out.send(Ok(frame))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Proxy),
            Err(_) => Err(End::Slow),
        }
    }

    async fn loaded(&self, load: Load) -> Result<(), End> {
        let loaded = FromStream::Loaded { proxy: self.proxy.clone(), id: self.id, load: Box::new(load) };
        self.driver.send(loaded).await.map_err(|_| End::Replaced)
    }

    /// Passes a report to the driver, without listeners that are no longer published. A report about a version that was
    /// never sent ends the stream.
    async fn report(&self, mut part: ReportPart, position: &mut Position) -> Result<(), End> {
        let Ok(Reported { agreed, is_outdated }) = position.reported(&mut part) else {
            self.metrics.bad_reports.inc();
            return Err(End::Garbage("a report about a version that was never sent"));
        };
        if is_outdated {
            tracing::debug!(proxy = %self.proxy, "ignoring listeners of a report that are no longer published");
        }
        let (proxy, id, room) = (self.proxy.clone(), self.id, self.rooms.reports.take(part.weight()).await);
        let report = FromStream::Reported { proxy, id, part: Box::new(part), agreed, room };
        self.driver.send(report).await.map_err(|_| End::Replaced)
    }
}

/// The contents of a message after the hello; absent at the end of the stream. A message without any known field is
/// from a newer proxy, and is accepted.
fn after_hello(message: Option<FromProxy>) -> Result<Option<FromProxy>, End> {
    match message {
        Some(FromProxy { hello: None, held: None, .. }) | None => Ok(message),
        Some(_) => Err(End::Garbage("hello and held revisions belong at the start of the stream")),
    }
}
