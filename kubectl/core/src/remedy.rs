//! The next step for a reason: of a condition, or of the end of a session.
//!
//! Messages of the operator name the remedy wherever the operator knows one. This module adds the steps that need
//! kubectl or the names of related objects.

use crds::{ForwardAgent, ForwardGateway, PortForward};
use operator_core::names::GATEWAY_LABEL;

use crate::placement::{gateway, key, pods};

/// The next step for a forward whose condition has this reason; `None` where the message of the condition, or an item
/// below it, names the step.
pub fn of_forward(forward: &PortForward, reason: &str) -> Option<String> {
    let fleet = gateway(forward);
    match (reason, fleet) {
        ("AddressNotAllowed", Some(gateway)) => Some(format!(
            "name the network in spec.allowedForwards.addressCIDRs of ForwardGateway {gateway}, or use another backend"
        )),
        ("NoProxies", Some(gateway)) => Some(refused_pods(&gateway.namespace)),
        ("ReportTimeout", _) => Some(cut_off(forward)),
        ("BackendLoop", _) => Some("name the real server as the backend".to_owned()),
        ("Unsupported", _) => Some("install CRDs and operator of the same release: kubectl portlane status".to_owned()),
        _ => None,
    }
}

/// The next step for a proxy that does not report: its log says why it does not reach the operator.
pub fn cut_off(forward: &PortForward) -> String {
    let query = pods(forward);
    format!(
        "read why a proxy does not reach the operator: kubectl -n {} logs -l '{}' -c {} --prefix --tail 20",
        query.namespace, query.labels, query.container
    )
}

/// The next step for a gateway that is not ready for this reason. `message` is that of the condition.
pub fn of_gateway(gateway: &ForwardGateway, reason: &str, message: &str) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&gateway.metadata.namespace), text(&gateway.metadata.name));
    match reason {
        "NoProxies" => refused_pods(&namespace),
        "ChildrenFailed" if message.contains("exceeded quota") => {
            format!(
                "raise the quota, or lower what the gateway asks for: kubectl -n {namespace} describe resourcequota"
            )
        }
        _ => format!("kubectl -n {namespace} describe forwardgateway {name}"),
    }
}

/// The next step for a fleet that is outdated for this reason; `None` where the message of the condition already
/// explains the wait.
pub fn of_outdated(gateway: &ForwardGateway, reason: &str) -> Option<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&gateway.metadata.namespace), text(&gateway.metadata.name));
    (reason == "ProgressDeadlineExceeded")
        .then(|| format!("see its pods: kubectl -n {namespace} get pods -l {GATEWAY_LABEL}={name}"))
}

/// The next step for an agent that is not ready for this reason, or deserves attention.
pub fn of_agent(agent: &ForwardAgent, reason: &str) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&agent.metadata.namespace), text(&agent.metadata.name));
    let secret = agent.status.as_ref().and_then(|status| status.enrolment_secret.as_ref());
    match (reason, secret) {
        ("NotEnrolled", Some(secret)) => format!(
            "kubectl -n {namespace} get secret {secret} --output 'go-template={{{{.data.join | base64decode}}}}' | \
             portlane agent --join-file - --allow HOST:PORT"
        ),
        _ => format!("kubectl -n {namespace} describe forwardagent {name}"),
    }
}

/// The next step where pods are missing: a quota or a policy may refuse them, which only Events show.
fn refused_pods(namespace: &str) -> String {
    format!(
        "see whether the API server refuses the pods: kubectl -n {namespace} get events --field-selector \
         reason=FailedCreate"
    )
}

/// The next step for a client whose session ended with this reason of the access log.
pub fn of_session(forward: &PortForward, reason: &str) -> String {
    let key = key(forward);
    match reason {
        "AccessDenied" => "admit the address of the client in spec.access".to_owned(),
        "ConnectionLimit" | "SourceLimit" | "RateLimit" | "QueueFull" | "QueueTimeout" => format!(
            "raise spec.limits, or see who holds the sessions: kubectl portlane conns -n {} {}",
            key.namespace, key.name
        ),
        "TenantLimit" => {
            "raise maxConnections of the namespace in spec.allowedForwards.tenants of the ForwardGateway, \
                          or add replicas"
                .to_owned()
        }
        "SourceShare" => {
            "raise the memory limit of the proxy or add replicas; a load balancer that hides its clients should \
                          send PROXY headers; if the sources are pods of another gateway, see that its forwards do not \
                          lead back to this forward"
                .to_owned()
        }
        "Shortage" => {
            "find out why the client or the server does not read; if both are only slow, raise the memory limit of the \
             proxy or add replicas"
                .to_owned()
        }
        "UntrustedPeer" | "BadHeader" => {
            "send a PROXY header from a network of proxyProtocol.trustedCIDRs, or do not require the header".to_owned()
        }
        "NoInstance" => {
            let mut remedy = "start the agent (ForwardAgent) that the backend names, or see its log".to_owned();
            if forward.spec.placement.sidecar.is_some() {
                remedy += "; if its status has fewer sidecars than there are, have NetworkPolicies admit the pods of its \
                           gateway to port 9182 of the pod";
            }
            remedy
        }
        // The command is in the namespace of the user, like every other command of the plugin.
        _ => format!("kubectl portlane describe {}", key.name),
    }
}

/// Whether a proxy ends a session for this reason before it tries a backend.
pub fn is_refusal(reason: &str) -> bool {
    let reasons = [
        "AccessDenied",
        "ConnectionLimit",
        "SourceLimit",
        "RateLimit",
        "QueueFull",
        "QueueTimeout",
        "TenantLimit",
        "SourceShare",
        "UntrustedPeer",
        "BadHeader",
        "HandshakeTimeout",
        "HandshakeLimit",
        "Loop",
    ];
    reasons.contains(&reason)
}

#[cfg(test)]
mod tests {
    use proxy::core::sessions::end::EndReason;

    use super::*;
    use crate::placement::tests::forward;

    #[test]
    fn a_step_names_the_objects_of_the_forward() {
        let db = forward("{gateway: {name: edge, namespace: net}}");
        let step = |reason: &str| of_forward(&db, reason).unwrap_or_default();
        assert!(step("AddressNotAllowed").contains("ForwardGateway net/edge"), "{}", step("AddressNotAllowed"));
        assert!(step("NoProxies").contains("kubectl -n net get events"), "{}", step("NoProxies"));
        let logs = "kubectl -n net logs -l 'portlane.dev/gateway=edge' -c proxy";
        assert!(step("ReportTimeout").contains(logs), "{}", step("ReportTimeout"));
        assert_eq!(of_forward(&db, "PortConflict"), None, "the message names the holder and the remedy");
    }

    #[test]
    fn a_sidecar_has_no_gateway_to_change() {
        let db = forward("{sidecar: {selector: {matchLabels: {app: shop}}}}");
        assert_eq!(of_forward(&db, "AddressNotAllowed"), None);
        assert!(of_session(&db, "NoInstance").contains("port 9182 of the pod"));
        assert!(cut_off(&db).contains("kubectl -n shop logs -l 'app=shop' -c portlane-proxy"), "{}", cut_off(&db));
    }

    #[test]
    fn a_refused_session_leads_to_the_setting_that_refused_it() {
        let db = forward("{gateway: {name: edge}}");
        assert!(of_session(&db, "ConnectionLimit").starts_with("raise spec.limits"));
        assert!(of_session(&db, "AccessDenied").contains("spec.access"));
        assert_eq!(of_session(&db, "NoBackend"), "kubectl portlane describe db");
        assert!(
            of_session(&db, "SourceShare").contains("pods of another gateway"),
            "a loop through two is not refused"
        );
        let remedy = of_session(&db, "NoInstance");
        assert!(remedy.starts_with("start the agent") && !remedy.contains("9182"), "{remedy}");
        assert!(of_session(&db, "Shortage").starts_with("find out why the client or the server does not read"));
        assert!(is_refusal("ConnectionLimit") && !is_refusal("NoBackend"));
    }

    #[test]
    fn every_reason_for_which_a_session_is_refused_has_a_step_of_its_own() {
        let db = forward("{gateway: {name: edge}}");
        for (reason, start) in [
            ("AccessDenied", "admit the address"),
            ("SourceLimit", "raise spec.limits"),
            ("RateLimit", "raise spec.limits"),
            ("QueueFull", "raise spec.limits"),
            ("QueueTimeout", "raise spec.limits"),
            ("TenantLimit", "raise maxConnections of the namespace"),
            ("SourceShare", "raise the memory limit of the proxy"),
            ("UntrustedPeer", "send a PROXY header"),
            ("BadHeader", "send a PROXY header"),
        ] {
            let step = of_session(&db, reason);
            assert!(step.starts_with(start) && is_refusal(reason), "{reason}: {step}");
        }
    }

    #[test]
    fn a_forward_has_a_step_where_its_condition_names_none() {
        let db = forward("{gateway: {name: edge}}");
        let step = |reason: &str| of_forward(&db, reason).unwrap_or_default();
        assert!(step("BackendLoop").starts_with("name the real server"));
        assert!(step("Unsupported").starts_with("install CRDs and operator of the same release"));
    }

    #[test]
    fn a_gateway_has_the_step_of_its_reason_or_is_described() {
        let metadata = serde_json::json!({"metadata": {"name": "edge", "namespace": "net"}, "spec": {}});
        let edge: ForwardGateway = serde_json::from_value(metadata).expect("a gateway");
        for (reason, message, part) in [
            ("NoProxies", "no proxy is ready", "kubectl -n net get events"),
            ("ChildrenFailed", "pods is forbidden: exceeded quota: small", "kubectl -n net describe resourcequota"),
            ("ChildrenFailed", "denied", "kubectl -n net describe forwardgateway edge"),
            ("Pending", "exceeded quota", "kubectl -n net describe forwardgateway edge"),
        ] {
            let step = of_gateway(&edge, reason, message);
            assert!(step.contains(part), "{reason}: {step}");
        }
    }

    #[test]
    fn a_session_is_refused_for_the_reasons_that_a_proxy_counts_as_refusals() {
        for reason in EndReason::ALL {
            assert_eq!(is_refusal(reason.as_str()), reason.is_refusal(), "{reason:?}");
        }
        assert!(EndReason::AccessDenied.is_refusal() && !EndReason::NoBackend.is_refusal());
    }
}
