//! The write path: a batch falls through here into the log and the memtables.
//!
//! A caller encodes its batch, takes the commit lock, appends to the log, inserts into the memtables and publishes the
//! sequence number, all on its own thread. Callers that find the lock taken queue up, and whoever holds it commits
//! their batches too.

pub(crate) mod commit;
pub(crate) mod pressure;
pub(crate) mod queue;
pub(crate) mod state;
