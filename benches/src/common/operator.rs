//! An operator for one proxy: the stream of the contract over gRPC and TLS with a token, without a cluster. It sends a
//! configuration when the proxy connects, and then the changes and inquiries that the bench orders. It verifies that the
//! proxy runs what was sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use proxy_api::{
    CONTRACT, Change, Configuration, Digest, DigestSum, FromProxy, Held, Inquiry, ListenerId, LiveSessions,
    MAX_REPORT_BYTES, Offer, PARTS, Selection, ToProxy, Trust, Version, doors::StreamPort,
};
use proxy_grpc::{Admitted, Door, Follower, Frame, Messages, SERVER_NAME, Status};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
};
use tokio_rustls::rustls::{
    crypto::ring,
    pki_types::PrivateKeyDer,
    sign::{CertifiedKey, SingleCertAndKey},
};

/// The token of the proxy. Only an operator of a cluster asks the API server about it.
const TOKEN: &str = "bench";
/// Messages that may wait for the proxy, as in the operator of a cluster.
const WAITING: usize = 4;
/// Longest wait for the answer to an inquiry, as in the operator of a cluster.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the bench orders.
enum Order {
    /// Send this listener, new or changed.
    Change(ListenerId, Offer),
    /// Ask for live sessions.
    Ask(Selection, SyncSender<LiveSessions>),
}

/// A running operator, which ends when it is dropped.
pub(crate) struct Operator {
    address: SocketAddr,
    /// The CA that signed its certificate, in PEM.
    roots: String,
    orders: mpsc::UnboundedSender<Order>,
    /// Number of the last version that was ordered.
    ordered: AtomicU64,
    /// Number of the last version that the proxy reported; 0 before its first report.
    reported: watch::Receiver<u64>,
    _runtime: Runtime,
}

impl Operator {
    /// Starts an operator for a proxy that should run this configuration. Its only thread first calls `begin`.
    pub(crate) fn start(configuration: Configuration, begin: impl Fn() + Send + Sync + 'static) -> Self {
        let version = Version { epoch: "bench".to_owned(), number: 1 };
        let configuration = Configuration { version, ..configuration };
        let runtime = Builder::new_multi_thread().worker_threads(1).on_thread_start(begin).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (certificate, roots) = certificate();
        let tls = Arc::new(proxy_grpc::server_config(Arc::new(certificate)).expect("a usable certificate"));
        let door = Door::new(StreamPort::DEFAULT.bounds(), |_| {});
        let (orders, to_do) = mpsc::unbounded_channel();
        let (reports, reported) = watch::channel(0);
        let trust = Trust { roots: roots.clone() };
        let host = Host(Mutex::new(Some(Plan { configuration, trust, orders: to_do, reports })));
        runtime.spawn(proxy_grpc::serve(listener, tls, door, Arc::new(host), pending()));
        Self { address, roots, orders, ordered: AtomicU64::new(1), reported, _runtime: runtime }
    }

    /// Options with which a proxy follows this operator and keeps its state in this folder.
    pub(crate) fn options(&self, folder: &Path) -> [OsString; 8] {
        let (token, state) = (folder.join("token"), folder.join("state"));
        fs::write(&token, TOKEN).expect("a token");
        fs::create_dir(&state).expect("a folder");
        [
            "--operator".into(),
            self.address.to_string().into(),
            "--roots".into(),
            self.roots.clone().into(),
            "--token-file".into(),
            token.into(),
            "--state-dir".into(),
            state.into(),
        ]
    }

    /// Sends a listener that is new or has changed.
    pub(crate) fn push(&self, id: ListenerId, offer: Offer) {
        self.ordered.fetch_add(1, Relaxed);
        self.order(Order::Change(id, offer));
    }

    /// Whether the proxy has reported the last version that was ordered.
    pub(crate) fn is_applied(&self) -> bool {
        *self.reported.borrow() == self.ordered.load(Relaxed)
    }

    /// Asks the proxy for live sessions and waits for the answer.
    pub(crate) fn ask(&self, selection: Selection) -> LiveSessions {
        let (reply, answer) = sync_channel(1);
        self.order(Order::Ask(selection, reply));
        answer.recv_timeout(PATIENCE).expect("an answer to an inquiry")
    }

    fn order(&self, order: Order) {
        assert!(self.orders.send(order).is_ok(), "the stream of the proxy has ended");
    }
}

/// A serving certificate, and the PEM of the CA that signed it.
fn certificate() -> (SingleCertAndKey, String) {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new([SERVER_NAME.to_owned()]).expect("a name");
    let leaf = parameters.signed_by(&key, &root).expect("a certificate");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let leaf = CertifiedKey::from_der(vec![leaf.der().clone()], private, &ring::default_provider());
    (leaf.expect("a usable certificate").into(), root.pem())
}

/// What the stream of the proxy begins with.
struct Plan {
    configuration: Configuration,
    trust: Trust,
    orders: mpsc::UnboundedReceiver<Order>,
    reports: watch::Sender<u64>,
}

/// Admits one proxy. One whose stream broke finds no plan: its measurement has failed.
struct Host(Mutex<Option<Plan>>);

impl Follower for Host {
    async fn follow(&self, token: Option<String>, messages: Messages) -> Result<Admitted, Status> {
        if token.as_deref() != Some(TOKEN) {
            return Err(Status::unauthenticated("this is not the token of the bench"));
        }
        let plan = self.0.lock().expect("unpoisoned").take();
        let plan = plan.ok_or_else(|| Status::unavailable("this operator follows one stream"))?;
        let (out, answer) = mpsc::channel(WAITING);
        let sum = plan.configuration.digest_sum();
        let (sent, asked, last) = (BTreeMap::new(), BTreeMap::new(), 0);
        tokio::spawn(Stream { plan, sum, sent, asked, last, messages, out }.run());
        Ok(Admitted { namespace: String::new(), answer })
    }
}

/// The stream of the proxy.
struct Stream {
    plan: Plan,
    /// Digest of the configuration.
    sum: DigestSum,
    /// Digests of the versions that were sent, from the one that the proxy reported last.
    sent: BTreeMap<u64, Digest>,
    /// Who waits for the answer to which inquiry.
    asked: BTreeMap<u64, SyncSender<LiveSessions>>,
    /// Number of the last inquiry.
    last: u64,
    messages: Messages,
    out: mpsc::Sender<Result<Frame, Status>>,
}

impl Stream {
    /// Serves the stream until it ends, or until nothing more can be ordered.
    async fn run(mut self) -> Option<()> {
        self.begin().await?;
        loop {
            tokio::select! {
                order = self.plan.orders.recv() => self.carry_out(order?).await?,
                message = self.messages.message() => self.hear(message.ok()??),
            }
        }
    }

    /// Sends the configuration to a proxy that has none.
    async fn begin(&mut self) -> Option<()> {
        let hello = self.messages.message().await.ok()??.hello?;
        assert_eq!(hello.digest, Configuration::default().digest(), "the proxy began with a configuration");
        self.messages.allow(MAX_REPORT_BYTES);
        let parts = self.plan.configuration.changes_from(&Held::default(), &BTreeSet::new(), PARTS);
        self.change(parts).await?;
        self.send(&ToProxy { trust: Some(self.plan.trust.clone()), ..ToProxy::default() }).await
    }

    async fn carry_out(&mut self, order: Order) -> Option<()> {
        match order {
            Order::Change(id, offer) => {
                let configuration = &mut self.plan.configuration;
                configuration.version.number += 1;
                self.sum.add_listener(&id, offer.revision());
                if let Some(before) = configuration.listeners.insert(id.clone(), offer.clone()) {
                    self.sum.remove_listener(&id, before.revision());
                }
                let (version, upserts) = (configuration.version.clone(), BTreeMap::from([(id, offer)]));
                let change = Change { contract: CONTRACT, version, upserts, commit: true, ..Change::default() };
                self.change(vec![change]).await
            }
            Order::Ask(selection, reply) => {
                self.last += 1;
                self.asked.insert(self.last, reply);
                let inquiry = Some(Inquiry { id: self.last, selection });
                self.send(&ToProxy { inquiry, ..ToProxy::default() }).await
            }
        }
    }

    /// Sends the parts of an update. The last one has the digest of what the proxy should then run.
    async fn change(&mut self, mut parts: Vec<Change>) -> Option<()> {
        let digest = self.sum.digest();
        self.sent.insert(self.plan.configuration.version.number, digest.clone());
        parts.last_mut()?.digest = Some(digest);
        for part in parts {
            self.send(&ToProxy { change: Some(part), ..ToProxy::default() }).await?;
        }
        Some(())
    }

    async fn send(&self, message: &ToProxy) -> Option<()> {
        let frame = proxy_grpc::frame(message).expect("a message");
        self.out.send(Ok(frame)).await.ok()
    }

    /// Takes reports and answers. The load of the proxy, which it sends every few seconds, is read and dropped.
    fn hear(&mut self, message: FromProxy) {
        if let Some(part) = message.report.filter(|part| part.commit) {
            let number = part.version.number;
            assert_eq!(self.sent.get(&number), Some(&part.digest), "the proxy runs something else than was sent");
            self.sent = self.sent.split_off(&number);
            self.plan.reports.send_replace(number);
        }
        if let Some(inspected) = message.inspected
            && let Some(reply) = self.asked.remove(&inspected.id)
        {
            // The asker may have given up.
            let _ = reply.send(inspected.live);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proxy_api::{Assembler, Hello, Inspected, Listener, Origin, ReportPart};
    use proxy_grpc::{Connection, Endpoint};
    use serde_json::json;

    use super::*;

    fn offer(to: u16) -> Offer {
        let socket = json!({"transport": "TCP", "bind": "Loopback", "port": 7000});
        let listener: Listener = serde_json::from_value(crate::listener::document(&socket, to)).expect("a listener");
        listener.sealed().into()
    }

    fn id() -> ListenerId {
        ListenerId::new(Origin::port_forward("default", "bench"), "flip")
    }

    /// A proxy that applies what it is sent and has as many sessions as it is asked for. Returns what it ran when the stream
    /// ended.
    async fn proxy(endpoint: Endpoint) -> Configuration {
        let mut connection: Connection = proxy_grpc::open(&endpoint).await.expect("a stream");
        let mut current = Configuration::default();
        let hello = Hello { contract: CONTRACT, digest: current.digest(), ..Hello::default() };
        connection.send(&FromProxy { hello: Some(hello), ..FromProxy::default() }).await.expect("an open stream");
        let mut assembler = Assembler::of(&current);
        while let Ok(Some(message)) = connection.messages.message().await {
            let mut answer = FromProxy::default();
            if let Some(Inquiry { id, selection }) = message.inquiry {
                let live = LiveSessions { total: selection.limit as u64, ..LiveSessions::default() };
                answer.inspected = Some(Inspected { id, live });
            } else if let Some(part) = message.change
                && let Some(next) = assembler.take(&current, part).expect("a change")
            {
                let (version, digest) = (next.version.clone(), next.digest());
                answer.report = Some(ReportPart { version, digest, commit: true, ..ReportPart::default() });
                current = next;
            }
            if answer != FromProxy::default() {
                connection.send(&answer).await.expect("an open stream");
            }
        }
        current
    }

    #[test]
    fn a_proxy_runs_what_was_pushed_and_answers_inquiries() {
        let mut configuration = Configuration::default();
        configuration.listeners.insert(id(), offer(7001));
        let operator = Operator::start(configuration, || {});
        let tls = Arc::new(proxy_grpc::client_config(&operator.roots).expect("usable"));
        let endpoint = Endpoint { address: operator.address, tls, token: TOKEN.to_owned() };
        let following = thread::spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(proxy(endpoint))
        });
        harness::until("the first configuration", || operator.is_applied());
        operator.push(id(), offer(7002));
        harness::until("the change", || operator.is_applied());
        assert_eq!(operator.ask(Selection { limit: 3, ..Selection::default() }).total, 3);
        drop(operator);
        let held = following.join().expect("a proxy");
        assert_eq!((held.listeners, held.version.number), (BTreeMap::from([(id(), offer(7002))]), 2));
    }
}
