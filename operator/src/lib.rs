//! The operator's shell. Inputs and outputs exchange messages with the [`driver`], which owns all state and leaves
//! every decision to [`operator_core`]. `docs/architecture.md` has a picture.
//!
//! Every replica keeps its cache warm and serves the webhook. Only the replica that holds the Lease translates, serves
//! streams and writes.

pub mod driver;
pub mod inputs;
pub mod outputs;
pub mod platform;
pub mod run;
pub mod settings;
