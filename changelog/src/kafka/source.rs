//! [`KafkaSource`]: the reading end.

use std::time::{Duration, SystemTime};

use rdkafka::Message;
use siltstone::{ChangeBatch, KeyspaceName, SeqNo};

use super::commit::Commit;
use super::merge::Merge;
use super::options::{COMMITS_PARTITION, KafkaOptions};
use super::partition::{Part, Reader, refused};
use super::position::Place;
use super::topics::{commits_topic, topic_of};
use crate::error::{Error, Result};
use crate::position::Position;
use crate::scan::{LentChange, Numbers, Scan, lend_all};
use crate::sink::{Batches, Source, until_error};

/// How many offsets before the end the newest commit is looked for at first: it is the last record but for the marker
/// of its transaction, and for what was aborted.
const FIRST_LOOK: i64 = 16;

/// A commit, and what the broker says about it.
#[derive(Clone, Debug)]
struct Found {
    offset: i64,
    /// When it was written, in milliseconds since 1970, as far as the broker says.
    at_ms: Option<i64>,
    commit: Commit,
}

impl Found {
    /// How long ago it was written, by the date here and the one that the broker noted.
    fn age(&self) -> Duration {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_millis(self.at_ms.unwrap_or(0).unsigned_abs()))
    }
}

/// Reads what a [`KafkaSink`](crate::KafkaSink) ships; see [`KafkaOptions`]. It changes nothing.
///
/// A log that was never written to is empty.
pub struct KafkaSource {
    options: KafkaOptions,
}

impl KafkaSource {
    /// A source of the log; the cluster is asked when it is read.
    pub fn open(options: KafkaOptions) -> Self {
        KafkaSource { options }
    }
}

/// The newest commit and its offset; none if nothing was ever committed.
pub(super) fn newest_commit(options: &KafkaOptions) -> Result<Option<(i64, Commit)>> {
    let reader = Reader::new(options)?;
    Ok(newest(&reader, options)?.map(|found| (found.offset, found.commit)))
}

fn newest(reader: &Reader, options: &KafkaOptions) -> Result<Option<Found>> {
    let bounds = reader.bounds(&commits_topic(&options.prefix), COMMITS_PARTITION)?;
    let Some((low, high)) = bounds else { return Ok(None) };
    let mut look = FIRST_LOOK;
    loop {
        let first = (high - look).max(low);
        let found = commits(reader, options, first, high)?.pop();
        if found.is_some() || first == low {
            return Ok(found);
        }
        look *= 16;
    }
}

/// All commits that lie at these offsets.
fn commits(reader: &Reader, options: &KafkaOptions, first: i64, end: i64) -> Result<Vec<Found>> {
    let topic = commits_topic(&options.prefix);
    let part = Part { topic: topic.clone(), partition: COMMITS_PARTITION, first, end };
    let mut found = Vec::new();
    for mut records in reader.read(&[part])? {
        while let Some(next) = records.next(reader, |_, message| -> Result<Found> {
            let commit = Commit::decode(message.payload().unwrap_or_default())
                .map_err(|reason| refused(&topic, COMMITS_PARTITION, message.offset(), reason))?;
            Ok(Found { offset: message.offset(), at_ms: message.timestamp().to_millis(), commit })
        })? {
            found.push(next?);
        }
    }
    Ok(found)
}

impl Source for KafkaSource {
    fn bounds(&self) -> Result<(Position, Position)> {
        let reader = Reader::new(&self.options)?;
        let place = match newest(&reader, &self.options)? {
            Some(Found { offset, commit, .. }) => {
                Place { log: commit.log, from_start: false, commit: offset, seqno: commit.last_seqno }
            }
            None => Place { log: 0, from_start: false, commit: 0, seqno: 0 },
        };
        let oldest = Place { from_start: true, seqno: 0, ..place };
        Ok((oldest.to_position()?, place.to_position()?))
    }

    fn holds_whole_state(&self) -> Result<Option<bool>> {
        let newest = newest(&Reader::new(&self.options)?, &self.options)?;
        Ok(Some(newest.is_none_or(|newest| newest.commit.begins_after == 0)))
    }

    fn seqno_at(&self, position: &Position) -> Result<Option<SeqNo>> {
        Ok(Some(Place::of(position)?.seqno))
    }

    /// What is newer than the compaction lag was not compacted, nor has it replaced anything. Of a keyspace that was dropped
    /// later nothing is read.
    fn is_exact(&self, position: &Position) -> Result<bool> {
        let (place, reader) = (Place::of(position)?, Reader::new(&self.options)?);
        let Some(newest) = newest(&reader, &self.options)? else { return Ok(true) };
        if newest.commit.last_seqno == place.seqno {
            return Ok(true);
        }
        if newest.commit.drops.values().any(|&seqno| seqno > place.seqno) {
            return Ok(false);
        }
        let found = commits(&reader, &self.options, place.commit, place.commit + 1)?.pop();
        Ok(found.is_some_and(|found| found.age() < self.options.min_compaction_lag))
    }

    /// After its end the iterator goes on when the log has grown.
    fn read(&self, from: &Position) -> Result<Batches> {
        let mut following = self.follow(from)?;
        Ok(until_error(move || {
            let batch = following.next_batch()?;
            batch.map(|batch| Ok((following.place.to_position()?, batch))).transpose()
        }))
    }

    fn scan(&self, from: &Position) -> Result<Box<dyn Scan>> {
        Ok(Box::new(self.follow(from)?))
    }
}

impl KafkaSource {
    fn follow(&self, from: &Position) -> Result<Following> {
        let place = Place::of(from)?;
        let commits = Reader::new(&self.options)?;
        let newest = newest(&commits, &self.options)?;
        let found_log = newest.as_ref().map_or(0, |newest| newest.commit.log);
        if place.log != found_log && place.log != 0 {
            return Err(Error::Mismatch(format!(
                "position {from} is of another log: this one, of the same name, is log {found_log:016x}"
            )));
        }
        if place.seqno > newest.as_ref().map_or(0, |newest| newest.commit.last_seqno) {
            return Err(self.out_of_range(from));
        }
        let begun = place.from_start && place.seqno == 0;
        let from_commit = if begun { None } else { Some(self.commit_at(&commits, place, from)?) };
        let base = from_commit.filter(|_| !place.from_start);
        let data = Reader::new(&self.options)?;
        let options = self.options.clone();
        let mut following = Following { options, commits, data, base, place, after_seqno: place.seqno, stretch: None };
        if let Some(newest) = newest {
            following.begin(newest)?;
        }
        Ok(following)
    }

    fn out_of_range(&self, position: &Position) -> Error {
        match self.bounds() {
            Ok((oldest, newest)) => Error::PositionOutOfRange { position: position.clone(), oldest, newest },
            Err(error) => error,
        }
    }

    /// The commit that a position names.
    ///
    /// # Errors
    /// `PositionOutOfRange` if it is not there any more, or older than deletes are kept.
    fn commit_at(&self, reader: &Reader, place: Place, from: &Position) -> Result<Found> {
        let found = commits(reader, &self.options, place.commit, place.commit + 1)?.pop();
        let found = found.filter(|found| found.offset == place.commit && !self.is_too_old(found));
        found.ok_or_else(|| self.out_of_range(from))
    }

    fn is_too_old(&self, found: &Found) -> bool {
        found.age() >= self.options.delete_retention
    }
}

impl Scan for Following {
    fn next(&mut self, take: &mut dyn FnMut(LentChange<'_>)) -> Result<Option<Numbers>> {
        let batch = self.next_batch()?;
        Ok(batch.map(|batch| lend_all(&batch, take)))
    }

    fn position(&self) -> Result<Position> {
        self.place.to_position()
    }
}

/// Reads from commit to commit.
struct Following {
    options: KafkaOptions,
    commits: Reader,
    data: Reader,
    /// Everything up to this commit was read; none: nothing was.
    base: Option<Found>,
    /// Behind the last batch that was read.
    place: Place,
    after_seqno: SeqNo,
    /// What is being read, and up to which commit.
    stretch: Option<(Merge, Found)>,
}

impl Following {
    /// Begins with what lies between the base and `commit`.
    fn begin(&mut self, commit: Found) -> Result<()> {
        let parts = self.parts(&commit.commit)?;
        let readers = self.data.read(&parts.iter().map(|(_, part)| part.clone()).collect::<Vec<_>>())?;
        let inputs = parts.into_iter().map(|(name, _)| name).zip(readers).collect();
        let merge = Merge::new(&commit.commit, inputs, self.after_seqno);
        self.stretch = Some((merge, commit));
        Ok(())
    }

    /// Where the records between the base and `commit` lie.
    fn parts(&self, commit: &Commit) -> Result<Vec<(KeyspaceName, Part)>> {
        let mut parts = Vec::new();
        for (name, extent) in &commit.keyspaces {
            let topic = topic_of(&self.options.prefix, name)?;
            let known = self.base.as_ref().and_then(|base| base.commit.keyspaces.get(name));
            // Of an earlier keyspace of that name nothing is to be read.
            let known = known.filter(|known| known.since_seqno == extent.since_seqno);
            for (partition, &(first, end)) in extent.offsets.iter().enumerate() {
                let known_end = known.and_then(|known| known.offsets.get(partition)).map_or(first, |&(_, end)| end);
                let (first, partition) = (first.max(known_end), partition as i32);
                if first < end {
                    let part = Part { topic: topic.clone(), partition, first, end };
                    parts.push((name.clone(), self.what_is_left(part)?));
                }
            }
        }
        Ok(parts)
    }

    /// The part without what the topic's retention removed.
    ///
    /// # Errors
    /// `Mismatch` if the topic does not go as far as the commit says.
    fn what_is_left(&self, part: Part) -> Result<Part> {
        let (low, high) = self.data.bounds(&part.topic, part.partition)?.unwrap_or_default();
        if high < part.end {
            return Err(Error::Mismatch(format!(
                "partition {} of the topic {} ends at offset {high}, where {} was committed: it was deleted and made anew, \
                 or lost records",
                part.partition, part.topic, part.end
            )));
        }
        Ok(Part { first: part.first.max(low), ..part })
    }

    fn next_batch(&mut self) -> Result<Option<ChangeBatch>> {
        loop {
            if let Some((merge, commit)) = &mut self.stretch {
                if let Some(batch) = merge.next(&self.data)? {
                    let seqno = batch.last_seqno();
                    let (log, is_last) = (commit.commit.log, seqno == commit.commit.last_seqno);
                    self.place = match &self.base {
                        _ if is_last => Place { log, from_start: false, commit: commit.offset, seqno },
                        Some(base) => Place { log, from_start: false, commit: base.offset, seqno },
                        None => Place { log, from_start: true, commit: commit.offset, seqno },
                    };
                    return Ok(Some(batch));
                }
                self.after_seqno = commit.commit.last_seqno;
                self.base = self.stretch.take().map(|(_, commit)| commit);
            }
            let read = self.base.as_ref().map_or(0, |base| base.commit.number);
            match newest(&self.commits, &self.options)?.filter(|newest| newest.commit.number > read) {
                Some(newer) => self.begin(newer)?,
                None => return Ok(None),
            }
        }
    }
}
