//! Bytes between two absolute positions of a stream.

use std::collections::VecDeque;

use crate::frame::MAX_PAYLOAD;

/// A queue of bytes that knows where in its stream they stand. Each block but the last is full, so
/// that a position is found without a search.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Position of the first byte that is kept.
    start: u64,
    /// Position after the last one.
    end: u64,
    /// Position of the first byte of the first block.
    base: u64,
    blocks: VecDeque<Vec<u8>>,
}

const BLOCK: usize = MAX_PAYLOAD;

impl Backlog {
    pub(crate) const fn new() -> Self {
        Self { start: 0, end: 0, base: 0, blocks: VecDeque::new() }
    }

    /// Position of the first byte that is kept.
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    /// Position after the last byte.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes kept.
    pub(crate) const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether no byte is kept.
    pub(crate) const fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Appends `bytes`.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.blocks.back().is_none_or(|last| last.len() == BLOCK) {
                self.blocks.push_back(Vec::new());
            }
            let Some(last) = self.blocks.back_mut() else {
                return;
            };
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - last.len()));
            if last.is_empty() {
                last.reserve_exact(now.len());
            }
            last.extend_from_slice(now);
            bytes = later;
        }
    }

    /// The bytes from `position` on that stand beside each other: at most one block.
    pub(crate) fn at(&self, position: u64) -> &[u8] {
        if position < self.start || position >= self.end {
            return &[];
        }
        let distance = usize::try_from(position - self.base).unwrap_or(usize::MAX);
        let block = self.blocks.get(distance / BLOCK);
        block.and_then(|block| block.get(distance % BLOCK..)).unwrap_or_default()
    }

    /// Forgets the bytes before `position`.
    pub(crate) fn release(&mut self, position: u64) {
        self.start = position.clamp(self.start, self.end);
        if self.is_empty() {
            self.blocks = VecDeque::new();
            self.base = self.end;
            return;
        }
        while self.start - self.base >= BLOCK as u64 {
            self.blocks.pop_front();
            self.base += BLOCK as u64;
        }
    }

    /// Forgets all bytes.
    pub(crate) fn clear(&mut self) {
        self.release(self.end);
    }
}
