//! The bounds of the operator's ports. docs/security.md has them in one table.

use std::sync::Arc;

use proxy_api::doors::{Bounds, Evict, Rate, Rates, StreamPort};
use proxy_grpc::Door;

use crate::{platform::metrics::Metrics, settings::Settings};

/// Seconds of connections that may come at once.
const BURST: u32 = 2;
/// Connections of the webhook's port: of all sources, and of one. A source may have more connections than requests in
/// progress, so that a new connection of an API server ends none of its requests.
const WEBHOOK: (usize, usize) = (512, 256);
/// New connections per second at the webhook's port: of all sources, and of one.
const WEBHOOK_RATES: (u32, u32) = (1000, 200);
/// Connections of the aggregated APIs' port without a client certificate: of all sources, and of one.
const METRICS_API: (usize, usize) = (64, 16);
/// Connections of API servers at the aggregated APIs' port, which have a client certificate.
const AGGREGATORS: usize = 64;
/// New connections per second at the aggregated APIs' port: of all sources, and of one.
const METRICS_API_RATES: (u32, u32) = (200, 50);
/// Connections of the health port: of all sources, and of one.
const HEALTH: (usize, usize) = (64, 32);

fn rates((all, source): (u32, u32)) -> Rates {
    let rate = |times: u32| Rate::per_second(times, times.saturating_mul(BURST));
    Rates { all: rate(all), source: rate(source), evenly: false }
}

/// Opens a door that counts the connections it closes under the name of the port.
fn door(name: &'static str, bounds: Bounds, metrics: &Arc<Metrics>) -> Arc<Door> {
    let metrics = metrics.clone();
    Door::new(bounds, move |closed| {
        metrics.closed.get_or_create(&[("port", name), ("reason", closed.as_str())]).inc();
    })
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
/// of the source with the most connections.
pub fn webhook(metrics: &Arc<Metrics>) -> Arc<Door> {
    let (strangers, per_source) = WEBHOOK;
    let rates = Some(rates(WEBHOOK_RATES));
    door("webhook", Bounds { strangers, per_source, known: 0, evict: Evict::Any, rates }, metrics)
}

/// The port of the aggregated APIs: custom metrics and the live API.
pub fn metrics_api(metrics: &Arc<Metrics>) -> Arc<Door> {
    let (strangers, per_source) = METRICS_API;
    let rates = Some(rates(METRICS_API_RATES));
    door("metrics-api", Bounds { strangers, per_source, known: AGGREGATORS, evict: Evict::Any, rates }, metrics)
}

/// The port of health and metrics. It has no rate for each source, so that a probe of kubelet always gets a place even
/// if the pods of its node are in the same IPv6 /64. `http.rs` has a rate for each address.
pub fn health(metrics: &Arc<Metrics>) -> Arc<Door> {
    let (strangers, per_source) = HEALTH;
    door("health", Bounds { strangers, per_source, known: 0, evict: Evict::Any, rates: None }, metrics)
}
