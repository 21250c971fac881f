//! The operator against a real API server: what it pushes to real proxies, with the tokens of Pods, and what it writes
//! to status. No kubelet runs these Pods: their proxies are processes here and share one machine's ports.

mod app_ports;
mod claims;
mod classes;
mod drift;
mod enrolment;
mod excess;
mod expired_ca;
mod failover;
mod fields;
mod guards;
mod identity;
mod injection;
mod live;
mod lost_ca;
mod lying_proxies;
mod many;
mod namespaces;
mod network_policies;
mod newer;
mod notices;
mod older;
mod outage;
mod ports;
mod quotas;
mod recorded;
mod reinstall;
mod restored;
mod rollout;
mod rotation;
mod scaling;
mod serving;
mod sidecars;
mod story;
mod verdicts;

use harness::scene::{condition, forward, gateway, own_address, service, until_ready};
