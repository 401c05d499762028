//! [`NatsSource`]: the reading end.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt;
use siltstone::{ChangeBatch, SeqNo};

use super::client::{Client, Extent, Stored, foreign};
use super::message::{Refused, Stamp, batches};
use super::options::NatsOptions;
use super::place::Place;
use crate::codec::DecodeError;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::sink::{Batches, Source, until_error};

/// How many messages are asked for at once.
const FETCH_MESSAGES: usize = 64;

/// How long the server keeps a reader's place while that does not ask.
const INACTIVE: Duration = Duration::from_secs(60);

/// Reads what a [`NatsSink`](crate::NatsSink) ships; see [`NatsOptions`]. It changes nothing.
///
/// A stream that is missing is an empty log.
#[derive(Clone, Debug)]
pub struct NatsSource {
    options: NatsOptions,
}

impl NatsSource {
    /// A source of the log; the server is asked when it is read.
    pub fn open(options: NatsOptions) -> Self {
        NatsSource { options }
    }
}

/// The first and the last place.
fn bounds(client: &Client) -> Result<(Place, Place)> {
    let Some((stream, extent)) = client.stream()? else {
        let nowhere = Place { stream: 0, sequence: 0, seqno: 0 };
        return Ok((nowhere, nowhere));
    };
    let (seqno, sequence) = client.last_whole(&stream, extent)?;
    let newest = Place { stream: extent.created, sequence, seqno };
    let oldest = Place { sequence: extent.first_sequence, seqno: 0, ..newest };
    Ok(if seqno == 0 { (oldest, oldest) } else { (oldest, newest) })
}

impl Source for NatsSource {
    fn bounds(&self) -> Result<(Position, Position)> {
        let (oldest, newest) = bounds(&Client::connect(&self.options)?)?;
        Ok((oldest.to_position()?, newest.to_position()?))
    }

    fn seqno_at(&self, position: &Position) -> Result<Option<SeqNo>> {
        Ok(Some(Place::of(position)?.seqno))
    }

    /// After its end the iterator goes on when the log has grown.
    fn read(&self, from: &Position) -> Result<Batches> {
        let client = Client::connect(&self.options)?;
        let place = Place::of(from)?;
        let (oldest, newest) = bounds(&client)?;
        if place.stream != newest.stream && place.stream != 0 {
            let stream = &self.options.stream;
            return Err(Error::Mismatch(format!(
                "position {from} is of another stream than {stream}, or of one before it"
            )));
        }
        if place.seqno > newest.seqno || (place.seqno > 0 && place.sequence < oldest.sequence) {
            let (oldest, newest) = (oldest.to_position()?, newest.to_position()?);
            return Err(Error::PositionOutOfRange { position: from.clone(), oldest, newest });
        }
        let next_sequence = place.sequence.max(oldest.sequence).max(1);
        let mut following = Following {
            client,
            stream: newest.stream,
            after_seqno: place.seqno,
            next_sequence,
            last_sequence: 0,
            consumer: None,
            fetched: VecDeque::new(),
            parts: Vec::new(),
            ready: VecDeque::new(),
        };
        Ok(until_error(move || following.next_batch()))
    }
}

/// Reads message after message.
struct Following {
    client: Client,
    /// When the stream was created.
    stream: u64,
    after_seqno: SeqNo,
    next_sequence: u64,
    /// How far the stream goes, as far as is known.
    last_sequence: u64,
    consumer: Option<Consumer<pull::Config>>,
    fetched: VecDeque<Stored>,
    /// The parts so far of what the next messages complete.
    parts: Vec<Stored>,
    /// Batches of the message that was read last, and the place of each.
    ready: VecDeque<(u64, ChangeBatch)>,
}

impl Following {
    fn next_batch(&mut self) -> Result<Option<(Position, ChangeBatch)>> {
        loop {
            if let Some((sequence, batch)) = self.ready.pop_front() {
                if batch.last_seqno() <= self.after_seqno {
                    continue;
                }
                self.after_seqno = batch.last_seqno();
                let place = Place { stream: self.stream, sequence, seqno: self.after_seqno };
                return Ok(Some((place.to_position()?, batch)));
            }
            match self.next_message()? {
                Some(message) => self.take(message)?,
                None => return Ok(None),
            }
        }
    }

    /// Adds a message to the parts before it, and reads them if it is the last.
    fn take(&mut self, message: Stored) -> Result<()> {
        let follows = |last: &Stored| {
            last.stamp == Stamp { part: last.stamp.part, ..message.stamp } && last.stamp.part + 1 == message.stamp.part
        };
        if self.parts.last().is_some_and(|last| !follows(last)) {
            // Their writer was fenced or lost; they come again, if at all.
            self.parts.clear();
        }
        if message.stamp.is_claim() || (self.parts.is_empty() && message.stamp.part > 1) {
            return Ok(());
        }
        let is_last = message.stamp.part == message.stamp.parts;
        self.parts.push(message);
        if !is_last {
            return Ok(());
        }
        let parts = std::mem::take(&mut self.parts);
        let payload = match &parts[..] {
            [only] => only.payload.clone(),
            parts => parts.iter().map(|part| &part.payload[..]).collect::<Vec<_>>().concat().into(),
        };
        let sequence = parts[0].sequence;
        let decoded = batches(&payload).map_err(|error| match error {
            DecodeError::Malformed(reason) => self.client.refused(sequence, Refused::Malformed(reason)),
            DecodeError::UnknownKind(kind) => self.client.refused(sequence, Refused::Newer(kind.into())),
        })?;
        self.ready.extend(decoded.into_iter().map(|batch| (sequence, batch)));
        Ok(())
    }

    /// The next message, or none at the end of the stream.
    fn next_message(&mut self) -> Result<Option<Stored>> {
        if self.fetched.is_empty() && self.next_sequence > self.last_sequence {
            self.look()?;
        }
        if self.fetched.is_empty() && self.next_sequence <= self.last_sequence {
            self.fetch()?;
        }
        Ok(self.fetched.pop_front())
    }

    /// Finds out how far the stream goes now.
    fn look(&mut self) -> Result<Option<(Stream, Extent)>> {
        let found = self.client.stream()?;
        if let Some((_, extent)) = &found {
            if self.stream == 0 {
                self.stream = extent.created;
            }
            if extent.created != self.stream {
                let stream = &self.client.options.stream;
                return Err(Error::Mismatch(format!("the stream {stream} was deleted and made anew")));
            }
            self.last_sequence = extent.last_sequence;
            self.next_sequence = self.next_sequence.max(extent.first_sequence);
        }
        Ok(found)
    }

    fn fetch(&mut self) -> Result<()> {
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.consume()?,
        };
        let wanted = (self.last_sequence + 1 - self.next_sequence).min(FETCH_MESSAGES as u64) as usize;
        let fetching = async {
            let mut messages =
                consumer.fetch().max_messages(wanted).messages().await.map_err(|error| foreign(error, true))?;
            let mut fetched = Vec::with_capacity(wanted);
            while let Some(message) = messages.next().await {
                let message = message.map_err(|source| Error::Foreign { source, retryable: true })?;
                let sequence =
                    message.info().map_err(|source| Error::Foreign { source, retryable: true })?.stream_sequence;
                let stamp = self.client.stamp(message.headers.as_ref(), sequence)?;
                fetched.push(Stored { sequence, stamp, payload: message.payload.clone() });
            }
            Ok::<_, Error>(fetched)
        };
        let fetched = self.client.wait(fetching)?;
        let Some(last) = fetched.last() else {
            let source =
                format!("no answer about message {} of {}", self.next_sequence, self.client.options.stream).into();
            return Err(Error::Foreign { source, retryable: true });
        };
        self.next_sequence = last.sequence + 1;
        self.fetched.extend(fetched);
        self.consumer = Some(consumer);
        Ok(())
    }

    /// A place of the server's that begins with the next message.
    fn consume(&mut self) -> Result<Consumer<pull::Config>> {
        let Some((stream, _)) = self.look()? else {
            return Err(Error::Mismatch(format!("the stream {} is missing", self.client.options.stream)));
        };
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next_sequence },
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            ..pull::Config::default()
        };
        self.client.wait(stream.create_consumer(config)).map_err(|error| foreign(error, true))
    }
}
