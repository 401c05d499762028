//! loom's atomics, each call with a step of its own before it.
//!
//! loom looks for places to switch threads where two calls on one object depend on each other, but remembers only the
//! last call on each: when a writer loads a field itself before it stores it, a reader's earlier load of that field is
//! forgotten, and the schedule in which the store comes first is never tried. Here every call is preceded by a relaxed
//! store to one variable that nobody loads. Stores to the same variable depend on each other, so every two calls of two
//! threads are places to switch; and since it is never loaded, it adds no order to what is tested.

use std::sync::atomic::Ordering as StdOrdering;

pub(crate) use loom::sync::atomic::Ordering;

loom::lazy_static! {
    static ref STEP: loom::sync::atomic::AtomicU8 = loom::sync::atomic::AtomicU8::new(0);
}

fn step() {
    STEP.store(0, StdOrdering::Relaxed);
}

/// `std`'s fence, after a step.
pub(crate) fn fence(order: Ordering) {
    step();
    loom::sync::atomic::fence(order);
}

macro_rules! stepping {
    ($name:ident$(<$parameter:ident>)?, $value:ty) => {
        #[derive(Debug)]
        pub(crate) struct $name$(<$parameter>)?(loom::sync::atomic::$name$(<$parameter>)?);

        impl$(<$parameter>)? $name$(<$parameter>)? {
            pub(crate) fn new(value: $value) -> Self {
                $name(loom::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                step();
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                step();
                self.0.store(value, order);
            }
        }

        impl$(<$parameter>)? From<$value> for $name$(<$parameter>)? {
            fn from(value: $value) -> Self {
                Self::new(value)
            }
        }
    };
}

macro_rules! stepping_number {
    ($($name:ident $value:ty),*) => {$(
        stepping!($name, $value);

        #[allow(dead_code, reason = "every number has each call that one of them needs")]
        impl $name {
            pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                step();
                self.0.fetch_add(value, order)
            }

            pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                step();
                self.0.fetch_sub(value, order)
            }

            pub(crate) fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                step();
                self.0.fetch_max(value, order)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(0)
            }
        }
    )*};
}

stepping!(AtomicPtr<T>, *mut T);
stepping!(AtomicBool, bool);
stepping_number!(AtomicU32 u32, AtomicU64 u64, AtomicUsize usize);

impl AtomicBool {
    pub(crate) fn swap(&self, value: bool, order: Ordering) -> bool {
        step();
        self.0.swap(value, order)
    }
}

impl Default for AtomicBool {
    fn default() -> Self {
        Self::new(false)
    }
}
