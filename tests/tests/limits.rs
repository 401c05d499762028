//! Many tables, many keyspaces, a log that would grow: what is bounded stays bounded.

use std::sync::Arc;
use std::time::Instant;

use siltstone::fs::SimFileSystem;
use siltstone::{Compression, KeyspaceOptions, Options, Result};
use siltstone_tests::options::tiny;

const MAX_OPEN_TABLES: usize = 64;

/// Opening looks at no table, and reading keeps a bounded number of them open.
#[test]
fn ten_thousand_tables() -> Result<()> {
    let sim = Arc::new(SimFileSystem::new());
    let options = || Options::new().memory_bytes(16 << 20).max_open_tables(MAX_OPEN_TABLES).file_system(sim.clone());
    let keyspace = KeyspaceOptions::new().target_table_bytes(4 << 10).compression(Compression::None);
    let db = options().open("/db")?;
    let ks = db.keyspace("a", keyspace.clone())?;
    let count = 32_000u32;
    for n in 0..count {
        ks.put(n.to_be_bytes(), vec![n as u8; 2000])?;
    }
    ks.compact()?;
    let tables: u64 = ks.metrics().amplification.levels.iter().map(|level| level.tables).sum();
    drop((ks, db));
    let started = Instant::now();
    let db = options().open("/db")?;
    println!("{tables} tables opened in {:?}", started.elapsed());
    assert!(tables >= 10_000, "{tables}");
    assert_eq!(db.metrics().open_tables, 0, "opening opens no table");
    let ks = db.keyspace("a", keyspace)?;
    for n in (0..count).step_by(2) {
        assert_eq!(ks.get_with(n.to_be_bytes(), <[u8]>::len)?, Some(2000));
        let open = db.metrics().open_tables;
        assert!(n % 1000 != 0 || open <= MAX_OPEN_TABLES as u64, "{open} tables open");
    }
    assert!(db.metrics().open_tables > 0);
    assert_eq!(ks.iter().count(), count as usize);
    let metrics = db.metrics();
    assert!(metrics.open_tables <= MAX_OPEN_TABLES as u64, "{} tables open", metrics.open_tables);
    Ok(())
}

#[test]
fn a_thousand_keyspaces() -> Result<()> {
    let sim = Arc::new(SimFileSystem::new());
    let options = || tiny().memtable_bytes(1 << 20).file_system(sim.clone());
    let db = options().open("/db")?;
    let count = 1000;
    let name = |n: u32| format!("keyspace {n}");
    let keyspaces: Vec<_> = (0..count).map(|n| db.keyspace(name(n), KeyspaceOptions::new())).collect::<Result<_>>()?;
    let empty_bytes = db.metrics().memtable_bytes;
    assert!(empty_bytes <= u64::from(count) * (4 << 10), "{empty_bytes} bytes for {count} empty memtables");
    for (n, keyspace) in (0u32..).zip(&keyspaces) {
        keyspace.put("name", name(n))?;
    }
    db.flush()?;
    drop((keyspaces, db));
    let db = options().open("/db")?;
    assert_eq!(db.keyspaces().len(), count as usize);
    for n in 0..count {
        assert_eq!(db.keyspace(name(n), KeyspaceOptions::new())?.get("name")?.unwrap(), *name(n));
    }
    Ok(())
}

/// A keyspace that is written once must not keep the log of all that is written elsewhere.
#[test]
fn a_rare_keyspace_does_not_pin_the_log() -> Result<()> {
    const MAX_WAL_BYTES: u64 = 256 << 10;
    let sim = Arc::new(SimFileSystem::new());
    let db = tiny().max_wal_bytes(MAX_WAL_BYTES).file_system(sim.clone()).open("/db")?;
    let (rare, busy) = (db.keyspace("rare", KeyspaceOptions::new())?, db.keyspace("busy", KeyspaceOptions::new())?);
    rare.put("k", "v")?;
    let mut most_bytes = 0;
    for n in 0..20_000u32 {
        busy.put((n % 500).to_be_bytes(), vec![0; 400])?;
        if n % 1000 == 999 {
            db.wait_for_compaction()?;
            most_bytes = most_bytes.max(db.metrics().wal_bytes);
        }
    }
    assert_eq!(rare.metrics().memtable_entries, 0, "it was flushed");
    assert_eq!(rare.get("k")?.unwrap(), "v");
    // Releasing comes right after the flush; a few segments more may still be there.
    assert!(most_bytes <= 4 * MAX_WAL_BYTES, "{most_bytes} bytes of log");
    println!("at most {most_bytes} bytes of log, limit {MAX_WAL_BYTES}");
    Ok(())
}
