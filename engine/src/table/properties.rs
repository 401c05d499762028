//! What a table says of itself.
//!
//! Payload, little-endian: `entries u64 | tombstones u64 | user bytes u64 | smallest seqno u64 | largest seqno u64 |
//! data blocks u64 | filter probes u16 | flags u16 | length of smallest key u16 | of largest key u16 | smallest key |
//! largest key | keyspace id u32 | flushed seqno u64 | name of the keyspace, to the end`. Flag 1: the table was
//! ingested, see [`Origin::ingested`].

use bytes::Bytes;

use super::TableMeta;
use super::block::Reason;
use crate::batch::KeyspaceId;
use crate::key::{MAX_SEQNO, SeqNo};

const FIXED_BYTES: usize = 56;

const ORIGIN_BYTES: usize = 12;

/// The flag of an ingested table.
const INGESTED: u16 = 1;

/// Where a table comes from: enough to give it back to its keyspace if the manifest is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The keyspace's id, which is never used for another one.
    pub(crate) keyspace: KeyspaceId,
    /// Its name, which never changes.
    pub(crate) name: String,
    /// Every write to the keyspace up to this number was in tables when this one was written. What its entries say is
    /// no substitute: at the bottom they have number 0.
    pub(crate) flushed_seqno: SeqNo,
    /// Whether the table was written before its entries got their number. All have one and the same; the manifest says
    /// which. The table itself states the next number at the time when the ingest began, which is the least it can be.
    pub(crate) ingested: bool,
}

/// A table's counts and bounds, kept in the file; an empty table has zeros and empty keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    /// Entries, tombstones included.
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    /// Keys and values as the user gave them.
    pub(crate) user_bytes: u64,
    pub(crate) min_seqno: SeqNo,
    pub(crate) max_seqno: SeqNo,
    pub(crate) data_blocks: u64,
    /// Bits a key sets in the filter; 0 without one.
    pub(crate) filter_probes: u32,
    /// First and last user key.
    pub(crate) smallest: Bytes,
    pub(crate) largest: Bytes,
    pub(crate) origin: Origin,
}

impl Properties {
    /// Appends the payload. Keys are at most `MAX_KEY_BYTES` long.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let numbers =
            [self.entries, self.tombstones, self.user_bytes, self.min_seqno, self.max_seqno, self.data_blocks];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        // At most `MAX_PROBES`.
        out.extend_from_slice(&(self.filter_probes as u16).to_le_bytes());
        out.extend_from_slice(&(if self.origin.ingested { INGESTED } else { 0 }).to_le_bytes());
        out.extend_from_slice(&(self.smallest.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.largest.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.smallest);
        out.extend_from_slice(&self.largest);
        out.extend_from_slice(&self.origin.keyspace.to_le_bytes());
        out.extend_from_slice(&self.origin.flushed_seqno.to_le_bytes());
        out.extend_from_slice(self.origin.name.as_bytes());
    }

    /// Reads what [`encode`](Properties::encode) wrote.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Reason> {
        let (fixed, keys) = payload.split_first_chunk::<FIXED_BYTES>().ok_or("properties cut short")?;
        let (numbers, _) = fixed.as_chunks::<8>();
        let [entries, tombstones, user_bytes, min_seqno, max_seqno, data_blocks, lengths] =
            std::array::from_fn(|i| u64::from_le_bytes(numbers[i]));
        let (filter_probes, flags) = (lengths as u16, (lengths >> 16) as u16);
        let (smallest_bytes, largest_bytes) = ((lengths >> 32) as u16, (lengths >> 48) as u16);
        let (smallest, largest) = keys.split_at_checked(smallest_bytes.into()).ok_or("properties cut short")?;
        let (largest, origin) = largest.split_at_checked(largest_bytes.into()).ok_or("properties cut short")?;
        let (origin, name) = origin.split_first_chunk::<ORIGIN_BYTES>().ok_or("properties cut short")?;
        let name = std::str::from_utf8(name).map_err(|_| "a keyspace's name that is not UTF-8")?;
        let [k0, k1, k2, k3, s0, s1, s2, s3, s4, s5, s6, s7] = *origin;
        let flushed_seqno = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let ingested = flags & INGESTED != 0;
        if flags & !INGESTED != 0 {
            return Err("unknown flags in the properties");
        }
        if tombstones > entries
            || (ingested && (tombstones > 0 || min_seqno != max_seqno))
            || data_blocks > entries
            || min_seqno > max_seqno
            || max_seqno > MAX_SEQNO
            || flushed_seqno > MAX_SEQNO
            || smallest > largest
        {
            return Err("properties that contradict each other");
        }
        Ok(Properties {
            entries,
            tombstones,
            user_bytes,
            min_seqno,
            max_seqno,
            data_blocks,
            filter_probes: filter_probes.into(),
            smallest: Bytes::copy_from_slice(smallest),
            largest: Bytes::copy_from_slice(largest),
            origin: Origin {
                keyspace: u32::from_le_bytes([k0, k1, k2, k3]),
                name: name.to_owned(),
                flushed_seqno,
                ingested,
            },
        })
    }

    /// What the manifest keeps.
    pub(crate) fn meta(&self, number: u64, file_bytes: u64) -> TableMeta {
        TableMeta {
            number,
            file_bytes,
            user_bytes: self.user_bytes,
            entries: self.entries,
            tombstones: self.tombstones,
            smallest: self.smallest.clone(),
            largest: self.largest.clone(),
            min_seqno: self.min_seqno,
            max_seqno: self.max_seqno,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_round_trip_and_no_cut_passes() {
        let properties = Properties {
            entries: 10,
            tombstones: 3,
            user_bytes: 1 << 40,
            min_seqno: 4,
            max_seqno: MAX_SEQNO,
            data_blocks: 2,
            filter_probes: 6,
            smallest: Bytes::from_static(b"a"),
            largest: Bytes::from(vec![b'z'; 65_535]),
            origin: Origin { keyspace: 7, name: "silt".into(), flushed_seqno: 12, ingested: false },
        };
        let mut out = Vec::new();
        properties.encode(&mut out);
        assert_eq!(Properties::decode(&out), Ok(properties.clone()));
        for cut in (0..100).chain([out.len() - 17]) {
            assert!(Properties::decode(&out[..cut]).is_err(), "cut at {cut}");
        }
        let refused = |change: fn(&mut Properties)| {
            let mut changed = properties.clone();
            change(&mut changed);
            let mut out = Vec::new();
            changed.encode(&mut out);
            Properties::decode(&out).is_err()
        };
        assert!(refused(|p| p.tombstones = 11));
        assert!(refused(|p| p.data_blocks = 11));
        assert!(refused(|p| p.max_seqno = MAX_SEQNO + 1));
        assert!(refused(|p| p.min_seqno = MAX_SEQNO + 1));
        assert!(refused(|p| p.smallest = Bytes::from_static(b"\xff")));
        assert!(refused(|p| p.origin.flushed_seqno = MAX_SEQNO + 1));
        assert!(refused(|p| p.origin.ingested = true), "with tombstones and several numbers");
        let ingested = |p: &mut Properties| {
            (p.tombstones, p.min_seqno, p.max_seqno) = (0, 4, 4);
            p.origin.ingested = true;
        };
        assert!(!refused(ingested));
        out[50] = 2;
        assert!(Properties::decode(&out).is_err(), "a flag of a newer release");
    }
}
