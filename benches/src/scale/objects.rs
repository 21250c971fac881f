//! The objects of both layouts.

use clap::ValueEnum;
use crds::{ForwardGateway, PortForward};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

/// Namespace of the gateway and its forwards.
pub(super) const NAMESPACE: &str = "fleet";
/// Name of the gateway.
pub(super) const GATEWAY: &str = "edge";
/// Forwards of each app in the sidecar layout.
pub(super) const PER_POD: usize = 10;
/// Apps in each namespace.
const APPS_PER_NAMESPACE: usize = 10;
/// Number of all apps.
pub(super) const APPS: usize = 1000;

/// Where forwards run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// One gateway fleet with all forwards.
    Gateway,
    /// Pods with ten forwards each, of 1,000 apps in 100 namespaces.
    Sidecar,
}

pub(super) fn app_namespace(app: usize) -> String {
    format!("team-{}", app / APPS_PER_NAMESPACE)
}

fn made<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("an object")
}

impl Layout {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Sidecar => "sidecars",
        }
    }

    pub(super) fn namespaces(self) -> Vec<String> {
        match self {
            Self::Gateway => vec![NAMESPACE.to_owned()],
            Self::Sidecar => (0..APPS / APPS_PER_NAMESPACE).map(|at| app_namespace(at * APPS_PER_NAMESPACE)).collect(),
        }
    }

    /// A pod and its namespace.
    pub(super) fn pod(self, at: usize) -> (String, Pod) {
        let app = at % APPS;
        let (namespace, account, labels) = match self {
            Self::Gateway => (
                NAMESPACE.to_owned(),
                GATEWAY,
                json!({"portlane.dev/proxy": "gateway", "portlane.dev/gateway": GATEWAY}),
            ),
            Self::Sidecar => {
                (app_namespace(app), "app", json!({"portlane.dev/proxy": "sidecar", "app": format!("app-{app}")}))
            }
        };
        let pod = made(json!({
            "metadata": {"name": format!("pod-{at}"), "labels": labels},
            "spec": {
                "serviceAccountName": account,
                "automountServiceAccountToken": false,
                "containers": [{"name": "proxy", "image": "none"}],
            },
        }));
        (namespace, pod)
    }

    /// A forward; `port` is the port of its backend.
    pub(super) fn forward(self, at: usize, port: usize) -> PortForward {
        let (namespace, placement, listens) = match self {
            Self::Gateway => (NAMESPACE.to_owned(), json!({"gateway": {"name": GATEWAY}}), 10_000 + at),
            Self::Sidecar => {
                let app = at / PER_POD;
                let selector = json!({"matchLabels": {"app": format!("app-{app}")}});
                (app_namespace(app), json!({"sidecar": {"selector": selector}}), 10_000 + at % PER_POD)
            }
        };
        made(json!({
            "apiVersion": "portlane.dev/v1alpha1",
            "kind": "PortForward",
            "metadata": {"name": format!("forward-{at}"), "namespace": namespace},
            "spec": {
                "placement": placement,
                "listeners": [{
                    "name": "l", "protocol": "TCP", "port": listens,
                    "backends": [{"address": {"host": "203.0.113.7", "port": port}}],
                }],
            },
        }))
    }

    /// Index of the forward for the nth change: a different one each time, of a pod that exists.
    pub(super) fn changed(self, change: usize, forwards: usize, proxies: usize) -> usize {
        let with_pods = match self {
            Self::Gateway => forwards,
            Self::Sidecar => forwards.min(proxies.min(APPS) * PER_POD),
        };
        change * 7919 % with_pods
    }

    /// Number of proxies that run a forward.
    pub(super) fn proxies_of(self, at: usize, proxies: usize) -> usize {
        match self {
            Self::Gateway => proxies,
            Self::Sidecar => (0..proxies).filter(|pod| pod % APPS == at / PER_POD).count(),
        }
    }
}

pub(super) fn gateway() -> ForwardGateway {
    made(json!({
        "apiVersion": "portlane.dev/v1alpha1",
        "kind": "ForwardGateway",
        "metadata": {"name": GATEWAY, "namespace": NAMESPACE},
        "spec": {"replicas": 1, "service": {"type": "None"}},
    }))
}

pub(super) fn account() -> ServiceAccount {
    made(json!({"metadata": {"name": "app"}}))
}

/// Requests a token that is bound to a pod.
pub(super) async fn token(client: &Client, namespace: &str, account: &str, pod: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let uid = pods.get(pod).await.expect("there").metadata.uid;
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.to_owned()),
        uid,
    };
    let spec = TokenRequestSpec {
        audiences: vec![proxy_api::AUDIENCE.to_owned()],
        bound_object_ref: Some(bound),
        expiration_seconds: Some(7200),
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await.expect("a token");
    made.status.expect("a status").token
}

/// Whether the newest generation of a forward is programmed.
pub(super) fn is_programmed(forward: &PortForward) -> bool {
    let conditions = forward.status.iter().flat_map(|status| &status.conditions);
    let mut programmed = conditions.filter(|condition| condition.type_ == "Programmed");
    programmed.any(|found| found.status == "True" && found.observed_generation == forward.metadata.generation)
}
