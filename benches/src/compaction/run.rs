//! Carrying out `compaction` and `simulate`: one run after the other, each outcome printed and written as it comes.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use siltstone::internals::strategy::Strategy;

use super::check::{Comparison, Tolerance};
use super::command::{MeasureArgs, Selection, SessionArgs, SimulateArgs, from_json};
use super::costs::Costs;
use super::measure::{Spec, measure};
use super::outcome::Outcome;
use super::report::{LEGEND, Levels, Summary};
use super::scale::Scale;
use super::simulate::simulate;
use super::workload::Workload;
use crate::error::{Error, Result};
use crate::machine;

/// What a session's process prints, as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Done(Box<Outcome>),
    Failed(String),
}

/// Runs the engine with every strategy under every workload, each in a process of its own.
///
/// # Errors
/// [`Error::Sessions`] if one failed, answered wrongly or is not what the simulator says, after everything was reported;
/// [`Error::Settings`] and [`Error::Io`] for what keeps the benchmark itself from running.
pub fn compaction(args: &MeasureArgs) -> Result<()> {
    let scale = args.scale()?;
    let mut comparison = Progress::new(&args.selection, &scale)?;
    for (workload, strategy) in args.selection.pairs() {
        let name = format!("{} x {strategy}", workload.name());
        comparison.begin(&name);
        let costs = if args.check { Some(comparison.costs(workload, &strategy, &scale)?) } else { None };
        let spec = Spec { workload, strategy: strategy.to_string(), scale: scale.clone(), costs };
        match (run_session(&spec, &comparison.dir)?, costs) {
            (Err(failure), _) => comparison.failed(&name, failure),
            (Ok(measured), None) => comparison.done(measured)?,
            (Ok(measured), Some(costs)) => {
                let simulated = simulate(workload, &strategy, &scale, costs, |_, _| ())?;
                let both = Comparison { measured, simulated };
                println!("{both}");
                let differences = both.differences(Tolerance::of(workload));
                comparison.note(both.measured)?;
                comparison.note(both.simulated)?;
                differences.into_iter().for_each(|difference| comparison.failed(&name, difference));
            }
        }
    }
    comparison.end()
}

/// Runs the simulator with every strategy under every workload.
///
/// # Errors
/// As [`compaction`].
pub fn simulation(args: &SimulateArgs) -> Result<()> {
    let scale = args.scale()?;
    let mut comparison = Progress::new(&args.selection, &scale)?;
    for (workload, strategy) in args.selection.pairs() {
        let name = format!("{} x {strategy}", workload.name());
        comparison.begin(&name);
        let costs = comparison.costs(workload, &strategy, &scale)?;
        let bar = progress_bar(&name);
        let outcome = simulate(workload, &strategy, &scale, costs, |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        comparison.done(outcome)?;
    }
    comparison.end()
}

/// One run of the engine, in this process, for the one that started it.
///
/// # Errors
/// What kept it from its end, which has been printed too.
pub fn session(args: &SessionArgs) -> Result<()> {
    let spec: Spec = from_json(&args.spec)?;
    let bar = progress_bar(&format!("{} x {}", spec.workload.name(), spec.strategy));
    let answer = measure(&spec, &args.dir, &bar);
    bar.finish_and_clear();
    let line = match &answer {
        Ok(outcome) => Answer::Done(Box::new(outcome.clone())),
        Err(error) => Answer::Failed(error.to_string()),
    };
    let line = serde_json::to_string(&line).map_err(std::io::Error::from).map_err(Error::io("standard output"))?;
    println!("{line}");
    answer.map(drop)
}

/// Runs `spec` in a process of its own, in a directory that is gone afterwards, whatever becomes of the process. The
/// inner answer is the engine's.
fn run_session(spec: &Spec, dir: &Path) -> Result<std::result::Result<Outcome, String>> {
    let program = std::env::current_exe().map_err(Error::io("this program"))?;
    let dir = tempfile::Builder::new().prefix("siltstone-bench").tempdir_in(dir).map_err(Error::io(dir))?;
    let json = serde_json::to_string(spec).map_err(|error| Error::Settings(error.to_string()))?;
    let mut command = Command::new(&program);
    command.args(["compaction-session", "--spec", &json, "--dir"]).arg(dir.path());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(Error::io(&program))?;
    let mut answer = None;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.map_err(Error::io("the session's output"))?;
            answer = Some(serde_json::from_str(&line));
        }
    }
    let status = child.wait().map_err(Error::io("the session's process"))?;
    Ok(match answer {
        Some(Ok(Answer::Done(outcome))) if status.success() => Ok(*outcome),
        Some(Ok(Answer::Failed(failure))) => Err(failure),
        Some(Err(error)) => Err(format!("the session printed what is no outcome: {error}")),
        _ => Err(format!("the process ended before the session did: {status}")),
    })
}

/// A bar on standard error; none unless that is a terminal.
fn progress_bar(name: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_message(name.to_owned());
    match ProgressStyle::with_template("{msg:48} {wide_bar} {human_pos}/{human_len} {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The runs of a command: what they gave, and how long they will take.
struct Progress {
    dir: PathBuf,
    json: Option<(PathBuf, File)>,
    runs: usize,
    begun: usize,
    began: Instant,
    outcomes: Vec<Outcome>,
    failures: Vec<String>,
    /// What entries take, by workload and block format; the same for strategies that differ in neither.
    costs: HashMap<Workload, Costs>,
}

impl Progress {
    fn new(selection: &Selection, scale: &Scale) -> Result<Progress> {
        let json = selection.json.clone().map(|path| {
            let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
            Ok((path, file))
        });
        let dir = selection.directory();
        println!("siltstone {}; {}", env!("CARGO_PKG_VERSION"), machine::describe());
        println!("{} keys, {} passes\n", scale.keys, scale.passes);
        Ok(Progress {
            dir,
            json: json.transpose()?,
            runs: selection.pairs().len(),
            begun: 0,
            began: Instant::now(),
            outcomes: Vec::new(),
            failures: Vec::new(),
            costs: HashMap::new(),
        })
    }

    /// Says what comes, and how long all the rest will take at the pace so far.
    fn begin(&mut self, name: &str) {
        let left = time_left(self.began.elapsed(), self.begun, self.runs);
        let left = left.map_or(String::new(), |left| format!(", about {} left", HumanDuration(left)));
        self.begun += 1;
        eprintln!("[{} of {}{left}] {name}", self.begun, self.runs);
    }

    /// What entries of `workload` take: measured once, since strategies move tables and do not change their format.
    fn costs(&mut self, workload: Workload, strategy: &Strategy, scale: &Scale) -> Result<Costs> {
        if let Some(costs) = self.costs.get(&workload) {
            return Ok(*costs);
        }
        let options = scale.keyspace_options(strategy);
        let costs = Costs::measure(workload, &options, scale.key_bytes, scale.value_bytes, &self.dir)?;
        self.costs.insert(workload, costs);
        Ok(costs)
    }

    fn done(&mut self, outcome: Outcome) -> Result<()> {
        println!("{}", Levels(&outcome));
        self.note(outcome)
    }

    /// Keeps an outcome, and writes it down at once: what comes later may fail.
    fn note(&mut self, outcome: Outcome) -> Result<()> {
        if let Some((path, file)) = &mut self.json {
            let mut line = serde_json::to_vec(&outcome).map_err(std::io::Error::from).map_err(Error::io(&*path))?;
            line.push(b'\n');
            file.write_all(&line).map_err(Error::io(&*path))?;
        }
        self.outcomes.push(outcome);
        Ok(())
    }

    fn failed(&mut self, name: &str, failure: String) {
        println!("FAILED {name}: {failure}\n");
        self.failures.push(format!("{name}: {failure}"));
    }

    fn end(self) -> Result<()> {
        println!("{}\n{LEGEND}", Summary(&self.outcomes));
        if self.failures.is_empty() { Ok(()) } else { Err(Error::Sessions(self.failures)) }
    }
}

/// How long the rest of `all` takes if it goes on as the first `done` did in `elapsed`; `None` while that says nothing.
fn time_left(elapsed: Duration, done: usize, all: usize) -> Option<Duration> {
    (done > 0).then(|| elapsed.mul_f64(all.saturating_sub(done) as f64 / done as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_the_beginning() {
        let minute = Duration::from_secs(60);
        assert_eq!(time_left(minute, 0, 10), None);
        assert_eq!(time_left(minute, 2, 10), Some(minute * 4));
        assert_eq!(time_left(minute, 10, 10), Some(Duration::ZERO));
    }
}
