//! Watches of the API server: one task per watch turns events into messages for the driver.
//!
//! A failed request never means that objects are gone. The cache keeps what it knows until a list is complete, or until
//! the API server has given a definite answer ([`operator_core::schedule::access`],
//! [`operator_core::schedule::discovery`]).

mod children;
mod fleets;
mod optional;
mod progress;
mod retrying;

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use crds::{ForwardGateway, PortForward};
use futures_util::Stream;
use k8s_openapi::api::{
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Namespace, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource,
    api::PartialObjectMeta,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use operator_core::{
    names::{self, PROXY_LABEL},
    schedule::access::{Failure, Judged},
    world::{
        child::ChildKind,
        class,
        guarded::Guarded,
        objects::Object,
        read,
        rights::Rights,
        watched::{Kind, Seen, Source},
    },
};

use self::{
    progress::{Progress, classified},
    retrying::Retrying,
};

use crate::platform::{
    client::WATCH_SECONDS,
    lease::Returns,
    liveness::{Heartbeat, Liveness},
    metrics::Metrics,
    tasks::Tasks,
};

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// A message to the driver.
pub type Message = (Source, Seen);

/// A running watch.
struct Running {
    task: JoinHandle<Option<()>>,
    /// Tells the watch to list again.
    again: Arc<Notify>,
}

/// The running watches.
pub struct Watches {
    client: Client,
    out: mpsc::Sender<Message>,
    metrics: Arc<Metrics>,
    /// Whether permissions are granted namespace by namespace.
    is_scoped: bool,
    /// Controller class of the operator.
    class: String,
    tasks: Tasks,
    liveness: Liveness,
    returns: Returns,
    running: BTreeMap<Source, Running>,
}

impl Watches {
    /// Starts the permanent watches. Returns their sources, all of which must sync before the operator works.
    #[must_use]
    pub fn start(
        client: Client,
        (rights, class): (&Rights, &str),
        out: mpsc::Sender<Message>,
        metrics: Arc<Metrics>,
        (tasks, liveness, returns): (Tasks, Liveness, Returns),
    ) -> (Self, Vec<Source>) {
        let (is_scoped, class) = (rights.is_scoped(), class.to_owned());
        let running = BTreeMap::new();
        let mut watches = Self { client, out, metrics, is_scoped, class, tasks, liveness, returns, running };
        let kinds = [
            Kind::Forwards,
            Kind::Gateways,
            Kind::Agents,
            Kind::Services,
            Kind::Slices,
            Kind::ApiServer,
            Kind::ApiServerSlices,
            Kind::ProxyPods,
            Kind::Namespaces,
            Kind::Grants,
            Kind::Deployments,
            Kind::StatefulSets,
            Kind::Claims,
            Kind::Drainers,
            Kind::Scalers,
            Kind::ServiceAccounts,
            Kind::Budgets,
            Kind::Policies,
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
        if let Some(Running { task, .. }) = self.running.remove(&source) {
            task.abort();
        }
    }

    /// Makes a watch list again.
    pub fn list_again(&self, source: &Source) {
        if let Some(Running { again, .. }) = self.running.get(source) {
            again.notify_one();
        }
    }

    fn run(&mut self, source: Source) {
        let name = format!("watch of kind {}", source.kind.name());
        let again = Arc::new(Notify::new());
        let task = Task {
            client: self.client.clone(),
            source: source.clone(),
            is_scoped: self.is_scoped && source.namespace.is_some(),
            class: self.class.clone(),
            out: self.out.clone(),
            metrics: self.metrics.clone(),
            heartbeat: self.liveness.heartbeat(format!("a {name}")),
            again: again.clone(),
            returns: self.returns.clone(),
        };
        let task = self.tasks.job(name, task.run());
        self.running.insert(source, Running { task, again });
    }
}

struct Task {
    client: Client,
    source: Source,
    /// Whether the operator watches single namespaces, one of which may refuse.
    is_scoped: bool,
    /// Controller class of the operator.
    class: String,
    out: mpsc::Sender<Message>,
    metrics: Arc<Metrics>,
    heartbeat: Heartbeat,
    /// Signals that the driver requests another list.
    again: Arc<Notify>,
    /// Signals that the API server answers again.
    returns: Returns,
}

/// Why following a stream of events ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The driver is gone.
    Driver,
    /// The kind has to be listed again.
    Again,
    /// The API server does not serve the kind, which a cluster may lack.
    NotServed,
}

impl Task {
    async fn run(self) {
        let all = config_of(self.source.kind);
        let labelled = |label: &str| all.clone().labels(label);
        match self.source.kind {
            Kind::Forwards => {
                let api = self.api::<Guarded<PortForward>>();
                self.follow(|| watcher(api.clone(), all.clone()), read::forward).await;
            }
            Kind::Gateways => {
                let api = self.api::<Guarded<ForwardGateway>>();
                self.follow(|| watcher(api.clone(), all.clone()), read::gateway).await;
            }
            Kind::Services | Kind::ApiServer => {
                let api = self.api::<Service>();
                self.follow(|| watcher(api.clone(), all.clone()), |it| read::service(&it)).await;
            }
            Kind::Slices | Kind::ApiServerSlices => {
                let api = self.api::<EndpointSlice>();
                self.follow(|| watcher(api.clone(), all.clone()), |it| read::slice(&it)).await;
            }
            Kind::ProxyPods => {
                let (api, pods) = (self.api::<Pod>(), labelled(&self.of_class(PROXY_LABEL)));
                self.follow(|| watcher(api.clone(), pods.clone()), |it| read::proxy_pod(&it)).await;
            }
            Kind::Pods => {
                // Pods that have ended run no proxy; the watch reports a pod that ends as deleted.
                let running = all.fields("status.phase!=Succeeded,status.phase!=Failed");
                let api = self.api::<PartialObjectMeta<Pod>>();
                self.follow(|| watcher(api.clone(), running.clone()), |it| read::pod(&it)).await;
            }
            Kind::Namespaces => {
                let api = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
                self.follow(|| watcher(api.clone(), all.clone()), |it| read::namespace(&it)).await;
            }
            Kind::Agents | Kind::Grants => optional::run(&self).await,
            Kind::Deployments | Kind::StatefulSets | Kind::Claims | Kind::Drainers => fleets::run(&self).await,
            Kind::Scalers => {
                let (api, ours) = (self.api::<HorizontalPodAutoscaler>(), labelled(&self.managed()));
                self.follow(|| watcher(api.clone(), ours.clone()), |it| read::scaler(&it)).await;
            }
            Kind::ServiceAccounts => children::run::<ServiceAccount>(&self, ChildKind::ServiceAccount).await,
            Kind::Budgets => children::run::<PodDisruptionBudget>(&self, ChildKind::PodDisruptionBudget).await,
            Kind::Policies => children::run::<NetworkPolicy>(&self, ChildKind::NetworkPolicy).await,
        }
    }

    /// A label selector that leaves out pods and children of other classes.
    fn of_class(&self, selector: &str) -> String {
        format!("{selector},{}", class::requirement(&self.class))
    }

    /// The selector of objects that this operator creates.
    fn managed(&self) -> String {
        self.of_class(&format!("app.kubernetes.io/managed-by={}", names::NAME))
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

    /// Follows a kind that every cluster has, until the driver is gone. `open` begins with a list.
    async fn follow<K, S>(&self, open: impl Fn() -> S, convert: impl Fn(K) -> Object)
    where
        K: Debug + Clone + DeserializeOwned + Send + 'static,
        S: Stream<Item = watcher::Result<Event<K>>> + Send,
    {
        let mut progress = Progress::new(self);
        while self.pump(&mut progress, open(), &convert).await != Ended::Driver {}
    }

    /// Passes events to the driver.
    async fn pump<K, S>(&self, progress: &mut Progress, events: S, convert: &impl Fn(K) -> Object) -> Ended
    where
        K: Debug + Clone + DeserializeOwned + Send + 'static,
        S: Stream<Item = watcher::Result<Event<K>>> + Send,
    {
        let (mut events, mut retrying) = (Box::pin(events), Retrying::new(self.returns.clone()));
        // The start of a list is passed on with its first answer: every retry begins with a start, and publishing waits
        // while a list is in progress.
        let mut begins = false;
        loop {
            let event = tokio::select! {
                event = self.heartbeat.idle(retrying.next(&mut events)) => event,
                () = self.again.notified() => return Ended::Again,
            };
            let Some(event) = event else { return Ended::Again };
            match event {
                Ok(Event::Init) => begins = true,
                Ok(event) => {
                    retrying.succeeded();
                    let seen = self.seen(event, convert);
                    progress.succeeded(&seen);
                    if std::mem::take(&mut begins) && !self.send(Seen::Restarted).await {
                        return Ended::Driver;
                    }
                    if !self.send(seen).await {
                        return Ended::Driver;
                    }
                }
                Err(error) => {
                    let failure = classified(&error);
                    self.metrics.watch_errors.inc();
                    let judged = progress.failed(failure, &error);
                    if judged == Judged::Withdrawn && !self.send_empty_list().await {
                        return Ended::Driver;
                    }
                    if judged == Judged::Refused {
                        return Ended::Again;
                    }
                    if failure == Failure::NotServed && self.source.kind.is_optional() {
                        return Ended::NotServed;
                    }
                }
            }
        }
    }

    /// Sends a message to the driver, which has a heartbeat of its own. Returns whether the driver still runs.
    async fn send(&self, seen: Seen) -> bool {
        self.heartbeat.idle(self.out.send((self.source.clone(), seen))).await.is_ok()
    }

    /// Sends an empty list to the driver. Returns whether the driver still runs.
    async fn send_empty_list(&self) -> bool {
        self.send(Seen::Restarted).await && self.send(Seen::Synced).await
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

/// The configuration of every watch.
fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS)
}

/// The configuration of a watch of a kind, before labels. The operator may read one Service and one `EndpointSlice` of
/// the namespace `default`: RBAC permits that to a watch that names them by this field.
fn config_of(kind: Kind) -> watcher::Config {
    match kind {
        Kind::ApiServer | Kind::ApiServerSlices => config().fields(&format!("metadata.name={}", names::API_SERVER.1)),
        _ => config(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_watch_asks_for_an_end_so_that_a_dead_one_is_noticed() {
        // C7: without this the watcher waits 295 s for an end.
        assert_eq!(config().timeout, Some(WATCH_SECONDS));
    }

    #[test]
    fn a_watch_of_the_api_server_names_the_one_object_that_it_may_read() {
        let fields = |kind: Kind| config_of(kind).field_selector;
        for kind in [Kind::ApiServer, Kind::ApiServerSlices] {
            assert_eq!(fields(kind).as_deref(), Some("metadata.name=kubernetes"), "{kind:?}");
            assert_eq!(config_of(kind).timeout, Some(WATCH_SECONDS), "{kind:?}");
        }
        assert_eq!((fields(Kind::Services), fields(Kind::Slices)), (None, None));
    }
}
