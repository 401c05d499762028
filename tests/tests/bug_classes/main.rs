//! One test for each class of bug that young LSM engines had, named after its row in the list that the project keeps of
//! them. Each is small and sharp: it fails for that class, whatever the larger tests find as well.
//!
//! | Class | Test |
//! |---|---|
//! | older table read first | `reads::older_table_read_first` |
//! | lost keys under parallel compaction | `reads::lost_keys_under_parallel_compaction` |
//! | version needed by a snapshot dropped | `reads::version_needed_by_a_snapshot_dropped` |
//! | tombstone resurrection | `reads::tombstone_resurrection` |
//! | range tombstone at file edges | there are none yet; versions of a key there: `reads::versions_of_one_key_at_file_edges` |
//! | filter false negative | `reads::filter_false_negative` |
//! | isolation | `reads::isolation` |
//! | clear undone by replay | no `clear` yet, the nearest is a dropped keyspace: `recovery::drop_undone_by_replay` |
//! | sequence number regresses | `recovery::sequence_number_regresses` |
//! | replay boundary or segment missed | `recovery::replay_boundary_or_segment_missed` |
//! | mid-log damage taken as the tail | `recovery::mid_log_damage_taken_as_the_tail` |
//! | table not synced before the manifest names it | `recovery::table_not_synced_before_the_manifest_names_it` |
//! | directory fsync missing | `recovery::directory_fsync_missing` |
//! | torn MANIFEST or CURRENT | `recovery::torn_manifest_or_current` |
//! | batch split; double crash | `recovery::batch_split_and_double_crash` |
//! | garbage collection deletes live data | no key-value separation yet; of files: `recovery::garbage_collection_deletes_live_data` |
//! | fsync error ignored or retried | `failures::fsync_error_ignored_or_retried` |
//! | iterator error looks like the end | `failures::iterator_error_looks_like_the_end` |
//! | (found by fuzzing) entries out of order | `failures::entries_out_of_order_stop_a_compaction` |
//! | use after close | `failures::use_after_close` |
//! | clear races compaction | `failures::drop_races_compaction` |
//! | poisoned locks | `failures::poisoned_locks_*` |
//! | length overflow | `failures::length_overflow` |
//! | read-only opener deletes files | `failures::read_only_opener_deletes_files` |
//! | merge lost on resume | there is no merge yet |
//!
//! All together take about 15 seconds. Nothing is random from run to run.

use std::collections::BTreeMap;
use std::sync::Arc;

use siltstone::fs::{FileSystem, SimFileSystem};
use siltstone::{Db, Keyspace, Options, Result};
use siltstone_tests::options::tiny;

/// What a test answers with.
type Done = std::result::Result<(), Box<dyn std::error::Error>>;

mod failures;
mod reads;
mod recovery;

/// Tiny options on a filesystem.
fn on(fs: impl FileSystem) -> Options {
    tiny().background_threads(1).file_system(Arc::new(fs))
}

/// The database `/db` of a simulated filesystem.
fn open(sim: &SimFileSystem) -> Result<Db> {
    on(sim.clone()).open("/db")
}

/// What a keyspace holds, read by iteration in both directions and by gets, which have to agree.
fn contents(keyspace: &Keyspace) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let map = siltstone_tests::state::read_both_ways(keyspace.name(), keyspace.iter(), keyspace.iter()).unwrap();
    for (key, value) in &map {
        assert_eq!(keyspace.get(key).unwrap().as_deref(), Some(&value[..]), "get of {}", key.escape_ascii());
    }
    map
}
