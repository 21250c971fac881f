//! One installation with its forwards, pods and simulated proxies.

mod objects;
mod operator;
mod proxy;
mod row;
mod webhook;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crds::PortForward;
use futures_util::{StreamExt, stream};
use harness::{ControlPlane, programs::KubernetesVersion};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

pub(crate) use self::{objects::Layout, row::Row};
use self::{operator::Operator, proxy::Applied};

/// Most concurrent requests to the API server.
const CONCURRENT_REQUESTS: usize = 24;
/// Longest time for any step.
const PATIENCE: Duration = Duration::from_secs(600);

/// The installation that is measured.
pub(crate) struct Bench {
    layout: Layout,
    proxies: usize,
    client: Client,
    operator: Operator,
    _server: ControlPlane,
}

impl Bench {
    /// Starts an API server with the CRDs, and an operator.
    pub(crate) fn start(layout: Layout, proxies: usize, program: Option<&Path>) -> Self {
        let server = ControlPlane::start_own(KubernetesVersion::Oldest, false);
        server.install_crds();
        for namespace in layout.namespaces() {
            server.kubectl(&["create", "namespace", &namespace]).ok();
        }
        let operator = Operator::start(&server, program);
        Self { layout, proxies, client: server.client(), operator, _server: server }
    }

    /// Measures with increasing numbers of forwards.
    pub(crate) async fn measure(self: Arc<Self>, forwards: &[usize], changes: usize) -> Vec<Row> {
        self.prepare(0..self.proxies).await;
        let (applied, mut reports) = mpsc::unbounded_channel();
        self.connect(0..self.proxies, applied).await;
        let (mut rows, mut have) = (Vec::new(), 0);
        for wanted in forwards {
            let started = Instant::now();
            self.create(have..*wanted).await;
            self.wait_until_programmed(*wanted).await;
            let cold_start = started.elapsed();
            have = *wanted;
            sleep(Duration::from_secs(2)).await;
            while reports.try_recv().is_ok() {}
            let row = self.changes(have, changes, &mut reports, cold_start).await;
            eprintln!("{row}");
            rows.push(row);
        }
        rows
    }

    /// Lets a fleet with this many forwards grow, and prints how much the operator wrote meanwhile.
    pub(crate) async fn grow(&self, forwards: usize, proxies: usize) {
        let (applied, _reports) = mpsc::unbounded_channel();
        self.prepare(0..self.proxies).await;
        self.connect(0..self.proxies, applied.clone()).await;
        self.create(0..forwards).await;
        self.wait_until_programmed(forwards).await;
        // Counts in status are refreshed late; wait for those writes, which would be counted below.
        sleep(Duration::from_secs(60)).await;
        let before = self.operator.cost();
        self.pods(self.proxies..proxies).await;
        self.connect(self.proxies..proxies, applied).await;
        let mut last = before.writes;
        let mut most: f64 = 0.0;
        for _ in 0..60 {
            sleep(Duration::from_secs(1)).await;
            let now = self.operator.cost().writes;
            most = most.max(now - last);
            last = now;
        }
        let after = self.operator.cost();
        println!(
            "{forwards} forwards, {} to {proxies} proxies: {} writes in the first minute, no more than {most} in a second; {:.1} s of CPU, \
             {:.0} MiB",
            self.proxies,
            after.writes - before.writes,
            after.cpu - before.cpu,
            after.peak_memory
        );
    }

    /// Creates everything except forwards: the gateway, service accounts, pods.
    async fn prepare(&self, pods: std::ops::Range<usize>) {
        if self.layout == Layout::Gateway {
            let gateways = Api::namespaced(self.client.clone(), objects::NAMESPACE);
            gateways.create(&PostParams::default(), &objects::gateway()).await.expect("a gateway");
            let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
                Api::namespaced(self.client.clone(), objects::NAMESPACE);
            while accounts.get_opt(objects::GATEWAY).await.expect("an answer").is_none() {
                sleep(Duration::from_millis(50)).await;
            }
        } else {
            for namespace in self.layout.namespaces() {
                let accounts = Api::namespaced(self.client.clone(), &namespace);
                accounts.create(&PostParams::default(), &objects::account()).await.expect("a service account");
            }
        }
        self.pods(pods).await;
    }

    async fn pods(&self, range: std::ops::Range<usize>) {
        self.each(range, |at| async move {
            let (namespace, pod) = self.layout.pod(at);
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            pods.create(&PostParams::default(), &pod).await.expect("a pod");
            let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
            let name = pod.metadata.name.expect("a name");
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(ready)).await.expect("a status");
        })
        .await;
    }

    async fn each<F: Future<Output = ()>>(&self, range: std::ops::Range<usize>, work: impl FnMut(usize) -> F) {
        stream::iter(range).map(work).buffer_unordered(CONCURRENT_REQUESTS).collect::<Vec<()>>().await;
    }

    /// Connects the proxies to the operator and waits for all of them.
    async fn connect(&self, range: std::ops::Range<usize>, applied: mpsc::UnboundedSender<Applied>) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), operator::NAMESPACE);
        let secret = secrets.get("portlane-roots").await.expect("roots");
        let roots = String::from_utf8(secret.data.expect("data")["ca.crt"].0.clone()).expect("PEM");
        let endpoint = proxy::Place::new(self.operator.stream, &roots);
        let all = range.end;
        self.each(range, |at| {
            let (endpoint, applied) = (endpoint.clone(), applied.clone());
            async move {
                let (namespace, pod) = self.layout.pod(at);
                let name = pod.metadata.name.expect("a name");
                let account = pod.spec.and_then(|spec| spec.service_account_name).expect("an account");
                let token = objects::token(&self.client, &namespace, &account, &name).await;
                tokio::spawn(proxy::follow(at, endpoint, token, applied));
            }
        })
        .await;
        let connected = async {
            while self.operator.metric("connected_proxies") < all as f64 {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, connected).await.expect("every proxy connects");
    }

    async fn create(&self, range: std::ops::Range<usize>) {
        self.each(range, |at| async move {
            let forward = self.layout.forward(at, 1);
            let namespace = forward.metadata.namespace.clone().expect("a namespace");
            let forwards: Api<PortForward> = Api::namespaced(self.client.clone(), &namespace);
            forwards.create(&PostParams::default(), &forward).await.expect("a forward");
        })
        .await;
    }

    /// Waits until this many forwards are programmed.
    async fn wait_until_programmed(&self, wanted: usize) {
        let all: Api<PortForward> = Api::all(self.client.clone());
        let settled = async {
            loop {
                let list = all.list(&ListParams::default()).await.expect("a list");
                let ready = list.items.iter().filter(|forward| objects::is_programmed(forward)).count();
                if ready == wanted {
                    return;
                }
                sleep(Duration::from_millis(500)).await;
            }
        };
        timeout(PATIENCE, settled).await.expect("every forward is programmed");
    }

    /// Changes forwards one after the other, waiting for the last report and for the status each time.
    async fn changes(
        &self,
        forwards: usize,
        changes: usize,
        reports: &mut mpsc::UnboundedReceiver<Applied>,
        cold_start: Duration,
    ) -> Row {
        let before = self.operator.cost();
        let (mut reported, mut programmed) = (Vec::new(), Vec::new());
        for change in 0..changes {
            let at = self.layout.changed(change, forwards, self.proxies);
            let expected = self.layout.proxies_of(at, self.proxies);
            let (last, status) = self.change(at, 2 + (forwards + change) % 60_000, expected, reports).await;
            reported.push(last);
            programmed.push(status);
        }
        let after = self.operator.cost();
        Row::new(self.layout, self.proxies, forwards, cold_start, reported, programmed, &before, &after)
    }

    async fn change(
        &self,
        at: usize,
        port: usize,
        expected: usize,
        reports: &mut mpsc::UnboundedReceiver<Applied>,
    ) -> (Duration, Duration) {
        let forward = self.layout.forward(at, port);
        let (namespace, name) = (forward.metadata.namespace.expect("set"), forward.metadata.name.expect("set"));
        let api: Api<PortForward> = Api::namespaced(self.client.clone(), &namespace);
        let patch = Patch::Merge(json!({"spec": {"listeners": forward.spec.listeners}}));
        let started = Instant::now();
        api.patch(&name, &PatchParams::default(), &patch).await.expect("patched");
        let id = format!("{namespace}/{name}/l");
        let mut seen = BTreeMap::new();
        let all = async {
            while seen.len() < expected {
                let applied = reports.recv().await.expect("proxies live");
                if applied.listeners.contains(&id) {
                    seen.insert(applied.proxy, applied.at);
                }
            }
        };
        timeout(PATIENCE, all).await.expect("every proxy reports");
        let last = seen.values().max().map_or(Duration::ZERO, |at| at.duration_since(started));
        let status = async {
            while !objects::is_programmed(&api.get(&name).await.expect("there")) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, status).await.expect("the status follows");
        (last, started.elapsed())
    }
}
