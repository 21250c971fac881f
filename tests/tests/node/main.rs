//! A real node: Pods run, Services route, probes probe.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue panics")]

mod agent_image;
mod argocd;
mod broken;
mod claims;
mod commands;
mod dual_stack;
mod durable;
mod fleet;
mod followed;
mod harness_itself;
mod hostile;
mod injected;
mod installation;
mod ipv6;
mod jetstream;
mod operator;
mod outage;
mod port_forward;
mod registry;
mod releases;
mod run_services;
mod scaling;
mod shared;
mod sidecar;
mod tasks;
mod troubleshooting;
mod tunnels;
mod upgrade;
