//! Parsers of options whose values have a syntax of their own.

use operator_core::{ObjectKey, Service};

/// `--resolve`: the address of a Service.
#[derive(Clone, Debug)]
pub(crate) struct Resolve {
    pub(crate) service: ObjectKey,
    pub(crate) place: Service,
}

/// `--map`: the local port of a listener.
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
    Ok(Resolve { service: ObjectKey::new(namespace, name), place: Service::External { host, port } })
}

/// `host`, `host:port`, `::1`, `[::1]` or `[::1]:port`.
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
        _ => Ok((text.to_owned(), None)),
    }
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
        for bad in
            ["pg=db", "pg.shop", "pg.shop=", "pg.shop=db:0", "pg.shop=db:x", "pg.shop=[::1", ".shop=db", "a.b.c=db"]
        {
            place(bad).expect_err(bad);
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
