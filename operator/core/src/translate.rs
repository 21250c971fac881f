//! Translates the world into one configuration per group and one verdict per forward.
//!
//! ```text
//! World ──declared, validate──▶ ValidForward ──groups──▶ groups of proxies ──claims──▶ holder of each port
//!       ──backends──▶ targets ──judge──▶ Verdict per forward, and its listeners to run
//!       ──program───▶ Snapshot per group
//! ```
//!
//! `tenants` decides what a gateway permits a namespace: validation of claims, their number, and limits of sessions.
//!
//! The [`Translator`] works incrementally; [`translate`] translates a whole world at once.

pub(crate) mod admission;
pub(crate) mod agents;
mod asked;
pub(crate) mod backends;
mod check_warnings;
pub(crate) mod claims;
mod declared;
pub mod groups;
pub(crate) mod index;
pub(crate) mod judge;
pub(crate) mod last_good;
pub(crate) mod peers;
pub mod program;
mod scope;
pub(crate) mod server_names;
pub mod sidecars;
pub(crate) mod streams;
pub(crate) mod surroundings;
pub(crate) mod tenants;
pub mod translator;
pub mod update;
pub mod validate;
pub mod verdict;
pub mod work;

use proxy_api::Version;

use self::translator::{Translation, Translator};
use crate::world::{World, changes::Changes};

/// Translates a whole world without earlier state. The same world always gives the same translation.
#[must_use]
pub fn translate(world: &World) -> Translation {
    let mut translator = Translator::default();
    translator.update(world, &Changes::all(), &Version { epoch: String::new(), number: 1 });
    translator.translation()
}
