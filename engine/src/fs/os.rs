//! Skeleton.
/// Skeleton.
#[derive(Debug, Default)]
pub struct OsFileSystem;
