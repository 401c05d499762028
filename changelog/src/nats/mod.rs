//! A log in NATS JetStream: one stream, and in it a subject for each keyspace.
//!
//! A message holds whole batches ([`message`]): those of one keyspace go to its subject, those over several to a subject
//! of their own, so that a batch is there whole or not at all. One that is larger than a message may be comes in parts,
//! which are only read once the last one is there. All of it is one stream, so there is one order.
//!
//! Each message says which sequence number of the stream it has to follow. A writer that opens the log writes a *claim*
//! first: whatever an earlier writer sends after that no longer follows what it expects, and is refused. Messages also
//! carry ids, by which the server leaves out what comes twice because its acknowledgement was lost.
//!
//! JetStream does not compact by key. What the stream's limits let go of (age, bytes) has to be in a snapshot.

mod client;
mod message;
mod options;
mod place;
mod sink;
mod source;

pub use options::NatsOptions;
pub use sink::NatsSink;
pub use source::NatsSource;
