//! Free space on the disk: a run that fills the disk fails with errors that do not mention it.

use std::path::Path;

/// Bytes that are free on the disk of the checkout.
fn free() -> Option<u64> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stat = rustix::fs::statvfs(workspace).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Prints the free space on standard error.
pub(super) fn print() {
    if let Some(bytes) = free() {
        eprintln!("\n{} GiB of the disk are free", bytes >> 30);
    }
}
