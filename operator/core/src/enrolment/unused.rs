//! Finds the roots that nothing needs any more.
//!
//! A root is needed while a certificate that it signed, or a join string that names it, is valid. Neither is valid for
//! longer than [`LIFETIME`] after the leader last used the root. So a root that nobody has used for longer is removed.
//! The check need not know the gateways: a gateway that exists, seen or not, uses its root again and again.
//!
//! An annotation of the Secret says since when each root has not been seen in use. The leader removes a root from the
//! annotation before it uses the root again.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{LIFETIME, roots::gateway_of};

const DAY: u64 = 24 * 3600;
/// The shortest time between two checks that count, and the longest time between two consecutive checks, in seconds.
const LOOKS: (u64, u64) = (DAY, 2 * DAY);
/// How long an unused root is kept, in seconds: longer than its certificates are valid, even if a clock jumps by less
/// than the longest time between checks.
const KEPT: u64 = LIFETIME + LOOKS.1;

/// How recently this replica must have used a root for it to count as in use. Checks that are further apart start over,
/// so that a replica that cannot write for a while loses no use.
pub(super) const RECENT: Duration = Duration::from_secs(LOOKS.1);

/// The roots that were not seen in use, in the form of the annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unused {
    /// The time of the leader's last check, in seconds since 1970.
    looked: u64,
    /// Since when each root has not been seen in use, by the key of the root.
    since: BTreeMap<String, u64>,
}

/// The result of a check that needs a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The unused roots that are kept.
    pub unused: Unused,
    /// Keys of the roots to remove.
    pub gone: Vec<String>,
}

impl Unused {
    /// Reads the annotation. An absent or damaged annotation counts as empty, so all roots stay for now.
    #[must_use]
    pub fn parse(annotation: Option<&str>) -> Self {
        annotation.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The annotation.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the annotation to write before the root with this key is used. Absent if the root counts as used.
    #[must_use]
    pub fn without(&self, key: &str) -> Option<Self> {
        let mut next = self.clone();
        next.since.remove(key)?;
        Some(next)
    }

    /// Checks a Secret with roots under these keys. `is_used` says by the uid of a gateway whether its root was used
    /// recently. `now` is in seconds since 1970. Absent if it is too early, or there is nothing to write.
    #[must_use]
    pub fn look<'a>(
        &self,
        keys: impl Iterator<Item = &'a str>,
        is_used: impl Fn(&str) -> bool,
        now: u64,
    ) -> Option<Looked> {
        // Absent if a clock was wrong.
        let pause = now.checked_sub(self.looked);
        if pause.is_some_and(|pause| pause < LOOKS.0) {
            return None;
        }
        // If no check was made for a while, a clock jumped, or an old copy of the Secret was restored, the annotation
        // proves nothing.
        let follows = pause.is_some_and(|pause| pause <= LOOKS.1);
        let (mut since, mut gone) = (BTreeMap::new(), Vec::new());
        for key in keys {
            // A key that is not that of a root belongs to another client.
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
