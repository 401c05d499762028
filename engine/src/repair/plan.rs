//! Putting the pieces together: which table belongs to which keyspace, at which level, and what the log adds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::batch::{KeyspaceId, Op, Ops};
use crate::error::Result;
use crate::fs::FileSystem;
use crate::key::{SeqNo, Trailer, ValueKind};
use crate::memtable::{ArenaPool, Memtable};
use crate::name::KeyspaceName;
use crate::options::{KeyspaceOptions, Limits};
use crate::table::TableMeta;
use crate::table::handle::table_path;
use crate::table::properties::Origin;
use crate::table::salvage::SalvagedTable;
use crate::version::LAST_LEVEL;
use crate::version::edit::LogFloor;
use crate::version::salvage::Salvaged;
use crate::version::state::{KeyspaceState, ManifestState};
use crate::wal;

use super::log;
use super::report::{Fate, RepairReport, RepairedFile};
use super::survey::{Found, Survey};
use super::write::{Tables, Target};

/// The database as it will be.
pub(super) struct Plan<'a> {
    /// Whether the manifest says where every table lies. If not, each keyspace's tables are merged.
    placed: bool,
    state: ManifestState,
    owners: BTreeMap<u64, KeyspaceId>,
    survey: Survey,
    tables: Tables<'a>,
    /// Tables that have a keyspace but no level.
    loose: BTreeMap<KeyspaceId, Vec<u64>>,
    /// Every write up to this number is in tables, where the log was put into tables.
    flushed_seqno: Option<SeqNo>,
}

/// The log's operations, sorted, until they are written.
struct Sorter {
    limits: Limits,
    arenas: Arc<ArenaPool>,
    memtables: BTreeMap<KeyspaceId, Arc<Memtable>>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(manifest: &Salvaged, survey: Survey, database_id: u64, tables: Tables<'a>) -> Self {
        let placed = manifest.whole.is_some();
        let mut state = manifest.whole.clone().unwrap_or_else(|| manifest.facts.state.clone());
        state.database_id = database_id;
        let owners = manifest.facts.owners.iter().map(|(&number, &id)| (number, id)).collect();
        Plan { placed, state, owners, survey, tables, loose: BTreeMap::new(), flushed_seqno: None }
    }

    /// Gives every table that is there its place, and writes anew those that are damaged.
    pub(super) fn salvage_tables(&mut self, dir: &Path, report: &mut RepairReport) -> Result<()> {
        self.survey.report(dir, report);
        for (number, found) in std::mem::take(&mut self.survey.tables) {
            match found {
                Found::Whole { meta, origin } => self.place(number, Some(&origin), Some(meta)),
                Found::Missing => {
                    self.place(number, None, None);
                    let file = table_path(dir, number);
                    report.files.push(RepairedFile::missing(file, "the table is missing"));
                }
                Found::Damaged { path, file_bytes, mut table } => {
                    let origin = table.origin.clone();
                    let meta = self.rewrite(number, &mut table)?;
                    let kept = meta.as_ref().map_or(0, |meta| meta.entries);
                    let mut file = RepairedFile {
                        file: path,
                        fate: Fate::Rewritten,
                        kept_entries: kept,
                        dropped_entries: table.entries.map(|entries| entries.saturating_sub(kept)),
                        kept_bytes: 0,
                        damage: std::mem::take(&mut table.damage),
                    };
                    file.kept_bytes = file_bytes.saturating_sub(file.dropped_bytes());
                    report.files.push(file);
                    self.place(number, origin.as_ref(), meta);
                }
            }
        }
        Ok(())
    }

    fn rewrite(&mut self, number: u64, table: &mut SalvagedTable) -> Result<Option<TableMeta>> {
        let owner = self.owner(number, table.origin.as_ref());
        let known = owner.and_then(|id| self.state.keyspaces.get(&id));
        let level = known.and_then(|keyspace| level_of(keyspace, number)).unwrap_or(0);
        let options = known.map_or_else(KeyspaceOptions::new, |keyspace| keyspace.options.clone());
        // Where the manifest states one number for all entries, it may be that of an ingest, which the table lacks.
        let stated = known.and_then(|keyspace| keyspace.levels.iter().flatten().find(|meta| meta.number == number));
        let seqno = stated.filter(|meta| meta.min_seqno == meta.max_seqno).map(|meta| meta.max_seqno);
        let found = table.origin.clone().unwrap_or_else(|| Origin {
            keyspace: owner.unwrap_or(0),
            name: known.map_or_else(String::new, |keyspace| keyspace.name.clone()),
            ..Origin::default()
        });
        let origin = Origin { ingested: false, ..found };
        Ok(self.tables.rewrite(table, &Target { origin, options: &options, level }, seqno)?.0)
    }

    fn owner(&self, number: u64, origin: Option<&Origin>) -> Option<KeyspaceId> {
        let named = self.state.keyspaces.iter().find(|(_, keyspace)| level_of(keyspace, number).is_some());
        let named = named.map(|(id, _)| *id);
        named.or_else(|| self.owners.get(&number).copied()).or_else(|| origin.map(|origin| origin.keyspace))
    }

    /// Puts `meta` where table `number` was: in its level, or with the keyspace's other tables.
    fn place(&mut self, number: u64, origin: Option<&Origin>, meta: Option<TableMeta>) {
        let owner = self.owner(number, origin);
        if self.placed {
            let keyspaces = self.state.keyspaces.values_mut();
            for tables in keyspaces.flat_map(|keyspace| keyspace.levels.iter_mut()) {
                if let Some(at) = tables.iter().position(|meta| meta.number == number) {
                    tables.splice(at..=at, meta.clone());
                }
            }
            return;
        }
        let Some(meta) = meta else { return };
        let id = owner.unwrap_or_else(|| self.new_keyspace(format!("lost-table-{number}")));
        if self.state.dropped.contains_key(&id) {
            return;
        }
        let keyspace = self.state.keyspaces.entry(id).or_default();
        if let Some(origin) = origin.filter(|origin| origin.keyspace == id) {
            if keyspace.name.is_empty() {
                keyspace.name.clone_from(&origin.name);
            }
            keyspace.flushed_seqno = keyspace.flushed_seqno.max(origin.flushed_seqno);
        }
        self.state.last_seqno = self.state.last_seqno.max(meta.max_seqno).max(keyspace.flushed_seqno);
        self.loose.entry(id).or_default().push(meta.number);
    }

    fn new_keyspace(&mut self, name: String) -> KeyspaceId {
        let ids = self.state.keyspaces.keys().chain(self.state.dropped.keys()).chain(self.owners.values());
        let id = ids.map(|id| id.saturating_add(1)).max().unwrap_or(1).max(self.state.next_keyspace_id);
        self.state.keyspaces.insert(id, KeyspaceState { name, ..KeyspaceState::default() });
        self.state.next_keyspace_id = id.saturating_add(1);
        id
    }

    /// Puts every record of the log that checks out into tables, and lets the log begin anew.
    pub(super) fn salvage_log(
        &mut self,
        fs: &dyn FileSystem,
        dir: &Path,
        limits: Limits,
        report: &mut RepairReport,
    ) -> Result<()> {
        let LogFloor { segment, prev_seqno } = self.state.log_floor;
        let prev_seqno = (segment > 0).then_some(prev_seqno);
        let (id, synced) = (self.state.database_id, self.state.log_synced_seqno);
        let arenas = Arc::new(ArenaPool::new(limits.write_buffer_bytes, limits.buffer_bytes));
        let mut sorter = Sorter { limits, arenas, memtables: BTreeMap::new() };
        let log = wal::salvage::salvage(fs, dir, id, segment, prev_seqno, synced, &mut |first, count, payload| {
            if let Err(reason) = log::check(count, payload) {
                return Ok(Err(reason));
            }
            self.sort(&mut sorter, first, payload);
            if sorter.is_full() {
                self.write_sorted(&mut sorter)?;
            }
            Ok(Ok(()))
        })?;
        self.write_sorted(&mut sorter)?;
        log::report_salvaged(&log, dir, report);
        let last_seqno = self.state.last_seqno.max(log.last_seqno);
        self.state.last_seqno = last_seqno;
        self.state.log_synced_seqno = last_seqno;
        self.state.log_floor = LogFloor { segment: log.next_segment.max(segment + 1), prev_seqno: last_seqno };
        // Nothing speaks of them any more.
        self.state.dropped.clear();
        self.flushed_seqno = Some(last_seqno);
        Ok(())
    }

    /// Takes over the operations of a record that was checked.
    fn sort(&mut self, sorter: &mut Sorter, first: SeqNo, payload: &[u8]) {
        let mut seqno = first;
        for op in Ops::new(payload).flatten() {
            match op {
                Op::Put { keyspace, key, value } => {
                    self.insert(sorter, keyspace, key, Trailer::new(seqno, ValueKind::Put), value)
                }
                Op::Delete { keyspace, key } => {
                    self.insert(sorter, keyspace, key, Trailer::new(seqno, ValueKind::Delete), &[])
                }
                Op::DropKeyspace { keyspace } => self.drop_keyspace(sorter, keyspace, seqno),
                Op::Metadata { name, value } => {
                    match value {
                        Some(value) => drop(self.state.metadata.insert(name.to_owned(), value.to_owned())),
                        None => drop(self.state.metadata.remove(name)),
                    }
                    continue;
                }
            }
            seqno += 1;
        }
    }

    fn insert(&mut self, sorter: &mut Sorter, id: KeyspaceId, key: &[u8], trailer: Trailer, value: &[u8]) {
        // A manifest that is whole knows every keyspace there is.
        let is_gone = self.state.dropped.contains_key(&id) || (self.placed && !self.state.keyspaces.contains_key(&id));
        if is_gone {
            return;
        }
        let keyspace = self.state.keyspaces.entry(id).or_default();
        if trailer.seqno() > keyspace.flushed_seqno {
            sorter.memtable(id, keyspace).insert(key, trailer, value);
        }
    }

    fn drop_keyspace(&mut self, sorter: &mut Sorter, id: KeyspaceId, seqno: SeqNo) {
        sorter.memtables.remove(&id);
        self.loose.remove(&id);
        let name = self.state.keyspaces.remove(&id).unwrap_or_default().name;
        self.state.dropped.entry(id).or_insert(crate::version::state::DroppedKeyspace { name, seqno });
    }

    /// Writes what was sorted so far: a table a keyspace, younger than all it has.
    fn write_sorted(&mut self, sorter: &mut Sorter) -> Result<()> {
        for (id, memtable) in std::mem::take(&mut sorter.memtables) {
            let Some(keyspace) = self.state.keyspaces.get_mut(&id) else { continue };
            let target = Target { origin: origin_of(id, keyspace), options: &keyspace.options, level: 0 };
            let written = self.tables.write_memtable(memtable, &target)?;
            if self.placed {
                keyspace.levels[0].splice(..0, written);
            } else {
                self.loose.entry(id).or_default().extend(written.iter().map(|meta| meta.number));
            }
        }
        Ok(())
    }

    /// Merges what has no level, finds names for keyspaces that have none, and answers the state and its new tables.
    pub(super) fn finish(mut self, report: &mut RepairReport) -> Result<(ManifestState, Tables<'a>)> {
        self.name_keyspaces(report);
        for (id, numbers) in std::mem::take(&mut self.loose) {
            let Some(keyspace) = self.state.keyspaces.get_mut(&id) else { continue };
            let target = Target { origin: origin_of(id, keyspace), options: &keyspace.options, level: LAST_LEVEL };
            keyspace.levels[LAST_LEVEL] = self.tables.merge(numbers, &target)?;
        }
        if let Some(flushed_seqno) = self.flushed_seqno {
            self.state.keyspaces.values_mut().for_each(|keyspace| keyspace.flushed_seqno = flushed_seqno);
        }
        let ids = self.state.keyspaces.keys().chain(self.state.dropped.keys());
        let next_id = ids.map(|id| id.saturating_add(1)).max().unwrap_or(1);
        self.state.next_keyspace_id = self.state.next_keyspace_id.max(next_id);
        self.state.next_file_number = self.state.next_file_number.max(self.tables.next_number());
        Ok((self.state, self.tables))
    }

    /// Of keyspaces with one name the youngest is live: the others were dropped, since a name is not given twice. One
    /// without a name gets one that says so.
    fn name_keyspaces(&mut self, report: &mut RepairReport) {
        let mut taken = BTreeSet::new();
        for id in self.state.keyspaces.keys().rev().copied().collect::<Vec<_>>() {
            let Some(keyspace) = self.state.keyspaces.get_mut(&id) else { continue };
            let is_named = KeyspaceName::check(&keyspace.name).is_ok();
            if is_named && !taken.insert(keyspace.name.clone()) {
                report.notes.push(format!("an older keyspace {:?} was dropped", keyspace.name));
                self.state.keyspaces.remove(&id);
            } else if !is_named {
                keyspace.name.clear();
            }
        }
        for (id, keyspace) in self.state.keyspaces.iter_mut().filter(|(_, keyspace)| keyspace.name.is_empty()) {
            let names = (0u32..).map(|n| if n == 0 { format!("lost-{id}") } else { format!("lost-{id}-{n}") });
            keyspace.name = names.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
            taken.insert(keyspace.name.clone());
        }
        report
            .renamed
            .extend(self.state.keyspaces.values().map(|k| &k.name).filter(|n| n.starts_with("lost-")).cloned());
    }
}

/// What new tables of a keyspace say of themselves. The log counts as flushed only from the new manifest on: until then
/// a repair that is run again may meet some of these tables and miss others.
fn origin_of(id: KeyspaceId, keyspace: &KeyspaceState) -> Origin {
    Origin { keyspace: id, name: keyspace.name.clone(), flushed_seqno: keyspace.flushed_seqno, ingested: false }
}

fn level_of(keyspace: &KeyspaceState, number: u64) -> Option<usize> {
    keyspace.levels.iter().position(|tables| tables.iter().any(|meta| meta.number == number))
}

impl Sorter {
    fn memtable(&mut self, id: KeyspaceId, keyspace: &KeyspaceState) -> &Memtable {
        let Sorter { limits, arenas, memtables } = self;
        let new = || Arc::new(Memtable::new(keyspace.options.memtable, limits.memtable_bytes, arenas));
        memtables.entry(id).or_insert_with(new)
    }

    /// Half of the share that memtables have, since one record may be large.
    fn is_full(&self) -> bool {
        self.memtables.values().map(|memtable| memtable.bytes()).sum::<usize>() >= self.limits.write_buffer_bytes / 2
    }
}
