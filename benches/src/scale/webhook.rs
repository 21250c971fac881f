//! Latency and throughput of the webhook.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{interval, timeout},
};

use super::{Bench, PATIENCE, objects, operator};

/// Number of concurrent connections of the API server.
const CONNECTIONS: usize = 8;
/// Time without writes after which the operator is at rest. A proxy that does not report is late after 30 s.
const REST: Duration = Duration::from_secs(35);
/// Pods per second in the paced runs.
const PACE: usize = 200;

impl Bench {
    /// Creates forwards and pods, sends reviews of pods, and prints the table of `docs/performance.md`: at rest both
    /// paced and at full speed, and paced while the operator still writes statuses.
    pub(crate) async fn webhook(&self, forwards: usize, reviews: usize) {
        self.prepare(0..self.proxies).await;
        self.create(0..forwards).await;
        let deadline = Instant::now() + PATIENCE;
        while self.operator.metric("forwards ") < forwards as f64 {
            assert!(Instant::now() < deadline, "the operator does not know all forwards");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), operator::NAMESPACE);
        let secret = secrets.get("portlane-roots").await.expect("roots");
        let roots = String::from_utf8(secret.data.expect("data")["ca.crt"].0.clone()).expect("PEM");
        let apps = forwards / objects::PER_POD;
        let before = self.operator.cost();
        let (times, all) = self.ask(reviews, Some(PACE), apps, &roots).await;
        let writes = (self.operator.cost().writes - before.writes) / all.as_secs_f64();
        let busy = format!(
            "{PACE} per second, right after {forwards} forwards were created: the operator writes {writes:.0} statuses \
             per second meanwhile"
        );
        let busy = row(&busy, times, all);
        self.rest().await;
        let (times, all) = self.ask(reviews, Some(PACE), apps, &roots).await;
        let paced = row(&format!("{PACE} per second"), times, all);
        self.rest().await;
        let (times, all) = self.ask(reviews, None, apps, &roots).await;
        let fast = row("as fast as possible", times, all);
        println!("{forwards} forwards and {} pods in the cache of the operator:\n", self.proxies);
        println!("| load | pods per second | p50 | p99 | maximum |\n|---|---|---|---|---|\n{paced}\n{fast}\n{busy}");
    }

    /// Waits until the operator has written nothing for a while.
    async fn rest(&self) {
        let deadline = Instant::now() + 3 * PATIENCE;
        let mut before = -1.0;
        loop {
            let writes = self.operator.cost().writes;
            if writes <= before {
                return;
            }
            assert!(Instant::now() < deadline, "the operator keeps writing");
            before = writes;
            tokio::time::sleep(REST).await;
        }
    }

    /// Sends reviews over several connections. Returns the latency of each answer, and the total time.
    async fn ask(&self, reviews: usize, pace: Option<usize>, apps: usize, roots: &str) -> (Vec<Duration>, Duration) {
        let started = Instant::now();
        let mut asking = Vec::new();
        for at in 0..CONNECTIONS {
            let connection = Connection::open(self.operator.webhook, roots).await;
            let pause = pace.map(|pace| Duration::from_secs_f64(CONNECTIONS as f64 / pace as f64));
            asking.push(tokio::spawn(connection.ask(at, reviews / CONNECTIONS, apps.clamp(1, objects::APPS), pause)));
        }
        let mut times = Vec::new();
        for asked in asking {
            times.extend(asked.await.expect("no panic"));
        }
        (times, started.elapsed())
    }
}

/// A row of the table; `all` is the duration of the whole load.
fn row(load: &str, mut times: Vec<Duration>, all: Duration) -> String {
    times.sort_unstable();
    let count = times.len();
    let at = |percent: usize| times[(count * percent / 100).min(count - 1)].as_secs_f64() * 1000.0;
    let rate = count as f64 / all.as_secs_f64();
    format!("| {load} | {rate:.0} | {:.1} ms | {:.1} ms | {:.1} ms |", at(50), at(99), at(100))
}

struct Connection(BufReader<tokio_rustls::client::TlsStream<TcpStream>>);

impl Connection {
    async fn open(port: u16, roots: &str) -> Self {
        let mut tls = proxy_grpc::client_config(roots).expect("roots");
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
        stream.set_nodelay(true).expect("an option");
        let name = proxy_grpc::SERVER_NAME.try_into().expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        Self(BufReader::new(connector.connect(name, stream).await.expect("a handshake")))
    }

    async fn ask(mut self, first: usize, reviews: usize, apps: usize, pause: Option<Duration>) -> Vec<Duration> {
        let mut times = Vec::new();
        let mut pace = pause.map(interval);
        for at in 0..reviews {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            let review = review(first + at * CONNECTIONS, apps).to_string();
            let head = format!(
                "POST /inject HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                review.len()
            );
            let started = Instant::now();
            self.0.write_all((head + &review).as_bytes()).await.expect("sent");
            self.0.flush().await.expect("sent");
            let answer = timeout(PATIENCE, self.answer()).await.expect("an answer");
            times.push(started.elapsed());
            assert!(answer["response"]["patch"].is_string(), "no proxy was injected: {answer}");
        }
        times
    }

    async fn answer(&mut self) -> Value {
        let (mut length, mut line) = (0, String::new());
        while self.0.read_line(&mut line).await.expect("a head") > 2 {
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            line.clear();
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.expect("a body");
        serde_json::from_slice(&body).expect("JSON")
    }
}

/// A review of a pod that only a forward selects, of one of the apps.
fn review(at: usize, apps: usize) -> Value {
    let app = at * 7919 % apps;
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": format!("u-{at}"), "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "namespace": objects::app_namespace(app), "operation": "CREATE",
            "object": {
                "metadata": {"generateName": "app-", "labels": {"app": format!("app-{app}"), "pod-template-hash": "x"}},
                "spec": {
                    "serviceAccountName": "app",
                    "containers": [{"name": "app", "image": "app", "env": (0..30).map(|n| json!({"name": format!("V{n}"), "value": "x"})).collect::<Vec<_>>()}],
                    "volumes": [{"name": "kube-api-access", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
                },
            },
        },
    })
}
