//! What a workload tried to write, and which states of the database that allows after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use siltstone::{Change, ChangeBatch, SeqNo};

use crate::state::{METADATA, Map, State, Write, apply, difference};

/// One thing that is done, and, but for an ingest, held by the log. Writes to the keyspace [`METADATA`] stand for the batch's metadata, which takes no
/// sequence numbers.
#[derive(Clone, Debug)]
pub enum Event {
    /// A batch.
    Batch(Vec<Write>),
    /// A keyspace that goes, with all it holds.
    DropKeyspace(String),
    /// Entries that go past the log.
    Ingest(Vec<Write>),
}

impl Event {
    /// How many sequence numbers it takes.
    fn count(&self) -> SeqNo {
        match self {
            Event::Batch(writes) => writes.iter().filter(|(keyspace, ..)| keyspace != METADATA).count() as SeqNo,
            Event::DropKeyspace(_) => 1,
            Event::Ingest(writes) => writes.len() as SeqNo,
        }
    }

    fn apply(&self, state: &mut State) {
        match self {
            Event::Batch(writes) | Event::Ingest(writes) => writes.iter().for_each(|write| apply(state, write)),
            Event::DropKeyspace(name) => drop(state.remove(name)),
        }
    }

    fn concerns(&self, keyspace: &str) -> bool {
        match self {
            Event::Batch(writes) | Event::Ingest(writes) => writes.iter().any(|(name, ..)| name == keyspace),
            Event::DropKeyspace(name) => name == keyspace,
        }
    }

    /// Whether this is what the change log says as `changes`.
    fn is(&self, changes: &[Change]) -> bool {
        match self {
            Event::Batch(writes) => are(changes, writes.iter().filter(|(keyspace, ..)| keyspace != METADATA)),
            Event::DropKeyspace(name) => {
                matches!(changes, [Change::DropKeyspace { keyspace }] if **keyspace == **name)
            }
            Event::Ingest(_) => false,
        }
    }
}

/// Whether `changes` are `writes`, one by one.
fn are<'w>(changes: &[Change], mut writes: impl Iterator<Item = &'w Write>) -> bool {
    let same = |change: &Change| match (change, writes.next()) {
        (Change::Put { keyspace, key, value }, Some((name, wanted, Some(put)))) => {
            **keyspace == **name && **key == **wanted && **value == **put
        }
        (Change::Delete { keyspace, key }, Some((name, wanted, None))) => **keyspace == **name && **key == **wanted,
        _ => false,
    };
    changes.iter().all(same) && writes.next().is_none()
}

/// An event with its place.
#[derive(Debug)]
struct Logged {
    event: Event,
    /// Its first sequence number; that of the next event if it takes none.
    first_seqno: SeqNo,
}

impl Logged {
    fn next_seqno(&self) -> SeqNo {
        self.first_seqno + self.event.count()
    }
}

/// Writes without the log to one keyspace, by one batch.
#[derive(Debug)]
struct Unlogged {
    writes: Vec<Write>,
    /// How many times the keyspace had been dropped before.
    drops: usize,
    /// How many events were tried before.
    events: usize,
}

/// All writes to a keyspace that is written without the log only.
#[derive(Clone, Debug, Default)]
struct UnloggedKeyspace {
    writes: Vec<Arc<Unlogged>>,
    /// How many of them a crash may not take back.
    flushed: usize,
}

/// All events in the order in which they were tried, and how many of them a crash may not take back. An event that was
/// refused (it failed, and a later one was tried) is not part of it. Cheap to clone.
///
/// Keyspaces written without the log stand beside it: each holds its own writes up to some flush.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: Vec<Arc<Logged>>,
    /// The number that the next write takes.
    next_seqno: Option<SeqNo>,
    /// How many events were acknowledged at all: a killed process keeps these.
    acknowledged: usize,
    /// How many events were acknowledged as synced, or came before one, or before a successful sync: a power cut keeps
    /// these.
    synced: usize,
    /// Keyspaces that are written without the log.
    unlogged: BTreeMap<String, UnloggedKeyspace>,
    /// Keyspaces that are sure to exist: created, and no drop tried since.
    created: BTreeSet<String>,
    /// Keyspaces that are sure to be gone: dropped, and no creation tried since.
    dropped: BTreeSet<String>,
    notes: u64,
}

impl History {
    /// An event is about to be tried.
    pub fn intend(&mut self, event: Event) {
        let first_seqno = self.next_seqno();
        self.intend_at(event, first_seqno);
    }

    /// An event that brings its own numbers, from `first_seqno` on, is about to be tried.
    pub fn intend_at(&mut self, event: Event, first_seqno: SeqNo) {
        if let Event::DropKeyspace(name) = &event {
            self.created.remove(name);
        }
        let logged = Logged { event, first_seqno };
        self.next_seqno = Some(logged.next_seqno());
        self.events.push(Arc::new(logged));
    }

    /// The last event was refused and wrote nothing.
    pub fn withdraw(&mut self) {
        if let Some(refused) = self.events.pop() {
            self.next_seqno = Some(refused.first_seqno);
        }
    }

    /// A batch of writes without the log is about to be tried. The keyspaces it writes to have no other writes.
    pub fn intend_unlogged(&mut self, writes: &[Write]) {
        let names: BTreeSet<&String> = writes.iter().map(|(keyspace, ..)| keyspace).collect();
        for name in names {
            let writes = writes.iter().filter(|(keyspace, ..)| keyspace == name).cloned().collect();
            let unlogged = Unlogged { writes, drops: self.drops(name, self.events.len()), events: self.events.len() };
            self.unlogged.entry(name.clone()).or_default().writes.push(Arc::new(unlogged));
        }
        self.next_seqno = Some(self.next_seqno() + writes.len() as SeqNo);
    }

    /// The number that the next write takes.
    pub fn next_seqno(&self) -> SeqNo {
        self.next_seqno.unwrap_or(1)
    }

    /// How many of the first `events` drop keyspace `name`.
    fn drops(&self, name: &str, events: usize) -> usize {
        let is_drop = |logged: &&Arc<Logged>| matches!(&logged.event, Event::DropKeyspace(other) if other == name);
        self.events[..events].iter().filter(is_drop).count()
    }

    /// The last event was acknowledged; `synced` if as surviving a power cut.
    pub fn acknowledge(&mut self, synced: bool) {
        self.notes += 1;
        self.acknowledged = self.events.len();
        if synced {
            self.sync();
        }
        if let Some(Event::DropKeyspace(name)) = self.events.last().map(|logged| &logged.event) {
            self.dropped.insert(name.clone());
        }
    }

    /// Everything acknowledged so far became durable, what was written without the log apart.
    pub fn sync(&mut self) {
        self.notes += 1;
        self.synced = self.acknowledged;
    }

    /// Every write to keyspace `name` is in tables now, and every logged write before them durable.
    pub fn flush(&mut self, name: &str) {
        self.notes += 1;
        let newest = match self.unlogged.get_mut(name) {
            Some(keyspace) => {
                keyspace.flushed = keyspace.writes.len();
                keyspace.writes.last().map_or(0, |unlogged| unlogged.events)
            }
            None => {
                let last = self.events[..self.acknowledged].iter().rposition(|logged| logged.event.concerns(name));
                last.map_or(0, |last| last + 1)
            }
        };
        // Metadata alone has no number, so nothing that is flushed comes after it.
        let numbered = self.events[..newest].iter().rposition(|logged| logged.event.count() > 0);
        self.synced = self.synced.max(numbered.map_or(0, |last| last + 1));
    }

    /// Everything acknowledged so far became durable, written without the log or not.
    pub fn close(&mut self) {
        self.sync();
        self.unlogged.values_mut().for_each(|keyspace| keyspace.flushed = keyspace.writes.len());
    }

    /// The creation of a keyspace is about to be tried.
    pub fn intend_keyspace(&mut self, name: &str) {
        self.dropped.remove(name);
    }

    /// A keyspace was created, durably.
    pub fn acknowledge_keyspace(&mut self, name: &str) {
        self.notes += 1;
        self.created.insert(name.to_owned());
    }

    /// How often something that was done and acknowledged was noted: two histories of one run with the same answer are
    /// the same.
    pub fn notes(&self) -> u64 {
        self.notes
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
    /// more sequence numbers than `last_seqno`, and that each keyspace written without the log holds a first part of
    /// its own writes with all that were flushed; answers how many events.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check_prefix(&self, found: &State, last_seqno: SeqNo, least: usize) -> Result<usize, String> {
        let (unlogged, found): (State, State) =
            found.clone().into_iter().partition(|(name, _)| self.unlogged.contains_key(name));
        let mut state = State::new();
        let mut seqno = 0;
        let mut nearest = String::new();
        // Of several equal states the last one counts: an event may change nothing.
        let mut matching = None;
        for taken in 0..=self.events.len() {
            if taken > 0 {
                let logged = &self.events[taken - 1];
                logged.event.apply(&mut state);
                if logged.event.count() > 0 {
                    seqno = logged.next_seqno() - 1;
                }
            }
            if seqno > last_seqno {
                break;
            }
            match difference(&found, &state).map_or_else(|| self.check_unlogged(&unlogged, taken), Err) {
                Ok(()) => matching = Some(taken),
                Err(difference) => nearest += &format!("\n  not {taken} events: {difference}"),
            }
        }
        match matching {
            Some(taken) if taken >= least => Ok(taken),
            Some(taken) => Err(format!("is the state after {taken} events, but {least} were acknowledged as durable")),
            None => Err(format!("no first part of the events, seqno {last_seqno}, at least {least}: {nearest}")),
        }
    }

    /// Checks what the keyspaces written without the log hold, given that the first `taken` events are there.
    fn check_unlogged(&self, found: &State, taken: usize) -> Result<(), String> {
        let empty = Map::new();
        for (name, keyspace) in &self.unlogged {
            let found = found.get(name).unwrap_or(&empty);
            let drops = self.drops(name, taken);
            let mut map = State::new();
            let mut fits = false;
            for (at, unlogged) in keyspace.writes.iter().enumerate().filter(|(_, unlogged)| unlogged.drops == drops) {
                fits |= at >= keyspace.flushed && map.get(name).unwrap_or(&empty) == found;
                unlogged.writes.iter().for_each(|write| apply(&mut map, write));
            }
            fits |= map.get(name).unwrap_or(&empty) == found;
            if !fits {
                let reason = format!("{} writes, {} of them flushed", keyspace.writes.len(), keyspace.flushed);
                return Err(format!("{name} holds no first part of what was written to it without the log: {reason}"));
            }
        }
        Ok(())
    }

    /// Checks the last sequence number of a database that holds the first `taken` events: that of the last one, unless
    /// writes without the log took numbers too.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check_last_seqno(&self, taken: usize, last_seqno: SeqNo) -> Result<(), String> {
        let numbered = self.events[..taken].iter().rfind(|logged| logged.event.count() > 0);
        let logged = numbered.map_or(0, |logged| logged.next_seqno() - 1);
        let most = if self.unlogged.is_empty() { logged } else { self.next_seqno() - 1 };
        if (logged..=most).contains(&last_seqno) {
            return Ok(());
        }
        Err(format!("the last number is {last_seqno}, but {taken} events end with {logged} (at most {most})"))
    }

    /// Checks that `shipped` is a first part of the change log of the first `taken` events.
    ///
    /// # Errors
    /// The first batch that differs.
    pub fn check_shipped(&self, taken: usize, shipped: &[ChangeBatch]) -> Result<(), String> {
        let last_seqno = shipped.last().map_or(0, ChangeBatch::last_seqno);
        let covered = self.events[..taken].iter().take_while(|logged| logged.next_seqno() <= last_seqno + 1).count();
        self.check_changes(covered, 1, shipped)
    }

    /// Forgets all but the first `taken` events, which a power cut left and which are durable now; what was written
    /// without the log is not meant to be there.
    pub fn truncate(&mut self, taken: usize) {
        self.events.truncate(taken);
        (self.acknowledged, self.synced) = (taken, taken);
        self.next_seqno = self.events.last().map(|logged| logged.next_seqno());
        self.notes += 1;
    }

    /// Checks that `changes`, the change log from `oldest` on, is exactly that of the first `taken` events.
    ///
    /// # Errors
    /// The first batch that differs.
    pub fn check_changes(&self, taken: usize, oldest: SeqNo, changes: &[ChangeBatch]) -> Result<(), String> {
        let numbered = self.events[..taken].iter().filter(|logged| logged.event.count() > 0);
        let mut expected = numbered.filter(|logged| logged.next_seqno() > oldest);
        for batch in changes {
            let Some(logged) = expected.next() else {
                return Err(format!("the log goes on after {taken} events, with {batch:?}"));
            };
            if logged.first_seqno != batch.first_seqno() || !logged.event.is(batch.changes()) {
                return Err(format!("the log holds {batch:?} instead of {logged:?}"));
            }
        }
        match expected.next() {
            Some(logged) => Err(format!("the log of {} batches ends before {logged:?}", changes.len())),
            None => Ok(()),
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

    #[test]
    fn metadata_is_part_of_the_prefix_and_takes_no_numbers() {
        let mut history = History::default();
        history.intend(Event::Batch(vec![put("a", "k", "1"), put(METADATA, "m", "1")]));
        history.intend(Event::Batch(vec![put(METADATA, "m", "2")]));
        let first = [put("a", "k", "1"), put(METADATA, "m", "1")];
        assert_eq!(history.check_prefix(&state(&first), 1, 0), Ok(1));
        assert_eq!(history.check_prefix(&state(&[first[0].clone(), put(METADATA, "m", "2")]), 1, 0), Ok(2));
        assert!(history.check_prefix(&state(&first[..1]), 1, 0).is_err(), "data without its metadata");
        assert!(history.check_last_seqno(2, 1).is_ok() && history.check_last_seqno(2, 2).is_err());
        history.acknowledge(false);
        history.flush("a");
        assert_eq!(history.synced(), 1, "metadata alone is not flushed");
    }

    #[test]
    fn what_is_written_without_the_log_is_kept_up_to_some_flush() {
        let mut history = History::default();
        history.intend_unlogged(&[put("u", "k", "1"), put("v", "k", "1")]);
        history.intend(Event::Batch(vec![put("a", "k", "1")]));
        history.acknowledge(false);
        history.intend_unlogged(&[put("u", "k", "2")]);
        let check = |history: &History, writes: &[Write]| history.check_prefix(&state(writes), 4, 0);
        assert_eq!(check(&history, &[]), Ok(0));
        assert_eq!(check(&history, &[put("u", "k", "1")]), Ok(0), "each keyspace by itself");
        assert!(check(&history, &[put("u", "k", "3")]).is_err(), "never written");
        history.flush("u");
        assert_eq!(history.synced(), 1, "what was logged before is durable with it");
        assert!(check(&history, &[put("a", "k", "1"), put("u", "k", "1")]).is_err(), "flushed and gone");
        assert_eq!(check(&history, &[put("a", "k", "1"), put("u", "k", "2")]), Ok(1));
        history.intend(Event::DropKeyspace("u".to_owned()));
        history.acknowledge(true);
        assert_eq!(history.check_prefix(&state(&[put("a", "k", "1")]), 5, 2), Ok(2));
        assert!(history.check_prefix(&state(&[put("a", "k", "1"), put("u", "k", "2")]), 5, 2).is_err(), "dropped");
    }

    #[test]
    fn the_log_is_that_of_the_events_and_no_other() {
        let mut history = History::default();
        history.intend(Event::Batch(vec![put("a", "k", "1"), put(METADATA, "m", "1")]));
        history.intend_at(Event::Batch(vec![("a".to_owned(), b"k".to_vec(), None)]), 5);
        history.intend(Event::DropKeyspace("a".to_owned()));
        let (keyspace, key) = (siltstone::KeyspaceName::from("a"), siltstone::Slice::from("k"));
        let changes = [
            (1, Change::Put { keyspace: keyspace.clone(), key: key.clone(), value: "1".into() }),
            (5, Change::Delete { keyspace: keyspace.clone(), key }),
            (6, Change::DropKeyspace { keyspace }),
        ]
        .map(|(seqno, change)| ChangeBatch::new(seqno, vec![change]).unwrap());
        assert_eq!(history.check_changes(3, 1, &changes), Ok(()));
        assert_eq!(history.check_changes(2, 1, &changes[..2]), Ok(()));
        assert_eq!(history.check_changes(3, 2, &changes[1..]), Ok(()));
        assert!(history.check_changes(2, 1, &changes).is_err(), "more than there should be");
        assert!(history.check_changes(3, 1, &changes[..2]).is_err(), "less");
        assert!(history.check_changes(3, 1, &changes[1..]).is_err(), "a hole");
        let other = ChangeBatch::new(4, changes[1].changes().to_vec()).unwrap();
        assert!(history.check_changes(2, 1, &[changes[0].clone(), other]).is_err(), "another number");
    }
}
