//! The model checker's primitives in the shape of `parking_lot`'s and `arc_swap`'s.
//!
//! Waiting never times out here: a wake-up that is lost ends as a deadlock, which the checker reports.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::{Duration, Instant};

#[cfg(siltstone_loom)]
use loom as checker;
#[cfg(siltstone_shuttle)]
use shuttle as checker;

pub(crate) use checker::hint;
#[cfg(siltstone_shuttle)]
pub(crate) use shuttle::{sync::atomic, thread};

#[cfg(siltstone_loom)]
pub(crate) mod atomic;
#[cfg(siltstone_loom)]
pub(crate) mod thread;

/// `std`'s macro with a constant, which the checkers' have no form for.
macro_rules! checked_thread_local {
    ($(#[$attribute:meta])* static $name:ident: $type:ty = const { $value:expr };) => {
        $crate::sync::checker_thread_local! { $(#[$attribute])* static $name: $type = $value; }
    };
}
pub(crate) use checked_thread_local as thread_local;
#[cfg(siltstone_loom)]
pub(crate) use loom::thread_local as checker_thread_local;
#[cfg(siltstone_shuttle)]
pub(crate) use shuttle::thread_local as checker_thread_local;

/// `parking_lot::Mutex`: no poison.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(checker::sync::Mutex<T>);

/// `None` only while a condition variable has it.
#[derive(Debug)]
pub(crate) struct MutexGuard<'m, T>(Option<checker::sync::MutexGuard<'m, T>>);

impl<T> Mutex<T> {
    #[track_caller]
    pub(crate) fn new(value: T) -> Self {
        Mutex(checker::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(MutexGuard(Some(guard))),
            Err(TryLockError::Poisoned(poisoned)) => Some(MutexGuard(Some(poisoned.into_inner()))),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().expect("the guard is not with a condition variable")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("the guard is not with a condition variable")
    }
}

/// `parking_lot::Condvar`, without time.
#[derive(Debug, Default)]
pub(crate) struct Condvar(checker::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Condvar(checker::sync::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let inner = guard.0.take().expect("the guard is not with a condition variable");
        guard.0 = Some(self.0.wait(inner).unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _timeout: Duration) {
        self.wait(guard);
    }

    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) {
        self.wait(guard);
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// `parking_lot::RwLock`: no poison.
#[derive(Debug)]
pub(crate) struct RwLock<T>(checker::sync::RwLock<T>);

impl<T> RwLock<T> {
    #[track_caller]
    pub(crate) fn new(value: T) -> Self {
        RwLock(checker::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> checker::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> checker::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        RwLock::new(T::default())
    }
}

/// `arc_swap::ArcSwap`, whose own protocol of hazard slots is not what is modelled: here one step is one lock.
#[derive(Debug)]
pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        ArcSwap(Mutex::new(Arc::new(value)))
    }

    pub(crate) fn load(&self) -> Guard<Arc<T>> {
        Guard(self.load_full())
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        self.0.lock().clone()
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        // What goes is dropped without the lock, as by the real one.
        let _old = std::mem::replace(&mut *self.0.lock(), value);
    }
}

/// `arc_swap::ArcSwapOption`, likewise.
#[derive(Debug)]
pub(crate) struct ArcSwapOption<T>(Mutex<Option<Arc<T>>>);

impl<T> ArcSwapOption<T> {
    pub(crate) fn empty() -> Self {
        ArcSwapOption(Mutex::new(None))
    }

    pub(crate) fn load(&self) -> Guard<Option<Arc<T>>> {
        Guard(self.load_full())
    }

    pub(crate) fn load_full(&self) -> Option<Arc<T>> {
        self.0.lock().clone()
    }

    pub(crate) fn store(&self, value: Option<Arc<T>>) {
        let _old = std::mem::replace(&mut *self.0.lock(), value);
    }
}

/// `arc_swap::Guard`.
#[derive(Debug)]
pub(crate) struct Guard<P>(P);

impl<P> Guard<P> {
    pub(crate) fn from_inner(pointer: P) -> Self {
        Guard(pointer)
    }
}

impl<P> Deref for Guard<P> {
    type Target = P;
    fn deref(&self) -> &P {
        &self.0
    }
}
