//! The cluster: requests with deadlines, lists in pages, and the names of missing rights.

use std::{fmt::Debug, time::Duration};

use http::{Request, StatusCode, header::DATE};
use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{Timestamp, fmt::rfc2822::DateTimeParser},
};
use kube::{
    Api, Client, Config, Resource,
    api::ListParams,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
    core::NamespaceResourceScope,
};
use kubectl_core::{
    access::{Fetched, Listed, Place, Unknown},
    nearest::nearest,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::{args::Connection, error::Error};

/// Objects of one page of a list.
const PAGE: u32 = 500;
/// Most pages of a list: 20,000 objects.
const PAGES: u32 = 40;

/// A cluster, and the selected namespace.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    address: String,
    deadline: Duration,
    /// The selected namespace.
    pub(crate) namespace: String,
}

/// A kind that this program reads.
pub(crate) trait Kind: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned {}

impl<K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned> Kind for K {}

impl Cluster {
    /// Connects according to the arguments and the kubeconfig.
    pub(crate) async fn connect(connection: &Connection) -> Result<Self, Error> {
        let file = match &connection.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
        let file = file?;
        has_context(&file, connection.context.as_deref())?;
        let mut config = Config::from_custom_kubeconfig(file, &options).await?;
        config.connect_timeout = Some(connection.deadline());
        // A retry would outlive the deadline of the request.
        config.default_retry = false;
        let address = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))?;
        Ok(Self { client, address, deadline: connection.deadline(), namespace })
    }

    /// Reads the time from the clock of the API server, which wrote the times from which ages are computed. The request
    /// also shows that the server can be used at all.
    pub(crate) async fn now(&self) -> Result<Timestamp, Error> {
        let address = || self.address.clone();
        let unreachable = |source| Error::Unreachable { address: address(), source: Box::new(source) };
        let request = Request::get("/version").body(Body::from(Vec::new()));
        let request = request.map_err(kube::Error::HttpError).map_err(unreachable)?;
        let Ok(response) = timeout(self.deadline, self.client.send(request)).await else {
            return Err(Error::Silent { address: address(), seconds: self.deadline.as_secs() });
        };
        let response = response.map_err(unreachable)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(Error::Credentials { address: address() });
        }
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let parsed = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
        Ok(parsed.unwrap_or_else(Timestamp::now))
    }

    /// Reads the schemas that the API server publishes for the kinds of Portlane; `None` if it serves none.
    pub(crate) async fn published(&self) -> Fetched<Option<Value>> {
        let path = format!("/openapi/v3/apis/{}/{}", crds::GROUP, crds::VERSION);
        let asked = Asked { verb: "get", resource: path.clone(), place: Place::Cluster };
        let request = async {
            let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
            self.client.request::<Value>(request).await
        };
        self.optional(asked, request).await
    }

    /// Reads an object of a namespace; `None` if it does not exist.
    pub(crate) async fn get<K>(&self, namespace: &str, name: &str) -> Fetched<Option<K>>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        self.optional(Asked::of::<K>("get", Place::Namespace(namespace.to_owned())), api.get(name)).await
    }

    /// Reads an object of the cluster; `None` if it does not exist.
    pub(crate) async fn get_global<K: Kind>(&self, name: &str) -> Fetched<Option<K>> {
        let api = Api::<K>::all(self.client.clone());
        self.optional(Asked::of::<K>("get", Place::Cluster), api.get(name)).await
    }

    /// Lists objects of one namespace, or of all. A kind that the cluster does not have has no objects.
    pub(crate) async fn list<K>(&self, place: &Place, params: ListParams) -> Fetched<Listed<K>>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        let api = match place {
            Place::Namespace(name) => Api::<K>::namespaced(self.client.clone(), name),
            Place::Cluster | Place::Everywhere => Api::<K>::all(self.client.clone()),
        };
        self.pages(&api, place, params).await
    }

    /// Lists objects of the cluster.
    pub(crate) async fn list_global<K: Kind>(&self) -> Fetched<Listed<K>> {
        self.pages(&Api::<K>::all(self.client.clone()), &Place::Cluster, ListParams::default()).await
    }

    async fn pages<K: Kind>(&self, api: &Api<K>, place: &Place, params: ListParams) -> Fetched<Listed<K>> {
        let mut params = params.limit(PAGE);
        let mut listed = Listed::default();
        for _ in 0..PAGES {
            let asked = Asked::of::<K>("list", place.clone());
            let Some(page) = self.optional(asked, api.list(&params)).await? else { return Ok(listed) };
            listed.items.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(listed),
            }
        }
        listed.is_cut = true;
        Ok(listed)
    }

    /// Address of the API server.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Longest wait for the answer to one request.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Returns a client, for requests outside this module.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Returns the pods of a namespace, for requests outside this module.
    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Returns the API of a kind in a namespace, for watches.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Awaits the answer to a request, within the deadline.
    pub(crate) async fn answer<T>(
        &self,
        asked: Asked,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Fetched<T> {
        self.optional(asked.clone(), request).await?.ok_or_else(|| asked.failed("it does not exist".to_owned()))
    }

    /// Awaits the answer to a request, within the deadline; `None` if the API server answers 404.
    async fn optional<T>(
        &self,
        asked: Asked,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Fetched<Option<T>> {
        match timeout(self.deadline, request).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Err(asked.forbidden()),
            Ok(Err(kube::Error::Api(status))) => Err(asked.failed(status.message)),
            Ok(Err(error)) => Err(asked.failed(error.to_string())),
            Err(_) => Err(asked.failed(format!("no answer within {} s", self.deadline.as_secs()))),
        }
    }
}

/// Fails if the kubeconfig does not have the context: its current one, unless the user names another.
fn has_context(file: &Kubeconfig, context: Option<&str>) -> Result<(), Error> {
    let Some(name) = context.or(file.current_context.as_deref()).filter(|name| !name.is_empty()) else { return Ok(()) };
    let names = file.contexts.iter().map(|context| context.name.as_str());
    if names.clone().any(|known| known == name) {
        return Ok(());
    }
    Err(Error::NoContext { name: name.to_owned(), nearest: nearest(name, names).map(str::to_owned) })
}

/// The subject of a request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    verb: &'static str,
    resource: String,
    place: Place,
}

impl Asked {
    /// A request with a verb on a kind.
    pub(crate) fn of<K: Kind>(verb: &'static str, place: Place) -> Self {
        let (plural, group) = (K::plural(&()), K::group(&()));
        let resource = if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") };
        Self { verb, resource, place }
    }

    /// A request with a verb and a resource, as RBAC names them.
    pub(crate) fn new(verb: &'static str, resource: &str, place: Place) -> Self {
        Self { verb, resource: resource.to_owned(), place }
    }

    /// A request for the log of a pod.
    pub(crate) fn log(namespace: &str) -> Self {
        Self { verb: "get", resource: "pods/log".to_owned(), place: Place::Namespace(namespace.to_owned()) }
    }

    /// The error that the user lacks the right.
    pub(crate) fn forbidden(self) -> Unknown {
        Unknown::Forbidden { verb: self.verb, resource: self.resource, place: self.place }
    }

    /// The error that the request failed.
    pub(crate) fn failed(self, message: String) -> Unknown {
        Unknown::Failed { verb: self.verb, resource: self.resource, place: self.place, message }
    }
}
