//! A named, ordered map inside a database.

use crate::batch::KeyspaceId;

/// Skeleton.
#[derive(Clone, Debug)]
pub struct Keyspace {
    id: KeyspaceId,
    database: u64,
}
impl Keyspace {
    pub(crate) fn id(&self) -> KeyspaceId {
        self.id
    }
    pub(crate) fn database(&self) -> u64 {
        self.database
    }
}
