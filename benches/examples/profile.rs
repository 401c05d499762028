//! One kind of operation on a small database, for a profiler that counts instructions: what is counted does not depend on
//! what else the machine does, so two versions of the engine can be compared.
//!
//! ```sh
//! cargo build --release -p siltstone-benches --example profile
//! valgrind --tool=callgrind --toggle-collect='*measured_get*' target/release/examples/profile get
//! callgrind_annotate callgrind.out.*
//! ```
//!
//! `put`, `get`, `seek` (with the ten entries from there on), `scan` and `reverse`, a scan from the end, of three runs
//! that are always the same; `compacted`, a scan of one. Only what lies in `measured_..` is counted (`measured_scan` for
//! the last), and only on the thread that calls. The program prints how many operations that were.

use std::ops::{Bound, ControlFlow};

use siltstone::{Compression, Iter, Keyspace, KeyspaceOptions, Options, Result};

const KEYS: u64 = 300_000;
const GETS: u64 = 100_000;
const SEEKS: u64 = 20_000;
const SEEK_ENTRIES: u64 = 10;
/// Tells keys apart in an order that is none of theirs; reads go over them in steps of this.
const STRIDE: u64 = 7;

fn key(number: u64) -> [u8; 16] {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (mut key, rest) = ([0; 16], number.wrapping_mul(0xd134_2543_de82_ef95));
    key[..8].copy_from_slice(&mixed.to_be_bytes());
    key[8..].copy_from_slice(&rest.to_be_bytes());
    key
}

#[inline(never)]
fn measured_put(ks: &Keyspace) -> Result<u64> {
    for number in 0..KEYS {
        ks.put(key(number), [number as u8; 100])?;
    }
    Ok(KEYS)
}

#[inline(never)]
fn measured_get(ks: &Keyspace) -> Result<u64> {
    let mut found = 0;
    for number in 0..GETS {
        found += u64::from(ks.get_with(key(number * STRIDE % KEYS), |value| value.len() == 100)?.is_some());
    }
    Ok(found)
}

/// Reads up to `limit` entries; how many.
#[inline]
fn read(mut entries: Iter, backward: bool, limit: u64) -> Result<u64> {
    let mut count = 0;
    let visit = |key: &[u8], value: &[u8]| {
        // Looks at both, so that neither is left out.
        count += u64::from(!key.is_empty() && !value.is_empty());
        if count < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let ended = if backward { entries.visit_back(visit) } else { entries.visit(visit) };
    ended.map(|_| count)
}

#[inline(never)]
fn measured_seek(ks: &Keyspace) -> Result<u64> {
    for number in 0..SEEKS {
        let from = key(number * STRIDE % KEYS);
        read(ks.range::<&[u8]>((Bound::Included(&from[..]), Bound::Unbounded)), false, SEEK_ENTRIES)?;
    }
    Ok(SEEKS)
}

#[inline(never)]
fn measured_scan(ks: &Keyspace) -> Result<u64> {
    read(ks.iter(), false, u64::MAX)
}

#[inline(never)]
fn measured_reverse(ks: &Keyspace) -> Result<u64> {
    read(ks.iter(), true, u64::MAX)
}

/// Up to three runs, always the same: all keys at the bottom, a newer version of every fourth in level 0, a newer one
/// still of every eighth in memory.
fn fill_runs(ks: &Keyspace, runs: usize) -> Result<()> {
    let all = [(1, Keyspace::compact as fn(&Keyspace) -> Result<()>), (4, Keyspace::flush), (8, |_| Ok(()))];
    for (step, settle) in all.into_iter().take(runs) {
        for number in (0..KEYS).step_by(step) {
            ks.put(key(number), [number as u8; 100])?;
        }
        settle(ks)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let what = std::env::args().nth(1).unwrap_or_default();
    let (operation, runs): (fn(&Keyspace) -> Result<u64>, _) = match &*what {
        "put" => (measured_put, 0),
        "get" => (measured_get, 3),
        "seek" => (measured_seek, 3),
        "scan" => (measured_scan, 3),
        "reverse" => (measured_reverse, 3),
        "compacted" => (measured_scan, 1),
        _ => {
            eprintln!("there is no operation {what:?}; there are put, get, seek, scan, reverse, compacted");
            std::process::exit(2);
        }
    };
    let dir = tempfile::tempdir().map_err(|source| siltstone::Error::InvalidArgument(source.to_string()))?;
    let db = Options::new().open(dir.path())?;
    let ks = db.keyspace("ks", KeyspaceOptions::new().compression(Compression::None))?;
    fill_runs(&ks, runs)?;
    // Blocks are verified when they are first read.
    ks.iter().try_for_each(|entry| entry.map(drop))?;
    println!("{} operations", operation(&ks)?);
    db.close()
}
