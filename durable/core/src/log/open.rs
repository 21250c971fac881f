//! Recovery of a log after a crash, from the heads of its segments and the end of the last one.

use std::collections::VecDeque;
use std::time::Duration;

use super::notes::Notes;
use super::space::remove;
use super::window::Window;
use super::{Log, SEGMENT_HEAD, Segment, failed};
use crate::record::{CURSOR_BYTES, HEAD_BYTES, Head, NUMBERS, SEGMENT_HEAD_BYTES, SegmentHead, VERSION, read_cursor};
use crate::{Error, FileError, Outside, Reported, Settings};

type Listed = [(String, u64)];

impl Log {
    /// Opens the log whose files start with `prefix`, or begins one. Reads the head of each segment, and of the last
    /// one also the heads of its records, to find the end.
    ///
    /// Messages of an earlier process that are found count as synced. An old segment gets no new messages, so that
    /// nothing is ever written behind a torn end.
    pub fn open(outside: &mut Outside<'_>, prefix: &str, settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        let listed = outside.files.list().map_err(failed("list", "the folder"))?;
        let mut log = Self {
            prefix: prefix.to_owned(),
            settings,
            segments: VecDeque::new(),
            active: false,
            next: 0,
            index: 0,
            cursor: 0,
            saved: 0,
            notes: Notes::default(),
            unsynced: None,
            folder_unsynced: true,
            bytes: 0,
            quarantined: None,
            batch: Vec::new(),
        };
        log.find_segments(outside, &listed)?;
        log.find_end(outside)?;
        log.find_cursor(outside, &listed)?;
        log.next = log.next.max(log.cursor);
        Ok(log)
    }

    /// Indices and lengths of the log's files that end with `suffix`, in order.
    fn indices(&self, listed: &Listed, suffix: &str) -> Vec<(u64, u64)> {
        let index = |name: &str| {
            let digits = name.strip_prefix(self.prefix.as_str())?.strip_suffix(suffix)?;
            let index = u64::from_str_radix(digits, 16).ok()?;
            // A file whose name is spelled otherwise does not belong to the log.
            (index < NUMBERS && digits == format!("{index:016x}")).then_some(index)
        };
        let mut found: Vec<_> = listed.iter().filter_map(|(name, bytes)| Some((index(name)?, *bytes))).collect();
        found.sort_unstable();
        found
    }

    fn find_segments(&mut self, outside: &mut Outside<'_>, listed: &Listed) -> Result<(), Error> {
        for (index, bytes) in self.indices(listed, ".damaged") {
            self.index = self.index.max(index.saturating_add(1));
            if let Some((earlier, earlier_bytes)) = self.quarantined.take() {
                remove(outside, &earlier)?;
                self.bytes -= earlier_bytes;
            }
            self.bytes += bytes;
            self.quarantined = Some((format!("{}{index:016x}.damaged", self.prefix), bytes));
        }
        for (index, bytes) in self.indices(listed, ".log") {
            self.index = self.index.max(index.saturating_add(1));
            let segment = self.find_segment(outside, index, bytes)?;
            let in_order = segment.filter(|new| self.segments.back().is_none_or(|last| last.first <= new.first));
            if let Some(segment) = in_order {
                self.bytes += bytes;
                self.segments.push_back(segment);
            } else if bytes <= SEGMENT_HEAD {
                // A process crashed while it began the segment, so no message can be in it.
                remove(outside, &self.segment_name(index))?;
            } else {
                self.bytes += bytes;
                self.quarantine(outside, index, bytes)?;
            }
        }
        Ok(())
    }

    /// The segment of a file. If its head is damaged, the first record says where it starts.
    fn find_segment(&self, outside: &mut Outside<'_>, index: u64, bytes: u64) -> Result<Option<Segment>, Error> {
        let name = self.segment_name(index);
        let mut window = Window::default();
        let count = SEGMENT_HEAD_BYTES + HEAD_BYTES;
        let start = window.get(outside.files, (index, &name), 0, count, bytes.min(count as u64));
        let start = start.map_err(failed("read", &name))?;
        let (first, age, damaged) = match SegmentHead::decode(start) {
            SegmentHead::Newer(found) => return Err(Error::Newer { file: name, found, known: VERSION }),
            SegmentHead::Known { first, begun_millis } => {
                (first, Duration::from_millis(outside.now.unix_millis.saturating_sub(begun_millis)), false)
            }
            SegmentHead::Damaged => {
                let Some(head) = start.get(SEGMENT_HEAD_BYTES..).and_then(Head::decode) else {
                    return Ok(None);
                };
                (head.number, Duration::ZERO, true)
            }
        };
        Ok(Some(Segment { index, first, bytes, age, seen: outside.now.steady, damaged }))
    }

    /// Finds the end of the last segment, and syncs it: a process that was killed may have left messages that are not
    /// on disk yet. Bytes that are no message but have messages behind them are damage, which is reported when the log
    /// is read. Only the end may be cut off.
    fn find_end(&mut self, outside: &mut Outside<'_>) -> Result<(), Error> {
        let Some(&Segment { index, first, bytes, .. }) = self.segments.back() else {
            return Ok(());
        };
        let name = self.segment_name(index);
        let mut window = Window::default();
        let mut offset = SEGMENT_HEAD.min(bytes);
        self.next = first;
        while offset < bytes {
            let start = window.get(outside.files, (index, &name), offset, HEAD_BYTES, bytes);
            let head = Head::decode(start.map_err(failed("read", &name))?);
            if let Some(head) = head.filter(|head| offset + head.total() <= bytes && head.number >= self.next) {
                self.next = head.number.saturating_add(1);
                offset += head.total();
                continue;
            }
            let behind = self.find_behind(outside, &mut window, offset).map_err(failed("read", &name))?;
            let Some((behind, last)) = behind.zip(self.segments.back_mut()) else {
                outside.reported.push(Reported::Cut { file: name.clone(), bytes: bytes - offset });
                break;
            };
            last.damaged = true;
            offset = behind;
        }
        let synced = outside.files.sync(&name).and_then(|()| outside.files.sync_folder());
        match synced {
            Ok(()) => self.folder_unsynced = false,
            Err(why) => outside.reported.push(Reported::SyncFailed { messages: first..self.next, why }),
        }
        Ok(())
    }

    /// The offset of the next message in the last segment behind `from`, at which there is none.
    fn find_behind(&self, outside: &mut Outside<'_>, window: &mut Window, from: u64) -> Result<Option<u64>, FileError> {
        let Some(&Segment { index, bytes, .. }) = self.segments.back() else {
            return Ok(None);
        };
        let name = self.segment_name(index);
        let mut offset = from + 1;
        while offset + HEAD_BYTES as u64 <= bytes {
            // The window holds more bytes than these, and all of them are searched.
            window.get(outside.files, (index, &name), offset, HEAD_BYTES, bytes)?;
            let part = window.held(offset, usize::MAX);
            let fits = |(at, head): &(usize, &[u8])| {
                // The room before a head bounds the number in it. This check costs less than a checksum.
                let before = (offset + *at as u64 - from) / HEAD_BYTES as u64;
                let numbers = self.next..=self.next.saturating_add(before);
                Head::number(head).is_some_and(|number| numbers.contains(&number))
            };
            let is_whole = |(place, head): &(u64, Head)| place + head.total() <= bytes;
            let heads = part.windows(HEAD_BYTES).enumerate().filter(fits);
            let mut heads = heads.filter_map(|(at, head)| Some((offset + at as u64, Head::decode(head)?)));
            if let Some((place, _)) = heads.find(is_whole) {
                return Ok(Some(place));
            }
            // A head may begin in the last bytes.
            match part.len().checked_sub(HEAD_BYTES) {
                Some(searched) => offset += searched as u64 + 1,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Finds the cursor, and the notes that are ahead of it. Without either, delivery starts at the oldest message.
    fn find_cursor(&mut self, outside: &mut Outside<'_>, listed: &Listed) -> Result<(), Error> {
        let name = self.cursor_name();
        let oldest = self.segments.front().map_or(0, |oldest| oldest.first);
        let (mut position, mut unreadable) = (None, false);
        let there = listed.iter().any(|(file, _)| *file == name);
        if there {
            let mut window = Window::default();
            match window.get(outside.files, (0, &name), 0, CURSOR_BYTES, CURSOR_BYTES as u64) {
                Ok(bytes) => position = read_cursor(bytes),
                Err(_) => unreadable = true,
            }
        }
        if let Some(position) = position {
            // The name of the cursor's file may not be on disk, so the cursor is saved again before a segment is
            // removed.
            let unsure = self.folder_unsynced && !self.segments.is_empty();
            (self.cursor, self.saved) = (position, if unsure { u64::MAX } else { position });
        } else if there || oldest > 0 {
            // `saved` differs from every cursor, so the next commit saves the cursor.
            (self.cursor, self.saved) = (oldest, u64::MAX);
            if unreadable {
                // The cursor is saved at once: the unreadable file, if it can be read one day, has passed numbers that
                // are used again.
                self.save(outside)?;
            }
            outside.reported.push(Reported::CursorLost);
        }
        self.find_notes(outside, listed)
    }
}
