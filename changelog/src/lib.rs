//! Ships the mutation log of a [`siltstone`] database to a sink, and restores a database from it.
//!
//! The log that is shipped is the database's own write-ahead log: it is followed, not written twice. What the sink
//! acknowledged is noted in the database itself, so that shipping goes on where it stopped.
//!
//! ```
//! use siltstone_changelog::{FileSink, FileSource, Restore, ShipOptions, ship};
//! # let scratch = tempfile::tempdir().unwrap();
//! # let (local, log, again) = (scratch.path().join("local"), scratch.path().join("log"), scratch.path().join("again"));
//! let db = siltstone::Db::open(&local)?;
//! let shipper = ship(&db, FileSink::open(&log)?, ShipOptions::new())?;
//! db.keyspace("words", Default::default())?.put("silt", "what a stream lays down")?;
//! shipper.stop()?; // everything written so far is in the log, durably
//! db.close()?;
//! std::fs::remove_dir_all(&local).unwrap(); // the machine is lost
//!
//! let (db, _position) = Restore::new(FileSource::open(&log)).into(&again).run()?;
//! assert_eq!(db.keyspace("words", Default::default())?.get("silt")?.unwrap(), "what a stream lays down");
//! # Ok::<(), siltstone_changelog::Error>(())
//! ```
//!
//! What is not in the log, and so not in a restored database: writes with
//! [`Durability::NoLog`](siltstone::Durability::NoLog), keyspaces that were never written to, keyspace options and
//! metadata.

pub mod codec;
pub mod store;

mod error;
mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod memory;
mod position;
mod restore;
mod ship;
mod sink;

pub use error::{Error, Result};
pub use file::{FileSink, FileSinkOptions, FileSource};
pub use memory::{MemorySink, MemorySource};
pub use position::{MAX_POSITION_BYTES, Position};
pub use restore::{Progress, Restore, SOURCE_POSITION};
pub use ship::{RetryPolicy, ShipOptions, Shipper, State, Status, ship};
pub use sink::{Batches, Sink, Source};
