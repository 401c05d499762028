//! The workloads: what one does, what it needs to find, and what it leaves behind. Names are those of db_bench and YCSB
//! where those have such a workload.

mod claims;
mod fill;
mod mixgraph;
mod order;
mod phase;
mod read;
mod route;
mod scan;
mod whilewriting;
mod worker;
mod write;
mod ycsb;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::engines::{Direction, Engine};
use crate::error::{Error, Result};
use crate::measure::{Kind, Timing};
use crate::settings::{Durability, Settings};

pub use claims::Claims;
pub use fill::BATCH_PUTS;
pub use order::{Forecast, check_order};
pub use phase::Phase;
pub use worker::Worker;

/// How many steps a thread takes at a time.
const CHUNK: u64 = 64;

/// Which workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Workload {
    /// Puts every key once into an empty store, in key order
    FillSeq,
    /// Puts every key once into an empty store, in random order
    FillRandom,
    /// As fillrandom, in atomic batches of 100
    FillBatch,
    /// Puts some keys (--syncs) into an empty store, in random order, each synced before the next, whatever --durability says
    FillSync,
    /// Loads every key into an empty store, in key order, by the engine's fastest way
    BulkLoad,
    /// Puts a new value for every key, in random order, several times (--overwrite-passes)
    Overwrite,
    /// Deletes half of the keys, in random order
    DeleteRandom,
    /// Writes into tables what is in memory: what the files take then is what the data take
    Flush,
    /// Gets keys that were written, drawn at random
    ReadRandom,
    /// Gets keys that were written, drawn by a Zipf distribution of exponent 0.99
    ReadZipf,
    /// Gets keys that were never written and lie between those that were
    ReadMissing,
    /// As readrandom, right after a workload that writes, while its background work goes on
    ReadUncompacted,
    /// Seeks to keys drawn at random and reads some entries (--seek-entries) from there on
    SeekRandom,
    /// As seekrandom, in reverse key order
    SeekReverse,
    /// Reads all entries in key order, several times
    Scan,
    /// Reads all entries in reverse key order, several times
    ScanReverse,
    /// Gets keys drawn at random, while one more thread puts new values as fast as it can, for some time (--seconds)
    ReadWhileWriting,
    /// YCSB A: half gets, half puts; Zipf
    YcsbA,
    /// YCSB B: 95 % gets, 5 % puts; Zipf
    YcsbB,
    /// YCSB C: gets; Zipf
    YcsbC,
    /// YCSB D: 95 % gets of the latest keys, 5 % inserts of new ones
    YcsbD,
    /// YCSB E: 95 % scans of 1 to 100 entries, 5 % inserts; Zipf
    YcsbE,
    /// YCSB F: half gets, half read-modify-writes; Zipf
    YcsbF,
    /// The production model of Cao et al. (FAST '20): 83 % gets, 14 % puts, 3 % seeks over hot key ranges
    MixGraph,
    /// Opens what a process left that was killed with 64 MiB in its log; a session of its own
    OpenAfterKill,
}

impl Workload {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Workload::FillSeq => "fillseq",
            Workload::FillRandom => "fillrandom",
            Workload::FillBatch => "fillbatch",
            Workload::FillSync => "fillsync",
            Workload::BulkLoad => "bulkload",
            Workload::Overwrite => "overwrite",
            Workload::DeleteRandom => "deleterandom",
            Workload::Flush => "flush",
            Workload::ReadRandom => "readrandom",
            Workload::ReadZipf => "readzipf",
            Workload::ReadMissing => "readmissing",
            Workload::ReadUncompacted => "readuncompacted",
            Workload::SeekRandom => "seekrandom",
            Workload::SeekReverse => "seekreverse",
            Workload::Scan => "scan",
            Workload::ScanReverse => "scanreverse",
            Workload::ReadWhileWriting => "readwhilewriting",
            Workload::YcsbA => "ycsba",
            Workload::YcsbB => "ycsbb",
            Workload::YcsbC => "ycsbc",
            Workload::YcsbD => "ycsbd",
            Workload::YcsbE => "ycsbe",
            Workload::YcsbF => "ycsbf",
            Workload::MixGraph => "mixgraph",
            Workload::OpenAfterKill => "openafterkill",
        }
    }

    /// Whether it begins with an empty store.
    pub fn fills(self) -> bool {
        use Workload::*;
        matches!(self, FillSeq | FillRandom | FillBatch | FillSync | BulkLoad | OpenAfterKill)
    }

    /// The kinds of operations that it consists of, the one it is named after first.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Workload::FillSeq | Workload::FillRandom | Workload::FillBatch | Workload::FillSync => &[Kind::Puts],
            Workload::Overwrite => &[Kind::Puts],
            Workload::BulkLoad | Workload::Scan | Workload::ScanReverse => &[Kind::Entries],
            Workload::DeleteRandom => &[Kind::Deletes],
            Workload::ReadRandom | Workload::ReadZipf | Workload::ReadMissing | Workload::ReadUncompacted => {
                &[Kind::Gets]
            }
            Workload::SeekRandom | Workload::SeekReverse => &[Kind::Seeks],
            Workload::ReadWhileWriting | Workload::YcsbA | Workload::YcsbB | Workload::YcsbD => {
                &[Kind::Gets, Kind::Puts]
            }
            Workload::YcsbC => &[Kind::Gets],
            Workload::YcsbE => &[Kind::Seeks, Kind::Puts],
            Workload::YcsbF => &[Kind::Gets, Kind::Updates],
            Workload::MixGraph => &[Kind::Gets, Kind::Puts, Kind::Seeks],
            Workload::Flush => &[Kind::Flushes],
            Workload::OpenAfterKill => &[Kind::Opens],
        }
    }

    /// Whether it writes.
    pub fn writes(self) -> bool {
        self == Workload::BulkLoad || self.kinds().iter().any(|kind| kind.writes())
    }

    /// Whether it inserts keys that no fill writes.
    pub fn inserts(self) -> bool {
        matches!(self, Workload::YcsbD | Workload::YcsbE)
    }

    /// Whether it has to begin while the background work of the one before goes on.
    pub fn begins_unsettled(self) -> bool {
        self == Workload::ReadUncompacted
    }

    /// What one operation of it is, for reports.
    pub fn unit(self) -> &'static str {
        match self.kinds() {
            [kind] => kind.name(),
            _ => "operations",
        }
    }

    /// How many threads it has.
    pub fn workers(self, settings: &Settings) -> u32 {
        match self {
            // Entries come in order, so there is no second place to put any.
            Workload::BulkLoad | Workload::Flush | Workload::OpenAfterKill => 1,
            Workload::ReadWhileWriting => settings.threads + 1,
            _ => settings.threads,
        }
    }

    /// What its store is opened with.
    pub fn settings(self, settings: &Settings) -> Settings {
        match self {
            Workload::FillSync => Settings { durability: Durability::Synced, ..settings.clone() },
            _ => settings.clone(),
        }
    }

    /// The steps it takes on a store of `records` records, all threads together. A step is an operation; of a scan it
    /// is a pass, and there are as many for every thread; of a delete a look whether the key is to go.
    pub fn steps(self, settings: &Settings, records: u64) -> u64 {
        match self {
            Workload::FillSeq | Workload::FillRandom | Workload::FillBatch | Workload::BulkLoad => settings.keys,
            Workload::FillSync => settings.syncs.min(settings.keys),
            Workload::Overwrite => records.saturating_mul(settings.overwrite_passes),
            Workload::DeleteRandom => records,
            Workload::ReadRandom | Workload::ReadZipf | Workload::ReadMissing | Workload::ReadUncompacted => {
                settings.reads.unwrap_or(settings.keys)
            }
            Workload::SeekRandom | Workload::SeekReverse => settings.seeks.unwrap_or(settings.keys.div_ceil(10)),
            Workload::Scan | Workload::ScanReverse => settings.scan_passes.saturating_mul(settings.threads.into()),
            Workload::ReadWhileWriting => u64::MAX,
            Workload::YcsbE => settings.operations.unwrap_or(settings.keys.div_ceil(10)),
            Workload::YcsbA | Workload::YcsbB | Workload::YcsbC | Workload::YcsbD | Workload::YcsbF => {
                settings.operations.unwrap_or(settings.keys)
            }
            Workload::MixGraph => settings.operations.unwrap_or(settings.keys),
            Workload::Flush | Workload::OpenAfterKill => 1,
        }
    }

    /// After how many seconds it ends whether or not its steps are done.
    pub fn seconds(self, settings: &Settings) -> Option<u64> {
        let own = if self == Workload::ReadWhileWriting { Some(settings.seconds) } else { None };
        let steady = if self.builds() { None } else { settings.steady_seconds };
        [own, steady, settings.phase_seconds].into_iter().flatten().min()
    }

    /// Whether what comes after it is to find all of what it does.
    fn builds(self) -> bool {
        matches!(
            self,
            Workload::FillSeq
                | Workload::FillRandom
                | Workload::FillBatch
                | Workload::BulkLoad
                | Workload::Overwrite
                | Workload::DeleteRandom
                | Workload::Flush
        )
    }

    /// How many steps a thread takes at a time.
    fn chunk(self, settings: &Settings) -> u64 {
        match self {
            Workload::FillBatch => BATCH_PUTS,
            Workload::Scan | Workload::ScanReverse => 1,
            // Where a write takes a millisecond, a chunk of them would pass the end by much.
            _ if self.writes() && self.settings(settings).durability == Durability::Synced => 1,
            _ => CHUNK,
        }
    }

    /// How its operations of a kind are timed.
    fn timing(self, kind: Kind, settings: &Settings) -> Timing {
        let mixed = self.kinds().len() > 1 && self != Workload::ReadWhileWriting;
        let slow = self == Workload::FillBatch || self.settings(settings).durability == Durability::Synced;
        match kind.writes() {
            _ if self == Workload::Flush => Timing::Every,
            true if mixed || slow => Timing::Every,
            false if mixed => Timing::Sample,
            _ => Timing::SampleAndSpans,
        }
    }

    /// Does its steps on the worker's thread.
    ///
    /// # Errors
    /// What the engine says, and [`crate::Error::WrongAnswer`] for the first answer that cannot be right.
    pub fn work<E: Engine>(self, worker: &mut Worker<'_, E>) -> Result<()> {
        match self {
            Workload::FillSeq => fill::put_each(worker, |stratum| stratum),
            Workload::FillRandom | Workload::FillSync => {
                let order = fill::random_order(worker.phase);
                fill::put_each(worker, |step| order.at(step))
            }
            Workload::FillBatch => fill::put_batches(worker),
            Workload::BulkLoad => fill::bulk_load(worker),
            Workload::Overwrite => write::overwrite(worker),
            Workload::DeleteRandom => write::delete_doomed(worker),
            Workload::Flush => write::flush(worker),
            Workload::ReadRandom | Workload::ReadUncompacted => read::get_uniform(worker),
            Workload::ReadZipf => read::get_zipf(worker),
            Workload::ReadMissing => read::get_missing(worker),
            Workload::SeekRandom => scan::seek_uniform(worker, Direction::Forward),
            Workload::SeekReverse => scan::seek_uniform(worker, Direction::Reverse),
            Workload::Scan => scan::pass_over_all(worker, Direction::Forward),
            Workload::ScanReverse => scan::pass_over_all(worker, Direction::Reverse),
            Workload::ReadWhileWriting => whilewriting::work(worker),
            Workload::YcsbA => ycsb::work(worker, ycsb::A),
            Workload::YcsbB => ycsb::work(worker, ycsb::B),
            Workload::YcsbC => ycsb::work(worker, ycsb::C),
            Workload::YcsbD => ycsb::work(worker, ycsb::D),
            Workload::YcsbE => ycsb::work(worker, ycsb::E),
            Workload::YcsbF => ycsb::work(worker, ycsb::F),
            Workload::MixGraph => mixgraph::work(worker),
            Workload::OpenAfterKill => {
                Err(Error::Settings("openafterkill takes two processes; see crate::crash".to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_command_line_are_names_in_reports() {
        for workload in Workload::value_variants() {
            assert_eq!(Workload::from_str(workload.name(), false).as_ref(), Ok(workload));
            let json = serde_json::to_string(workload).unwrap();
            assert_eq!(json, format!("\"{}\"", workload.name()));
        }
    }

    #[test]
    fn only_what_builds_a_store_goes_on_after_the_time_of_the_others() {
        let settings =
            Settings { phase_seconds: Some(60), steady_seconds: Some(3), seconds: 10, ..Settings::default() };
        let limits = |settings: &Settings| {
            use Workload::{FillRandom, Overwrite, ReadRandom, ReadWhileWriting, YcsbD};
            [FillRandom, Overwrite, ReadRandom, YcsbD, ReadWhileWriting].map(|workload| workload.seconds(settings))
        };
        assert_eq!(limits(&settings), [60, 60, 3, 3, 3].map(Some));
        let settings = Settings { phase_seconds: None, ..settings };
        assert_eq!(limits(&settings), [None, None, Some(3), Some(3), Some(3)]);
        assert_eq!(limits(&Settings::default()), [None, None, None, None, Some(10)]);
    }

    #[test]
    fn what_writes_may_stall_and_is_timed_so_that_no_stall_is_missed() {
        let settings = Settings::default();
        for &workload in Workload::value_variants() {
            for &kind in workload.kinds().iter().filter(|kind| kind.writes()) {
                assert_ne!(workload.timing(kind, &settings), Timing::Sample, "{workload:?} {kind:?}");
            }
        }
        assert_eq!(Workload::YcsbB.timing(Kind::Gets, &settings), Timing::Sample);
        assert_eq!(Workload::ReadWhileWriting.timing(Kind::Puts, &settings), Timing::SampleAndSpans);
        assert_eq!(Workload::FillSync.timing(Kind::Puts, &settings), Timing::Every);
    }
}
