//! What damaged manifests still say.
//!
//! Edits depend on those before them, so a manifest with a hole has no state. It still has facts: names and options of
//! keyspaces, which table belongs to whom, which table was removed, how far numbers were given out. They are gathered
//! leniently, from every record that checks out, in every manifest there is.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::batch::KeyspaceId;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::fs::FileSystem;

use super::current::{self, Current, read_file};
use super::edit::Edit;
use super::manifest::{HEADER_BYTES, RECORD_HEADER_BYTES, manifest_path, read_record, replay};
use super::state::{DroppedKeyspace, ManifestState};

/// What was found.
#[derive(Debug)]
pub(crate) struct Salvaged {
    /// The state, if the live manifest is known and whole.
    pub(crate) whole: Option<ManifestState>,
    /// What all records say, whatever is between them.
    pub(crate) facts: Facts,
    /// A number above that of every manifest.
    pub(crate) next_manifest: u64,
    /// What does not check out, by file.
    pub(crate) damage: Vec<(PathBuf, Damage)>,
    /// The manifest that was read, for the report: its file, its length, and how many edits.
    pub(crate) kept: Vec<(PathBuf, u64, u64)>,
}

/// Facts that hold whatever the records between say.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Counters, metadata, keyspaces with their names and options; no tables. A keyspace whose creation was not readable
    /// has no name.
    pub(crate) state: ManifestState,
    /// To which keyspace a table was added.
    pub(crate) owners: HashMap<u64, KeyspaceId>,
    /// Tables that were removed.
    pub(crate) removed: HashSet<u64>,
}

/// Reads every manifest in `dir`.
///
/// # Errors
/// `UnsupportedVersion` if a newer release wrote one; `Io`.
pub(crate) fn salvage(fs: &dyn FileSystem, dir: &Path, tables: &[u64]) -> Result<Salvaged> {
    let mut found =
        Salvaged { whole: None, facts: Facts::default(), next_manifest: 1, damage: Vec::new(), kept: Vec::new() };
    let numbers = manifests(fs, dir)?;
    let mut current = read_current(fs, dir, &mut found.damage)?;
    if let Some(lost) = current.take_if(|current| !numbers.contains(&current.manifest)) {
        let reason = format!("names manifest {}, which is missing", lost.manifest);
        found.damage.push((current::path(dir), Damage::new(16, 0, reason)));
    }
    let mut readable = Vec::new();
    for number in numbers {
        found.next_manifest = found.next_manifest.max(number.saturating_add(1));
        let path = manifest_path(dir, number);
        let Some(bytes) = read_file(fs, &path)? else { continue };
        let live = current.filter(|current| current.manifest == number);
        if current.is_some() && live.is_none() {
            // Of another time; the live one is known.
            continue;
        }
        let edits = found.facts.learn_all(number, &bytes);
        let min_bytes = live.map_or(0, |current| current.min_bytes);
        match replay(&path, number, min_bytes, &bytes) {
            // A manifest ends with a torn record only where the live one is known; a snapshot is whole with its last
            // edit, which sets the id.
            Ok((state, end)) if state.database_id != 0 && (live.is_some() || end == bytes.len()) => {
                let torn = end < bytes.len();
                readable.push((state, torn, live.is_some()));
                found.kept.push((path, end as u64, edits));
            }
            Ok((_, end)) => found.damage.push((path, Damage::new(end as u64, (bytes.len() - end) as u64, "cut off"))),
            Err(error) => found.damage.push((path.clone(), damage_of(error, &bytes, HEADER_BYTES - 4)?)),
        }
    }
    // An edit that was lost may have named a table that nothing else names. Without a live manifest that is whole to its
    // last byte, such a table says that something is missing.
    if let Some((state, torn, live)) = readable.pop() {
        let numbers: HashSet<u64> =
            state.keyspaces.values().flat_map(|k| k.levels.iter().flatten()).map(|meta| meta.number).collect();
        let unnamed = tables.iter().any(|table| !numbers.contains(table));
        if !unnamed || (live && !torn) {
            found.whole = Some(state);
        }
    }
    Ok(found)
}

fn read_current(fs: &dyn FileSystem, dir: &Path, damage: &mut Vec<(PathBuf, Damage)>) -> Result<Option<Current>> {
    let path = current::path(dir);
    let bytes = read_file(fs, &path)?;
    match bytes.as_deref().map(|bytes| Current::decode(&path, bytes).map_err(|error| (error, bytes))) {
        Some(Ok(current)) => return Ok(Some(current)),
        Some(Err((error, bytes))) => damage.push((path, damage_of(error, bytes, current::LEN - 4)?)),
        None => damage.push((path, Damage::new(0, 0, "missing"))),
    }
    Ok(None)
}

/// The damage an error speaks of. A version that is too new is damage as well, if it is all that does not fit.
fn damage_of(error: Error, bytes: &[u8], crc_at: usize) -> Result<Damage> {
    match error {
        Error::UnsupportedVersion { .. } if current::only_version_is_damaged(bytes, crc_at) => {
            Ok(Damage::new(8, 4, "the checksum fits another version"))
        }
        other => Damage::of(other, bytes.len() as u64),
    }
}

fn manifests(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<u64>> {
    let entries = fs.read_dir(dir).map_err(Error::io("reading", dir))?;
    let number = |name: &str| name.strip_prefix("MANIFEST-")?.parse::<u64>().ok();
    let mut numbers: Vec<u64> = entries.iter().filter_map(|entry| number(&entry.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

impl Facts {
    /// Learns from every record of a manifest; how many there are.
    fn learn_all(&mut self, number: u64, bytes: &[u8]) -> u64 {
        let (mut at, mut edits) = (HEADER_BYTES, 0);
        while at < bytes.len() {
            let Some(payload) = read_record(bytes, number, at) else {
                at += 1;
                continue;
            };
            if let Ok(edit) = Edit::decode(payload) {
                self.learn(&edit);
                edits += 1;
            }
            at += RECORD_HEADER_BYTES + payload.len();
        }
        edits
    }

    fn learn(&mut self, edit: &Edit) {
        for created in &edit.created {
            // Live names are unique: whoever had this one was dropped, even if that record is lost.
            let state = &self.state;
            let taken =
                state.keyspaces.iter().filter(|(id, keyspace)| **id < created.id && keyspace.name == created.name);
            for id in taken.map(|(id, _)| *id).collect::<Vec<_>>() {
                self.drop_keyspace(id, 0);
            }
            let keyspace = self.state.keyspaces.entry(created.id).or_default();
            keyspace.name.clone_from(&created.name);
            keyspace.options.clone_from(&created.options);
        }
        for (id, options) in &edit.options_changed {
            self.state.keyspaces.entry(*id).or_default().options.clone_from(options);
        }
        for keyspace in &edit.keyspaces {
            let known = self.state.keyspaces.entry(keyspace.id).or_default();
            known.flushed_seqno = known.flushed_seqno.max(keyspace.flushed_seqno.unwrap_or(0));
            self.removed.extend(keyspace.removed.iter().map(|(_, number)| *number));
            for (_, meta) in &keyspace.added {
                self.owners.insert(meta.number, keyspace.id);
                self.removed.remove(&meta.number);
                self.state.last_seqno = self.state.last_seqno.max(meta.max_seqno);
            }
        }
        for &(id, seqno) in &edit.dropped {
            self.drop_keyspace(id, seqno);
        }
        self.count(edit);
    }

    fn drop_keyspace(&mut self, id: KeyspaceId, seqno: u64) {
        let name = self.state.keyspaces.remove(&id).unwrap_or_default().name;
        self.state.last_seqno = self.state.last_seqno.max(seqno);
        self.state.dropped.insert(id, DroppedKeyspace { name, seqno });
    }

    fn count(&mut self, edit: &Edit) {
        let state = &mut self.state;
        // A damaged record never gets here, so the id is that of the database.
        state.database_id = edit.database_id.unwrap_or(state.database_id);
        state.next_keyspace_id = state.next_keyspace_id.max(edit.next_keyspace_id.unwrap_or(0));
        state.next_file_number = state.next_file_number.max(edit.next_file_number.unwrap_or(0));
        state.last_seqno = state.last_seqno.max(edit.last_seqno.unwrap_or(0));
        state.log_synced_seqno = state.log_synced_seqno.max(edit.log_synced_seqno.unwrap_or(0));
        state.ingested_seqno = state.ingested_seqno.max(edit.ingested_seqno.unwrap_or(0));
        state.last_seqno = state.last_seqno.max(state.ingested_seqno);
        if let Some(floor) = edit.log_floor.filter(|floor| floor.segment >= state.log_floor.segment) {
            state.log_floor = floor;
        }
        if let Some(metadata) = &edit.metadata {
            state.metadata.clone_from(metadata);
        }
    }
}
