//! Bytes between two absolute positions of a stream.

use std::collections::VecDeque;

use crate::frame::MAX_PAYLOAD;

/// A queue of bytes that knows their positions in the stream. Each block but the last is full, so a position is found
/// without a search.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Position of the first byte kept.
    start: u64,
    /// Position after the last one.
    end: u64,
    /// Position of the first byte of the first block.
    base: u64,
    blocks: VecDeque<Vec<u8>>,
}

const BLOCK: usize = MAX_PAYLOAD;
/// The most free blocks that a session keeps: half a MiB.
const MOST_FREE: usize = 32;

/// Emptied blocks, kept for reuse: under load, allocating a block for each frame costs more than filling it.
#[derive(Debug, Default)]
pub(crate) struct FreeBlocks {
    blocks: Vec<Vec<u8>>,
    /// Whether a block was put here or taken since the last call of `look`.
    is_used: bool,
}

impl FreeBlocks {
    fn take(&mut self) -> Option<Vec<u8>> {
        self.is_used = true;
        self.blocks.pop()
    }

    fn put(&mut self, mut block: Vec<u8>) {
        self.is_used = true;
        if block.capacity() == BLOCK && self.blocks.len() < MOST_FREE {
            block.clear();
            self.blocks.push(block);
        }
    }

    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.blocks.len()
    }

    /// The memory of the blocks.
    pub(crate) const fn bytes(&self) -> u64 {
        (self.blocks.len() * BLOCK) as u64
    }

    /// Frees the memory if no block was used since the last call.
    pub(crate) fn look(&mut self) {
        if !std::mem::take(&mut self.is_used) {
            self.blocks = Vec::new();
        }
    }
}

impl Backlog {
    pub(crate) const fn new() -> Self {
        Self { start: 0, end: 0, base: 0, blocks: VecDeque::new() }
    }

    /// Position of the first byte kept.
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
    pub(crate) fn push(&mut self, mut bytes: &[u8], free: &mut FreeBlocks) {
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.blocks.back().is_none_or(|last| last.len() == BLOCK) {
                // The block is reused only for half a block or more: see the bound on the memory held.
                let block = if bytes.len() > BLOCK / 2 { free.take() } else { None };
                self.blocks.push_back(block.unwrap_or_default());
            }
            let Some(last) = self.blocks.back_mut() else {
                return;
            };
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - last.len()));
            let length = last.len() + now.len();
            if length > last.capacity() {
                // Doubled, as a vector grows, but never beyond the block.
                last.reserve_exact((last.capacity() * 2).clamp(length, BLOCK) - last.len());
            }
            last.extend_from_slice(now);
            bytes = later;
        }
    }

    /// The contiguous bytes from `position` on: at most one block.
    pub(crate) fn at(&self, position: u64) -> &[u8] {
        if position < self.start || position >= self.end {
            return &[];
        }
        let distance = usize::try_from(position - self.base).unwrap_or(usize::MAX);
        let block = self.blocks.get(distance / BLOCK);
        block.and_then(|block| block.get(distance % BLOCK..)).unwrap_or_default()
    }

    /// All bytes, block by block.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let released = usize::try_from(self.start - self.base).unwrap_or(usize::MAX);
        let blocks = self.blocks.iter().enumerate();
        blocks.map(move |(at, block)| {
            let from = if at == 0 { released } else { 0 };
            block.get(from..).unwrap_or_default()
        })
    }

    /// Forgets the bytes before `position`.
    pub(crate) fn release(&mut self, position: u64, free: &mut FreeBlocks) {
        self.start = position.clamp(self.start, self.end);
        if self.is_empty() {
            for block in std::mem::take(&mut self.blocks) {
                free.put(block);
            }
            self.base = self.end;
            return;
        }
        while self.start - self.base >= BLOCK as u64 {
            if let Some(block) = self.blocks.pop_front() {
                free.put(block);
            }
            self.base += BLOCK as u64;
        }
        self.shrink();
    }

    /// Copies a small remainder, so that one byte does not hold a whole block. A copy moves no more bytes than were
    /// released since the copy before.
    fn shrink(&mut self) {
        let held = self.end - self.base;
        if self.len() > BLOCK as u64 || self.len() * 2 > held {
            return;
        }
        let mut rest = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(BLOCK));
        loop {
            let piece = self.at(self.start + rest.len() as u64);
            if piece.is_empty() {
                break;
            }
            rest.extend_from_slice(piece);
        }
        self.blocks = VecDeque::from([rest]);
        self.base = self.start;
    }

    /// Forgets all bytes.
    pub(crate) fn clear(&mut self) {
        self.blocks = VecDeque::new();
        (self.start, self.base) = (self.end, self.end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        /// A share of what is kept, in thousandths.
        Release(u64),
        /// A position that may be anywhere.
        ReleaseAt(u64),
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0usize..40).prop_map(Step::Push),
            2 => (0usize..20_000).prop_map(Step::Push),
            1 => (1usize..4).prop_map(|blocks| Step::Push(blocks * BLOCK)),
            4 => (0u64..=1000).prop_map(Step::Release),
            1 => any::<u64>().prop_map(Step::ReleaseAt),
            1 => (0u64..200_000).prop_map(Step::ReleaseAt),
            1 => Just(Step::Clear),
        ];
        proptest::collection::vec(step, 1..40)
    }

    /// All bytes that were ever pushed, and the position of the first that is kept.
    #[derive(Default)]
    struct Model {
        bytes: Vec<u8>,
        start: usize,
    }

    impl Model {
        fn push(&mut self, count: usize) -> &[u8] {
            let before = self.bytes.len();
            self.bytes.extend((before..before + count).map(|at| (at % 251).to_le_bytes()[0]));
            &self.bytes[before..]
        }

        fn release(&mut self, position: u64) {
            let position = usize::try_from(position).unwrap_or(usize::MAX);
            self.start = position.clamp(self.start, self.bytes.len());
        }
    }

    fn compare(backlog: &Backlog, model: &Model) {
        let (start, end) = (model.start as u64, model.bytes.len() as u64);
        assert_eq!((backlog.start(), backlog.end(), backlog.len()), (start, end, end - start));
        assert_eq!(backlog.is_empty(), start == end);
        for outside in [end, end + 1, u64::MAX].into_iter().chain(start.checked_sub(1)) {
            assert!(backlog.at(outside).is_empty(), "nothing stands at {outside}");
        }
        let pieces: Vec<u8> = backlog.pieces().flatten().copied().collect();
        assert!(pieces == model.bytes[model.start..], "the pieces are other bytes");
        let mut position = start;
        while position < end {
            let piece = backlog.at(position);
            assert!(!piece.is_empty() && piece.len() <= BLOCK, "{} bytes at {position}", piece.len());
            let at = usize::try_from(position).unwrap_or(usize::MAX);
            assert!(model.bytes[at..].starts_with(piece), "other bytes at {position}");
            assert_eq!(backlog.at(position + piece.len() as u64 - 1), &piece[piece.len() - 1..]);
            position += piece.len() as u64;
        }
        assert!(backlog.blocks.iter().all(|block| block.capacity() <= BLOCK), "a block is no larger than its bound");
        assert!(backlog.blocks.len() as u64 <= backlog.len() / BLOCK as u64 + 2, "blocks that were read are gone");
        assert!(!backlog.is_empty() || backlog.blocks.is_empty(), "nothing costs nothing");
        let held: usize = backlog.blocks.iter().map(Vec::capacity).sum();
        assert!(held as u64 <= backlog.len() * 4, "{held} bytes are held for {}", backlog.len());
    }

    proptest! {
        #[test]
        fn a_backlog_keeps_the_bytes_between_its_positions(steps in steps()) {
            let mut backlog = Backlog::new();
            let mut free = FreeBlocks::default();
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Push(count) => backlog.push(model.push(count), &mut free),
                    Step::Release(share) => {
                        let position = backlog.start() + backlog.len() * share / 1000;
                        backlog.release(position, &mut free);
                        model.release(position);
                    }
                    Step::ReleaseAt(position) => {
                        backlog.release(position, &mut free);
                        model.release(position);
                    }
                    Step::Clear => {
                        backlog.clear();
                        model.release(u64::MAX);
                    }
                }
                compare(&backlog, &model);
                prop_assert!(free.blocks.len() <= MOST_FREE);
            }
        }
    }

    #[test]
    fn blocks_are_kept_up_to_a_bound_and_only_whole_ones() {
        let (mut backlog, mut free) = (Backlog::new(), FreeBlocks::default());
        backlog.push(&[1; BLOCK / 2], &mut free);
        backlog.release(backlog.end(), &mut free);
        assert_eq!(free.len(), 0, "a part of a block");
        backlog.push(&vec![1; (MOST_FREE + 1) * BLOCK], &mut free);
        backlog.release(backlog.end(), &mut free);
        assert_eq!(free.len(), MOST_FREE);
    }

    #[test]
    fn a_block_is_used_again_for_more_than_half_of_it() {
        let (mut backlog, mut free) = (Backlog::new(), FreeBlocks::default());
        backlog.push(&[1; BLOCK], &mut free);
        backlog.release(backlog.end(), &mut free);
        backlog.push(&[1; BLOCK / 2], &mut free);
        assert_eq!(free.len(), 1, "half of it has memory of its own");
        backlog.clear();
        backlog.push(&[1; BLOCK / 2 + 1], &mut free);
        assert_eq!(free.len(), 0);
    }

    #[test]
    fn a_block_that_was_emptied_is_used_again_until_nobody_uses_any_between_two_looks() {
        let (mut backlog, mut free) = (Backlog::new(), FreeBlocks::default());
        backlog.push(&[1; BLOCK], &mut free);
        let block = backlog.at(0).as_ptr();
        backlog.release(backlog.end(), &mut free);
        backlog.push(&[2; BLOCK], &mut free);
        assert_eq!(backlog.at(backlog.start()).as_ptr(), block, "the same memory");
        assert_eq!(backlog.at(backlog.start()), &[2; BLOCK]);
        backlog.release(backlog.end(), &mut free);
        free.look();
        assert_eq!(free.blocks.len(), 1, "it was used since the look before");
        free.look();
        assert_eq!(free.blocks.capacity(), 0);
    }
}
