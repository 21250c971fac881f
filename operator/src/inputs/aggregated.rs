//! The APIs that API servers aggregate: custom metrics and the live API.
//!
//! Only the leader knows the proxies, so the leader makes itself the only endpoint of the Service of both APIs, by an
//! `EndpointSlice`. The server admits only the API server's aggregator, by its client certificate; the aggregator has
//! authenticated and authorized the request.

use hyper::{Method, StatusCode, body::Bytes};

use operator_core::live_api::api::serves;

use super::{
    live_api::LiveApi,
    metrics_api::MetricsApi,
    questions::{not_found, status},
};
use crate::platform::https::{Answer, Answers};

/// The APIs of one server.
pub struct Aggregated {
    /// Custom metrics; absent if not served.
    pub metrics: Option<MetricsApi>,
    /// The live API; absent if not served.
    pub live: Option<LiveApi>,
}

impl Answers for Aggregated {
    async fn answer(&self, method: Method, path: String, query: String, _: Bytes) -> Answer {
        if method != Method::GET {
            return status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this API is read-only");
        }
        match (&self.metrics, &self.live) {
            (_, Some(live)) if serves(&path) => live.answer(&path, &query).await,
            (Some(metrics), _) if !serves(&path) => metrics.answer(&path, &query).await,
            _ => not_found("no such resource"),
        }
    }
}
