//! Waiting until nothing works in the background, for engines that have no call for it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// So many looks in a row must find all quiet: 200 ms.
const QUIET_LOOKS: u32 = 20;

/// Waits until the engine is not `busy`, none of its threads (those whose names begin with `threads`) runs or waits for
/// storage, and no file under `dir` changes, for 200 ms in a row.
pub(super) fn wait_until_quiet(dir: &Path, threads: &str, busy: impl Fn() -> bool) {
    let mut quiet_looks = 0;
    let mut files = Vec::new();
    while quiet_looks < QUIET_LOOKS {
        thread::sleep(LOOK_EVERY);
        let mut now = Vec::new();
        list(dir, &mut now);
        let quiet = now == files && !busy() && !works(threads);
        quiet_looks = if quiet { quiet_looks + 1 } else { 0 };
        files = now;
    }
}

/// The inode and length of every file under `dir`. Files that vanish meanwhile are left out.
fn list(dir: &Path, into: &mut Vec<(u64, u64)>) {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => list(&entry.path(), into),
            Ok(metadata) => into.push((metadata.ino(), metadata.len())),
            Err(_) => {}
        }
    }
}

/// Whether a thread of this process whose name begins with `name` runs, or waits for storage.
fn works(name: &str) -> bool {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return false };
    let mut states = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    states.any(|stat| is_working(&stat, name))
}

/// Whether `/proc/[pid]/stat` is that of a thread of such a name that runs or waits uninterruptibly: proc_pid_stat(5).
fn is_working(stat: &str, name: &str) -> bool {
    // A name in parentheses may hold anything, parentheses too.
    let parts = stat.split_once(" (").and_then(|(_, rest)| rest.rsplit_once(") "));
    parts.is_some_and(|(found, state)| found.starts_with(name) && state.starts_with(['R', 'D']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    #[test]
    fn states_are_read_behind_any_name() {
        assert!(is_working("12 (a) S (b) R 1 2 3", "a"));
        assert!(is_working("12 (x:y) D 1", "x"));
        assert!(!is_working("12 (x) R 1", "y"));
        assert!(!is_working("12 (R) S 1", "") && !is_working("", "") && !is_working("12 (x", "x"));
    }

    #[test]
    fn what_works_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let busy = AtomicBool::new(true);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                busy.store(false, Ordering::SeqCst);
            });
            let started = Instant::now();
            wait_until_quiet(dir.path(), "no such thread", || busy.load(Ordering::SeqCst));
            assert!(!busy.load(Ordering::SeqCst) && started.elapsed() >= LOOK_EVERY * QUIET_LOOKS);
        });
    }
}
