//! Requests and responses of the live API (`live.portlane.dev`): live sessions, and what a proxy runs.

pub mod api;
pub mod carriers;
pub mod config;
pub mod rates;
pub mod sessions;
pub mod together;

pub use proxy_api::SessionId;

/// API group.
pub const GROUP: &str = "live.portlane.dev";
/// Version of the API group.
pub const VERSION: &str = "v1alpha1";

/// Group and version, as `apiVersion` has them.
fn group_version() -> String {
    format!("{GROUP}/{VERSION}")
}
