//! From the world to one configuration per group and one verdict per forward.
//!
//! ```text
//! World ──validate──▶ ValidForward ──groups──▶ who runs together ──claims──▶ who has which port
//!       ──backends──▶ where bytes may go ──judge──▶ Verdict per forward, and its listeners as they should run
//!       ──program───▶ Snapshot per group
//! ```
//!
//! The [`Translator`] does this one change at a time; [`translate`] does it for a world of which nothing was known.

pub(crate) mod admission;
pub(crate) mod backends;
pub(crate) mod claims;
pub mod groups;
pub(crate) mod index;
pub(crate) mod judge;
pub mod program;
pub mod translator;
pub mod update;
pub mod validate;
pub mod verdict;

use proxy_api::Version;

use self::translator::{Translation, Translator};
use crate::world::{World, changes::Changes};

/// Translates the whole world, of which nothing was known before. The same world always gives the same translation.
#[must_use]
pub fn translate(world: &World) -> Translation {
    let mut translator = Translator::default();
    translator.update(world, &Changes::all(), &Version { epoch: String::new(), number: 1 });
    translator.translation()
}
