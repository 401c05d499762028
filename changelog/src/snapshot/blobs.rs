//! Moving files to and from an object store.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use sha2::{Digest, Sha256};
use siltstone::Clock;

use super::index::FileEntry;
use crate::error::{Error, Result};
use crate::retry::{Backoff, RetryPolicy};

/// How much is read and sent at once, in bytes; files up to this size go in one piece.
const PART_BYTES: usize = 8 << 20;

/// How many parts of one file are on their way at a time.
const PARTS: usize = 2;

/// An error of the object store.
pub(super) fn foreign(error: object_store::Error) -> Error {
    use object_store::Error as E;
    let lasting = matches!(
        error,
        E::NotFound { .. }
            | E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::AlreadyExists { .. }
            | E::Precondition { .. }
            | E::NotImplemented { .. }
            | E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::UnknownConfigurationKey { .. }
    );
    Error::Foreign { source: Box::new(error), retryable: !lasting }
}

/// Calls until it works, it fails for good, or the policy's time is over.
pub(super) async fn retry<R, F: Future<Output = Result<R>>>(
    policy: RetryPolicy,
    clock: &dyn Clock,
    mut call: impl FnMut() -> F,
) -> Result<R> {
    let mut backoff = Backoff::new(policy);
    loop {
        let error = match call().await {
            Err(error) if error.is_retryable() => error,
            answer => return answer,
        };
        let Some(wait) = backoff.failed(clock.now()) else { return Err(error) };
        tracing::warn!(%error, ?wait, "the object store failed, trying again");
        tokio::time::sleep(wait).await;
    }
}

fn hexadecimal(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a file is, by its contents.
pub(super) fn describe(path: &Path, name: &str) -> Result<FileEntry> {
    let read = || -> io::Result<FileEntry> {
        let (mut file, mut digest, mut bytes) = (File::open(path)?, Sha256::new(), 0);
        let mut chunk = vec![0; PART_BYTES];
        loop {
            let len = file.read(&mut chunk)?;
            if len == 0 {
                break;
            }
            digest.update(&chunk[..len]);
            bytes += len as u64;
        }
        Ok(FileEntry { name: name.to_owned(), bytes, sha256: hexadecimal(digest.finalize()) })
    };
    read().map_err(Error::io("reading a file of a checkpoint", path))
}

/// Uploads a file. Nobody sees a part of it.
pub(super) async fn upload(store: &Arc<dyn ObjectStore>, path: &Path, to: &ObjectPath) -> Result<()> {
    let io = |error| Error::io("reading a file of a checkpoint", path)(error);
    let mut file = File::open(path).map_err(io)?;
    let mut part = read_part(&mut file).map_err(io)?;
    if part.len() < PART_BYTES {
        return store.put(to, PutPayload::from_bytes(part)).await.map(drop).map_err(foreign);
    }
    let mut sending = WriteMultipart::new_with_chunk_size(store.put_multipart(to).await.map_err(foreign)?, PART_BYTES);
    while !part.is_empty() {
        sending.wait_for_capacity(PARTS).await.map_err(foreign)?;
        sending.put(part);
        part = read_part(&mut file).map_err(io)?;
    }
    sending.finish().await.map(drop).map_err(foreign)
}

fn read_part(file: &mut File) -> io::Result<Bytes> {
    let mut part = Vec::with_capacity(PART_BYTES);
    file.take(PART_BYTES as u64).read_to_end(&mut part)?;
    Ok(part.into())
}

/// Downloads a file into `directory`, durably but for its name, unless it is there already.
///
/// # Errors
/// `Corruption` if what came is not what went there.
pub(super) async fn download(
    store: &Arc<dyn ObjectStore>,
    from: &ObjectPath,
    entry: &FileEntry,
    directory: &Path,
) -> Result<()> {
    let path = directory.join(&entry.name);
    if path.exists() && describe(&path, &entry.name)? == *entry {
        return Ok(());
    }
    let partial = directory.join(format!("{}.part", entry.name));
    let io = |error| Error::io("writing a file of a snapshot", &partial)(error);
    let mut file = File::create(&partial).map_err(io)?;
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    let mut coming = store.get(from).await.map_err(foreign)?.into_stream();
    while let Some(chunk) = coming.next().await {
        let chunk = chunk.map_err(foreign)?;
        digest.update(&chunk);
        bytes += chunk.len() as u64;
        file.write_all(&chunk).map_err(io)?;
    }
    let came = FileEntry { name: entry.name.clone(), bytes, sha256: hexadecimal(digest.finalize()) };
    if came != *entry {
        let reason = format!("its contents are {}, {bytes} bytes", came.sha256);
        return Err(Error::corruption(from.as_ref().as_ref(), 0, reason));
    }
    file.sync_all().map_err(io)?;
    std::fs::rename(&partial, &path).map_err(io)
}
