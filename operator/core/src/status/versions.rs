//! The versions of connected proxies, as labels of a metric.
//!
//! A proxy reports its own version, and any pod may run a proxy of its own, so the labels are bounded in form, in
//! number, and in number by namespace. A label lasts while a proxy with it is connected, so unused labels take no place
//! from others. The operator's own version needs no place.

use std::collections::{BTreeMap, BTreeSet};

/// The most versions beside the operator's own that get labels.
const VERSIONS: usize = 32;
/// The most labels for versions that proxies of one namespace were the first to report.
const OF_NAMESPACE: usize = 4;
/// Most digits of each number of a version.
const DIGITS: usize = 5;
/// Longest suffix of a pre-release, in bytes.
const SUFFIX: usize = 16;
/// The label of all other versions.
pub const OTHER: &str = "other";

/// The versions that have labels.
#[derive(Debug)]
pub struct Versions {
    own: String,
    named: BTreeMap<String, Named>,
    /// Versions that were logged as new.
    logged: BTreeSet<String>,
}

/// A version that connected proxies report.
#[derive(Debug)]
struct Named {
    /// Namespace of the proxy that reported the version first.
    by: String,
    /// Number of connected proxies.
    proxies: usize,
}

impl Versions {
    /// The state without connected proxies. `own` is the version of the operator.
    #[must_use]
    pub fn new(own: &str) -> Self {
        Self { own: own.to_owned(), named: BTreeMap::new(), logged: BTreeSet::new() }
    }

    /// Records that a proxy of this namespace connects. Returns the label of its version, and whether it is the first
    /// proxy with that label, apart from the operator's own version.
    pub fn connected(&mut self, namespace: &str, version: &str) -> (String, bool) {
        if version == self.own {
            return (version.to_owned(), false);
        }
        if let Some(named) = self.named.get_mut(version) {
            named.proxies += 1;
            return (version.to_owned(), false);
        }
        let of_namespace = self.named.values().filter(|named| named.by == namespace).count();
        if !is_release(version) || self.named.len() >= VERSIONS || of_namespace >= OF_NAMESPACE {
            return (OTHER.to_owned(), false);
        }
        self.named.insert(version.to_owned(), Named { by: namespace.to_owned(), proxies: 1 });
        let is_new = self.logged.len() < VERSIONS && self.logged.insert(version.to_owned());
        (version.to_owned(), is_new)
    }

    /// Records that a proxy with this label is gone. Returns whether it was the last such proxy, so that the label
    /// ends.
    pub fn left(&mut self, label: &str) -> bool {
        let Some(named) = self.named.get_mut(label) else { return false };
        named.proxies -= 1;
        let is_last = named.proxies == 0;
        if is_last {
            self.named.remove(label);
        }
        is_last
    }
}

/// Whether a text has the form of a release: `1.2.3` or `1.2.3-rc.1`.
fn is_release(version: &str) -> bool {
    let (numbers, suffix) =
        version.split_once('-').map_or((version, None), |(numbers, suffix)| (numbers, Some(suffix)));
    let is_number = |part: &str| (1..=DIGITS).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && suffix.is_none_or(|suffix| (1..=SUFFIX).contains(&suffix.len()) && suffix.bytes().all(is_plain))
}
