//! Rotation of the CA: when a CA certificate is created, when it begins to sign, and when it is dropped.

use serde::{Deserialize, Serialize};

const DAY: u64 = 24 * 3600;
/// Lifetime of a CA certificate, seconds.
pub const LIFE: u64 = 5 * 365 * DAY;
/// A successor is created when the newest CA certificate has this many seconds left.
const SUCCESSOR: u64 = 365 * DAY;
/// Seconds between the creation of a successor and its first signature. Streams deliver a new CA certificate within a
/// second; proxies that cannot reach the operator have a month.
const KNOWN: u64 = 30 * DAY;

/// A CA certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// Time of creation, seconds since 1970.
    pub made: u64,
    /// Time of expiry, seconds since 1970.
    pub end: u64,
    /// The certificate, PEM.
    pub certificate: String,
    /// The private key, PEM.
    pub key: String,
}

/// The CA certificates of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    /// All CA certificates, oldest first.
    pub roots: Vec<Root>,
}

impl Roots {
    /// Drops expired CA certificates and creates the first one or a successor with `make`. Returns the result and
    /// whether it differs from `self`.
    ///
    /// # Errors
    /// The error of `make`.
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

    /// The CA certificate that signs: the newest one that proxies have known for long enough, or else the oldest. An
    /// expired one never signs: every client would refuse what it signed.
    #[must_use]
    pub fn signing(&self, now: u64) -> Option<&Root> {
        let mut valid = self.roots.iter().filter(|root| root.end > now);
        valid.clone().rev().find(|root| root.made + KNOWN <= now).or_else(|| valid.next())
    }

    /// Whether there was a CA and all of its certificates have expired.
    #[must_use]
    pub fn has_expired(&self, now: u64) -> bool {
        !self.roots.is_empty() && self.signing(now).is_none()
    }

    /// The CA bundle that proxies trust, PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.roots.iter().map(|root| root.certificate.as_str()).collect()
    }

    /// When the oldest CA certificate was created, seconds since 1970; 0 while there is none.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.roots.iter().map(|root| root.made).min().unwrap_or(0)
    }
}

/// The CA certificates that proxies and API servers trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// The whole bundle, PEM.
    pub bundle: String,
    /// The CA certificate that signs now, PEM.
    pub signing: String,
    /// When the oldest CA certificate was created, seconds since 1970; 0 while there is none.
    pub since: u64,
}

impl Trusted {
    /// The bundle for the pod template of a fleet that has `existing` now. `existing` stays as long as it contains the
    /// signing CA certificate: proxies receive new ones over the stream, and a change of the template would roll the
    /// fleet.
    #[must_use]
    pub fn for_fleet<'a>(&'a self, existing: Option<&'a str>) -> &'a str {
        existing.filter(|existing| existing.contains(&self.signing)).unwrap_or(&self.bundle)
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
    fn a_successor_is_trusted_long_before_it_signs_and_the_old_one_until_it_expires() {
        let start = 1_800_000_000;
        let (first, changed) = at(Roots::default(), start);
        assert!(changed && first.signing(start) == Some(&root(start)), "the first CA certificate signs at once");
        assert!(!at(first.clone(), start + LIFE - SUCCESSOR).1, "nothing to do for years");
        let later = start + LIFE - SUCCESSOR + 1;
        let (both, changed) = at(first, later);
        assert!(changed);
        assert_eq!(both.bundle(), format!("c{start};c{later};"), "both are trusted");
        assert_eq!(both.signing(later + KNOWN - 1), Some(&root(start)), "the old one still signs");
        assert_eq!(both.signing(later + KNOWN), Some(&root(later)), "then the new one");
        let (one, changed) = at(both, start + LIFE);
        assert!(changed && one.roots == vec![root(later)], "an expired one is dropped");
    }

    #[test]
    fn an_installation_that_slept_for_ten_years_has_a_ca_that_signs() {
        let old = Roots { roots: vec![root(0)] };
        assert!(old.signing(LIFE - 1).is_some() && !old.has_expired(LIFE - 1) && !Roots::default().has_expired(LIFE));
        assert!(old.signing(LIFE).is_none() && old.has_expired(LIFE), "an expired CA certificate signs nothing");
        let (roots, _) = at(old, 2 * LIFE);
        assert_eq!(roots.signing(2 * LIFE), Some(&root(2 * LIFE)));
    }
}
