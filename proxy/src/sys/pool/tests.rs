//! The pool against a model: blocks are distinct, keep what is written, and are given back.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{collections::BTreeMap, thread};

use proptest::prelude::*;

use super::*;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, ALIGN).expect("a layout")
}

/// A pool on the heap: its table is too large for the stack of a test.
pub(super) fn pool() -> Box<Pool> {
    // SAFETY: an empty pool is zero: null pointers, zero counts, and free locks.
    unsafe { Box::<Pool>::new_zeroed().assume_init() }
}

/// Blocks with an owner, by address, and the byte that each is filled with.
type Owned = BTreeMap<usize, (*mut u8, usize, u8)>;

fn take(pool: &Pool, owned: &mut Owned, size: usize, byte: u8) {
    // SAFETY: the size is not zero, and the block is as large.
    let block = unsafe {
        let block = pool.alloc(layout(size));
        assert!(!block.is_null() && block.addr().is_multiple_of(ALIGN));
        block.write_bytes(byte, size);
        block
    };
    let (before, after) = (owned.range(..=block.addr()).next_back(), owned.range(block.addr()..).next());
    assert!(before.is_none_or(|(start, (_, length, _))| start + length <= block.addr()), "blocks are distinct");
    assert!(after.is_none_or(|(start, _)| block.addr() + size <= *start), "blocks are distinct");
    owned.insert(block.addr(), (block, size, byte));
}

fn give(pool: &Pool, owned: &mut Owned, at: usize) {
    let Some(address) = owned.keys().nth(at % owned.len().max(1)).copied() else { return };
    let (block, size, byte) = owned.remove(&address).expect("it is there");
    // SAFETY: the block has this size and one owner, who gives it back.
    unsafe {
        assert!(std::slice::from_raw_parts(block, size).iter().all(|it| *it == byte), "nobody else wrote");
        pool.dealloc(block, layout(size));
    }
}

/// Chunks that are with a class.
fn chunks(pool: &Pool) -> u32 {
    let chunks = lock(&pool.chunks);
    chunks.regions.iter().take(chunks.count).map(|region| region.free.count_zeros()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    /// Whatever is taken and given back in whatever order: blocks are distinct, keep what their owners write, and
    /// one chunk a class is left.
    #[test]
    fn blocks_are_distinct_and_keep_what_is_written(
        steps in prop::collection::vec((any::<bool>(), 1..=CLASSES * ALIGN, any::<usize>(), any::<u8>()), 1..600)
    ) {
        let (pool, mut owned) = (pool(), Owned::new());
        for (takes, size, at, byte) in steps {
            if takes || owned.len() < 3 {
                take(&pool, &mut owned, size, byte);
            } else {
                give(&pool, &mut owned, at);
            }
        }
        while !owned.is_empty() {
            give(&pool, &mut owned, 0);
        }
        prop_assert!(chunks(&pool) <= u32::try_from(CLASSES).expect("small"));
    }
}

#[test]
fn a_burst_is_given_back_and_its_chunks_are_used_again() {
    let (pool, mut owned) = (pool(), Owned::new());
    let count: usize = if cfg!(miri) { 100 } else { 10_000 };
    for round in 0..2 {
        (0..count).for_each(|_| take(&pool, &mut owned, 768, 7));
        let per_chunk = (CHUNK - ALIGN) / 768;
        assert_eq!(chunks(&pool) as usize, count.div_ceil(per_chunk), "round {round}: no padding");
        while !owned.is_empty() {
            give(&pool, &mut owned, 0);
        }
        assert_eq!((chunks(&pool), lock(&pool.chunks).count), (1, count.div_ceil(per_chunk).div_ceil(64)));
    }
}

#[test]
fn a_block_that_was_used_is_zero_when_asked_for_so_and_moves_with_its_bytes() {
    let pool = pool();
    // SAFETY: each block has the size that it is read and given back by.
    unsafe {
        let used = pool.alloc(layout(300));
        used.write_bytes(9, 300);
        pool.dealloc(used, layout(300));
        let block = pool.alloc_zeroed(layout(300));
        assert!(block == used && std::slice::from_raw_parts(block, 300).iter().all(|byte| *byte == 0));
        block.write_bytes(5, 300);
        // From the pool to the system, and back.
        let large = pool.realloc(block, layout(300), 5000);
        assert!(std::slice::from_raw_parts(large, 300).iter().all(|byte| *byte == 5));
        let small = pool.realloc(large, layout(5000), 100);
        assert!(std::slice::from_raw_parts(small, 100).iter().all(|byte| *byte == 5));
        pool.dealloc(small, layout(100));
    }
    assert_eq!(chunks(&pool), 2, "one of each class that was used");
}

#[test]
fn other_layouts_take_no_chunk() {
    let pool = pool();
    for layout in [Layout::new::<[u64; 64]>(), layout(CLASSES * ALIGN + 1), Layout::from_size_align(64, 256).expect("")]
    {
        // SAFETY: the size is not zero.
        unsafe { pool.dealloc(pool.alloc(layout), layout) };
    }
    assert_eq!(chunks(&pool), 0);
}

#[test]
fn threads_give_back_what_others_took() {
    struct Blocks(Owned);
    // SAFETY: a block has one owner, and the blocks move as a whole.
    unsafe impl Send for Blocks {}
    let pool = pool();
    let count = if cfg!(miri) { 30 } else { 3000 };
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Blocks>(4);
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (sender, pool) = (sender.clone(), &pool);
            scope.spawn(move || {
                let mut owned = Owned::new();
                (0..count).for_each(|_| take(pool, &mut owned, 256, thread));
                sender.send(Blocks(owned)).expect("it is received");
            });
        }
        drop(sender);
        while let Ok(Blocks(mut owned)) = receiver.recv() {
            while !owned.is_empty() {
                give(&pool, &mut owned, 0);
            }
        }
    });
    assert_eq!(chunks(&pool), 1);
}
