//! The stream of [`proxy_api`] over gRPC and TLS 1.3: client and server.
//!
//! Messages are the JSON form of the contract's own types, so no second schema can disagree with the first. The
//! operator's serving certificate is issued for [`SERVER_NAME`], whatever address it is reached at. A proxy trusts only
//! the CAs it was given.
//!
//! Both programs have the same client for kubelet's probes: [`probe`].

mod client;
mod codec;
mod door;
mod probe;
mod pushback;
mod server;
mod tls;

pub use client::{Connection, Endpoint, OpenError, open};
pub use codec::{Frame, frame};
pub use door::{Closed, Door, Guest, Place};
pub use probe::{ProbeError, probe};
pub use pushback::{retry_after, with_retry_after};
pub use server::{Admitted, Answer, Follower, Messages, serve};
pub use tls::{TlsError, client_config, roots, server_config};
pub use tonic::{Code, Status, Streaming};

/// Name in the operator's serving certificate.
pub const SERVER_NAME: &str = "portlane-operator";
