//! One directory, whose database is opened by a driver, killed and checked, again and again.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use tempfile::TempDir;

use super::check;
use super::oracle::{Oracle, Progress, progress};
use super::plan::{Layout, Plan, THREADS, ThreadState};
use super::point::{KILL_AT, Phase, Point};

/// The number of SIGKILL.
const SIGKILL: i32 = 9;

/// Where Linux keeps files in memory.
const MEMORY: &str = "/dev/shm";

/// A driver that has not died, or come to its end, after this time hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// When the driver is to die.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// So long after it was started, or after it first wrote something.
    At {
        /// How long.
        delay: Duration,
        /// Whether to wait for a first write.
        after_write: bool,
    },
    /// At a named point. If it is not met, the driver ends after `limit` events of each thread.
    Point {
        /// Which.
        point: Point,
        /// How many events.
        limit: u64,
    },
    /// Never: it ends after so many events of each thread, and tells the calls it met.
    Never {
        /// How many.
        limit: u64,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Life {
    seed: u64,
    run: u64,
    layout: Layout,
    threads: [ThreadState; THREADS],
    what: String,
    _scratch: TempDir,
}

impl Life {
    /// A new one, in a temporary directory that goes with it.
    ///
    /// # Panics
    /// If there is none to be had.
    pub fn new(seed: u64) -> Self {
        Life::within(seed, tempfile::tempdir().expect("a temporary directory"))
    }

    /// A new one on a filesystem in memory, if the system has one: what a killed process leaves is the same there, and
    /// a sync costs nothing.
    ///
    /// # Panics
    /// If there is no temporary directory to be had.
    pub fn in_memory(seed: u64) -> Self {
        tempfile::tempdir_in(MEMORY).map_or_else(|_| Life::new(seed), |scratch| Life::within(seed, scratch))
    }

    fn within(seed: u64, scratch: TempDir) -> Self {
        let layout = Layout::new(scratch.path());
        Life { seed, run: 0, layout, threads: Default::default(), what: "new".to_owned(), _scratch: scratch }
    }

    /// A copy, with a directory of its own, in memory.
    ///
    /// # Panics
    /// If files cannot be copied.
    pub fn fork(&self) -> Self {
        let mut fork = Life::in_memory(self.seed);
        fork.run = self.run;
        fork.threads = self.threads.clone();
        fork.what = format!("{}, copied", self.what);
        for directory in [Layout::database, Layout::sink] {
            copy(&directory(&self.layout), &directory(&fork.layout));
        }
        fork
    }

    /// How many events of all threads are in the database.
    pub fn events(&self) -> u64 {
        self.threads.iter().map(|thread| thread.number).sum()
    }

    /// Starts a driver, lets it die, and finds out what it left without changing that. Whether it died, which it does
    /// not if its point was not met.
    ///
    /// # Panics
    /// If the database is not what it must be, or the driver ended in any other way.
    pub fn kill(&mut self, when: When) -> bool {
        let plan = self.plan();
        self.what = format!("seed {}, run {}, {when:?}", self.seed, self.run);
        if let When::Point { point, limit } = when {
            self.what = format!("seed {}, run {}, {KILL_AT}=\"{point}\", {limit} events", self.seed, self.run);
        }
        self.run += 1;
        let status = self.drive(plan, when);
        let notes = Oracle::read(&self.layout.oracle()).unwrap();
        let before = self.threads.each_ref().map(|thread| thread.number);
        let progress = progress(&notes, before).unwrap_or_else(|reason| self.wrong(&reason));
        let checked = check::check_read_only(&self.layout, plan, &self.threads, progress);
        self.threads = checked.unwrap_or_else(|reason| self.wrong(&reason));
        let died = status.signal() == Some(SIGKILL);
        if !died {
            self.check_whole(progress);
        }
        died
    }

    /// Opens the database for writing and checks everything, the shipped log included.
    ///
    /// # Panics
    /// If something is wrong.
    pub fn recover(&mut self) {
        check::check_recovered(&self.layout, self.plan(), &self.threads).unwrap_or_else(|reason| self.wrong(&reason));
    }

    /// Restores the shipped log, if there is one. After [`recover`](Life::recover), which ships the rest.
    ///
    /// # Panics
    /// If the restored database is not the one that was shipped.
    pub fn restore(&self) {
        if self.plan().is_shipped() && self.layout.sink().exists() {
            let restored = check::check_restore(&self.layout, self.plan(), &self.threads);
            restored.unwrap_or_else(|reason| self.wrong(&reason));
        }
    }

    /// The calls that the last driver met, if it came to its end: the last of each class.
    ///
    /// # Panics
    /// If it did not.
    pub fn calls(&self) -> Vec<Point> {
        let text = fs::read_to_string(self.layout.calls()).expect("the driver came to its end");
        text.lines().map(|line| line.parse().expect("a point")).collect()
    }

    fn plan(&self) -> Plan {
        Plan { seed: self.seed, run: self.run }
    }

    /// A driver that came to its end was acknowledged everything.
    fn check_whole(&self, progress: [Progress; THREADS]) {
        let whole =
            self.threads.iter().zip(progress).all(|(thread, progress)| {
                thread.number == progress.intended && progress.intended == progress.acknowledged
            });
        assert!(whole, "{}: {progress:?}", self.what);
    }

    fn drive(&self, plan: Plan, when: When) -> ExitStatus {
        for leftover in [self.layout.oracle(), self.layout.calls()] {
            let _fresh = fs::remove_file(leftover);
        }
        let limit = match when {
            When::At { .. } => u64::MAX,
            When::Point { limit, .. } | When::Never { limit } => limit,
        };
        let mut command = Command::new(driver_path());
        command.arg(self.layout.root()).args([plan.seed, plan.run, limit].map(|number| number.to_string()));
        command.args(self.threads.each_ref().map(|thread| thread.number.to_string()));
        command.env_remove(KILL_AT).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let When::Point { point, .. } = when {
            command.env(KILL_AT, point.to_string());
        }
        let mut driver = command.spawn().expect("the driver starts");
        let early =
            if let When::At { delay, after_write } = when { self.wait(&mut driver, delay, after_write) } else { None };
        let status = match (when, early) {
            (When::At { .. }, None) => {
                driver.kill().expect("it can be killed");
                driver.wait().expect("it has ended")
            }
            (_, Some(status)) => status,
            _ => self.wait_for_end(&mut driver),
        };
        let expected = match when {
            When::At { .. } => status.signal() == Some(SIGKILL),
            When::Point { .. } => status.signal() == Some(SIGKILL) || status.success(),
            When::Never { .. } => status.success(),
        };
        if !expected || self.layout.violation().exists() {
            let output = driver.wait_with_output().map(|output| output.stderr).unwrap_or_default();
            let seen = fs::read_to_string(self.layout.violation()).unwrap_or_default();
            self.wrong(&format!("the driver ended with {status}: {seen}{}", String::from_utf8_lossy(&output)));
        }
        status
    }

    /// Lets the driver run for a while; its status if it ended meanwhile.
    fn wait(&self, driver: &mut Child, delay: Duration, after_write: bool) -> Option<ExitStatus> {
        let started = Instant::now();
        let has_written = || self.layout.oracle().metadata().is_ok_and(|metadata| metadata.len() > 0);
        while after_write && !has_written() && started.elapsed() < PATIENCE {
            if let Some(status) = driver.try_wait().expect("it can be asked") {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(delay);
        driver.try_wait().expect("it can be asked")
    }

    fn wait_for_end(&self, driver: &mut Child) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = driver.try_wait().expect("it can be asked") {
                return status;
            }
            if started.elapsed() > PATIENCE {
                let _ = driver.kill();
                self.wrong(&format!("the driver hangs: neither dead nor done after {PATIENCE:?}"));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The files stay, for whoever looks into it.
    fn wrong(&self, reason: &str) -> ! {
        let kept = keep(self.layout.root());
        panic!("{}: {reason}\nwhat the process left was copied to {}", self.what, kept.display());
    }
}

/// Copies what a life left to a directory that stays.
fn keep(root: &Path) -> PathBuf {
    let kept = env::temp_dir().join(format!("siltstone-killed-{}", std::process::id()));
    for directory in ["db", "sink", "."] {
        copy(&root.join(directory), &kept.join(directory));
    }
    kept
}

/// Copies the files of a directory, if there is one.
fn copy(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else { return };
    fs::create_dir_all(to).expect("a directory for the copy");
    for entry in entries {
        let entry = entry.expect("a directory entry");
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
        }
    }
}

/// The driver's program, which is built with the tests: beside the directory of the one that runs now.
fn driver_path() -> PathBuf {
    let this = env::current_exe().expect("this program has a path");
    let found =
        this.ancestors().skip(1).take(2).map(|directory| directory.join("kill_driver")).find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("no kill_driver beside {}: it is built by `cargo test -p siltstone-tests`", this.display())
    })
}

/// Whether a point is of the recovery.
pub(super) fn is_opening(point: &Point) -> bool {
    point.class.phase == Phase::Opening
}
