//! Micro benchmarks: `cargo bench -p siltstone-benches`, or some of them: `cargo bench -p siltstone-benches -- filter`.
//!
//! One file a group, from the engine's single parts (`siltstone::internals::parts`) up to what a program calls. Each
//! checks its answers once before it measures. Keys, values and probes are made beforehand, so that the harness neither
//! allocates nor computes them while it measures; what a benchmark needs is made when the first of its group runs.
//!
//! Times are per operation: per put, per step of a cursor. Where only a whole pass makes sense (a memtable is filled from
//! empty to full), whole passes are timed and divided.

#![allow(missing_docs)] // criterion_group! makes an undocumented function

mod block;
mod cache;
mod checksum;
mod commit;
mod compression;
mod filter;
mod fixture;
mod get;
mod index;
mod log;
mod memtable;
mod merge;
mod scan;
mod store;
mod timing;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = micro;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets =
        checksum::bench, compression::bench, filter::bench, index::bench, block::bench, cache::bench, memtable::bench,
        merge::bench, log::bench, get::bench, scan::bench, commit::bench
}
criterion_main!(micro);
