//! Bytes between two absolute positions of a stream.

use std::collections::VecDeque;
use std::{iter, mem};

use crate::frame::MAX_PAYLOAD;

/// A queue of bytes that knows their positions in the stream. An idle stream has two, so that an empty one is small.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Position after the last byte.
    end: u64,
    /// `None`: no byte is kept.
    kept: Option<Box<Kept>>,
}

/// The bytes of a queue, at least one. Each block but the last is full, so a position is found without a search.
#[derive(Debug)]
struct Kept {
    /// Position of the first byte kept.
    start: u64,
    /// Position of the first byte of the first block.
    base: u64,
    /// The first block. Most queues have no other, and need no memory for a list.
    first: Vec<u8>,
    more: VecDeque<Vec<u8>>,
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
        if !mem::take(&mut self.is_used) {
            self.blocks = Vec::new();
        }
    }
}

impl Backlog {
    pub(crate) const fn new() -> Self {
        Self { end: 0, kept: None }
    }

    /// Position of the first byte kept.
    pub(crate) fn start(&self) -> u64 {
        self.kept.as_ref().map_or(self.end, |kept| kept.start)
    }

    /// Position after the last byte.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes kept.
    pub(crate) fn len(&self) -> u64 {
        self.end - self.start()
    }

    /// Whether no byte is kept.
    pub(crate) const fn is_empty(&self) -> bool {
        self.kept.is_none()
    }

    /// Appends `bytes`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], free: &mut FreeBlocks) {
        if bytes.is_empty() {
            return;
        }
        let start = self.end;
        self.end += bytes.len() as u64;
        let kept = self.kept.get_or_insert_with(|| {
            let first = new_block(bytes.len(), free);
            Box::new(Kept { start, base: start, first, more: VecDeque::new() })
        });
        while !bytes.is_empty() {
            let last = kept.last_block(bytes.len(), free);
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
        match &self.kept {
            Some(kept) if position >= kept.start && position < self.end => kept.at(position),
            _ => &[],
        }
    }

    /// All bytes, block by block.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.kept.as_deref().into_iter().flat_map(Kept::pieces)
    }

    /// Forgets the bytes before `position`.
    pub(crate) fn release(&mut self, position: u64, free: &mut FreeBlocks) {
        let Some(kept) = &mut self.kept else { return };
        kept.start = position.clamp(kept.start, self.end);
        if kept.start < self.end {
            kept.release(free);
            kept.shrink(self.end);
        } else if let Some(kept) = self.kept.take() {
            let Kept { first, more, .. } = *kept;
            for block in iter::once(first).chain(more) {
                free.put(block);
            }
        }
    }

    /// Forgets all bytes.
    pub(crate) fn clear(&mut self) {
        self.kept = None;
    }
}

/// Creates a block for this many bytes, or for the first of them. An empty block is reused only for half a block or
/// more: see the bound on the memory held.
fn new_block(bytes: usize, free: &mut FreeBlocks) -> Vec<u8> {
    let block = if bytes > BLOCK / 2 { free.take() } else { None };
    block.unwrap_or_default()
}

impl Kept {
    /// Returns the last block, or a new one after it if that is full, before this many bytes are appended.
    fn last_block(&mut self, bytes: usize, free: &mut FreeBlocks) -> &mut Vec<u8> {
        if self.more.back().unwrap_or(&self.first).len() == BLOCK {
            self.more.push_back(new_block(bytes, free));
        }
        self.more.back_mut().unwrap_or(&mut self.first)
    }

    /// The contiguous bytes from `position` on, which is not before the first block.
    fn at(&self, position: u64) -> &[u8] {
        let distance = usize::try_from(position - self.base).unwrap_or(usize::MAX);
        let block = match (distance / BLOCK).checked_sub(1) {
            None => Some(&self.first),
            Some(after) => self.more.get(after),
        };
        block.and_then(|block| block.get(distance % BLOCK..)).unwrap_or_default()
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let released = usize::try_from(self.start - self.base).unwrap_or(usize::MAX);
        let first = self.first.get(released..).unwrap_or_default();
        iter::once(first).chain(self.more.iter().map(Vec::as_slice))
    }

    /// Drops the blocks before `start`.
    fn release(&mut self, free: &mut FreeBlocks) {
        while self.start - self.base >= BLOCK as u64 {
            let next = self.more.pop_front().unwrap_or_default();
            free.put(mem::replace(&mut self.first, next));
            self.base += BLOCK as u64;
        }
    }

    /// Copies a small remainder, so that one byte does not hold a whole block. A copy moves no more bytes than were
    /// released since the copy before.
    fn shrink(&mut self, end: u64) {
        let (kept, held) = (end - self.start, end - self.base);
        if kept > BLOCK as u64 || kept * 2 > held {
            return;
        }
        let mut rest = Vec::with_capacity(usize::try_from(kept).unwrap_or(BLOCK));
        for piece in self.pieces() {
            rest.extend_from_slice(piece);
        }
        (self.base, self.first, self.more) = (self.start, rest, VecDeque::new());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        /// A share of the kept bytes, in thousandths.
        Release(u64),
        /// An arbitrary position.
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

    /// All bytes that were ever pushed, and the position of the first one kept.
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

    fn blocks(kept: &Kept) -> impl Iterator<Item = &Vec<u8>> {
        iter::once(&kept.first).chain(&kept.more)
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
        let capacities: Vec<usize> = backlog.kept.as_deref().into_iter().flat_map(blocks).map(Vec::capacity).collect();
        assert!(capacities.iter().all(|capacity| *capacity <= BLOCK), "a block is no larger than its bound");
        assert!(capacities.len() as u64 <= backlog.len() / BLOCK as u64 + 2, "blocks that were read are gone");
        assert!(!backlog.is_empty() || capacities.is_empty(), "nothing costs nothing");
        let held: usize = capacities.iter().sum();
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
    fn an_empty_backlog_is_two_words_however_much_it_had() {
        let (mut backlog, mut free) = (Backlog::new(), FreeBlocks::default());
        backlog.push(&vec![1; 3 * BLOCK], &mut free);
        backlog.release(backlog.end(), &mut free);
        assert!(backlog.kept.is_none() && size_of::<Backlog>() <= 16);
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
