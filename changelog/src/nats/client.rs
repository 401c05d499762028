//! A connection, and the one stream.

use std::future::Future;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, context, stream};
use bytes::Bytes;
use siltstone::SeqNo;
use tokio::runtime::Runtime;

use super::message::{HEADER, Refused, Stamp};
use super::options::NatsOptions;
use crate::error::{Error, Result};

/// A connection, with the threads that keep it alive between calls.
pub(super) struct Client {
    runtime: Runtime,
    pub(super) context: jetstream::Context,
    /// The most that a message may have, in bytes.
    pub(super) max_payload_bytes: usize,
    pub(super) options: NatsOptions,
}

/// What the stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// When the stream was created, in nanoseconds since 1970.
    pub(super) created: u64,
    pub(super) first_sequence: u64,
    /// 0 before the first message.
    pub(super) last_sequence: u64,
}

/// A message of the stream.
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) stamp: Stamp,
    pub(super) payload: Bytes,
}

/// An error of the client library; `retryable` if a server that comes back makes it go away.
pub(super) fn foreign(error: impl std::error::Error + Send + Sync + 'static, retryable: bool) -> Error {
    Error::Foreign { source: Box::new(error), retryable }
}

impl Client {
    pub(super) fn connect(options: &NatsOptions) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("siltstone-nats")
            .enable_all()
            .build()
            .map_err(|error| foreign(error, false))?;
        let connecting = options.connect_options()?.connect(options.servers()?);
        let client = runtime.block_on(connecting).map_err(|error| foreign(error, true))?;
        let max_payload_bytes = client.server_info().max_payload;
        // It begins a task of its own.
        let inside = runtime.enter();
        let context = context::ContextBuilder::new().timeout(options.request_timeout).build(client);
        drop(inside);
        Ok(Client { runtime, context, max_payload_bytes, options: options.clone() })
    }

    pub(super) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Makes the stream, if it is missing.
    pub(super) fn create_stream(&self) -> Result<()> {
        let created = self.wait(self.context.get_or_create_stream(self.options.stream_config()));
        created.map(drop).map_err(|error| foreign(error, true))
    }

    /// The stream; none if it is missing.
    pub(super) fn stream(&self) -> Result<Option<(stream::Stream, Extent)>> {
        match self.wait(self.context.get_stream(&self.options.stream)) {
            Ok(stream) => {
                let info = stream.cached_info();
                let created = u64::try_from(info.created.unix_timestamp_nanos()).unwrap_or_default();
                let (first_sequence, last_sequence) = (info.state.first_sequence, info.state.last_sequence);
                let extent = Extent { created, first_sequence, last_sequence };
                Ok(Some((stream, extent)))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(foreign(error, true)),
        }
    }

    /// The message at a place of the stream.
    pub(super) fn message(&self, stream: &stream::Stream, sequence: u64) -> Result<Stored> {
        let found = self.wait(stream.get_raw_message(sequence)).map_err(|error| foreign(error, true))?;
        let stamp = self.stamp(Some(&found.headers), sequence)?;
        Ok(Stored { sequence, stamp, payload: found.payload })
    }

    pub(super) fn stamp(&self, headers: Option<&HeaderMap>, sequence: u64) -> Result<Stamp> {
        let header = headers.and_then(|headers| headers.get(HEADER)).map(|value| value.as_str());
        Stamp::decode(header).map_err(|reason| self.refused(sequence, reason))
    }

    /// Why the message at `sequence` is none of a log.
    pub(super) fn refused(&self, sequence: u64, refused: Refused) -> Error {
        let file = self.options.stream.clone().into();
        match refused {
            Refused::Newer(version) => {
                Error::UnsupportedVersion { file, reason: format!("message {sequence} has format version {version}") }
            }
            Refused::Malformed(reason) => Error::Corruption { file, offset: sequence, reason: reason.to_owned() },
        }
    }

    /// The last number in the stream, the parts of a batch whose last part is missing left out, and where the message
    /// that it is in begins.
    pub(super) fn last_whole(&self, stream: &stream::Stream, extent: Extent) -> Result<(SeqNo, u64)> {
        let mut sequence = extent.last_sequence;
        while sequence > 0 && sequence >= extent.first_sequence {
            let stored = self.message(stream, sequence)?;
            if !stored.stamp.is_claim() && stored.stamp.part == stored.stamp.parts {
                return Ok((stored.stamp.last, stored.stamp.first_part(sequence)));
            }
            sequence -= 1;
        }
        Ok((0, 0))
    }
}

fn is_missing(error: &context::GetStreamError) -> bool {
    matches!(
        error.kind(),
        context::GetStreamErrorKind::JetStream(error) if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND
    )
}
