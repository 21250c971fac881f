//! The operator's shell: it carries messages to and from the [`driver`], which owns all state and asks [`operator_core`]
//! for every decision.
//!
//! ```text
//! inputs ──▶ driver ──▶ outputs          inputs:  watch, streams (with identity), webhook, metrics_api
//!              │                         outputs: publish, status_writer, children, autoscalers, events, notices, …
//!              ▼
//!        operator_core: what should be, and when
//! ```
//!
//! Every replica keeps its cache warm and answers the webhook. Only the one that holds the Lease translates, serves
//! streams and writes.

pub mod driver;
pub mod inputs;
pub mod outputs;
pub mod platform;
pub mod run;
pub mod settings;
