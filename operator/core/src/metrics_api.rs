//! Requests and responses of the custom metrics API (`custom.metrics.k8s.io`), which HPAs query.

pub mod api;
pub mod labels;
