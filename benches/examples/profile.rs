//! One kind of operation on a small database, for a profiler that counts instructions: what is counted does not depend on
//! what else the machine does, so two versions of the engine can be compared.
//!
//! ```sh
//! cargo build --release -p siltstone-benches --example profile
//! valgrind --tool=callgrind --toggle-collect='*measured_get*' target/release/examples/profile get
//! callgrind_annotate callgrind.out.*
//! ```
//!
//! `put`, `get`, `seek` (with the ten entries from there on), `scan` and `reverse`, a scan from the end; only what lies in
//! `measured_..` is counted, and only on the thread that calls. The program prints how many operations that were.

use std::ops::Bound;

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

/// Looks at both, so that neither is left out.
#[inline]
fn is_entry(key: &[u8], value: &[u8]) -> bool {
    !key.is_empty() && !value.is_empty()
}

/// Whether there was a next entry.
#[inline]
fn step(entries: &mut Iter) -> Result<bool> {
    entries.next_with(is_entry).unwrap_or(Ok(false))
}

#[inline(never)]
fn measured_seek(ks: &Keyspace) -> Result<u64> {
    for number in 0..SEEKS {
        let from = key(number * STRIDE % KEYS);
        let mut entries = ks.range::<&[u8]>((Bound::Included(&from[..]), Bound::Unbounded));
        for _ in 0..SEEK_ENTRIES {
            step(&mut entries)?;
        }
    }
    Ok(SEEKS)
}

#[inline(never)]
fn measured_scan(ks: &Keyspace) -> Result<u64> {
    let (mut entries, mut count) = (ks.iter(), 0);
    while step(&mut entries)? {
        count += 1;
    }
    Ok(count)
}

#[inline(never)]
fn measured_reverse(ks: &Keyspace) -> Result<u64> {
    let (mut entries, mut count) = (ks.iter(), 0);
    while entries.next_back_with(is_entry).unwrap_or(Ok(false))? {
        count += 1;
    }
    Ok(count)
}

/// Three runs, always the same: all keys at the bottom, a newer version of every fourth in level 0, a newer one still of
/// every eighth in memory.
fn fill_runs(ks: &Keyspace) -> Result<()> {
    for (step, settle) in [(1, Keyspace::compact as fn(&Keyspace) -> Result<()>), (4, Keyspace::flush), (8, |_| Ok(()))]
    {
        for number in (0..KEYS).step_by(step) {
            ks.put(key(number), [number as u8; 100])?;
        }
        settle(ks)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let what = std::env::args().nth(1).unwrap_or_default();
    let operation: fn(&Keyspace) -> Result<u64> = match &*what {
        "put" => measured_put,
        "get" => measured_get,
        "seek" => measured_seek,
        "scan" => measured_scan,
        "reverse" => measured_reverse,
        _ => {
            eprintln!("there is no operation {what:?}; there are put, get, seek, scan, reverse");
            std::process::exit(2);
        }
    };
    let dir = tempfile::tempdir().map_err(|source| siltstone::Error::InvalidArgument(source.to_string()))?;
    let db = Options::new().open(dir.path())?;
    let ks = db.keyspace("ks", KeyspaceOptions::new().compression(Compression::None))?;
    if what != "put" {
        fill_runs(&ks)?;
        // Blocks are verified when they are first read.
        ks.iter().try_for_each(|entry| entry.map(drop))?;
    }
    println!("{} operations", operation(&ks)?);
    db.close()
}
