//! Keeps the aggregated APIs reachable: admits the API server's aggregator, points the Service of the APIs to the
//! leader, and makes the aggregator trust the operator's CA.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Service},
        discovery::v1::EndpointSlice,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use rustls::server::ResolvesServerCert;
use tokio::{sync::watch, time::sleep};

use operator_core::{
    desired::{
        ca::Trusted,
        ca_bundles::{OfApi, of_api},
        metrics_endpoints::slices,
    },
    names::NAME,
    schedule::upkeep::{Checked, Rounds},
};

use crate::platform::{
    deadline::RequestError,
    https::TlsContext,
    lease::Term,
    liveness::Heartbeat,
    metrics::{Metrics, count},
};

/// Interval between two checks, and the longest pause after checks that failed.
const LOOK: Duration = Duration::from_secs(10);
/// First pause after a check that failed.
const SOON: Duration = Duration::from_secs(1);
/// Namespace and name of the `ConfigMap` in which an API server publishes the client CA of its aggregator.
const AUTHENTICATION: (&str, &str) = ("kube-system", "extension-apiserver-authentication");

/// Why the aggregated APIs are not, or may not be, reachable.
#[derive(Debug, thiserror::Error)]
enum UpkeepError {
    /// The API server refused a request, or did not answer.
    #[error("cannot read or write {what}")]
    Api {
        what: &'static str,
        #[source]
        source: RequestError,
    },
    /// The API server publishes no client CA of an aggregator.
    #[error("the API server publishes no client CA of its aggregator, so no client is admitted")]
    NoAggregator,
    /// The names of the aggregator cannot be read. Without them every certificate of its CA would be admitted.
    #[error("cannot read requestheader-allowed-names of ConfigMap extension-apiserver-authentication")]
    Names(#[source] serde_json::Error),
    /// Another Service provides an API, such as that of another installation.
    #[error(
        "APIService {api} points to Service {service}, so the API does not know this operator's proxies; a cluster has \
         only one provider of this API: set customMetrics.enabled and liveApi.enabled in one installation only"
    )]
    Foreign { api: String, service: String },
    /// The aggregator's client CA cannot be used.
    #[error("cannot use the client CA of the API server's aggregator")]
    Tls(#[source] proxy_grpc::TlsError),
}

/// Settings and handles for keeping the aggregated APIs reachable.
pub struct Upkeep {
    /// Client of the API server.
    pub client: Client,
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service, which has no selector.
    pub service: String,
    /// Names of the `APIService`s.
    pub apis: Vec<String>,
    /// IP addresses of this replica's pod.
    pub ips: Vec<IpAddr>,
    /// Port on which this replica serves the APIs.
    pub port: u16,
    /// The serving certificate.
    pub leaf: Arc<dyn ResolvesServerCert>,
    /// TLS context of the server; absent until the aggregator's CA is known.
    pub tls: watch::Sender<Option<Arc<TlsContext>>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Upkeep {
    /// Keeps the aggregated APIs reachable until the process ends.
    pub async fn keep(
        self,
        mut term: watch::Receiver<Term>,
        mut trusted: watch::Receiver<Trusted>,
        heartbeat: Heartbeat,
    ) {
        let (mut rounds, mut let_in) = (Rounds::new(LOOK, SOON, LOOK), None);
        loop {
            let bundle = trusted.borrow_and_update().bundle.clone();
            let leads = term.borrow_and_update().is_some();
            let kept = async {
                self.let_in(&mut let_in, &heartbeat).await?;
                if leads {
                    self.lead_here(&heartbeat).await?;
                }
                // Without CA certificates, another client keeps `caBundle`.
                if leads && !bundle.is_empty() {
                    self.all_be_trusted(&bundle, &heartbeat).await?;
                }
                Ok::<_, UpkeepError>(())
            };
            let next = match Box::pin(kept).await {
                Ok(()) => rounds.checked(Checked::Done),
                Err(error) => {
                    count(&self.metrics.api_errors, "request", "custom-metrics");
                    let next = rounds.checked(Checked::Failed(&error.to_string()));
                    if next.is_news {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, cause, "cannot keep the aggregated APIs reachable, will retry");
                    }
                    next
                }
            };
            let next_round = async {
                tokio::select! {
                    Ok(()) = term.changed() => {}
                    Ok(()) = trusted.changed() => {}
                    () = sleep(next.pause) => {}
                }
            };
            heartbeat.idle(next_round).await;
        }
    }

    /// Admits the aggregator by the client CA and the common names that the API server publishes now.
    async fn let_in(
        &self,
        known: &mut Option<(String, BTreeSet<String>)>,
        heartbeat: &Heartbeat,
    ) -> Result<(), UpkeepError> {
        let (namespace, name) = AUTHENTICATION;
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let failed = |source| UpkeepError::Api { what: "ConfigMap extension-apiserver-authentication", source };
        let data =
            heartbeat.answer(api.get_opt(name)).await.map_err(failed)?.and_then(|it| it.data).unwrap_or_default();
        let Some(roots) = data.get("requestheader-client-ca-file") else {
            self.tls.send_replace(None);
            *known = None;
            return Err(UpkeepError::NoAggregator);
        };
        // An absent, empty or null list admits every name, for the API server itself too.
        let names = data.get("requestheader-allowed-names").filter(|names| !names.is_empty());
        let names = names.map(|names| serde_json::from_str::<Option<BTreeSet<String>>>(names)).transpose();
        let now = (roots.clone(), names.map_err(UpkeepError::Names)?.flatten().unwrap_or_default());
        if known.as_ref() != Some(&now) {
            let tls = TlsContext::with_client_auth(self.leaf.clone(), &now.0, now.1.clone());
            self.tls.send_replace(Some(Arc::new(tls.map_err(UpkeepError::Tls)?)));
            *known = Some(now);
        }
        Ok(())
    }

    /// Makes this replica the endpoint of the Service. The Service owns the `EndpointSlice`s.
    async fn lead_here(&self, heartbeat: &Heartbeat) -> Result<(), UpkeepError> {
        let failed = |source| UpkeepError::Api { what: "the Service of the aggregated APIs", source };
        let services = Api::<Service>::namespaced(self.client.clone(), &self.namespace);
        let service = heartbeat.answer(services.get(&self.service)).await.map_err(failed)?;
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &self.namespace);
        let failed = |source| UpkeepError::Api { what: "an EndpointSlice of the aggregated APIs", source };
        for (name, slice) in slices(&self.service, service.metadata.uid.as_deref(), &self.ips, self.port) {
            let patch = Patch::Apply(&slice);
            heartbeat.answer(api.patch(&name, &PatchParams::apply(NAME).force(), &patch)).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Makes the aggregator trust the CA for every API. A failure for one API does not delay the others.
    async fn all_be_trusted(&self, bundle: &str, heartbeat: &Heartbeat) -> Result<(), UpkeepError> {
        let mut result = Ok(());
        for name in &self.apis {
            result = result.and(self.be_trusted(name, bundle, heartbeat).await);
        }
        result
    }

    /// Makes the aggregator trust the CA for an API.
    async fn be_trusted(&self, name: &str, bundle: &str, heartbeat: &Heartbeat) -> Result<(), UpkeepError> {
        let failed = |source| UpkeepError::Api { what: "an APIService of the operator", source };
        let api = Api::<APIService>::all(self.client.clone());
        let Some(existing) = heartbeat.answer(api.get_opt(name)).await.map_err(failed)? else { return Ok(()) };
        let patch = match of_api(existing, (self.namespace.as_str(), self.service.as_str()), bundle) {
            OfApi::Current => return Ok(()),
            OfApi::Outdated(patch) => patch,
            OfApi::Foreign(service) => return Err(UpkeepError::Foreign { api: name.to_owned(), service }),
        };
        let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
        heartbeat.answer(api.patch(name, &parameters, &Patch::Merge(patch))).await.map(drop).map_err(failed)
    }
}
