//! [`Position`]: a place in a sink's log.

use std::fmt;

use siltstone::Slice;

use crate::error::{Error, Result};

/// The longest position, in bytes: it has to fit in a metadata entry of the database.
pub const MAX_POSITION_BYTES: usize = 4096;

/// A place in a sink's log: an opaque, printable byte string made by a sink and understood by its source. Positions are
/// not ordered: only their source knows which comes first.
///
/// Cheap to clone.
///
/// ```
/// use siltstone_changelog::Position;
/// let position = Position::from_bytes("0:17,1:4")?;
/// assert_eq!(position.to_string(), "0:17,1:4");
/// assert_eq!(Position::from_bytes(position.as_bytes())?, position);
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Position(Slice);

impl Position {
    /// The position that these bytes stand for.
    ///
    /// # Errors
    /// `InvalidArgument` unless they are 1 to [`MAX_POSITION_BYTES`] printable ASCII characters.
    pub fn from_bytes(bytes: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = bytes.as_ref();
        let printable = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
        if printable && (1..=MAX_POSITION_BYTES).contains(&bytes.len()) {
            return Ok(Position(bytes.into()));
        }
        Err(Error::InvalidArgument(format!(
            "a position has 1 to {MAX_POSITION_BYTES} printable ASCII characters, unlike these {} bytes: {:.64}",
            bytes.len(),
            bytes.escape_ascii().to_string()
        )))
    }

    /// The position as bytes, to be stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// A position of printable ASCII characters, as the sinks of this crate make them.
    pub(crate) fn from_text(text: impl AsRef<[u8]>) -> Self {
        Position(text.as_ref().into())
    }

    /// A position that is a single number, as the sinks of this crate make them.
    pub(crate) fn from_number(number: u64) -> Self {
        Position(number.to_string().as_bytes().into())
    }

    /// The number that [`from_number`](Self::from_number) was given.
    pub(crate) fn to_number(&self) -> Result<u64> {
        let text = self.as_str();
        let canonical = |number: &u64| number.to_string() == text;
        text.parse().ok().filter(canonical).ok_or_else(|| {
            Error::InvalidArgument(format!("{text:.64} is not a position of this log, which are numbers"))
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_printable_and_bounded() {
        for bad in [&b""[..], b"a\n", b"\xff", "ö".as_bytes(), &[b'x'; MAX_POSITION_BYTES + 1]] {
            assert!(matches!(Position::from_bytes(bad), Err(Error::InvalidArgument(_))), "{bad:?}");
        }
        assert!(Position::from_bytes([b'x'; MAX_POSITION_BYTES]).is_ok());
    }

    #[test]
    fn numbers_round_trip_and_others_are_refused() {
        assert_eq!(Position::from_number(u64::MAX).to_number().unwrap(), u64::MAX);
        for bad in ["", "+1", "01", "1 ", "x", "18446744073709551616"] {
            assert!(Position(bad.as_bytes().into()).to_number().is_err(), "{bad}");
        }
    }
}
