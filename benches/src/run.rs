//! A run: the sessions of all engines, in turn, each in a process of its own.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Serialize;

use crate::engines::EngineKind;
use crate::error::{Error, Result};
use crate::report::{Report, Sample};
use crate::session::{Line, Measurement};
use crate::settings::Settings;
use crate::workloads::{Workload, check_order};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In this order, on each engine.
    pub workloads: Vec<Workload>,
    /// In this order, in each repetition.
    pub engines: Vec<EngineKind>,
    /// Given to all engines alike.
    pub settings: Settings,
    /// How often everything is done.
    pub repeat: u32,
    /// Where the stores' directories are made, and removed again.
    pub dir: PathBuf,
    /// A file that each measurement is appended to as a line of JSON as soon as it is there.
    pub json: Option<PathBuf>,
}

/// A line of the JSON file.
#[derive(Serialize)]
struct Record<'a> {
    engine: EngineKind,
    repetition: u32,
    machine: &'a str,
    version: &'a str,
    settings: &'a Settings,
    measurement: &'a Measurement,
}

/// Runs the plan: siltstone, floor, siltstone, floor, and so on, so that what changes on the machine meanwhile falls on
/// all alike.
///
/// The report holds what was measured and the sessions that failed.
///
/// # Errors
/// [`Error::Settings`] for an order that cannot run; [`Error::Io`] for files of the benchmark itself. An engine's
/// failure is part of the report.
pub fn run(plan: &Plan) -> Result<Report> {
    check_order(&plan.workloads, &plan.settings)?;
    crate::data::Dataset::new(
        plan.settings.keys,
        plan.settings.key_bytes,
        plan.settings.value_bytes,
        plan.settings.seed,
    )?;
    let mut json = plan.json.as_deref().map(JsonFile::open).transpose()?;
    let mut report = Report::new(plan);
    for repetition in 1..=plan.repeat {
        for &engine in &plan.engines {
            let session = format!("{}, repetition {repetition} of {}", engine.name(), plan.repeat);
            eprintln!("{session}");
            let on_measured = |measurement: Measurement| {
                let record = Record {
                    engine,
                    repetition,
                    machine: &report.machine,
                    version: env!("CARGO_PKG_VERSION"),
                    settings: &plan.settings,
                    measurement: &measurement,
                };
                json.as_mut().map_or(Ok(()), |json| json.append(&record))?;
                report.samples.push(Sample { engine, repetition, measurement });
                Ok(())
            };
            match run_session(plan, engine, on_measured)? {
                Ok(details) => drop(report.details.insert(engine, details)),
                Err(failure) => report.failures.push(format!("{session}: {failure}")),
            }
        }
    }
    Ok(report)
}

/// Runs one session in a process of its own. The inner answer is the engine's: its details, or how it failed.
fn run_session(
    plan: &Plan,
    engine: EngineKind,
    mut on_measured: impl FnMut(Measurement) -> Result<()>,
) -> Result<std::result::Result<String, String>> {
    let dir = tempfile::Builder::new().prefix("siltstone-bench").tempdir_in(&plan.dir).map_err(Error::io(&plan.dir))?;
    let mut child = spawn(plan, engine, dir.path())?;
    let mut outcome = None;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.map_err(Error::io("the session's output"))?;
            match serde_json::from_str(&line) {
                Ok(Line::Measured(measurement)) => on_measured(*measurement)?,
                Ok(Line::Details(details)) => outcome = Some(Ok(details)),
                Ok(Line::Failed(failure)) => outcome = Some(Err(failure)),
                Err(error) => outcome = Some(Err(format!("the session printed what is no measurement: {error}"))),
            }
        }
    }
    let status = child.wait().map_err(Error::io("the session's process"))?;
    Ok(match outcome {
        Some(Ok(details)) if status.success() => Ok(details),
        Some(Err(failure)) => Err(failure),
        _ => Err(format!("the process ended before the session did: {status}")),
    })
}

fn spawn(plan: &Plan, engine: EngineKind, dir: &Path) -> Result<Child> {
    let program = std::env::current_exe().map_err(Error::io("this program"))?;
    let settings = serde_json::to_string(&plan.settings).map_err(|error| Error::Settings(error.to_string()))?;
    let workloads: Vec<_> = plan.workloads.iter().map(|workload| workload.name()).collect();
    let mut command = Command::new(&program);
    command.arg("session").arg(workloads.join(",")).args(["--engine", engine.name(), "--settings", &settings]);
    command.arg("--dir").arg(dir).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().map_err(Error::io(program))
}

/// A file that lines are appended to.
struct JsonFile {
    file: File,
    path: PathBuf,
}

impl JsonFile {
    fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path))?;
        Ok(JsonFile { file, path: path.to_owned() })
    }

    fn append(&mut self, record: &Record<'_>) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(std::io::Error::from).map_err(Error::io(&self.path))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(Error::io(&self.path))
    }
}
