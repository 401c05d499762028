//! Skeleton.
use std::path::Path;
/// Skeleton.
#[derive(Clone, Debug)]
pub struct Db {}
impl Db {
    /// Skeleton.
    pub fn open(path: impl AsRef<Path>) -> crate::Result<Db> {
        crate::Options::new().open(path)
    }
}
