//! The workloads: what one does, what it needs to find, and what it leaves behind.

mod read;
mod scan;
mod worker;
mod write;

use std::ops::Range;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::data::Expected;
use crate::engines::{Direction, Engine};
use crate::error::{Error, Result};
use crate::settings::Settings;

pub use worker::Worker;

/// Which workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Workload {
    /// Puts every key once into an empty store, in key order
    FillSeq,
    /// Puts every key once into an empty store, in random order
    FillRandom,
    /// Puts a new value for every key once, in random order
    Overwrite,
    /// Deletes half of the keys, in random order
    DeleteRandom,
    /// Gets keys that were written, drawn at random
    ReadRandom,
    /// Gets keys that were never written and lie between those that were
    ReadMissing,
    /// Seeks to keys drawn at random and reads entries from there on
    SeekRandom,
    /// Reads all entries in key order, several times
    Scan,
    /// Reads all entries in reverse key order, several times
    ScanReverse,
    /// Opens what a process left that was killed with 64 MiB in its log; a session of its own
    OpenAfterKill,
}

impl Workload {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Workload::FillSeq => "fillseq",
            Workload::FillRandom => "fillrandom",
            Workload::Overwrite => "overwrite",
            Workload::DeleteRandom => "deleterandom",
            Workload::ReadRandom => "readrandom",
            Workload::ReadMissing => "readmissing",
            Workload::SeekRandom => "seekrandom",
            Workload::Scan => "scan",
            Workload::ScanReverse => "scanreverse",
            Workload::OpenAfterKill => "openafterkill",
        }
    }

    /// Whether it begins with an empty store.
    pub fn fills(self) -> bool {
        matches!(self, Workload::FillSeq | Workload::FillRandom | Workload::OpenAfterKill)
    }

    /// Whether it writes.
    pub fn writes(self) -> bool {
        self.fills() || matches!(self, Workload::Overwrite | Workload::DeleteRandom)
    }

    /// What one operation of it is, for reports.
    pub fn unit(self) -> &'static str {
        match self {
            Workload::DeleteRandom => "deletes",
            Workload::ReadRandom | Workload::ReadMissing => "gets",
            Workload::SeekRandom => "seeks",
            Workload::Scan | Workload::ScanReverse => "entries",
            Workload::OpenAfterKill => "opens",
            _ => "puts",
        }
    }

    /// What the store should hold after it, if it held `before`; `None` is an empty one.
    ///
    /// # Errors
    /// [`Error::Settings`] if it needs data and there is none, or has nothing left to do.
    ///
    /// ```
    /// use siltstone_benches::{data::Expected, workloads::Workload};
    /// let filled = Workload::FillRandom.after(None).unwrap();
    /// assert_eq!(Workload::Overwrite.after(Some(filled)).unwrap().version, 2);
    /// assert!(Workload::ReadRandom.after(None).is_err());
    /// ```
    pub fn after(self, before: Option<Expected>) -> Result<Expected> {
        if self.fills() {
            return Ok(Expected::FILLED);
        }
        let Some(before) = before else {
            return Err(Error::Settings(format!("{} needs data: begin with fillrandom or fillseq", self.name())));
        };
        match self {
            Workload::Overwrite => Ok(Expected { version: before.version + 1, halved: false }),
            Workload::DeleteRandom if before.halved => {
                Err(Error::Settings("deleterandom finds its keys deleted: fill or overwrite in between".to_owned()))
            }
            Workload::DeleteRandom => Ok(Expected { halved: true, ..before }),
            _ => Ok(before),
        }
    }

    /// The steps it takes, all threads together. A step is an operation; of a scan it is a pass, and every thread does
    /// all of them; of a delete a look whether the key is to go.
    pub fn steps(self, settings: &Settings) -> u64 {
        match self {
            Workload::ReadRandom | Workload::ReadMissing => settings.reads.unwrap_or(settings.keys),
            Workload::SeekRandom => settings.seeks.unwrap_or(settings.keys.div_ceil(10)),
            Workload::Scan | Workload::ScanReverse => settings.scan_passes.saturating_mul(settings.threads.into()),
            _ => settings.keys,
        }
    }

    /// Does `steps` of it on the worker's thread; how many operations that were. `expected` is what the store holds
    /// before a workload that reads, after one that writes.
    ///
    /// # Errors
    /// What the engine says, and [`Error::WrongAnswer`] for the first answer that is not what was written.
    pub fn work<E: Engine>(self, worker: &mut Worker<'_, E>, expected: Expected, steps: Range<u64>) -> Result<u64> {
        match self {
            Workload::FillSeq => write::put_all(worker, expected.version, steps, |step| step),
            Workload::FillRandom | Workload::Overwrite => {
                let order = worker.data.order(expected.version);
                write::put_all(worker, expected.version, steps, |step| order.at(step))
            }
            Workload::DeleteRandom => write::delete_doomed(worker, steps),
            Workload::ReadRandom => read::get_random(worker, expected, steps),
            Workload::ReadMissing => read::get_missing(worker, steps),
            Workload::SeekRandom => scan::seek_random(worker, expected, steps),
            Workload::Scan => scan::pass_over_all(worker, expected, steps, Direction::Forward),
            Workload::ScanReverse => scan::pass_over_all(worker, expected, steps, Direction::Reverse),
            Workload::OpenAfterKill => {
                Err(Error::Settings("openafterkill takes two processes; see crate::crash".to_owned()))
            }
        }
    }
}

/// Checks that workloads can run in this order.
///
/// # Errors
/// [`Error::Settings`] as [`Workload::after`], and for an empty list.
pub fn check_order(workloads: &[Workload]) -> Result<()> {
    if workloads.is_empty() {
        return Err(Error::Settings("no workload is named".to_owned()));
    }
    workloads.iter().try_fold(None, |before, workload| workload.after(before).map(Some)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_command_line_are_names_in_reports() {
        for workload in Workload::value_variants() {
            assert_eq!(Workload::from_str(workload.name(), false).as_ref(), Ok(workload));
        }
    }

    #[test]
    fn orders_that_cannot_run_are_refused() {
        use Workload::*;
        assert!(check_order(&[FillRandom, Overwrite, DeleteRandom, Overwrite, DeleteRandom, Scan]).is_ok());
        assert!(check_order(&[]).is_err());
        assert!(check_order(&[ReadRandom]).is_err());
        assert!(check_order(&[FillSeq, DeleteRandom, DeleteRandom]).is_err());
    }
}
