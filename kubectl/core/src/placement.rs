//! The pods that run a forward.

use crds::{PortForward, Selector, SelectorOperator};
use k8s_openapi::api::core::v1::Pod;
use operator_core::{
    ObjectKey,
    names::{CONTAINER, GATEWAY_LABEL, PROXY_LABEL},
};

/// Name of the proxy's container in the pods of a gateway.
const GATEWAY_CONTAINER: &str = "proxy";

/// The pods that should run a forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodQuery {
    /// Namespace of the pods.
    pub namespace: String,
    /// Label selector, in the syntax of the API.
    pub labels: String,
    /// Name of the proxy's container.
    pub container: &'static str,
}

/// Namespace and name of a forward; empty texts where the API server left them out.
pub fn key(forward: &PortForward) -> ObjectKey {
    let metadata = &forward.metadata;
    ObjectKey::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// The gateway of a forward; `None` for a sidecar.
pub fn gateway(forward: &PortForward) -> Option<ObjectKey> {
    let gateway = forward.spec.placement.gateway.as_ref()?;
    let namespace = gateway.namespace.clone().unwrap_or_else(|| key(forward).namespace);
    Some(ObjectKey::new(namespace, gateway.name.clone()))
}

/// The pods that should run a forward.
pub fn pods(forward: &PortForward) -> PodQuery {
    if let Some(gateway) = gateway(forward) {
        let labels = format!("{GATEWAY_LABEL}={}", gateway.name);
        return PodQuery { namespace: gateway.namespace, labels, container: GATEWAY_CONTAINER };
    }
    let sidecar = forward.spec.placement.sidecar.as_ref();
    let labels = sidecar.map(|sidecar| selector(&sidecar.selector)).unwrap_or_default();
    PodQuery { namespace: key(forward).namespace, labels, container: CONTAINER }
}

/// Name of the proxy's container in a pod.
pub fn container(pod: &Pod) -> &'static str {
    let labels = pod.metadata.labels.as_ref();
    let role = labels.and_then(|labels| labels.get(PROXY_LABEL)).map(String::as_str);
    if role == Some("gateway") { GATEWAY_CONTAINER } else { CONTAINER }
}

/// Whether a pod has a container of this name, started before the others or beside them.
pub fn carries(pod: &Pod, container: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.init_containers.iter().flatten().chain(&spec.containers).any(|found| found.name == container)
}

/// A selector in the syntax of the API.
fn selector(selector: &Selector) -> String {
    let labels = selector.match_labels.iter().map(|(key, value)| format!("{key}={}", value.0));
    let expressions = selector.match_expressions.iter().map(|requirement| {
        let key = &requirement.key;
        let values = requirement.values.iter().map(|value| value.0.as_str()).collect::<Vec<_>>().join(",");
        match requirement.operator {
            SelectorOperator::In => format!("{key} in ({values})"),
            SelectorOperator::NotIn => format!("{key} notin ({values})"),
            SelectorOperator::Exists => key.clone(),
            SelectorOperator::DoesNotExist => format!("!{key}"),
        }
    });
    labels.chain(expressions).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The forward shop/db with this placement.
    pub(crate) fn forward(placement: &str) -> PortForward {
        let text = format!(
            "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: db, namespace: shop}}, \
             spec: {{placement: {placement}, listeners: []}}}}"
        );
        serde_yaml::from_str(&text).expect("a forward")
    }

    #[test]
    fn pods_of_a_sidecar_match_its_selector() {
        let placement = "{sidecar: {selector: {matchLabels: {app: shop, tier: web}, matchExpressions: [\
            {key: a, operator: In, values: [x, y]}, {key: b, operator: NotIn, values: [z]}, \
            {key: c, operator: Exists}, {key: d, operator: DoesNotExist}]}}}";
        let query = pods(&forward(placement));
        assert_eq!(query.labels, "app=shop,tier=web,a in (x,y),b notin (z),c,!d");
        assert_eq!((query.namespace.as_str(), query.container), ("shop", "portlane-proxy"));
        assert_eq!(pods(&forward("{sidecar: {selector: {}}}")).labels, "");
    }

    #[test]
    fn pods_of_a_gateway_are_in_the_namespace_of_the_gateway() {
        let query = pods(&forward("{gateway: {name: edge, namespace: net}}"));
        assert_eq!(
            query,
            PodQuery { namespace: "net".into(), labels: "portlane.dev/gateway=edge".into(), container: "proxy" }
        );
        assert_eq!(pods(&forward("{gateway: {name: edge}}")).namespace, "shop");
    }

    #[test]
    fn a_container_is_named_by_the_role_of_its_pod_and_found_among_all_that_run() {
        let pod = |text: &str| serde_yaml::from_str::<Pod>(text).expect("a pod");
        let fleet = pod("{metadata: {labels: {portlane.dev/proxy: gateway}}, spec: {containers: [{name: proxy}]}}");
        assert_eq!(container(&fleet), "proxy");
        assert!(carries(&fleet, "proxy") && !carries(&fleet, "portlane-proxy"));
        let labels = "metadata: {labels: {portlane.dev/proxy: sidecar}}";
        let injected = pod(&format!(
            "{{{labels}, spec: {{initContainers: [{{name: portlane-proxy}}], containers: [{{name: app}}]}}}}"
        ));
        assert_eq!(container(&injected), "portlane-proxy");
        assert!(carries(&injected, "portlane-proxy") && carries(&injected, "app") && !carries(&injected, "proxy"));
        assert_eq!(container(&Pod::default()), "portlane-proxy");
        assert!(!carries(&Pod::default(), "app"), "a pod without a spec");
    }
}
