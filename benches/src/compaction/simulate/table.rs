//! [`Table`]: a virtual table, and cutting a merged run into such.

use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};
use siltstone::internals::compaction::{Cutter, VirtualTable};

use super::super::costs::Costs;
use super::content::{Run, Segment};
use super::population::Population;

/// A table that knows what it holds, by the model.
#[derive(Clone, Debug)]
pub struct Table {
    /// What the picker sees of it.
    pub meta: VirtualTable,
    /// What it holds.
    pub run: Run,
}

/// How entries become bytes.
#[derive(Clone, Copy, Debug)]
pub struct Encoding<'c> {
    /// Of entries.
    pub costs: &'c Costs,
    /// Whether the table is of the bottom level.
    pub bottom: bool,
}

/// The fewest keys that a table is made for. Expected numbers are no whole ones.
const LEAST_ENTRIES: f64 = 0.5;

impl Encoding<'_> {
    /// The bytes of one put whose value has `value_bytes`.
    fn put(&self, value_bytes: f64) -> f64 {
        if self.bottom { self.costs.put_bottom.of(value_bytes) } else { self.costs.put_upper.of(value_bytes) }
    }

    /// File bytes of `run`.
    pub fn bytes(&self, run: &Run, population: &Population) -> f64 {
        let of = |(segment, density): (&Segment, super::content::Counts)| {
            segment.keys() * (density.puts * self.put(segment.value_bytes) + density.tombstones * self.costs.tombstone)
        };
        run.densities(population).map(of).sum()
    }
}

impl Table {
    /// A table of all of `run`; `None` if that is less than half an entry. The number and the ages are the caller's to
    /// set.
    ///
    /// The picker sees a number of tombstones that is drawn from `rng`: it asks whether half of the entries are, and
    /// where a workload deletes as often as it puts, that is so of about half of the tables, and not of all or none.
    pub fn new(run: Run, population: &Population, encoding: Encoding<'_>, rng: &mut StdRng) -> Option<Table> {
        let counts = run.counts(population);
        if counts.entries() < LEAST_ENTRIES {
            return None;
        }
        let chance: f64 = StandardNormal.sample(rng);
        let tombstones = counts.tombstones + chance * run.tombstone_variance(population).sqrt();
        let (first, last) = (run.segments().first()?.first, run.segments().last()?.end - 1);
        let meta = VirtualTable {
            number: 0,
            first,
            last,
            file_bytes: (encoding.bytes(&run, population).round() as u64).max(1),
            entries: (counts.entries().round() as u64).max(1),
            tombstones: tombstones.clamp(0.0, counts.entries()).round() as u64,
            min_seqno: 0,
            max_seqno: 0,
        };
        Some(Table { meta, run })
    }
}

/// Cuts `run` where `cutter` says, in the manner of the engine's writer, which asks it before each key: between the
/// places where a table of the level below ends, only the length of the open table matters.
pub fn cut(run: &Run, population: &Population, encoding: Encoding<'_>, mut cutter: Cutter<'_>) -> Vec<Run> {
    let mut outputs = Vec::new();
    let mut open: Option<(u64, f64)> = None;
    for (segment, density) in run.densities(population) {
        let each = density.puts * encoding.put(segment.value_bytes) + density.tombstones * encoding.costs.tombstone;
        let mut at = segment.first;
        while at < segment.end {
            let open_bytes = open.map(|(_, bytes)| bytes as u64);
            if cutter.cuts_before(at, open_bytes)
                && let Some((first, _)) = open.take()
            {
                outputs.push(run.slice(first, at));
            }
            let (first, bytes) = open.unwrap_or((at, 0.0));
            // A key at least, so that this ends, however full the table is.
            let room = ((cutter.limit_bytes() as f64 - bytes) / each).ceil().max(1.0);
            let full_at = at.saturating_add(room as u64);
            let boundary = cutter.next_boundary().filter(|&boundary| boundary > at).unwrap_or(u64::MAX);
            let next = full_at.min(boundary).min(segment.end);
            open = Some((first, bytes + (next - at) as f64 * each));
            at = next;
        }
    }
    if let (Some((first, _)), Some(last)) = (open, run.segments().last()) {
        outputs.push(run.slice(first, last.end));
    }
    outputs
}

/// Cuts `run` into `parts` of about as many bytes: the key ranges that as many threads would merge.
pub fn split(run: &Run, population: &Population, encoding: Encoding<'_>, parts: u64) -> Vec<Run> {
    let each_part = encoding.bytes(run, population) / parts.max(1) as f64;
    let (Some(first), Some(last)) = (run.segments().first(), run.segments().last()) else { return Vec::new() };
    let (mut begin, mut bytes, mut ranges) = (first.first, 0.0, Vec::new());
    for (segment, density) in run.densities(population) {
        let each = density.puts * encoding.put(segment.value_bytes) + density.tombstones * encoding.costs.tombstone;
        let mut at = segment.first;
        while (ranges.len() as u64) < parts.saturating_sub(1) && bytes + (segment.end - at) as f64 * each >= each_part {
            let cut = at.saturating_add((((each_part - bytes) / each).ceil() as u64).max(1)).min(segment.end);
            ranges.push(run.slice(begin, cut));
            (begin, at, bytes) = (cut, cut, 0.0);
            if at >= segment.end {
                break;
            }
        }
        bytes += (segment.end - at) as f64 * each;
    }
    ranges.push(run.slice(begin, last.end));
    ranges.retain(|range| !range.is_empty());
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compaction::simulate::content::Shares;
    use crate::compaction::workload::Popularity;
    use rand::SeedableRng;
    use siltstone::KeyspaceOptions;
    use siltstone::internals::compaction::VirtualTree;

    const KEYS: u64 = 1_000_000;

    fn full(ranges: &[(u64, u64, f32)]) -> Run {
        let mut run = Run::default();
        for &(first, end, put) in ranges {
            let segment = Segment { first, end, value_bytes: 84.0, birth: 0.0, oldest: 0.0 };
            run.append(&Run::of_segment(segment, vec![Shares { put, ..Shares::default() }]));
        }
        run
    }

    fn population() -> Population {
        Population::new(KEYS, Popularity::Uniform)
    }

    /// Entries of 100 bytes, tables of 100,000.
    fn outputs(run: &Run) -> Vec<Run> {
        let costs = Costs::plain(16);
        let options = KeyspaceOptions::new().target_table_bytes(100_000);
        let mut tree = VirtualTree::new(&options, 1 << 20);
        let encoding = Encoding { costs: &costs, bottom: false };
        let mut rng = StdRng::seed_from_u64(1);
        let whole = Table::new(run.clone(), &population(), encoding, &mut rng).unwrap();
        (1..5).for_each(|number| tree.flush(VirtualTable { number, max_seqno: number, ..whole.meta }));
        let job = tree.start_next().unwrap();
        cut(run, &population(), encoding, tree.cutter(&job))
    }

    #[test]
    fn tables_are_cut_at_the_target_and_nothing_is_lost() {
        for run in [
            full(&[(0, KEYS, 0.1)]),
            full(&[(0, 1000, 1.0), (5000, 90_000, 0.01), (90_000, 95_000, 0.9)]),
            full(&[(7, 8, 1.0)]),
        ] {
            let cut = outputs(&run);
            let entries: f64 = cut.iter().map(|output| output.counts(&population()).entries()).sum();
            let expected = run.counts(&population()).entries();
            assert!((entries - expected).abs() < 1e-6 * expected, "{entries}, not {expected}");
            for output in &cut[..cut.len() - 1] {
                let bytes = output.counts(&population()).entries() * 100.0;
                assert!((99_999.0..100_200.0).contains(&bytes), "{bytes}");
            }
            assert!(
                cut.windows(2).all(|pair| {
                    pair[0].segments().last().unwrap().end <= pair[1].segments().first().unwrap().first
                })
            );
        }
    }

    #[test]
    fn parts_are_of_a_size_and_hold_everything() {
        let costs = Costs::plain(16);
        let encoding = Encoding { costs: &costs, bottom: true };
        let run = full(&[(0, 1000, 1.0), (5000, 90_000, 0.01), (90_000, 95_000, 0.9)]);
        for parts in 1..6 {
            let split = split(&run, &population(), encoding, parts);
            assert_eq!(split.len() as u64, parts);
            let sizes: Vec<f64> = split.iter().map(|part| encoding.bytes(part, &population())).collect();
            let whole = encoding.bytes(&run, &population());
            assert!((sizes.iter().sum::<f64>() / whole - 1.0).abs() < 1e-9);
            for size in sizes {
                assert!((size / (whole / parts as f64) - 1.0).abs() < 0.02, "{size} of {whole}");
            }
        }
    }

    /// Tables of half puts and half tombstones: some have more of these, some have less; where only one kind is, all are
    /// alike.
    #[test]
    fn tombstones_vary_as_draws_do() {
        let costs = Costs::plain(16);
        let encoding = Encoding { costs: &costs, bottom: false };
        let mut rng = StdRng::seed_from_u64(1);
        let mut tables = |put, tombstone| -> Vec<u64> {
            let segment = Segment { first: 0, end: 10_000, value_bytes: 84.0, birth: 0.0, oldest: 0.0 };
            let run = Run::of_segment(segment, vec![Shares { put, tombstone, load: 0.0 }]);
            let tables = (0..400).map(|_| Table::new(run.clone(), &population(), encoding, &mut rng).unwrap());
            tables.map(|table| table.meta.tombstones).collect()
        };
        let mixed = tables(0.5, 0.5);
        let more = mixed.iter().filter(|&&tombstones| tombstones >= 5000).count();
        // 10,000 entries: a standard deviation of 50.
        assert!((150..250).contains(&more) && mixed.iter().all(|tombstones| tombstones.abs_diff(5000) < 250));
        assert!(mixed.iter().filter(|tombstones| tombstones.abs_diff(5000) < 50).count() > 200);
        assert!(tables(0.0, 1.0).iter().all(|&tombstones| tombstones == 10_000));
        assert!(tables(1.0, 0.0).iter().all(|&tombstones| tombstones == 0));
    }
}
