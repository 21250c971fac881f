//! Pipes for splicing: few, large, lent only while bytes are in them.
//!
//! The system's pipe budget is per user on the whole node, so a process takes a small part of it. All workers share that
//! part, so that the streams of one worker can use all of it. Without a pipe of full size, bytes are copied.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{
    files::{Files, Permit},
    room::Room,
    sys::Pipe,
};

/// Size of each pipe in bytes. Smaller pipes move less with each call: splicing through 64 KiB takes half of the CPU of
/// copying, and 40 % more than through 1 MiB (`docs/performance.md`, models of I/O).
const PIPE_BYTES: usize = 1 << 20;
/// Seconds without another attempt after the system has refused a pipe.
const RETRY_AFTER: u64 = 10;

/// A pipe, with its place in the budget and its two file descriptors. Boxed, because it passes from stream to stream.
#[derive(Debug)]
pub struct PooledPipe(Box<(Pipe, [Permit; 2])>);

impl PooledPipe {
    /// The pipe.
    #[must_use]
    pub fn pipe(&self) -> &Pipe {
        &self.0.0
    }
}

/// Why there is no pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPipe {
    /// All pipes of the process are lent.
    PipeLimit,
    /// The process is at its file descriptor limit.
    FileLimit,
    /// The system has refused a pipe of full size, now or a moment ago.
    Refused,
}

impl NoPipe {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::PipeLimit, Self::FileLimit, Self::Refused];

    /// Label value in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PipeLimit => "PipeLimit",
            Self::FileLimit => "FileLimit",
            Self::Refused => "Refused",
        }
    }
}

/// The pipes of the process.
#[derive(Debug)]
pub struct Pipes {
    idle: Mutex<Vec<PooledPipe>>,
    /// Number of idle pipes, so that streams skip the lock if none is idle.
    spare: AtomicUsize,
    room: Arc<Room>,
    files: Arc<Files>,
    /// No pipe is created before this time, in seconds of the process clock.
    resume_at: AtomicU64,
    make: fn(usize) -> io::Result<Pipe>,
    spliced: AtomicU64,
    copied: [AtomicU64; NoPipe::ALL.len()],
}

impl Pipes {
    /// Allows at most `bytes` in pipes; less than one pipe of full size disables splicing.
    #[must_use]
    pub fn new(bytes: usize, files: Arc<Files>) -> Self {
        Self {
            idle: Mutex::default(),
            spare: AtomicUsize::new(0),
            room: Arc::new(Room::new(bytes / PIPE_BYTES)),
            files,
            resume_at: AtomicU64::new(0),
            make: Pipe::new,
            spliced: AtomicU64::new(0),
            copied: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Lends an empty pipe at `now` (seconds of the process clock).
    ///
    /// # Errors
    /// Why there is none.
    pub fn lend(&self, now: u64) -> Result<PooledPipe, NoPipe> {
        if let Some(pipe) = self.take_idle() {
            return Ok(pipe);
        }
        if self.resume_at.load(Relaxed) > now {
            return Err(NoPipe::Refused);
        }
        let place = self.room.take(1).ok_or(NoPipe::PipeLimit)?;
        let files = self.files.take(2).ok_or(NoPipe::FileLimit)?;
        match (self.make)(PIPE_BYTES) {
            Ok(pipe) if pipe.size >= PIPE_BYTES => Ok(PooledPipe(Box::new((pipe, [place, files])))),
            // The budget of the user is exhausted, perhaps by other processes, or the system has no pipes.
            Ok(_) | Err(_) => {
                self.resume_at.store(now.saturating_add(RETRY_AFTER), Relaxed);
                Err(NoPipe::Refused)
            }
        }
    }

    fn take_idle(&self) -> Option<PooledPipe> {
        if self.spare.load(Relaxed) == 0 {
            return None;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = idle.pop();
        self.spare.store(idle.len(), Relaxed);
        pipe
    }

    /// Takes a pipe back. A pipe with `left` bytes in it is closed, so that they reach no other session.
    pub fn take_back(&self, pipe: PooledPipe, left: usize) {
        if left == 0 {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(pipe);
            self.spare.store(idle.len(), Relaxed);
        }
    }

    /// Counts a stream whose first bytes are in a pipe.
    pub fn count_spliced(&self) {
        self.spliced.fetch_add(1, Relaxed);
    }

    /// Streams that were spliced.
    #[must_use]
    pub fn spliced(&self) -> u64 {
        self.spliced.load(Relaxed)
    }

    /// Counts a stream that is copied for lack of a pipe. Without splicing, no pipe is lacking.
    pub fn count_copied(&self, why: NoPipe) {
        if self.usage().1 > 0 {
            self.copied[why as usize].fetch_add(1, Relaxed);
        }
    }

    /// Streams that were copied for this reason.
    #[must_use]
    pub fn copied(&self, why: NoPipe) -> u64 {
        self.copied[why as usize].load(Relaxed)
    }

    /// Number of pipes, and the most there may be.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        self.room.usage()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn pipes(count: usize) -> Pipes {
        Pipes::new(count * PIPE_BYTES, Arc::new(Files::new(100)))
    }

    // D10
    #[test]
    fn one_budget_serves_all_and_a_pipe_that_comes_back_is_lent_again() {
        let pipes = pipes(2);
        let (one, _two) = (pipes.lend(0).expect("a pipe"), pipes.lend(0).expect("a pipe"));
        assert_eq!(pipes.lend(0).expect_err("none"), NoPipe::PipeLimit);
        pipes.take_back(one, 0);
        assert_eq!((pipes.usage(), pipes.files.usage().0), ((2, 2), 4));
        pipes.lend(0).expect("the idle pipe");
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_closed_and_makes_room() {
        let pipes = pipes(1);
        let pipe = pipes.lend(0).expect("a pipe");
        pipes.take_back(pipe, 1);
        assert_eq!((pipes.usage(), pipes.files.usage().0), ((0, 1), 0));
        pipes.lend(0).expect("another pipe");
    }

    // D10
    #[test]
    fn a_refusal_of_the_system_is_not_for_good() {
        let mut pipes = Pipes { make: |_| Err(io::ErrorKind::PermissionDenied.into()), ..pipes(1) };
        assert_eq!(pipes.lend(5).expect_err("refused"), NoPipe::Refused);
        assert_eq!(pipes.usage().0, 0);
        pipes.make = Pipe::new;
        assert_eq!(pipes.lend(4 + RETRY_AFTER).expect_err("too early"), NoPipe::Refused);
        pipes.lend(5 + RETRY_AFTER).expect("a pipe");
    }

    #[test]
    fn without_files_there_is_no_pipe_and_streams_are_counted_by_reason() {
        let pipes = Pipes { files: Arc::new(Files::new(1)), ..pipes(1) };
        pipes.count_copied(pipes.lend(0).expect_err("no files"));
        assert_eq!(NoPipe::ALL.map(|why| pipes.copied(why)), [0, 1, 0]);
        let off = Pipes::new(PIPE_BYTES - 1, Arc::new(Files::new(100)));
        off.count_copied(off.lend(0).expect_err("off"));
        assert_eq!(off.copied(NoPipe::PipeLimit), 0);
    }
}
