//! The log in a repair: whether it is whole, and its operations where it is not.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use crate::batch::{Op, Ops};
use crate::error::{Error, Result};
use crate::fs::FileSystem;
use crate::version::salvage::Salvaged;
use crate::version::state::ManifestState;
use crate::wal;
use crate::wal::replay::{ReplayInput, replay};

use super::report::{Fate, RepairReport, RepairedFile};

/// The id of the database: as the manifest says, or else the log; a new one if neither does.
pub(super) fn database_id(fs: &dyn FileSystem, dir: &Path, manifest: &Salvaged) -> Result<u64> {
    let known = manifest.whole.as_ref().map_or(manifest.facts.state.database_id, |state| state.database_id);
    if known != 0 {
        return Ok(known);
    }
    let logged = wal::salvage::database_id(fs, dir)?;
    Ok(logged.unwrap_or_else(|| RandomState::new().hash_one(dir) | 1))
}

/// Whether the log replays as it should and can stay; then its segments are reported.
pub(super) fn is_whole(
    fs: &dyn FileSystem,
    dir: &Path,
    state: &ManifestState,
    report: &mut RepairReport,
) -> Result<bool> {
    let input = ReplayInput {
        database_id: state.database_id,
        floor_segment: state.log_floor.segment,
        synced_seqno: state.log_synced_seqno,
        prev_seqno_floor: state.log_floor.prev_seqno,
    };
    let mut records: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let replayed = replay(fs, dir, &input, true, &mut |_, count, payload, file, at| {
        check(count, payload).map_err(|reason| Error::corruption(file, at, reason))?;
        *records.entry(file.to_owned()).or_default() += 1;
        Ok(())
    });
    let replayed = replayed.and_then(|replayed| {
        wal::replay::check_padding(fs, state.database_id, &replayed.segments)?;
        Ok(replayed)
    });
    match replayed {
        Ok(replayed) => {
            if replayed.dropped_bytes > 0 {
                let note = format!(
                    "the end of the log was never synced and is not whole: the next open leaves out its last {} bytes, so \
                     that a prefix of the writes stays",
                    replayed.dropped_bytes
                );
                report.notes.push(note);
            }
            report.files.extend(replayed.segments.into_iter().map(|segment| RepairedFile {
                kept_entries: records.get(&segment.path).copied().unwrap_or(0),
                file: segment.path,
                fate: Fate::Kept,
                dropped_entries: Some(0),
                kept_bytes: segment.end,
                damage: Vec::new(),
            }));
            Ok(true)
        }
        Err(Error::Corruption { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a record holds what it states.
///
/// # Errors
/// Why not.
pub(super) fn check(count: u32, payload: &[u8]) -> Result<(), String> {
    let mut found = 0;
    for op in Ops::new(payload) {
        found += u32::from(!matches!(op?, Op::Metadata { .. }));
    }
    if found == count { Ok(()) } else { Err(format!("the record holds {found} operations instead of {count}")) }
}

/// Reports what was found of a log that is not whole.
pub(super) fn report_salvaged(log: &wal::salvage::Salvaged, dir: &Path, report: &mut RepairReport) {
    for segment in &log.segments {
        report.files.push(RepairedFile {
            file: segment.path.clone(),
            fate: Fate::Rewritten,
            kept_entries: segment.records,
            dropped_entries: None,
            kept_bytes: segment.bytes,
            damage: segment.damage.clone(),
        });
    }
    if log.segments.is_empty() {
        report.files.push(RepairedFile::missing(dir.join("*.wal"), "no segment of the log is there"));
    }
    report.holes.extend(log.holes.iter().map(|&(first, last)| first..=last));
    let note = format!(
        "the log was put into tables and begins anew after {}: consumers of the change log start from a snapshot",
        log.last_seqno
    );
    report.notes.push(note);
}
