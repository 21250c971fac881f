//! The roots that nothing needs any more.
//!
//! A root is needed as long as a certificate that it signed counts, or a join string that names it. Neither does longer
//! than [`LIFETIME`] after the leader used the root. So a root that was used by nobody for longer goes, and it needs no
//! view of gateways for that: one that exists, or is only out of sight, uses its root again and again.
//!
//! The annotation of the Secret says since when each root was not seen in use. The leader takes a root out of it before
//! the root is used again.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{LIFETIME, roots::gateway_of};

const DAY: u64 = 24 * 3600;
/// Shortest time between two looks that count, and longest time between two that follow each other, seconds.
const LOOKS: (u64, u64) = (DAY, 2 * DAY);
/// How long a root stays that is not used, seconds: longer than what it signed counts, also if a clock jumps by less than
/// what begins anew.
const KEPT: u64 = LIFETIME + LOOKS.1;

/// A root is in use that this replica used so recently. Looks that are further apart begin anew, so that a replica that
/// cannot write for a while forgets no use.
pub(super) const RECENT: Duration = Duration::from_secs(LOOKS.1);

/// The roots that were not seen in use, as the annotation of the Secret has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unused {
    /// When the leader looked last, seconds since 1970.
    looked: u64,
    /// Since when each of them was not seen in use, by the key of the root.
    since: BTreeMap<String, u64>,
}

/// What a look comes to that is worth a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The roots that were not seen in use, and stay.
    pub unused: Unused,
    /// Keys of the roots that go.
    pub gone: Vec<String>,
}

impl Unused {
    /// Reads the annotation. One that is absent or damaged knows nothing, so that all roots stay for now.
    #[must_use]
    pub fn parse(annotation: Option<&str>) -> Self {
        annotation.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The annotation.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What to note before the root with this key is used. Absent: it counts as used.
    #[must_use]
    pub fn without(&self, key: &str) -> Option<Self> {
        let mut next = self.clone();
        next.since.remove(key)?;
        Some(next)
    }

    /// Looks at a Secret with roots under these keys. `is_used` says by the uid of a gateway whether its root was used
    /// recently. `now` is in seconds since 1970. Absent: it is too early, or there is nothing to note.
    #[must_use]
    pub fn look<'a>(
        &self,
        keys: impl Iterator<Item = &'a str>,
        is_used: impl Fn(&str) -> bool,
        now: u64,
    ) -> Option<Looked> {
        // Absent: a clock was wrong.
        let pause = now.checked_sub(self.looked);
        if pause.is_some_and(|pause| pause < LOOKS.0) {
            return None;
        }
        // Nobody looked for a while, a clock jumped, or an old copy of the Secret was restored: what it says proves
        // nothing.
        let follows = pause.is_some_and(|pause| pause <= LOOKS.1);
        let (mut since, mut gone) = (BTreeMap::new(), Vec::new());
        for key in keys {
            // What is no root belongs to somebody else.
            let Some(gateway_uid) = gateway_of(key) else { continue };
            if is_used(gateway_uid) {
                continue;
            }
            let from = self.since.get(key).copied().filter(|_| follows).unwrap_or(now);
            if now.saturating_sub(from) > KEPT {
                gone.push(key.to_owned());
            } else {
                since.insert(key.to_owned(), from);
            }
        }
        let nothing = since.is_empty() && gone.is_empty() && self.since.is_empty();
        (!nothing).then_some(Looked { unused: Self { looked: now, since }, gone })
    }
}
