//! [`Phase`]: what all threads of a running workload share.

use std::sync::Arc;

use super::{Claims, Workload};
use crate::data::{Dataset, Ledger};
use crate::measure::Counters;
use crate::settings::Settings;

/// One workload while it runs.
#[derive(Debug)]
pub struct Phase<'a> {
    /// Which.
    pub workload: Workload,
    /// The how manieth of the session, from 1 on: what its random choices follow from.
    pub number: u64,
    /// Keys and values.
    pub data: &'a Dataset,
    /// What the store should hold.
    pub ledger: &'a Ledger,
    /// What all engines are given alike.
    pub settings: &'a Settings,
    /// How many records were there when it began.
    pub records: u64,
    /// Its steps.
    pub claims: Claims,
    /// What each thread has done so far.
    pub counters: Arc<[Counters]>,
}

impl<'a> Phase<'a> {
    /// A phase whose time begins with its [claims](Claims::begin); `engine` is for the progress bar.
    pub fn new(workload: Workload, number: u64, ledger: &'a Ledger, settings: &'a Settings, engine: &str) -> Self {
        let records = ledger.records();
        let name = format!("{engine} {}", workload.name());
        let steps = workload.steps(settings, records);
        let claims = Claims::new(name, steps, workload.chunk(settings), workload.seconds(settings));
        let counters = (0..workload.workers(settings)).map(|_| Counters::default()).collect();
        Phase { workload, number, data: ledger.data(), ledger, settings, records, claims, counters }
    }

    /// Whether a key may be written while another thread reads it.
    pub fn is_concurrent(&self) -> bool {
        self.workload.writes() && self.counters.len() > 1
    }
}
