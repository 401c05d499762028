//! [`Operations`]: a workload's writes, one after the other, and [`Written`]: what they leave behind.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use super::super::scale::Scale;
use super::super::simulate::population::hot_keys;
use super::super::workload::{Pattern, Phase, Popularity, Workload, window_puts};
use crate::data::{Dataset, Permutation};
use crate::error::{Error, Result};

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which of the workload's, from 0.
    pub number: u64,
    /// The key's number, in key order.
    pub id: u64,
    /// The length of the value that is put; `None`: the key is deleted.
    pub value_bytes: Option<usize>,
}

/// How the keys of a phase are chosen.
enum Chooser {
    Load(Permutation),
    Draws { draw: Draw, scrambled: Permutation, deletes: f64 },
    Ascending,
    Window { live: u64 },
}

enum Draw {
    Uniform,
    Zipf(Zipf<f64>),
    HotSet { hot: u64, writes: f64 },
}

/// The writes of a workload, in order; the same for the same seed.
pub struct Operations {
    workload: Workload,
    keys: u64,
    value_bytes: usize,
    phases: std::vec::IntoIter<Phase>,
    chooser: Option<Chooser>,
    left: u64,
    in_phase: u64,
    number: u64,
    ops: u64,
    data: Dataset,
    rng: StdRng,
}

impl Operations {
    /// The writes of `workload` at `scale`.
    ///
    /// # Errors
    /// [`Error::Settings`] for a scale that no run can have.
    pub fn new(workload: Workload, scale: &Scale) -> Result<Operations> {
        let keys = workload.key_space(scale.keys, scale.passes);
        let phases = workload.phases(scale.keys, scale.passes);
        Ok(Operations {
            workload,
            keys,
            value_bytes: scale.value_bytes,
            ops: phases.iter().map(|phase| phase.ops).sum(),
            phases: phases.into_iter(),
            chooser: None,
            left: 0,
            in_phase: 0,
            number: 0,
            data: Dataset::new(keys, scale.key_bytes, scale.value_bytes, scale.seed)?,
            rng: StdRng::seed_from_u64(scale.seed),
        })
    }

    /// How many there are in all.
    pub fn count_all(&self) -> u64 {
        self.ops
    }

    fn begin(&mut self, phase: Phase) -> Result<()> {
        self.left = phase.ops;
        self.in_phase = 0;
        self.chooser = Some(match phase.pattern {
            Pattern::Load => Chooser::Load(self.data.order(0)),
            Pattern::Ascending => Chooser::Ascending,
            Pattern::Window { live } => Chooser::Window { live },
            Pattern::Draws { popularity, deletes } => {
                let draw = match popularity {
                    Popularity::Uniform => Draw::Uniform,
                    Popularity::HotSet { keys, writes } => Draw::HotSet { hot: hot_keys(self.keys, keys), writes },
                    Popularity::Zipf { exponent } => {
                        let zipf = Zipf::new(self.keys as f64, exponent);
                        Draw::Zipf(zipf.map_err(|error| Error::Settings(format!("the Zipf distribution: {error}")))?)
                    }
                };
                Chooser::Draws { draw, scrambled: self.data.order(1), deletes }
            }
        });
        Ok(())
    }

    /// Key and whether it is put, of the next write.
    fn choose(&mut self) -> (u64, bool) {
        let Operations { chooser, rng, keys, in_phase, .. } = self;
        match chooser {
            Some(Chooser::Load(order)) => (order.at(*in_phase), true),
            Some(Chooser::Window { live }) if *in_phase < *live || (*in_phase - *live).is_multiple_of(2) => {
                (window_puts(*in_phase, *live), true)
            }
            Some(Chooser::Window { live }) => ((*in_phase - *live) / 2, false),
            Some(Chooser::Draws { draw, scrambled, deletes }) => {
                let rank = match draw {
                    Draw::Uniform => rng.random_range(0..*keys),
                    // From 1 on, as a number with a fraction of nothing.
                    Draw::Zipf(zipf) => (zipf.sample(rng) as u64).clamp(1, *keys) - 1,
                    Draw::HotSet { hot, writes } if *hot == *keys || rng.random_bool(*writes) => {
                        rng.random_range(0..*hot)
                    }
                    Draw::HotSet { hot, .. } => rng.random_range(*hot..*keys),
                };
                (scrambled.at(rank), !(*deletes > 0.0 && rng.random_bool(*deletes)))
            }
            Some(Chooser::Ascending) | None => (*in_phase % *keys, true),
        }
    }

    /// The next write; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Settings`] if the distribution cannot be drawn from.
    pub fn next_write(&mut self) -> Result<Option<Operation>> {
        while self.left == 0 {
            let Some(phase) = self.phases.next() else { return Ok(None) };
            self.begin(phase)?;
        }
        let (id, put) = self.choose();
        let value_bytes = put.then(|| self.workload.value_bytes(self.value_bytes, self.number, self.ops));
        let operation = Operation { number: self.number, id, value_bytes };
        self.left -= 1;
        self.in_phase += 1;
        self.number += 1;
        Ok(Some(operation))
    }
}

/// What the writes so far leave behind: the last one of each key.
pub struct Written {
    workload: Workload,
    value_bytes: usize,
    key_bytes: usize,
    seed: u64,
    ops: u64,
    /// By key: 0 of one that was never written, else the write's number + 1, times 2, + 1 of a delete.
    last: Vec<u64>,
    live_bytes: u64,
    /// By length of values.
    datasets: HashMap<usize, Dataset>,
    data: Dataset,
}

impl Written {
    /// Nothing so far.
    ///
    /// # Errors
    /// [`Error::Settings`] for a scale that no run can have, or more keys than fit into memory.
    pub fn new(workload: Workload, scale: &Scale) -> Result<Written> {
        let keys = workload.key_space(scale.keys, scale.passes);
        let mut last = Vec::new();
        let refused = |_| Error::Settings(format!("{keys} keys are too many to remember what was written"));
        last.try_reserve_exact(keys as usize).map_err(refused)?;
        last.resize(keys as usize, 0);
        Ok(Written {
            workload,
            value_bytes: scale.value_bytes,
            key_bytes: scale.key_bytes,
            seed: scale.seed,
            ops: workload.phases(scale.keys, scale.passes).iter().map(|phase| phase.ops).sum(),
            last,
            live_bytes: 0,
            datasets: HashMap::new(),
            data: Dataset::new(keys, scale.key_bytes, scale.value_bytes, scale.seed)?,
        })
    }

    /// The keys.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// Bytes of the keys and values that are there.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Notes a write; answers the bytes of its key and value.
    pub fn note(&mut self, operation: &Operation) -> u64 {
        let entry = |value_bytes: usize| (self.key_bytes + value_bytes) as u64;
        let Some(last) = self.last.get(operation.id as usize).copied() else { return 0 };
        if let Some(number) = live_write(last) {
            self.live_bytes -= entry(self.workload.value_bytes(self.value_bytes, number, self.ops));
        }
        self.live_bytes += operation.value_bytes.map_or(0, entry);
        let deleted = u64::from(operation.value_bytes.is_none());
        self.last[operation.id as usize] = ((operation.number + 1) << 1) | deleted;
        entry(operation.value_bytes.unwrap_or(0))
    }

    /// Whether key `id` has a value.
    pub fn is_live(&self, id: u64) -> bool {
        self.last.get(id as usize).is_some_and(|&last| live_write(last).is_some())
    }

    /// Writes the value that `operation` puts into `out`.
    ///
    /// # Errors
    /// [`Error::Settings`] for a length that no value can have.
    pub fn value(&mut self, operation: &Operation, out: &mut Vec<u8>) -> Result<()> {
        let Some(value_bytes) = operation.value_bytes else { return Ok(()) };
        self.dataset(value_bytes)?.value(operation.id, operation.number + 1, out);
        Ok(())
    }

    fn dataset(&mut self, value_bytes: usize) -> Result<&Dataset> {
        use std::collections::hash_map::Entry;
        match self.datasets.entry(value_bytes) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                Ok(entry.insert(Dataset::new(self.data.keys(), self.key_bytes, value_bytes, self.seed)?))
            }
        }
    }

    /// Compares a scan over the whole store with what was written: every key, every byte of every value, nothing else.
    ///
    /// # Errors
    /// [`Error::WrongAnswer`], or what a scan ends with.
    pub fn check<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        entries: impl Iterator<Item = Result<(K, V)>>,
    ) -> Result<()> {
        let mut id = 0;
        for entry in entries {
            let (key, value) = entry?;
            while id < self.data.keys() && !self.is_live(id) {
                id += 1;
            }
            let Some(number) = self.last.get(id as usize).and_then(|&last| live_write(last)) else {
                return Err(Error::WrongAnswer(format!(
                    "key {:02x?} is there, after the last that should be",
                    key.as_ref()
                )));
            };
            self.data.check_key(id, key.as_ref())?;
            let value_bytes = self.workload.value_bytes(self.value_bytes, number, self.ops);
            self.dataset(value_bytes)?.check(id, number + 1, value.as_ref())?;
            id += 1;
        }
        match (id..self.data.keys()).find(|&id| self.is_live(id)) {
            Some(id) => Err(Error::WrongAnswer(format!("key {id} was written and is not there"))),
            None => Ok(()),
        }
    }
}

/// The number of a key's last write, if that is a put.
fn live_write(last: u64) -> Option<u64> {
    (last != 0 && last & 1 == 0).then(|| (last >> 1) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use std::collections::BTreeMap;

    fn scale() -> Scale {
        Scale { keys: 2000, passes: 3, ..Scale::default() }
    }

    fn all(workload: Workload) -> Vec<Operation> {
        let mut operations = Operations::new(workload, &scale()).unwrap();
        std::iter::from_fn(|| operations.next_write().unwrap()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_writes() {
        for &workload in Workload::value_variants() {
            let operations = all(workload);
            assert_eq!(operations.len(), 6000, "{workload:?}");
            assert_eq!(operations, all(workload));
            assert!(operations.iter().zip(0..).all(|(operation, at)| operation.number == at));
        }
    }

    #[test]
    fn draws_are_as_popular_as_they_should_be() {
        let count = |workload| {
            let mut counts = BTreeMap::<u64, u64>::new();
            all(workload)[2000..].iter().for_each(|operation| *counts.entry(operation.id).or_default() += 1);
            let mut counts: Vec<u64> = counts.into_values().collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            counts
        };
        assert!(count(Workload::Uniform)[0] < 15);
        let hot: u64 = count(Workload::OverwriteHeavy)[..20].iter().sum();
        assert!((3500..3700).contains(&hot), "{hot} of 4000 on 1 %");
        let first = count(Workload::Zipf)[0];
        // 4000 draws / the sum of r^-0.99 up to 2000.
        assert!((400..560).contains(&first), "{first}");
        let deletes = all(Workload::DeleteHeavy).iter().filter(|operation| operation.value_bytes.is_none()).count();
        assert!((1850..2150).contains(&deletes), "{deletes}");
    }

    #[test]
    fn the_window_keeps_its_length() {
        let mut written = Written::new(Workload::TimeOrdered, &scale()).unwrap();
        for operation in all(Workload::TimeOrdered) {
            written.note(&operation);
            let live = written.live_bytes() / 116;
            assert!(operation.number < 2000 || (2000..=2001).contains(&live), "{live} at {operation:?}");
        }
        assert!(!written.is_live(1999) && written.is_live(2000) && written.is_live(3999) && !written.is_live(4000));
    }

    /// What a right store would scan.
    fn contents(workload: Workload) -> (Written, BTreeMap<Vec<u8>, Vec<u8>>) {
        let (mut written, mut store) = (Written::new(workload, &scale()).unwrap(), BTreeMap::new());
        for operation in all(workload) {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            written.data().key(operation.id, &mut key);
            written.value(&operation, &mut value).unwrap();
            written.note(&operation);
            match operation.value_bytes {
                Some(_) => drop(store.insert(key, value)),
                None => drop(store.remove(&key)),
            }
        }
        (written, store)
    }

    #[test]
    fn a_store_that_is_wrong_anywhere_is_found_out() {
        for &workload in Workload::value_variants() {
            let (mut written, store) = contents(workload);
            let live: usize = store.iter().map(|(key, value)| key.len() + value.len()).sum();
            assert_eq!(written.live_bytes(), live as u64, "{workload:?}");
            let mut check = |store: &BTreeMap<Vec<u8>, Vec<u8>>| written.check(store.iter().map(Ok));
            check(&store).unwrap();
            let keys: Vec<_> = store.keys().cloned().collect();
            for key in [&keys[0], &keys[keys.len() / 2], &keys[keys.len() - 1]] {
                let mut lacking = store.clone();
                lacking.remove(key);
                assert!(check(&lacking).is_err(), "{workload:?}");
                let mut damaged = store.clone();
                damaged.get_mut(key).unwrap()[3] ^= 1;
                assert!(check(&damaged).is_err(), "{workload:?}");
            }
            let mut more = store.clone();
            more.insert(vec![0xff; 16], b"?".to_vec());
            assert!(check(&more).is_err(), "{workload:?}");
        }
    }
}
