//! A pool of blocks that are aligned to 128 bytes, in front of the system's allocator.
//!
//! An idle session is three such blocks: its task, and tokio's registrations of its two sockets. musl aligns a block by
//! allocating 112 bytes more, and its sizes are few: of 2,176 bytes of a session, 600 are padding. The pool cuts blocks of
//! one size from chunks without padding. Most other blocks from 237 bytes to 73 KiB are the system's, and kept when they
//! are free ([`recycled`]). Everything else goes to the system.
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

mod recycled;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr::{NonNull, null_mut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use self::recycled::Recycled;

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
    classes: [Line; CLASSES],
    chunks: Mutex<Chunks>,
    recycled: Recycled,
}

/// The lock of a class, in cache lines of its own: a session takes blocks of several classes, on every worker.
#[derive(Debug)]
#[repr(align(128))]
struct Line(Mutex<Class>);

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
const _: () = assert!(size_of::<Line>() == ALIGN, "no two locks are in one line");

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
            classes: [const { Line(Mutex::new(Class { first: null_mut() })) }; CLASSES],
            chunks: Mutex::new(Chunks { regions: [none; REGIONS], count: 0, first: 0 }),
            recycled: Recycled::new(),
        }
    }

    /// The class of blocks with this layout, if the pool has them.
    fn class(&self, layout: Layout) -> Option<(usize, &Mutex<Class>)> {
        let class = (layout.align() == ALIGN).then(|| layout.size().checked_sub(1))?? / ALIGN;
        Some(((class + 1) * ALIGN, &self.classes.get(class)?.0))
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

// SAFETY: blocks of the pool and blocks that were kept are distinct, as large and aligned as asked for, and stay until they
// are given back. Other layouts are the system's alone: the layout decides, which is the same at both calls.
unsafe impl GlobalAlloc for Pool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some((size, class)) = self.class(layout) {
            return self.take(size, class).map_or(null_mut(), NonNull::as_ptr);
        }
        match self.recycled.class(layout) {
            Some(class) => class.alloc(),
            // SAFETY: the caller's promises.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if let Some((size, class)) = self.class(layout) {
            return self.take(size, class).map_or(null_mut(), |block| {
                // SAFETY: the block is ours and has this size.
                unsafe { block.write_bytes(0, size) };
                block.as_ptr()
            });
        }
        match self.recycled.class(layout) {
            Some(class) => class.alloc_zeroed(),
            // SAFETY: the caller's promises.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some((size, class)) = self.class(layout) {
            // SAFETY: a block with this layout is one of `take` for this class, by the caller's promise.
            return unsafe { self.give(block, size, class) };
        }
        match self.recycled.class(layout) {
            // SAFETY: a block with this layout is one of this class, by the caller's promise.
            Some(class) => unsafe { class.dealloc(block) },
            // SAFETY: the caller's promises.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the size fits, by the caller's promise, and the alignment is one already.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if layout.align() != ALIGN {
            match (self.recycled.class(layout), self.recycled.class(wanted)) {
                // SAFETY: the caller's promises; neither layout is the pool's, and neither has a class.
                (None, None) => return unsafe { System.realloc(block, layout, size) },
                (Some(old), Some(new)) if old.is(new) => return block,
                _ => {}
            }
        }
        // SAFETY: the size is not zero, by the caller's promise, and the old block stays until its bytes are copied.
        unsafe {
            let new = self.alloc(wanted);
            if !new.is_null() {
                block.copy_to_nonoverlapping(new, size.min(layout.size()));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests;
