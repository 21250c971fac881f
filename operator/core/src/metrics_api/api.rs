//! Paths and documents of the custom metrics API.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use proxy_api::Origin;
use serde_json::{Value, json};

use super::labels::Labels;
use crate::{
    status::loads::PodMetric,
    world::{ObjectKey, objects::PodInfo},
};

/// API group.
pub const GROUP: &str = "custom.metrics.k8s.io";
/// Version of the API group.
pub const VERSION: &str = "v1beta2";

/// The requested resource.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// The versions of the group.
    Group,
    /// The available metrics.
    Resources,
    /// Values of a metric for pods.
    Pods {
        /// Namespace of the pods.
        namespace: String,
        /// The requested pods.
        of: Of,
        /// The requested metric.
        metric: PodMetric,
        /// The forward whose share is requested; `None` requests the sum of all.
        forward: Option<Origin>,
    },
    /// A path that this API does not serve.
    Nothing,
}

/// A request for one pod or for several.
#[derive(Debug, PartialEq, Eq)]
pub enum Of {
    /// The pod with this name.
    Pod(String),
    /// All pods that match these labels.
    All(Labels),
}

impl Of {
    /// Returns the requested pods among all pods with a proxy. A terminating pod no longer counts for an autoscaler.
    #[must_use]
    pub fn among<'a>(
        &self,
        pods: &'a BTreeMap<ObjectKey, PodInfo>,
        namespace: &str,
    ) -> Vec<(&'a ObjectKey, &'a PodInfo)> {
        match self {
            Self::Pod(name) => pods.get_key_value(&ObjectKey::new(namespace, name.as_str())).into_iter().collect(),
            Self::All(labels) => {
                let here = pods.range(ObjectKey::new(namespace, "")..);
                let here = here.take_while(|(pod, _)| pod.namespace == namespace);
                here.filter(|(_, info)| !info.leaving && labels.matches(&info.labels)).collect()
            }
        }
    }
}

/// Parses the path and query of a request.
///
/// # Errors
/// Names the part of the request that is malformed.
pub fn route(path: &str, query: &str) -> Result<Asked, String> {
    // HPAs escape the `*` of all pods as `%2A`.
    let decoded = |part| percent_decode_str(part).decode_utf8().map_err(|_| format!("'{part}' is not UTF-8"));
    let parts: Vec<_> = path.trim_matches('/').split('/').map(decoded).collect::<Result<_, _>>()?;
    match parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().as_slice() {
        ["apis", group] if *group == GROUP => Ok(Asked::Group),
        ["apis", group, version] if (*group, *version) == (GROUP, VERSION) => Ok(Asked::Resources),
        ["apis", group, version, "namespaces", namespace, "pods", name, metric]
            if (*group, *version) == (GROUP, VERSION) =>
        {
            let Some(metric) = PodMetric::named(metric) else { return Ok(Asked::Nothing) };
            pods(namespace, name, metric, query)
        }
        _ => Ok(Asked::Nothing),
    }
}

fn pods(namespace: &str, name: &str, metric: PodMetric, query: &str) -> Result<Asked, String> {
    let (mut labels, mut forward) = (Labels::default(), None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "labelSelector" => labels = Labels::parse(&value)?,
            "metricLabelSelector" => {
                let selector = Labels::parse(&value)?;
                forward = match selector.only() {
                    Some(("forward", name)) => Some(Origin::port_forward(namespace, name)),
                    _ if selector.is_empty() => None,
                    _ => return Err("metricLabelSelector supports only forward=NAME".to_owned()),
                };
            }
            _ => {}
        }
    }
    let of = if name == "*" { Of::All(labels) } else { Of::Pod(name.to_owned()) };
    Ok(Asked::Pods { namespace: namespace.to_owned(), of, metric, forward })
}

/// The discovery document of the group, with its only version.
pub fn group() -> Value {
    group_of(GROUP, VERSION)
}

/// The discovery document of a group with one version.
pub(crate) fn group_of(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": [version], "preferredVersion": version})
}

/// The discovery document of the metrics.
pub fn resources() -> Value {
    let resource = |metric: PodMetric| {
        json!({"name": format!("pods/{}", metric.name()), "singularName": "", "namespaced": true, "kind": "MetricValueList",
            "verbs": ["get"]})
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": PodMetric::ALL.map(resource)})
}

/// The values of a metric for pods. `now` is RFC 3339.
pub fn values(namespace: &str, metric: PodMetric, known: &[(String, u64)], now: &str) -> Value {
    let item = |(name, value): &(String, u64)| {
        json!({
            "describedObject": {"kind": "Pod", "namespace": namespace, "name": name, "apiVersion": "v1"},
            "metric": {"name": metric.name(), "selector": null},
            "timestamp": now,
            "value": value.to_string(),
        })
    };
    json!({"kind": "MetricValueList", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {},
        "items": known.iter().map(item).collect::<Vec<_>>()})
}

/// An error as a Kubernetes `Status` object.
pub fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": message,
        "code": code})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_autoscalers_are_parsed() {
        let base = format!("/apis/{GROUP}/{VERSION}");
        assert_eq!(route(&format!("/apis/{GROUP}"), ""), Ok(Asked::Group));
        assert_eq!(route(&base, "timeout=32s"), Ok(Asked::Resources));
        let pods = format!("{base}/namespaces/ns/pods");
        let all = |query: &str| route(&format!("{pods}/%2A/portlane_connections"), query);
        let expected = |forward: Option<&str>| Asked::Pods {
            namespace: "ns".into(),
            of: Of::All(Labels::parse("app=shop").expect("a selector")),
            metric: PodMetric::Connections,
            forward: forward.map(|name| Origin::port_forward("ns", name)),
        };
        assert_eq!(all("labelSelector=app%3Dshop"), Ok(expected(None)));
        assert_eq!(all("labelSelector=app%3Dshop&metricLabelSelector=forward%3Ddb"), Ok(expected(Some("db"))));
        assert!(all("metricLabelSelector=client%3Dx").is_err());
        assert_eq!(route(&format!("{pods}/p/nonsense"), ""), Ok(Asked::Nothing));
        assert_eq!(route("/openapi/v2", ""), Ok(Asked::Nothing));
        let one = route(&format!("{pods}/p/portlane_bytes_per_second"), "");
        assert!(matches!(one, Ok(Asked::Pods { of: Of::Pod(_), metric: PodMetric::BytesPerSecond, .. })));
        let list = values("ns", PodMetric::Connections, &[("p".into(), 7)], "now");
        assert_eq!(
            (&list["items"][0]["value"], &list["items"][0]["describedObject"]["name"]),
            (&json!("7"), &json!("p"))
        );
    }
}
