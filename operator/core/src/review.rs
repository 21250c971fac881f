//! Reviews of new pods, and their answers. Any pod may send reviews to the webhook, so the size of a parsed review is
//! bounded.

pub mod answer;
pub mod selectors;

use proxy_api::weight::Weight;

/// The heaviest review that is parsed. An object takes a node of about 640 bytes, and a value up to about 200 bytes beside
/// its text, so the whole review takes no more than 70 MiB. A pod of 1.5 MiB, the largest that etcd stores, has about
/// 25,000 objects and 90,000 values.
pub const HEAVIEST: Weight = Weight { objects: 50_000, values: 200_000 };
