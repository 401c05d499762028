//! The durable side of all versions: one manifest, one change at a time.

use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::version::edit::Edit;
use crate::version::manifest::Manifest;
use crate::version::state::ManifestState;

/// Appends edits to the manifest in the order in which they take effect.
#[derive(Debug)]
pub(crate) struct VersionSet {
    inner: Mutex<Inner>,
    next_file: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    manifest: Manifest,
    state: ManifestState,
}

/// A change that a panic cuts short leaves file and state apart: nothing may be appended any more.
struct Unfinished<'i>(&'i mut Inner);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.manifest.fail("a thread panicked while it was changed");
    }
}

impl VersionSet {
    pub(crate) fn new(manifest: Manifest, state: ManifestState) -> Self {
        let next_file = AtomicU64::new(state.next_file_number);
        VersionSet { inner: Mutex::new(Inner { manifest, state }), next_file }
    }

    /// A file number nobody has; files of numbers that no edit names are removed at the next open.
    pub(crate) fn next_file_number(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed) // only has to be unique
    }

    /// Makes one change durable and then lets `publish` make it visible, both before any other change. `build` sees the
    /// state that it changes; `None` means that there is nothing to change any more.
    ///
    /// # Errors
    /// `Io`; the manifest takes no more edits after it.
    pub(crate) fn install<R>(
        &self,
        build: impl FnOnce(&ManifestState) -> Option<Edit>,
        publish: impl FnOnce() -> R,
    ) -> Result<Option<R>> {
        let mut inner = self.inner.lock();
        let unfinished = Unfinished(&mut inner);
        let answer = self.change(unfinished.0, build, publish);
        std::mem::forget(unfinished);
        answer
    }

    fn change<R>(
        &self,
        Inner { manifest, state }: &mut Inner,
        build: impl FnOnce(&ManifestState) -> Option<Edit>,
        publish: impl FnOnce() -> R,
    ) -> Result<Option<R>> {
        let Some(mut edit) = build(state) else { return Ok(None) };
        edit.next_file_number = Some(self.next_file.load(Ordering::Relaxed));
        // The state first: an edit that does not fit must not get into the file. If the append fails the manifest takes
        // no more edits, so the state is of no more use either.
        state.apply(&edit).map_err(|reason| Error::corruption(manifest.path(), manifest.file_bytes(), reason))?;
        manifest.append(&edit)?;
        let answer = publish();
        manifest.roll_if_large(state)?;
        Ok(Some(answer))
    }

    /// Looks at the durable state.
    pub(crate) fn with_state<R>(&self, look: impl FnOnce(&ManifestState) -> R) -> R {
        look(&self.inner.lock().state)
    }

    /// Reads the manifest again and compares it with what it is known to say.
    ///
    /// # Errors
    /// `Corruption` naming the place; `Io`.
    pub(crate) fn verify(&self) -> Result<()> {
        let inner = self.inner.lock();
        inner.manifest.verify(&inner.state)
    }

    /// Notes at a clean close that the manifest is complete, so that a later truncation is found.
    pub(crate) fn seal(&self) -> Result<()> {
        self.inner.lock().manifest.seal()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::fs::{Fault, FaultFileSystem, Keep, SimFileSystem};

    fn open(fs: &SimFileSystem) -> (Manifest, ManifestState) {
        Manifest::open(Arc::new(fs.clone()), Path::new(""), true).unwrap().unwrap()
    }

    fn new_set(sim: &SimFileSystem) -> (VersionSet, FaultFileSystem) {
        let fs = FaultFileSystem::new(Arc::new(sim.clone()));
        let state = ManifestState::default();
        let manifest = Manifest::create(Arc::new(fs.clone()), Path::new(""), &state).unwrap();
        (VersionSet::new(manifest, state), fs)
    }

    fn last_seqno(seqno: u64) -> Edit {
        Edit { last_seqno: Some(seqno), ..Edit::default() }
    }

    #[test]
    fn file_numbers_are_given_once_also_after_a_restart() {
        let sim = SimFileSystem::new();
        let (set, _) = new_set(&sim);
        assert_eq!([(); 3].map(|()| set.next_file_number()), [0, 1, 2]);
        set.install(|_| Some(last_seqno(1)), || ()).unwrap();
        let (manifest, state) = open(&sim.crash_clone(Keep::Nothing, 0));
        assert_eq!(VersionSet::new(manifest, state).next_file_number(), 3);
    }

    #[test]
    fn a_change_is_durable_before_it_is_visible() {
        let sim = SimFileSystem::new();
        let (set, _) = new_set(&sim);
        assert_eq!(set.install(|_| None, || panic!("nothing to publish")).unwrap(), None);
        let seen = set.install(|_| Some(last_seqno(5)), || open(&sim.crash_clone(Keep::Nothing, 0)).1.last_seqno);
        assert_eq!((seen.unwrap(), set.with_state(|state| state.last_seqno)), (Some(5), 5));
        assert!(matches!(set.install(|_| Some(last_seqno(4)), || ()), Err(Error::Corruption { .. })));
        assert_eq!(open(&sim).1.last_seqno, 5, "what does not fit never gets into the file");
    }

    #[test]
    fn a_change_that_could_not_be_written_is_not_published() {
        let (set, fs) = new_set(&SimFileSystem::new());
        fs.fail_at(1, Fault::Io);
        assert!(set.install(|_| Some(last_seqno(1)), || panic!("not durable")).is_err());
        assert!(matches!(set.seal(), Err(Error::ReadOnly { .. })));
    }

    #[test]
    fn nothing_is_changed_after_a_change_that_panicked() {
        let (set, _) = new_set(&SimFileSystem::new());
        let panics = || set.install(|_| Some(last_seqno(1)), || panic!("as asked for"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        let refused = set.install(|_| Some(last_seqno(2)), || ()).unwrap_err();
        assert!(matches!(&refused, Error::ReadOnly { reason } if reason.contains("panicked")), "{refused}");
    }

    #[test]
    fn what_the_manifest_says_is_verified() {
        let sim = SimFileSystem::new();
        let (set, _) = new_set(&sim);
        set.install(|_| Some(last_seqno(5)), || ()).unwrap();
        set.verify().unwrap();
        sim.flip_bit(Path::new("MANIFEST-000001"), 40, 0).unwrap();
        assert!(matches!(set.verify(), Err(Error::Corruption { .. })));
    }

    #[test]
    fn a_sealed_manifest_is_known_to_be_whole() {
        let sim = SimFileSystem::new();
        let (set, _) = new_set(&sim);
        set.install(|_| Some(last_seqno(1)), || ()).unwrap();
        set.seal().unwrap();
        let path = Path::new("MANIFEST-000001");
        let bytes = sim.read(path).unwrap();
        sim.write(path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(Manifest::open(Arc::new(sim), Path::new(""), true).is_err());
    }
}
