//! [`Interrupt`]: whether the user wants to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, Result};

/// As a shell reports a program that SIGINT ended.
const EXIT_CODE: i32 = 130;

/// Whether the user wants to end. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// One that SIGINT, SIGTERM and SIGHUP set: what has been measured by then is reported. The second signal ends the
    /// program at once.
    ///
    /// # Errors
    /// [`Error::Settings`] if signals cannot be handled.
    pub fn on_signals() -> Result<Self> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds the flag unset.
            flag::register_conditional_shutdown(signal, EXIT_CODE, interrupt.0.clone())
                .and_then(|_| flag::register(signal, interrupt.0.clone()))
                .map_err(|error| Error::Settings(format!("signals cannot be handled: {error}")))?;
        }
        Ok(interrupt)
    }

    /// Ends what can be ended.
    pub fn set(&self) {
        // SeqCst: it is a flag alone, and costs nothing where it is looked at.
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
