//! Reads of a segment, a window at a time.

use crate::{FileError, Files};

/// Bytes that are read at once.
const WINDOW: usize = 64 * 1024;

/// A part of one segment in memory: a window, or one record if that is longer.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The index of the segment.
    index: Option<u64>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Bytes of the segment of `index` from `offset`: `count`, or fewer where the file ends. Nothing
    /// from `end` on is read.
    pub(super) fn get(
        &mut self,
        files: &mut dyn Files,
        (index, name): (u64, &str),
        offset: u64,
        count: usize,
        end: u64,
    ) -> Result<&[u8], FileError> {
        let filled = self.start + self.bytes.len() as u64;
        let held = self.index == Some(index) && offset >= self.start && offset + count as u64 <= filled;
        if !held {
            self.index = None;
            self.fill(files, name, offset, count.max(WINDOW), end)?;
            self.index = Some(index);
        }
        Ok(self.held(offset, count))
    }

    /// What is in memory of `count` bytes from `offset`.
    pub(super) fn held(&self, offset: u64, count: usize) -> &[u8] {
        let from = offset.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let bytes = from.and_then(|from| self.bytes.get(from..)).unwrap_or_default();
        bytes.get(..count).unwrap_or(bytes)
    }

    fn fill(
        &mut self,
        files: &mut dyn Files,
        name: &str,
        offset: u64,
        count: usize,
        end: u64,
    ) -> Result<(), FileError> {
        let most = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.start = offset;
        self.bytes.clear();
        self.bytes.resize(count.min(most), 0);
        let mut filled = 0;
        while let Some(rest) = self.bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match files.read_at(name, offset + filled as u64, rest) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(why) => return Err(why),
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }
}
