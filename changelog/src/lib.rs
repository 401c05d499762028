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
//! With the feature `metrics`, rates and lag are told to the facade of that name, as `siltstone_ship_*`,
//! `siltstone_restore_*` and `siltstone_standby_*`.
//!
//! What is not in the log, and so not in a restored database: writes with
//! [`Durability::NoLog`](siltstone::Durability::NoLog), keyspaces that were never written to, keyspace options and
//! metadata.

pub mod codec;
pub mod store;

mod applier;
mod background;
mod error;
mod figures;
mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(feature = "kafka")]
mod kafka;
mod memory;
#[cfg(any(feature = "kafka", feature = "nats"))]
mod names;
#[cfg(feature = "nats")]
mod nats;
mod position;
mod restore;
mod retry;
mod scan;
mod ship;
mod sink;
#[cfg(feature = "snapshot")]
mod snapshot;
mod standby;
mod task;

pub use error::{Error, Result};
pub use file::{CleanerStatus, Compacted, FileSink, FileSinkOptions, FileSource, LogCleaner};
/// The client library, whose consumers and offsets [`KafkaSink::send_offsets`] takes.
#[cfg(feature = "kafka")]
pub use rdkafka;

#[cfg(feature = "kafka")]
pub use kafka::{KafkaOptions, KafkaSink, KafkaSource};
pub use memory::{MemorySink, MemorySource};
#[cfg(feature = "nats")]
pub use nats::{NatsOptions, NatsSink, NatsSource};
pub use position::{MAX_POSITION_BYTES, Position};
pub use restore::{Moment, Progress, Restore, Restored, SOURCE_POSITION};
pub use retry::RetryPolicy;
pub use scan::{LentChange, Numbers, Scan};
pub use ship::{ShipOptions, Shipper, State, Status, ship};
pub use sink::{Batches, Sink, Source};
#[cfg(feature = "snapshot")]
pub use snapshot::{Pruned, SnapshotInfo, SnapshotOptions, SnapshotStore, Uploaded};
pub use standby::{Standby, StandbyState, StandbyStatus};
pub use task::{INPUTS_KEYSPACE, Inputs, Task, TaskOptions, TaskStore};
