//! The versions of connected proxies, as labels of a metric.
//!
//! A proxy names its own version, and any pod may run a proxy of its own, so the labels are bounded in number and form.

use std::collections::BTreeSet;

/// Most versions that have labels of their own.
const VERSIONS: usize = 32;
/// Longest version that has a label of its own, in bytes.
const LONGEST: usize = 32;
/// The label of all other versions.
pub const OTHER: &str = "other";

/// The versions that have labels.
#[derive(Debug, Default)]
pub struct Versions {
    known: BTreeSet<String>,
}

impl Versions {
    /// The label of a version, and whether the version is new.
    pub fn label(&mut self, version: &str) -> (String, bool) {
        if self.known.contains(version) {
            return (version.to_owned(), false);
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
        let is_version = (1..=LONGEST).contains(&version.len()) && version.bytes().all(is_plain);
        if !is_version || self.known.len() >= VERSIONS {
            return (OTHER.to_owned(), false);
        }
        self.known.insert(version.to_owned());
        (version.to_owned(), true)
    }
}
