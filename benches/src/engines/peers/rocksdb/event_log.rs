//! What RocksDB's own log and statistics tell: what flushes and compactions wrote, by level.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::engines::LevelShape;

/// What comes before each event, which is an object of JSON; RocksDB's `EventLogger::Prefix`.
const PREFIX: &str = "EVENT_LOG_v1 ";

/// The fields of the events that matter here.
#[derive(Deserialize)]
struct Event {
    event: String,
    #[serde(default)]
    job: u64,
    /// Of `table_file_creation`.
    #[serde(default)]
    file_size: u64,
    /// Of `compaction_started`.
    #[serde(default)]
    input_data_size: u64,
    /// Of `compaction_finished`.
    #[serde(default)]
    output_level: usize,
    #[serde(default)]
    total_output_size: u64,
}

/// What was written into each level since the database in `dir` was opened.
pub(super) fn levels(dir: &Path) -> Vec<LevelShape> {
    // The log begins anew with each opening.
    fs::read(dir.join("LOG")).map_or(Vec::new(), |log| of_log(&String::from_utf8_lossy(&log)))
}

/// The level of this number, with all above it.
pub(super) fn level(levels: &mut Vec<LevelShape>, number: usize) -> &mut LevelShape {
    while levels.len() <= number {
        levels.push(LevelShape { level: levels.len() as u32, ..LevelShape::default() });
    }
    &mut levels[number]
}

fn of_log(log: &str) -> Vec<LevelShape> {
    let mut levels = Vec::new();
    // By job: what a compaction reads. Its outputs are counted when it is finished; tables of other jobs are flushed.
    let mut compactions = BTreeMap::new();
    for line in log.lines() {
        let Some((_, json)) = line.split_once(PREFIX) else { continue };
        let Ok(event) = serde_json::from_str::<Event>(json) else { continue };
        match event.event.as_str() {
            "compaction_started" => drop(compactions.insert(event.job, event.input_data_size)),
            "compaction_finished" => {
                let into = level(&mut levels, event.output_level);
                into.written_bytes += event.total_output_size;
                into.read_bytes += compactions.get(&event.job).copied().unwrap_or(0);
            }
            "table_file_creation" if !compactions.contains_key(&event.job) => {
                level(&mut levels, 0).written_bytes += event.file_size;
            }
            _ => {}
        }
    }
    levels
}

/// Bytes written into the write-ahead log, from `rocksdb.dbstats`: "Cumulative WAL: 2000K writes, .., written: 0.25 GB".
pub(super) fn wal_bytes(statistics: &str) -> Option<u64> {
    let line = statistics.lines().find(|line| line.starts_with("Cumulative WAL:"))?;
    let gib: f64 = line.split_once("written: ")?.1.split_once(" GB")?.0.parse().ok()?;
    Some((gib * (1u64 << 30) as f64) as u64)
}

/// How long writers were stalled, in nanoseconds, from `rocksdb.dbstats`: "Cumulative stall: 00:00:1.250 H:M:S".
pub(super) fn stall_ns(statistics: &str) -> Option<u64> {
    let line = statistics.lines().find_map(|line| line.strip_prefix("Cumulative stall: "))?;
    let mut parts = line.split_once(" H:M:S")?.0.split(':');
    let mut part = || parts.next()?.parse::<f64>().ok();
    let seconds = part()? * 3600.0 + part()? * 60.0 + part()?;
    Some((seconds * 1e9) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushes_and_compactions_are_counted_where_they_wrote() {
        let log = r#"
2026/01/01-00:00:00.000001 7f EVENT_LOG_v1 {"time_micros": 1, "job": 1, "event": "flush_started", "num_memtables": 1}
2026/01/01-00:00:00.000002 7f EVENT_LOG_v1 {"time_micros": 2, "cf_name": "default", "job": 1, "event": "table_file_creation", "file_number": 8, "file_size": 100}
2026/01/01-00:00:00.000003 7f EVENT_LOG_v1 {"time_micros": 3, "job": 2, "event": "compaction_started", "files_L0": [8], "score": 1.0, "input_data_size": 90}
2026/01/01-00:00:00.000004 7f EVENT_LOG_v1 {"time_micros": 4, "job": 2, "event": "table_file_creation", "file_number": 9, "file_size": 70}
2026/01/01-00:00:00.000005 7f EVENT_LOG_v1 {"time_micros": 5, "job": 2, "event": "compaction_finished", "output_level": 6, "total_output_size": 70, "lsm_state": [0, 0]}
2026/01/01-00:00:00.000006 7f EVENT_LOG_v1 {"torn
2026/01/01-00:00:00.000007 7f [db/x.cc:1] no event
"#;
        let levels = of_log(log);
        assert_eq!(levels.len(), 7);
        assert_eq!((levels[0].written_bytes, levels[0].read_bytes), (100, 0));
        assert_eq!((levels[6].level, levels[6].written_bytes, levels[6].read_bytes), (6, 70, 90));
    }

    #[test]
    fn statistics_are_read_from_their_lines() {
        let text = "** DB Stats **\nUptime(secs): 1.0\nCumulative WAL: 2000K writes, 0 syncs, 2000.00 writes per sync, \
                    written: 0.25 GB, 3.1 MB/s\nCumulative stall: 01:02:3.250 H:M:S, 0.4 percent\n";
        assert_eq!(wal_bytes(text), Some(1 << 28));
        assert_eq!(stall_ns(text), Some(3_723_250_000_000));
        assert_eq!((wal_bytes("Cumulative WAL:"), stall_ns("")), (None, None));
    }
}
