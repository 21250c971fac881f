//! Watches of the API server: one task per watch turns events into messages for the driver.

mod grants;

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use crds::{ForwardGateway, PortForward};
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    api::PartialObjectMeta,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinHandle};

use operator_core::{
    names::{self, PROXY_LABEL},
    world::{
        objects::Object,
        read,
        rights::Rights,
        watched::{Kind, Seen, Source},
    },
};

use crate::platform::metrics::Metrics;

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// A message to the driver.
pub type Message = (Source, Seen);

/// The running watches.
pub struct Watches {
    client: Client,
    out: mpsc::Sender<Message>,
    metrics: Arc<Metrics>,
    running: BTreeMap<Source, JoinHandle<()>>,
}

impl Watches {
    /// Starts the permanent watches. Returns their sources, all of which must sync before the operator works.
    #[must_use]
    pub fn start(
        client: Client,
        rights: &Rights,
        out: mpsc::Sender<Message>,
        metrics: Arc<Metrics>,
    ) -> (Self, Vec<Source>) {
        let mut watches = Self { client, out, metrics, running: BTreeMap::new() };
        let kinds = [
            Kind::Forwards,
            Kind::Gateways,
            Kind::Services,
            Kind::Slices,
            Kind::ProxyPods,
            Kind::Namespaces,
            Kind::Grants,
            Kind::Deployments,
            Kind::Scalers,
        ];
        for kind in kinds {
            for namespace in rights.scopes(kind) {
                watches.run(Source { kind, namespace });
            }
        }
        let sources = watches.running.keys().cloned().collect();
        (watches, sources)
    }

    /// Watches the pods of one more namespace.
    pub fn watch_pods(&mut self, namespace: &str) -> Source {
        let source = Source { kind: Kind::Pods, namespace: Some(namespace.to_owned()) };
        if !self.running.contains_key(&source) {
            self.run(source.clone());
        }
        source
    }

    /// Ends the watch of a namespace's pods.
    pub fn unwatch_pods(&mut self, namespace: &str) {
        let source = Source { kind: Kind::Pods, namespace: Some(namespace.to_owned()) };
        if let Some(task) = self.running.remove(&source) {
            task.abort();
        }
    }

    fn run(&mut self, source: Source) {
        let task = Task {
            client: self.client.clone(),
            source: source.clone(),
            out: self.out.clone(),
            metrics: self.metrics.clone(),
        };
        self.running.insert(source, tokio::spawn(task.run()));
    }
}

struct Task {
    client: Client,
    source: Source,
    out: mpsc::Sender<Message>,
    metrics: Arc<Metrics>,
}

impl Task {
    async fn run(self) {
        let all = watcher::Config::default().page_size(PAGE);
        let labelled = |label: &str| all.clone().labels(label);
        match self.source.kind {
            Kind::Forwards => {
                let api = self.api::<DeserializeGuard<PortForward>>();
                self.pump(watcher(api, all), |guard| read::forward(guard.0)).await;
            }
            Kind::Gateways => {
                let api = self.api::<DeserializeGuard<ForwardGateway>>();
                self.pump(watcher(api, all), |guard| read::gateway(guard.0)).await;
            }
            Kind::Services => self.pump(watcher(self.api::<Service>(), all), |it| read::service(&it)).await,
            Kind::Slices => self.pump(watcher(self.api::<EndpointSlice>(), all), |it| read::slice(&it)).await,
            Kind::ProxyPods => {
                self.pump(watcher(self.api::<Pod>(), labelled(PROXY_LABEL)), |it| read::proxy_pod(&it)).await;
            }
            Kind::Pods => {
                // Pods that have ended run no proxy; the watch reports a pod that ends as deleted.
                let running = all.fields("status.phase!=Succeeded,status.phase!=Failed");
                self.pump(watcher(self.api::<PartialObjectMeta<Pod>>(), running), |it| read::pod(&it)).await;
            }
            Kind::Namespaces => {
                let api = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
                self.pump(watcher(api, all), |it| read::namespace(&it)).await;
            }
            Kind::Grants => grants::run(&self).await,
            Kind::Deployments => {
                let label = format!("app.kubernetes.io/managed-by={}", names::NAME);
                self.pump(watcher(self.api::<Deployment>(), labelled(&label)), |it| read::deployment(&it)).await;
            }
            Kind::Scalers => {
                let label = format!("app.kubernetes.io/managed-by={}", names::NAME);
                let api = self.api::<HorizontalPodAutoscaler>();
                self.pump(watcher(api, labelled(&label)), |it| read::scaler(&it)).await;
            }
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        match &self.source.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Passes events on until the driver is gone.
    async fn pump<K, S>(&self, events: S, convert: impl Fn(K) -> Object)
    where
        K: Debug + Clone + DeserializeOwned + Send + 'static,
        S: Stream<Item = watcher::Result<Event<K>>> + Send,
    {
        let mut events = Box::pin(events.default_backoff());
        let mut failing = false;
        while let Some(event) = events.next().await {
            let seen = match event {
                Ok(event) => self.seen(event, &convert),
                Err(error) => {
                    self.metrics.watch_errors.inc();
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(source = ?self.source, %error, "watch failed, will retry");
                    }
                    continue;
                }
            };
            // The start of a list proves no success, because every retry starts with it.
            failing &= matches!(seen, Seen::Restarted);
            if self.out.send((self.source.clone(), seen)).await.is_err() {
                return;
            }
        }
    }

    fn seen<K>(&self, event: Event<K>, convert: &impl Fn(K) -> Object) -> Seen {
        self.metrics.watch_events.inc();
        match event {
            Event::Init => Seen::Restarted,
            Event::InitDone => Seen::Synced,
            Event::InitApply(object) | Event::Apply(object) => Seen::Upsert(Box::new(convert(object))),
            Event::Delete(object) => Seen::Gone(convert(object).key()),
        }
    }
}
