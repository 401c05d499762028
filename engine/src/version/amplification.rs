//! temp
use crate::compaction::plan::Plan;
use crate::compaction::output::Written;
/// temp
#[derive(Debug, Default)]
pub(crate) struct Amplification;
impl Amplification {
    pub(crate) fn add_user_bytes(&self, _b: u64, _logged: bool) {}
    pub(crate) fn add_flush(&self, _b: u64) {}
    pub(crate) fn add_move(&self, _l: usize, _b: u64) {}
    pub(crate) fn add_compaction(&self, _p: &Plan, _b: u64, _w: &Written) {}
    pub(crate) fn sample_get(&self, _t: u64, _b: u64) {}
}
