//! A pool of blocks that are aligned to 128 bytes, in front of the system's allocator.
//!
//! An idle session is three such blocks: its task, and tokio's registrations of its two sockets. musl aligns a block by
//! allocating 112 bytes more, and its sizes are few: of 2,176 bytes of a session, 600 are padding. The pool cuts blocks of
//! one size from chunks without padding. Everything else goes to the system.
//!
//! # Invariant
//! Blocks of one class, those of up to the same multiple of 128 bytes, lie in chunks of that class only. Chunks are aligned
//! to their size, so that the address of a block names its chunk. A chunk is in the list of its class while it has a free
//! block. What a chunk and its blocks hold while they are free is touched under the lock of the class only. A block is
//! either free or with exactly one owner, which gives it back with the layout that it was asked for by, as
//! [`GlobalAlloc`] requires.
//!
//! Nothing here allocates, logs or panics: it would come back to itself.
#![allow(unsafe_code, reason = "an allocator deals in raw memory; see the invariant")]
#![allow(clippy::cast_ptr_alignment, reason = "regions and chunks are aligned to their size, and blocks to 128 bytes")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr::{NonNull, null_mut},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Alignment of the blocks, and the step between two classes, in bytes.
const ALIGN: usize = 128;
/// Classes; the largest blocks have 2 KiB.
const CLASSES: usize = 16;
/// Bytes of a chunk, a power of two.
const CHUNK: usize = 16 << 10;
/// Bytes that are taken from the system at a time.
const REGION: usize = 1 << 20;
/// Most regions: 64 GiB. Beyond them, blocks of this alignment are refused as memory that has run out.
const REGIONS: usize = 1 << 16;

/// A global allocator with a pool.
#[derive(Debug)]
pub struct Pool {
    classes: [Mutex<Class>; CLASSES],
    chunks: Mutex<Chunks>,
}

/// Chunks of one block size that have a free block.
#[derive(Debug)]
struct Class {
    first: *mut Chunk,
}

// SAFETY: the chunks that a class points to are touched by its owner only, wherever it runs.
unsafe impl Send for Class {}

/// The head of a chunk; its blocks follow.
#[repr(C, align(128))]
#[derive(Debug)]
struct Chunk {
    /// Neighbours in the list of the class.
    next: *mut Chunk,
    before: *mut Chunk,
    /// Blocks that were given back.
    free: *mut Free,
    /// Offset of the first block that nobody has had yet.
    fresh: usize,
    /// Blocks with an owner.
    used: usize,
    /// The region that the chunk is part of.
    region: usize,
}

/// A block that was given back.
#[derive(Debug)]
struct Free {
    next: *mut Free,
}

/// Chunks that no class has.
#[derive(Debug)]
struct Chunks {
    regions: [Region; REGIONS],
    count: usize,
    /// No region before this one has a free chunk.
    first: usize,
}

/// Memory from the system, never given back as addresses; the pages of free chunks are.
#[derive(Clone, Copy, Debug)]
struct Region {
    start: *mut u8,
    /// A bit for each free chunk.
    free: u64,
}

// SAFETY: the memory of free chunks is touched by the owner of the table only, wherever it runs.
unsafe impl Send for Chunks {}

const _: () = assert!(REGION / CHUNK == 64, "a bit for each chunk of a region");
const _: () = assert!(size_of::<Chunk>() == ALIGN, "blocks are aligned");

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl Pool {
    /// An empty pool.
    #[allow(clippy::large_stack_arrays, reason = "the pool of a program is a static, all of it zero")]
    #[must_use]
    pub const fn new() -> Self {
        let none = Region { start: null_mut(), free: 0 };
        Self {
            classes: [const { Mutex::new(Class { first: null_mut() }) }; CLASSES],
            chunks: Mutex::new(Chunks { regions: [none; REGIONS], count: 0, first: 0 }),
        }
    }

    /// The class of blocks with this layout, if the pool has them.
    fn class(&self, layout: Layout) -> Option<(usize, &Mutex<Class>)> {
        let class = (layout.align() == ALIGN).then(|| layout.size().checked_sub(1))?? / ALIGN;
        Some(((class + 1) * ALIGN, self.classes.get(class)?))
    }

    /// A block of a class.
    fn take(&self, size: usize, class: &Mutex<Class>) -> Option<NonNull<u8>> {
        let mut class = lock(class);
        if class.first.is_null() {
            class.push(lock(&self.chunks).take()?.as_ptr());
        }
        let chunk = class.first;
        // SAFETY: a chunk in the list is of this class and has a free block, which nobody else touches under the lock.
        // Blocks lie within the chunk, as `fresh` shows.
        let block = unsafe {
            let block = if (*chunk).free.is_null() {
                let fresh = (*chunk).fresh;
                (*chunk).fresh = fresh + size;
                chunk.cast::<u8>().add(fresh)
            } else {
                let block = (*chunk).free;
                (*chunk).free = (*block).next;
                block.cast()
            };
            (*chunk).used += 1;
            if is_full(&*chunk, size) {
                class.unlink(chunk);
            }
            block
        };
        NonNull::new(block)
    }

    /// Gives a block back.
    ///
    /// # Safety
    /// The block is one that [`Pool::take`] gave for this class, and its owner uses it no more.
    unsafe fn give(&self, block: *mut u8, size: usize, class: &Mutex<Class>) {
        let mut class = lock(class);
        let chunk = block.map_addr(|address| address & !(CHUNK - 1)).cast::<Chunk>();
        // SAFETY: the block lies in a chunk of this class, by the invariant, and is as large as a `Free` and aligned.
        unsafe {
            let was_full = is_full(&*chunk, size);
            let free = block.cast::<Free>();
            free.write(Free { next: (*chunk).free });
            (*chunk).free = free;
            (*chunk).used -= 1;
            if was_full {
                class.push(chunk);
            }
            // The last chunk of a class stays: a class that is empty and not in turns would ask the system each time.
            let is_alone = class.first == chunk && (*chunk).next.is_null();
            if (*chunk).used == 0 && !is_alone {
                class.unlink(chunk);
                lock(&self.chunks).give(chunk);
            }
        }
    }
}

/// Whether no block of a chunk with blocks of this size is free.
fn is_full(chunk: &Chunk, size: usize) -> bool {
    chunk.free.is_null() && chunk.fresh + size > CHUNK
}

/// The state behind a lock. Nothing panics under it.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Class {
    /// Puts a chunk into the list.
    fn push(&mut self, chunk: *mut Chunk) {
        // SAFETY: the chunk is of this class, whose lock is held, and so is the first one.
        unsafe {
            (*chunk).next = self.first;
            (*chunk).before = null_mut();
            if !self.first.is_null() {
                (*self.first).before = chunk;
            }
        }
        self.first = chunk;
    }

    /// Takes a chunk out of the list.
    fn unlink(&mut self, chunk: *mut Chunk) {
        // SAFETY: the chunk is in the list of this class, whose lock is held, and so are its neighbours.
        unsafe {
            let (before, next) = ((*chunk).before, (*chunk).next);
            if before.is_null() {
                self.first = next;
            } else {
                (*before).next = next;
            }
            if !next.is_null() {
                (*next).before = before;
            }
        }
    }
}

impl Chunks {
    /// A chunk without blocks.
    fn take(&mut self) -> Option<NonNull<Chunk>> {
        let known = self.regions.get(self.first..self.count)?;
        if let Some(at) = known.iter().position(|region| region.free != 0) {
            self.first += at;
        } else {
            *self.regions.get_mut(self.count)? = Region { start: region()?.as_ptr(), free: u64::MAX };
            self.first = self.count;
            self.count += 1;
        }
        let region = self.regions.get_mut(self.first)?;
        let at = region.free.trailing_zeros();
        region.free &= region.free - 1;
        // SAFETY: the region has 64 chunks, and this one is nobody's. Its memory is zero or was that of a chunk, and a
        // head fits and is aligned.
        unsafe {
            let chunk = region.start.add(at as usize * CHUNK).cast::<Chunk>();
            let (next, before, free) = (null_mut(), null_mut(), null_mut());
            chunk.write(Chunk { next, before, free, fresh: ALIGN, used: 0, region: self.first });
            NonNull::new(chunk)
        }
    }

    /// Takes a chunk back whose blocks are all free, and gives its pages to the system.
    fn give(&mut self, chunk: *mut Chunk) {
        // SAFETY: the chunk is in no list, and its head is as `take` and the class have left it.
        let index = unsafe { (*chunk).region };
        if let Some(region) = self.regions.get_mut(index) {
            discard(chunk.cast());
            let at = (chunk.addr() - region.start.addr()) / CHUNK;
            region.free |= 1 << at;
            self.first = self.first.min(index);
        }
    }
}

/// Memory for chunks, from the system.
fn region() -> Option<NonNull<u8>> {
    let layout = Layout::from_size_align(REGION, REGION).ok()?;
    // SAFETY: the size is not zero.
    let start = NonNull::new(unsafe { System.alloc(layout) })?;
    // Huge pages would keep the memory of free chunks. They are a hint, and it may fail.
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: the region is ours, and the advice changes nothing that it holds.
    let _ = unsafe { rustix::mm::madvise(start.as_ptr().cast(), REGION, rustix::mm::Advice::LinuxNoHugepage) };
    Some(start)
}

/// Gives the pages of a free chunk to the system. Where pages are larger than chunks, they stay.
#[cfg_attr(any(not(target_os = "linux"), miri), allow(unused_variables, reason = "there is no such call"))]
fn discard(chunk: *mut u8) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if rustix::param::page_size() <= CHUNK {
        // SAFETY: the chunk is aligned to pages, ends at one, and nobody reads what it holds before it is written again.
        // A failure only keeps the memory.
        let _ = unsafe { rustix::mm::madvise(chunk.cast(), CHUNK, rustix::mm::Advice::LinuxDontNeed) };
    }
}

// SAFETY: blocks of the pool are distinct, as large and aligned as asked for, and stay until they are given back. Other
// layouts are the system's alone: the layout decides, which is the same at both calls.
unsafe impl GlobalAlloc for Pool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.class(layout) {
            Some((size, class)) => self.take(size, class).map_or(null_mut(), NonNull::as_ptr),
            // SAFETY: the caller's promises.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.class(layout) {
            Some((size, class)) => self.take(size, class).map_or(null_mut(), |block| {
                // SAFETY: the block is ours and has this size.
                unsafe { block.write_bytes(0, size) };
                block.as_ptr()
            }),
            // SAFETY: the caller's promises.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.class(layout) {
            // SAFETY: a block with this layout is one of `take` for this class, by the caller's promise.
            Some((size, class)) => unsafe { self.give(block, size, class) },
            // SAFETY: the caller's promises.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() != ALIGN {
            // SAFETY: the caller's promises; neither layout is the pool's.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the size fits, by the caller's promise, and the old block stays until its bytes are copied.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, ALIGN));
            if !new.is_null() {
                block.copy_to_nonoverlapping(new, size.min(layout.size()));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, thread};

    use proptest::prelude::*;

    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, ALIGN).expect("a layout")
    }

    /// A pool on the heap: its table is too large for the stack of a test.
    fn pool() -> Box<Pool> {
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
    fn other_layouts_are_the_systems() {
        let pool = pool();
        for layout in
            [Layout::new::<[u64; 64]>(), layout(CLASSES * ALIGN + 1), Layout::from_size_align(64, 256).expect("")]
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
}
