//! The stream of [`proxy_api`] over gRPC and TLS 1.3, both ends of it.
//!
//! Messages are the JSON form of the contract's own types, carried by a codec of ours: there is no second schema that
//! could say something else. The certificate of an operator is made out to [`SERVER_NAME`], whatever address it is
//! reached under, and a proxy trusts the roots that it was given and no others.

mod client;
mod codec;
mod server;
mod tls;

pub use client::{Connection, Endpoint, OpenError, open};
pub use codec::{Frame, frame};
pub use server::{Answer, Follower, Limits, serve};
pub use tls::{TlsError, client_config, roots, server_config};
pub use tonic::{Code, Status, Streaming};

/// The name in an operator's certificate.
pub const SERVER_NAME: &str = "portlane-operator";
