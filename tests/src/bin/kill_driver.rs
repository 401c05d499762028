//! Writes batches from several threads until it is killed: `kill_driver DIRECTORY ORACLE NUMBER...`, where the numbers
//! say with which batch each thread goes on.
//!
//! Before each batch and after its acknowledgement a note goes to the oracle file. A reader checks meanwhile that no
//! half batch shows.

use std::error::Error;
use std::path::Path;
use std::thread;

use siltstone::{Db, Keyspace, WriteBatch};
use siltstone_tests::kill::{
    KEYSPACES, Note, Oracle, THREADS, batch, counter_key, durability, keyspace_options, options,
};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, oracle, next @ ..] = &arguments[..] else { return Err("arguments".into()) };
    let next: Vec<u64> = next.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
    if next.len() != THREADS {
        return Err(format!("{} numbers for {THREADS} threads", next.len()).into());
    }
    let oracle = Oracle::append_to(Path::new(oracle))?;
    let db = options().open(directory)?;
    let keyspaces: Vec<Keyspace> =
        KEYSPACES.iter().map(|name| db.keyspace(name, keyspace_options())).collect::<Result<_, _>>()?;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (db, keyspaces, oracle, next) = (&db, &keyspaces, &oracle, next[thread]);
                scope.spawn(move || write(db, keyspaces, oracle, thread, next))
            })
            .collect();
        scope.spawn(|| read(&db, &keyspaces, &oracle));
        for writer in writers {
            writer.join().map_err(|_| "a writer panicked")??;
        }
        Ok(())
    })
}

/// Writes for ever.
fn write(db: &Db, keyspaces: &[Keyspace], oracle: &Oracle, thread: usize, next: u64) -> Result<(), Failure> {
    for number in next.. {
        let mut writes = WriteBatch::new();
        for (keyspace, key, value) in batch(thread, number) {
            let at = KEYSPACES.iter().position(|name| *name == keyspace).ok_or("no such keyspace")?;
            match value {
                Some(value) => writes.put(&keyspaces[at], key, value),
                None => writes.delete(&keyspaces[at], key),
            };
        }
        oracle.note(Note::Intent { thread, number })?;
        db.write_with(writes, durability(number))?;
        oracle.note(Note::Acknowledged { thread, number })?;
        if number.is_multiple_of(997) {
            keyspaces[thread % 2].flush()?;
        }
    }
    Ok(())
}

/// Compares the two counters of each thread in one snapshot, for ever; they never go back.
fn read(db: &Db, keyspaces: &[Keyspace], oracle: &Oracle) -> Result<(), Failure> {
    let mut seen = [0; THREADS];
    loop {
        let snapshot = db.snapshot();
        for (thread, seen) in seen.iter_mut().enumerate() {
            let key = counter_key(thread);
            let [left, right] = [0, 1].map(|n| snapshot.get(&keyspaces[n], &key));
            let (left, right) = (left?, right?);
            let number = left.as_deref().and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes);
            if left != right || number < *seen {
                oracle.note(Note::Violation { thread, number })?;
            }
            *seen = number;
        }
    }
}
