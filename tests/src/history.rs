//! What a workload tried to write, and which states of the database that allows after a crash.

use std::collections::BTreeSet;

use siltstone::SeqNo;

use crate::state::{State, Write, apply, difference};

/// One thing that takes sequence numbers.
#[derive(Clone, Debug)]
pub enum Event {
    /// A batch.
    Batch(Vec<Write>),
    /// A keyspace that goes, with all it holds.
    DropKeyspace(String),
}

impl Event {
    fn count(&self) -> SeqNo {
        match self {
            Event::Batch(writes) => writes.len() as SeqNo,
            Event::DropKeyspace(_) => 1,
        }
    }

    fn apply(&self, state: &mut State) {
        match self {
            Event::Batch(writes) => writes.iter().for_each(|write| apply(state, write)),
            Event::DropKeyspace(name) => drop(state.remove(name)),
        }
    }
}

/// All events in the order in which they were tried, and how many of them a crash may not take back. An event that was
/// refused (it failed, and a later one was tried) is not part of it.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: Vec<Event>,
    /// How many events were acknowledged at all: a killed process keeps these.
    acknowledged: usize,
    /// How many events were acknowledged as synced, or came before one, or before a successful sync: a power cut keeps
    /// these.
    synced: usize,
    /// Keyspaces that are sure to exist: created, and no drop tried since.
    created: BTreeSet<String>,
    /// Keyspaces that are sure to be gone: dropped, and no creation tried since.
    dropped: BTreeSet<String>,
}

impl History {
    /// An event is about to be tried.
    pub fn intend(&mut self, event: Event) {
        if let Event::DropKeyspace(name) = &event {
            self.created.remove(name);
        }
        self.events.push(event);
    }

    /// The last event was acknowledged; `synced` if as surviving a power cut.
    pub fn acknowledge(&mut self, synced: bool) {
        self.acknowledged = self.events.len();
        if synced {
            self.sync();
        }
        if let Some(Event::DropKeyspace(name)) = self.events.last() {
            self.dropped.insert(name.clone());
        }
    }

    /// Everything acknowledged so far became durable.
    pub fn sync(&mut self) {
        self.synced = self.acknowledged;
    }

    /// The creation of a keyspace is about to be tried.
    pub fn intend_keyspace(&mut self, name: &str) {
        self.dropped.remove(name);
    }

    /// A keyspace was created, durably.
    pub fn acknowledge_keyspace(&mut self, name: &str) {
        self.created.insert(name.to_owned());
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing was tried.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// How many events were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// How many events a power cut keeps.
    pub fn synced(&self) -> usize {
        self.synced
    }

    /// Checks that `found` is the state after some first part of the events, of at least `least` events and with no
    /// more sequence numbers than `last_seqno`; answers how many events.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check_prefix(&self, found: &State, last_seqno: SeqNo, least: usize) -> Result<usize, String> {
        let mut state = State::new();
        let mut seqno = 0;
        let mut nearest = String::new();
        // Of several equal states the last one counts: an event may change nothing.
        let mut matching = None;
        for taken in 0..=self.events.len() {
            if taken > 0 {
                let event = &self.events[taken - 1];
                event.apply(&mut state);
                seqno += event.count();
            }
            if seqno > last_seqno {
                break;
            }
            match difference(found, &state) {
                None => matching = Some(taken),
                Some(difference) => nearest = format!("differs from {taken} events: {difference}"),
            }
        }
        match matching {
            Some(taken) if taken >= least => Ok(taken),
            Some(taken) => Err(format!("is the state after {taken} events, but {least} were acknowledged as durable")),
            None => Err(format!("no first part of the events, seqno {last_seqno}, at least {least}: {nearest}")),
        }
    }

    /// Checks which keyspaces exist.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check_keyspaces(&self, names: &[String]) -> Result<(), String> {
        let found: BTreeSet<String> = names.iter().cloned().collect();
        if let Some(name) = self.created.difference(&found).next() {
            return Err(format!("keyspace {name:?} is gone"));
        }
        match self.dropped.intersection(&found).next() {
            Some(name) => Err(format!("keyspace {name:?} is back")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(keyspace: &str, key: &str, value: &str) -> Write {
        (keyspace.to_owned(), key.into(), Some(value.into()))
    }

    fn state(writes: &[Write]) -> State {
        let mut state = State::new();
        writes.iter().for_each(|write| apply(&mut state, write));
        state
    }

    #[test]
    fn only_whole_first_parts_pass() {
        let mut history = History::default();
        for event in [vec![put("a", "k", "1"), put("b", "k", "1")], vec![put("a", "l", "2")], vec![put("b", "k", "3")]]
        {
            history.intend(Event::Batch(event));
            history.acknowledge(false);
        }
        history.intend(Event::DropKeyspace("a".to_owned()));
        let two = [put("a", "k", "1"), put("b", "k", "1"), put("a", "l", "2")];
        assert_eq!(history.check_prefix(&state(&two), 3, 2), Ok(2));
        assert!(history.check_prefix(&state(&two), 4, 3).is_err(), "too little");
        assert!(history.check_prefix(&state(&two[..1]), 3, 0).is_err(), "half a batch");
        assert!(history.check_prefix(&state(&[two[0].clone(), put("b", "k", "3")]), 4, 0).is_err(), "a hole");
        assert!(history.check_prefix(&state(&two), 2, 0).is_err(), "more than the numbers say");
        assert_eq!(history.check_prefix(&state(&[put("b", "k", "3")]), 5, 4), Ok(4));
    }

    #[test]
    fn keyspaces_come_and_go_for_sure_or_not() {
        let mut history = History::default();
        history.intend_keyspace("a");
        assert!(history.check_keyspaces(&[]).is_ok() && history.check_keyspaces(&["a".to_owned()]).is_ok());
        history.acknowledge_keyspace("a");
        assert!(history.check_keyspaces(&[]).is_err());
        history.intend(Event::DropKeyspace("a".to_owned()));
        assert!(history.check_keyspaces(&[]).is_ok() && history.check_keyspaces(&["a".to_owned()]).is_ok());
        history.acknowledge(true);
        assert!(history.check_keyspaces(&["a".to_owned()]).is_err());
    }
}
