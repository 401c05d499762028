//! Bytes handed to the caller.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// How many bytes a slice holds in place; chosen so that a `Slice` is five words.
const INLINE_BYTES: usize = 38;

/// Up to this many bytes a value is copied out of the block it lies in: copying costs less than sharing a
/// reference count between cores, and it pins nothing.
const COPY_BYTES: usize = 256;

/// Immutable bytes: a key or a value read from the database.
///
/// Cheap to clone, `Send + Sync`, and independent of the database's lifetime: short contents are held in place,
/// longer ones share (and keep alive) the memory they were read from, for instance a mapped table.
///
/// ```
/// use siltstone::Slice;
/// let s = Slice::from(b"silt");
/// assert_eq!(&s[..], b"silt");
/// assert_eq!(Vec::from(s.clone()), s.to_vec());
/// ```
#[derive(Clone)]
pub struct Slice(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Shared(Bytes),
}

impl Slice {
    /// A slice with a copy of `bytes`.
    #[inline]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        if bytes.len() > INLINE_BYTES {
            return Slice(Repr::Shared(Bytes::copy_from_slice(bytes)));
        }
        let mut inline = [0; INLINE_BYTES];
        inline[..bytes.len()].copy_from_slice(bytes);
        Slice(Repr::Inline { len: bytes.len() as u8, bytes: inline })
    }

    /// A slice of `part`, which lies inside `owner`: small ones are copied, larger ones pin the owner.
    #[inline]
    pub(crate) fn pin(owner: &Bytes, part: &[u8]) -> Self {
        if part.len() <= COPY_BYTES {
            return Slice::copy_from_slice(part);
        }
        Slice(Repr::Shared(owner.slice_ref(part)))
    }

    /// A slice of `part`, which keeps all of `owner` alive that it lies in, unless it is so short that it is held in place:
    /// for those who read much at once and hand out parts of it. A copy if it does not lie in there.
    ///
    /// ```
    /// use siltstone::{Slice, bytes::Bytes};
    /// let read = Bytes::from("a key, and behind it a value that is longer than what is held in place");
    /// let value = Slice::share(&read, &read[7..]);
    /// assert_eq!(value.as_ptr(), read[7..].as_ptr());
    /// ```
    #[inline]
    pub fn share(owner: &Bytes, part: &[u8]) -> Self {
        if part.len() <= INLINE_BYTES {
            return Slice::copy_from_slice(part);
        }
        let at = (part.as_ptr() as usize).wrapping_sub(owner.as_ptr() as usize);
        match at.checked_add(part.len()) {
            Some(end) if end <= owner.len() => Slice(Repr::Shared(owner.slice(at..end))),
            _ => Slice::copy_from_slice(part),
        }
    }

    /// The contents.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..*len as usize],
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl Deref for Slice {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Slice {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Slice {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Default for Slice {
    fn default() -> Self {
        Slice::copy_from_slice(&[])
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.as_slice().escape_ascii())
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}
impl Eq for Slice {}
impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Slice {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}
impl Hash for Slice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

macro_rules! eq_with {
    ($($other:ty),*) => {$(
        impl PartialEq<$other> for Slice {
            fn eq(&self, other: &$other) -> bool {
                let other: &[u8] = other.as_ref();
                self.as_slice() == other
            }
        }
        impl PartialEq<Slice> for $other {
            fn eq(&self, other: &Slice) -> bool {
                other == self
            }
        }
    )*};
}
eq_with!([u8], &[u8], Vec<u8>, str, &str, String);

impl<const N: usize> PartialEq<[u8; N]> for Slice {
    fn eq(&self, other: &[u8; N]) -> bool {
        self.as_slice() == other
    }
}
impl<const N: usize> PartialEq<&[u8; N]> for Slice {
    fn eq(&self, other: &&[u8; N]) -> bool {
        self.as_slice() == *other
    }
}

impl From<Slice> for Vec<u8> {
    fn from(slice: Slice) -> Self {
        match slice.0 {
            Repr::Inline { len, bytes } => bytes[..len as usize].to_vec(),
            Repr::Shared(bytes) => bytes.into(),
        }
    }
}
impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() <= INLINE_BYTES { Slice::copy_from_slice(&bytes) } else { Slice(Repr::Shared(bytes.into())) }
    }
}
impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Self {
        Slice::copy_from_slice(bytes)
    }
}
impl<const N: usize> From<&[u8; N]> for Slice {
    fn from(bytes: &[u8; N]) -> Self {
        Slice::copy_from_slice(bytes)
    }
}
impl From<&str> for Slice {
    fn from(text: &str) -> Self {
        Slice::copy_from_slice(text.as_bytes())
    }
}
impl From<String> for Slice {
    fn from(text: String) -> Self {
        Slice::from(text.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_round_trips_and_pins_only_when_large() {
        let owner = Bytes::from((0..1000u32).map(|i| i as u8).collect::<Vec<_>>());
        for len in [0, 1, INLINE_BYTES, INLINE_BYTES + 1, COPY_BYTES, COPY_BYTES + 1, 1000] {
            let part = &owner[..len];
            let slice = Slice::pin(&owner, part);
            assert_eq!(slice, part);
            assert_eq!(slice.as_ptr() == owner.as_ptr(), len > COPY_BYTES);
            assert_eq!(Vec::from(slice.clone()), part);
            assert_eq!(Slice::from(part.to_vec()), slice);
        }
        assert_eq!(size_of::<Slice>(), 40);
    }
}
