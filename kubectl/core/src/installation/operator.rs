//! An operator as its Deployment describes it.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Container};

/// Variable of the operator's container that no other program has.
const LEASE: &str = "PORTLANE_LEASE";

/// An operator, with the names of the objects that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Namespace of the operator.
    pub namespace: String,
    /// Name of the Deployment.
    pub name: String,
    /// Version, from the label of the Deployment.
    pub version: Option<String>,
    /// Name of the Lease.
    pub lease: String,
    /// Name of the Service that proxies and API servers connect to.
    pub service: String,
    /// Name of the `MutatingWebhookConfiguration`; `None` without injection.
    pub webhook: Option<String>,
    /// Whether the operator serves the metrics API.
    pub serves_metrics: bool,
    /// Whether the operator serves the live API.
    pub serves_live: bool,
    /// Image that new proxies run.
    pub proxy_image: Option<String>,
}

impl Operator {
    /// The operator of a Deployment; `None` if the Deployment runs another program.
    pub fn read(deployment: &Deployment) -> Option<Self> {
        let metadata = &deployment.metadata;
        let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
        let container = pod.containers.iter().find(|container| has(container, LEASE))?;
        let name = metadata.name.clone()?;
        let labels = metadata.labels.as_ref();
        // The address is HOST:PORT, whose host is SERVICE.NAMESPACE.svc.
        let service = value(container, "PORTLANE_OPERATOR").and_then(|address| address.split('.').next());
        Some(Self {
            namespace: metadata.namespace.clone()?,
            version: labels.and_then(|labels| labels.get("app.kubernetes.io/version")).cloned(),
            lease: value(container, LEASE).unwrap_or("portlane-operator").to_owned(),
            service: service.unwrap_or(&name).to_owned(),
            webhook: value(container, "PORTLANE_WEBHOOK").map(str::to_owned),
            serves_metrics: serves(container, "custom-metrics"),
            serves_live: serves(container, "live"),
            proxy_image: value(container, "PORTLANE_PROXY_IMAGE").map(str::to_owned),
            name,
        })
    }

    /// Formats a command of kubectl in the namespace of the operator.
    pub fn kubectl(&self, words: &str) -> String {
        format!("kubectl --namespace {} {words}", self.namespace)
    }
}

fn has(container: &Container, name: &str) -> bool {
    container.env.iter().flatten().any(|variable| variable.name == name)
}

/// Whether the operator serves an aggregated API. Without a list it serves all of them.
fn serves(container: &Container, api: &str) -> bool {
    let apis = value(container, "PORTLANE_APIS");
    has(container, "PORTLANE_CUSTOM_METRICS_ADDRESS") && apis.is_none_or(|apis| apis.split(',').any(|it| it == api))
}

fn value<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    container.env.iter().flatten().find(|variable| variable.name == name)?.value.as_deref()
}
