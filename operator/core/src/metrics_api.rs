//! Requests and answers of the metrics API (`custom.metrics.k8s.io`) that autoscalers ask.

pub mod api;
pub mod labels;
