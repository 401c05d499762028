//! Where writing goes on.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use siltstone::SeqNo;
use siltstone::fs::{FileSystem, WritableFile};

use super::chain::{Listing, SegmentName};
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::reader::{Next, SegmentReader};
use super::segment::{create, remove_unfinished};
use crate::error::{Error, Result};

/// The last segment, ready to be written.
pub(super) struct Tail {
    pub(super) header: SegmentHeader,
    pub(super) file: Box<dyn WritableFile>,
    pub(super) file_bytes: u64,
    pub(super) last_seqno: SeqNo,
}

/// Puts the last segment, up to the end of its whole records, into a new file of the owner of `epoch`; what is torn is not
/// taken along. Syncing the file that was found would not do: if a sync of it failed in the process before, the system may
/// count pages as clean that never got to storage. Not even a mark is proof for itself, and the sealed segment will have
/// to be whole, marks included.
///
/// # Errors
/// `Corruption` for damage that is not a torn tail, `UnsupportedVersion`, `Io`.
pub(super) fn recover(fs: &Arc<dyn FileSystem>, directory: &Path, epoch: u64, now_ms: u64) -> Result<Tail> {
    remove_unfinished(fs, directory)?;
    let tail = match Listing::read(fs, directory)?.log().last() {
        None => fresh(fs, directory, 0, new_log_id(now_ms), epoch, now_ms)?,
        Some(&last) => take(fs, directory, last, epoch, now_ms)?,
    };
    remove_superseded(fs, directory)?;
    Ok(tail)
}

fn take(fs: &Arc<dyn FileSystem>, directory: &Path, last: SegmentName, epoch: u64, now_ms: u64) -> Result<Tail> {
    let mut reader = SegmentReader::open(fs, directory, last)?;
    // All there is was compacted, and what was shipped behind it is lost: only somebody's hand can have done that.
    if let Some(end) = reader.end {
        return fresh(fs, directory, end.last_seqno, reader.header.log_id, epoch, now_ms);
    }
    while let Next::Batch(_) = reader.next()? {}
    let (last_seqno, file_bytes) = (reader.last_seqno, reader.offset());
    let header = SegmentHeader { epoch, ..reader.header };
    let file = create(fs, directory, &header, Some((reader.file(), file_bytes)))?;
    Ok(Tail { header, file, file_bytes, last_seqno })
}

/// A segment without records behind `prev_seqno`.
pub(super) fn fresh(
    fs: &Arc<dyn FileSystem>,
    directory: &Path,
    prev_seqno: SeqNo,
    log_id: u64,
    epoch: u64,
    now_ms: u64,
) -> Result<Tail> {
    let header = SegmentHeader {
        log_id,
        prev_seqno,
        epoch,
        generation: 0,
        begun_ms: now_ms,
        clean_seqno: 0,
        deletes_seqno: 0,
        is_clean: false,
        is_whole: false,
    };
    let file = create(fs, directory, &header, None)?;
    Ok(Tail { header, file, file_bytes: SEGMENT_HEADER_BYTES, last_seqno: prev_seqno })
}

/// Removes the segments that are not the log any more.
pub(super) fn remove_superseded(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<()> {
    let listing = Listing::read(fs, directory)?;
    let log = listing.log();
    for (name, _) in listing.segments.iter().filter(|(name, _)| !log.contains(name)) {
        let path = name.path(directory);
        fs.remove_file(&path).map_err(Error::io("removing a segment", &path))?;
    }
    Ok(())
}

/// A number that no other log has: of the process's random seed and the date.
fn new_log_id(now_ms: u64) -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(now_ms);
    hasher.finish()
}
