//! [`Moment`]: what a flush has to make durable beside its table, and what the manifest says of the log that is left.

use std::collections::BTreeMap;

use crate::key::SeqNo;
use crate::metadata::Metadata;
use crate::version::edit::{Edit, LogFloor};
use crate::version::state::ManifestState;
use crate::wal::{Floor, Mark, Wal};

/// What was true at some moment and would be lost with the log that goes.
///
/// None of it may be ahead of the log that is on storage when the manifest says it: after a power cut data and position
/// would disagree, and numbers be passed over that the log never gave.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    metadata: BTreeMap<String, Vec<u8>>,
    last_seqno: SeqNo,
    /// Read last, so that it covers the others.
    mark: Mark,
}

impl Moment {
    /// This one, of a database whose last visible number is `last_seqno`. Under the commit lock, where nothing is written
    /// meanwhile, all parts of it say the same.
    pub(crate) fn now(last_seqno: SeqNo, metadata: &Metadata, wal: &Wal) -> Self {
        let metadata = metadata.encoded();
        Moment { metadata, last_seqno, mark: wal.mark() }
    }

    /// How far the log went.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// Says how far the log is synced, and where it begins if that moves on.
    pub(crate) fn edit(self, state: &ManifestState, wal: &Wal, floor: Option<Floor>) -> Edit {
        let synced_seqno = wal.synced_seqno().max(self.mark.seqno());
        let edit = Edit { log_synced_seqno: Some(synced_seqno.max(state.log_synced_seqno)), ..Edit::default() };
        let Some(floor) = floor.filter(|floor| floor.segment > state.log_floor.segment) else { return edit };
        let forgotten = state.dropped.iter().filter(|(_, dropped)| dropped.seqno <= floor.prev_seqno);
        Edit {
            log_floor: Some(LogFloor { segment: floor.segment, prev_seqno: floor.prev_seqno }),
            last_seqno: Some(self.last_seqno.max(state.last_seqno)),
            metadata: Some(self.metadata),
            forgotten: forgotten.map(|(id, _)| *id).collect(),
            ..edit
        }
    }
}
