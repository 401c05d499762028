//! [`Interrupt`]: whether the user wants to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Whether the user wants to end. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// One that SIGINT, SIGTERM and SIGHUP set: what has been measured by then is reported. The second signal ends the
    /// program at once.
    ///
    /// # Errors
    /// [`Error::Settings`] if signals cannot be handled, or are already.
    pub fn on_signals() -> Result<Self> {
        let interrupt = Interrupt::default();
        let shared = interrupt.clone();
        let handler = move || {
            if shared.is_set() {
                // As a shell reports a process that SIGINT ended.
                std::process::exit(130);
            }
            shared.set();
        };
        ctrlc::set_handler(handler).map_err(|error| Error::Settings(format!("signals: {error}")))?;
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
