//! Removal of files: acknowledged ones, damaged ones, and those that give way to a bound.

use std::ops::Range;

use super::{Log, SEGMENT_HEAD, failed};
use crate::record::cursor;
use crate::{Error, FileError, Outside, Reported, Settings, WhenFull, Why};

impl Log {
    /// Moves the cursor to `next`, as the sink has acknowledged every message before it. The cursor never moves back.
    /// It moves in memory only: [`Log::note`] and [`Log::commit`] write it.
    pub fn acknowledge(&mut self, next: u64) {
        self.cursor = self.cursor.max(next.min(self.next));
    }

    /// Saves the cursor, and then removes the segments that it has passed. After a crash of the
    /// machine, delivery starts at the saved cursor.
    pub fn commit(&mut self, outside: &mut Outside<'_>) -> Result<(), Error> {
        let saved = self.save(outside);
        // On a full disk the acknowledged segments are the space that the cursor needs.
        if saved.as_ref().is_err_and(|error| !error.is_no_space()) {
            return saved;
        }
        while self.segments.get(1).is_some_and(|second| second.first <= self.cursor) {
            self.remove_oldest(outside)?;
        }
        // The last segment goes, too, if a failed write has ended it: otherwise nothing frees the disk before the next
        // message.
        if saved.is_err() && !self.active && self.segments.len() == 1 && self.cursor == self.next {
            self.remove_oldest(outside)?;
        }
        saved.or_else(|_| self.save(outside))
    }

    /// Like [`Log::commit`], but writes the cursor even if it has not moved, which shows whether the disk takes writes.
    pub fn commit_again(&mut self, outside: &mut Outside<'_>) -> Result<(), Error> {
        self.saved = u64::MAX;
        self.commit(outside)
    }

    /// Removes all segments, including the last one, if the sink has acknowledged all messages. This is for a log to
    /// which nothing is appended for a while. The cursor on disk says which number comes next.
    pub fn release(&mut self, outside: &mut Outside<'_>) -> Result<(), Error> {
        if self.backlog() > 0 || self.saved != self.cursor {
            return Ok(());
        }
        self.end(outside);
        while !self.segments.is_empty() {
            self.remove_oldest(outside)?;
        }
        Ok(())
    }

    /// Changes the bound of the log to `max_bytes`, unless that is too small for its messages. Returns the bound that
    /// applies. Segments beyond a lower bound give way when messages come.
    pub fn bound(&mut self, max_bytes: u64) -> u64 {
        let settings = Settings { max_bytes, ..self.settings.clone() };
        if settings.check().is_ok() {
            self.settings = settings;
        }
        self.settings.max_bytes
    }

    /// Removes files until `bytes` more, and the head of a segment, are within the bound.
    pub(super) fn make_room(&mut self, outside: &mut Outside<'_>, bytes: u64) -> Result<(), Error> {
        while self.bytes + SEGMENT_HEAD + bytes > self.settings.max_bytes {
            self.free_one(outside, Why::Full)?;
        }
        Ok(())
    }

    /// Frees the space of one file: the damaged one that is kept, else the oldest segment if it is
    /// acknowledged or may be dropped. `why` is what messages give way to.
    pub(super) fn free_one(&mut self, outside: &mut Outside<'_>, why: Why) -> Result<(), Error> {
        if let Some((file, bytes)) = self.quarantined.take() {
            let removed = remove(outside, &file);
            if removed.is_ok() {
                self.bytes -= bytes;
            } else {
                self.quarantined = Some((file, bytes));
            }
            return removed;
        }
        // The only segment may exceed a bound that was lowered. It is ended here, as no append gets so far as to end
        // it.
        if self.active && self.segments.len() == 1 && self.bytes > self.settings.segment_bytes() {
            self.end(outside);
        }
        let full = Error::Full { held: self.bytes, max: self.settings.max_bytes };
        let limit = match self.segments.get(1) {
            Some(second) => second.first,
            // The only segment may go if it has ended: it may exceed a bound that was lowered.
            None if !self.active && !self.segments.is_empty() => self.next,
            None => return Err(full),
        };
        if limit > self.cursor && self.settings.when_full == WhenFull::Refuse {
            return Err(full);
        }
        self.drop_oldest(outside, limit, why)
    }

    /// Removes the segments whose messages are all older than the greatest age, which are those whose successor is
    /// older than that. Ends the last segment when it is an eighth of that age old.
    pub(super) fn expire(&mut self, outside: &mut Outside<'_>) -> Result<(), Error> {
        let Some(most) = self.settings.max_age else {
            return Ok(());
        };
        let now = outside.now;
        // Old segments go first, as a new one may need their space.
        while let Some(second) = self.segments.get(1).filter(|second| second.age(now) > most) {
            let limit = second.first;
            self.drop_oldest(outside, limit, Why::Age)?;
        }
        let old = self.segments.back().is_some_and(|last| last.first < self.next && last.age(now) >= most / 8);
        let room = self.bytes + SEGMENT_HEAD <= self.settings.max_bytes;
        if old && room {
            self.end(outside);
            self.begin(outside)?;
        }
        Ok(())
    }

    /// Removes the oldest segment, which ends before `limit`, delivered or not.
    fn drop_oldest(&mut self, outside: &mut Outside<'_>, limit: u64, why: Why) -> Result<(), Error> {
        let dropped = self.cursor..limit;
        if !dropped.is_empty() {
            outside.reported.push(Reported::Dropped { messages: dropped, why });
            self.cursor = limit;
        }
        let saved = self.save(outside);
        if saved.as_ref().is_err_and(|error| !error.is_no_space()) {
            return saved;
        }
        self.remove_oldest(outside)?;
        if saved.is_err() {
            // There should be space now. If there is none, the next commit tries again.
            let _ = self.save(outside);
        }
        Ok(())
    }

    /// Removes the oldest segment, or renames it if messages in it were damaged: a person may want to
    /// look at it. One such file is kept.
    fn remove_oldest(&mut self, outside: &mut Outside<'_>) -> Result<(), Error> {
        let Some((name, index, bytes, damaged)) = self
            .segments
            .front()
            .map(|oldest| (self.segment_name(oldest.index), oldest.index, oldest.bytes, oldest.damaged))
        else {
            return Ok(());
        };
        if damaged {
            self.quarantine(outside, index, bytes)?;
        } else {
            remove(outside, &name)?;
        }
        self.segments.pop_front();
        if !damaged {
            self.bytes -= bytes;
        }
        Ok(())
    }

    /// Renames a damaged segment, and removes the one that was kept before.
    pub(super) fn quarantine(&mut self, outside: &mut Outside<'_>, index: u64, bytes: u64) -> Result<(), Error> {
        if let Some((earlier, earlier_bytes)) = self.quarantined.take() {
            if let Err(error) = remove(outside, &earlier) {
                self.quarantined = Some((earlier, earlier_bytes));
                return Err(error);
            }
            self.bytes -= earlier_bytes;
        }
        let (name, file) = (self.segment_name(index), format!("{}{index:016x}.damaged", self.prefix));
        match outside.files.rename(&name, &file) {
            Ok(()) => outside.reported.push(Reported::Quarantined { file: file.clone() }),
            // The file is gone, or a call that failed has renamed it. Its bytes count until their space is needed.
            Err(FileError::Missing) => {}
            Err(why) => return Err(failed("rename", &name)(why)),
        }
        self.quarantined = Some((file, bytes));
        Ok(())
    }

    /// Writes the cursor into a new file that replaces the old one, and forgets the notes, which are not ahead of it.
    pub(super) fn save(&mut self, outside: &mut Outside<'_>) -> Result<(), Error> {
        if self.saved == self.cursor {
            return Ok(());
        }
        let (file, new) = (self.cursor_name(), self.new_cursor_name());
        remove(outside, &new)?;
        let bytes = cursor(self.cursor);
        let files = &mut *outside.files;
        files
            .create(&new)
            .and_then(|()| files.append(&new, &bytes))
            .and_then(|()| files.sync(&new))
            .and_then(|()| files.rename(&new, &file))
            .and_then(|()| files.sync_folder())
            .map_err(failed("write", &file))?;
        self.folder_unsynced = false;
        self.saved = self.cursor;
        self.forget_notes(outside);
        Ok(())
    }

    /// Reports that messages cannot be read.
    pub(super) fn lost(outside: &mut Outside<'_>, messages: Range<u64>) {
        if !messages.is_empty() {
            outside.reported.push(Reported::Lost { messages });
        }
    }

    pub(super) fn cursor_name(&self) -> String {
        format!("{}cursor", self.prefix)
    }

    pub(super) fn new_cursor_name(&self) -> String {
        format!("{}cursor.new", self.prefix)
    }
}

/// Removes a file, which may be gone.
pub(super) fn remove(outside: &mut Outside<'_>, file: &str) -> Result<(), Error> {
    match outside.files.remove(file) {
        Ok(()) | Err(FileError::Missing) => Ok(()),
        Err(why) => Err(Error::File { doing: "remove", file: file.to_owned(), why }),
    }
}
