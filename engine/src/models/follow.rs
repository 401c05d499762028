//! Followers of the change log of an open database, while it flushes and lets go of log.

use super::explore::explore;
use super::views::{number, open, options};
use crate::changes::Change;
use crate::error::Error;
use crate::fs::SimFileSystem;
use crate::sync::thread;

const WRITES: u64 = 6;

/// A value that makes every two writes fill a log segment.
fn value(n: u64) -> Vec<u8> {
    let mut value = n.to_le_bytes().to_vec();
    value.resize(30 << 10, n as u8);
    value
}

/// A follower gets every batch in order, or learns that it fell too far behind, whatever is flushed and let go of.
#[test]
fn a_follower_gets_every_batch_or_is_told() {
    explore(2000, || {
        let (db, keyspace) = open(options(&SimFileSystem::new()).max_retained_wal_bytes(64 << 10));
        let mut changes = db.changes(1).unwrap();
        let writing = thread::spawn({
            let keyspace = keyspace.clone();
            move || {
                for n in 1..=WRITES {
                    keyspace.put("k", value(n)).unwrap();
                    if n % 2 == 0 {
                        keyspace.flush().unwrap();
                    }
                }
            }
        });
        for n in 1..=WRITES {
            let batch = loop {
                match changes.next() {
                    Some(batch) => break batch,
                    None => drop(changes.wait(std::time::Duration::MAX)),
                }
            };
            match batch {
                Ok(batch) => {
                    assert_eq!(batch.first_seqno(), n);
                    let Change::Put { value: found, .. } = &batch.changes()[0] else { panic!("{batch:?}") };
                    assert_eq!(number(Some(found.clone())), n);
                }
                Err(Error::NotRetained { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        writing.join().unwrap();
        db.close().unwrap();
    });
}
