//! [`Record`]: an entry of a memtable, as it lies in the arena.

#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::arena::Arena;
use crate::key::Trailer;
use crate::prefetch::prefetch_lines;

/// An entry's bytes: this header, then the key, then the value. Never changes once it is pointed to.
#[repr(C)]
pub(super) struct Record {
    pub(super) trailer: Trailer,
    value_bytes: u32,
    key_bytes: u16,
}

impl Record {
    /// Puts an entry into the arena. Key: at most 65,535 bytes; value: at most 1 GiB.
    pub(super) fn allocate(arena: &mut Arena, key: &[u8], trailer: Trailer, value: &[u8]) -> NonNull<Record> {
        let header = size_of::<Record>();
        let place = arena.allocate(header + key.len() + value.len(), align_of::<Record>());
        let record: NonNull<Record> = place.cast();
        // SAFETY: the arena gave room for header, key and value at an address fit for a record, to nobody else.
        unsafe {
            record.write(Record { trailer, value_bytes: value.len() as u32, key_bytes: key.len() as u16 });
            let bytes = place.add(header);
            bytes.copy_from_nonoverlapping(NonNull::from(key).cast(), key.len());
            bytes.add(key.len()).copy_from_nonoverlapping(NonNull::from(value).cast(), value.len());
        }
        record
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Record>() + usize::from(self.key_bytes) + self.value_bytes as usize
    }

    /// Where key and value lie.
    #[inline]
    fn data(&self) -> *const u8 {
        std::ptr::from_ref(self).wrapping_add(1).cast()
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        // SAFETY: records exist only as `allocate` made them, in an arena that outlives this borrow: `key_bytes` of key
        // follow the header.
        unsafe { std::slice::from_raw_parts(self.data(), self.key_bytes.into()) }
    }

    #[inline]
    pub(super) fn value(&self) -> &[u8] {
        let start = self.data().wrapping_add(self.key_bytes.into());
        // SAFETY: as in `key`; the value follows the key.
        unsafe { std::slice::from_raw_parts(start, self.value_bytes as usize) }
    }

    /// Asks the processor to fetch header, key and the beginning of the value.
    #[inline]
    pub(super) fn prefetch(record: *const Record) {
        prefetch_lines(record, 3);
    }
}
