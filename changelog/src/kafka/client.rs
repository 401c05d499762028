//! The client library's errors in this crate's words, and what reached the broker.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::error::Error;

/// Errors that a broker which restarts, or a network that comes back, makes go away.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::MessageTimedOut
            | Code::RequestTimedOut
            | Code::QueueFull
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::ConcurrentTransactions
            | Code::NotController
            | Code::PurgeQueue
            | Code::PurgeInflight
            // The transaction is lost: it is aborted, and all of it sent again.
            | Code::State
    )
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// The code of an error, if it has one.
pub(super) fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        _ => error.rdkafka_error_code(),
    }
}

/// Whether a topic is missing.
pub(super) fn is_missing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code(error), Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition))
}

/// `error` of a call on the log with this prefix.
pub(super) fn kafka_error(prefix: &str, error: KafkaError) -> Error {
    let code = code(&error);
    if code.is_some_and(is_fenced) {
        return Error::Fenced { log: prefix.to_owned() };
    }
    let retryable = match &error {
        KafkaError::Transaction(error) if error.is_fatal() => false,
        KafkaError::Transaction(error) if error.is_retriable() || error.txn_requires_abort() => true,
        _ => code.is_some_and(is_passing),
    };
    Error::Foreign { source: Box::new(error), retryable }
}

/// Whether the transaction is lost, and all of it has to be sent again in a new one.
pub(super) fn requires_abort(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.txn_requires_abort())
}

/// Whether nothing more can be done with this producer though nobody fenced it: a broker that restarted knows nothing of
/// its transaction.
pub(super) fn is_lost(error: &KafkaError) -> bool {
    code(error) == Some(RDKafkaErrorCode::InvalidTransactionalState)
}

/// What the broker acknowledged of the transaction that is open.
///
/// Who waits for it waits here, and not in the client library's flush: that looks for events of its own for 100 ms at a
/// time, which the thread that hears of deliveries takes from it.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    delivered: Mutex<Delivered>,
    changed: Condvar,
}

/// See [`Deliveries`].
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// How many records were handed over of which nothing was heard yet.
    outstanding: u64,
    /// By topic and partition: the offset of the first record, and that behind the last.
    pub(super) offsets: HashMap<(String, i32), (i64, i64)>,
    /// Why a record did not get there.
    pub(super) failed: Option<KafkaError>,
}

impl Deliveries {
    /// A record is handed to the client library.
    pub(super) fn sending(&self) {
        self.delivered.lock().outstanding += 1;
    }

    /// It was not taken.
    pub(super) fn not_sent(&self) {
        self.delivered.lock().outstanding -= 1;
    }

    /// What there is since the last call, once something was heard of every record.
    ///
    /// # Errors
    /// That of the client library's flush if that takes longer than `timeout`.
    pub(super) fn wait(&self, timeout: Duration) -> Result<Delivered, KafkaError> {
        let deadline = Instant::now() + timeout;
        let mut delivered = self.delivered.lock();
        while delivered.outstanding > 0 {
            if self.changed.wait_until(&mut delivered, deadline).timed_out() {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
        }
        Ok(std::mem::take(&mut delivered))
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut delivered = self.delivered.lock();
        delivered.outstanding -= 1;
        match result {
            Ok(message) => {
                let offset = message.offset();
                let place = (message.topic().to_owned(), message.partition());
                let (first, end) = delivered.offsets.entry(place).or_insert((offset, offset + 1));
                (*first, *end) = ((*first).min(offset), (*end).max(offset + 1));
            }
            Err((error, _)) => delivered.failed = delivered.failed.take().or_else(|| Some(error.clone())),
        }
        if delivered.outstanding == 0 {
            self.changed.notify_all();
        }
    }
}
