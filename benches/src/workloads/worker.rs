//! [`Worker`]: what one thread of a workload has at hand.

use indicatif::ProgressBar;

use crate::data::Dataset;
use crate::measure::Recorder;
use crate::settings::Settings;

/// How many steps pass between two movements of the progress bar.
const PROGRESS_STEPS: u64 = 4096;

/// What one thread of a workload has at hand.
#[derive(Debug)]
pub struct Worker<'a, E> {
    /// The engine, shared by all threads.
    pub engine: &'a E,
    /// What is written and expected.
    pub data: &'a Dataset,
    /// What all engines are given alike.
    pub settings: &'a Settings,
    /// Latencies of this thread's operations.
    pub recorder: Recorder,
    /// Shared by all threads; hidden unless on a terminal.
    pub progress: &'a ProgressBar,
    /// The key at hand.
    pub key: Vec<u8>,
    /// The value at hand.
    pub value: Vec<u8>,
}

impl<'a, E> Worker<'a, E> {
    /// A worker; `number` tells the threads of a workload apart.
    pub fn new(
        engine: &'a E,
        data: &'a Dataset,
        settings: &'a Settings,
        progress: &'a ProgressBar,
        number: u64,
    ) -> Self {
        let recorder = Recorder::new(settings.seed ^ number);
        Worker { engine, data, settings, recorder, progress, key: Vec::new(), value: Vec::new() }
    }

    /// Moves the progress bar, if `step` is one of those that do.
    #[inline]
    pub fn advance(&self, step: u64) {
        if step % PROGRESS_STEPS == PROGRESS_STEPS - 1 {
            self.progress.inc(PROGRESS_STEPS);
        }
    }
}
