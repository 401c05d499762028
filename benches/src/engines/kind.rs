//! [`EngineKind`]: the names of the engines, and the way from a name to an engine.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{Engine, Floor, Siltstone};
use crate::error::Result;
use crate::machine;

/// Which engine. All have a name, so that every build reads every result; those of others run only in a build with the
/// feature `peers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// This repository's engine
    Siltstone,
    /// RocksDB: the LSM tree in C++ that others are measured by
    #[value(name = "rocksdb")]
    #[serde(rename = "rocksdb")]
    RocksDb,
    /// fjall: an LSM tree in Rust
    Fjall,
    /// redb: a copy-on-write B-tree in Rust
    Redb,
    /// LMDB: a copy-on-write B-tree in mapped memory, in C
    Lmdb,
    /// surrealkv: an LSM tree in Rust with an asynchronous interface
    #[value(name = "surrealkv")]
    #[serde(rename = "surrealkv")]
    SurrealKv,
    /// A map in memory with an appended log file: what an embedded engine's figures are held against
    Floor,
}

/// Something to do with an engine, whichever it is.
pub trait EngineTask {
    /// What comes of it.
    type Output;

    /// Does it with `E`.
    fn run<E: Engine>(self) -> Self::Output;
}

impl EngineKind {
    /// Those that `peers` compares, in its order.
    pub const COMPARED: [EngineKind; 6] = [
        EngineKind::Siltstone,
        EngineKind::RocksDb,
        EngineKind::Fjall,
        EngineKind::Redb,
        EngineKind::Lmdb,
        EngineKind::SurrealKv,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Siltstone => "siltstone",
            EngineKind::RocksDb => "rocksdb",
            EngineKind::Fjall => "fjall",
            EngineKind::Redb => "redb",
            EngineKind::Lmdb => "lmdb",
            EngineKind::SurrealKv => "surrealkv",
            EngineKind::Floor => "floor",
        }
    }

    /// Whether tables can be compressed: the others run only in the profile without compression.
    pub fn compresses(self) -> bool {
        !matches!(self, EngineKind::Redb | EngineKind::Lmdb | EngineKind::Floor)
    }

    /// Its crate and version, and that of the library in it if that is another's.
    pub fn version(self) -> String {
        let crates: &[&str] = match self {
            EngineKind::Siltstone | EngineKind::Floor => return format!("siltstone {}", env!("CARGO_PKG_VERSION")),
            EngineKind::RocksDb => &["rocksdb", "librocksdb-sys"],
            EngineKind::Fjall => &["fjall", "lsm-tree"],
            EngineKind::Redb => &["redb"],
            EngineKind::Lmdb => &["heed", "lmdb-master-sys"],
            EngineKind::SurrealKv => &["surrealkv"],
        };
        let versions = crates.iter().map(|name| format!("{name} {}", machine::crate_version(name).unwrap_or("?")));
        versions.collect::<Vec<_>>().join(", ")
    }

    /// Does `task` with the engine of this name.
    ///
    /// # Errors
    /// [`Error::Settings`](crate::error::Error::Settings) if this build does not have it.
    pub fn run<T: EngineTask>(self, task: T) -> Result<T::Output> {
        match self {
            EngineKind::Siltstone => Ok(task.run::<Siltstone>()),
            EngineKind::Floor => Ok(task.run::<Floor>()),
            #[cfg(feature = "peers")]
            EngineKind::RocksDb => Ok(task.run::<super::peers::RocksDb>()),
            #[cfg(feature = "peers")]
            EngineKind::Fjall => Ok(task.run::<super::peers::Fjall>()),
            #[cfg(feature = "peers")]
            EngineKind::Redb => Ok(task.run::<super::peers::Redb>()),
            #[cfg(feature = "peers")]
            EngineKind::Lmdb => Ok(task.run::<super::peers::Lmdb>()),
            #[cfg(feature = "peers")]
            EngineKind::SurrealKv => Ok(task.run::<super::peers::SurrealKv>()),
            #[cfg(not(feature = "peers"))]
            peer => Err(crate::error::Error::Settings(format!(
                "{} is not in this build: build with --features peers",
                peer.name()
            ))),
        }
    }

    /// Checks that this build has it.
    ///
    /// # Errors
    /// [`Error::Settings`](crate::error::Error::Settings) if not.
    pub fn check(self) -> Result<()> {
        self.notes().map(drop)
    }

    /// What is not like for like about it; see [`Engine::NOTES`].
    ///
    /// # Errors
    /// [`Error::Settings`](crate::error::Error::Settings) if this build does not have it.
    pub fn notes(self) -> Result<&'static str> {
        struct Notes;
        impl EngineTask for Notes {
            type Output = &'static str;

            fn run<E: Engine>(self) -> &'static str {
                E::NOTES
            }
        }
        self.run(Notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_on_the_command_line_in_results_and_in_engines() {
        struct Name;
        impl EngineTask for Name {
            type Output = &'static str;

            fn run<E: Engine>(self) -> &'static str {
                E::NAME
            }
        }
        for &kind in EngineKind::value_variants() {
            assert_eq!(EngineKind::from_str(kind.name(), false), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            if let Ok(name) = kind.run(Name) {
                assert_eq!(name, kind.name());
                assert!(!kind.notes().unwrap().is_empty());
            } else {
                assert!(!cfg!(feature = "peers") && !matches!(kind, EngineKind::Siltstone | EngineKind::Floor));
            }
            assert!(!kind.version().contains('?'), "{}", kind.version());
        }
    }
}
