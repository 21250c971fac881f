//! One stream to the operator, from its hello to its end.

use std::{future::pending, mem, sync::Arc, time::Duration};

use proxy_api::{
    Assembler, CONTRACT, Change, Configuration, Digest, Drained, FromProxy, Hello, Inquiry, Inspected, MAX_LIVE, PARTS,
    ToProxy,
};
use proxy_grpc::{Connection, Status, retry_after};
use tokio::{
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{meter::Meter, state::State};
use crate::{
    core::{
        changes::in_place::Step,
        control::{backoff::Backoff, reports::Published},
        durable::lag,
    },
    handle::{Ended, Proxy},
    signing::{Desk, News, Room, Unanswered},
};

/// How often the load is measured; it is sent only if it changed.
const LOAD: Duration = Duration::from_secs(5);
/// How often a draining proxy checks whether it has ended.
const LOOK_FOR_END: Duration = Duration::from_millis(20);
/// Longest wait for the workers' sessions. The operator has up to four inquiries open for 3 s each: a worker that hangs
/// must not hold up the changes behind them.
const INSPECT: Duration = Duration::from_millis(600);
/// Longest wait for the operator to receive the last message.
pub const GOODBYE: Duration = Duration::from_secs(1);
/// Longer than any stream lives.
const NEVER: Duration = Duration::from_secs(86_400);

/// An open stream.
struct Stream<'a> {
    connection: Connection,
    proxy: &'a Proxy,
    state: &'a mut State,
    current: &'a mut Arc<Configuration>,
    assembler: Assembler,
    /// Digest of `current`.
    digest: Digest,
    /// Whether the operator has the same digest.
    agreed: bool,
    /// The last report sent on this stream.
    reported: Option<Published>,
    /// Requests for certificates.
    unanswered: Unanswered,
}

/// Why a stream ended or could not be opened.
pub(super) struct Broken {
    pub(super) why: String,
    /// The retry delay that the operator asks for.
    pub(super) retry_after: Option<Duration>,
}

impl From<String> for Broken {
    fn from(why: String) -> Self {
        Self { why, retry_after: None }
    }
}

/// Follows one stream to its end; returns why it ended.
///
/// # Errors
/// The proxy has ended.
pub(super) async fn run(
    connection: Connection,
    proxy: &Proxy,
    state: &mut State,
    current: &mut Arc<Configuration>,
    backoff: &mut Backoff,
    desk: &mut Option<Desk>,
) -> Result<Broken, Ended> {
    let assembler = Assembler::of(current);
    let digest = assembler.digest();
    let (reported, unanswered) = (None, Unanswered::default());
    let mut stream =
        Stream { connection, proxy, state, current, assembler, digest, agreed: false, reported, unanswered };
    if let Some(desk) = desk {
        desk.begin();
    }
    match stream.follow(backoff, desk).await {
        Ok(()) => Ok("the operator closed the stream".to_owned().into()),
        Err(End::Proxy) => {
            // The process ends only after the write.
            stream.state.begin();
            stream.report_cut().await;
            Err(Ended)
        }
        Err(End::Stream(broken)) => Ok(broken),
    }
}

enum End {
    Proxy,
    Stream(Broken),
}

impl From<Ended> for End {
    fn from(_: Ended) -> Self {
        Self::Proxy
    }
}

impl Stream<'_> {
    async fn follow(&mut self, backoff: &mut Backoff, desk: &mut Option<Desk>) -> Result<(), End> {
        let hello = Hello {
            contract: CONTRACT,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            version: self.current.version.clone(),
            digest: self.digest.clone(),
        };
        self.send(FromProxy { hello: Some(hello), ..FromProxy::default() }).await?;
        let mut reports = self.proxy.report();
        let mut looks = interval(LOAD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut meter = Meter::new(self.proxy.metrics(), Instant::now());
        loop {
            let due = self.state.due().unwrap_or_else(|| Instant::now() + NEVER);
            let room = self.unanswered.room();
            tokio::select! {
                message = self.connection.messages.message() => {
                    let message = message.map_err(|status| End::Stream(ended(&status)))?;
                    let Some(message) = message else { return Ok(()) };
                    if self.hear(message).await? {
                        backoff.succeeded();
                        // Send what changed since the report for this change.
                        let latest = reports.borrow_and_update().clone();
                        if self.reported.as_ref().is_some_and(|last| latest.differs_from(last)) {
                            self.report(latest).await?;
                        }
                    }
                }
                changed = reports.changed(), if self.reported.is_some() => {
                    changed.map_err(|_| End::Proxy)?;
                    let report = reports.borrow_and_update().clone();
                    self.report(report).await?;
                }
                news = news(desk, room), if self.reported.is_some() => self.tell(news).await?,
                _ = looks.tick(), if self.reported.is_some() => {
                    self.assembler.rest();
                    meter.begin(Instant::now());
                    self.measure(&mut meter).await?;
                }
                () = yield_now(), if meter.is_under_way() => self.measure(&mut meter).await?,
                () = sleep_until(due) => self.state.begin(),
                _ = self.state.written(self.proxy) => {}
            }
        }
    }

    /// Handles a message of the operator. Returns whether it was a change.
    async fn hear(&mut self, message: ToProxy) -> Result<bool, End> {
        if message.tell_held {
            self.send_held().await?;
        }
        if let Some(trust) = message.trust {
            self.state.keep_roots(&trust.roots, self.proxy);
        }
        if let Some(inquiry) = message.inquiry {
            self.inspect(inquiry).await?;
        }
        if let Some(signed) = message.signed {
            self.unanswered.answer(signed);
        }
        let Some(change) = message.change else { return Ok(false) };
        self.change(change).await?;
        Ok(true)
    }

    /// Continues to measure the load, and sends it if it has changed.
    async fn measure(&self, meter: &mut Meter) -> Result<(), End> {
        match meter.step(self.proxy.metrics()) {
            Some(load) => self.send(FromProxy { load: Some(load), ..FromProxy::default() }).await,
            None => Ok(()),
        }
    }

    /// Sends the news of the tunnels to the operator.
    async fn tell(&mut self, news: News) -> Result<(), End> {
        match news {
            News::Asked(asked) => {
                let Some(sign) = self.unanswered.take(asked) else { return Ok(()) };
                self.send(FromProxy { sign: Some(sign), ..FromProxy::default() }).await
            }
            News::Connected(agents) => self.send(FromProxy { agents: Some(agents), ..FromProxy::default() }).await,
        }
    }

    /// Waits for the end of the drain and reports the sessions that were cut.
    async fn report_cut(self) {
        while !self.proxy.has_ended() {
            sleep(LOOK_FOR_END).await;
        }
        let cut = self.proxy.metrics().cut_by_drain();
        if cut == 0 {
            return;
        }
        let drained = Some(Drained { cut });
        if self.send(FromProxy { drained, ..FromProxy::default() }).await.is_ok() {
            let _ = timeout(GOODBYE, self.connection.end()).await;
        }
    }

    async fn send(&self, message: FromProxy) -> Result<(), End> {
        self.connection.send(&message).await.map_err(|error| End::Stream(format!("the stream broke: {error}").into()))
    }

    async fn send_held(&self) -> Result<(), End> {
        for part in self.current.held().into_parts(PARTS) {
            self.send(FromProxy { held: Some(part), ..FromProxy::default() }).await?;
        }
        Ok(())
    }

    async fn inspect(&self, Inquiry { id, mut selection }: Inquiry) -> Result<(), End> {
        if selection.lag {
            let live = lag::answer(self.proxy.metrics().lag(), &selection);
            return self.send(FromProxy { inspected: Some(Inspected { id, live }), ..FromProxy::default() }).await;
        }
        selection.limit = selection.limit.min(MAX_LIVE);
        // Without an answer, the operator reports this proxy as one that has not answered.
        let Ok(live) = timeout(INSPECT, self.proxy.inspect(selection)).await else { return Ok(()) };
        let live = live?;
        self.send(FromProxy { inspected: Some(Inspected { id, live }), ..FromProxy::default() }).await
    }

    async fn change(&mut self, part: Change) -> Result<(), End> {
        if part.contract > CONTRACT {
            let why = format!("the operator uses contract {}, this proxy {CONTRACT}: upgrade the proxy", part.contract);
            self.proxy.refuse(why.clone()).await?;
            return Err(End::Stream(why.into()));
        }
        let digest = part.digest.clone();
        let next = match self.assembler.take(self.current, part) {
            Ok(None) => return Ok(()),
            // Shared with the control thread and with the write to disk: a copy has tens of thousands of names.
            Ok(Some(next)) => Arc::new(next),
            Err(error) => {
                self.proxy.refuse(error.to_string()).await?;
                return Err(End::Stream(error.to_string().into()));
            }
        };
        self.digest = self.assembler.digest();
        self.agreed = digest.as_ref() == Some(&self.digest);
        let step = Step { from: self.current.clone(), named: self.assembler.take_named() };
        let report = self.proxy.apply_step(next.clone(), step).await?;
        let before = mem::replace(self.current, next);
        self.state.keep(self.current);
        // By now, at most a write to disk has it, too.
        if let Some(before) = Arc::into_inner(before) {
            self.assembler.reuse(before);
        }
        self.report(report).await
    }

    /// Sends the changes of the report to the operator; after an apply at least the version.
    async fn report(&mut self, report: Published) -> Result<(), End> {
        let before = self.reported.as_ref();
        let parts = match before.and_then(|before| Some((before, report.concerned_since(before)?))) {
            Some((before, concerned)) => report.parts_among(before, &concerned, &self.digest, PARTS),
            None => report.parts_since(self.reported.as_deref(), &self.digest, self.agreed, PARTS),
        };
        for part in parts {
            self.send(FromProxy { report: Some(part), ..FromProxy::default() }).await?;
        }
        self.reported = Some(report);
        Ok(())
    }
}

/// Waits for news of the tunnels to the operator; without tunnels forever.
async fn news(desk: &mut Option<Desk>, room: Room) -> News {
    match desk {
        Some(desk) => desk.next(room).await,
        None => pending().await,
    }
}

fn ended(status: &Status) -> Broken {
    let why = match status.message() {
        "" => format!("the stream ended ({})", status.code()),
        message => format!("the stream ended: {message} ({})", status.code()),
    };
    Broken { why, retry_after: retry_after(status) }
}
