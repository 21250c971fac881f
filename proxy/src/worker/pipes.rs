//! Pipes for splicing: few, large, lent only while bytes stream.
//!
//! The system's budget for pipes is per user on the whole node, so a process takes a small part of it, and copies
//! when it gets none or only a small one.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use crate::{
    files::{Files, Permit},
    sys::Pipe,
};

/// Size of each pipe, bytes: smaller ones waste most of what splicing saves.
const PIPE_BYTES: usize = 1 << 20;

/// A pipe with the room for its two files.
#[derive(Debug)]
pub struct PooledPipe {
    /// The pipe.
    pub pipe: Pipe,
    _permit: Permit,
}

/// The pipes of one worker.
#[derive(Debug)]
pub struct PipePool {
    idle: RefCell<Vec<PooledPipe>>,
    made: Cell<usize>,
    limit: Cell<usize>,
    files: Arc<Files>,
}

impl PipePool {
    /// Pipes for at most `bytes`.
    #[must_use]
    pub fn new(bytes: usize, files: Arc<Files>) -> Self {
        Self { idle: RefCell::default(), made: Cell::new(0), limit: Cell::new(bytes / PIPE_BYTES), files }
    }

    /// Lends an empty pipe, if there is one.
    pub fn lend(&self) -> Option<PooledPipe> {
        if let Some(pipe) = self.idle.borrow_mut().pop() {
            return Some(pipe);
        }
        if self.made.get() >= self.limit.get() {
            return None;
        }
        let permit = self.files.take(2)?;
        match Pipe::new(PIPE_BYTES) {
            Ok(pipe) if pipe.size >= PIPE_BYTES => {
                self.made.set(self.made.get() + 1);
                Some(PooledPipe { pipe, _permit: permit })
            }
            // The user's budget is spent, or the system has no pipes: no more are asked for.
            Ok(_) | Err(_) => {
                self.limit.set(self.made.get());
                None
            }
        }
    }

    /// Takes a pipe back; one with bytes left in it is closed, so that they reach nobody else.
    pub fn take_back(&self, pipe: PooledPipe, left: usize) {
        if left == 0 {
            self.idle.borrow_mut().push(pipe);
        } else {
            self.made.set(self.made.get() - 1);
        }
    }
}
