//! A session: workloads, one after the other, on one engine, in this process.

#[cfg(test)]
mod faulty;
mod measurement;
mod store;

use std::io::Write;
use std::path::Path;

use crate::data::Dataset;
use crate::engines::Engine;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::step::Step;
use crate::workloads::{Workload, check_order};

pub use measurement::{KindMeasurement, Line, Measurement, print};
use store::Store;

/// Runs `steps` on a fresh store in a fresh directory under `dir`, and writes a [`Line`] of JSON to `out` after
/// each.
///
/// # Errors
/// What the engine says, or [`Error::WrongAnswer`], with the workload's name; [`Error::Io`].
pub fn run<E: Engine>(settings: &Settings, steps: &[Step], dir: &Path, out: &mut impl Write) -> Result<()> {
    check_order(steps, settings)?;
    let data = Dataset::new(settings.keys, settings.key_bytes, settings.value_bytes, settings.seed)?;
    let mut open: Option<Store<E>> = None;
    for (at, step) in steps.iter().enumerate() {
        let workload = step.workload;
        if workload.fills() {
            open.take().map_or(Ok(()), Store::close)?;
        }
        let mut store = match open.take() {
            Some(store) => store,
            None => Store::open(dir, workload.settings(settings), &data)?,
        };
        store.adopt(step.settings(settings));
        let settle = !steps.get(at + 1).is_some_and(|next| next.workload.begins_unsettled());
        let measured = store.measure(workload, at as u64 + 1, settle);
        let measurement = measured.map_err(|error| in_workload(workload, error))?;
        print(out, &Line::Measured(Box::new(measurement)))?;
        open = Some(store);
    }
    let Some(store) = open else { return Ok(()) };
    print(out, &Line::Details(store.details()))?;
    store.close()
}

fn in_workload(workload: Workload, error: Error) -> Error {
    match error {
        Error::WrongAnswer(what) => Error::WrongAnswer(format!("{}: {what}", workload.name())),
        Error::Engine { engine, message } => {
            Error::Engine { engine, message: format!("{}: {message}", workload.name()) }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
