//! A hash of text that is the same on every machine and in every release.

use sha2::{Digest, Sha256};

/// The first eight bytes of the SHA-256 of the text, big-endian.
#[must_use]
pub fn hash(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
