//! Reading dead letters while another process may put some aside.

use std::time::Duration;

use durable_core::{DeadLetters, Error, Letter, Now, Outside, Reader, Reported};

use crate::FolderView;

/// Nothing is due in a log that is only looked at.
const NOW: Now = Now { steady: Duration::ZERO, unix_millis: 0 };

/// The dead letters of one log, the oldest first. One window of one file is in memory, or one letter if that is longer.
#[derive(Debug)]
pub struct Letters {
    folder: FolderView,
    letters: DeadLetters,
    reader: Reader,
    unread: u64,
}

impl Letters {
    /// The letters whose files start with `prefix`, as they are now: later letters are not read, nor is one that is not
    /// written completely.
    pub fn open(mut folder: FolderView, prefix: &str) -> Result<Self, Error> {
        let mut reported = Vec::new();
        let mut outside = Outside { files: &mut folder, now: NOW, reported: &mut reported };
        let (letters, reader) = DeadLetters::look(&mut outside, prefix)?;
        Ok(Self { folder, letters, reader, unread: 0 })
    }

    /// Reads the next letter. `None`: all were read.
    pub fn read(&mut self) -> Result<Option<Letter<'_>>, Error> {
        let mut reported = Vec::new();
        let mut outside = Outside { files: &mut self.folder, now: NOW, reported: &mut reported };
        let letter = self.letters.read(&mut outside, &mut self.reader)?;
        for reported in &reported {
            if let Reported::Lost { messages } = reported {
                self.unread = self.unread.saturating_add(messages.end.saturating_sub(messages.start));
            }
        }
        Ok(letter)
    }

    /// How many letters could not be read so far, as they are damaged, or gave way to newer ones meanwhile.
    pub const fn unread(&self) -> u64 {
        self.unread
    }
}
