//! Proxies with a valid token that lie: anyone who may create pods may have some.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use proxy_api::{
    CONTRACT, Configuration, Digest, Failure, FailureReason, FromProxy, Held, Hello, ListenerId, ListenerReport,
    ListenerState, Load, MAX_FAILURE_BYTES, Origin, PARTS, ReportPart, Revision, ToProxy, Version, Work,
};
use proxy_grpc::{Connection, Endpoint};
use tokio::time::{sleep, timeout};

use super::Tally;

/// Name of what lying proxies do, among the doors of [`super::Toll`].
pub const LYING_PROXIES: &str = "operator: stream, with a token";

/// Longest time on one stream.
const STAY: Duration = Duration::from_secs(60);
/// Pause before the next stream.
const AGAIN: Duration = Duration::from_millis(500);
/// Pause between two huge messages: the operator reads no faster than two a second.
const HUGE: Duration = Duration::from_millis(250);
/// Huge messages before one that is larger than a message may be.
const BEFORE_TOO_LARGE: usize = 8;
/// Pause between two states of a listener.
const FLAP: Duration = Duration::from_millis(20);
/// Pause between two parts of what a proxy says that it holds.
const PART: Duration = Duration::from_secs(1);
/// Streams of a pod at the same time.
const STREAMS: usize = 8;
/// Bytes of the name of a forward in an id that is nearly as long as an id may be.
const LONG_NAME: usize = 400;
/// Bytes of such a name with which [`PARTS`] listeners are more than a message may be.
const TOO_LONG_NAME: usize = 1500;

/// A kind of lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Reports of a version that does not exist, and a load that cannot be.
    False,
    /// Reports of a thousand listeners that do not exist, and messages that are too large.
    Huge,
    /// A listener that fails and runs again, fifty times a second.
    Flapping,
    /// Many streams of one pod, of which each ends the one before.
    Many,
    /// A list without an end of what the proxy holds.
    Held,
}

impl Lie {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::False, Self::Huge, Self::Flapping, Self::Many, Self::Held];

    /// A word for the name of a pod.
    pub fn word(self) -> &'static str {
        match self {
            Self::False => "false",
            Self::Huge => "huge",
            Self::Flapping => "flapping",
            Self::Many => "many",
            Self::Held => "held",
        }
    }
}

/// A proxy that lies.
#[derive(Clone, Debug)]
pub struct LyingProxy {
    lie: Lie,
    /// The address is that of the door.
    endpoint: Endpoint,
}

impl LyingProxy {
    /// A proxy with this token, which trusts the operator by these CA certificates, PEM.
    #[track_caller]
    pub fn new(lie: Lie, roots: &str, token: String) -> Self {
        let tls = Arc::new(proxy_grpc::client_config(roots).expect("CA certificates"));
        Self { lie, endpoint: Endpoint { address: (Ipv4Addr::UNSPECIFIED, 0).into(), tls, token } }
    }

    /// Streams at the same time.
    pub(super) fn streams(&self) -> usize {
        if self.lie == Lie::Many { STREAMS } else { 1 }
    }

    /// One stream after the other. Lying proxies are few, so they need no turn to connect.
    pub(super) async fn lie(mut self, at: SocketAddr, tally: Arc<Tally>) {
        self.endpoint.address = at;
        loop {
            let _ = timeout(STAY, self.converse(&tally)).await;
            sleep(AGAIN).await;
        }
    }

    /// One stream, until the operator ends it. A replica that does not lead refuses it.
    async fn converse(&self, tally: &Tally) -> Option<()> {
        let connection = proxy_grpc::open::<ToProxy>(&self.endpoint).await.ok()?;
        let _open = tally.enter(LYING_PROXIES);
        if self.lie == Lie::Held {
            return holds_without_end(connection).await;
        }
        let mut follower = Follower::begin(connection).await?;
        match self.lie {
            Lie::False => {
                follower.say(FromProxy { load: Some(most()), ..FromProxy::default() }).await?;
                follower.version = Version { epoch: "nonsense".to_owned(), number: 99 };
                follower.report(BTreeMap::new()).await?;
            }
            Lie::Huge => {
                for _ in 0..BEFORE_TOO_LARGE {
                    follower.report(listeners(LONG_NAME)).await?;
                    sleep(HUGE).await;
                }
                follower.report(listeners(TOO_LONG_NAME)).await?;
            }
            Lie::Flapping => follower.flap().await?,
            Lie::Many | Lie::Held => {}
        }
        follower.until_ended().await
    }
}

/// A proxy that has received its configuration.
struct Follower {
    connection: Connection,
    version: Version,
    /// One of its listeners.
    listener: Option<(ListenerId, Revision)>,
}

impl Follower {
    async fn begin(connection: Connection) -> Option<Self> {
        let mut follower = Self { connection, version: Version::default(), listener: None };
        follower.say(hello(Configuration::default().digest())).await?;
        while !follower.hear().await? {}
        Some(follower)
    }

    async fn say(&self, message: FromProxy) -> Option<()> {
        self.connection.send(&message).await.ok()
    }

    /// Takes the next message; returns whether an update is complete with it.
    async fn hear(&mut self) -> Option<bool> {
        let message = self.connection.messages.message().await.ok()??;
        let Some(change) = message.change else { return Some(false) };
        if let Some((id, offer)) = change.upserts.first_key_value() {
            self.listener = Some((id.clone(), offer.revision().clone()));
        }
        if change.commit {
            self.version = change.version;
        }
        Some(change.commit)
    }

    async fn until_ended(&mut self) -> Option<()> {
        loop {
            self.hear().await?;
        }
    }

    async fn report(&self, listeners: BTreeMap<ListenerId, ListenerReport>) -> Option<()> {
        let version = self.version.clone();
        let report = ReportPart { contract: CONTRACT, version, listeners, commit: true, ..ReportPart::default() };
        self.say(FromProxy { report: Some(report), ..FromProxy::default() }).await
    }

    async fn flap(&mut self) -> Option<()> {
        let mut is_bound = false;
        loop {
            tokio::select! {
                heard = self.hear() => {
                    heard?;
                }
                () = sleep(FLAP) => {
                    is_bound = !is_bound;
                    let listener = self.listener.clone().map(|(id, revision)| (id, state(revision, is_bound)));
                    self.report(listener.into_iter().collect()).await?;
                }
            }
        }
    }
}

/// Says of more and more listeners that it holds them.
async fn holds_without_end(mut connection: Connection) -> Option<()> {
    connection.send(&hello(Digest("lie".to_owned()))).await.ok()?;
    while !connection.messages.message().await.ok()??.tell_held {}
    let listeners = listeners(LONG_NAME).into_iter().map(|(id, report)| (id, report.revision)).collect();
    let part = FromProxy { held: Some(Held { listeners, ..Held::default() }), ..FromProxy::default() };
    loop {
        connection.send(&part).await.ok()?;
        sleep(PART).await;
    }
}

fn hello(digest: Digest) -> FromProxy {
    let hello = Hello { contract: CONTRACT, software: "lying-proxy".to_owned(), digest, ..Hello::default() };
    FromProxy { hello: Some(hello), ..FromProxy::default() }
}

/// The highest load that can be written, also of a forward of others.
fn most() -> Load {
    let work = Work { connections: u64::MAX, new_per_second: u64::MAX, bytes_per_second: u64::MAX };
    Load { sum: work, forwards: [("siege/web".to_owned(), work)].into() }
}

fn state(revision: Revision, is_bound: bool) -> ListenerReport {
    let state = if is_bound { ListenerState::Bound } else { ListenerState::Failed };
    let failure = Failure { reason: FailureReason::BindFailed, message: "x".repeat(MAX_FAILURE_BYTES), serving: None };
    let failure = (!is_bound).then_some(failure);
    ListenerReport { state, failure, ..ListenerReport::usual(revision) }
}

/// As many failed listeners as a message may name, of forwards with names of this length.
fn listeners(name: usize) -> BTreeMap<ListenerId, ListenerReport> {
    let origin = Origin::port_forward("nowhere", "x".repeat(name));
    let report = state(Revision("f".repeat(16).into()), false);
    (0..PARTS).map(|at| (ListenerId::new(origin.clone(), at.to_string()), report.clone())).collect()
}
