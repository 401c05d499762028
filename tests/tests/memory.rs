//! Memory stays inside the budget whatever the load, and a put allocates next to nothing: counted by an allocator of
//! this test's own.
//!
//! One test in this file, so that nobody else allocates meanwhile.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use siltstone::{Compression, KeyspaceOptions, MemtableKind, Options, Result};

/// Counts what is allocated, and passes it on.
struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread's allocations are counted: the background's are not a put's.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn grow(bytes: usize) {
    let live_bytes = LIVE_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK_BYTES.fetch_max(live_bytes, Ordering::Relaxed);
    if COUNTED.get() {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

#[allow(unsafe_code, reason = "an allocator cannot be written without; this one only counts")]
// SAFETY: every call goes to the system's allocator with the arguments it came with; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        grow(new_bytes);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is not the engine's budget: the test's own, thread stacks' bookkeeping, the log's and manifest's small buffers.
const ALLOWANCE_BYTES: usize = 1 << 20;

const VALUE_BYTES: usize = 200;

fn key(n: u64) -> [u8; 16] {
    // An odd multiplier permutes the numbers: keys come in no order.
    u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes()
}

/// Peak of a load, over what was live before the database was opened. Steady state is what counts: the load is sampled
/// while it runs.
fn peak_over(base_bytes: usize, load: impl FnOnce() -> Result<()>) -> Result<usize> {
    PEAK_BYTES.store(LIVE_BYTES.load(Ordering::Relaxed), Ordering::Relaxed);
    load()?;
    Ok(PEAK_BYTES.load(Ordering::Relaxed).saturating_sub(base_bytes))
}

/// Fills, overwrites, reads and scans four times the budget.
fn loads(memory_bytes: usize, mmap: bool, compression: Compression) -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let base_bytes = LIVE_BYTES.load(Ordering::Relaxed);
    let db = Options::new().memory_bytes(memory_bytes).mmap_reads(mmap).open(dir.path())?;
    let ks = db.keyspace("a", KeyspaceOptions::new().compression(compression))?;
    let count = (4 * memory_bytes / VALUE_BYTES) as u64;
    let limit_bytes = memory_bytes + memory_bytes / 10 + ALLOWANCE_BYTES;
    let put = |salt: u8| (0..count).try_for_each(|n| ks.put(key(n), [salt; VALUE_BYTES]).map(drop));
    let get = || {
        (0..count).try_for_each(|n| {
            let value = ks.get_with(key(n * 7919 % count), |value| value[0])?;
            assert_eq!(value, Some(2));
            Ok(())
        })
    };
    let scan = || {
        assert_eq!(ks.iter().map(|entry| entry.map(|_| 1)).sum::<Result<u64>>()?, count);
        assert_eq!(ks.iter().rev().map(|entry| entry.map(|_| 1)).sum::<Result<u64>>()?, count);
        Ok(())
    };
    let peaks = [
        ("fill", peak_over(base_bytes, || put(1))?),
        ("overwrite", peak_over(base_bytes, || put(2))?),
        ("read", peak_over(base_bytes, get)?),
        ("scan", peak_over(base_bytes, scan)?),
    ];
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    for (load, peak_bytes) in peaks {
        let what = format!("{load}, {} MiB, mmap {mmap}, {compression:?}", memory_bytes >> 20);
        println!("{what}: peak {:.1} MiB of {:.1}", mib(peak_bytes), mib(limit_bytes));
        assert!(peak_bytes <= limit_bytes, "{what}: {:.1} MiB\n{}", mib(peak_bytes), db.metrics());
    }
    Ok(())
}

/// Allocations of a put, beside the node that the memtable needs.
fn allocations_per_put(kind: MemtableKind) -> Result<f64> {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new().open(dir.path())?;
    let ks = db.keyspace("a", KeyspaceOptions::new().memtable(kind))?;
    let puts = |from: u64, count: u64| (from..from + count).try_for_each(|n| ks.put(key(n), [1; 100]).map(drop));
    puts(0, 10_000)?;
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    COUNTED.set(true);
    let put = puts(10_000, 50_000);
    COUNTED.set(false);
    put?;
    Ok((ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / 50_000.0)
}

#[test]
fn memory_stays_in_the_budget() -> Result<()> {
    for kind in [MemtableKind::BTree, MemtableKind::SkipList] {
        let allocations = allocations_per_put(kind)?;
        println!("{kind:?}: {allocations:.3} allocations a put");
        assert!(allocations <= 1.05, "{kind:?}: {allocations} allocations a put");
    }
    for memory_bytes in [8 << 20, 32 << 20] {
        loads(memory_bytes, true, Compression::None)?;
        loads(memory_bytes, false, Compression::Lz4Bottom)?;
    }
    Ok(())
}
