//! How far the sink is, written without a sync: that outlives the process, and often not the machine.
//!
//! A note has the form of a cursor, and is appended to one of two files. A file that is full stays until the other one
//! has a note, so that the process may be killed at any time. Each note is true, in whatever order the disk writes them;
//! what is torn has a wrong checksum. So the latest one that can be read counts, if it is ahead of the cursor that was
//! saved.

use std::mem::take;

use super::space::remove;
use super::window::Window;
use super::{Log, failed};
use crate::record::{CURSOR_BYTES, cursor, read_cursor};
use crate::{Error, Outside};

/// The most bytes of one of the files: a block.
const NOTES_BYTES: u64 = 4096;

/// The notes since the cursor was saved.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Whether there may be a file.
    is_there: bool,
    /// The file that has the latest note.
    latest: u8,
    /// The bytes of that file. `None`: the next note begins the other one, as nothing is appended to what an earlier
    /// process has left.
    bytes: Option<u64>,
    /// Whether the disk did not take a note.
    is_refused: bool,
}

impl Log {
    /// Writes the cursor without a sync, unless it is saved already: if this process is killed, delivery starts there.
    /// After a failure nothing is written before the cursor is saved.
    pub fn note(&mut self, outside: &mut Outside<'_>) -> Result<(), Error> {
        if self.saved == self.cursor || self.notes.is_refused {
            return Ok(());
        }
        let note = cursor(self.cursor);
        let length = note.len() as u64;
        let room = self.notes.bytes.filter(|bytes| bytes + length <= NOTES_BYTES);
        let file = if room.is_some() { self.notes.latest } else { self.notes.latest ^ 1 };
        let name = self.notes_name(file);
        self.notes.is_there = true;
        let begun = if room.is_some() { Ok(()) } else { begin(outside, &name) };
        let written = begun.and_then(|()| outside.files.append(&name, &note).map_err(failed("write", &name)));
        if written.is_ok() {
            (self.notes.latest, self.notes.bytes) = (file, Some(room.unwrap_or(0) + length));
        } else {
            self.notes.is_refused = true;
        }
        written
    }

    /// Moves the cursor to the latest note of a process that was killed, and saves it.
    pub(super) fn find_notes(&mut self, outside: &mut Outside<'_>, listed: &[(String, u64)]) -> Result<(), Error> {
        let Some(noted) = self.read_notes(outside, listed)?.filter(|noted| *noted > self.cursor) else {
            self.forget_notes(outside);
            return Ok(());
        };
        self.cursor = noted;
        // If this fails the notes stay, and the next commit tries again.
        let _ = self.save(outside);
        Ok(())
    }

    fn read_notes(&mut self, outside: &mut Outside<'_>, listed: &[(String, u64)]) -> Result<Option<u64>, Error> {
        let mut latest = None;
        for file in [0, 1] {
            let name = self.notes_name(file);
            let Some((_, bytes)) = listed.iter().find(|(listed, _)| *listed == name) else {
                continue;
            };
            self.notes.is_there = true;
            let count = usize::try_from((*bytes).min(NOTES_BYTES)).unwrap_or(0);
            let mut window = Window::default();
            let Ok(found) = window.get(outside.files, (0, &name), 0, count, count as u64) else {
                // Numbers are used again that this file, if it is read one day, has passed. Its removal is on the disk
                // before a sync names one of them, as new messages begin a segment.
                remove(outside, &name)?;
                continue;
            };
            let noted = found.chunks(CURSOR_BYTES).filter_map(read_cursor).max();
            if noted > latest {
                (latest, self.notes.latest) = (noted, file);
            }
        }
        Ok(latest)
    }

    /// Removes the notes, none of which is ahead of the cursor that is saved.
    pub(super) fn forget_notes(&mut self, outside: &mut Outside<'_>) {
        if take(&mut self.notes).is_there {
            for file in [0, 1] {
                // One that stays says nothing new.
                let _ = remove(outside, &self.notes_name(file));
            }
        }
    }

    fn notes_name(&self, file: u8) -> String {
        format!("{}cursor.{file}", self.prefix)
    }
}

/// Begins a file of notes. What it has is older than what the other one has.
fn begin(outside: &mut Outside<'_>, name: &str) -> Result<(), Error> {
    remove(outside, name)?;
    outside.files.create(name).map_err(failed("begin", name))
}
