//! The whole world in, one configuration per group and one verdict per forward out.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::{Configuration, Version};

use crate::{Changes, Group, ObjectKey, Translator, Verdict, World};

/// What the world means.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// The configuration of every group; its version is set by whoever publishes it.
    pub configurations: BTreeMap<Group, Configuration>,
    /// The judgement on every forward.
    pub verdicts: BTreeMap<ObjectKey, Verdict>,
    /// The pods of every sidecar group.
    pub pods: BTreeMap<Group, BTreeSet<ObjectKey>>,
}

/// Translates the whole world, of which nothing was known before. The same world always gives the same translation.
#[must_use]
pub fn translate(world: &World) -> Translation {
    let mut translator = Translator::default();
    translator.update(world, &Changes::all(), &Version { epoch: String::new(), number: 1 });
    translator.translation()
}
