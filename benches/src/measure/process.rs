//! [`ProcessUsage`]: CPU, memory and storage writes that Linux accounts to this process; `None` where the system does
//! not tell.

use std::fs;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, Result};

/// Readings of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// CPU time of all threads, ended ones included, in nanoseconds.
    pub cpu_ns: u64,
    /// The largest resident set since [`reset_peak`](Self::reset_peak), in bytes; pages of mapped files count.
    pub peak_rss_bytes: Option<u64>,
    /// The resident set, now, in bytes; pages of mapped files count.
    pub rss_bytes: Option<u64>,
    /// The part of the resident set, now, that belongs to no file, in bytes.
    pub anonymous_bytes: Option<u64>,
    /// Bytes this process caused to be sent to storage, mapped pages included, less those of files deleted before they
    /// were sent.
    pub device_write_bytes: Option<u64>,
}

impl ProcessUsage {
    /// Reads all of them.
    ///
    /// ```
    /// let usage = siltstone_benches::measure::ProcessUsage::now();
    /// assert!(usage.cpu_ns > 0);
    /// ```
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let kib = |name| field(&status, name).map(|kib| kib << 10);
        let cancelled = field(&io, "cancelled_write_bytes:").unwrap_or(0);
        ProcessUsage {
            cpu_ns: clock_ns(ClockId::ProcessCPUTime),
            peak_rss_bytes: kib("VmHWM:"),
            rss_bytes: kib("VmRSS:"),
            anonymous_bytes: kib("RssAnon:"),
            device_write_bytes: field(&io, "write_bytes:").map(|bytes| bytes.saturating_sub(cancelled)),
        }
    }

    /// Begins a new peak of the resident set. Where the system refuses, the peak is that of the whole process.
    pub fn reset_peak() {
        // proc(5): 5 resets the peak resident set size.
        let _ = fs::write("/proc/self/clear_refs", "5");
    }
}

/// CPU time of the calling thread, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(ClockId::ThreadCPUTime)
}

fn clock_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // CPU clocks begin at zero and never go below.
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// What the files under `dir` take on storage, in bytes: allocated blocks, so that what a sparse file lacks does not
/// count.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read. Files that vanish meanwhile do not count.
pub fn directory_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total_bytes = 0;
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => total_bytes += directory_bytes(&entry.path())?,
            // stat(2) counts in units of 512 bytes, whatever the file system's block.
            Ok(metadata) => total_bytes += metadata.blocks() * 512,
            Err(_) => {}
        }
    }
    Ok(total_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let io = "rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n";
        assert_eq!(field(io, "write_bytes:"), Some(4096));
        assert_eq!(field(io, "cancelled_write_bytes:"), Some(7));
        assert_eq!(field("VmHWM:\t   12 kB\n", "VmHWM:"), Some(12));
        assert_eq!(field(io, "absent:"), None);
        assert_eq!(field("VmHWM: many\n", "VmHWM:"), None);
    }

    #[test]
    fn memory_that_is_touched_shows_in_the_peak() {
        ProcessUsage::reset_peak();
        let before = ProcessUsage::now();
        let memory = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = ProcessUsage::now();
        drop(memory);
        let (Some(before), Some(after)) = (before.anonymous_bytes, after.peak_rss_bytes) else { return };
        assert!(after >= before + (60 << 20), "{before} {after}");
    }

    #[test]
    fn directories_are_summed_to_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        for name in ["a", "in/b"] {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            std::io::Write::write_all(&mut &file, &vec![1; 100_000]).unwrap();
            file.sync_all().unwrap();
        }
        let bytes = directory_bytes(dir.path()).unwrap();
        assert!((200_000..300_000).contains(&bytes), "{bytes}");
        assert!(directory_bytes(&dir.path().join("absent")).is_err());
    }
}
