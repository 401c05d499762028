//! Named points in the life of a process, at which it kills itself.
//!
//! A point is written `running before sync table 3`: the phase, the side of the call, the call, the kind of file, and
//! the how-maniest call of that kind in that phase. The environment variable [`KILL_AT`] arms one in a driver.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::{Signal, getpid, kill_process};
use siltstone::fs::{FileSystem, Op, OsFileSystem};

use crate::hook::{HookFileSystem, Moment, Side};

/// The environment variable that names a point.
pub const KILL_AT: &str = "SILTSTONE_KILL_AT";

/// What the driver is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Opening the database, its keyspaces and its shipper.
    Opening,
    /// Writing and reading.
    Running,
    /// Closing, after all threads have ended.
    Closing,
}

/// What kind of file or directory a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A log segment.
    Wal,
    /// A log segment's file that waits for its next use.
    Spare,
    /// A table.
    Table,
    /// A manifest.
    Manifest,
    /// `CURRENT` and its successor.
    Current,
    /// A lock file.
    Lock,
    /// The database's directory, or one above it.
    Directory,
    /// A segment of the log that is shipped to.
    Sink,
    /// Its directory.
    SinkDirectory,
}

const PHASES: [(Phase, &str); 3] =
    [(Phase::Opening, "opening"), (Phase::Running, "running"), (Phase::Closing, "closing")];

const SIDES: [(Side, &str); 3] = [(Side::Before, "before"), (Side::Middle, "middle"), (Side::After, "after")];

const OPS: [(Op, &str); 20] = [
    (Op::Create, "create"),
    (Op::OpenAppend, "open-append"),
    (Op::Open, "open"),
    (Op::CreateMapped, "create-mapped"),
    (Op::Rename, "rename"),
    (Op::Link, "link"),
    (Op::Remove, "remove"),
    (Op::Truncate, "truncate"),
    (Op::CreateDir, "create-dir"),
    (Op::ReadDir, "read-dir"),
    (Op::SyncDir, "sync-dir"),
    (Op::Lock, "lock"),
    (Op::Append, "append"),
    (Op::Sync, "sync"),
    (Op::StartWriteback, "start-writeback"),
    (Op::Len, "len"),
    (Op::Read, "read"),
    (Op::Map, "map"),
    (Op::MappedWrite, "mapped-write"),
    (Op::MappedSync, "mapped-sync"),
];

const KINDS: [(Kind, &str); 9] = [
    (Kind::Wal, "wal"),
    (Kind::Spare, "spare"),
    (Kind::Table, "table"),
    (Kind::Manifest, "manifest"),
    (Kind::Current, "current"),
    (Kind::Lock, "lock"),
    (Kind::Directory, "directory"),
    (Kind::Sink, "sink"),
    (Kind::SinkDirectory, "sink-directory"),
];

fn name_of<T: PartialEq>(names: &[(T, &'static str)], value: &T) -> &'static str {
    names.iter().find(|(known, _)| known == value).map_or("unknown", |(_, name)| name)
}

fn parse<T: Copy>(names: &[(T, &'static str)], word: Option<&str>) -> Result<T, String> {
    let found = names.iter().find(|(_, name)| Some(*name) == word);
    found.map(|(value, _)| *value).ok_or_else(|| {
        let known: Vec<_> = names.iter().map(|(_, name)| *name).collect();
        format!("{word:?} is none of {known:?}")
    })
}

impl Kind {
    /// By the file's name; the log that is shipped to is known by its directory, `sink`.
    fn of(path: &Path) -> Kind {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ends = |suffix: &str| name.ends_with(suffix);
        match &*name {
            "LOCK" => Kind::Lock,
            "CURRENT" | "CURRENT.tmp" => Kind::Current,
            "sink" => Kind::SinkDirectory,
            name if name.starts_with("MANIFEST-") => Kind::Manifest,
            _ if ends(".wal") => Kind::Wal,
            _ if ends(".spare") => Kind::Spare,
            _ if ends(".table") => Kind::Table,
            _ if ends(".log") => Kind::Sink,
            _ => Kind::Directory,
        }
    }
}

/// All calls that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// When.
    pub phase: Phase,
    /// Before, in the middle of or after the call.
    pub side: Side,
    /// Which call.
    pub op: Op,
    /// On what.
    pub kind: Kind,
}

impl Class {
    /// Whether calls of this class change what is stored.
    pub fn changes_files(&self) -> bool {
        use Op::{Len, Lock, Map, Open, Read, ReadDir, StartWriteback};
        !matches!(self.op, Open | Len | Read | Map | ReadDir | Lock | StartWriteback)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phase, side) = (name_of(&PHASES, &self.phase), name_of(&SIDES, &self.side));
        write!(f, "{phase} {side} {} {}", name_of(&OPS, &self.op), name_of(&KINDS, &self.kind))
    }
}

/// One call: the `nth` of its class, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    /// Which calls.
    pub class: Class,
    /// The how-maniest of them.
    pub nth: u64,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.class, self.nth)
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(' ');
        let class = Class {
            phase: parse(&PHASES, words.next())?,
            side: parse(&SIDES, words.next())?,
            op: parse(&OPS, words.next())?,
            kind: parse(&KINDS, words.next())?,
        };
        let nth = words.next().and_then(|nth| nth.parse().ok()).filter(|&nth| nth > 0);
        match (nth, words.next()) {
            (Some(nth), None) => Ok(Point { class, nth }),
            _ => Err(format!("{text:?} does not end with one number")),
        }
    }
}

/// Counts the calls of a process, and kills it at the armed one.
#[derive(Debug)]
pub struct Points {
    phase: AtomicUsize,
    armed: Option<Point>,
    counts: Mutex<HashMap<Class, u64>>,
}

impl Points {
    /// In phase `Opening`; `armed`: where to die.
    pub fn new(armed: Option<Point>) -> Arc<Self> {
        Arc::new(Points { phase: AtomicUsize::new(0), armed, counts: Mutex::default() })
    }

    /// The next phase begins.
    pub fn enter(&self, phase: Phase) {
        let at = PHASES.iter().position(|(known, _)| *known == phase);
        self.phase.store(at.unwrap_or(0), Ordering::SeqCst);
    }

    /// The operating system's files, with every call on them counted.
    pub fn file_system(self: &Arc<Self>) -> Arc<dyn FileSystem> {
        let points = self.clone();
        Arc::new(HookFileSystem::new(Arc::new(OsFileSystem), move |moment| points.pass(moment)))
    }

    fn pass(&self, moment: &Moment<'_>) {
        let phase = PHASES[self.phase.load(Ordering::SeqCst)].0;
        let class = Class { phase, side: moment.side, op: moment.op, kind: Kind::of(moment.path) };
        let mut counts = self.counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let count = counts.entry(class).or_default();
        *count += 1;
        if self.armed == Some(Point { class, nth: *count }) {
            kill_this_process();
        }
    }

    /// The last call of each class so far.
    pub fn counts(&self) -> Vec<Point> {
        let counts = self.counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        counts.iter().map(|(&class, &nth)| Point { class, nth }).collect()
    }
}

/// As `kill -9` does it: nothing is unwound, dropped or flushed.
fn kill_this_process() -> ! {
    let sent = kill_process(getpid(), Signal::KILL);
    // The signal is delivered before the call returns; without it there is nothing to go on with.
    unreachable!("still alive after SIGKILL: {sent:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_named() {
        for (&(phase, _), &(side, _)) in PHASES.iter().zip(&SIDES) {
            for (&(op, _), &(kind, _)) in OPS.iter().flat_map(|op| KINDS.iter().map(move |kind| (op, kind))) {
                let point = Point { class: Class { phase, side, op, kind }, nth: 3 };
                assert_eq!(point.to_string().parse(), Ok(point));
            }
        }
        let fine = "running before sync wal 3";
        assert!(fine.parse::<Point>().is_ok());
        for text in ["", "running before sync wal", "running before sync wal 0", "running before sync wal x", "a"] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
        for word in fine.split(' ') {
            assert!(fine.replace(word, "other").parse::<Point>().is_err(), "{word}");
        }
        assert!(format!("{fine} 4").parse::<Point>().is_err());
    }

    #[test]
    fn files_have_kinds() {
        let kinds = [
            ("db/000001.wal", Kind::Wal),
            ("db/000001.spare", Kind::Spare),
            ("db/000001.table", Kind::Table),
            ("db/MANIFEST-000001", Kind::Manifest),
            ("db/CURRENT.tmp", Kind::Current),
            ("db/LOCK", Kind::Lock),
            ("db", Kind::Directory),
            ("sink/00000000000000000000.log", Kind::Sink),
            ("sink", Kind::SinkDirectory),
        ];
        for (path, kind) in kinds {
            assert_eq!(Kind::of(Path::new(path)), kind, "{path}");
        }
    }
}
