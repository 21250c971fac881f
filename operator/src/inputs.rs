//! Inputs of the operator: objects and schemas of the API server, streams of proxies, requests of API servers.

pub mod aggregated;
pub mod identity;
pub mod live_api;
pub mod metrics_api;
pub mod questions;
pub mod schemas;
pub mod streams;
pub mod watch;
pub mod webhook;
