//! The engines that are compared, behind one trait.

mod floor;
mod kind;
#[cfg(feature = "peers")]
mod peers;
mod siltstone;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::settings::Settings;

pub use floor::Floor;
pub use kind::{EngineKind, EngineTask};
pub use siltstone::Siltstone;

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Reverse,
}

/// What an engine says of itself; it only adds to what is measured from outside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accounts {
    /// Bytes written into logs and tables since it was opened.
    pub written_bytes: Option<u64>,
    /// Bytes of live tables, logs not included.
    pub table_bytes: Option<u64>,
    /// How long writers were held back since it was opened, all threads together, in nanoseconds.
    pub stall_ns: Option<u64>,
    /// What each level holds and has cost, from level 0 down; empty of engines without levels.
    pub levels: Vec<LevelShape>,
    /// Its own figures, as it prints them.
    pub details: String,
}

/// One level of an LSM tree: what it holds, and what flushes and compactions into it cost since the store was opened.
/// Counters an engine does not tell are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelShape {
    /// Its number, 0 at the top.
    pub level: u32,
    /// Tables.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes written into it.
    pub written_bytes: u64,
    /// Bytes read to write those.
    pub read_bytes: u64,
}

/// A key-value engine under test. Threads share one.
pub trait Engine: Sync + Sized {
    /// Its name on the command line and in reports.
    const NAME: &'static str;

    /// What is not like for like about it, as Markdown: one paragraph, or a list. Reports show it.
    const NOTES: &'static str;

    /// Opens an empty store in `dir`, which exists and is empty.
    ///
    /// # Errors
    /// What the engine says.
    fn open(dir: &Path, settings: &Settings) -> Result<Self>;

    /// Opens the store that is in `dir`, also after its process was killed.
    ///
    /// # Errors
    /// What the engine says.
    fn reopen(dir: &Path, settings: &Settings) -> Result<Self>;

    /// Puts one value, with the durability of the settings.
    ///
    /// # Errors
    /// What the engine says.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Puts all of `puts` in one atomic batch, with the durability of the settings.
    ///
    /// # Errors
    /// What the engine says.
    fn put_batch(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;

    /// Fills the store, which is empty, with `entries` (ascending keys, each once) by the fastest way that the engine
    /// documents; how many there were. They survive power loss when it returns, whatever the settings say.
    ///
    /// # Errors
    /// What the engine says.
    fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl Iterator<Item = (K, V)>) -> Result<u64>;

    /// Deletes one key.
    ///
    /// # Errors
    /// What the engine says.
    fn delete(&self, key: &[u8]) -> Result<()>;

    /// Hands the value of `key` to `visit`, if it has one.
    ///
    /// # Errors
    /// What the engine says.
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(&[u8]) -> R) -> Result<Option<R>>;

    /// Reads the value of `key`, hands it to `change`, which writes the new one into an empty buffer, and puts that: a
    /// get and a put without a transaction, as workload F of YCSB does it.
    ///
    /// # Errors
    /// What the engine says.
    fn update(&self, key: &[u8], change: impl FnOnce(Option<&[u8]>, &mut Vec<u8>)) -> Result<()> {
        let mut value = Vec::new();
        let mut change = Some(change);
        self.get(key, |old| change.take().map(|change| change(Some(old), &mut value)))?;
        // Still there if the key is not.
        if let Some(change) = change {
            change(None, &mut value);
        }
        self.put(key, &value)
    }

    /// Hands up to `limit` entries to `visit`, from `from` on (inclusive; without it from the end where `direction`
    /// begins), until it fails; how many there were.
    ///
    /// # Errors
    /// What the engine or `visit` says.
    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: usize,
        visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<u64>;

    /// Writes into tables what is in memory only and in a log. Nothing to do for an engine whose writes go to their place
    /// at once.
    ///
    /// # Errors
    /// What the engine says.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Waits until nothing works in the background.
    ///
    /// # Errors
    /// What the engine says.
    fn settle(&self) -> Result<()>;

    /// What the engine says of itself.
    fn accounts(&self) -> Accounts;

    /// Closes the store.
    ///
    /// # Errors
    /// What the engine says.
    fn close(self) -> Result<()>;
}

#[cfg(test)]
mod tests;
