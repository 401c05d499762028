//! [`Progress`]: how far a restore has got.

use std::time::Duration;

use siltstone::SeqNo;

use crate::position::Position;

/// How far a restore has got.
///
/// ```
/// # use siltstone_changelog::Progress;
/// fn report(progress: &Progress) {
///     println!(
///         "{} changes, {:.0} MB/s, {:?} left",
///         progress.changes,
///         progress.user_bytes_per_second() / 1e6,
///         progress.time_left()
///     );
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Batches applied by this run.
    pub batches: u64,
    /// Changes in them.
    pub changes: u64,
    /// Bytes of keys and values in them.
    pub user_bytes: u64,
    /// The position after the last of them.
    pub position: Position,
    /// The end of the log, as of when the run began.
    pub newest: Position,
    /// The number of the last change that was applied, by this run or before.
    pub seqno: SeqNo,
    /// The last number in the log, as of when the run began, if the source can tell.
    pub newest_seqno: Option<SeqNo>,
    /// How long the run has taken.
    pub elapsed: Duration,
    /// The number of the last change when the run began.
    pub(super) begun_seqno: SeqNo,
}

impl Progress {
    /// Changes a second in this run, on average; 0 at its very beginning.
    pub fn changes_per_second(&self) -> f64 {
        self.per_second(self.changes)
    }

    /// Bytes of keys and values a second in this run, on average; 0 at its very beginning.
    pub fn user_bytes_per_second(&self) -> f64 {
        self.per_second(self.user_bytes)
    }

    fn per_second(&self, count: u64) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { count as f64 / self.elapsed.as_secs_f64() }
    }

    /// About how long it takes to the end of the log as it was when the run began, going by the numbers that were passed;
    /// `None` as long as that cannot be told.
    pub fn time_left(&self) -> Option<Duration> {
        let passed = self.seqno.checked_sub(self.begun_seqno).filter(|&passed| passed > 0)?;
        let left = self.newest_seqno?.saturating_sub(self.seqno);
        Duration::try_from_secs_f64(self.elapsed.as_secs_f64() * left as f64 / passed as f64).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_time_left_go_by_what_was_passed() {
        let position = Position::from_number(1);
        let mut progress = Progress {
            batches: 10,
            changes: 300,
            user_bytes: 30_000,
            position: position.clone(),
            newest: position,
            seqno: 400,
            newest_seqno: Some(1000),
            elapsed: Duration::from_secs(3),
            begun_seqno: 100,
        };
        assert_eq!((progress.changes_per_second(), progress.user_bytes_per_second()), (100.0, 10_000.0));
        assert_eq!(progress.time_left(), Some(Duration::from_secs(6)));
        progress.seqno = 1000;
        assert_eq!(progress.time_left(), Some(Duration::ZERO));
        progress.newest_seqno = None;
        assert_eq!(progress.time_left(), None);
        progress = Progress { seqno: 100, newest_seqno: Some(1000), elapsed: Duration::ZERO, ..progress };
        assert_eq!((progress.time_left(), progress.changes_per_second()), (None, 0.0));
    }
}
