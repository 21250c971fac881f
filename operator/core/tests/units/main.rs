//! The parts of the core one by one, each with a virtual clock where time matters. One program: linking takes longer than
//! running.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

mod agents;
mod backends;
mod cache_kinds;
mod claims;
mod classes;
mod cluster_agents;
mod conditions_page;
mod cut_off;
mod deletion_costs;
mod desired_objects;
mod desired_plan;
mod enrolment;
mod followers;
mod guests;
mod hostile_proxies;
mod installed_crds;
mod last_good_names;
mod last_good_permissions;
mod live_api;
mod live_together;
mod metrics_api;
mod outdated_sidecars;
mod read_fleets;
mod read_objects;
mod read_surroundings;
mod review;
mod rights;
mod scene;
mod schedule_autoscalers;
mod schedule_children;
mod schedule_election;
mod schedule_statuses;
mod schedule_upkeep;
mod schedule_watches;
mod status_details;
mod status_events;
mod status_fleets;
mod status_gateway;
#[path = "../support/mod.rs"]
mod support;
mod tenants;
mod tuning;
mod validation;
mod work;
