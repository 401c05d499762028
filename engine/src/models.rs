//! Models: the engine's real code under a checker that decides which thread runs when.
//!
//! With `shuttle` (`--cfg siltstone_shuttle`) whole parts, up to an open database on the simulated filesystem, run under
//! thousands of random schedules; every lock, atomic, wait and call of the filesystem is a place to switch. Every atomic
//! is sequentially consistent there. With `loom` (`--cfg siltstone_loom`) two or three threads run the two protocols
//! that are made of memory orders, the commit queue and the memtable's tree with its index, through every interleaving with at
//! most a set number of preemptions, and every load may answer with any value that its order allows.
//!
//! `tests/models` runs them. `SILTSTONE_SCHEDULES` multiplies the schedules of each shuttle model, `SILTSTONE_SEED`
//! chooses others. A failure prints its schedule; `SILTSTONE_REPLAY` with that text (or `@` and a file that holds it)
//! runs it again, given the name of the model as the test filter.

#[cfg(siltstone_shuttle)]
mod close;
#[cfg(siltstone_shuttle)]
mod commit;
#[cfg(siltstone_shuttle)]
mod explore;
#[cfg(siltstone_shuttle)]
mod follow;
#[cfg(siltstone_shuttle)]
mod log;
#[cfg(siltstone_loom)]
mod orders;
#[cfg(siltstone_shuttle)]
mod views;

use crate::error::Result;
use crate::key::SeqNo;
use crate::options::Durability;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::write::queue::{Commit, Request};

/// Adds to a figure of the reliability tests' table; see `evidence` in the crate of the tests.
fn record(figure: &str, count: u64) {
    use std::io::Write as _;
    println!("evidence: {figure} {count}");
    let Some(path) = std::env::var_os("SILTSTONE_EVIDENCE") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{figure}\t{count}\n").as_bytes()).unwrap();
}

/// A state behind the commit lock that notes what was committed, and by whom it is being changed.
#[derive(Default)]
struct Journal {
    committed: Vec<u8>,
    busy: AtomicBool,
}

impl Commit for Journal {
    fn commit(&mut self, request: &Request) -> Result<SeqNo> {
        // Atomic although it is owned: a place to switch in the middle of the commit.
        assert!(!self.busy.swap(true, Ordering::Relaxed), "two threads commit at the same time");
        self.committed.extend_from_slice(&request.encoded);
        self.busy.store(false, Ordering::Relaxed);
        Ok(self.committed.len() as SeqNo)
    }

    fn in_doubt(&mut self) {
        panic!("a commit panicked");
    }
}

/// A request of one byte.
fn request(byte: u8) -> Request {
    Request { encoded: vec![byte], count: 1, durability: Durability::Buffered, first_seqno: None }
}
