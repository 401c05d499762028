//! Where a memtable's keys and values lie: chunks that only grow, never move, and are freed together.

#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::prefetch::{LINE_BYTES, prefetch_next_write};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// The first chunk, in bytes: what a memtable with one small entry costs.
const FIRST_CHUNK_BYTES: usize = 4 << 10;

/// An entry of more than a full-grown chunk divided by this gets a chunk of its own, so that no more of a chunk is ever
/// left unused.
const LARGE_SHARE: usize = 4;

/// Uninitialised memory that stays where it is until it is dropped.
///
/// What is as large as a large page is mapped for itself and goes back to the system as soon as it is dropped: an
/// allocator keeps what threads free in pieces, and under a small budget it kept as much again as the budget has.
#[derive(Debug)]
struct Chunk {
    start: NonNull<u8>,
    bytes: usize,
    /// Whether the pool counts it as in use.
    from_pool: bool,
    /// What it lies in, if that is not the heap.
    mapping: Option<MmapMut>,
}

// SAFETY: a chunk owns its memory and has no interior mutability; whoever holds it may free it, on any thread.
unsafe impl Send for Chunk {}

/// The size and alignment of the larger pages that the system can back memory with.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// The size of a page, or a part of it.
const PAGE_BYTES: usize = 4 << 10;

/// How many chunks are made ready ahead: what a fast writer fills while the background waits for storage, an index of its
/// memtable included.
const READY_CHUNKS: usize = 6;

impl Chunk {
    fn new(bytes: usize) -> Self {
        let mapped = if bytes >= HUGE_PAGE_BYTES { Chunk::mapped(bytes) } else { None };
        mapped.unwrap_or_else(|| Chunk::allocated(bytes))
    }

    /// `None` if the system has no more mappings.
    fn mapped(bytes: usize) -> Option<Self> {
        // Room to begin with a large page; what it is not used for is never touched.
        let mut mapping = MmapMut::map_anon(bytes.checked_add(HUGE_PAGE_BYTES)?).ok()?;
        let start = mapping.as_mut_ptr();
        let start = NonNull::new(start.wrapping_add(start.align_offset(HUGE_PAGE_BYTES)))?;
        ask_for_huge_pages(start, bytes);
        Some(Chunk { start, bytes, from_pool: false, mapping: Some(mapping) })
    }

    fn allocated(bytes: usize) -> Self {
        let layout = Chunk::layout(bytes);
        // SAFETY: `layout` has a size above zero.
        let memory = unsafe { alloc::alloc(layout) };
        let Some(start) = NonNull::new(memory) else { alloc::handle_alloc_error(layout) };
        Chunk { start, bytes, from_pool: false, mapping: None }
    }

    fn layout(bytes: usize) -> Layout {
        // Only a size near the whole address space would not fit, and no entry comes near that.
        Layout::from_size_align(bytes.max(1), LINE_BYTES).unwrap_or(Layout::new::<u64>())
    }
}

/// A search touches memory all over the place; with large pages each touch costs one cache miss and not another one for
/// the page's address. A hint: it may be refused.
fn ask_for_huge_pages(start: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the range was just mapped, is aligned to pages, and the advice changes no contents.
    let _refused = unsafe { rustix::mm::madvise(start.as_ptr().cast(), bytes, rustix::mm::Advice::LinuxHugepage) };
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
}

impl Chunk {
    /// Has the system find memory for all of the chunk now, not with the first write to each page.
    fn touch(&mut self) {
        for offset in (0..self.bytes).step_by(PAGE_BYTES) {
            // SAFETY: `offset` is inside the chunk, which nobody else has; volatile, so that it is not left out.
            unsafe { self.start.add(offset).write_volatile(0) };
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.mapping.is_none() {
            // SAFETY: `allocated` allocated this with the same layout, and only this drop frees it.
            unsafe { alloc::dealloc(self.start.as_ptr(), Chunk::layout(self.bytes)) };
        }
    }
}

/// Full-grown chunks, those that memtables use and those that dropped ones left behind for the next: their pages are
/// mapped already, and a page fault for every page of a new memtable is what that saves.
#[derive(Debug)]
pub(crate) struct ArenaPool {
    chunks: Mutex<PooledChunks>,
    max_bytes: usize,
    /// The size chunks double up to, and the size that is kept.
    chunk_bytes: usize,
    /// Fewer are ready than should be.
    is_low: AtomicBool,
}

#[derive(Debug, Default)]
struct PooledChunks {
    kept: Vec<Chunk>,
    in_use: usize,
}

impl ArenaPool {
    /// A pool of chunks of `chunk_bytes`, a power of two of at least 4 KiB. It keeps unused ones as long as they and
    /// those in use together take no more than `max_bytes`, and they alone no more than half of that: what the next
    /// memtable of the default size takes, and not what is then only in the way of everything else in the budget. What a memtable has reserved and not yet used is less than
    /// one of them.
    pub(crate) fn new(max_bytes: usize, chunk_bytes: usize) -> Self {
        ArenaPool { chunks: Mutex::default(), max_bytes, chunk_bytes, is_low: AtomicBool::new(false) }
    }

    /// The unused memory it holds now, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.lock().kept.len() * self.chunk_bytes
    }

    fn take(&self) -> Chunk {
        let kept = {
            let mut chunks = self.chunks.lock();
            chunks.in_use += 1;
            let kept = chunks.kept.pop();
            // Relaxed: a hint.
            self.is_low.store(self.has_room(&chunks) && chunks.kept.len() < READY_CHUNKS, Ordering::Relaxed);
            kept
        };
        let mut chunk = kept.unwrap_or_else(|| Chunk::new(self.chunk_bytes));
        chunk.from_pool = true;
        chunk
    }

    /// Takes back what an arena used, its full-grown chunks among others.
    fn give_back(&self, used: Vec<Chunk>) {
        let mut chunks = self.chunks.lock();
        for chunk in used.into_iter().filter(|chunk| chunk.from_pool) {
            chunks.in_use -= 1;
            if self.has_room(&chunks) {
                chunks.kept.push(chunk);
            }
        }
    }

    /// Whether one more chunk may be kept.
    fn has_room(&self, chunks: &PooledChunks) -> bool {
        let kept_bytes = (chunks.kept.len() + 1) * self.chunk_bytes;
        kept_bytes <= self.max_bytes / 2 && kept_bytes + chunks.in_use * self.chunk_bytes <= self.max_bytes
    }

    /// Whether [`prepare`](Self::prepare) has something to do.
    #[inline]
    pub(crate) fn is_low(&self) -> bool {
        // Relaxed: a hint; the lock of the chunks orders everything else.
        self.is_low.load(Ordering::Relaxed)
    }

    /// Makes chunks ready, with memory behind them: a writer that grows into new memory waits until the system found and
    /// cleared it, for milliseconds where that takes moving other pages or asking a host. For a background thread.
    pub(crate) fn prepare(&self) {
        // Relaxed: see `is_low`.
        self.is_low.store(false, Ordering::Relaxed);
        let wants = |chunks: &PooledChunks| chunks.kept.len() < READY_CHUNKS && self.has_room(chunks);
        while wants(&self.chunks.lock()) {
            let mut chunk = Chunk::new(self.chunk_bytes);
            chunk.touch();
            let mut chunks = self.chunks.lock();
            if wants(&chunks) {
                chunks.kept.push(chunk);
            }
        }
    }
}

/// A bump allocator for the bytes of one memtable. Nothing is freed before the arena itself, and then all at once.
#[derive(Debug)]
pub(super) struct Arena {
    /// Where the next small entry goes; `free_bytes` are unused from here on.
    free: NonNull<u8>,
    free_bytes: usize,
    next_chunk_bytes: usize,
    reserved_bytes: usize,
    chunks: Vec<Chunk>,
    pool: Arc<ArenaPool>,
}

// SAFETY: `free` points into a chunk of `chunks`, which the arena owns; it is used only through `&mut self`.
unsafe impl Send for Arena {}

impl Arena {
    /// An arena without memory; the first entry reserves the first chunk.
    pub(super) fn new(pool: &Arc<ArenaPool>) -> Self {
        Arena {
            free: NonNull::dangling(),
            free_bytes: 0,
            next_chunk_bytes: FIRST_CHUNK_BYTES,
            reserved_bytes: 0,
            chunks: Vec::new(),
            pool: Arc::clone(pool),
        }
    }

    /// Memory held, in bytes, used or not.
    pub(super) fn reserved_bytes(&self) -> usize {
        self.reserved_bytes
    }

    /// Room for `bytes` bytes at a multiple of `align`, a power of two up to a cache line. Uninitialised.
    #[inline]
    pub(super) fn allocate(&mut self, bytes: usize, align: usize) -> NonNull<u8> {
        let padding = self.free.as_ptr().align_offset(align);
        if padding.saturating_add(bytes) <= self.free_bytes {
            self.bump(padding);
            let place = self.bump(bytes);
            prefetch_next_write(self.free.as_ptr());
            return place;
        }
        debug_assert!(align <= LINE_BYTES, "chunks begin with a cache line");
        self.reserve(bytes)
    }

    /// Takes the next `bytes`, which must not be more than `free_bytes`.
    #[inline]
    fn bump(&mut self, bytes: usize) -> NonNull<u8> {
        debug_assert!(bytes <= self.free_bytes);
        let place = self.free;
        self.free_bytes -= bytes;
        // SAFETY: the caller checked that the chunk has `bytes` left, so the result lies in it or one past its end.
        // (Without a chunk, `bytes` is 0.)
        self.free = unsafe { place.add(bytes) };
        place
    }

    #[cold]
    fn reserve(&mut self, bytes: usize) -> NonNull<u8> {
        let full_bytes = self.pool.chunk_bytes;
        if bytes > full_bytes / LARGE_SHARE {
            // The current chunk stays current: what it has left serves the small entries that follow.
            return self.keep(Chunk::new(bytes));
        }
        let chunk_bytes = self.next_chunk_bytes.max(bytes.next_power_of_two());
        self.next_chunk_bytes = (chunk_bytes * 2).min(full_bytes);
        let chunk = if chunk_bytes == full_bytes { self.pool.take() } else { Chunk::new(chunk_bytes) };
        self.free = self.keep(chunk);
        self.free_bytes = chunk_bytes;
        self.bump(bytes)
    }

    fn keep(&mut self, chunk: Chunk) -> NonNull<u8> {
        let start = chunk.start;
        self.reserved_bytes += chunk.bytes;
        self.chunks.push(chunk);
        start
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.chunks));
    }
}

/// A fixed number of `T`, which lie in one chunk or in several of the pool's. They are never dropped: `T` owns nothing.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Chunk>,
    bytes: usize,
    /// How many of them lie in one chunk, as a power of two.
    chunk_len_log2: u32,
    pool: Arc<ArenaPool>,
    content: PhantomData<T>,
}

// SAFETY: all that is done with a shared slab is to share what it holds.
unsafe impl<T: Sync> Sync for Slab<T> {}

impl<T> Slab<T> {
    /// About `bytes` bytes of what `make` makes, and no more than `most_bytes`: as many chunks of the pool as come next to
    /// it, or else a power of two.
    pub(super) fn new(pool: &Arc<ArenaPool>, bytes: usize, most_bytes: usize, make: impl Fn() -> T) -> Self {
        const { assert!(align_of::<T>() <= LINE_BYTES, "chunks begin with a cache line") };
        let count = (bytes + pool.chunk_bytes / 2) / pool.chunk_bytes;
        let chunks: Vec<Chunk> = match count.min(most_bytes / pool.chunk_bytes) {
            0 => vec![Chunk::new((1 << bytes.min(most_bytes).max(1).ilog2()).max(size_of::<T>()))],
            count => (0..count).map(|_| pool.take()).collect(),
        };
        let chunk_bytes = chunks[0].bytes;
        // All of it, for what is as large as a power of two; a model's atomics are larger.
        let len = 1 << (chunk_bytes / size_of::<T>()).ilog2();
        for chunk in &chunks {
            // SAFETY: the chunk has room for `len` of `T`, is aligned to cache lines or more, and nobody else has it.
            (0..len).for_each(|at| unsafe { chunk.start.cast::<T>().add(at).write(make()) });
        }
        let bytes = chunk_bytes * chunks.len();
        Slab { chunks, bytes, chunk_len_log2: usize::ilog2(len), pool: Arc::clone(pool), content: PhantomData }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.chunks.len() << self.chunk_len_log2
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The one at `at`, which is below [`len`](Self::len).
    #[inline]
    pub(super) fn at(&self, at: usize) -> &T {
        let chunk = &self.chunks[at >> self.chunk_len_log2];
        // SAFETY: `new` wrote so many into each chunk.
        unsafe { chunk.start.cast::<T>().add(at & ((1 << self.chunk_len_log2) - 1)).as_ref() }
    }
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.chunks));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK_BYTES: usize = 1 << 20;
    const LARGE_BYTES: usize = CHUNK_BYTES / LARGE_SHARE;

    fn copy(arena: &mut Arena, key: &[u8], value: &[u8]) -> NonNull<u8> {
        let place = arena.allocate(key.len() + value.len(), 1);
        // SAFETY: the arena gave room for both.
        unsafe {
            place.copy_from_nonoverlapping(NonNull::from(key).cast(), key.len());
            place.add(key.len()).copy_from_nonoverlapping(NonNull::from(value).cast(), value.len());
        }
        place
    }

    fn read(place: NonNull<u8>, bytes: usize) -> Vec<u8> {
        // SAFETY: the tests read what `copy` has just written, while the arena lives.
        unsafe { std::slice::from_raw_parts(place.as_ptr(), bytes) }.to_vec()
    }

    #[test]
    fn entries_of_all_sizes_keep_their_bytes_and_never_overlap() {
        let mut arena = Arena::new(&Arc::new(ArenaPool::new(0, CHUNK_BYTES)));
        let sizes = [0, 1, 7, 100, 4095, 4096, 4097, 70_000, LARGE_BYTES, LARGE_BYTES + 1, 3 * CHUNK_BYTES, 0, 5];
        let mut places = Vec::new();
        for round in 0..20u8 {
            for (i, &size) in sizes.iter().enumerate() {
                let (key, value) = (vec![round; size / 2], vec![i as u8 ^ 0x55; size - size / 2]);
                places.push((copy(&mut arena, &key, &value), [key, value].concat()));
            }
        }
        for (place, expected) in &places {
            assert_eq!(&read(*place, expected.len()), expected);
        }
    }

    #[test]
    fn allocations_are_aligned_and_never_overlap() {
        let mut arena = Arena::new(&Arc::new(ArenaPool::new(0, CHUNK_BYTES)));
        let mut places = Vec::new();
        for round in 0..2000usize {
            let (bytes, align) = ((round * 37) % 700 + 1, 1 << (round % 7));
            let place = arena.allocate(bytes, align);
            assert_eq!(place.addr().get() % align, 0);
            // SAFETY: the arena gave room for `bytes` bytes.
            unsafe { place.write_bytes(round as u8, bytes) };
            places.push((place, bytes, round as u8));
        }
        for (place, bytes, byte) in places {
            assert!(read(place, bytes).iter().all(|&b| b == byte));
        }
    }

    #[test]
    fn chunks_double_and_large_entries_do_not_end_the_current_chunk() {
        let mut arena = Arena::new(&Arc::new(ArenaPool::new(0, CHUNK_BYTES)));
        assert_eq!(arena.reserved_bytes(), 0);
        let first = copy(&mut arena, b"k", b"v");
        assert_eq!(arena.reserved_bytes(), FIRST_CHUNK_BYTES);
        copy(&mut arena, b"", &vec![0; LARGE_BYTES + 1]);
        assert_eq!(copy(&mut arena, b"k", b"v"), first.map_addr(|a| a.saturating_add(2)));
        let mut chunks = Vec::new();
        while chunks.last() != Some(&CHUNK_BYTES) {
            let before = arena.reserved_bytes();
            copy(&mut arena, &[0; 100], b"");
            chunks.extend(Some(arena.reserved_bytes() - before).filter(|&grown| grown > 0));
        }
        assert_eq!(chunks, (13..=20).map(|bits| 1 << bits).collect::<Vec<_>>());
    }

    #[test]
    fn the_pool_keeps_full_grown_chunks_up_to_its_limit() {
        let pool = Arc::new(ArenaPool::new(4 * CHUNK_BYTES, CHUNK_BYTES));
        let mut arena = Arena::new(&pool);
        for _ in 0..30 {
            copy(&mut arena, b"", &[1; LARGE_BYTES]);
        }
        assert!(arena.chunks.len() > 4);
        drop(arena);
        assert_eq!(pool.bytes(), 2 * CHUNK_BYTES);
        let mut arena = Arena::new(&pool);
        for _ in 0..4 {
            copy(&mut arena, b"", &[1; LARGE_BYTES]);
        }
        assert_eq!(pool.bytes(), CHUNK_BYTES, "the second memtable took one");
    }

    #[test]
    fn chunks_are_made_ready_when_few_are_left_and_within_the_bound() {
        let pool = Arc::new(ArenaPool::new(16 * CHUNK_BYTES, CHUNK_BYTES));
        assert!(!pool.is_low(), "a pool that nobody uses needs nothing");
        let mut arenas: Vec<Arena> = (0..2).map(|_| Arena::new(&pool)).collect();
        let grow = |arena: &mut Arena| {
            for _ in 0..8 {
                copy(arena, &[1; CHUNK_BYTES / 8], b"");
            }
        };
        grow(&mut arenas[0]);
        assert!(pool.is_low());
        let in_use = pool.chunks.lock().in_use;
        pool.prepare();
        assert!(!pool.is_low());
        assert_eq!(pool.bytes(), (READY_CHUNKS * CHUNK_BYTES).min((16 - in_use) * CHUNK_BYTES));
        let ready = pool.bytes() / CHUNK_BYTES;
        grow(&mut arenas[1]);
        assert!(pool.bytes() / CHUNK_BYTES < ready, "they are used");
        while pool.chunks.lock().in_use < 16 {
            grow(&mut arenas[1]);
        }
        assert!(!pool.is_low(), "no more than the bound allows");
        pool.prepare();
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn slabs_take_whole_chunks_or_less_than_one_and_give_them_back() {
        for (bytes, expected) in
            [(0, 8), (8, 8), (100, 64), (CHUNK_BYTES / 2 - 1, CHUNK_BYTES / 4), (CHUNK_BYTES / 2, CHUNK_BYTES)]
        {
            let slab = Slab::new(&Arc::new(ArenaPool::new(0, CHUNK_BYTES)), bytes, usize::MAX, || 7u64);
            assert_eq!((slab.bytes(), slab.len()), (expected, expected / 8), "{bytes}");
            assert!((0..slab.len()).all(|at| *slab.at(at) == 7));
        }
        let pool = Arc::new(ArenaPool::new(16 * CHUNK_BYTES, CHUNK_BYTES));
        let slab = Slab::new(&pool, 5 * CHUNK_BYTES / 2, 3 * CHUNK_BYTES, || AtomicBool::new(false));
        assert_eq!((slab.bytes(), pool.chunks.lock().in_use), (3 * CHUNK_BYTES, 3));
        for at in (0..slab.len()).step_by(4099) {
            assert!(!slab.at(at).swap(true, Ordering::Relaxed), "{at} is another one's place");
        }
        drop(slab);
        assert_eq!((pool.bytes(), pool.chunks.lock().in_use), (3 * CHUNK_BYTES, 0));
        let again = Slab::new(&pool, CHUNK_BYTES, CHUNK_BYTES, || AtomicBool::new(false));
        assert!((0..again.len()).all(|at| !again.at(at).load(Ordering::Relaxed)), "what was there before is gone");
        for (most, expected) in [(3 * CHUNK_BYTES - 1, 2 * CHUNK_BYTES), (CHUNK_BYTES - 1, CHUNK_BYTES / 2)] {
            assert_eq!(Slab::new(&pool, 9 * CHUNK_BYTES, most, || 0u8).bytes(), expected, "at most {most}");
        }
    }
}
