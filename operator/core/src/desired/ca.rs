//! When a root is made, when it begins to sign, when it is dropped. Pure: the time comes as an argument.

use serde::{Deserialize, Serialize};

const DAY: u64 = 24 * 3600;
/// Life of a root, seconds.
pub const LIFE: u64 = 5 * 365 * DAY;
/// A successor is made when the newest root has so much left.
const SUCCESSOR: u64 = 365 * DAY;
/// A successor has been known for so long before it signs: streams tell it within a second, pods that cannot reach the
/// operator have a month.
const KNOWN: u64 = 30 * DAY;

/// One root with its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// When it was made, seconds since 1970.
    pub made: u64,
    /// When it ends.
    pub end: u64,
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
}

/// The roots of an installation, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    /// All of them.
    pub roots: Vec<Root>,
}

impl Roots {
    /// The roots as they should be now, and whether that is something else. Makes a first one, or a successor, with `make`.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn rotated<E>(mut self, now: u64, make: impl FnOnce() -> Result<Root, E>) -> Result<(Self, bool), E> {
        let had = self.roots.len();
        self.roots.retain(|root| root.end > now);
        let mut changed = self.roots.len() != had;
        if self.roots.last().is_none_or(|newest| newest.end < now + SUCCESSOR) {
            self.roots.push(make()?);
            changed = true;
        }
        Ok((self, changed))
    }

    /// The root that signs: the newest that has been known long enough, else the oldest.
    #[must_use]
    pub fn signing(&self, now: u64) -> Option<&Root> {
        self.roots.iter().rev().find(|root| root.made + KNOWN <= now).or_else(|| self.roots.first())
    }

    /// What proxies are to trust, PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.roots.iter().map(|root| root.certificate.as_str()).collect()
    }
}

/// The CA certificates that proxies and API servers trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// All of them, PEM.
    pub bundle: String,
    /// The one that signs now, PEM.
    pub signing: String,
}

impl Trusted {
    /// The certificates for the pods of a fleet that has `there` now: they stay as long as they lead to the operator. New ones
    /// come over the stream, and a change of the template would roll the fleet.
    #[must_use]
    pub fn for_fleet<'a>(&'a self, there: Option<&'a str>) -> &'a str {
        there.filter(|there| there.contains(&self.signing)).unwrap_or(&self.bundle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(made: u64) -> Root {
        Root { made, end: made + LIFE, certificate: format!("c{made};"), key: String::new() }
    }

    fn at(roots: Roots, now: u64) -> (Roots, bool) {
        roots.rotated(now, || Ok::<_, ()>(root(now))).expect("made")
    }

    #[test]
    fn a_successor_is_trusted_long_before_it_signs_and_the_old_root_until_it_ends() {
        let start = 1_800_000_000;
        let (first, changed) = at(Roots::default(), start);
        assert!(changed && first.signing(start) == Some(&root(start)), "the first one signs at once");
        assert!(!at(first.clone(), start + LIFE - SUCCESSOR).1, "nothing to do for years");
        let later = start + LIFE - SUCCESSOR + 1;
        let (both, changed) = at(first, later);
        assert!(changed);
        assert_eq!(both.bundle(), format!("c{start};c{later};"), "both are trusted");
        assert_eq!(both.signing(later + KNOWN - 1), Some(&root(start)), "the old one signs on");
        assert_eq!(both.signing(later + KNOWN), Some(&root(later)), "then the new one");
        let (one, changed) = at(both, start + LIFE);
        assert!(changed && one.roots == vec![root(later)], "what has ended is dropped");
    }

    #[test]
    fn an_installation_that_slept_for_ten_years_has_a_root_that_signs() {
        let (roots, _) = at(Roots { roots: vec![root(0)] }, 2 * LIFE);
        assert_eq!(roots.signing(2 * LIFE), Some(&root(2 * LIFE)));
    }
}
