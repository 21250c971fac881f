//! Blocks that are kept, through the pool and against a model: they are distinct, keep what is written wherever they move,
//! are zero where that was asked for, and are bounded.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{collections::BTreeMap, slice, thread};

use proptest::prelude::*;

use super::*;
use crate::sys::pool::{Pool, tests::pool};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

/// Bytes of the blocks of each class.
fn sizes() -> impl Iterator<Item = usize> {
    UNITS.into_iter().map(|units| units * UNIT - MARK)
}

/// Blocks that the class of this size keeps.
fn kept(pool: &Pool, size: usize) -> usize {
    let class = pool.recycled.class(layout(size, 1)).expect("a class");
    let list = lock(class.list);
    let (mut count, mut at) = (0, list.first);
    while !at.is_null() {
        count += 1;
        // SAFETY: a block in the list begins with a `Free`, and the lock is held.
        at = unsafe { (*at).next };
    }
    assert_eq!(list.bytes, count * class.layout.size(), "the bytes of the list are counted");
    count
}

/// Bytes that the class of this size has borrowed.
fn borrowed(pool: &Pool, size: usize) -> usize {
    lock(pool.recycled.class(layout(size, 1)).expect("a class").list).borrowed
}

/// Bytes that all classes have borrowed.
fn lent(pool: &Pool) -> usize {
    pool.recycled.lent.0.load(Relaxed)
}

/// Gives all that is kept to the system, so that nothing of a test is left.
fn drain(pool: &Pool) {
    for class in sizes().filter_map(|size| pool.recycled.class(layout(size, 1))) {
        while let Some(block) = class.take() {
            // SAFETY: the system gave the block with this layout, and it is in no list any more.
            unsafe { System.dealloc(block.as_ptr(), class.layout) };
        }
    }
}

/// A block with an owner, who has filled it with a byte.
#[derive(Debug)]
struct Block {
    start: *mut u8,
    layout: Layout,
    byte: u8,
}

/// Blocks with an owner, by address.
type Owned = BTreeMap<usize, Block>;

fn own(owned: &mut Owned, block: Block) {
    let (start, size) = (block.start.addr(), block.layout.size());
    assert!(start != 0 && start.is_multiple_of(block.layout.align()), "{block:?}");
    let (before, after) = (owned.range(..=start).next_back(), owned.range(start..).next());
    assert!(before.is_none_or(|(at, other)| at + other.layout.size() <= start), "blocks are distinct");
    assert!(after.is_none_or(|(at, _)| start + size <= *at), "blocks are distinct");
    // SAFETY: the block is as large.
    unsafe { block.start.write_bytes(block.byte, size) };
    owned.insert(start, block);
}

fn disown(owned: &mut Owned, at: usize) -> Option<Block> {
    let address = owned.keys().nth(at % owned.len().max(1)).copied()?;
    let block = owned.remove(&address)?;
    assert!(holds(&block, block.layout.size()), "nobody else wrote");
    Some(block)
}

/// Whether a block begins with this many of its bytes.
fn holds(block: &Block, count: usize) -> bool {
    // SAFETY: the block has as many bytes, which its owner has written.
    unsafe { slice::from_raw_parts(block.start, count) == vec![block.byte; count] }
}

fn take(pool: &Pool, owned: &mut Owned, layout: Layout, byte: u8) {
    // SAFETY: the size is not zero.
    own(owned, Block { start: unsafe { pool.alloc(layout) }, layout, byte });
}

fn take_zeroed(pool: &Pool, owned: &mut Owned, layout: Layout, byte: u8) {
    // SAFETY: the size is not zero.
    let block = Block { start: unsafe { pool.alloc_zeroed(layout) }, layout, byte: 0 };
    assert!(holds(&block, layout.size()), "all of it is zero");
    own(owned, Block { byte, ..block });
}

fn give(pool: &Pool, owned: &mut Owned, at: usize) {
    let Some(block) = disown(owned, at) else { return };
    // SAFETY: the block has this layout and one owner, who gives it back.
    unsafe { pool.dealloc(block.start, block.layout) };
}

fn resize(pool: &Pool, owned: &mut Owned, at: usize, size: usize) {
    let Some(old) = disown(owned, at) else { return };
    // SAFETY: the block has this layout and one owner, and the size is not zero.
    let start = unsafe { pool.realloc(old.start, old.layout, size) };
    let new = Block { start, layout: layout(size, old.layout.align()), byte: old.byte };
    assert!(holds(&new, size.min(old.layout.size())), "a block moves with its bytes");
    own(owned, new);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    /// Whatever is taken, resized and given back in whatever order, of sizes with a class and without: blocks are
    /// distinct and keep what their owners write, and no class keeps more than its bound.
    #[test]
    fn blocks_are_distinct_and_keep_what_is_written(
        steps in prop::collection::vec(
            (
                0..6_u8,
                prop_oneof![1..=300_usize, 300..=5000_usize, 60_000..=80_000_usize],
                0..8_u32,
                any::<usize>(),
                any::<u8>(),
            ),
            1..300,
        )
    ) {
        let (pool, mut owned) = (pool(), Owned::new());
        for (step, size, align, at, byte) in steps {
            match step {
                0 => take(&pool, &mut owned, layout(size, 1 << align), byte),
                1 => take_zeroed(&pool, &mut owned, layout(size, 1 << align), byte),
                2 | 3 => give(&pool, &mut owned, at),
                _ if owned.len() < 3 => take(&pool, &mut owned, layout(size, 1 << align), byte),
                _ => resize(&pool, &mut owned, at, size),
            }
        }
        while !owned.is_empty() {
            give(&pool, &mut owned, 0);
        }
        for size in sizes() {
            prop_assert!(kept(&pool, size) * size <= bound(size) + borrowed(&pool, size));
        }
        prop_assert_eq!(sizes().map(|size| borrowed(&pool, size)).sum::<usize>(), lent(&pool));
        prop_assert!(lent(&pool) <= SHARED_BYTES);
        drain(&pool);
        prop_assert_eq!(lent(&pool), 0);
    }
}

#[test]
fn a_layout_belongs_to_the_smallest_class_that_has_room_for_it() {
    let pool = pool();
    let class = |size, align| pool.recycled.class(layout(size, align)).map(|class| class.layout.size());
    let borders = sizes().flat_map(|size| [size - 1, size, size + 1]).chain([1, LEAST - 1, LEAST]);
    let all: Vec<usize> = if cfg!(miri) { borders.collect() } else { (1..=MOST + 1).collect() };
    for size in all {
        let expected = sizes().find(|most| size <= *most).filter(|_| size >= LEAST);
        assert_eq!((class(size, 1), class(size, 16)), (expected, expected), "{size}");
        assert!(expected.is_none_or(|most| 100 * most <= 126 * size), "{size} is padded");
    }
    assert_eq!((class(LEAST, 32), class(4096, 128), class(MOST, 4096)), (None, None, None));
    assert_eq!((class(240, 8), class(4096, 1), class(64 << 10, 1)), (Some(284), Some(4668), Some(MOST)));
}

#[test]
fn a_block_is_used_again_by_the_next_of_its_class_and_by_no_other() {
    let pool = pool();
    // SAFETY: each block is given back once, with the layout that it was asked for by.
    unsafe {
        let (first, second) = (pool.alloc(layout(4096, 1)), pool.alloc(layout(4668, 16)));
        pool.dealloc(first, layout(4096, 1));
        pool.dealloc(second, layout(4668, 16));
        assert_eq!(kept(&pool, 4096), 2);
        let (smaller, larger) = (pool.alloc(layout(4076, 1)), pool.alloc(layout(4669, 1)));
        assert_eq!((kept(&pool, 4096), kept(&pool, 4076), kept(&pool, 4669)), (2, 0, 0));
        // The last one is the first to be taken: it is still in the caches of the processor.
        assert_eq!(pool.alloc(layout(4100, 8)), second);
        assert_eq!(pool.alloc(layout(4077, 4)), first);
        assert_eq!(kept(&pool, 4096), 0);
        pool.dealloc(smaller, layout(4076, 1));
        pool.dealloc(larger, layout(4669, 1));
        pool.dealloc(second, layout(4100, 8));
        pool.dealloc(first, layout(4077, 4));
    }
    assert_eq!((kept(&pool, 4096), kept(&pool, 4076), kept(&pool, 4669)), (2, 1, 1));
    drain(&pool);
}

#[test]
fn a_class_keeps_its_bound_and_the_system_gets_the_rest() {
    let (pool, mut all) = (pool(), 0);
    // Other classes have borrowed all that is shared.
    pool.recycled.lent.0.store(SHARED_BYTES, Relaxed);
    for size in sizes() {
        // SAFETY: the size is not zero.
        let blocks: Vec<*mut u8> = (0..=MOST_BLOCKS).map(|_| unsafe { pool.alloc(layout(size, 16)) }).collect();
        assert!(blocks.iter().all(|block| !block.is_null()));
        for block in blocks {
            // SAFETY: the block is given back once, with its layout.
            unsafe { pool.dealloc(block, layout(size, 16)) };
        }
        all += kept(&pool, size) * size;
    }
    for (size, count) in [(240, 64), (4096, 56), (16 << 10, 14), (32 << 10, 7), (64 << 10, 4)] {
        assert_eq!(kept(&pool, size), count, "blocks of {size} bytes");
    }
    assert!(all < 6 << 20, "{all} bytes are kept");
    // A block that was taken makes room for one.
    // SAFETY: the block is given back once, with its layout.
    unsafe {
        let block = pool.alloc(layout(4096, 1));
        assert_eq!(kept(&pool, 4096), 55);
        pool.dealloc(block, layout(4096, 1));
    }
    assert_eq!(kept(&pool, 4096), 56);
    drain(&pool);
}

/// Takes so many blocks of a size, and gives them back.
fn come_and_go(pool: &Pool, size: usize, count: usize) {
    // SAFETY: the size is not zero, and each block is given back once, with its layout.
    unsafe {
        let blocks: Vec<*mut u8> = (0..count).map(|_| pool.alloc(layout(size, 1))).collect();
        for block in blocks {
            assert!(!block.is_null());
            pool.dealloc(block, layout(size, 1));
        }
    }
}

#[test]
fn a_class_keeps_more_than_its_bound_while_others_leave_it_room() {
    let pool = pool();
    come_and_go(&pool, 4668, 300);
    let of_first = borrowed(&pool, 4668);
    assert_eq!((kept(&pool, 4668), of_first), (300, (300 * 4668 - KEPT_BYTES).next_multiple_of(LOAN)));
    // Blocks of 8,192 bytes have 9,340.
    come_and_go(&pool, 9340, 400);
    let of_second = SHARED_BYTES - of_first;
    assert_eq!((kept(&pool, 9340), borrowed(&pool, 9340)), ((KEPT_BYTES + of_second) / 9340, of_second));
    assert_eq!(lent(&pool), SHARED_BYTES);
    // The first class returns what it borrowed once half of its bound is left.
    // SAFETY: the size is not zero.
    let take = |count: usize| (0..count).map(|_| unsafe { pool.alloc(layout(4668, 1)) }).collect::<Vec<_>>();
    let least = KEPT_BYTES / 2 / 4668;
    let mut blocks = take(300 - least - 1);
    assert_eq!((kept(&pool, 4668), borrowed(&pool, 4668)), (least + 1, of_first));
    blocks.extend(take(1));
    assert_eq!((kept(&pool, 4668), borrowed(&pool, 4668), lent(&pool)), (least, 0, of_second));
    for block in blocks {
        // SAFETY: the block is given back once, with its layout.
        unsafe { pool.dealloc(block, layout(4668, 1)) };
    }
    assert_eq!((kept(&pool, 4668), lent(&pool)), (300, SHARED_BYTES));
    drain(&pool);
}

#[test]
fn blocks_that_were_used_are_zero_when_asked_for_so() {
    let pool = pool();
    for size in sizes() {
        let mut owned = Owned::new();
        take_zeroed(&pool, &mut owned, layout(size, 8), 0xff);
        let used = owned.first_key_value().map(|(start, _)| *start);
        give(&pool, &mut owned, 0);
        take_zeroed(&pool, &mut owned, layout(size - 1, 8), 0xff);
        assert_eq!(owned.first_key_value().map(|(start, _)| *start), used, "the block is the one that was used");
        give(&pool, &mut owned, 0);
    }
    drain(&pool);
}

#[test]
fn contents_survive_every_border_between_classes_and_the_system() {
    let pool = pool();
    let sizes = [1, 100, LEAST - 1, LEAST, 284, 285, 2048, 4096, 4668, 4669, 40_000, MOST, MOST + 1, MOST + 5000];
    let bytes: Vec<u8> = (0..=250).cycle().take(MOST + 5000).collect();
    let pairs = sizes.into_iter().flat_map(|from| sizes.map(|to| (from, to)));
    for ((from, to), align) in pairs.flat_map(|pair| [1, 16, 32, 128].map(|align| (pair, align))) {
        // SAFETY: each block has the size that it is written, read and given back by, and one owner.
        unsafe {
            let block = pool.alloc(layout(from, align));
            block.copy_from_nonoverlapping(bytes.as_ptr(), from);
            let moved = pool.realloc(block, layout(from, align), to);
            assert!(!moved.is_null() && moved.addr().is_multiple_of(align), "{from} to {to}, aligned to {align}");
            let left = slice::from_raw_parts(moved, from.min(to));
            assert!(bytes.starts_with(left), "{from} to {to}, aligned to {align}");
            moved.write_bytes(0xff, to);
            pool.dealloc(moved, layout(to, align));
        }
    }
    drain(&pool);
}

#[test]
fn a_block_stays_where_it_is_within_its_class_and_is_kept_when_it_moves() {
    let pool = pool();
    // SAFETY: each block has one owner, and the layout that it was resized by last.
    unsafe {
        let block = pool.alloc(layout(LEAST - 1, 1));
        let first = pool.realloc(block, layout(LEAST - 1, 1), 4096);
        assert_eq!(pool.realloc(first, layout(4096, 1), 4668), first, "it has room to grow");
        assert_eq!(pool.realloc(first, layout(4668, 1), 4077), first, "no smaller class has room for it");
        assert_eq!(kept(&pool, 4096), 0);
        let second = pool.realloc(first, layout(4077, 1), 8192);
        assert_eq!((kept(&pool, 4096), kept(&pool, 8192)), (1, 0));
        let large = pool.realloc(second, layout(8192, 1), MOST + 1);
        assert_eq!((kept(&pool, 4096), kept(&pool, 8192)), (1, 1));
        let large = pool.realloc(large, layout(MOST + 1, 1), MOST + 5000);
        let third = pool.realloc(large, layout(MOST + 5000, 1), 4096);
        assert_eq!((third, kept(&pool, 4096), kept(&pool, MOST)), (first, 0, 0));
        let small = pool.realloc(third, layout(4096, 1), 1);
        assert_eq!(kept(&pool, 4096), 1);
        pool.dealloc(small, layout(1, 1));
    }
    drain(&pool);
}

#[test]
fn threads_give_back_what_others_took() {
    struct Blocks(Owned);
    // SAFETY: a block has one owner, and the blocks move as a whole.
    unsafe impl Send for Blocks {}
    let pool = pool();
    let rounds = if cfg!(miri) { 3 } else { 300 };
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Blocks>(4);
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (sender, pool) = (sender.clone(), &pool);
            scope.spawn(move || {
                for _ in 0..rounds {
                    let mut owned = Owned::new();
                    (0..20).for_each(|_| take(pool, &mut owned, layout(4096, 1), thread));
                    (0..10).for_each(|at| give(pool, &mut owned, at));
                    sender.send(Blocks(owned)).expect("it is received");
                }
            });
        }
        drop(sender);
        while let Ok(Blocks(mut owned)) = receiver.recv() {
            while !owned.is_empty() {
                give(&pool, &mut owned, 0);
            }
        }
    });
    // Four threads have 20 each, four parts of ten are in the channel, and one is taken from it.
    assert!((1..=130).contains(&kept(&pool, 4096)));
    drain(&pool);
}
