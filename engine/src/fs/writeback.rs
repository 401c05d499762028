//! Starting write-back: a call of the system that no library makes for us without `unsafe`.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Asks the system to begin writing these bytes of `file` to storage, and does not wait for it: a later sync then finds
/// most of its work done, and the device works while its caller still computes.
///
/// # Errors
/// What an earlier write-back met; not that the system cannot be asked.
#[cfg(target_os = "linux")]
pub(super) fn start(file: &File, range: Range<u64>) -> io::Result<()> {
    let (Ok(offset), Ok(bytes)) = (i64::try_from(range.start), i64::try_from(range.end.saturating_sub(range.start)))
    else {
        return Ok(());
    };
    // To the call, 0 bytes are all there are.
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: the call takes numbers only, and the descriptor is open as long as `file` is borrowed.
    let answer = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE) };
    if answer == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EOPNOTSUPP) => Ok(()),
        _ => Err(error),
    }
}

/// Other systems are not asked: they write back when they are told to sync.
#[cfg(not(target_os = "linux"))]
pub(super) fn start(_file: &File, _range: Range<u64>) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn write_back_begins_before_a_sync_and_what_cannot_be_asked_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut file = File::create(&path).unwrap();
        file.write_all(&[7; 100_000]).unwrap();
        start(&file, 0..100_000).unwrap();
        start(&file, 5..5).unwrap();
        start(&file, 0..u64::MAX).unwrap();
        start(&File::open("/dev/null").unwrap(), 0..10).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [7; 100_000]);
    }
}
