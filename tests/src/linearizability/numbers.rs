//! Sequence numbers against real time: a call that was answered before another began has the smaller number, numbers
//! have no gaps, and a snapshot holds what was written up to its number, no more and no less.

use siltstone::SeqNo;

use super::{KeyNumber, ValueNumber};

/// The sequence numbers of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// A write's: the numbers of its operations.
    Written {
        /// Of the first.
        first: SeqNo,
        /// Of the last, which is the answer.
        last: SeqNo,
    },
    /// A snapshot's.
    Seen {
        /// Its number.
        at: SeqNo,
    },
}

impl Numbers {
    /// Where the call stands in the order of numbers; a snapshot comes after the write whose number it has.
    fn place(self) -> (SeqNo, bool) {
        match self {
            Numbers::Written { last, .. } => (last, false),
            Numbers::Seen { at } => (at, true),
        }
    }
}

/// A call that learned sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The moment before the call.
    pub invoked: u64,
    /// The moment after the answer.
    pub responded: u64,
    /// The numbers.
    pub numbers: Numbers,
    /// What was written, or what the snapshot holds of every key.
    pub entries: Vec<(KeyNumber, ValueNumber)>,
}

/// Checks the numbers of all writes between `before` and `last`, and of snapshots beside them.
///
/// # Errors
/// What does not fit.
pub fn check(initial: &[ValueNumber], before: SeqNo, last: SeqNo, calls: &[Numbered]) -> Result<(), String> {
    let mut calls: Vec<&Numbered> = calls.iter().collect();
    // Snapshots of the same number in the order of time, since either may come first.
    calls.sort_by_key(|call| (call.numbers.place(), call.invoked));
    let (mut seqno, mut values) = (before, initial.to_vec());
    let mut latest: Option<&Numbered> = None;
    for call in calls {
        if let Some(latest) = latest.filter(|latest| latest.invoked > call.responded) {
            return Err(format!("{call:?} was answered before {latest:?} began, but has the larger number"));
        }
        latest = latest.filter(|latest| latest.invoked > call.invoked).or(Some(call));
        match call.numbers {
            Numbers::Written { first, last } => {
                if first != seqno + 1 {
                    return Err(format!("{call:?} follows the number {seqno}"));
                }
                seqno = last;
                call.entries.iter().for_each(|&(key, value)| values[key] = value);
            }
            Numbers::Seen { at } if at != seqno => {
                return Err(format!("{call:?} is at the number {at}, in the middle of a batch or past {seqno}"));
            }
            Numbers::Seen { .. } => {
                if let Some(entry) = call.entries.iter().find(|&&(key, value)| values[key] != value) {
                    return Err(format!("{call:?} found {entry:?}, but what was written up to there is {values:?}"));
                }
            }
        }
    }
    if seqno == last { Ok(()) } else { Err(format!("the last number is {last}, but the writes end at {seqno}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(invoked: u64, responded: u64, first: SeqNo, entries: &[(KeyNumber, ValueNumber)]) -> Numbered {
        let numbers = Numbers::Written { first, last: first + entries.len() as SeqNo - 1 };
        Numbered { invoked, responded, numbers, entries: entries.to_vec() }
    }

    fn seen(invoked: u64, responded: u64, at: SeqNo, value: ValueNumber) -> Numbered {
        Numbered { invoked, responded, numbers: Numbers::Seen { at }, entries: vec![(0, value)] }
    }

    #[test]
    fn numbers_that_go_against_time_have_gaps_or_show_something_else_are_found() {
        let run = |calls: &[Numbered], last| check(&[0, 0], 0, last, calls).is_ok();
        let two = [written(1, 2, 1, &[(0, 1), (1, 1)]), written(3, 4, 3, &[(0, 2)])];
        assert!(run(&two, 3));
        assert!(run(&[two[0].clone(), two[1].clone(), seen(3, 5, 2, 1), seen(5, 6, 3, 2), seen(7, 8, 3, 2)], 3));
        assert!(!run(&two, 4), "a number that no write has");
        assert!(!run(&[two[0].clone(), written(3, 4, 4, &[(0, 2)])], 4), "a gap");
        assert!(!run(&[written(1, 2, 2, &[(0, 1)]), written(3, 4, 1, &[(0, 2)])], 2), "against time");
        assert!(!run(&[two[0].clone(), two[1].clone(), seen(5, 6, 2, 1)], 3), "a snapshot of the past");
        assert!(!run(&[two[0].clone(), two[1].clone(), seen(3, 4, 1, 1)], 3), "half a batch");
        assert!(!run(&[two[0].clone(), two[1].clone(), seen(3, 4, 2, 2)], 3), "a write from after it");
    }
}
