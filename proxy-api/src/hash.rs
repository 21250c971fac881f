//! Hashes as text.

pub(crate) fn short(hash: &[u8]) -> String {
    let first = hash.iter().take(8).fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
    format!("{first:016x}")
}
