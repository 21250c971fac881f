//! A namespace of one test.

pub(super) mod diagnosis;

use std::{
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, ServiceAccount};
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::{NamespaceResourceScope, ObjectMeta, Request},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, RUNTIME},
    output::CommandOutput,
};
use crate::PATIENCE;

/// Field manager of what tests write without kubectl.
const MANAGER: &str = "portlane-tests";
/// How often a dry run is tried.
const DRY_RUNS: usize = 5;

/// Kinds that live in namespaces.
pub trait Namespaced:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

impl<K> Namespaced for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

/// A namespace that is deleted with the test, unless the test failed in a cluster that was given.
#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
    patience: Duration,
}

impl Cluster {
    /// A namespace of the caller's own, named after its purpose.
    #[track_caller]
    pub fn namespace(&self, purpose: &str) -> Namespace<'_> {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let name = format!("{purpose}-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        Namespace::create(self, name)
    }
}

impl<'a> Namespace<'a> {
    #[track_caller]
    fn create(cluster: &'a Cluster, name: String) -> Self {
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let object = NamespaceObject { metadata, ..NamespaceObject::default() };
        let api: Api<NamespaceObject> = Api::all(cluster.client());
        let created = RUNTIME.block_on(async { api.create(&PostParams::default(), &object).await });
        created.unwrap_or_else(|error| panic!("cannot create namespace {name}: {error}{}", cluster.failure()));
        Self { cluster, name, patience: PATIENCE }
    }

    /// Waits for the service account that controllers create, without which no Pod is accepted.
    #[track_caller]
    #[must_use]
    pub fn for_pods(self) -> Self {
        self.until::<ServiceAccount>("default", "exists", |_| true);
        self
    }

    /// With the most restricted profile of Pod Security.
    #[must_use]
    pub fn restricted(self) -> Self {
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        self.cluster.kubectl(&["label", "namespace", &self.name, restricted]).ok();
        self
    }

    /// With another longest wait for a condition than [`PATIENCE`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Name of the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that has the namespace.
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// kubectl in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> CommandOutput {
        self.kubectl_with(arguments, "")
    }

    /// kubectl in this namespace with a text on standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> CommandOutput {
        self.cluster.kubectl_with(&[&["--namespace", &self.name], arguments].concat(), input)
    }

    /// A kubeconfig in this folder, with the token of a `ServiceAccount`.
    ///
    /// # Panics
    /// There is no such account, or the folder cannot be written to.
    pub fn kubeconfig_of(&self, account: &str, folder: &Path) -> PathBuf {
        let token = self.kubectl(&["create", "token", account]).ok();
        let administrator = fs::read_to_string(self.cluster.kubeconfig()).expect("a kubeconfig");
        let mut kubeconfig: Value = serde_yaml::from_str(&administrator).expect("YAML");
        kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
        let path = folder.join("kubeconfig");
        fs::write(&path, kubeconfig.to_string()).expect("a kubeconfig");
        path
    }

    /// `kubectl apply` of manifests that must be accepted.
    #[track_caller]
    pub fn apply(&self, manifests: &str) -> String {
        self.kubectl_with(&["apply", "-f", "-"], manifests).ok()
    }

    /// `kubectl apply` of manifests; whether they were accepted.
    pub fn try_apply(&self, manifests: &str) -> bool {
        self.kubectl_with(&["apply", "--request-timeout=5s", "-f", "-"], manifests).success
    }

    /// Server-side apply of one manifest (YAML or JSON) of a kind, by a request of this process: milliseconds, where a
    /// kubectl process takes a good part of a second. For tests that write one object many times.
    ///
    /// # Panics
    /// The manifest is not YAML, has no name, or is refused.
    #[track_caller]
    pub fn write<K: Namespaced>(&self, manifest: &str) {
        let object: Value = serde_yaml::from_str(manifest).unwrap_or_else(|error| panic!("{error}:\n{manifest}"));
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let api = self.api::<K>();
        let parameters = PatchParams::apply(MANAGER).force();
        let written = RUNTIME.block_on(async { api.patch(&name, &parameters, &Patch::Apply(&object)).await });
        written
            .unwrap_or_else(|error| panic!("cannot apply {} {name}: {error}{}", K::kind(&()), self.cluster.failure()));
    }

    /// A dry run of the creation of an object of a custom resource, with strict validation of fields, as
    /// `kubectl create --dry-run=server` has it.
    ///
    /// # Errors
    /// The message of an API server that refuses the object.
    ///
    /// # Panics
    /// The object has no apiVersion or no kind, or the API server gives no verdict.
    pub fn dry_run(&self, object: &Value) -> Result<(), String> {
        let version = object["apiVersion"].as_str().expect("an apiVersion");
        let plural = format!("{}s", object["kind"].as_str().expect("a kind").to_lowercase());
        let collection = Request::new(format!("/apis/{version}/namespaces/{}/{plural}", self.name));
        let parameters = PostParams { dry_run: true, field_manager: Some(MANAGER.to_owned()) };
        let body = serde_json::to_vec(object).expect("JSON");
        let mut request = collection.create(&parameters, body).expect("a request");
        // The client has no parameter for the validation of fields in a creation.
        let strict = format!("{}&fieldValidation=Strict", request.uri());
        *request.uri_mut() = strict.parse().expect("an address");
        let client = self.cluster.client();
        let ask = || RUNTIME.block_on(client.request_text(request.clone()));
        // A dry run changes nothing, so it may be repeated where a busy server gives no verdict.
        let mut answer = ask();
        for _ in 1..DRY_RUNS {
            if !answer.as_ref().is_err_and(is_no_verdict) {
                break;
            }
            answer = ask();
        }
        match answer {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if !is_busy(status.code, &status.message) => Err(status.message.clone()),
            Err(error) => panic!("no verdict in {DRY_RUNS} dry runs: {error}{}", self.cluster.failure()),
        }
    }

    /// A client for one kind in this namespace.
    pub fn api<K: Namespaced>(&self) -> Api<K> {
        Api::namespaced(self.cluster.client(), &self.name)
    }

    /// An object, if it exists.
    #[track_caller]
    pub fn get<K: Namespaced>(&self, name: &str) -> Option<K> {
        let api = self.api::<K>();
        RUNTIME
            .block_on(async { api.get_opt(name).await })
            .unwrap_or_else(|error| panic!("cannot get {} {name}: {error}{}", K::kind(&()), self.cluster.failure()))
    }

    /// Waits until an object fulfils a condition, and gives the object.
    ///
    /// # Panics
    /// The condition did not hold in time. The message has the object, events and logs.
    #[track_caller]
    pub fn until<K: Namespaced>(&self, name: &str, what: &str, condition: impl Fn(&K) -> bool) -> K {
        self.poll(name, what, |found| found.filter(|object| condition(object)))
    }

    /// Waits until an object is gone.
    ///
    /// # Panics
    /// The object still exists in the end. The message has the object, events and logs.
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
                let diagnosis = diagnosis::of(self, &kind, name);
                panic!("{kind} {name}: not true after {:?}: {what}\n{diagnosis}", self.patience);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // The namespace of a failed test stays, to be looked at, in a cluster that outlives the tests. In one of our own its
        // pods would only take CPU from the tests after it.
        if !thread::panicking() || self.cluster.own.is_some() {
            let _ = RUNTIME.block_on(async {
                let api: Api<NamespaceObject> = Api::all(self.cluster.client());
                api.delete(&self.name, &DeleteParams::default()).await
            });
        }
    }
}

/// Whether an API server has not judged an object: there was no answer, or it is busy.
fn is_no_verdict(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => is_busy(status.code, &status.message),
        _ => true,
    }
}

/// Whether an API server, or its etcd, was too busy for the request.
fn is_busy(code: u16, message: &str) -> bool {
    matches!(code, 429 | 503 | 504) || message.contains("etcdserver: request timed out")
}
