//! The primitives that threads meet at. Everything whose interleavings matter takes its locks, atomics and threads from
//! here, and not from `parking_lot` and `std`.
//!
//! In a normal build this is re-exports and nothing else. Built for tests with `--cfg siltstone_shuttle` or `--cfg
//! siltstone_loom` the same names are those of a model checker, which runs the code of the engine under schedules (and,
//! loom, memory orders) of its own choice: see `models`. What stays with the real primitives has no part in a protocol:
//! statistics, the block cache, the skiplist.

#[cfg(all(test, any(siltstone_loom, siltstone_shuttle)))]
mod checked;
#[cfg(all(test, any(siltstone_loom, siltstone_shuttle)))]
pub(crate) use checked::*;

#[cfg(not(all(test, any(siltstone_loom, siltstone_shuttle))))]
mod real {
    pub(crate) use std::sync::atomic;
    pub(crate) use std::{hint, thread, thread_local};

    pub(crate) use arc_swap::{ArcSwap, ArcSwapOption, Guard};
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
}
#[cfg(not(all(test, any(siltstone_loom, siltstone_shuttle))))]
pub(crate) use real::*;

/// Whether a model checker runs the code: then what is tried a number of times to save time is tried once, since every
/// try is one more step to explore.
pub(crate) const IS_MODEL: bool = cfg!(all(test, any(siltstone_loom, siltstone_shuttle)));
