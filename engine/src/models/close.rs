//! Closing beside writers and readers.

use super::explore::explore;
use super::views::{number, open, options};
use crate::error::Error;
use crate::fs::SimFileSystem;
use crate::sync::thread;

/// A write beside a close is done, and then it is there after a reopen, or refused as `Closed`; an iterator that is
/// under way goes on; nothing hangs.
#[test]
fn a_close_comes_before_or_after_each_write() {
    explore(400, || {
        let sim = SimFileSystem::new();
        let (db, keyspace) = open(options(&sim));
        keyspace.put("old", 1u64.to_le_bytes()).unwrap();
        keyspace.flush().unwrap();
        let writing = thread::spawn({
            let keyspace = keyspace.clone();
            move || {
                let mut last = 0;
                for n in 1..=4u64 {
                    match keyspace.put("k", n.to_le_bytes()) {
                        Ok(_) => last = n,
                        Err(Error::Closed) => break,
                        Err(error) => panic!("{error}"),
                    }
                    match keyspace.flush() {
                        Ok(()) | Err(Error::Closed) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                last
            }
        });
        let reading = thread::spawn({
            let keyspace = keyspace.clone();
            move || match keyspace.iter().collect::<Result<Vec<_>, _>>() {
                Ok(entries) => assert!(entries.iter().any(|(key, _)| key == "old")),
                Err(Error::Closed) => {}
                Err(error) => panic!("{error}"),
            }
        });
        db.close().unwrap();
        let last = writing.join().unwrap();
        reading.join().unwrap();
        let (_db, keyspace) = open(options(&sim));
        assert_eq!(number(keyspace.get("k").unwrap()), last, "acknowledged, and what was refused is not there");
    });
}
