//! A run of the engine itself: a workload is written, watched each second, read, and compared with what was written.

pub mod operations;
mod watch;

use std::path::Path;
use std::time::Instant;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use siltstone::internals::compaction::LEVELS;
use siltstone::internals::reads::trace_get;
use siltstone::internals::strategy::Strategy;
use siltstone::{Db, Keyspace, LevelSnapshot, Options};

use super::costs::Costs;
use super::formula::Prediction;
use super::outcome::{LevelOutcome, Moment, Origin, Outcome, Touched, peak_space_amplification};
use super::scale::Scale;
use super::schedule::Schedule;
use super::workload::Workload;
use crate::data::mix;
use crate::error::{Error, Result};
use crate::machine;
use operations::{Operation, Operations, Written};
use watch::{Progress, Watch};

/// One run: what is written, and how it is compacted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// What is written.
    pub workload: Workload,
    /// The name of a [`Strategy`].
    pub strategy: String,
    /// How much.
    pub scale: Scale,
    /// What entries take, by which a paced run knows when a memtable is full; measured if absent.
    pub costs: Option<Costs>,
}

pub(super) fn fault(error: siltstone::Error) -> Error {
    Error::engine("siltstone", error)
}

/// Runs `spec` in a new directory under `dir`, which is removed again; `bar` shows how far it is.
///
/// # Errors
/// What the engine says; [`Error::WrongAnswer`] if it answers what was not written; [`Error::Settings`]; [`Error::Io`].
pub fn measure(spec: &Spec, dir: &Path, bar: &ProgressBar) -> Result<Outcome> {
    spec.scale.check()?;
    let strategy: Strategy = spec.strategy.parse().map_err(|error| Error::Settings(format!("{error}")))?;
    let options = spec.scale.keyspace_options(&strategy);
    let file_system = machine::file_system(dir).map_or(String::new(), |kind| format!(", on {kind}"));
    let store = tempfile::Builder::new().prefix("siltstone-compaction").tempdir_in(dir).map_err(Error::io(dir))?;
    let pace = if spec.scale.paced { Some(pace(spec, &strategy, dir)?) } else { None };
    let memtable_bytes = usize::try_from(spec.scale.memtable_bytes())
        .map_err(|_| Error::Settings("a memtable of that size cannot be addressed".to_owned()))?;
    let db = Options::new()
        .memory_bytes(spec.scale.memory_bytes())
        .memtable_bytes(memtable_bytes)
        .background_threads(spec.scale.background_threads as usize)
        .open(store.path())
        .map_err(fault)?;
    let keyspace = db.keyspace("bench", options).map_err(fault)?;
    let mut run = Run {
        written: Written::new(spec.workload, &spec.scale)?,
        watch: Watch::new(&db, &keyspace, store.path()),
        db,
        keyspace,
        pace,
        spec,
    };
    let (seconds, idle_seconds) = run.write(bar)?;
    let outcome = run.outcome(&strategy, machine::describe() + &file_system, seconds, idle_seconds)?;
    run.check()?;
    run.db.close().map_err(fault)?;
    Ok(outcome)
}

/// The numbers of the writes before which a paced run flushes, in order.
fn pace(spec: &Spec, strategy: &Strategy, dir: &Path) -> Result<std::vec::IntoIter<u64>> {
    let Spec { workload, scale, .. } = spec;
    let options = scale.keyspace_options(strategy);
    let costs = match spec.costs {
        Some(costs) => costs,
        None => Costs::measure(*workload, &options, scale.key_bytes, scale.value_bytes, dir)?,
    };
    let writes = (scale.keys, scale.passes);
    let schedule = Schedule::new(*workload, writes, scale.value_bytes, scale.fill_bytes(), costs);
    Ok(schedule.map(|chunk| chunk.begin + chunk.ops).collect::<Vec<_>>().into_iter())
}

struct Run<'s> {
    spec: &'s Spec,
    db: Db,
    keyspace: Keyspace,
    written: Written,
    watch: Watch,
    pace: Option<std::vec::IntoIter<u64>>,
}

impl Run<'_> {
    /// Writes everything; the seconds that took, and those from there until nothing worked in the background.
    fn write(&mut self, bar: &ProgressBar) -> Result<(f64, f64)> {
        let progress = Progress::default();
        let watch = &self.watch;
        let (db, keyspace, written, pace, spec) =
            (&self.db, &self.keyspace, &mut self.written, &mut self.pace, self.spec);
        let (answer, series) = std::thread::scope(|scope| {
            let watching = scope.spawn(|| watch.each_second(&progress));
            let answer = write_all(db, keyspace, written, pace, spec, &progress, bar);
            progress.stop();
            (answer, watching.join())
        });
        let (seconds, idle_seconds) = answer?;
        let series = series.map_err(|_| Error::engine("siltstone", "watching it panicked"))??;
        self.watch.series = series;
        let end = self.watch.moment(&progress)?;
        self.watch.series.push(end);
        Ok((seconds, idle_seconds))
    }

    fn outcome(&self, strategy: &Strategy, machine: String, seconds: f64, idle_seconds: f64) -> Result<Outcome> {
        let Spec { workload, scale, .. } = self.spec;
        let amplification = self.keyspace.metrics().amplification;
        let mut levels = amplification.levels.map(level_outcome);
        self.read(&mut levels)?;
        let series = self.watch.series.clone();
        let live_bytes = series.last().map_or(0, |end: &Moment| end.live_bytes);
        let deepest = (1..LEVELS).rev().find(|&level| levels[level].tables > 0).unwrap_or(LEVELS - 1);
        Ok(Outcome {
            origin: Origin::Measured,
            workload: *workload,
            strategy: strategy.to_string(),
            scale: scale.clone(),
            machine,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            predicted: Prediction::new(
                live_bytes,
                scale.memtable_bytes(),
                strategy.level_ratio(),
                strategy.level0_trigger(),
                deepest,
            ),
            levels,
            peak_space_amplification: peak_space_amplification(&series),
            series,
            seconds,
            idle_seconds,
            picker_steps: None,
        })
    }

    /// Gets keys, present and absent, and notes what that touches in each level.
    fn read(&self, levels: &mut [LevelOutcome; LEVELS]) -> Result<()> {
        let data = self.written.data();
        let (mut key, gets) = (Vec::new(), self.spec.scale.gets);
        let ids = |stream: u64| (0..gets).map(move |draw| data.random(mix(stream), draw));
        let (mut present, mut absent) = ([Touched::default(); LEVELS], [Touched::default(); LEVELS]);
        let mut present_gets = 0;
        for id in ids(1).filter(|&id| self.written.is_live(id)) {
            data.key(id, &mut key);
            self.trace(&key, true, &mut present)?;
            present_gets += 1;
        }
        for id in ids(2) {
            data.missing_key(id, &mut key);
            self.trace(&key, false, &mut absent)?;
        }
        let each = |sum: Touched, gets: u64| {
            let gets = gets.max(1) as f64;
            Touched { tables: sum.tables / gets, blocks: sum.blocks / gets }
        };
        for (at, level) in levels.iter_mut().enumerate() {
            (level.present, level.absent) = (each(present[at], present_gets), each(absent[at], gets));
        }
        Ok(())
    }

    fn trace(&self, key: &[u8], expected: bool, sums: &mut [Touched; LEVELS]) -> Result<()> {
        let traced = trace_get(&self.keyspace, key).map_err(fault)?;
        if traced.found != expected {
            let what = if expected { "was written and is not found" } else { "was never written and is found" };
            return Err(Error::WrongAnswer(format!("key {key:02x?} {what}")));
        }
        for (sum, touched) in sums.iter_mut().zip(traced.levels) {
            sum.tables += touched.tables as f64;
            sum.blocks += touched.blocks as f64;
        }
        Ok(())
    }

    /// Compares the whole store with what was written.
    fn check(&mut self) -> Result<()> {
        self.written.check(self.keyspace.iter().map(|entry| entry.map_err(fault)))
    }
}

/// Writes everything and waits until nothing is left to do; the seconds each took.
fn write_all(
    db: &Db,
    keyspace: &Keyspace,
    written: &mut Written,
    pace: &mut Option<std::vec::IntoIter<u64>>,
    spec: &Spec,
    progress: &Progress,
    bar: &ProgressBar,
) -> Result<(f64, f64)> {
    /// How often the bar and the counters of the watch are brought up to date.
    const NOTED_EACH: u64 = 256;
    let mut operations = Operations::new(spec.workload, &spec.scale)?;
    bar.set_length(operations.count_all());
    let (mut key, mut value, mut user_bytes) = (Vec::new(), Vec::new(), 0);
    let mut next_flush = pace.as_mut().and_then(Iterator::next);
    let began = Instant::now();
    while let Some(operation) = operations.next_write()? {
        let Operation { number, id, value_bytes } = operation;
        written.data().key(id, &mut key);
        if value_bytes.is_some() {
            written.value(&operation, &mut value)?;
            keyspace.put(&key, &value).map_err(fault)?;
        } else {
            keyspace.delete(&key).map_err(fault)?;
        }
        user_bytes += written.note(&operation);
        if number.is_multiple_of(NOTED_EACH) {
            progress.note(number + 1, user_bytes, written.live_bytes());
            bar.set_position(number + 1);
        }
        if next_flush == Some(number + 1) {
            keyspace.flush().map_err(fault)?;
            db.wait_for_compaction().map_err(fault)?;
            next_flush = pace.as_mut().and_then(Iterator::next);
        }
    }
    progress.note(operations.count_all(), user_bytes, written.live_bytes());
    let seconds = began.elapsed().as_secs_f64();
    let idle = Instant::now();
    db.wait_for_compaction().map_err(fault)?;
    Ok((seconds, idle.elapsed().as_secs_f64()))
}

fn level_outcome(level: LevelSnapshot) -> LevelOutcome {
    LevelOutcome {
        tables: level.tables,
        file_bytes: level.file_bytes,
        entries: level.entries,
        tombstones: level.tombstones,
        written_bytes: level.written_bytes,
        read_bytes: level.read_bytes + level.read_output_level_bytes,
        moved_bytes: level.moved_bytes,
        dropped_shadowed: level.dropped_shadowed,
        tombstones_gone: level.tombstones_gone,
        tombstone_age_mean: level.tombstone_age_mean,
        tombstone_age_max: level.tombstone_age_max,
        ..LevelOutcome::default()
    }
}

#[cfg(test)]
mod tests;
