//! What is printed.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use siltstone_changelog::{Position, Progress, Status};

use crate::words::Counted;

/// A progress bar over `bytes`, on a terminal; otherwise one that draws nothing.
pub fn bar(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn rate(count: u64, took: Duration) -> String {
    let per_second = count as f64 / took.as_secs_f64().max(1e-9);
    match per_second {
        fast if fast >= 1e6 => format!("{:.2} M/s", fast / 1e6),
        slow => format!("{:.1} k/s", slow / 1e3),
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub fn counted(counted: &Counted) {
    let Counted { files, skipped, bytes, words, puts, gets, batches, reading, writing, elapsed } = counted;
    println!(
        "read      {words} words, {:.1} MiB in {files} files, {:.2} s ({skipped} files were done before)",
        mib(*bytes),
        elapsed.as_secs_f64()
    );
    println!("put       {puts} entries in {batches} batches, {}", rate(*puts, *writing));
    println!("get       {gets} while counting, {}", rate(*gets, *reading));
}

pub fn gets((gets, took): &(u64, Duration)) {
    println!("get       {gets} again at random, {}", rate(*gets, *took));
}

pub fn shipped(status: &Status, lag: u64, flush: Duration, position: &Position) {
    println!(
        "shipped   {} batches, {:.1} MiB in {} flushes, to position {position}; lag at the end {lag}, flushed in {:.1} ms",
        status.batches,
        mib(status.user_bytes),
        status.flushes,
        flush.as_secs_f64() * 1e3
    );
}

/// The progress of a restore: what was reported last, and the bar that shows it.
pub type Restoring = (ProgressBar, Arc<Mutex<Option<Progress>>>);

/// A bar for a restore, and what moves it.
pub fn restoring() -> (Restoring, impl FnMut(&Progress) + 'static) {
    let (bar, last) = (bar(0), Arc::new(Mutex::new(None)));
    let (moved, stored) = (bar.clone(), last.clone());
    let progress = move |progress: &Progress| {
        // The positions of a log of files are numbers of bytes.
        let number = |position: &Position| position.to_string().parse().unwrap_or(0);
        moved.set_length(number(&progress.newest));
        moved.set_position(number(&progress.position));
        *stored.lock().unwrap() = Some(progress.clone());
    };
    ((bar, last), progress)
}

pub fn restored((bar, last): &Restoring, took: Duration) {
    bar.finish_and_clear();
    if let Some(progress) = &*last.lock().unwrap() {
        let mib_per_second = mib(progress.user_bytes) / took.as_secs_f64().max(1e-9);
        println!(
            "restored  {} changes in {} batches, {:.1} MiB in {:.2} s: {}, {mib_per_second:.1} MiB/s",
            progress.changes,
            progress.batches,
            mib(progress.user_bytes),
            took.as_secs_f64(),
            rate(progress.changes, took)
        );
    }
}
