//! Pipes for splicing: few, large, lent only while bytes stream.
//!
//! The system's pipe budget is per user on the whole node, so a process takes a small part of it. Without a pipe of
//! full size, bytes are copied.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use crate::{
    files::{Files, Permit},
    sys::Pipe,
};

/// Size of each pipe in bytes; smaller pipes lose most of the gain of splicing.
const PIPE_BYTES: usize = 1 << 20;

/// A pipe with its two file descriptor permits.
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
    /// A pool of at most `bytes` in pipes.
    #[must_use]
    pub fn new(bytes: usize, files: Arc<Files>) -> Self {
        Self { idle: RefCell::default(), made: Cell::new(0), limit: Cell::new(bytes / PIPE_BYTES), files }
    }

    /// Lends an empty pipe if one is available.
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
            // The user's budget is exhausted, or the system has no pipes: stop trying.
            Ok(_) | Err(_) => {
                self.limit.set(self.made.get());
                None
            }
        }
    }

    /// Takes a pipe back. A pipe with `left` bytes in it is closed, so that they reach no other session.
    pub fn take_back(&self, pipe: PooledPipe, left: usize) {
        if left == 0 {
            self.idle.borrow_mut().push(pipe);
        } else {
            self.made.set(self.made.get() - 1);
        }
    }
}
