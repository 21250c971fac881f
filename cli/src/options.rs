//! Parsers of options whose values have a syntax of their own.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use operator_core::{ObjectKey, Service};

use crate::admission::why_no_host;

/// The value of `--resolve`: the address of a Service.
#[derive(Clone, Debug)]
pub(crate) struct Resolve {
    pub(crate) service: ObjectKey,
    pub(crate) place: Service,
}

/// The value of `--map`: the local port of a listener.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    pub(crate) forward: String,
    pub(crate) listener: String,
    pub(crate) port: u16,
}

pub(crate) fn resolve(text: &str) -> Result<Resolve, String> {
    let form = "must be SERVICE.NAMESPACE=HOST or SERVICE.NAMESPACE=HOST:PORT";
    let (service, place) = text.split_once('=').ok_or(form)?;
    let (name, rest) = service.split_once('.').ok_or(form)?;
    // The DNS name of a Service is accepted as well.
    let namespace = match rest.split_once('.') {
        None => rest,
        Some((namespace, tail)) if tail == "svc" || tail.starts_with("svc.") => namespace,
        Some(_) => return Err(form.to_owned()),
    };
    let (host, port) = host_and_port(place)?;
    if name.is_empty() || namespace.is_empty() || host.is_empty() {
        return Err(form.to_owned());
    }
    if !is_label(name) || !is_label(namespace) {
        return Err(format!("'{service}' is not SERVICE.NAMESPACE: {LABEL}"));
    }
    if !is_host(&host) {
        return Err(format!("the host must be an IP address or a DNS name; {}", why_no_host(&host)));
    }
    Ok(Resolve { service: ObjectKey::new(namespace, name), place: Service::External { host, port } })
}

/// Parses `host`, `host:port`, `::1`, `[::1]` or `[::1]:port`.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the host has a '[' without a ']'")?;
        return match rest.strip_prefix(':') {
            Some(number) => Ok((host.to_owned(), Some(port(number)?))),
            None if rest.is_empty() => Ok((host.to_owned(), None)),
            None => Err(format!("unexpected '{rest}' after ']'; write [ADDRESS] or [ADDRESS]:PORT")),
        };
    }
    match text.split_once(':') {
        Some((host, number)) if !number.contains(':') => Ok((host.to_owned(), Some(port(number)?))),
        Some(_) => match text.rsplit_once(':') {
            // `::1:80` is a valid address as well, but not the one that its author means.
            Some((host, number)) if host.parse::<IpAddr>().is_ok() && is_meant_as_port(number) => {
                Err(format!("'{text}' may be an address or an address and a port: write [{host}]:{number} or [{text}]"))
            }
            _ => Ok((text.to_owned(), None)),
        },
        None => Ok((text.to_owned(), None)),
    }
}

/// Whether the last group of an IPv6 address looks like a port: a number of two digits or more.
fn is_meant_as_port(number: &str) -> bool {
    number.len() > 1 && port(number).is_ok()
}

/// The rule for a name of Kubernetes in words.
const LABEL: &str = "a name has 1 to 63 lower case letters, digits and '-', and begins and ends with a letter or digit";

/// Whether this is a DNS-1123 label, as the name of a namespace is.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether a manifest may have this host: an IP address or a DNS name, the last label of which begins with a letter.
fn is_host(text: &str) -> bool {
    let is_part = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let ends_as_name = name.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic()));
    text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && name.split('.').all(is_part) && ends_as_name)
}

/// Parses `--namespace`.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    if is_label(text) { Ok(text.to_owned()) } else { Err(format!("'{text}' is not the name of a namespace: {LABEL}")) }
}

/// Parses `--health-address`, `--admin-address` and `--tunnel-address`.
pub(crate) fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be IP:PORT, as 127.0.0.1:9180 or [::1]:9180".to_owned())
}

/// Parses `--tunnel-advertise`: the address at which others reach this machine, in their form.
pub(crate) fn advertised(text: &str) -> Result<String, String> {
    let (host, port) = host_and_port(text)?;
    let port = port.ok_or("must be HOST:PORT, as home.example.com:7443 or [2001:db8::1]:7443")?;
    if !is_host(&host) {
        return Err(format!("the host must be an IP address or a DNS name; {}", why_no_host(&host)));
    }
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return Err(format!("nobody can dial {host}: name an address of this machine that agents reach"));
    }
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// Parses `-f`: the path of a file, in kubectl's form.
pub(crate) fn file(word: OsString) -> Result<PathBuf, String> {
    match word.to_str().filter(|text| is_url(text)) {
        Some(url) => Err(no_url(url)),
        None => Ok(word.into()),
    }
}

/// Whether this is the URL of a manifest.
pub(crate) fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// The hint for a URL in place of a file.
pub(crate) fn no_url(url: &str) -> String {
    format!("URLs are not supported: write curl -fsSL {url} | portlane validate -f -")
}

pub(crate) fn map(text: &str) -> Result<Map, String> {
    let form = "must be FORWARD/LISTENER=PORT";
    let (name, number) = text.split_once('=').ok_or(form)?;
    let (forward, listener) = name.split_once('/').ok_or(form)?;
    Ok(Map { forward: forward.to_owned(), listener: listener.to_owned(), port: port(number)? })
}

pub(crate) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        // `parse` accepts a sign.
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(format!("'{text}' is not a port number from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_resolved_to_hosts_with_and_without_port() {
        let place = |text: &str| match resolve(text).map(|resolved| resolved.place) {
            Ok(Service::External { host, port }) => Ok((host, port)),
            Ok(Service::Cluster(_) | Service::Portless(_)) => panic!("not a cluster service"),
            Err(error) => Err(error),
        };
        assert_eq!(place("pg.shop=db:5432"), Ok(("db".into(), Some(5432))));
        assert_eq!(place("pg.shop.svc.cluster.local=db"), Ok(("db".into(), None)));
        assert_eq!(place("pg.shop=10.0.0.1"), Ok(("10.0.0.1".into(), None)));
        assert_eq!(place("pg.shop=::1"), Ok(("::1".into(), None)));
        assert_eq!(place("pg.shop=[::1]:7"), Ok(("::1".into(), Some(7))));
        assert_eq!(place("pg.shop=2001:db8::8:800:200c:417a"), Ok(("2001:db8::8:800:200c:417a".into(), None)));
        assert_eq!(place("pg.shop=db.example.com."), Ok(("db.example.com.".into(), None)));
        assert!(place("pg.shop=::1:80").is_err_and(|why| why.contains("write [::1]:80")));
        for bad in ["-x y", "a_b", "1.2.3", "db-", "a..b", "http://db", "::x"] {
            let why = place(&format!("pg.shop={bad}")).expect_err(bad);
            assert!(!why.is_empty() && place(&format!("pg.shop=[{bad}]")).is_err(), "{bad}: {why}");
        }
        for bad in [
            "pg=db",
            "pg.shop",
            "pg.shop=",
            "pg.shop=db:0",
            "pg.shop=db:x",
            "pg.shop=[::1",
            ".shop=db",
            "a.b.c=db",
            "P.shop=db",
            "pg.-=db",
        ] {
            place(bad).expect_err(bad);
        }
    }

    #[test]
    fn namespaces_are_labels_addresses_have_a_port_and_urls_are_not_read() {
        assert_eq!(namespace("team-1"), Ok("team-1".to_owned()));
        for bad in ["", "Team", "a.b", "-a", "a-", "a b", "a".repeat(64).as_str()] {
            namespace(bad).expect_err(bad);
        }
        assert_eq!(socket("[::1]:9180").map(|address| address.port()), Ok(9180));
        for bad in [":9180", "7703", "localhost:9180"] {
            assert!(socket(bad).is_err_and(|why| why.contains("IP:PORT")), "{bad}");
        }
        assert_eq!(file("a.yaml".into()), Ok("a.yaml".into()));
        assert!(file("https://example.com/x.yaml".into()).is_err_and(|why| why.contains("x.yaml | portlane")));
    }

    #[test]
    fn an_address_to_advertise_has_a_host_that_can_be_dialled_and_a_port() {
        for text in ["home.example.com:7443", "192.0.2.7:1", "[2001:db8::1]:7443"] {
            assert_eq!(advertised(text), Ok(text.to_owned()));
        }
        for (bad, why) in [
            ("home.example.com", "must be HOST:PORT"),
            ("2001:db8::1", "must be HOST:PORT"),
            ("home.example.com:0", "not a port number"),
            ("a_b:1", "the host must be"),
            (":7443", "the host must be"),
            ("0.0.0.0:7443", "nobody can dial 0.0.0.0"),
            ("[::]:7443", "nobody can dial ::"),
        ] {
            assert!(advertised(bad).is_err_and(|error| error.contains(why)), "{bad}");
        }
    }

    #[test]
    fn ports_are_mapped_by_forward_and_listener() {
        let mapped = map("shop-db/pg=15432").expect("valid");
        assert_eq!((mapped.forward.as_str(), mapped.listener.as_str(), mapped.port), ("shop-db", "pg", 15432));
        for bad in ["shop-db=1", "shop-db/pg", "shop-db/pg=70000", "shop-db/pg=+5432"] {
            map(bad).expect_err(bad);
        }
    }
}
