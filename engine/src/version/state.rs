//! The sum of all edits: what the manifest says.

use std::collections::{BTreeMap, HashSet};

use crate::batch::KeyspaceId;
use crate::key::SeqNo;
use crate::name::KeyspaceName;
use crate::options::KeyspaceOptions;
use crate::table::TableMeta;

use super::LEVELS;
use super::edit::{Edit, KeyspaceCreated, KeyspaceEdit, LogFloor, check_table};
use super::version::newer_first;

/// Tables in one edit of a snapshot, so that no record grows with the database.
const TABLES_AN_EDIT: usize = 1024;

/// The durable state of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ManifestState {
    /// 0 until it is set.
    pub(crate) database_id: u64,
    /// Larger than the id of any keyspace that ever was.
    pub(crate) next_keyspace_id: KeyspaceId,
    /// Larger than the number of any table that ever was.
    pub(crate) next_file_number: u64,
    /// At least every sequence number the manifest mentions.
    pub(crate) last_seqno: SeqNo,
    /// Where replay of the log begins.
    pub(crate) log_floor: LogFloor,
    /// Every logged record up to this number is known to be on storage.
    pub(crate) log_synced_seqno: SeqNo,
    /// The last number that an ingest took; 0 without any. Followers of the log begin behind it.
    pub(crate) ingested_seqno: SeqNo,
    /// Small named values beside the keyspaces; see `WriteBatch::metadata`.
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
    /// The live keyspaces.
    pub(crate) keyspaces: BTreeMap<KeyspaceId, KeyspaceState>,
    /// Dropped keyspaces that something may still refer to.
    pub(crate) dropped: BTreeMap<KeyspaceId, DroppedKeyspace>,
    /// The numbers of all live tables.
    numbers: HashSet<u64>,
}

/// A live keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyspaceState {
    /// Unique among the live ones.
    pub(crate) name: String,
    /// How its tree is shaped.
    pub(crate) options: KeyspaceOptions,
    /// Every write to the keyspace up to this number is in its tables.
    pub(crate) flushed_seqno: SeqNo,
    /// Level 0 newest first, the others by key.
    pub(crate) levels: [Vec<TableMeta>; LEVELS],
}

/// What stays known of a dropped keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DroppedKeyspace {
    /// The name it had; a live keyspace may have it now.
    pub(crate) name: String,
    /// The sequence number of the drop.
    pub(crate) seqno: SeqNo,
}

impl ManifestState {
    /// Applies one edit.
    ///
    /// Counters may be absent or grow, never shrink: read their values under the same lock that orders the edits.
    ///
    /// # Errors
    /// The reason why the edit does not fit. The state is then somewhere between before and after, and must not be
    /// used.
    pub(crate) fn apply(&mut self, edit: &Edit) -> Result<(), String> {
        if let Some(id) = edit.database_id {
            if self.database_id != 0 && self.database_id != id {
                return Err(format!("the database id changes from {} to {id}", self.database_id));
            }
            self.database_id = id;
        }
        // Raising happens below, on the way; what the edit itself says is compared with what was before it.
        let (next_file_number, last_seqno) = (self.next_file_number, self.last_seqno);
        edit.created.iter().try_for_each(|created| self.create(created))?;
        for (id, options) in &edit.options_changed {
            self.keyspace(*id)?.options = options.clone();
        }
        edit.keyspaces.iter().try_for_each(|keyspace| self.change(keyspace))?;
        edit.dropped.iter().try_for_each(|&(id, seqno)| self.drop_keyspace(id, seqno))?;
        for id in &edit.forgotten {
            self.dropped.remove(id).ok_or_else(|| format!("keyspace {id} is forgotten but was not dropped"))?;
        }
        if let Some(id) = edit.next_keyspace_id {
            grow("next_keyspace_id", &mut self.next_keyspace_id, id)?;
        }
        if let Some(number) = edit.next_file_number {
            not_back("next_file_number", next_file_number, number)?;
            self.next_file_number = self.next_file_number.max(number);
        }
        if let Some(seqno) = edit.last_seqno {
            not_back("last_seqno", last_seqno, seqno)?;
            self.use_seqno(seqno);
        }
        if let Some(metadata) = &edit.metadata {
            self.metadata.clone_from(metadata);
        }
        self.apply_log(edit)
    }

    fn apply_log(&mut self, edit: &Edit) -> Result<(), String> {
        if let Some(floor) = edit.log_floor {
            grow("log_floor.segment", &mut self.log_floor.segment, floor.segment)?;
            grow("log_floor.prev_seqno", &mut self.log_floor.prev_seqno, floor.prev_seqno)?;
            self.use_seqno(floor.prev_seqno);
        }
        if let Some(seqno) = edit.log_synced_seqno {
            grow("log_synced_seqno", &mut self.log_synced_seqno, seqno)?;
            self.use_seqno(seqno);
        }
        if let Some(seqno) = edit.ingested_seqno {
            grow("ingested_seqno", &mut self.ingested_seqno, seqno)?;
            self.use_seqno(seqno);
        }
        Ok(())
    }

    fn create(&mut self, created: &KeyspaceCreated) -> Result<(), String> {
        let id = created.id;
        if id < self.next_keyspace_id {
            return Err(format!("keyspace id {id} is used again"));
        }
        // One that is listed must also be one that can be asked for.
        if KeyspaceName::check(&created.name).is_err() {
            return Err(format!("keyspace {id} has a name that no keyspace may have, {:?}", created.name));
        }
        if self.keyspaces.values().any(|keyspace| keyspace.name == created.name) {
            return Err(format!("keyspace {id} has the name of a live one, {:?}", created.name));
        }
        self.next_keyspace_id = id.checked_add(1).ok_or("keyspace ids are used up")?;
        let state =
            KeyspaceState { name: created.name.clone(), options: created.options.clone(), ..KeyspaceState::default() };
        self.keyspaces.insert(id, state);
        Ok(())
    }

    fn change(&mut self, edit: &KeyspaceEdit) -> Result<(), String> {
        let id = edit.id;
        let mut state = std::mem::take(self.keyspace(id)?);
        if let Some(seqno) = edit.flushed_seqno {
            grow("flushed_seqno", &mut state.flushed_seqno, seqno)?;
            self.use_seqno(seqno);
        }
        for &(level, number) in &edit.removed {
            state.remove(level, number)?;
            self.numbers.remove(&number);
        }
        for (level, meta) in &edit.added {
            if !self.numbers.insert(meta.number) {
                return Err(format!("table {} is added twice", meta.number));
            }
            let next = meta.number.checked_add(1).ok_or("file numbers are used up")?;
            self.next_file_number = self.next_file_number.max(next);
            self.use_seqno(meta.max_seqno);
            state.add(*level, meta)?;
        }
        *self.keyspace(id)? = state;
        Ok(())
    }

    fn drop_keyspace(&mut self, id: KeyspaceId, seqno: SeqNo) -> Result<(), String> {
        let state = self.keyspaces.remove(&id).ok_or_else(|| format!("keyspace {id} is dropped but not there"))?;
        for meta in state.levels.iter().flatten() {
            self.numbers.remove(&meta.number);
        }
        self.use_seqno(seqno);
        self.dropped.insert(id, DroppedKeyspace { name: state.name, seqno });
        Ok(())
    }

    fn keyspace(&mut self, id: KeyspaceId) -> Result<&mut KeyspaceState, String> {
        self.keyspaces.get_mut(&id).ok_or_else(|| format!("keyspace {id} is changed but not there"))
    }

    fn use_seqno(&mut self, seqno: SeqNo) {
        self.last_seqno = self.last_seqno.max(seqno);
    }

    /// Edits that make this state out of an empty one: a snapshot.
    pub(crate) fn to_edits(&self) -> Vec<Edit> {
        // Ids come in ascending order, as when the keyspaces were created; the counters come last because creating
        // raises them.
        let mut edits = Vec::new();
        let mut ids: Vec<_> = self.keyspaces.keys().chain(self.dropped.keys()).copied().collect();
        ids.sort_unstable();
        for id in ids {
            match (self.keyspaces.get(&id), self.dropped.get(&id)) {
                (Some(state), _) => state.to_edits(id, &mut edits),
                (None, Some(dropped)) => edits.push(Edit {
                    created: vec![KeyspaceCreated { id, name: dropped.name.clone(), options: KeyspaceOptions::new() }],
                    dropped: vec![(id, dropped.seqno)],
                    ..Edit::default()
                }),
                (None, None) => {}
            }
        }
        // Of several keyspaces with one name at most one is live, and it is the youngest: those before it are dropped
        // by the edit that creates them.
        edits.push(Edit {
            database_id: Some(self.database_id),
            next_keyspace_id: Some(self.next_keyspace_id),
            next_file_number: Some(self.next_file_number),
            last_seqno: Some(self.last_seqno),
            log_floor: Some(self.log_floor),
            log_synced_seqno: Some(self.log_synced_seqno),
            ingested_seqno: (self.ingested_seqno > 0).then_some(self.ingested_seqno),
            metadata: Some(self.metadata.clone()),
            ..Edit::default()
        });
        edits
    }
}

impl KeyspaceState {
    fn remove(&mut self, level: usize, number: u64) -> Result<(), String> {
        let tables = self.levels.get_mut(level).ok_or_else(|| format!("level {level} is out of range"))?;
        let at = tables.iter().position(|meta| meta.number == number);
        tables.remove(at.ok_or_else(|| format!("table {number} is removed from level {level} but is not there"))?);
        Ok(())
    }

    fn add(&mut self, level: usize, meta: &TableMeta) -> Result<(), String> {
        check_table(meta)?;
        let tables = self.levels.get_mut(level).ok_or_else(|| format!("level {level} is out of range"))?;
        let at = if level == 0 {
            tables.partition_point(|other| newer_first(other, meta).is_lt())
        } else {
            let at = tables.partition_point(|other| other.largest < meta.smallest);
            if let Some(other) = tables.get(at).filter(|other| other.smallest <= meta.largest) {
                return Err(format!("tables {} and {} overlap in level {level}", other.number, meta.number));
            }
            at
        };
        tables.insert(at, meta.clone());
        Ok(())
    }

    fn to_edits(&self, id: KeyspaceId, edits: &mut Vec<Edit>) {
        let created = KeyspaceCreated { id, name: self.name.clone(), options: self.options.clone() };
        let flushed = KeyspaceEdit { id, flushed_seqno: Some(self.flushed_seqno), ..KeyspaceEdit::default() };
        edits.push(Edit { created: vec![created], keyspaces: vec![flushed], ..Edit::default() });
        for (level, tables) in self.levels.iter().enumerate() {
            for chunk in tables.chunks(TABLES_AN_EDIT) {
                let added = chunk.iter().map(|meta| (level, meta.clone())).collect();
                let keyspaces = vec![KeyspaceEdit { id, added, ..KeyspaceEdit::default() }];
                edits.push(Edit { keyspaces, ..Edit::default() });
            }
        }
    }
}

fn not_back<T: PartialOrd + std::fmt::Display>(name: &str, old: T, new: T) -> Result<(), String> {
    if new < old { Err(format!("{name} goes back from {old} to {new}")) } else { Ok(()) }
}

fn grow<T: PartialOrd + std::fmt::Display + Copy>(name: &str, counter: &mut T, value: T) -> Result<(), String> {
    not_back(name, *counter, value)?;
    *counter = value;
    Ok(())
}

#[cfg(test)]
mod tests;
