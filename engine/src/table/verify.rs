//! Checking a whole table against itself.

use super::block::{Block, Reason};
use super::format::Handle;
use super::readahead::ReadAhead;
use super::reader::Table;
use crate::error::Result;
use crate::key::{Trailer, hash_key};

use bytes::Bytes;

/// What has been seen of the table so far.
#[derive(Default)]
struct Seen {
    entries: u64,
    tombstones: u64,
    user_bytes: u64,
    seqnos: Option<(u64, u64)>,
    last: Option<Trailer>,
    last_key: Vec<u8>,
    key: Vec<u8>,
}

impl Table {
    /// Reads every data block anew, whatever was verified or cached before, and checks its checksum, the order within
    /// and across blocks, that the index leads to it, that the filter knows every key, and at the end the counts of the
    /// properties. Answers with the number of data blocks.
    ///
    /// # Errors
    /// `Io`, or `Corruption` of the first block that does not fit.
    pub(crate) fn verify(&self) -> Result<u64> {
        self.index().check_order().map_err(|reason| self.damaged(Handle::default(), reason))?;
        let mut seen = Seen::default();
        let mut separator = (Vec::new(), Trailer(0));
        let mut ahead = ReadAhead::whole_pass();
        for ordinal in 0..self.index().len() {
            let handle = self.handle(ordinal)?;
            self.read_ahead(&mut ahead, ordinal, false)?;
            let block = self.read_block(ordinal)?;
            let mut check = || {
                block.check_order()?;
                block.key_into(0, &mut seen.key);
                if ordinal > 0 && !is_before((&separator.0, separator.1), (&seen.key, block.trailer(0))) {
                    return Err("a block that begins before the separator of the one before it");
                }
                self.see(&block, &mut seen)?;
                separator.1 = self.index().separator(ordinal, &mut separator.0);
                let last = seen.last.unwrap_or(Trailer(0));
                if is_before((&separator.0, separator.1), (&seen.last_key, last)) {
                    return Err("a block that ends after its separator");
                }
                Ok(())
            };
            check().map_err(|reason: Reason| self.damaged(handle, reason))?;
        }
        self.check_counts(&seen).map_err(|reason| self.damaged(Handle::default(), reason))?;
        Ok(self.index().len() as u64)
    }

    fn see(&self, block: &Block<Bytes>, seen: &mut Seen) -> Result<(), Reason> {
        for i in 0..block.len() {
            block.key_into(i, &mut seen.key);
            let trailer = block.trailer(i);
            if seen.last.is_none() && seen.key[..] != self.properties().smallest[..] {
                return Err("the first key is not the smallest of the properties");
            }
            if seen.last.is_some_and(|last| !is_before((&seen.last_key, last), (&seen.key, trailer))) {
                return Err("entries out of order");
            }
            if self.filter().is_some_and(|filter| !filter.may_contain(hash_key(&seen.key))) {
                return Err("a key that the filter denies");
            }
            seen.entries += 1;
            seen.tombstones += u64::from(trailer.is_delete());
            seen.user_bytes += (seen.key.len() + block.value(i).len()) as u64;
            let (least, most) = seen.seqnos.unwrap_or((trailer.seqno(), trailer.seqno()));
            seen.seqnos = Some((least.min(trailer.seqno()), most.max(trailer.seqno())));
            seen.last = Some(trailer);
            std::mem::swap(&mut seen.key, &mut seen.last_key);
        }
        Ok(())
    }

    fn check_counts(&self, seen: &Seen) -> Result<(), Reason> {
        let properties = self.properties();
        let counted = (seen.entries, seen.tombstones, seen.user_bytes, seen.seqnos.unwrap_or_default());
        let stated = (
            properties.entries,
            properties.tombstones,
            properties.user_bytes,
            (properties.min_seqno, properties.max_seqno),
        );
        if counted != stated || seen.last_key[..] != properties.largest[..] {
            return Err("the properties state other counts or bounds than the data blocks have");
        }
        Ok(())
    }
}

/// Whether one internal key comes before another. Kinds do not count: a key has one entry a sequence number, and a
/// separator's kind means nothing.
fn is_before(a: (&[u8], Trailer), b: (&[u8], Trailer)) -> bool {
    a.0 < b.0 || (a.0 == b.0 && a.1.seqno() > b.1.seqno())
}
