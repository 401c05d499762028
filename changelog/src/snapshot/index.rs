//! What a snapshot consists of.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use siltstone::SeqNo;

use crate::error::{Error, Result};

/// The version this release writes, and the newest it reads.
const VERSION: u32 = 1;

/// A snapshot, as [`SnapshotStore::list`](super::SnapshotStore::list) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Names it: later ones come later in the order of text.
    pub id: String,
    /// When it was made, by the clock of the machine that made it.
    pub created: SystemTime,
    /// The last sequence number in it.
    pub seqno: SeqNo,
    /// The length of all its files, in bytes.
    pub bytes: u64,
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Hexadecimal.
    pub(super) sha256: String,
}

impl FileEntry {
    /// The name of its blob.
    pub(super) fn blob(&self) -> String {
        format!("{}-{}", self.sha256, self.bytes)
    }
}

/// The index object: JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    version: u32,
    pub(super) created_ms: u64,
    pub(super) seqno: SeqNo,
    pub(super) files: Vec<FileEntry>,
}

impl Index {
    pub(super) fn new(created_ms: u64, seqno: SeqNo, files: Vec<FileEntry>) -> Self {
        Index { version: VERSION, created_ms, seqno, files }
    }

    /// Its name: the time first, so that names sort by age.
    pub(super) fn id(&self) -> String {
        format!("{:016}-{:020}", self.created_ms, self.seqno)
    }

    pub(super) fn info(&self) -> SnapshotInfo {
        SnapshotInfo {
            id: self.id(),
            created: SystemTime::UNIX_EPOCH + Duration::from_millis(self.created_ms),
            seqno: self.seqno,
            bytes: self.files.iter().map(|file| file.bytes).sum(),
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|error| Error::Foreign { source: Box::new(error), retryable: false })
    }

    /// # Errors
    /// `UnsupportedVersion`, `Corruption`: a name that would leave the directory is one too.
    pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |reason: String| Error::corruption(name.as_ref(), 0, reason);
        let Versioned { version } = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if version > VERSION {
            let reason = format!("format version {version}, this release reads up to {VERSION}");
            return Err(Error::UnsupportedVersion { file: name.into(), reason });
        }
        let index: Index = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let is_plain = |file: &FileEntry| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !file.name.is_empty() && !file.name.starts_with('.') && file.name.bytes().all(plain)
        };
        match index.files.iter().find(|file| !is_plain(file)) {
            None => Ok(index),
            Some(file) => Err(damaged(format!("a file is called {:?}", file.name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str) -> Index {
        let file = FileEntry { name: name.to_owned(), bytes: 5, sha256: "ab".to_owned() };
        Index::new(1_700_000_000_000, 7, vec![file])
    }

    #[test]
    fn an_index_round_trips_and_damage_has_a_reason() {
        let bytes = index("000001.table").encode().unwrap();
        let decoded = Index::decode("here", &bytes).unwrap();
        assert_eq!(decoded, index("000001.table"));
        assert_eq!((decoded.info().seqno, decoded.info().bytes, decoded.files[0].blob()), (7, 5, "ab-5".to_owned()));
        for len in 0..bytes.len() - 1 {
            assert!(matches!(Index::decode("here", &bytes[..len]), Err(Error::Corruption { .. })), "{len}");
        }
        assert!(matches!(Index::decode("here", b"{\"version\": 2}"), Err(Error::UnsupportedVersion { .. })));
        for bad in ["", "../CURRENT", "a/b", ".hidden", "a b"] {
            let bytes = index(bad).encode().unwrap();
            assert!(matches!(Index::decode("here", &bytes), Err(Error::Corruption { .. })), "{bad:?}");
        }
    }
}
