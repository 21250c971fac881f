//! The operator's shell. Inputs and outputs exchange messages with the [`driver`], which owns all state and asks
//! [`operator_core`] for every decision.
//!
//! ```text
//! inputs ──▶ driver ──▶ outputs          inputs:  watch, streams (with identity), webhook, aggregated
//!              │                         outputs: publish, status_writer, children, autoscalers, events, notices, …
//!              ▼
//!        operator_core: the desired state, and when each write is due
//! ```
//!
//! Every replica keeps its cache warm and serves the webhook. Only the replica that holds the Lease translates, serves
//! streams and writes.

pub mod driver;
pub mod inputs;
pub mod outputs;
pub mod platform;
pub mod run;
pub mod settings;
