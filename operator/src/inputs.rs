//! Inputs of the operator: objects of the API server, streams of proxies, requests of API servers.

pub mod identity;
pub mod metrics_api;
pub mod streams;
pub mod watch;
pub mod webhook;
