//! Names of keyspaces.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest keyspace name, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The name of a keyspace; cheap to clone.
///
/// ```
/// let name = siltstone::KeyspaceName::from("counts");
/// assert_eq!(name, "counts");
/// assert_eq!(name.len(), 6);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceName(Arc<str>);

impl KeyspaceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a clone of it is somewhere else: a keyspace's handles all hold one.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Checks a name: 1 to 255 bytes of UTF-8 without `/`, `\` and control characters, so that it can serve as a file
    /// or topic name.
    ///
    /// # Errors
    /// `InvalidArgument` that says what is allowed.
    pub(crate) fn check(name: &str) -> Result<()> {
        let allowed = |c: char| !c.is_control() && c != '/' && c != '\\';
        if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.chars().all(allowed) {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "a keyspace name has 1 to {MAX_NAME_BYTES} bytes and no '/', '\\' or control character, unlike {name:?}"
        )))
    }
}

impl Deref for KeyspaceName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}
impl AsRef<str> for KeyspaceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
impl Borrow<str> for KeyspaceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl From<&str> for KeyspaceName {
    fn from(name: &str) -> Self {
        KeyspaceName(name.into())
    }
}
impl From<String> for KeyspaceName {
    fn from(name: String) -> Self {
        KeyspaceName(name.into())
    }
}
impl From<KeyspaceName> for String {
    fn from(name: KeyspaceName) -> Self {
        name.0.as_ref().to_owned()
    }
}
impl PartialEq<str> for KeyspaceName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}
impl PartialEq<&str> for KeyspaceName {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}
impl PartialEq<String> for KeyspaceName {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}
impl fmt::Display for KeyspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}
impl fmt::Debug for KeyspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_free_of_separators() {
        let long = "x".repeat(255);
        for good in ["a", "word counts", "größe", long.as_str()] {
            assert!(KeyspaceName::check(good).is_ok(), "{good}");
        }
        let too_long = "x".repeat(300);
        for bad in ["", "a/b", "a\\b", "a\0", "a\n", too_long.as_str()] {
            assert!(matches!(KeyspaceName::check(bad), Err(Error::InvalidArgument(_))), "{bad}");
        }
    }
}
