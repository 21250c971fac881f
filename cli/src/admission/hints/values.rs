//! The values that violate a rule, where the message of the rule names only fields.

use serde_json::Value;

use crate::admission::shown::cut;

/// Sibling fields that decide a rule, by the start of its message. The first word of a message is the invalid field.
const DECIDING: [(&str, &[&str]); 14] = [
    ("endPort needs port", &["port", "endPort"]),
    ("endPort of an ", &["port", "endPort"]),
    ("endPort of a target", &["port", "endPort"]),
    ("endPort is not for", &["port", "endPort"]),
    ("protocol must be TCP", &["protocol"]),
    ("timeoutSeconds must not", &["timeoutSeconds", "intervalSeconds"]),
    ("initialBackoffMillis must not", &["initialBackoffMillis", "maxBackoffMillis"]),
    ("autoscaling.minReplicas ", &["minReplicas", "maxReplicas"]),
    ("tls must be set", &["protocol", "tls"]),
    ("values must be given", &["operator"]),
    ("selector must be set", &["from"]),
    ("trustedCIDRs is required", &["accept"]),
    ("externalTrafficPolicy needs", &["type"]),
    ("loadBalancerClass and", &["type"]),
];
/// The kinds of backends and of checks, each of which may have a port.
const BACKENDS: [&str; 4] = ["service", "address", "local", "tunnel"];
const CHECKS: [&str; 4] = ["http", "tcp", "mysql", "postgres"];

/// Returns the values that violate the rule with this message, and the invalid field. `field` is the field of the rule.
pub(super) fn of(message: &str, field: &str, object: &Value) -> Option<(String, Option<String>)> {
    let around = super::get(object, field)?;
    if message.starts_with("endPort leads") {
        let (at, last) = beyond(around)?;
        return Some((format!("here the last one would be {last}"), Some(format!("{field}.backends[{at}]"))));
    }
    if message.starts_with("the listeners must not have more than") {
        return Some((format!("here they have {}", ports(around)?), None));
    }
    if message.starts_with("two targets are the same") {
        let (first, again) = twice(around)?;
        return Some((
            format!("here number {} and number {}", first + 1, again + 1),
            Some(format!("{field}.targets[{again}]")),
        ));
    }
    if let Some((at, name)) = listener(message, around) {
        return Some((format!("here it is listener '{name}'"), Some(format!("{field}.listeners[{at}]"))));
    }
    let (_, fields) = DECIDING.iter().find(|(beginning, _)| message.starts_with(*beginning))?;
    let words: Vec<String> = fields.iter().map(|name| format!("{name} is {}", words(&around[*name]))).collect();
    let wrong = message.split(' ').next()?.rsplit('.').next()?;
    Some((format!("here {}", words.join(" and ")), Some(format!("{field}.{wrong}"))))
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "absent".to_owned(),
        Value::String(text) => cut(text),
        Value::Array(_) | Value::Object(_) => "set".to_owned(),
        other => other.to_string(),
    }
}

/// The first backend whose ports end beyond the last valid port, and the port at which they would end.
fn beyond(listener: &Value) -> Option<(usize, u64)> {
    let more = listener["endPort"].as_u64()?.checked_sub(listener["port"].as_u64()?)?;
    let port = |backend: &Value| BACKENDS.into_iter().find_map(|kind| backend[kind]["port"].as_u64());
    let last = |backend: &Value| port(backend).map(|port| port.saturating_add(more));
    let is_beyond = |last: &u64| *last > u64::from(u16::MAX);
    backends(listener).enumerate().find_map(|(at, backend)| Some((at, last(backend).filter(is_beyond)?)))
}

fn backends(listener: &Value) -> impl Iterator<Item = &Value> {
    listener["backends"].as_array().into_iter().flatten()
}

/// The first target of an agent that is repeated, and the position of the duplicate. The last port is the first one
/// unless there is another, and the protocol is TCP.
fn twice(spec: &Value) -> Option<(usize, usize)> {
    let targets = spec["targets"].as_array()?;
    let known = |target: &Value| {
        let last = target["endPort"].as_u64().or(target["port"].as_u64());
        (target["host"].clone(), target["port"].as_u64(), last, target["protocol"].as_str().unwrap_or("TCP").to_owned())
    };
    let again = |(at, target): (usize, &Value)| {
        let first = targets.iter().take(at).position(|earlier| known(earlier) == known(target))?;
        Some((first, at))
    };
    targets.iter().enumerate().find_map(again)
}

/// The number of ports of all listeners.
fn ports(spec: &Value) -> Option<u64> {
    let count = |listener: &Value| match (listener["port"].as_u64(), listener["endPort"].as_u64()) {
        (Some(first), Some(last)) => last.saturating_sub(first).saturating_add(1),
        _ => 1,
    };
    Some(spec["listeners"].as_array()?.iter().map(count).fold(0, u64::saturating_add))
}

/// The first listener that violates a rule about all of them, and its name.
fn listener<'a>(message: &str, spec: &'a Value) -> Option<(usize, &'a str)> {
    let is_udp = |listener: &Value| listener["protocol"] == "UDP";
    let uses = |header: &Value| !matches!(header.as_str(), None | Some("Disabled"));
    let is_wrong = |listener: &Value| {
        if message.starts_with("a local backend needs") {
            backends(listener).any(|backend| !backend["local"].is_null())
        } else if message.starts_with("proxyProtocol is not for UDP") {
            let headers = &listener["proxyProtocol"];
            is_udp(listener) && (uses(&headers["accept"]) || uses(&headers["send"]))
        } else if message.starts_with("healthCheck of a UDP listener") {
            let check = &listener["healthCheck"];
            let names_port = CHECKS.into_iter().any(|kind| !check[kind]["port"].is_null());
            let all_have_ports = backends(listener).all(|backend| !backend["healthCheckPort"].is_null());
            is_udp(listener) && check.is_object() && !names_port && !all_have_ports
        } else {
            false
        }
    };
    let (at, found) = spec["listeners"].as_array()?.iter().enumerate().find(|(_, listener)| is_wrong(listener))?;
    Some((at, found["name"].as_str().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The words and the field, with "-" for none.
    fn explained(message: &str, field: &str, object: &Value) -> (String, String) {
        let (words, at) = of(message, field, object).expect("words");
        (words, at.unwrap_or_else(|| "-".to_owned()))
    }

    #[test]
    fn a_rule_that_compares_fields_has_their_values_and_the_field_that_is_wrong() {
        let range = json!({"spec": {"allocation": [{"port": 2001, "endPort": 2000}]}});
        assert_eq!(
            explained("endPort of an allocation range must not be less than port", "spec.allocation[0]", &range),
            ("here port is 2001 and endPort is 2000".to_owned(), "spec.allocation[0].endPort".to_owned())
        );
        let scaled = json!({"spec": {"autoscaling": {"minReplicas": 4, "maxReplicas": 3}}});
        assert_eq!(
            explained("autoscaling.minReplicas must not be more than maxReplicas", "spec.autoscaling", &scaled),
            ("here minReplicas is 4 and maxReplicas is 3".to_owned(), "spec.autoscaling.minReplicas".to_owned())
        );
        let listener = json!({"spec": {"listeners": [{"protocol": "TCP", "tls": {"hostnames": ["a"]}}]}});
        let (words, _) = explained("tls must be set if, and only if, protocol is TLS", "spec.listeners[0]", &listener);
        assert_eq!(words, "here protocol is TCP and tls is set");
        let service = json!({"spec": {"service": {"externalTrafficPolicy": "Local"}}});
        let (words, _) = explained("externalTrafficPolicy needs type LoadBalancer", "spec.service", &service);
        assert_eq!(words, "here type is absent");
    }

    #[test]
    fn a_target_that_is_there_twice_is_named_whatever_way_it_is_written() {
        let target = |end: Option<u16>, protocol: Option<&str>| json!({"host": "db", "port": 1, "endPort": end, "protocol": protocol});
        let targets =
            [target(None, Some("UDP")), target(None, None), target(Some(2), None), target(Some(1), Some("TCP"))];
        let object = json!({"spec": {"targets": targets}});
        assert_eq!(
            explained("two targets are the same: remove one of them", "spec", &object),
            ("here number 2 and number 4".to_owned(), "spec.targets[3]".to_owned())
        );
    }

    #[test]
    fn ranges_that_are_too_long_have_their_end_or_their_length() {
        let far =
            json!({"port": 10, "endPort": 20, "backends": [{"local": {"port": 1}}, {"service": {"port": 65526}}]});
        let object = json!({"spec": {"listeners": [far, {"port": 1}]}});
        assert_eq!(
            explained("endPort leads the ports of a backend beyond 65535", "spec.listeners[0]", &object),
            ("here the last one would be 65536".to_owned(), "spec.listeners[0].backends[1]".to_owned())
        );
        let (words, at) = explained("the listeners must not have more than 1024 ports together", "spec", &object);
        assert_eq!((words.as_str(), at.as_str()), ("here they have 12", "-"));
        let most = json!({"port": 1, "endPort": u64::MAX, "backends": [{"local": {"port": u64::MAX}}]});
        assert_eq!(beyond(&most), Some((0, u64::MAX)));
    }

    #[test]
    fn a_rule_about_all_listeners_names_the_one_that_breaks_it() {
        let listeners = json!([
            {"name": "web", "protocol": "TCP", "backends": [{"service": {}}], "proxyProtocol": {"send": "V1"}},
            {"name": "off", "protocol": "UDP", "backends": [{"healthCheckPort": 1}], "healthCheck": {"tcp": {}},
                "proxyProtocol": {"send": "Disabled"}},
            {"name": "dns", "protocol": "UDP", "backends": [{"local": {}}], "healthCheck": {"tcp": {}},
                "proxyProtocol": {"accept": "Required"}},
        ]);
        let object = json!({"spec": {"listeners": listeners}});
        for message in [
            "a local backend needs placement.sidecar: a gateway",
            "proxyProtocol is not for UDP listeners",
            "healthCheck of a UDP listener must name the TCP port to check",
        ] {
            let (words, at) = explained(message, "spec", &object);
            assert_eq!((words.as_str(), at.as_str()), ("here it is listener 'dns'", "spec.listeners[2]"), "{message}");
        }
        assert_eq!(of("must be an amount", "spec", &object), None);
    }
}
