//! Compiles `PortForward`s into configuration for proxies.
//!
//! ```text
//! World ──validate──▶ ValidForward ──groups──▶ who runs together ──claims──▶ who has which port
//!       ──backends──▶ where bytes may go ──translate──▶ Translation { Configuration per group, Verdict per object }
//! ```
//!
//! Everything in [`core`] is pure: no async, no client, no clock, no environment. The same code runs in the operator
//! and in `portlane run`.

pub mod core;
