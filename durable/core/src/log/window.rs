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

    /// The part of `count` bytes from `offset` that is in memory.
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
        // Bytes of the last fill are not zeroed, as they are read over.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of one file.
    struct OneFile {
        bytes: Vec<u8>,
        /// The most bytes that one read gives.
        at_once: usize,
        fails: bool,
        /// Where reads began, and the bytes that were asked for.
        reads: Vec<(u64, usize)>,
    }

    impl Files for OneFile {
        fn create(&mut self, _: &str) -> Result<(), FileError> {
            Err(FileError::NoSpace)
        }

        fn append(&mut self, _: &str, _: &[u8]) -> Result<(), FileError> {
            Err(FileError::NoSpace)
        }

        fn read_at(&mut self, _: &str, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
            self.reads.push((offset, into.len()));
            if self.fails {
                return Err(FileError::Missing);
            }
            let rest = self.bytes.get(at(offset)..).unwrap_or_default();
            let count = rest.len().min(into.len()).min(self.at_once);
            into[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }

        fn sync(&mut self, _: &str) -> Result<(), FileError> {
            Err(FileError::NoSpace)
        }

        fn sync_folder(&mut self) -> Result<(), FileError> {
            Err(FileError::NoSpace)
        }

        fn rename(&mut self, _: &str, _: &str) -> Result<(), FileError> {
            Err(FileError::NoSpace)
        }

        fn remove(&mut self, _: &str) -> Result<(), FileError> {
            Err(FileError::NoSpace)
        }

        fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
            Err(FileError::NoSpace)
        }
    }

    fn at(offset: u64) -> usize {
        usize::try_from(offset).expect("a short file")
    }

    fn file(bytes: usize) -> OneFile {
        let bytes = (0..=250_u8).cycle().take(bytes).collect();
        OneFile { bytes, at_once: usize::MAX, fails: false, reads: Vec::new() }
    }

    /// Gets bytes of the file as a segment of this index. Returns whether the file was read for them.
    fn is_read(window: &mut Window, file: &mut OneFile, index: u64, offset: u64, count: usize) -> bool {
        let (before, end) = (file.reads.len(), file.bytes.len() as u64);
        let got = window.get(file, (index, "f"), offset, count, end).expect("the disk is well").to_vec();
        assert_eq!(got, file.bytes[at(offset)..at(offset) + count]);
        file.reads.len() > before
    }

    #[test]
    fn what_is_in_memory_is_not_read_again() {
        let (mut window, mut file) = (Window::default(), file(200_000));
        let offsets = [0, 65_526, 65_527, 65_527, 65_526];
        let are_read = offsets.map(|offset| is_read(&mut window, &mut file, 1, offset, 10));
        assert_eq!(are_read, [true, false, true, false, true]);
        assert_eq!(file.reads, [(0, 65_536), (65_527, 65_536), (65_526, 65_536)]);
    }

    #[test]
    fn the_bytes_of_another_segment_are_read() {
        let (mut window, mut file) = (Window::default(), file(200));
        let are_read = [1, 2, 2, 1].map(|index| is_read(&mut window, &mut file, index, 0, 10));
        assert_eq!(are_read, [true, true, false, true]);
    }

    #[test]
    fn a_record_that_is_longer_than_a_window_is_read_whole() {
        let (mut window, mut file) = (Window::default(), file(200_000));
        assert!(is_read(&mut window, &mut file, 1, 10, 100_000));
        assert_eq!(file.reads, [(10, 100_000)]);
    }

    #[test]
    fn a_disk_that_gives_a_part_is_asked_for_the_rest() {
        let (mut window, mut file) = (Window::default(), file(70_000));
        file.at_once = 40_000;
        assert!(is_read(&mut window, &mut file, 1, 1000, 65_536));
        assert_eq!(file.reads, [(1000, 65_536), (41_000, 25_536)]);
    }

    #[test]
    fn a_read_that_is_cut_short_shows_nothing_of_the_one_before() {
        let (mut window, mut file) = (Window::default(), file(200));
        assert!(is_read(&mut window, &mut file, 1, 0, 200));
        file.bytes.truncate(5);
        let got = window.get(&mut file, (2, "f"), 0, 20, 200).expect("the disk is well").to_vec();
        assert_eq!(got, file.bytes);
    }

    #[test]
    fn nothing_is_read_behind_the_end_of_the_segment_or_of_its_file() {
        let mut file = file(200);
        for (offset, end, bytes) in [(90, 100, 10), (100, 100, 0), (190, 1000, 10), (300, 1000, 0)] {
            let mut window = Window::default();
            let got = window.get(&mut file, (1, "f"), offset, 20, end).expect("the disk is well");
            assert_eq!(got.len(), bytes, "{offset} of {end}");
        }
    }

    #[test]
    fn after_a_failure_nothing_is_in_memory() {
        let (mut window, mut file) = (Window::default(), file(200_000));
        assert!(is_read(&mut window, &mut file, 1, 0, 10));
        file.fails = true;
        assert_eq!(window.get(&mut file, (1, "f"), 100_000, 10, 200_000), Err(FileError::Missing));
        file.fails = false;
        assert!(is_read(&mut window, &mut file, 1, 100_000, 10));
    }
}
