//! A namespace of one test.

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, ServiceAccount};
use kube::{Api, Resource, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use super::{
    cluster::{Cluster, RUNTIME, Said},
    diagnosis,
};

/// Longest wait for a condition of an object.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kinds that live in namespaces.
pub trait Namespaced:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

impl<K> Namespaced for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

/// A namespace that goes away with the test, unless the test failed.
#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
    patience: Duration,
}

impl<'a> Namespace<'a> {
    #[track_caller]
    pub(super) fn create(cluster: &'a Cluster, name: String) -> Self {
        cluster.kubectl(&["create", "namespace", &name]).ok();
        Self { cluster, name, patience: PATIENCE }
    }

    /// Waits for what Pods need before they may be made: the service account that controllers put there.
    #[track_caller]
    #[must_use]
    pub fn for_pods(self) -> Self {
        self.until::<ServiceAccount>("default", "is there", |_| true);
        self
    }

    /// With another longest wait for a condition than a minute.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// kubectl in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Said {
        self.kubectl_with(arguments, "")
    }

    /// The same with something on its standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Said {
        self.cluster.kubectl_with(&[&["--namespace", &self.name], arguments].concat(), input)
    }

    /// `kubectl apply` of manifests that must be accepted.
    #[track_caller]
    pub fn apply(&self, manifests: &str) -> String {
        self.kubectl_with(&["apply", "-f", "-"], manifests).ok()
    }

    /// The same; whether they were accepted.
    pub fn try_apply(&self, manifests: &str) -> bool {
        self.kubectl_with(&["apply", "--request-timeout=5s", "-f", "-"], manifests).success
    }

    /// A client for one kind here.
    pub fn api<K: Namespaced>(&self) -> Api<K> {
        Api::namespaced(self.cluster.client(), &self.name)
    }

    /// An object, if it is there.
    #[track_caller]
    pub fn get<K: Namespaced>(&self, name: &str) -> Option<K> {
        let api = self.api::<K>();
        RUNTIME
            .block_on(async { api.get_opt(name).await })
            .unwrap_or_else(|error| panic!("cannot get {} {name}: {error}{}", K::kind(&()), self.cluster.failure()))
    }

    /// Waits until an object fulfils a condition, and gives it.
    ///
    /// # Panics
    /// It did not within a minute: with the object, events and logs.
    #[track_caller]
    pub fn until<K: Namespaced>(&self, name: &str, what: &str, condition: impl Fn(&K) -> bool) -> K {
        self.poll(name, what, |found| found.filter(|object| condition(object)))
    }

    /// Waits until an object is gone.
    ///
    /// # Panics
    /// It was still there after a minute: with the object, events and logs.
    #[track_caller]
    pub fn until_gone<K: Namespaced>(&self, name: &str) {
        self.poll(name, "is gone", |found: Option<K>| found.is_none().then_some(()));
    }

    #[track_caller]
    #[allow(clippy::disallowed_methods, reason = "polls")]
    fn poll<K: Namespaced, T>(&self, name: &str, what: &str, done: impl Fn(Option<K>) -> Option<T>) -> T {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(result) = done(self.get(name)) {
                return result;
            }
            if Instant::now() > deadline {
                let kind = K::kind(&());
                let clues = diagnosis::of(self, &kind, name);
                panic!("{kind} {name}: not so within {:?}: {what}\n{clues}", self.patience);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // What a failed test leaves is looked at; a cluster of our own ends anyway.
        if !thread::panicking() {
            let _ = RUNTIME.block_on(async {
                let api: Api<NamespaceObject> = Api::all(self.cluster.client());
                api.delete(&self.name, &kube::api::DeleteParams::default()).await
            });
        }
    }
}
