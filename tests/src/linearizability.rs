//! Whether a recorded history of concurrent calls could have happened one call after the other: linearizability
//! (Herlihy, Wing, TOPLAS 1990).
//!
//! Calls are writes and reads of a few keys at once, each with the moments of its invocation and its response. The
//! checker searches for an order that keeps to real time and in which every read finds what was written last (Wing,
//! Gong, JPDC 1993, with the memory of states seen of Lowe, CPE 2017). Each thread makes one call at a time, so what was
//! put in order so far is a number a thread, and the search is as wide as there are threads, not calls.
//!
//! Keys that no call touches together are checked apart, which is sound: linearizability is local.

pub mod isolation;
pub mod numbers;
pub mod record;

use std::collections::HashSet;
use std::fmt;

use record::Mix;

/// How many histories of each mix a round records.
const ROUND_HISTORIES: u64 = 20;

/// One bounded piece of work, of some 5 to 20 seconds: histories of both mixes and every anomaly, each with a
/// configuration of its own. Counts what it did as evidence.
///
/// # Panics
/// On the first violation, with what is needed to run it again.
pub fn round(seed: u64) {
    for (at, mix) in [Mix::Single, Mix::Several, Mix::Several].into_iter().enumerate() {
        let calls = record::histories(seed << 4 | at as u64, mix, ROUND_HISTORIES);
        crate::evidence::record("linearizable_histories", ROUND_HISTORIES);
        crate::evidence::record("linearizable_operations", calls);
    }
    isolation::bank(seed);
    isolation::lost_update(seed);
    isolation::phantom(seed);
    crate::evidence::record("wrong", 0);
}

/// A key, by its number.
pub type KeyNumber = usize;

/// A value, by a number that no other write uses; 0 is that of an absent key.
pub type ValueNumber = u32;

/// What a call did to some keys, or found in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// All at once.
    Write(Vec<(KeyNumber, ValueNumber)>),
    /// All at the same moment.
    Read(Vec<(KeyNumber, ValueNumber)>),
}

impl Effect {
    /// The keys that the call is about, with the values.
    pub fn entries(&self) -> &[(KeyNumber, ValueNumber)] {
        match self {
            Effect::Write(entries) | Effect::Read(entries) => entries,
        }
    }
}

/// One call that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was called, for messages.
    pub name: &'static str,
    /// The moment before the call; moments come from one counter.
    pub invoked: u64,
    /// The moment after the answer.
    pub responded: u64,
    /// What it did.
    pub effect: Effect,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{} {} {:?}", self.invoked, self.responded, self.name, self.effect)
    }
}

/// The calls of every thread, each thread's in its order, and the values before the first of them.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// The value of each key before.
    pub initial: Vec<ValueNumber>,
    /// The calls of each thread.
    pub threads: Vec<Vec<Call>>,
}

impl Calls {
    /// How many calls there are.
    pub fn len(&self) -> usize {
        self.threads.iter().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Searches for an order of the calls that explains every read.
    ///
    /// # Errors
    /// Where the search came farthest: the values there, and the calls of which none can come next.
    pub fn check(&self) -> Result<(), String> {
        self.components().iter().try_for_each(|keys| self.restricted_to(keys).search())
    }

    /// The keys in groups that no call connects.
    fn components(&self) -> Vec<Vec<KeyNumber>> {
        let mut group: Vec<usize> = (0..self.initial.len()).collect();
        for call in self.threads.iter().flatten() {
            let entries = call.effect.entries();
            for pair in entries.windows(2) {
                let (from, to) = (group[pair[0].0], group[pair[1].0]);
                group.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
            }
        }
        let keys_of = |number| (0..group.len()).filter(|&key| group[key] == number).collect::<Vec<_>>();
        (0..group.len()).map(keys_of).filter(|keys| !keys.is_empty()).collect()
    }

    /// The calls on `keys` alone; no call is cut in two.
    fn restricted_to(&self, keys: &[KeyNumber]) -> Calls {
        let concerns = |call: &&Call| call.effect.entries().iter().any(|(key, _)| keys.contains(key));
        let threads = self.threads.iter().map(|calls| calls.iter().filter(concerns).cloned().collect());
        Calls { initial: self.initial.clone(), threads: threads.collect() }
    }

    fn search(&self) -> Result<(), String> {
        let first = Order { done: vec![0; self.threads.len()], values: self.initial.clone() };
        let mut seen = HashSet::from([first.clone()]);
        let mut farthest = first.clone();
        let mut waiting = vec![first];
        while let Some(order) = waiting.pop() {
            if order.len() > farthest.len() {
                farthest = order.clone();
            }
            if order.len() == self.len() {
                return Ok(());
            }
            for thread in self.may_be_next(&order) {
                if let Some(next) = order.with(thread, &self.threads[thread][order.done[thread]])
                    && seen.insert(next.clone())
                {
                    waiting.push(next);
                }
            }
        }
        Err(self.explain(&farthest))
    }

    /// The threads whose next call began before every call that is not in order yet was answered.
    fn may_be_next(&self, order: &Order) -> impl Iterator<Item = usize> {
        let next: Vec<Option<&Call>> =
            self.threads.iter().zip(&order.done).map(|(calls, &done)| calls.get(done)).collect();
        let first_response = next.iter().flatten().map(|call| call.responded).min().unwrap_or(u64::MAX);
        let may = move |call: &Option<&Call>| call.is_some_and(|call| call.invoked < first_response);
        next.into_iter().enumerate().filter(move |(_, call)| may(call)).map(|(thread, _)| thread)
    }

    fn explain(&self, farthest: &Order) -> String {
        use fmt::Write as _;
        let (done, values) = (farthest.len(), &farthest.values);
        let mut text = format!("{done} of {} calls could be put in order, to the values {values:?}; then", self.len());
        for (thread, calls) in self.threads.iter().enumerate() {
            let from = farthest.done[thread];
            for (at, call) in calls.iter().enumerate().skip(from.saturating_sub(2)).take(4) {
                let mark = if at < from { "in order" } else { "not" };
                let _ = write!(text, "\n  thread {thread}, {mark}: {call}");
            }
        }
        text
    }
}

/// A first part of an order: how many calls of each thread are in it, and the values after them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Order {
    done: Vec<usize>,
    values: Vec<ValueNumber>,
}

impl Order {
    fn len(&self) -> usize {
        self.done.iter().sum()
    }

    /// With the next call of `thread`; `None` if that read something else.
    fn with(&self, thread: usize, call: &Call) -> Option<Order> {
        let mut next = self.clone();
        match &call.effect {
            Effect::Read(found) if found.iter().any(|&(key, value)| self.values[key] != value) => return None,
            Effect::Read(_) => {}
            Effect::Write(entries) => entries.iter().for_each(|&(key, value)| next.values[key] = value),
        }
        next.done[thread] += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(invoked: u64, responded: u64, entries: &[(KeyNumber, ValueNumber)]) -> Call {
        Call { name: "write", invoked, responded, effect: Effect::Write(entries.to_vec()) }
    }

    fn read(invoked: u64, responded: u64, entries: &[(KeyNumber, ValueNumber)]) -> Call {
        Call { name: "read", invoked, responded, effect: Effect::Read(entries.to_vec()) }
    }

    fn check<const N: usize>(threads: [Vec<Call>; N]) -> bool {
        Calls { initial: vec![0; 3], threads: threads.into() }.check().is_ok()
    }

    #[test]
    fn what_overlaps_may_have_happened_in_either_order() {
        for found in [0, 1] {
            assert!(check([vec![write(1, 4, &[(0, 1)])], vec![read(2, 3, &[(0, found)])]]));
        }
        // Two writes overlap: a reader may see either last, and both readers the same.
        let writes = || (vec![write(1, 10, &[(0, 1)])], vec![write(2, 9, &[(0, 2)])]);
        for last in [1, 2] {
            let (one, other) = writes();
            assert!(check([one, other, vec![read(11, 12, &[(0, last)]), read(13, 14, &[(0, last)])]]));
        }
    }

    #[test]
    fn a_stale_read_is_found() {
        assert!(check([vec![write(1, 2, &[(0, 1)])], vec![read(3, 4, &[(0, 1)])]]));
        assert!(!check([vec![write(1, 2, &[(0, 1)])], vec![read(3, 4, &[(0, 0)])]]));
        let deleted = vec![write(1, 2, &[(0, 1)]), write(3, 4, &[(0, 0)])];
        assert!(!check([deleted, vec![read(5, 6, &[(0, 1)])]]), "a deleted key is back");
    }

    #[test]
    fn a_read_that_goes_back_is_found() {
        let writer = vec![write(1, 10, &[(0, 1)])];
        assert!(check([writer.clone(), vec![read(2, 3, &[(0, 0)]), read(4, 5, &[(0, 1)])]]));
        assert!(!check([writer.clone(), vec![read(2, 3, &[(0, 1)]), read(4, 5, &[(0, 0)])]]), "in one thread");
        assert!(!check([writer, vec![read(2, 3, &[(0, 1)])], vec![read(4, 5, &[(0, 0)])]]), "over two threads");
    }

    #[test]
    fn a_lost_update_is_found() {
        let (one, other) = (vec![write(1, 2, &[(0, 1)])], vec![write(3, 4, &[(0, 2)])]);
        assert!(!check([one, other, vec![read(5, 6, &[(0, 1)])]]), "the later write is gone");
        let never = vec![read(1, 2, &[(0, 7)])];
        assert!(!check([never]), "a value that nobody wrote");
    }

    #[test]
    fn a_torn_batch_is_found() {
        let batch = || vec![write(1, 10, &[(0, 1), (1, 1)])];
        assert!(check([batch(), vec![read(2, 3, &[(0, 1), (1, 1)])]]));
        assert!(!check([batch(), vec![read(2, 3, &[(0, 1), (1, 0)])]]), "half of it in one read");
        assert!(!check([batch(), vec![read(2, 3, &[(0, 1)]), read(4, 5, &[(1, 0)])]]), "one half after the other");
    }

    #[test]
    fn readers_that_disagree_on_the_order_of_two_keys_are_found() {
        let writers = || (vec![write(1, 20, &[(0, 1)])], vec![write(2, 19, &[(1, 1)])]);
        let (one, other) = writers();
        let first = vec![read(3, 4, &[(0, 1), (1, 0)])];
        assert!(check([one, other, first.clone(), vec![read(5, 6, &[(0, 1), (1, 1)])]]));
        let (one, other) = writers();
        assert!(!check([one, other, first, vec![read(5, 6, &[(0, 0), (1, 1)])]]));
    }

    #[test]
    fn keys_apart_are_checked_apart_and_keys_together_are_not() {
        let calls = |batch: &[(KeyNumber, ValueNumber)]| Calls {
            initial: vec![0; 3],
            threads: vec![vec![write(1, 2, batch)], vec![read(3, 4, &[(2, 0)])]],
        };
        assert_eq!(calls(&[(0, 1)]).components(), [vec![0], vec![1], vec![2]]);
        assert_eq!(calls(&[(0, 1), (2, 5)]).components(), [vec![1], vec![0, 2]]);
        assert!(calls(&[(0, 1)]).check().is_ok());
        assert!(calls(&[(0, 1), (2, 5)]).check().is_err());
    }
}
