//! What an operation answers, in a form in which answers of different databases and of the model compare.

use std::fmt;

use siltstone::{Change, ChangeBatch, Error, Iter, Result, SeqNo, Slice};

use crate::state::short;
use crate::steps::Ends;

/// Bytes that print short.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short(&self.0))
    }
}

impl From<&Vec<u8>> for Blob {
    fn from(bytes: &Vec<u8>) -> Self {
        Blob(bytes.clone())
    }
}

impl From<Slice> for Blob {
    fn from(slice: Slice) -> Self {
        Blob(slice.into())
    }
}

/// An error by its kind: what a caller can rely on. Kinds that no healthy database gives keep their text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants of the engine's error")]
pub enum Failure {
    Locked,
    ReadOnly,
    Closed,
    KeyspaceDropped(String),
    InvalidArgument,
    NotRetained,
    Io,
    Unexpected(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Locked { .. } => Failure::Locked,
            Error::ReadOnly { .. } => Failure::ReadOnly,
            Error::Closed => Failure::Closed,
            Error::KeyspaceDropped { name } => Failure::KeyspaceDropped(name),
            Error::InvalidArgument(_) => Failure::InvalidArgument,
            Error::NotRetained { .. } => Failure::NotRetained,
            Error::Io { .. } => Failure::Io,
            other => Failure::Unexpected(other.to_string()),
        }
    }
}

/// What one call on an iterator gave.
pub type Call = Option<Result<(Blob, Blob), Failure>>;

/// One change of the log: keyspace, key and value, or a delete without value, or a drop without either.
pub type LoggedChange = (String, Option<Blob>, Option<Blob>);

/// One batch of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoggedBatch {
    /// The number of its first change.
    pub first_seqno: SeqNo,
    /// Its changes.
    pub changes: Vec<LoggedChange>,
}

impl LoggedBatch {
    /// The number of its last change.
    pub fn last_seqno(&self) -> SeqNo {
        self.first_seqno + self.changes.len() as SeqNo - 1
    }
}

impl From<&ChangeBatch> for LoggedBatch {
    fn from(batch: &ChangeBatch) -> Self {
        let change = |change: &Change| {
            let (key, value) = match change {
                Change::Put { key, value, .. } => (Some(key.clone().into()), Some(value.clone().into())),
                Change::Delete { key, .. } => (Some(key.clone().into()), None),
                Change::DropKeyspace { .. } => (None, None),
                other => panic!("an unknown change: {other:?}"),
            };
            (change.keyspace().to_string(), key, value)
        };
        let changes: Vec<LoggedChange> = batch.changes().iter().map(change).collect();
        assert_eq!(batch.last_seqno() - batch.first_seqno() + 1, changes.len() as SeqNo);
        let lens = |blob: &Option<Blob>| blob.as_ref().map_or(0, |blob| blob.0.len());
        let user_bytes: usize = changes.iter().map(|(_, key, value)| lens(key) + lens(value)).sum();
        assert_eq!(batch.user_bytes(), user_bytes as u64);
        LoggedBatch { first_seqno: batch.first_seqno(), changes }
    }
}

/// The answer of one [`Step`](crate::steps::Step).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// There was nothing to ask.
    Nothing,
    /// What was asked did not outlive a reopening, as it should not.
    Lost,
    /// Success without a value.
    Done,
    /// Yes or no.
    Flag(bool),
    /// The number of the last write.
    Seqno(SeqNo),
    /// A number, where there is one.
    Number(Option<u64>),
    /// Values in the order asked.
    Values(Vec<Option<Blob>>),
    /// What each call on an iterator gave.
    Calls(Vec<Call>),
    /// Names of keyspaces.
    Names(Vec<String>),
    /// A part of the log.
    Changes(Vec<LoggedBatch>),
    /// Expected only: a part of the log that may have been let go of, which is an error then.
    Retained(Vec<LoggedBatch>),
    /// Of many calls those that did not fail as they should, and what they answered.
    Deviations(Vec<String>),
    /// An error.
    Failed(Failure),
}

impl Answer {
    /// Success as `Done`.
    pub fn done(result: Result<()>) -> Self {
        Answer::of(result, |()| Answer::Done)
    }

    /// Success as `make` says.
    pub fn of<T>(result: Result<T>, make: impl FnOnce(T) -> Answer) -> Self {
        result.map_or_else(|error| Answer::Failed(error.into()), make)
    }

    /// Values in the order asked.
    pub fn values(result: Result<Vec<Option<Slice>>>) -> Self {
        Answer::of(result, |values| Answer::Values(values.into_iter().map(|value| value.map(Blob::from)).collect()))
    }

    /// What kind of answer it is: errors by theirs, data of all shapes alike.
    pub fn kind(&self) -> String {
        match self {
            Answer::Failed(Failure::KeyspaceDropped(_)) => "KeyspaceDropped".to_owned(),
            Answer::Failed(failure) => format!("{failure:?}"),
            Answer::Values(_) | Answer::Calls(_) => "data".to_owned(),
            Answer::Changes(_) | Answer::Retained(_) => "log".to_owned(),
            other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
        }
    }

    /// Whether `found` is what this, the model's answer, allows.
    pub fn allows(&self, found: &Answer) -> bool {
        match (self, found) {
            (Answer::Retained(batches), Answer::Changes(found)) => batches == found,
            (Answer::Retained(_), Answer::Failed(Failure::NotRetained)) => true,
            _ => self == found,
        }
    }
}

/// What `iter` gives when it is asked at the ends that the bits of `ends` say: `count` times, or else until it gives
/// nothing, and then once more at each end.
pub fn calls(ends: Ends, count: Option<usize>, mut next: impl FnMut(bool) -> Call) -> Answer {
    let mut calls = Vec::new();
    for at in 0..count.unwrap_or(usize::MAX) {
        let call = next(ends >> (at % 64) & 1 == 1);
        let ended = call.is_none();
        calls.push(call);
        if ended && count.is_none() {
            calls.extend([next(false), next(true)]);
            break;
        }
    }
    Answer::Calls(calls)
}

/// One call on a real iterator.
pub fn call(iter: &mut Iter, back: bool) -> Call {
    let found = if back { iter.next_back() } else { iter.next() };
    Some(found?.map(|(key, value)| (key.into(), value.into())).map_err(Failure::from))
}
