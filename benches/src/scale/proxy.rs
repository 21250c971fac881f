//! A simulated proxy: a real stream with a real token, but no listeners. The proxy acknowledges every change as
//! applied.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_api::{CONTRACT, Configuration, Digest, FromProxy, Hello, ReportPart, Version};
use proxy_grpc::{Connection, Endpoint};
use serde::Deserialize;
use tokio::{sync::mpsc, time::sleep};

/// Address and CA of the operator.
#[derive(Clone)]
pub(super) struct Place {
    address: SocketAddr,
    roots: Arc<str>,
}

impl Place {
    pub(super) fn new(port: u16, roots: &str) -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), roots: roots.into() }
    }
}

/// A change that a proxy has applied and reported.
pub(super) struct Applied {
    /// Index of the proxy.
    pub(super) proxy: usize,
    /// Names of new or changed listeners.
    pub(super) listeners: Vec<String>,
    /// Time of the report.
    pub(super) at: Instant,
}

/// A listener, of which only the name is needed.
#[derive(Deserialize)]
struct Skipped {
    #[allow(dead_code, reason = "a map wants values of a size")]
    revision: String,
}

/// The parts of a message that this proxy needs.
#[derive(Deserialize)]
struct Message {
    change: Option<Change>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    #[serde(flatten)]
    version: Version,
    #[serde(default)]
    upserts: BTreeMap<String, Skipped>,
    digest: Option<Digest>,
    #[serde(default)]
    commit: bool,
}

/// Follows the operator forever, and reconnects when a stream ends.
pub(super) async fn follow(proxy: usize, place: Place, token: String, applied: mpsc::UnboundedSender<Applied>) {
    let tls = Arc::new(proxy_grpc::client_config(&place.roots).expect("roots"));
    loop {
        let endpoint = Endpoint { address: place.address, tls: tls.clone(), token: token.clone() };
        if let Ok(mut connection) = proxy_grpc::open::<Message>(&endpoint).await {
            run(proxy, &mut connection, &applied).await;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Serves one stream until it ends.
async fn run(
    proxy: usize,
    connection: &mut Connection<Message>,
    applied: &mpsc::UnboundedSender<Applied>,
) -> Option<()> {
    let digest = Configuration::default().digest();
    let hello = Hello { contract: CONTRACT, software: "bench".to_owned(), digest, ..Hello::default() };
    connection.send(&FromProxy { hello: Some(hello), ..FromProxy::default() }).await.ok()?;
    let (mut whole, mut listeners) = (true, Vec::new());
    loop {
        let Some(change) = connection.messages.message().await.ok()??.change else { continue };
        listeners.extend(change.upserts.into_keys());
        if !change.commit {
            continue;
        }
        let digest = change.digest.unwrap_or_default();
        let report = ReportPart {
            contract: CONTRACT,
            version: change.version,
            whole: std::mem::take(&mut whole),
            digest,
            commit: true,
            ..ReportPart::default()
        };
        connection.send(&FromProxy { report: Some(report), ..FromProxy::default() }).await.ok()?;
        applied.send(Applied { proxy, listeners: std::mem::take(&mut listeners), at: Instant::now() }).ok()?;
    }
}
