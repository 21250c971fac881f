//! Pipes for splicing: lent only while bytes are in them, and smaller the more are lent.
//!
//! The system's pipe budget is per user on the whole node, so a process takes a small part of it. All workers share that
//! part, so that the streams of one worker can use all of it. Without a pipe, bytes are copied.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{
    core::limits::pipe_sizes::{IdlePipes, SMALLEST, next_size},
    files::{Files, Permit},
    room::Room,
    sys::Pipe,
};

/// File descriptors of a pipe: its two ends.
pub const FILES_PER_PIPE: usize = 2;
/// Seconds without another attempt after the system has refused a pipe.
const RETRY_AFTER: u64 = 10;

/// A pipe, with its bytes of the budget, its two file descriptors, and its place in the count. Boxed, because it passes
/// from stream to stream.
#[derive(Debug)]
pub struct PooledPipe(Box<(Pipe, [Permit; 3])>);

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
    /// The budget of the process is lent.
    PipeLimit,
    /// The process is at its file descriptor limit.
    FileLimit,
    /// The system has refused a pipe, now or a moment ago.
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

/// Where a pipe comes from.
enum Loan {
    /// An idle pipe.
    Idle(PooledPipe),
    /// A pipe of this size is to be made. Its bytes of the budget are taken.
    New(usize, Permit),
}

/// The pipes of the process.
#[derive(Debug)]
pub struct Pipes {
    idle: Mutex<IdlePipes<PooledPipe>>,
    /// Bytes of idle pipes, so that streams skip the lock if none is idle and none can be made.
    spare: AtomicUsize,
    /// The budget in bytes, of which a pipe has its size as long as it exists.
    room: Arc<Room>,
    /// Counts the pipes.
    count: Arc<Room>,
    files: Arc<Files>,
    /// No pipe is created before this time, in seconds of the process clock.
    resume_at: AtomicU64,
    make: fn(usize) -> io::Result<Pipe>,
    spliced: AtomicU64,
    copied: [AtomicU64; NoPipe::ALL.len()],
}

impl Pipes {
    /// Allows at most `bytes` in pipes; less than the smallest pipe disables splicing.
    #[must_use]
    pub fn new(bytes: usize, files: Arc<Files>) -> Self {
        Self {
            idle: Mutex::default(),
            spare: AtomicUsize::new(0),
            room: Arc::new(Room::new(bytes)),
            count: Arc::new(Room::new(usize::MAX)),
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
        let may_make = self.resume_at.load(Relaxed) <= now;
        if self.spare.load(Relaxed) == 0 {
            if !may_make {
                return Err(NoPipe::Refused);
            }
            if self.room.free() < SMALLEST {
                return Err(NoPipe::PipeLimit);
            }
        }
        match self.change(|idle| self.choose(idle, may_make))? {
            Loan::Idle(pipe) => Ok(pipe),
            Loan::New(size, place) => {
                self.create(size, place, now).or_else(|why| self.change(|idle| idle.take_nearest(size)).ok_or(why))
            }
        }
    }

    /// Chooses an idle pipe that fits what is free of the budget, or makes room for a new one. The bytes of a new pipe are
    /// taken under the lock of the idle ones, so that all that is taken and not idle is lent.
    fn choose(&self, idle: &mut IdlePipes<PooledPipe>, may_make: bool) -> Result<Loan, NoPipe> {
        let (taken, budget) = self.room.usage();
        let size = next_size(budget, taken.saturating_sub(idle.bytes())).ok_or(NoPipe::PipeLimit)?;
        if let Some(pipe) = idle.take_fitting(size) {
            return Ok(Loan::Idle(pipe));
        }
        if !may_make {
            return idle.take_nearest(size).map(Loan::Idle).ok_or(NoPipe::Refused);
        }
        loop {
            if let Some(place) = self.room.take(size) {
                return Ok(Loan::New(size, place));
            }
            // Idle pipes of other sizes have the rest of the budget: one that is too large, or several small ones.
            drop(idle.take_nearest(size).ok_or(NoPipe::PipeLimit)?);
        }
    }

    fn create(&self, size: usize, place: Permit, now: u64) -> Result<PooledPipe, NoPipe> {
        let files = self.files.take(FILES_PER_PIPE).ok_or(NoPipe::FileLimit)?;
        match (self.make)(size) {
            Ok(pipe) if pipe.size == size => {
                Ok(PooledPipe(Box::new((pipe, [place, files, self.count.take_anyway(1)]))))
            }
            // The budget of the user is exhausted, perhaps by other processes, or the system has no pipes. A pipe that is
            // larger than asked for would exceed the budget of the process.
            Ok(_) | Err(_) => {
                self.resume_at.store(now.saturating_add(RETRY_AFTER), Relaxed);
                Err(NoPipe::Refused)
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut IdlePipes<PooledPipe>) -> T) -> T {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut idle);
        self.spare.store(idle.bytes(), Relaxed);
        changed
    }

    /// Takes a pipe back. A pipe with `left` bytes in it is closed, so that they reach no other session.
    pub fn take_back(&self, pipe: PooledPipe, left: usize) {
        if left == 0 {
            let size = pipe.pipe().size;
            self.change(|idle| idle.put(pipe, size));
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
        if self.usage().1 >= SMALLEST {
            self.copied[why as usize].fetch_add(1, Relaxed);
        }
    }

    /// Streams that were copied for this reason.
    #[must_use]
    pub fn copied(&self, why: NoPipe) -> u64 {
        self.copied[why as usize].load(Relaxed)
    }

    /// Number of pipes, lent or idle.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.usage().0
    }

    /// Size of all pipes together, lent or idle, and the most it may be.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        self.room.usage()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::iter;

    use super::*;
    use crate::core::limits::pipe_sizes::LARGEST;

    fn pipes(bytes: usize) -> Pipes {
        Pipes::new(bytes, Arc::new(Files::new(100)))
    }

    fn lend_all(pipes: &Pipes) -> Vec<PooledPipe> {
        iter::from_fn(|| pipes.lend(0).ok()).collect()
    }

    fn sizes(pipes: &[PooledPipe]) -> Vec<usize> {
        pipes.iter().map(|pipe| pipe.pipe().size >> 10).collect()
    }

    // D10
    #[test]
    fn one_budget_serves_all_and_a_pipe_that_comes_back_is_lent_again() {
        let pipes = pipes(2 * SMALLEST);
        let (one, _two) = (pipes.lend(0).expect("a pipe"), pipes.lend(0).expect("a pipe"));
        assert_eq!(pipes.lend(0).expect_err("none"), NoPipe::PipeLimit);
        pipes.take_back(one, 0);
        assert_eq!((pipes.usage(), pipes.count()), ((2 * SMALLEST, 2 * SMALLEST), 2));
        assert_eq!(pipes.files.usage().0, 4);
        pipes.lend(0).expect("the idle pipe");
    }

    #[test]
    fn the_less_is_left_the_smaller_is_the_next_pipe() {
        let pipes = pipes(4 << 20);
        let lent = lend_all(&pipes);
        let small = iter::repeat_n(128, 7).chain(iter::repeat_n(64, 14));
        assert_eq!(sizes(&lent), [1024, 1024, 256].into_iter().chain(small).collect::<Vec<_>>());
        assert_eq!((pipes.usage(), pipes.count()), ((4 << 20, 4 << 20), 24));
        assert_eq!(pipes.lend(0).expect_err("none"), NoPipe::PipeLimit);
    }

    #[test]
    fn streams_that_borrow_in_turn_share_one_large_pipe() {
        let pipes = pipes(4 << 20);
        for _ in 0..8 {
            let pipe = pipes.lend(0).expect("a pipe");
            assert_eq!(pipe.pipe().size, LARGEST);
            pipes.take_back(pipe, 0);
        }
        assert_eq!((pipes.usage().0, pipes.count()), (LARGEST, 1));
    }

    #[test]
    fn idle_pipes_of_other_sizes_make_room() {
        let pipes = pipes(512 << 10);
        let mut lent = lend_all(&pipes);
        assert_eq!(sizes(&lent), [256, 64, 64, 64, 64]);
        // A pipe that is closed by its session is missed by nobody.
        drop(lent.remove(0));
        lent.extend(lend_all(&pipes));
        assert_eq!(sizes(&lent), [64; 8]);
        for pipe in lent.drain(..) {
            pipes.take_back(pipe, 0);
        }
        lent.extend(lend_all(&pipes));
        assert_eq!(sizes(&lent), [256, 64, 64, 64, 64], "four small ones were closed for the first");
        pipes.take_back(lent.remove(0), 0);
        lent.push(pipes.lend(0).expect("a pipe"));
        assert_eq!(sizes(&lent), [64; 5], "the large one was closed for the last");
        assert_eq!((pipes.usage().0, pipes.count(), pipes.files.usage().0), (320 << 10, 5, 10));
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_closed_and_makes_room() {
        let pipes = pipes(SMALLEST);
        let pipe = pipes.lend(0).expect("a pipe");
        pipes.take_back(pipe, 1);
        assert_eq!((pipes.usage(), pipes.count(), pipes.files.usage().0), ((0, SMALLEST), 0, 0));
        pipes.lend(0).expect("another pipe");
    }

    // D10
    #[test]
    fn a_refusal_of_the_system_is_not_for_good() {
        let mut pipes = Pipes { make: |_| Err(io::ErrorKind::PermissionDenied.into()), ..pipes(SMALLEST) };
        assert_eq!(pipes.lend(5).expect_err("refused"), NoPipe::Refused);
        assert_eq!(pipes.usage().0, 0);
        pipes.make = Pipe::new;
        assert_eq!(pipes.lend(4 + RETRY_AFTER).expect_err("too early"), NoPipe::Refused);
        pipes.lend(5 + RETRY_AFTER).expect("a pipe");
    }

    #[test]
    fn while_the_system_refuses_pipes_idle_ones_of_any_size_are_lent() {
        let mut pipes = pipes(512 << 10);
        let mut lent = lend_all(&pipes);
        drop(lent.remove(0));
        pipes.make = |_| Err(io::ErrorKind::PermissionDenied.into());
        // The first time, a large pipe is asked for. The second time, it is too early for that.
        for _ in 0..2 {
            for pipe in lent.drain(..) {
                pipes.take_back(pipe, 0);
            }
            lent.extend(lend_all(&pipes));
            assert_eq!(sizes(&lent), [64; 4]);
            assert_eq!(pipes.lend(0).expect_err("none is idle"), NoPipe::Refused);
        }
    }

    #[test]
    fn a_pipe_that_is_larger_than_asked_for_is_refused() {
        let pipes = Pipes { make: |size| Pipe::new(2 * size), ..pipes(SMALLEST) };
        assert_eq!(pipes.lend(0).expect_err("refused"), NoPipe::Refused);
        assert_eq!(pipes.usage().0, 0);
    }

    #[test]
    fn without_files_there_is_no_pipe_and_streams_are_counted_by_reason() {
        let pipes = Pipes { files: Arc::new(Files::new(1)), ..pipes(SMALLEST) };
        pipes.count_copied(pipes.lend(0).expect_err("no files"));
        assert_eq!(NoPipe::ALL.map(|why| pipes.copied(why)), [0, 1, 0]);
        let off = Pipes::new(SMALLEST - 1, Arc::new(Files::new(100)));
        off.count_copied(off.lend(0).expect_err("off"));
        assert_eq!(off.copied(NoPipe::PipeLimit), 0);
    }
}
