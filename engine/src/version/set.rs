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

    /// Notes at a clean close that the manifest is complete, so that a later truncation is found.
    pub(crate) fn seal(&self) -> Result<()> {
        self.inner.lock().manifest.seal()
    }
}
