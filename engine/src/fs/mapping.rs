//! Shared memory mappings: the one place of the filesystem layer that needs `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::Arc;

use bytes::Bytes;
#[cfg(target_os = "linux")]
use memmap2::UncheckedAdvice;
use memmap2::{Advice, Mmap, MmapOptions, MmapRaw};

use super::{MappedFile, MappedSync};
use crate::prefetch::prefetch_next_write;

/// A sync of this many bytes and more takes them out of the page tables before, see [`Mapping::unmap`].
const UNMAP_BYTES: usize = 64 << 10;

/// A writable shared mapping of a whole file. No reference into it is ever made: it is written through
/// [`MappingWriter`] and made durable through this type; readers use `pread`.
#[derive(Debug)]
struct Mapping(MmapRaw);

/// The only writer of a [`Mapping`]; not `Clone`, and writing needs `&mut`, so no two writes happen at once.
#[derive(Debug)]
pub(super) struct MappingWriter {
    mapping: Arc<Mapping>,
    len: u64,
    /// For [`fill`](MappedFile::fill) alone.
    file: File,
    is_filled: bool,
}

/// How many zeros a file is filled with at once: what the system keeps as one piece of memory, up to a large page, where
/// the filesystem can (on Linux ext4 since 6.16).
const PIECE_BYTES: usize = 2 << 20;

/// Writes `len` zeros from the beginning of `file` on, `piece_bytes` at once.
///
/// # Errors
/// What the system says.
pub(super) fn write_zeros(file: &File, len: u64, piece_bytes: usize) -> io::Result<()> {
    let zeros = vec![0; piece_bytes.min(usize::try_from(len).unwrap_or(piece_bytes))];
    let mut offset = 0;
    while offset < len {
        let part = (len - offset).min(zeros.len() as u64);
        file.write_all_at(&zeros[..part as usize], offset)?;
        offset += part;
    }
    Ok(())
}

impl MappingWriter {
    /// Maps the first `len` bytes of `file` for writing. The file must have that length and keep it while mapped, or a
    /// later write is a signal.
    ///
    /// # Errors
    /// What `mmap` answers, or `InvalidInput` if `len` exceeds the address space.
    pub(super) fn new(file: File, len: u64) -> io::Result<Self> {
        let bytes = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mapping = Arc::new(Mapping(MmapOptions::new().len(bytes).map_raw(&file)?));
        Ok(MappingWriter { mapping, len, file, is_filled: false })
    }
}

impl MappedFile for MappingWriter {
    fn len(&self) -> u64 {
        self.len
    }

    #[inline]
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fits = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.len);
        if !fits {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "write past the end of a mapped file"));
        }
        // SAFETY: `fits` says that `offset..offset + bytes.len()` lies in the mapping, which is `self.len` bytes long
        // (a `usize` when it was made), writable, and alive as long as `self.mapping`. `bytes` cannot overlap it: no
        // reference into this mapping exists. No other thread writes it: this is its only writer and `&mut self` is
        // exclusive; the syncer only passes addresses to the kernel.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.mapping.0.as_mut_ptr().add(offset as usize), bytes.len());
        }
        prefetch_next_write(self.mapping.0.as_mut_ptr().wrapping_add(offset as usize + bytes.len()));
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        write_zeros(&self.file, self.len, PIECE_BYTES)?;
        self.is_filled = true;
        Ok(())
    }

    fn is_filled(&self) -> bool {
        self.is_filled
    }

    fn syncer(&self) -> Arc<dyn MappedSync> {
        self.mapping.clone()
    }
}

impl MappedSync for Mapping {
    fn sync(&self, range: Range<u64>) -> io::Result<()> {
        let end = range.end.min(self.0.len() as u64);
        if range.start >= end {
            return Ok(());
        }
        // Both fit in `usize`: they are at most the mapping's length. memmap2 rounds the start down to a page, as msync
        // wants it.
        let (start, bytes) = (range.start as usize, (end - range.start) as usize);
        if bytes >= UNMAP_BYTES {
            self.unmap(start, bytes);
        }
        self.0.flush_range(start, bytes)
    }
}

impl Mapping {
    /// Takes a range out of the page tables, from where the next write gets it back; what was written stays with the
    /// file. To write a page back the system has to notice the next write to it, and so takes the right to write from
    /// all processors, page by page: while 16 MiB were synced, a writer of the next segment was interrupted 4,096 times
    /// for six microseconds each. Pages that are in no table need that not, and leaving them takes one interrupt.
    ///
    /// It only saves time, so it may be refused: memory that the process has locked stays where it is.
    #[cfg(target_os = "linux")]
    fn unmap(&self, start: usize, bytes: usize) {
        // SAFETY: the advice is unchecked because in a private mapping it undoes writes. This one is shared: its pages
        // are the file's, wherever they are mapped, and no reference into it exists.
        let _refused = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, start, bytes) };
    }

    #[cfg(not(target_os = "linux"))]
    fn unmap(&self, _start: usize, _bytes: usize) {}
}

/// The whole of `file` as shared, read-only bytes.
///
/// # Errors
/// What `mmap` answers.
pub(super) fn map_read_only(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the bytes must not change while they are mapped. `ReadableFile::map` is only used on files that the
    // engine never writes again, and the directory's lock keeps other engines out; a foreign process that shortens the
    // file regardless is outside what a mapping can guard against.
    let mmap = unsafe { Mmap::map(file)? };
    // Who reads further says so (`prefetch::will_read`). Otherwise the system brings in all around a page that is not in
    // memory, as much as its block device is set to (8 MiB where that was found out): with data larger than memory a get
    // took 7 ms.
    let _refused = mmap.advise(Advice::Random);
    Ok(Bytes::from_owner(mmap))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::prefetch::will_read;

    const PAGE_BYTES: usize = 4 << 10;

    /// Which pages of a mapping are in memory.
    fn resident(mapped: &[u8]) -> Vec<bool> {
        let mut pages = vec![0u8; mapped.len().div_ceil(PAGE_BYTES)];
        // SAFETY: the range is a mapping, which begins with a page, and `pages` has a byte for each of its pages.
        let answer =
            unsafe { libc::mincore(mapped.as_ptr().cast_mut().cast(), mapped.len(), pages.as_mut_ptr().cast()) };
        assert_eq!(answer, 0);
        pages.iter().map(|page| page & 1 == 1).collect()
    }

    #[test]
    fn a_touch_brings_in_its_page_and_what_is_asked_for_comes_without_one() {
        const MIB: usize = 1 << 20;
        // Beside the test itself: the usual place for temporary files may be memory.
        let beside = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir_in(beside.parent().unwrap()).unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 4 * MIB]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let bytes = map_read_only(&file).unwrap();
        if resident(&bytes).contains(&true) {
            // Not by a macro, whose output nobody sees of a test that passes.
            writeln!(io::stderr(), "SKIPPED: this filesystem keeps its files in memory").unwrap();
            return;
        }
        assert_eq!(std::hint::black_box(bytes[MIB]), 7);
        let touched = resident(&bytes).iter().filter(|page| **page).count();
        assert!((1..=4).contains(&touched), "{touched} pages for one byte");

        let asked = 2 * MIB + 5..2 * MIB + MIB / 2;
        will_read(&bytes[asked.clone()]);
        will_read(&[]);
        let pages = asked.start / PAGE_BYTES..asked.end.div_ceil(PAGE_BYTES);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !resident(&bytes)[pages.clone()].iter().all(|page| *page) {
            assert!(Instant::now() < deadline, "it never came");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!resident(&bytes)[3 * MIB / PAGE_BYTES..].contains(&true), "nobody asked for that");
    }
}
