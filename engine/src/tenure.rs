//! How long the directory is this database's: callers' threads that write files outlive a close.
//!
//! A close ends the background's threads, and waits for the commit that is under way. It does not wait for a compaction
//! or an ingest on a caller's thread, which may go on for hours, or for an iterator that never ends. Once the lock on
//! the directory is free another owner may give the same numbers to files of its own; so nothing may be created,
//! appended to or removed from then on.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fs::WritableFile;
use crate::sync::RwLock;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tenure {
    ended: RwLock<bool>,
}

impl Tenure {
    /// Does `work`, which changes the directory or files in it; the end of the tenure waits for it, so it must be
    /// short.
    ///
    /// # Errors
    /// `Closed`, with nothing done, once the tenure has ended.
    pub(crate) fn during<R>(&self, work: impl FnOnce() -> R) -> Result<R> {
        let ended = self.ended.read();
        if *ended { Err(Error::Closed) } else { Ok(work()) }
    }

    /// Ends it; waits for work that is under way.
    pub(crate) fn end(&self) {
        *self.ended.write() = true;
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.read()
    }
}

/// A file that is written only as long as the directory is ours.
#[derive(Debug)]
pub(crate) struct TenuredFile {
    file: Box<dyn WritableFile>,
    tenure: Arc<Tenure>,
}

impl TenuredFile {
    pub(crate) fn new(file: Box<dyn WritableFile>, tenure: Arc<Tenure>) -> Self {
        TenuredFile { file, tenure }
    }

    fn during(&mut self, work: impl FnOnce(&mut dyn WritableFile) -> io::Result<()>) -> io::Result<()> {
        let TenuredFile { file, tenure } = self;
        tenure.during(|| work(&mut **file)).unwrap_or_else(|closed| Err(io::Error::other(closed)))
    }
}

impl WritableFile for TenuredFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.during(|file| file.append(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.during(|file| file.sync())
    }

    fn start_writeback(&mut self, range: Range<u64>) -> io::Result<()> {
        self.during(|file| file.start_writeback(range))
    }

    fn len(&self) -> u64 {
        self.file.len()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::{FileSystem, SimFileSystem};

    #[test]
    fn nothing_is_written_once_the_tenure_has_ended() {
        let sim = SimFileSystem::new();
        let path = Path::new("file");
        let tenure = Arc::new(Tenure::default());
        let mut file = TenuredFile::new(sim.create(path).unwrap(), tenure.clone());
        file.append(b"before").unwrap();
        assert_eq!(tenure.during(|| 7).unwrap(), 7);
        tenure.end();
        assert!(tenure.has_ended());
        assert!(file.append(b"after").is_err() && file.sync().is_err() && file.start_writeback(0..1).is_err());
        assert!(matches!(tenure.during(|| panic!("not any more")), Err(Error::Closed)));
        assert_eq!((sim.read(path).unwrap(), file.len()), (b"before".to_vec(), 6));
    }

    #[test]
    fn the_end_waits_for_work_that_is_under_way() {
        let tenure = Tenure::default();
        let done = std::sync::atomic::AtomicBool::new(false);
        let begun = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                tenure.during(|| {
                    begun.wait();
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    done.store(true, std::sync::atomic::Ordering::SeqCst);
                })
            });
            begun.wait();
            tenure.end();
            assert!(done.load(std::sync::atomic::Ordering::SeqCst));
        });
    }
}
