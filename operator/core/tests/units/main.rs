//! The parts of the core one by one, each with a virtual clock where time matters. One program: linking takes longer than
//! running.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

mod backends;
mod cache_kinds;
mod claims;
mod deletion_costs;
mod desired_objects;
mod last_good_names;
mod metrics_api;
mod read_objects;
mod scene;
mod schedule_autoscalers;
mod schedule_children;
mod schedule_statuses;
mod status_details;
mod status_events;
mod status_fleets;
mod status_gateway;
#[path = "../support/mod.rs"]
mod support;
mod tenants;
mod tuning;
mod validation;
