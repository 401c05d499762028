//! [`Record`]: a line of a results file; and [`Records`], which gathers them and writes them down as they come.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engines::EngineKind;
use crate::error::{Error, Result};
use crate::session::Measurement;
use crate::settings::Settings;
use crate::step::Step;

/// What one step of a session measured, or how the session ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The suite that asked for it; empty for workloads that were named by hand.
    #[serde(default)]
    pub suite: String,
    /// The session's name within its suite; sessions of the same name and settings differ only in engine and
    /// repetition.
    #[serde(default)]
    pub session: String,
    /// Which engine.
    pub engine: EngineKind,
    /// Its crate and version.
    #[serde(default)]
    pub engine_version: String,
    /// Which repetition, from 1.
    pub repetition: u32,
    /// All steps of the session: what an incomplete one lacks.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Which of them this is, from 0; of [`Outcome::Details`] and failures, how many were measured before.
    #[serde(default)]
    pub at: usize,
    /// What it was measured on.
    pub machine: String,
    /// The version of the benchmarks, which is siltstone's.
    pub version: String,
    /// The compiler.
    #[serde(default)]
    pub rustc: String,
    /// What is not like for like about the engine, as Markdown; only beside [`Outcome::Details`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// What held for the step (with what it overrides), or for the session.
    pub settings: Settings,
    /// What came of it, as a field `measurement`, `details`, `failure` or `unavailable`.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a step or of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A step ended.
    Measurement(Box<Measurement>),
    /// The session ended; what the engine says of itself.
    Details(String),
    /// The session ended early: the engine failed, answered wrongly, died, or took too long.
    Failure(String),
    /// The session cannot run here: what is missing.
    Unavailable(String),
}

impl Record {
    /// What records of the same session have in common: suite and session.
    pub fn key(&self) -> (&str, &str) {
        (&self.suite, &self.session)
    }
}

/// All records of a run, in the order they came, each appended to a file as soon as it is there.
///
/// A full disk keeps lines in memory until there is room again: an engine that fills the disk must not cost the results.
#[derive(Debug)]
pub struct Records {
    all: Vec<Record>,
    file: Option<ResultsFile>,
}

impl Records {
    /// Records that are appended to `path`, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        Ok(Records { all: Vec::new(), file: path.map(ResultsFile::open).transpose()? })
    }

    /// Adds one. What cannot be written now is tried again with the next.
    pub fn push(&mut self, record: Record) {
        self.all.push(record);
        // The next call, or `finish`, says if it stays so.
        let _ = self.write_down();
    }

    /// All of them, once the file has all lines.
    ///
    /// # Errors
    /// Beside them, what kept lines from being written.
    pub fn finish(mut self) -> (Vec<Record>, Result<()>) {
        let written = self.write_down();
        (self.all, written)
    }

    /// So far.
    pub fn all(&self) -> &[Record] {
        &self.all
    }

    fn write_down(&mut self) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.append(&self.all))
    }
}

/// A file of lines of JSON, and how many records it has.
#[derive(Debug)]
struct ResultsFile {
    file: File,
    path: PathBuf,
    written: usize,
}

impl ResultsFile {
    fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path))?;
        Ok(ResultsFile { file, path: path.to_owned(), written: 0 })
    }

    /// Appends those of `all` that the file does not have.
    fn append(&mut self, all: &[Record]) -> Result<()> {
        for record in &all[self.written..] {
            let mut line = serde_json::to_vec(record).map_err(std::io::Error::from).map_err(Error::io(&self.path))?;
            line.push(b'\n');
            self.append_line(&line).map_err(Error::io(&self.path))?;
            self.written += 1;
        }
        Ok(())
    }

    /// Appends the whole line, or nothing.
    fn append_line(&mut self, line: &[u8]) -> std::io::Result<()> {
        let end = self.file.seek(SeekFrom::End(0))?;
        self.file.write_all(line).inspect_err(|_| {
            // Half a line would spoil the file. If even this fails, readers meet a line that is no JSON, and say so.
            let _ = self.file.set_len(end);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: usize, outcome: Outcome) -> Record {
        Record {
            suite: "read".to_owned(),
            session: "read, 100 B".to_owned(),
            engine: EngineKind::RocksDb,
            engine_version: "rocksdb 1".to_owned(),
            repetition: 2,
            steps: vec!["fillseq".parse().unwrap(), "readrandom:threads=2".parse().unwrap()],
            at,
            machine: "a machine".to_owned(),
            version: "0".to_owned(),
            rustc: "rustc".to_owned(),
            notes: String::new(),
            settings: Settings::default(),
            outcome,
        }
    }

    #[test]
    fn lines_say_what_came_of_it_by_the_name_of_a_field() {
        for (name, outcome) in [
            ("details", Outcome::Details("d".to_owned())),
            ("failure", Outcome::Failure("f".to_owned())),
            ("unavailable", Outcome::Unavailable("u".to_owned())),
        ] {
            let record = record(1, outcome);
            let json = serde_json::to_value(&record).unwrap();
            assert!(json[name].is_string() && json["steps"][1] == "readrandom:threads=2", "{json}");
            assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record);
        }
    }

    #[test]
    fn a_full_disk_keeps_lines_until_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results");
        let mut records = Records::new(Some(&path)).unwrap();
        records.push(record(0, Outcome::Failure("first".to_owned())));
        let room = std::mem::replace(
            &mut records.file.as_mut().unwrap().file,
            File::options().append(true).open("/dev/full").unwrap(),
        );
        records.push(record(1, Outcome::Failure("second".to_owned())));
        records.push(record(2, Outcome::Failure("third".to_owned())));
        records.file.as_mut().unwrap().file = room;
        let (all, written) = records.finish();
        written.unwrap();
        let lines: Vec<Record> =
            std::fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), lines), (3, all));
        let mut records = Records::new(Some(Path::new("/dev/full"))).unwrap();
        records.push(record(0, Outcome::Failure("kept".to_owned())));
        let (all, written) = records.finish();
        assert!(all.len() == 1 && written.unwrap_err().to_string().contains("/dev/full"));
    }
}
