//! Where shipping begins: the database's cursor and the sink have to agree.

use siltstone::{Db, SeqNo};

use super::options::ShipOptions;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::restore::SOURCE_POSITION;
use crate::sink::Sink;

/// The metadata entry that holds the sink's position for a cursor.
pub(crate) fn position_entry(cursor: &str) -> String {
    format!("changelog/{cursor}/position")
}

/// The first sequence number to ship, and the position before it, as far as it is known.
///
/// A sink may hold more than was noted here: it took batches, and the process or the power went before it acknowledged
/// them or before that was noted. They are not sent again, so it has to acknowledge them now.
pub(super) fn find(db: &Db, sink: &mut dyn Sink, options: &ShipOptions) -> Result<(SeqNo, Option<Position>)> {
    let held = sink.last_seqno()?;
    let (next, position) = first_unsent(db, held, options)?;
    match held {
        Some(held) if held >= next => Ok((held + 1, Some(sink.flush()?))),
        _ => Ok((next, position)),
    }
}

/// The first sequence number that is not noted as acknowledged, or where shipping begins, and the position noted.
fn first_unsent(db: &Db, held: Option<SeqNo>, options: &ShipOptions) -> Result<(SeqNo, Option<Position>)> {
    let last = db.last_seqno();
    if let Some(held) = held.filter(|&held| held > last) {
        return Err(Error::Mismatch(format!(
            "the sink goes up to sequence number {held}, the database only to {last}: restore it from the sink first"
        )));
    }
    let position = match db.metadata(&position_entry(&options.cursor)) {
        Some(bytes) => Some(Position::from_bytes(bytes)?),
        None => None,
    };
    let Some(next) = db.change_cursor(&options.cursor) else {
        return Ok((first_start(db, held, options)?, None));
    };
    match held {
        Some(held) if held + 1 < next && position.is_some() => Err(Error::Mismatch(format!(
            "sequence number {} was acknowledged, but the sink only goes up to {held}: it is another one, or it lost data",
            next - 1
        ))),
        _ => Ok((next, position)),
    }
}

/// Where shipping begins without a cursor: with what the sink holds last, if it holds anything.
fn first_start(db: &Db, held: Option<SeqNo>, options: &ShipOptions) -> Result<SeqNo> {
    let oldest = match db.changes(1) {
        Ok(_) => 1,
        Err(siltstone::Error::NotRetained { oldest, .. }) => oldest,
        Err(error) => return Err(error.into()),
    };
    match held {
        // The cursor is on storage before the first batch is sent: without one, only a restore explains what the sink
        // holds.
        Some(held) if held > 0 && db.metadata(SOURCE_POSITION).is_none() => Err(Error::Mismatch(format!(
            "the sink goes up to sequence number {held}, but the database was neither restored from it nor shipped to it under the cursor {:?}",
            options.cursor
        ))),
        Some(held) if held > 0 && oldest <= held + 1 => Ok(held),
        Some(held) if held > 0 => Err(Error::NotRetained { requested: held + 1, oldest }),
        _ if oldest > 1 && !options.allow_partial => {
            let hint = "ship before the first flush of the database, or allow a partial log";
            Err(Error::Partial { first: oldest, hint })
        }
        _ => Ok(oldest),
    }
}
