//! Which workloads can follow which.

use super::Workload;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::step::Step;

/// What is known of a store before any workload has run, for checking their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// How many records were written, about.
    pub records: u64,
    /// How many of them are [extra](crate::data::Dataset::extra) ones, about.
    pub inserted: u64,
    /// Whether the [doomed](crate::data::Dataset::is_doomed) half of the keys has been deleted, and nothing written
    /// since.
    pub halved: bool,
    /// Whether the last workload wrote.
    pub unsettled: bool,
}

impl Workload {
    /// What the store holds after it, if it held `before`; `None` is an empty one.
    ///
    /// # Errors
    /// [`Error::Settings`] if it needs data and there is none, has nothing left to do, or no room for its inserts.
    ///
    /// ```
    /// use siltstone_benches::{settings::Settings, workloads::Workload};
    /// let settings = Settings { keys: 1000, ..Default::default() };
    /// let filled = Workload::FillRandom.after(None, &settings).unwrap();
    /// assert_eq!(Workload::YcsbD.after(Some(filled), &settings).unwrap().records, 1050);
    /// assert!(Workload::ReadRandom.after(None, &settings).is_err());
    /// ```
    pub fn after(self, before: Option<Forecast>, settings: &Settings) -> Result<Forecast> {
        if self.fills() {
            let records = self.steps(settings, 0);
            return Ok(Forecast { records, inserted: 0, halved: false, unsettled: true });
        }
        let name = self.name();
        let Some(before) = before else {
            return Err(Error::Settings(format!("{name} needs data: begin with fillrandom or another fill")));
        };
        let deletes = self == Workload::DeleteRandom;
        if deletes && before.halved {
            return Err(Error::Settings(format!("{name} finds its keys deleted: fill or overwrite in between")));
        }
        if self.begins_unsettled() && !before.unsettled {
            return Err(Error::Settings(format!("{name} comes right after a workload that writes, as overwrite")));
        }
        let inserts = if self.inserts() { self.steps(settings, before.records).div_ceil(20) } else { 0 };
        let inserted = before.inserted.saturating_add(inserts);
        if inserted > settings.keys {
            return Err(Error::Settings(format!(
                "{name} would insert key {inserted} beside {} loaded ones: there is room to double a store",
                settings.keys
            )));
        }
        Ok(Forecast {
            records: before.records + inserts,
            inserted,
            halved: deletes || before.halved && !self.writes(),
            unsettled: self.writes(),
        })
    }
}

/// Checks that steps can run in this order.
///
/// # Errors
/// [`Error::Settings`] as [`Workload::after`], for an empty list, and for a crash among other steps.
pub fn check_order(steps: &[Step], settings: &Settings) -> Result<()> {
    if steps.is_empty() {
        return Err(Error::Settings("no workload is named".to_owned()));
    }
    if steps.len() > 1 && steps.iter().any(|step| step.workload == Workload::OpenAfterKill) {
        return Err(Error::Settings("openafterkill is a session of its own".to_owned()));
    }
    let after = |before, step: &Step| step.workload.after(before, &step.settings(settings)).map(Some);
    steps.iter().try_fold(None, after).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Workload::*;

    fn check_order(workloads: &[Workload], settings: &Settings) -> Result<()> {
        let steps: Vec<_> = workloads.iter().copied().map(Step::from).collect();
        super::check_order(&steps, settings)
    }

    #[test]
    fn orders_that_cannot_run_are_refused() {
        let check = |workloads: &[Workload]| check_order(workloads, &Settings::default());
        assert!(check(&[FillRandom, Overwrite, DeleteRandom, Overwrite, DeleteRandom, Scan]).is_ok());
        assert!(check(&[BulkLoad, DeleteRandom, ReadRandom, YcsbA, DeleteRandom]).is_ok());
        assert!(check(&[FillSync, Scan, FillSeq, Overwrite, ReadUncompacted, ReadRandom]).is_ok());
        assert!(check(&[OpenAfterKill]).is_ok() && check(&[OpenAfterKill, Scan]).is_err());
        assert!(check(&[]).is_err());
        assert!(check(&[ReadRandom]).is_err());
        assert!(check(&[YcsbC, FillSeq]).is_err());
        assert!(check(&[FillSeq, DeleteRandom, DeleteRandom]).is_err());
        assert!(check(&[FillSeq, DeleteRandom, Scan, DeleteRandom]).is_err());
        assert!(check(&[FillSeq, Scan, ReadUncompacted]).is_err());
        assert!(check(&[FillSeq, Overwrite, ReadUncompacted, ReadUncompacted]).is_err());
    }

    #[test]
    fn inserts_need_room() {
        let settings = Settings { keys: 1000, operations: Some(10_000), ..Settings::default() };
        assert!(check_order(&[FillSeq, YcsbD, YcsbE], &settings).is_ok());
        let error = check_order(&[FillSeq, YcsbD, YcsbE, YcsbD], &settings).unwrap_err().to_string();
        assert!(error.contains("ycsbd would insert key 1500 beside 1000"), "{error}");
        assert!(check_order(&[FillSeq, YcsbD, YcsbE, FillSeq, YcsbD], &settings).is_ok());
    }
}
