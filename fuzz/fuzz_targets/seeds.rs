//! Writes the seeds: files of a small real database, in the form that the targets take. Run it after a change of a
//! format: `fuzz/run seeds`.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use siltstone::fs::SimFileSystem;
use siltstone::{Compression, KeyspaceOptions, Options, WriteBatch};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, compression) in [("plain", Compression::None), ("lz4", Compression::Lz4)] {
        let files = Arc::new(SimFileSystem::new());
        let open = || Options::new().memory_bytes(4 << 20).file_system(files.clone()).open("/db");
        let db = open()?;
        let options = KeyspaceOptions::new().block_bytes(128).compression(compression);
        let layers = db.keyspace("layers", options)?;
        let mut batch = WriteBatch::new();
        for n in 0..40u8 {
            batch.put(&layers, format!("a common beginning {n:03}"), vec![b'v'; usize::from(n)]);
        }
        batch.delete(&layers, "a common beginning 007").metadata("position", Some("40"));
        db.write(batch)?;
        let _snapshot = db.snapshot();
        layers.put("", "the empty key")?;
        layers.put("a common beginning 008", "a second version")?;
        layers.delete("z")?;
        db.flush()?;
        db.drop_keyspace("never there")?;
        db.close()?;
        for path in files.paths() {
            let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let bytes = files.read(&path)?;
            match file.split(['.', '-']).collect::<Vec<_>>()[..] {
                [_, "table"] => {
                    seed("table", name, &[&[1], &bytes[..]].concat())?;
                    if compression == Compression::None {
                        seed("block", name, first_block(&bytes))?;
                    }
                }
                [_, "wal"] => {
                    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                    seed("wal", name, &[&[1], &bytes[..end]].concat())?;
                    seed("batch", name, bytes.get(64 + 48..end).unwrap_or_default())?;
                }
                ["MANIFEST", _] => seed("manifest", name, &[&[1], &bytes[..]].concat())?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// The payload of data block 0: its length is in the first value of the index, whose values all have 12 bytes and lie
/// at its end.
fn first_block(table: &[u8]) -> &[u8] {
    let number =
        |at: usize, width: usize| table[at..at + width].iter().rev().fold(0, |n, &byte| n << 8 | usize::from(byte));
    let footer = table.len() - 60;
    let (index, stored_bytes) = (number(footer + 20, 8), number(footer + 28, 4));
    let values = index + stored_bytes - 5 - 12 * number(index, 4);
    &table[..number(values + 8, 4) - 5]
}

fn seed(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let directory = Path::new("seeds").join(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(name), bytes)
}
