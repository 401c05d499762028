//! [`Report`]: what was measured, beside the best peer and the goals, as text, as Markdown and as a page of HTML.

mod case;
mod document;
mod figure;
mod findings;
mod formula;
mod goals;
mod pictures;
mod plots;
mod summary;
mod table;
mod tables;
#[cfg(test)]
mod testing;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::machine;
use crate::measure::SAMPLE_EVERY;
use crate::run::Record;
use crate::settings::{Compression, Settings};

use case::{Case, Profile};
use document::{Document, Part};
use findings::{Failure, Findings};

pub use figure::{Figure, Quantile, three_digits};
pub use formula::{Formula, Operand, Value, Verdict};
pub use goals::{GOALS, Goal};
pub use summary::Summary;
pub use table::{escape_html, escape_markdown};
pub use tables::{Score, times_better};

/// A report of one or several runs; `Display` prints it for a terminal.
#[derive(Clone, Debug)]
pub struct Report {
    findings: Findings,
    records: usize,
}

/// What a report is written for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Terminal,
    Page,
}

impl Report {
    /// Of the records of one or several runs: what differs in engine and repetition only is brought together, in the
    /// order it first came.
    pub fn new(records: &[Record]) -> Self {
        Report { findings: Findings::new(records), records: records.len() }
    }

    /// Of results files: one record a line, as a run writes them. Fields that older ones do not have are taken as
    /// absent; lines that are no records (a killed run leaves half of one) are among the failures.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Settings`] for a file without any record.
    pub fn read(paths: &[PathBuf]) -> Result<Self> {
        let (mut records, mut failures) = (Vec::new(), Vec::new());
        for path in paths {
            let (some, no_records) = findings::read(path)?;
            records.extend(some);
            failures.extend(no_records);
        }
        let mut report = Report::new(&records);
        report.findings.failures.extend(failures);
        Ok(report)
    }

    /// The sessions in which an engine failed, answered wrongly, or took too long. What cannot be tried on this machine
    /// is none of them.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.findings.failures.iter().filter(|failure| !failure.is_unavailable);
        failed.map(Failure::to_string).collect()
    }

    /// As Markdown: failures, the ratios to the best peer, the goals, all figures, and how to read them.
    pub fn to_markdown(&self) -> String {
        self.document(Reader::Page).to_markdown()
    }

    /// As a page of HTML with plots, which loads nothing from elsewhere.
    pub fn to_html(&self) -> String {
        self.document(Reader::Page).to_html()
    }

    /// Writes the report into files, those that are named.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, markdown: Option<&Path>, html: Option<&Path>) -> Result<()> {
        if let Some(path) = markdown {
            fs::write(path, self.to_markdown()).map_err(Error::io(path))?;
        }
        if let Some(path) = html {
            fs::write(path, self.to_html()).map_err(Error::io(path))?;
        }
        Ok(())
    }

    fn document(&self, reader: Reader) -> Document {
        let mut parts = self.failure_parts();
        parts.extend(self.origin_parts());
        for profile in &self.findings.profiles {
            parts.extend(profile_parts(profile, reader));
        }
        parts.extend(self.note_parts());
        if reader == Reader::Page {
            let printed = self.findings.details.iter().filter(|(_, details)| !details.is_empty());
            parts.extend(printed.map(|(engine, details)| {
                Part::Fold(format!("What {} says of itself", engine.name()), vec![Part::Printed(details.clone())])
            }));
        }
        Document { title: "siltstone beside other engines".to_owned(), parts }
    }

    /// First of all: what went wrong.
    fn failure_parts(&self) -> Vec<Part> {
        let list = |title: &str, is_unavailable: bool| {
            let found = self.findings.failures.iter().filter(move |failure| failure.is_unavailable == is_unavailable);
            let items: Vec<String> = found.map(Failure::to_string).collect();
            (!items.is_empty()).then(|| vec![Part::Heading(2, title.to_owned()), Part::List(items)])
        };
        let mut parts: Vec<Part> = list("Failed", false).into_iter().flatten().collect();
        parts.extend(list("Not tried on this machine", true).into_iter().flatten());
        let cases = || self.findings.profiles.iter().flat_map(|profile| &profile.cases);
        if cases().any(|case| case.series.values().any(|series| series.is_incomplete())) {
            parts.push(Part::Text(
                "Some runs are missing: where it says \"2 of 5 runs\", the others failed or were not reached."
                    .to_owned(),
            ));
        }
        parts
    }

    /// What was measured with, and on what.
    fn origin_parts(&self) -> Vec<Part> {
        let findings = &self.findings;
        let machines: BTreeSet<&str> = findings.profiles.iter().map(|profile| profile.machine.as_str()).collect();
        let known =
            |versions: &BTreeSet<String>| versions.iter().filter(|v| !v.is_empty()).cloned().collect::<Vec<_>>();
        let mut items = vec![format!("Machine: {}", machines.into_iter().collect::<Vec<_>>().join("; and "))];
        let engines = findings.engine_versions.iter();
        let engines =
            engines.map(|(engine, versions)| format!("{} ({})", engine.name(), known(versions).join("; and ")));
        items.push(format!("Engines: {}", engines.collect::<Vec<_>>().join(", ")));
        items.push(format!("Compiler: {}", known(&findings.rustc).join("; and ")));
        items.push(format!("Records: {}", self.records));
        vec![Part::Heading(2, "Measured".to_owned()), Part::List(items)]
    }

    fn note_parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Heading(2, "How to read it".to_owned()), Part::List(reading())];
        parts.push(Part::Heading(2, "What is not like for like".to_owned()));
        for &engine in self.findings.engine_versions.keys() {
            let noted = self.findings.notes.get(&engine).map(String::as_str);
            // Records of sessions that did not end have none.
            let notes = noted.or_else(|| engine.notes().ok()).unwrap_or("There are no notes in the records.");
            parts.push(Part::Heading(3, engine.name().to_owned()));
            parts.push(Part::Markdown(notes.to_owned()));
        }
        parts
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.document(Reader::Terminal).to_text())
    }
}

fn profile_parts(profile: &Profile, reader: Reader) -> Vec<Part> {
    let mut parts = vec![Part::Heading(2, title(&profile.settings)), Part::Text(describe(&profile.settings))];
    parts.push(Part::Heading(3, "Thousand operations a second: median (spread)".to_owned()));
    parts.push(Part::Table(tables::ratios(profile)));
    let (goals, score) = tables::goals(profile);
    if !goals.is_empty() && profile.engines().into_iter().any(case::is_peer) {
        let heading = format!("Goals: {} reached, {} missed, {} open", score.reached, score.missed, score.open);
        parts.push(Part::Heading(3, heading));
        parts.push(Part::Table(goals));
    }
    parts.push(Part::Heading(3, "All figures".to_owned()));
    parts.push(Part::Table(tables::figures(profile)));
    if reader == Reader::Page {
        parts.push(Part::Fold("Plots".to_owned(), profile.cases.iter().flat_map(plot_parts).collect()));
    }
    parts
}

fn plot_parts(case: &Case) -> Vec<Part> {
    let mut parts = vec![Part::Heading(4, case.name.clone())];
    parts.extend(pictures::speeds(case).into_iter().map(Part::Plot));
    let more = [
        pictures::latencies(case),
        pictures::rates_over_time(case),
        pictures::write_amplification_over_time(case),
        pictures::levels(case),
    ];
    let more: Vec<Part> = more.into_iter().flatten().map(Part::Plot).collect();
    if !more.is_empty() {
        parts.push(Part::Fold(format!("{}: latencies, course and levels", case.name), more));
    }
    parts
}

/// A profile's name: in what others differ from it.
fn title(settings: &Settings) -> String {
    let compression = match settings.compression {
        Compression::None => "not compressed",
        Compression::Lz4Bottom => "LZ4 at the bottom",
        Compression::Lz4 => "LZ4",
    };
    let limit = settings.memory_limit_mib.map_or("", |_| ", larger than memory");
    let memory = settings.memory_mib;
    format!("{} keys, values of {} B, {compression}, {memory} MiB{limit}", grouped(settings.keys), settings.value_bytes)
}

fn grouped(number: u64) -> String {
    if number < 1000 { number.to_string() } else { three_digits(number as f64) }
}

fn describe(s: &Settings) -> String {
    let mib = s.keys as f64 * (s.key_bytes + s.value_bytes) as f64 / f64::from(1 << 20);
    let limit =
        s.memory_limit_mib.map_or(String::new(), |mib| format!(", no more than {mib} MiB with the system's cache"));
    format!(
        "Keys of {} B, with values {} MiB; memory {} MiB{limit}; blocks of {} B; seed {}. Writes survive a killed process, if not said otherwise.",
        s.key_bytes,
        three_digits(mib),
        s.memory_mib,
        s.block_bytes,
        s.seed
    )
}

/// What the figures mean.
fn reading() -> Vec<String> {
    let clock_ns = machine::clock_ns();
    [
        "Medians over the repetitions. The spread is (largest - smallest) / median. Every session has its own process and directory; engines take turns; all use the system's allocator.".to_owned(),
        "Sessions that begin with the same steps measure the same there: their runs are one row. \"cut\": the time ran out before the work was done; what is measured is what was done by then.".to_owned(),
        "kops/s: thousand operations a second from the first to the last, without the time to idle, which is \"idle s\"; \"to idle\" has it in. An operation of seekrandom and seekreverse is a seek with its entries, of a scan or a bulk load an entry, of a batch one put. What a bulk load brings in survives a power cut.".to_owned(),
        "Making keys and values, and checking every byte of every answer, is part of all figures, alike for all engines.".to_owned(),
        format!("Latencies: of reads 1 operation in {SAMPLE_EVERY}, chosen at random, is timed; each is too long by the {clock_ns:.0} ns that reading the clock took when this report was made."),
        "own CPU: CPU time an operation of the threads that call the engine; CPU: of all threads, until idle.".to_owned(),
        "WA: bytes sent to storage / user bytes, log included, as the operating system counts (none without a device); own WA: as the engine counts. SA: bytes of files once idle, logs and spare logs included / bytes of live keys and values; peak SA: the most in the phase; table SA: tables alone. A flush writes into tables what was in memory, where the engine can be asked for that: what its files take then is what the data take.".to_owned(),
        "RSS: the peak in the phase; pages of mapped files count. anon: what of it belongs to no file at the end, less what the benchmark itself holds.".to_owned(),
        "The best peer is the one with the best median among those measured; the floor, a map in memory with a buffered log file that may lose its buffer with the process, is none. Plots over time show each engine's run of the median rate.".to_owned(),
    ]
    .into()
}

#[cfg(test)]
mod tests;
