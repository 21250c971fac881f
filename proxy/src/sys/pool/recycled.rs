//! Free blocks that are kept for the next allocation of their size, in front of the system's allocator.
//!
//! musl unmaps a group of blocks with the last one that is given back, and maps it again, as zero pages, for the next one.
//! Lines, reads and frames come and go in turns, so that each few of them cost two system calls and a page fault for each
//! page. Here a block that is given back stays, within a bound, until a block of its class is asked for.
//!
//! # Invariant
//! A block of a class comes from the system with the layout of the class, and goes back with the same. In between it has
//! one owner, or is in the list of its class. A block in the list begins with a [`Free`], and what it holds is touched
//! under the lock of its class only. The layout that an owner asked for decides on the class. It is the same when the
//! block is given back, as [`GlobalAlloc`] requires, and `realloc` leaves a block where it is only within its class.
//!
//! Nothing belongs to a thread, so that the end of one changes nothing. Under a lock, nothing calls the system.
#![allow(unsafe_code, reason = "an allocator deals in raw memory; see the invariant")]
#![allow(clippy::cast_ptr_alignment, reason = "blocks are aligned to 16 bytes")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr::{NonNull, null_mut},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::lock;

/// Alignment of the blocks, in bytes. musl aligns every block so.
const ALIGN: usize = 16;
/// Bytes of a unit, in which musl counts the sizes of its blocks.
const UNIT: usize = 16;
/// Bytes that musl takes of each block for itself.
const MARK: usize = 4;
/// Sizes of the classes in units, as musl has them: a block of a class fills the one that musl takes for it, so that
/// nothing is padded twice. Four are above each power of two, and the last of the four is just below the next.
const UNITS: [usize; CLASSES] = [
    18, 20, 25, 31, 36, 42, 50, 63, 72, 84, 102, 127, 146, 170, 204, 255, 292, 340, 409, 511, 584, 682, 818, 1023,
    1169, 1364, 1637, 2047, 2340, 2730, 3276, 4095, 4680,
];
/// Classes; the largest blocks have 73 KiB.
const CLASSES: usize = 33;
/// Classes from one power of two to the next.
const STEPS: usize = 4;
/// Units at which the first class begins, a power of two.
const FIRST: usize = 16;
/// The smallest block that has a class, in bytes. Smaller ones cost musl no mappings of their own.
const LEAST: usize = (FIRST - 1) * UNIT - MARK + 1;
/// The largest block that has a class, in bytes: the class of blocks of 64 KiB.
const MOST: usize = 4680 * UNIT - MARK;

/// Most bytes that a class keeps,
const KEPT_BYTES: usize = 256 << 10;
/// but no more than this many blocks,
const MOST_BLOCKS: usize = 64;
/// and room for this many in any case.
const LEAST_BLOCKS: usize = 4;
/// Most bytes beyond these bounds, over all classes. A class that is full borrows some of them.
const SHARED_BYTES: usize = 2 << 20;
/// Bytes that a class borrows at a time: no fewer than the largest block has.
const LOAN: usize = 128 << 10;

/// Lists of free blocks, one for each class.
#[derive(Debug)]
pub(super) struct Recycled {
    lists: [Line; CLASSES],
    lent: Lent,
}

/// The lock of a class, in cache lines of its own: threads take blocks of several classes.
#[derive(Debug)]
#[repr(align(128))]
struct Line(Mutex<List>);

/// The bytes that classes have borrowed, in cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
struct Lent(AtomicUsize);

/// Free blocks of one class.
#[derive(Debug)]
struct List {
    first: *mut Free,
    /// Bytes of all blocks in the list.
    bytes: usize,
    /// Bytes that the list may have beyond the bound of its class.
    borrowed: usize,
}

// SAFETY: the blocks that a list points to are touched by its owner only, wherever it runs.
unsafe impl Send for List {}

/// How a free block begins.
#[derive(Debug)]
struct Free {
    next: *mut Free,
}

/// The class of a layout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class<'a> {
    /// Bytes that were asked for, no more than a block has.
    asked: usize,
    /// The layout of all blocks of the class.
    layout: Layout,
    list: &'a Mutex<List>,
    lent: &'a AtomicUsize,
}

const _: () = assert!(align_of::<Free>() <= ALIGN && size_of::<Free>() <= LEAST, "a free block has room for its head");
const _: () = assert!(size_of::<Line>() == 128, "no two locks are in one line");
const _: () = assert!(LOAN >= MOST, "a loan has room for a block of any class");
const _: () = assert!(UNITS[CLASSES - 1] * UNIT - MARK == MOST && MOST >= 64 << 10, "the last class is the largest");

impl Recycled {
    /// Keeps nothing yet.
    pub(super) const fn new() -> Self {
        Self {
            lists: [const { Line(Mutex::new(List { first: null_mut(), bytes: 0, borrowed: 0 })) }; CLASSES],
            lent: Lent(AtomicUsize::new(0)),
        }
    }

    /// The class of blocks with this layout, if there is one.
    pub(super) fn class(&self, layout: Layout) -> Option<Class<'_>> {
        let asked = layout.size();
        if layout.align() > ALIGN || !(LEAST..=MOST).contains(&asked) {
            return None;
        }
        let units = (asked + MARK).div_ceil(UNIT);
        // The classes above the power of two that the size has passed, of which the first that is large enough is taken.
        let above = STEPS * (FIRST.leading_zeros() - units.leading_zeros()) as usize;
        let smaller = UNITS.get(above..)?.iter().take(STEPS).filter(|size| **size < units).count();
        let (size, list) = (UNITS.get(above + smaller)?, self.lists.get(above + smaller)?);
        let layout = Layout::from_size_align(size * UNIT - MARK, ALIGN).ok()?;
        Some(Class { asked, layout, list: &list.0, lent: &self.lent.0 })
    }
}

impl Class<'_> {
    /// Whether blocks of both are of one size.
    pub(super) fn is(self, other: Self) -> bool {
        self.layout == other.layout
    }

    /// A block, or null if there is no memory.
    pub(super) fn alloc(self) -> *mut u8 {
        match self.take() {
            Some(block) => block.as_ptr(),
            // SAFETY: no class has blocks of no bytes.
            None => unsafe { System.alloc(self.layout) },
        }
    }

    /// A block whose bytes that were asked for are zero, or null if there is no memory.
    pub(super) fn alloc_zeroed(self) -> *mut u8 {
        match self.take() {
            Some(block) => {
                // SAFETY: the block is ours, and has these bytes.
                unsafe { block.write_bytes(0, self.asked) };
                block.as_ptr()
            }
            // SAFETY: no class has blocks of no bytes.
            None => unsafe { System.alloc_zeroed(self.layout) },
        }
    }

    /// Gives a block back. The system gets it if the class has as many as it keeps.
    ///
    /// # Safety
    /// The block is one of [`Class::alloc`] or [`Class::alloc_zeroed`] of this class, and its owner uses it no more.
    pub(super) unsafe fn dealloc(self, block: *mut u8) {
        // SAFETY: the caller's promise.
        let is_kept = unsafe { self.keep(block.cast()) };
        if !is_kept {
            // SAFETY: the system gave the block with this layout, by the invariant, and it is in no list.
            unsafe { System.dealloc(block, self.layout) };
        }
    }

    /// A block from the list.
    fn take(self) -> Option<NonNull<u8>> {
        let mut list = lock(self.list);
        let block = NonNull::new(list.first)?;
        // SAFETY: a block in the list begins with a `Free`, by the invariant, and the lock is held.
        list.first = unsafe { block.as_ref() }.next;
        list.bytes -= self.layout.size();
        // Blocks that come and go near the bound must not write the count that all classes share.
        if list.borrowed > 0 && list.bytes <= bound(self.layout.size()) / 2 {
            self.lent.fetch_sub(list.borrowed, Relaxed);
            list.borrowed = 0;
        }
        Some(block.cast())
    }

    /// Puts a block into the list, unless the list is full.
    ///
    /// # Safety
    /// As [`Class::dealloc`].
    unsafe fn keep(self, block: *mut Free) -> bool {
        let size = self.layout.size();
        let mut list = lock(self.list);
        let has_room = list.bytes + size <= bound(size) + list.borrowed || list.borrow_from(self.lent);
        if has_room {
            // SAFETY: the block is nobody's, as large as a `Free` and aligned, and the lock is held.
            unsafe { block.write(Free { next: list.first }) };
            list.first = block;
            list.bytes += size;
        }
        has_room
    }
}

impl List {
    /// Borrows room for more blocks, if the other classes have left some.
    fn borrow_from(&mut self, lent: &AtomicUsize) -> bool {
        let with_loan = |lent: usize| Some(lent + LOAN).filter(|lent| *lent <= SHARED_BYTES);
        let is_lent = lent.fetch_update(Relaxed, Relaxed, with_loan).is_ok();
        if is_lent {
            self.borrowed += LOAN;
        }
        is_lent
    }
}

/// Most bytes that a class with blocks of this size keeps without borrowing.
fn bound(size: usize) -> usize {
    KEPT_BYTES.min(MOST_BLOCKS * size).max(LEAST_BLOCKS * size)
}

#[cfg(test)]
mod tests;
