//! A damaged place, as the code that salvages what is around it reports it.

/// Bytes of a file that did not check out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Where in the file, in bytes from its start.
    pub offset: u64,
    /// How many bytes were passed over; 0 where nothing but the place is known.
    pub bytes: u64,
    /// What does not fit.
    pub reason: String,
}

impl Damage {
    pub(crate) fn new(offset: u64, bytes: u64, reason: impl Into<String>) -> Self {
        Damage { offset, bytes, reason: reason.into() }
    }

    /// The damage that `error` speaks of, over `bytes` bytes from where it says. Errors that are about something else
    /// come back.
    pub(crate) fn of(error: crate::Error, bytes: u64) -> crate::Result<Self> {
        match error {
            crate::Error::Corruption { offset, reason, .. } => Ok(Damage { offset, bytes, reason }),
            other => Err(other),
        }
    }
}
