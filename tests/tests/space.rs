//! Space is given back: deleting half of the data, or overwriting all of it, ends near the size of what is live,
//! without anybody asking for a compaction.

use std::time::{Duration, Instant};

use siltstone::{Compression, Db, Keyspace, KeyspaceOptions, Options};

const COUNT: u64 = 60_000;
const VALUE_BYTES: usize = 100;
const KEY_BYTES: usize = 8;

fn key(n: u64) -> [u8; KEY_BYTES] {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

fn filled(dir: &std::path::Path) -> siltstone::Result<(Db, Keyspace)> {
    let db = Options::new().memory_bytes(4 << 20).open(dir)?;
    let ks = db.keyspace("a", KeyspaceOptions::new().compression(Compression::None))?;
    (0..COUNT).try_for_each(|n| ks.put(key(n), [1; VALUE_BYTES]).map(drop))?;
    Ok((db, ks))
}

/// Bytes of all tables, once nothing is due any more, and no other table is left in `dir`.
fn settled_bytes(db: &Db, dir: &std::path::Path) -> siltstone::Result<u64> {
    db.flush()?;
    let tables = || db.metrics().keyspaces[0].amplification.levels.iter().map(|level| level.tables).sum::<u64>();
    let is_table = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "table");
    let files = || std::fs::read_dir(dir).unwrap().map(Result::unwrap).filter(is_table).count() as u64;
    // A background thread may still look at an old version for an instant; on a busy machine that takes a while.
    let began = Instant::now();
    db.wait_for_compaction()?;
    while files() != tables() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
        db.wait_for_compaction()?;
    }
    assert_eq!(files(), tables(), "obsolete tables are left");
    Ok(db.metrics().keyspaces[0].amplification.levels.iter().map(|level| level.file_bytes).sum())
}

#[test]
fn deleting_half_of_the_data_gives_its_space_back() -> siltstone::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = filled(dir.path())?;
    (0..COUNT).step_by(2).try_for_each(|n| ks.delete(key(n)).map(drop))?;
    let bytes = settled_bytes(&db, dir.path())?;
    let live_bytes = COUNT / 2 * (KEY_BYTES + VALUE_BYTES) as u64;
    assert!(bytes as f64 <= 1.3 * live_bytes as f64, "{bytes} for {live_bytes} live:\n{}", db.metrics());
    assert_eq!(ks.iter().count() as u64, COUNT / 2);
    Ok(())
}

#[test]
fn deleting_everything_leaves_next_to_nothing() -> siltstone::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = filled(dir.path())?;
    (0..COUNT).try_for_each(|n| ks.delete(key(n)).map(drop))?;
    let bytes = settled_bytes(&db, dir.path())?;
    assert!(bytes < COUNT * KEY_BYTES as u64 / 4, "{bytes} left:\n{}", db.metrics());
    assert_eq!(ks.iter().count(), 0);
    Ok(())
}

#[test]
fn overwriting_everything_again_and_again_does_not_grow() -> siltstone::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let (db, ks) = filled(dir.path())?;
    for round in 2..8 {
        (0..COUNT).try_for_each(|n| ks.put(key(n), [round; VALUE_BYTES]).map(drop))?;
    }
    let bytes = settled_bytes(&db, dir.path())?;
    let live_bytes = COUNT * (KEY_BYTES + VALUE_BYTES) as u64;
    // Level 0 may hold up to its trigger of memtables besides the levels.
    let level0_bytes = 4 * (1 << 20);
    assert!(
        bytes as f64 <= 1.3 * live_bytes as f64 + level0_bytes as f64,
        "{bytes} for {live_bytes}:\n{}",
        db.metrics()
    );
    ks.compact()?;
    let bytes = settled_bytes(&db, dir.path())?;
    assert!(bytes as f64 <= 1.15 * live_bytes as f64, "compacted to {bytes} for {live_bytes} live");
    Ok(())
}
