//! The `EndpointSlice`s of the aggregated APIs: the leader is the only endpoint of a Service without a selector.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::names::NAME;

/// Names and manifests of the slices: one for each IP family of the pod, so that a Service of either family reaches the
/// leader. `uid` is the uid of the Service, which owns the slices. The chart grants access to these two names only.
#[must_use]
pub fn slices(service: &str, uid: Option<&str>, ips: &[IpAddr], port: u16) -> Vec<(String, Value)> {
    let families = [("IPv4", service.to_owned()), ("IPv6", format!("{service}-ipv6"))];
    let slice = |(family, name): (&str, String)| {
        let ip = ips.iter().find(|ip| ip.is_ipv4() == (family == "IPv4"))?;
        let manifest = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": service, "uid": uid}],
                "labels": {"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": NAME},
            },
            "addressType": family,
            "endpoints": [{"addresses": [ip.to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        });
        Some((name, manifest))
    };
    families.into_iter().filter_map(slice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ips: &[&str]) -> Vec<(String, Value, Value)> {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
        let slices = slices("portlane-metrics", Some("u"), &ips, 9445);
        slices
            .into_iter()
            .map(|(name, slice)| (name, slice["addressType"].clone(), slice["endpoints"][0]["addresses"].clone()))
            .collect()
    }

    #[test]
    fn every_family_of_the_pod_has_a_slice() {
        let four = ("portlane-metrics".to_owned(), json!("IPv4"), json!(["192.0.2.7"]));
        let six = ("portlane-metrics-ipv6".to_owned(), json!("IPv6"), json!(["2001:db8::7"]));
        assert_eq!(of(&["192.0.2.7"]), std::slice::from_ref(&four));
        assert_eq!(of(&["2001:db8::7"]), std::slice::from_ref(&six));
        assert_eq!(of(&["2001:db8::7", "192.0.2.7"]), [four, six]);
    }
}
