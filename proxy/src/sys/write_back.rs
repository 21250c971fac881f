//! The beginning of a write to the disk, which libraries lack.

use std::{fs::File, io, os::fd::AsRawFd};

#[allow(unsafe_code, reason = "a call that libraries lack; it states its invariant")]
pub(super) fn begin_write_back(file: &File, count: u64) -> io::Result<()> {
    // For the system, 0 means the whole file.
    let Some(count) = i64::try_from(count).ok().filter(|count| *count > 0) else {
        return Ok(());
    };
    // SAFETY: the descriptor is open while `file` is borrowed, and the call neither reads nor writes memory of ours.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, count, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
