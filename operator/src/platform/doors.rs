//! The bounds of the operator's ports. docs/security.md has them in one table.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use proxy_api::doors::{Bounds, Evict, Rate, Rates, StreamPort};
use proxy_grpc::{Closed, Door};

use crate::{platform::metrics::Metrics, settings::Settings};

/// The burst of connections, in seconds of the rate.
const BURST: u32 = 2;
/// Connections of the webhook's port: of all sources, and of one. The bound for one source exceeds its bound on
/// requests in progress, so that a new connection of an API server ends none of its requests.
const WEBHOOK: (usize, usize) = (512, 256);
/// Connections of API servers at the webhook's port, beside those of others.
const API_SERVERS: usize = 512;
/// Most addresses of API servers. A user who may write the endpoints of their Service can name any.
const MOST_ADDRESSES: usize = 64;
/// New connections per second at the webhook's port: of all sources, and of one.
const WEBHOOK_RATES: (u32, u32) = (1000, 200);
/// Connections of the aggregated APIs' port without a client certificate: of all sources, and of one.
const METRICS_API: (usize, usize) = (64, 16);
/// Connections of API servers at the aggregated APIs' port. They have a client certificate.
const AGGREGATORS: usize = 64;
/// New connections per second at the aggregated APIs' port: of all sources, and of one.
const METRICS_API_RATES: (u32, u32) = (200, 50);
/// Connections of the health port: of all sources, and of one.
const HEALTH: (usize, usize) = (64, 32);
/// Connections of the unix socket, which have no source.
const PROBES: usize = 16;

/// The addresses of the API servers. The driver writes them from its cache; the webhook's port reads them.
#[derive(Debug, Default)]
pub struct ApiServers(ArcSwap<BTreeSet<IpAddr>>);

impl ApiServers {
    /// Replaces the addresses.
    pub fn set(&self, addresses: impl Iterator<Item = IpAddr>) {
        let addresses: BTreeSet<IpAddr> =
            addresses.map(|address| address.to_canonical()).take(MOST_ADDRESSES).collect();
        if **self.0.load() != addresses {
            self.0.store(Arc::new(addresses));
        }
    }

    /// Whether an API server has this address.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.0.load().contains(&address.to_canonical())
    }
}

fn rates((all, source): (u32, u32)) -> Rates {
    let rate = |times: u32| Rate::per_second(times, times.saturating_mul(BURST));
    Rates { all: rate(all), source: rate(source), evenly: false }
}

/// Opens a door that counts the connections it closes under the name of the port.
fn door(name: &'static str, bounds: Bounds, metrics: &Arc<Metrics>) -> Arc<Door> {
    Door::new(bounds, counts(name, metrics))
}

/// Counts connections that a door closes under the name of its port.
fn counts(name: &'static str, metrics: &Arc<Metrics>) -> impl Fn(Closed) + Send + Sync + use<> {
    let metrics = metrics.clone();
    move |closed| {
        metrics.closed.get_or_create(&[("port", name), ("reason", closed.as_str())]).inc();
    }
}

/// The port of proxies' streams.
pub fn stream(settings: &Settings, metrics: &Arc<Metrics>) -> Arc<Door> {
    let port = StreamPort {
        strangers: settings.max_unauthenticated,
        per_source: settings.max_unauthenticated_per_source,
        proxies: settings.max_proxies,
        per_second: settings.connections_per_second,
    };
    door("stream", port.bounds(), metrics)
}

/// The port of the webhook. API servers present no certificate there, so a newcomer always gets a place, at the expense
/// of the source with the most connections. An API server may have more connections than each of many strangers, so
/// connections that wait for their client are closed before those with requests. API servers that connect from the
/// addresses of their endpoints have places and a rate of their own. Others may connect from anywhere: from a node
/// (SNAT), or through a tunnel of the control plane.
pub fn webhook(metrics: &Arc<Metrics>, api_servers: Arc<ApiServers>) -> Arc<Door> {
    let (strangers, per_source) = WEBHOOK;
    let rates = Some(rates(WEBHOOK_RATES));
    let bounds = Bounds { strangers, per_source, known: API_SERVERS, evict: Evict::WorkLast, rates };
    Door::knowing(bounds, move |address| api_servers.has(address), counts("webhook", metrics))
}

/// The port of the aggregated APIs: custom metrics and the live API.
pub fn metrics_api(metrics: &Arc<Metrics>) -> Arc<Door> {
    let (strangers, per_source) = METRICS_API;
    let rates = Some(rates(METRICS_API_RATES));
    door("metrics-api", Bounds { strangers, per_source, known: AGGREGATORS, evict: Evict::Any, rates }, metrics)
}

/// The port of health and metrics. The port has no rate for each source, so that Prometheus always gets a place even if
/// other pods are in the same IPv6 /64. `http.rs` has a rate for each address.
pub fn health(metrics: &Arc<Metrics>) -> Arc<Door> {
    let (strangers, per_source) = HEALTH;
    door("health", Bounds { strangers, per_source, known: 0, evict: Evict::Any, rates: None }, metrics)
}

/// The unix socket, at which kubelet probes the operator. No pod reaches it.
pub fn probes(metrics: &Arc<Metrics>) -> Arc<Door> {
    let bounds = Bounds { strangers: PROBES, per_source: PROBES, known: 0, evict: Evict::Any, rates: None };
    door("socket", bounds, metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_is_known_by_its_address_in_any_form() {
        let servers = ApiServers::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(!servers.has(address("192.0.2.10")));
        servers.set([address("192.0.2.10"), address("2001:db8::10")].into_iter());
        assert!(["192.0.2.10", "::ffff:192.0.2.10", "2001:db8::10"].iter().all(|text| servers.has(address(text))));
        assert!(!servers.has(address("2001:db8::11")) && !servers.has(address("192.0.2.11")));
        servers.set([].into_iter());
        assert!(!servers.has(address("192.0.2.10")));
        servers.set((0..100).map(|last| IpAddr::from([192, 0, 2, last])));
        assert!(servers.has(address("192.0.2.63")) && !servers.has(address("192.0.2.64")), "a bound");
    }
}
