//! [`NatsSink`]: the writing end.

use std::collections::VecDeque;

use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use siltstone::{ChangeBatch, SeqNo};

use super::client::{Client, Extent, foreign};
use super::message::{Draft, HEADER, Stamp};
use super::options::NatsOptions;
use super::place::Place;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::sink::{Sink, is_new};

/// Batches are gathered into messages of about this many bytes.
const MESSAGE_BYTES: usize = 256 << 10;

/// What a message's headers and subject may take of what the server allows, in bytes.
const HEADER_BYTES: usize = 2048;

/// A message on its way.
#[derive(Clone, Debug)]
struct Message {
    subject: String,
    stamp: Stamp,
    payload: Bytes,
}

/// Ships to a stream of NATS JetStream; see [`NatsOptions`]. Whoever opens a sink of the same stream later fences this
/// one, which then answers `Fenced`.
///
/// Batches that the log has already, by their numbers, it skips. What was sent and not acknowledged is kept and sent
/// again.
///
/// ```no_run
/// use siltstone_changelog::{NatsOptions, NatsSink, NatsSource, Restore, ShipOptions, ship};
/// let options = NatsOptions::new("localhost:4222", "orders-state")?;
/// let db = siltstone::Db::open("state")?;
/// let shipper = ship(&db, NatsSink::open(options.clone())?, ShipOptions::new())?;
/// // ... and on another machine:
/// let (db, _position) = Restore::new(NatsSource::open(options)).into("state").run()?;
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
pub struct NatsSink {
    client: Client,
    /// Which stream it is.
    created: u64,
    /// The claim that was made, by its place in the stream.
    writer: u64,
    draft: Draft,
    /// Messages that the server has not acknowledged, of which the first `sent` are on their way.
    unacknowledged: VecDeque<Message>,
    on_their_way: VecDeque<PublishAckFuture>,
    /// What the next message has to follow.
    last_sequence: u64,
    /// The last number that was taken.
    taken_seqno: SeqNo,
    /// The last one that was acknowledged, and the message it is in.
    acknowledged: (SeqNo, u64),
}

impl NatsSink {
    /// Opens the log, making its stream if that is missing, and fences whoever wrote to it before.
    ///
    /// # Errors
    /// `Fenced` if another writer opens it at the same time; `Corruption`, `UnsupportedVersion` for what is none of a log;
    /// `Foreign` if the server does not answer.
    pub fn open(options: NatsOptions) -> Result<Self> {
        let client = Client::connect(&options)?;
        client.create_stream()?;
        let (stream, extent) = client.stream()?.ok_or_else(|| missing(&options))?;
        let acknowledged = client.last_whole(&stream, extent)?;
        let writer = extent.last_sequence + 1;
        let mut sink = NatsSink {
            client,
            created: extent.created,
            writer,
            draft: Draft::default(),
            unacknowledged: VecDeque::new(),
            on_their_way: VecDeque::new(),
            last_sequence: extent.last_sequence,
            taken_seqno: acknowledged.0,
            acknowledged,
        };
        let subject = options.claim_subject();
        sink.unacknowledged.push_back(Message { subject, stamp: Stamp::claim(writer), payload: Bytes::new() });
        sink.send_all()?;
        sink.receive()?;
        Ok(sink)
    }

    /// The largest batch, as encoded, that goes in one message, in bytes; larger ones go in parts.
    fn max_message_bytes(&self) -> usize {
        self.client.max_payload_bytes.saturating_sub(HEADER_BYTES).max(1)
    }

    /// Makes messages of the draft, and sends them.
    fn finish_draft(&mut self) -> Result<()> {
        let draft = std::mem::take(&mut self.draft);
        if draft.bytes.is_empty() {
            return Ok(());
        }
        let subject = match &draft.keyspace {
            Some(keyspace) => self.client.options.keyspace_subject(keyspace),
            None => self.client.options.several_subject(),
        };
        for (stamp, payload) in draft.into_messages(self.writer, self.max_message_bytes()) {
            self.unacknowledged.push_back(Message { subject: subject.clone(), stamp, payload });
        }
        self.send_all()
    }

    /// Sends what is not on its way yet.
    fn send_all(&mut self) -> Result<()> {
        while let Some(message) = self.unacknowledged.get(self.on_their_way.len()) {
            let Message { subject, stamp, payload } = message.clone();
            let publish = PublishMessage::build()
                .payload(payload)
                .message_id(stamp.id())
                .expected_last_sequence(self.last_sequence)
                .header(HEADER, stamp.encode().as_str());
            let sending = self.client.context.send_publish(subject, publish);
            let on_its_way = self.client.wait(sending).map_err(|error| foreign(error, true))?;
            self.on_their_way.push_back(on_its_way);
            self.last_sequence += 1;
        }
        Ok(())
    }

    /// Waits until the server has everything that is on its way.
    fn receive(&mut self) -> Result<()> {
        while let Some(on_its_way) = self.on_their_way.pop_front() {
            match self.client.wait(async { on_its_way.await }) {
                Ok(acknowledgement) => self.acknowledge(acknowledgement.sequence),
                Err(error) => {
                    self.look_again()?;
                    return Err(foreign(error, true));
                }
            }
        }
        Ok(())
    }

    /// The oldest message that was not acknowledged is in the stream.
    fn acknowledge(&mut self, sequence: u64) {
        if let Some(Message { stamp, .. }) = self.unacknowledged.pop_front()
            && !stamp.is_claim()
            && stamp.part == stamp.parts
        {
            self.acknowledged = (stamp.last, stamp.first_part(sequence));
        }
    }

    /// After a message that was not acknowledged: finds out what of those on their way is there. The rest is sent again.
    ///
    /// # Errors
    /// `Fenced` if another writer's message is.
    fn look_again(&mut self) -> Result<()> {
        self.on_their_way.clear();
        let (stream, extent) = self.client.stream()?.ok_or_else(|| missing(&self.client.options))?;
        self.check_same(extent)?;
        self.last_sequence = extent.last_sequence;
        if extent.last_sequence == 0 {
            return Ok(());
        }
        let last = self.client.message(&stream, extent.last_sequence)?.stamp;
        let ours = self.unacknowledged.front().is_some_and(|message| message.stamp.is_claim());
        if last.writer != self.writer && !ours {
            return Err(Error::Fenced { log: self.client.options.stream.clone() });
        }
        if let Some(there) = self.unacknowledged.iter().position(|message| message.stamp == last) {
            let first_sequence = extent.last_sequence - there as u64;
            (0..=there as u64).for_each(|at| self.acknowledge(first_sequence + at));
        }
        Ok(())
    }

    fn check_same(&self, extent: Extent) -> Result<()> {
        if extent.created == self.created {
            return Ok(());
        }
        Err(Error::Mismatch(format!("the stream {} was deleted and made anew", self.client.options.stream)))
    }

    fn position(&self) -> Result<Position> {
        let (seqno, sequence) = self.acknowledged;
        Place { stream: self.created, sequence, seqno }.to_position()
    }
}

fn missing(options: &NatsOptions) -> Error {
    Error::Mismatch(format!("the stream {} is missing", options.stream))
}

impl Sink for NatsSink {
    fn append(&mut self, batch: &ChangeBatch) -> Result<()> {
        if !is_new(batch, self.taken_seqno)? {
            return Ok(());
        }
        if !self.draft.suits(batch) || self.draft.bytes.len() >= MESSAGE_BYTES {
            self.finish_draft()?;
        }
        self.draft.push(batch)?;
        self.taken_seqno = batch.last_seqno();
        Ok(())
    }

    fn flush(&mut self) -> Result<Position> {
        self.finish_draft()?;
        self.send_all()?;
        self.receive()?;
        self.position()
    }

    fn last_seqno(&mut self) -> Result<Option<SeqNo>> {
        Ok(Some(self.acknowledged.0))
    }
}

impl std::fmt::Debug for NatsSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsSink").field("stream", &self.client.options.stream).finish_non_exhaustive()
    }
}
