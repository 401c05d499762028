//! The two ends of a shipped log.

use siltstone::{ChangeBatch, SeqNo};

use crate::error::{Error, Result};
use crate::position::Position;
use crate::scan::{Lending, Scan};

/// What a [`Source`] reads: each batch with the position *after* it, from which reading it on gives the next batch.
pub type Batches = Box<dyn Iterator<Item = Result<(Position, ChangeBatch)>> + Send>;

/// Where a mutation log is shipped to.
///
/// Delivery is at least once: after a crash batches come again that the sink already has. A sink skips them by their
/// sequence numbers, which only grow, or lets its source do so.
///
/// ```
/// use siltstone_changelog::{Position, Result, Sink};
/// /// Counts what it is given.
/// struct Counter(u64);
/// impl Sink for Counter {
///     fn append(&mut self, batch: &siltstone::ChangeBatch) -> Result<()> {
///         self.0 += batch.changes().len() as u64;
///         Ok(())
///     }
///     fn flush(&mut self) -> Result<Position> {
///         Position::from_bytes(self.0.to_string())
///     }
/// }
/// ```
pub trait Sink: Send {
    /// Takes a batch, all of it or none; it need not be durable before [`flush`](Sink::flush). Batches come in the
    /// order of their sequence numbers.
    ///
    /// # Errors
    /// Whatever goes wrong. After a [retryable](crate::Error::is_retryable) one the same batch is appended again.
    fn append(&mut self, batch: &ChangeBatch) -> Result<()>;

    /// Makes everything appended so far acknowledged and durable; the position after it.
    ///
    /// # Errors
    /// Whatever goes wrong. After a retryable one `flush` is called again: the sink keeps what it took.
    fn flush(&mut self) -> Result<Position>;

    /// The last sequence number the sink holds, 0 if it is empty, or `None` if it cannot tell (the default). A sink
    /// that can tell is protected against being used with the wrong database, and is not sent again what it has.
    ///
    /// # Errors
    /// Whatever goes wrong.
    fn last_seqno(&mut self) -> Result<Option<SeqNo>> {
        Ok(None)
    }
}

/// Where a shipped log is read back.
pub trait Source {
    /// The oldest position that can be read from, and the newest: the end of what is durable now.
    ///
    /// # Errors
    /// Whatever goes wrong.
    fn bounds(&self) -> Result<(Position, Position)>;

    /// The batches from `from` on, in order, to the end of what is there. An error is an item, and the last one.
    ///
    /// # Errors
    /// `PositionOutOfRange`, or whatever goes wrong.
    fn read(&self, from: &Position) -> Result<Batches>;

    /// As [`read`](Source::read), but what is read is lent. Default: what `read` gives is.
    ///
    /// # Errors
    /// As [`read`](Source::read).
    fn scan(&self, from: &Position) -> Result<Box<dyn Scan>> {
        Ok(Box::new(Lending::new(self.read(from)?, from)))
    }

    /// Whether what is read from the oldest position on comes to the whole state, also where the first batch is not
    /// number 1, because compaction left out what later changes replace. `None` if the source cannot tell (the default):
    /// then the first batch's number decides.
    ///
    /// # Errors
    /// Whatever goes wrong.
    fn holds_whole_state(&self) -> Result<Option<bool>> {
        Ok(None)
    }

    /// The last sequence number before `position`, if the source can tell. Default: it cannot.
    ///
    /// # Errors
    /// `InvalidArgument` for what is none of its positions.
    fn seqno_at(&self, position: &Position) -> Result<Option<SeqNo>> {
        let _ = position;
        Ok(None)
    }

    /// Whether what is read up to `position` comes to the state of that moment, which compaction of what lies behind it may
    /// have changed. Default: it does.
    ///
    /// # Errors
    /// Whatever goes wrong.
    fn is_exact(&self, position: &Position) -> Result<bool> {
        let _ = position;
        Ok(true)
    }
}

impl<S: Sink + ?Sized> Sink for Box<S> {
    fn append(&mut self, batch: &ChangeBatch) -> Result<()> {
        (**self).append(batch)
    }

    fn flush(&mut self) -> Result<Position> {
        (**self).flush()
    }

    fn last_seqno(&mut self) -> Result<Option<SeqNo>> {
        (**self).last_seqno()
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn bounds(&self) -> Result<(Position, Position)> {
        (**self).bounds()
    }

    fn read(&self, from: &Position) -> Result<Batches> {
        (**self).read(from)
    }

    fn scan(&self, from: &Position) -> Result<Box<dyn Scan>> {
        (**self).scan(from)
    }

    fn holds_whole_state(&self) -> Result<Option<bool>> {
        (**self).holds_whole_state()
    }

    fn seqno_at(&self, position: &Position) -> Result<Option<SeqNo>> {
        (**self).seqno_at(position)
    }

    fn is_exact(&self, position: &Position) -> Result<bool> {
        (**self).is_exact(position)
    }
}

/// The batches that `next` gives, until one is an error. After its end it may go on.
pub(crate) fn until_error(
    mut next: impl FnMut() -> Result<Option<(Position, ChangeBatch)>> + Send + 'static,
) -> Batches {
    let mut failed = false;
    Box::new(std::iter::from_fn(move || {
        let batch = if failed { None } else { next().transpose() };
        failed |= matches!(batch, Some(Err(_)));
        batch
    }))
}

/// Whether a log that goes up to `last` lacks `batch`.
///
/// # Errors
/// `Mismatch` if it has a part of it.
pub(crate) fn is_new(batch: &ChangeBatch, last: SeqNo) -> Result<bool> {
    if batch.last_seqno() <= last || batch.first_seqno() > last {
        return Ok(batch.first_seqno() > last);
    }
    Err(Error::Mismatch(format!(
        "a batch of numbers {} to {}, of which the log has those up to {last}",
        batch.first_seqno(),
        batch.last_seqno()
    )))
}
