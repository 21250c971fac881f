//! `kubectl portlane config POD`: the configuration of a proxy, its reports, and the difference.

use std::collections::BTreeMap;

use operator_core::ObjectKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    check::{Check, Outcome},
    units::count,
};

/// The configuration and the reports of a pod's proxy: a response of the live API. Fields that an older operator does
/// not write have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// Whether the proxy has a stream to the operator. Absent in responses that do not say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// The version that the proxy should run.
    pub version: Version,
    /// Number of the last version that the proxy has applied.
    pub applied: Option<u64>,
    /// Whether the proxy has applied the version, and every listener is bound as published.
    pub in_force: bool,
    /// The listeners that the proxy should run.
    pub listeners: Vec<Listener>,
    /// Endpoints of backends, by the name that listeners refer to.
    pub endpoints: BTreeMap<String, Value>,
}

/// A version of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Version {
    /// Leadership term.
    pub epoch: String,
    /// Increases within the term.
    pub number: u64,
}

/// A listener that a proxy should run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// The listener, as `NAMESPACE/FORWARD/LISTENER`.
    pub id: String,
    /// Hash of the listener's spec.
    pub revision: String,
    /// Bound, Pending or Failed.
    pub state: String,
    /// Why the proxy cannot run this revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The revision that keeps serving in place of the failed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<String>,
    /// The delivery state of the listener. Absent: the listener is not durable, the proxy has not reported it, or the
    /// operator is older.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// The spec, as the proxy gets it.
    pub spec: Value,
}

/// Why a proxy cannot run a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// Reason, such as `AddressInUse`.
    pub reason: String,
    /// Message of the proxy.
    pub message: String,
}

/// The configuration of a proxy, and how its reports differ from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The pod, as `NAMESPACE/NAME`.
    pub pod: String,
    /// The version that the proxy runs.
    pub proxy: Check,
    /// One check for each listener.
    pub listeners: Vec<Check>,
    /// One check for each set of endpoints.
    pub endpoints: Vec<Check>,
    /// The configuration as the live API returns it.
    pub config: ProxyConfig,
}

/// The report on the configuration of a pod's proxy.
pub fn report(pod: &ObjectKey, config: ProxyConfig) -> Report {
    Report {
        pod: pod.to_string(),
        proxy: proxy(pod, &config),
        listeners: config.listeners.iter().map(listener).collect(),
        endpoints: config.endpoints.iter().map(|(name, set)| endpoints(name, set)).collect(),
        config,
    }
}

fn proxy(pod: &ObjectKey, config: &ProxyConfig) -> Check {
    const NAME: &str = "proxy";
    let published = config.version.number;
    if config.connected == Some(false) {
        let log = format!("look at its log: kubectl -n {} logs {} --all-containers", pod.namespace, pod.name);
        let detail = "has no stream to the operator, and keeps running its last configuration, which may differ from \
                      the following";
        return Check::failed(NAME, detail).hint(log);
    }
    match config.applied {
        _ if config.in_force => Check::ok(NAME, format!("runs version {published}, the newest")),
        None => Check::warning(NAME, format!("has not applied version {published} yet")),
        Some(applied) if applied < published => {
            Check::warning(NAME, format!("has applied version {applied}, and should run version {published}"))
        }
        Some(_) => {
            let different = config.listeners.iter().filter(|listener| listener.state != "Bound").count() as u64;
            let listeners = count(different, "listener");
            Check::warning(NAME, format!("has applied version {published}, except for {listeners}"))
        }
    }
}

fn listener(listener: &Listener) -> Check {
    let (name, revision, what) = (&listener.id, &listener.revision, socket(&listener.spec));
    match listener.state.as_str() {
        "Bound" => Check::ok(name, format!("{what}, revision {revision}")),
        "Failed" => {
            let failure = listener.failure.clone().unwrap_or_default();
            let rest = match &listener.serving {
                Some(serving) => format!("revision {serving} keeps serving"),
                None => "nothing serves".to_owned(),
            };
            let detail = format!("{what}, revision {revision}: {}: {}; {rest}", failure.reason, failure.message);
            Check::failed(name, detail)
        }
        _ => Check::warning(name, format!("{what}, revision {revision}: the proxy has not reported on it")),
    }
}

/// Socket and backends of a listener.
fn socket(spec: &Value) -> String {
    let socket = &spec["socket"];
    let Some(port) = socket["port"].as_u64() else { return "an unknown socket".to_owned() };
    let last = spec["endPort"].as_u64().map(|last| format!("-{last}")).unwrap_or_default();
    let address = if socket["bind"] == "Loopback" { "127.0.0.1" } else { "*" };
    let transport = socket["transport"].as_str().unwrap_or("?");
    let backends = spec["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let backends: Vec<&str> = backends.iter().filter_map(|backend| backend["id"].as_str()).collect();
    let backends = if backends.is_empty() { "no backend".to_owned() } else { backends.join(", ") };
    format!("{address}:{port}{last}/{transport} -> {backends}")
}

fn endpoints(name: &str, set: &Value) -> Check {
    match set["addresses"].as_array().map_or(0, Vec::len) as u64 {
        0 => Check::new(name, Outcome::Warning, "no address"),
        1 => Check::ok(name, "1 address"),
        addresses => Check::ok(name, format!("{addresses} addresses")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_behind_or_has_applied_the_version_but_for_some_listeners() {
        let listener = |state: &str| Listener { state: state.to_owned(), ..Listener::default() };
        let config = |applied: Option<u64>, in_force: bool| ProxyConfig {
            version: Version { number: 5, ..Version::default() },
            applied,
            in_force,
            listeners: ["Bound", "Failed"].map(listener).into(),
            ..ProxyConfig::default()
        };
        let of = |applied, in_force| {
            let proxy = report(&ObjectKey::new("shop", "p"), config(applied, in_force)).proxy;
            (proxy.outcome, proxy.detail)
        };
        let warning = |detail: &str| (Outcome::Warning, detail.to_owned());
        assert_eq!(of(None, false), warning("has not applied version 5 yet"));
        assert_eq!(of(Some(4), false), warning("has applied version 4, and should run version 5"));
        assert_eq!(of(Some(5), false), warning("has applied version 5, except for 1 listener"));
        assert_eq!(of(Some(5), true), (Outcome::Ok, "runs version 5, the newest".to_owned()));
        let cut_off = ProxyConfig { connected: Some(false), ..config(Some(5), true) };
        assert_eq!(report(&ObjectKey::new("shop", "p"), cut_off).proxy.outcome, Outcome::Failed);
    }
}
