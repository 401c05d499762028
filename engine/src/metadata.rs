//! Metadata: small named values beside the keyspaces. Positions are data, so they are written in the batch whose data
//! they stand for.
//!
//! They live in memory; the log carries their changes, and each edit that lets go of log carries them all.

use std::collections::BTreeMap;

use crate::slice::Slice;
use crate::sync::Mutex;

/// The database's metadata.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    entries: Mutex<BTreeMap<String, Slice>>,
}

impl Metadata {
    /// Sets or removes an entry; called under the commit lock, or by replay.
    pub(crate) fn set(&self, name: &str, value: Option<&[u8]>) {
        let mut entries = self.entries.lock();
        match value {
            Some(value) => entries.insert(name.to_owned(), Slice::copy_from_slice(value)),
            None => entries.remove(name),
        };
    }

    pub(crate) fn get(&self, name: &str) -> Option<Slice> {
        self.entries.lock().get(name).cloned()
    }

    /// All entries, as an edit carries them.
    pub(crate) fn encoded(&self) -> BTreeMap<String, Vec<u8>> {
        self.entries.lock().iter().map(|(name, value)| (name.clone(), value.to_vec())).collect()
    }

    /// What an edit carried.
    pub(crate) fn from_encoded(entries: &BTreeMap<String, Vec<u8>>) -> Self {
        let entries = entries.iter().map(|(name, value)| (name.clone(), Slice::copy_from_slice(value)));
        Metadata { entries: Mutex::new(entries.collect()) }
    }

    /// All entries whose name begins with `prefix`.
    pub(crate) fn with_prefix(&self, prefix: &str) -> Vec<(String, Slice)> {
        let entries = self.entries.lock();
        let from = entries.range(prefix.to_owned()..);
        from.take_while(|(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}
