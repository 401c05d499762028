//! The mutation log against the events: every batch of it is one logged event, in the order of its thread, none is
//! missing and none is there twice.

use siltstone::{Change, ChangeBatch, SeqNo};

use super::plan::{CHURNED, CHURNER, CYCLE, Event, SHARED, THREADS, counter_key, owner};
use crate::state::{Write, short};

/// Checks batch after batch. Numbers may be left out between them: those of writes without the log.
#[derive(Clone, Debug)]
pub struct Follower {
    seed: u64,
    last_seqno: SeqNo,
    /// The last logged event of each thread; `None`: not known yet.
    last: [Option<u64>; THREADS],
}

impl Follower {
    /// From the first change of the life of `seed` on.
    pub fn from_start(seed: u64) -> Self {
        Follower { seed, last_seqno: 0, last: [Some(0); THREADS] }
    }

    /// From any change on: the first one of each thread is believed.
    pub fn from_middle(seed: u64) -> Self {
        Follower { seed, last_seqno: 0, last: [None; THREADS] }
    }

    /// The number of the last change.
    pub fn last_seqno(&self) -> SeqNo {
        self.last_seqno
    }

    /// The next batch of the log.
    ///
    /// # Errors
    /// What does not fit.
    pub fn feed(&mut self, batch: &ChangeBatch) -> Result<(), String> {
        let wrong = |reason: String| Err(format!("the log at {}: {reason}", batch.first_seqno()));
        if batch.first_seqno() <= self.last_seqno {
            return wrong(format!("{} came before it", self.last_seqno));
        }
        self.last_seqno = batch.last_seqno();
        if matches!(batch.changes(), [Change::DropKeyspace { .. }]) && self.last[CHURNER].is_none() {
            // Its number is known after the churner's next batch.
            return Ok(());
        }
        let Some((thread, number)) = self.event_of(batch) else {
            return wrong(format!("nobody writes {batch:?}"));
        };
        if let Some(last) = self.last[thread] {
            let expected = next_logged(self.seed, thread, last);
            if number != expected {
                return wrong(format!("event {number} of thread {thread} instead of {expected}"));
            }
        }
        self.last[thread] = Some(number);
        match (Event::of(self.seed, thread, number), batch.changes()) {
            (Event::Drop, [Change::DropKeyspace { keyspace }]) if *keyspace == *CHURNED => {}
            (Event::Write { writes, .. }, changes) => {
                let found: Vec<Write> = changes.iter().map_while(write_of).collect();
                if found.len() != changes.len() || found != writes {
                    return wrong(format!("event {number} of thread {thread} was written as {}", show(&writes)));
                }
            }
            (event, changes) => return wrong(format!("{changes:?} instead of {event:?}")),
        }
        Ok(())
    }

    /// Checks that the log ended with the events that `numbers` name, the last ones of each thread.
    ///
    /// # Errors
    /// What is missing or too much.
    pub fn check_end(&self, numbers: [u64; THREADS]) -> Result<(), String> {
        for (thread, (&number, last)) in numbers.iter().zip(self.last).enumerate() {
            let expected = (1..=number).rev().find(|&number| Event::of(self.seed, thread, number).is_logged());
            if last.is_some_and(|last| last != expected.unwrap_or(0)) {
                return Err(format!("the log ends with event {last:?} of thread {thread} instead of {expected:?}"));
            }
        }
        Ok(())
    }

    /// The event that a batch says it is.
    fn event_of(&self, batch: &ChangeBatch) -> Option<(usize, u64)> {
        match batch.changes().first()? {
            Change::Put { keyspace, key, value } if *keyspace == *SHARED[0] => {
                let (thread, _) = owner(key)?;
                let number = u64::from_be_bytes(value.as_ref().try_into().ok()?);
                (*key == counter_key(thread) && number > 0).then_some((thread, number))
            }
            // A drop carries no number; it ends the cycle that its thread is in.
            Change::DropKeyspace { .. } => {
                let next = (self.last[CHURNER]? + 1).next_multiple_of(CYCLE);
                Some((CHURNER, next))
            }
            _ => None,
        }
    }
}

/// The first logged event of a thread after `number`.
fn next_logged(seed: u64, thread: usize, number: u64) -> u64 {
    (number + 1..).find(|&number| Event::of(seed, thread, number).is_logged()).unwrap_or(u64::MAX)
}

fn write_of(change: &Change) -> Option<Write> {
    match change {
        Change::Put { keyspace, key, value } => Some((keyspace.to_string(), key.to_vec(), Some(value.to_vec()))),
        Change::Delete { keyspace, key } => Some((keyspace.to_string(), key.to_vec(), None)),
        _ => None,
    }
}

fn show(writes: &[Write]) -> String {
    let one = |(keyspace, key, value): &Write| {
        format!("{keyspace}/{} = {}", key.escape_ascii(), value.as_ref().map_or("deleted".to_owned(), |v| short(v)))
    };
    writes.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The batch of an event, from `first_seqno` on.
    fn batch(thread: usize, number: u64, first_seqno: SeqNo) -> ChangeBatch {
        let change = |(keyspace, key, value): &Write| {
            let keyspace = keyspace.as_str().into();
            match value {
                Some(value) => Change::Put { keyspace, key: key.clone().into(), value: value.clone().into() },
                None => Change::Delete { keyspace, key: key.clone().into() },
            }
        };
        let changes = match Event::of(1, thread, number) {
            Event::Write { writes, .. } => writes.iter().map(change).collect(),
            _ => vec![Change::DropKeyspace { keyspace: CHURNED.into() }],
        };
        ChangeBatch::new(first_seqno, changes).unwrap()
    }

    #[test]
    fn only_whole_events_in_their_order_pass() {
        let mut follower = Follower::from_start(1);
        let first = batch(0, 1, 1);
        assert_eq!(follower.feed(&first), Ok(()));
        let next = first.last_seqno() + 1;
        assert!(follower.clone().feed(&batch(0, 2, 1)).is_err(), "numbers go back");
        assert!(follower.clone().feed(&batch(0, 3, next)).is_err(), "one is missing");
        assert!(follower.clone().feed(&batch(0, 1, next)).is_err(), "one is there twice");
        let half = ChangeBatch::new(next, batch(0, 2, next).changes()[..2].to_vec()).unwrap();
        assert!(follower.clone().feed(&half).is_err(), "half a batch");
        assert_eq!(follower.feed(&batch(0, 2, next + 5)), Ok(()));
        assert_eq!(follower.feed(&batch(CHURNER, 2, next + 100)), Ok(()), "creations are not in the log");
        assert!(follower.clone().feed(&batch(CHURNER, CYCLE, next + 200)).is_err(), "a drop that comes too early");
        assert_eq!(follower.check_end([2, 0, 0, 2, 3]), Ok(()));
        assert!(follower.check_end([3, 0, 0, 2, 0]).is_err());
        assert!(follower.check_end([1, 0, 0, 2, 0]).is_err());
        assert_eq!(Follower::from_middle(1).feed(&batch(0, 7, 50)), Ok(()));
    }
}
