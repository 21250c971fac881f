//! Requests and responses of the live API (`live.portlane.dev`): live sessions, the lag of durable listeners, and what a
//! proxy runs.

pub mod api;
pub mod carriers;
pub mod config;
mod fair_list;
pub mod lag;
pub mod rates;
pub mod sessions;
pub mod together;

pub use proxy_api::SessionId;

/// API group.
pub const GROUP: &str = "live.portlane.dev";
/// Version of the API group.
pub const VERSION: &str = "v1alpha1";

/// The highest number in a response: clients read numbers as signed 64-bit integers.
const HIGHEST: u64 = i64::MAX.unsigned_abs();

/// The metadata of a list: Kubernetes expects some in every object.
#[derive(serde::Serialize)]
struct Metadata {}

/// Group and version, as `apiVersion` has them.
fn group_version() -> String {
    format!("{GROUP}/{VERSION}")
}
