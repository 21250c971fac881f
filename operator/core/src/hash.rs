//! Hashes of text that are the same on every machine and in every release.

use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Sha256Hash = [u8; 32];

/// The first eight bytes of the SHA-256 of the text, big-endian.
#[must_use]
pub fn hash(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// The SHA-256 of the text.
#[must_use]
pub fn sha256(text: &str) -> Sha256Hash {
    let mut hash = Sha256Hash::default();
    for (to, from) in hash.iter_mut().zip(Sha256::digest(text.as_bytes()).iter()) {
        *to = *from;
    }
    hash
}
