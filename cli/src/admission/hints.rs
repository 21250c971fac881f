//! Explains violations of rules with the value and a replacement. A rule of a CRD has one message for all values.

mod values;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::{metadata::is_qualified_name, shown::cut};

/// The hint for a placement on a laptop, as only a cluster needs one.
const LAPTOP: &str = "on a laptop, where the placement does not matter, write placement: {sidecar: {selector: {}}}";
/// The hint for a Helm template, which is valid YAML where its expressions are in quotes.
const TEMPLATE: &str = "this is a Helm template: render the chart first: helm template CHART | portlane validate -f -";
/// The hint for a template whose variables envsubst fills in.
const VARIABLES: &str = "this is a template: fill in its variables first: envsubst < FILE | portlane validate -f -";

/// A violation with a better message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explained {
    pub(super) message: String,
    /// The invalid field, if the rule belongs to an object around it.
    pub(super) at: Option<String>,
}

/// Adds details to the message of a violation that the rule cannot contain.
pub(super) fn explain(field: &str, message: String, object: &Value) -> Explained {
    let mut at = None;
    let template = get(object, field).and_then(Value::as_str).and_then(template);
    let hint = match message.as_str() {
        _ if template.is_some() => template.map(str::to_owned),
        text if text.starts_with("metadata.name must") => shown(object, "metadata.name").inspect(|_| {
            at = Some("metadata.name".to_owned());
        }),
        text if text.starts_with("must be a DNS-1123") => shown(object, field),
        "must be an IP address or a DNS name" => get(object, field).and_then(Value::as_str).map(host),
        "must be an IP address, a network or a DNS name" => get(object, field).and_then(Value::as_str).map(place),
        "must be a network such as 10.0.0.0/8" => get(object, field).and_then(Value::as_str).map(network),
        "is required" if field == "spec.placement" => Some(LAPTOP.to_owned()),
        "exactly one of sidecar and gateway must be set" => Some(LAPTOP.to_owned()),
        "exactly one of service, address, local and tunnel must be set" => get(object, field).map(destinations),
        text if text.starts_with("two listeners have the same protocol and port") => same_port(object).map(|same| {
            at = Some(same.1);
            same.0
        }),
        text if text.starts_with("listeners[].port is required in a sidecar") => without_port(object).map(|without| {
            at = Some(without.1);
            without.0
        }),
        text if text.starts_with("every key must be the name of") => wrong_key(object, field).map(|key| {
            at = Some(format!("{field}.{key}"));
            format!("'{}' is not one", cut(key))
        }),
        text => values::of(text, field, object).map(|(words, place)| {
            at = place;
            words
        }),
    };
    let message = match hint {
        Some(hint) => format!("{message}; {hint}"),
        None => message,
    };
    Explained { message, at }
}

/// Returns the hint for a text with placeholders.
fn template(text: &str) -> Option<&'static str> {
    let is_variable = text.split_once("${").is_some_and(|(_, rest)| rest.contains('}'));
    if text.contains("{{") { Some(TEMPLATE) } else { is_variable.then_some(VARIABLES) }
}

/// Drops the violations that follow from an empty text. `problems` are fields with their messages.
pub(super) fn drop_consequences(problems: &mut Vec<(String, String)>) {
    let is_empty = |message: &str| message.starts_with("must have at least 1 character");
    let empty: Vec<String> =
        problems.iter().filter(|(_, message)| is_empty(message)).map(|(field, _)| field.clone()).collect();
    problems.retain(|(field, message)| !empty.contains(field) || is_empty(message));
}

/// The value at a path such as `spec.listeners[0].port`.
fn get<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split(['.', '[']).try_fold(object, |value, part| match part.strip_suffix(']') {
        Some(index) => value.get(index.parse::<usize>().ok()?),
        None => value.get(part),
    })
}

/// The text at a path, cut for a message.
fn shown(object: &Value, path: &str) -> Option<String> {
    get(object, path).and_then(Value::as_str).map(|text| format!("here it is '{}'", cut(text)))
}

/// Explains why a text is not a host, with a replacement.
pub(crate) fn host(text: &str) -> String {
    format!("'{}' is neither: {}", cut(text), instead_of_host(text))
}

/// Explains why a text is neither a host nor a network, with a replacement.
fn place(text: &str) -> String {
    let is_network = text.contains('/') && !text.contains("://");
    let remedy = if is_network {
        "a network is an address, '/' and the number of its leading bits, such as 10.0.0.0/8 or fd00::/8".to_owned()
    } else {
        instead_of_host(text)
    };
    format!("'{}' is not one of these: {remedy}", cut(text))
}

/// The replacement for a text that is not a host.
fn instead_of_host(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let authority = if scheme.is_some() { rest.split(['/', '?', '#']).next().unwrap_or_default() } else { rest };
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').escape_debug().to_string();
    let quoted = |host: &str| if host.contains(':') { format!("\"{host}\"") } else { host.to_owned() };
    match (scheme, host_and_port(authority)) {
        _ if text.is_empty() => "an address or a name is missing".to_owned(),
        (_, Some((host, port))) => {
            format!("the port goes into port: host: {}, port: {port}", quoted(&bare(host)))
        }
        (Some(_), None) => format!("a host has no scheme and no path: host: {}", quoted(&bare(authority))),
        (None, None) if mapped(text).is_some() => {
            format!("write {}", mapped(text).map_or_else(String::new, |four| four.to_string()))
        }
        (None, None) if text.trim() != text => "remove the space".to_owned(),
        (None, None) if text.split('.').any(|part| part.len() > 63) && !text.contains([':', '/']) => {
            "a part of a name has at most 63 characters".to_owned()
        }
        (None, None) if text.contains(':') && text.contains('%') => without_zone(&bare(text)),
        (None, None) if text.starts_with('[') => {
            format!("an address has no brackets here: host: {}", quoted(&bare(text)))
        }
        (None, None) if text.contains('/') => "a host is one address, not a network or a path".to_owned(),
        (None, None) if text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())) => {
            "an IPv4 address has four numbers from 0 to 255, without leading zeros".to_owned()
        }
        (None, None) if text.contains("..") => "write one dot between two parts of a name".to_owned(),
        (None, None) if text.chars().any(|letter| !letter.is_ascii() && letter.is_alphabetic()) => {
            "names with letters other than a to z are written in punycode (xn--...)".to_owned()
        }
        (None, None) if text.contains('_') => "host names have no underscores".to_owned(),
        (None, None) => "correct the spelling".to_owned(),
    }
}

/// Explains why a text is not a network, with a replacement.
fn network(text: &str) -> String {
    let remedy = match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => format!("for one address write {address}/32"),
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            format!("for one address write {}/32", address.to_canonical())
        }
        Ok(IpAddr::V6(address)) => format!("for one address write {address}/128"),
        Err(_) if mapped_network(text).is_some() => {
            format!("write {}", mapped_network(text).unwrap_or_default())
        }
        Err(_) => "write an address, '/' and the number of its leading bits that all addresses share".to_owned(),
    };
    format!("here it is '{}': {remedy}", cut(text))
}

/// The IPv4 address that an address such as `::ffff:10.0.0.1` wraps.
fn mapped(text: &str) -> Option<Ipv4Addr> {
    text.parse::<Ipv6Addr>().ok()?.to_ipv4_mapped()
}

/// The IPv4 network that a network such as `::ffff:10.0.0.0/104` wraps.
fn mapped_network(text: &str) -> Option<String> {
    let (address, bits) = text.split_once('/')?;
    let bits = bits.parse::<u8>().ok().filter(|bits| *bits <= 128)?.checked_sub(96)?;
    Some(format!("{}/{bits}", mapped(address)?))
}

/// The replacement for an IPv6 address with a zone.
fn without_zone(text: &str) -> String {
    let address = text.split('%').next().unwrap_or_default();
    if address.parse::<Ipv6Addr>().is_ok_and(|six| six.is_unicast_link_local()) {
        return "a zone such as %eth0 is meaningful on one host only, and a link-local address needs a zone; use \
                another address of the server, such as one of fd00::/8, or its name"
            .to_owned();
    }
    format!("an address has no zone here: host: \"{address}\"")
}

/// Splits `HOST:PORT` or `[HOST]:PORT`.
fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_host = !host.is_empty() && (host.ends_with(']') || !host.contains(':'));
    port.parse().ok().filter(|_| is_host).map(|port| (host, port))
}

/// Lists the destinations of a backend.
fn destinations(backend: &Value) -> String {
    let kinds = ["service", "address", "local", "tunnel"].into_iter().filter(|kind| !backend[*kind].is_null());
    match kinds.collect::<Vec<_>>().join(" and ") {
        none if none.is_empty() => {
            "this backend has none: write, for example, address: {host: 127.0.0.1, port: 8080}".to_owned()
        }
        several => format!("this backend has {several}"),
    }
}

/// Names two listeners on one port, and returns the path of the second.
fn same_port(object: &Value) -> Option<(String, String)> {
    let listeners = object["spec"]["listeners"].as_array()?;
    let before = |(at, other)| listeners.iter().take(at).map(move |one| (one, at, other));
    let mut pairs = listeners.iter().enumerate().flat_map(before);
    let (one, at, other) = pairs.find(|(one, _, other)| overlap(one, other) == Some(true))?;
    let name = |listener: &Value| listener["name"].as_str().unwrap_or_default().to_owned();
    let message = format!("here '{}' and '{}' on port {}: change one of them", name(one), name(other), other["port"]);
    Some((message, format!("spec.listeners[{at}].port")))
}

/// Whether two listeners need the same port; `None` if a gateway chooses the port of one.
fn overlap(one: &Value, other: &Value) -> Option<bool> {
    let ports = |listener: &Value| {
        let port = listener["port"].as_u64()?;
        Some((port, listener["endPort"].as_u64().unwrap_or(port)))
    };
    let ((a, a_end), (b, b_end)) = (ports(one)?, ports(other)?);
    let is_udp = |listener: &Value| listener["protocol"] == "UDP";
    let names = |listener: &Value| listener["tls"]["hostnames"].as_array().cloned();
    let names_differ = match (names(one), names(other)) {
        (Some(one), Some(other)) => !one.iter().any(|name| other.contains(name)),
        _ => false,
    };
    Some(is_udp(one) == is_udp(other) && a <= b_end && b <= a_end && !names_differ)
}

/// Names the first listener without a port, and returns its path.
fn without_port(object: &Value) -> Option<(String, String)> {
    let listeners = object["spec"]["listeners"].as_array()?;
    let (at, listener) = listeners.iter().enumerate().find(|(_, listener)| listener["port"].is_null())?;
    let name = listener["name"].as_str().unwrap_or_default();
    Some((format!("'{name}' has none"), format!("spec.listeners[{at}]")))
}

/// The first key of labels or annotations that is not a valid name.
fn wrong_key<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    // Unlike labels, annotations may have capital letters in the prefix of their keys.
    let has_capitals = field.ends_with("annotations");
    let is_name = |key: &str| is_qualified_name(&if has_capitals { key.to_lowercase() } else { key.to_owned() });
    get(object, field)?.as_object()?.keys().map(String::as_str).find(|key| !is_name(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_invalid_host_is_quoted_with_the_fix() {
        for (text, hint) in [
            ("[::1]", "'[::1]' is neither: an address has no brackets here: host: \"::1\""),
            ("127.0.0.1:7777", "'127.0.0.1:7777' is neither: the port goes into port: host: 127.0.0.1, port: 7777"),
            ("[::1]:80", "'[::1]:80' is neither: the port goes into port: host: \"::1\", port: 80"),
            (
                "http://db.example/x",
                "'http://db.example/x' is neither: a host has no scheme and no path: host: db.example",
            ),
            ("https://db:8443/", "'https://db:8443/' is neither: the port goes into port: host: db, port: 8443"),
            ("10.0.0.0/8", "'10.0.0.0/8' is neither: a host is one address, not a network or a path"),
            ("127.1", "'127.1' is neither: an IPv4 address has four numbers from 0 to 255, without leading zeros"),
            (
                "300.1.1.1",
                "'300.1.1.1' is neither: an IPv4 address has four numbers from 0 to 255, without leading zeros",
            ),
            ("db..", "'db..' is neither: write one dot between two parts of a name"),
            ("2001:db8::1%eth0", "'2001:db8::1%eth0' is neither: an address has no zone here: host: \"2001:db8::1\""),
            (
                "[fe80::1%eth0]",
                "'[fe80::1%eth0]' is neither: a zone such as %eth0 is meaningful on one host only, and a link-local \
                 address needs a zone; use another address of the server, such as one of fd00::/8, or its name",
            ),
            (
                "bücher.example",
                "'bücher.example' is neither: names with letters other than a to z are written in punycode (xn--...)",
            ),
            ("::ffff:127.0.0.1", "'::ffff:127.0.0.1' is neither: write 127.0.0.1"),
            ("a ", "'a ' is neither: remove the space"),
            ("", "'' is neither: an address or a name is missing"),
            ("\u{1b}[1m", "'\\u{1b}[1m' is neither: correct the spelling"),
        ] {
            assert_eq!(host(text), hint);
        }
    }

    #[test]
    fn what_is_neither_a_host_nor_a_network_is_quoted_with_the_fix() {
        let network = "a network is an address, '/' and the number of its leading bits, such as 10.0.0.0/8 or fd00::/8";
        assert_eq!(place("10.0.0.0/33"), format!("'10.0.0.0/33' is not one of these: {network}"));
        assert_eq!(place("db:80"), "'db:80' is not one of these: the port goes into port: host: db, port: 80");
        let url = place("http://db.example/x");
        assert!(url.ends_with("a host has no scheme and no path: host: db.example"), "{url}");
    }

    #[test]
    fn a_wrapped_ipv4_network_is_written_as_one_of_ipv4() {
        assert_eq!(network("::ffff:10.0.0.0/104"), "here it is '::ffff:10.0.0.0/104': write 10.0.0.0/8");
        assert_eq!(network("::ffff:10.0.0.1"), "here it is '::ffff:10.0.0.1': for one address write 10.0.0.1/32");
    }

    #[test]
    fn two_listeners_of_one_port_are_named() {
        let object = |second: Value| json!({"spec": {"listeners": [{"name": "a", "protocol": "TCP", "port": 1, "endPort": 3}, second]}});
        let message = "two listeners have the same protocol and port";
        let explain = |second: Value| explain("spec", message.to_owned(), &object(second));
        let found = explain(json!({"name": "b", "protocol": "TLS", "port": 3, "tls": {"hostnames": ["x"]}}));
        assert_eq!(found.at.as_deref(), Some("spec.listeners[1].port"));
        assert!(found.message.ends_with("here 'a' and 'b' on port 3: change one of them"), "{}", found.message);
        let apart = explain(json!({"name": "b", "protocol": "UDP", "port": 3}));
        assert_eq!(apart, Explained { message: message.to_owned(), at: None });
    }

    #[test]
    fn a_template_in_quotes_is_recognised() {
        let object = json!({"metadata": {"name": "{{ .Release.Name }}"}});
        let found = explain("metadata.name", "must be a DNS-1123 subdomain".to_owned(), &object);
        assert!(found.message.contains("helm template"), "{}", found.message);
        let object = json!({"port": "${PORT}"});
        let found = explain("port", "must be an integer, but is the string '${PORT}'".to_owned(), &object);
        assert!(
            found.message.ends_with(
                "'${PORT}'; this is a template: fill in its variables first: envsubst < FILE | portlane validate -f -"
            ),
            "{}",
            found.message
        );
    }

    #[test]
    fn values_are_found_by_their_path() {
        let object = json!({"a": [{"b": 1}, {"b": 2}]});
        assert_eq!(get(&object, "a[1].b"), Some(&json!(2)));
        assert_eq!(get(&object, "a[2].b"), None);
    }
}
