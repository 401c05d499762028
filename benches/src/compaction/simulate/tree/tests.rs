use super::*;
use crate::compaction::schedule::Schedule;
use crate::compaction::simulate::source::Source;
use crate::compaction::workload::Workload;
use clap::ValueEnum;

fn scale() -> Scale {
    Scale { keys: 100_000, passes: 3, memtable_kib: 64, ..Scale::default() }
}

/// Runs a workload to its end; the tree, and what a database without tombstones would hold.
fn grown(workload: Workload, strategy: &str, scale: &Scale) -> (Tree, Run, Source) {
    let costs = Costs::plain(16);
    let writes = (scale.keys, scale.passes);
    let source = Source::new(workload, writes, scale.value_bytes);
    let mut tree = Tree::new(&strategy.parse().unwrap(), scale, source.population().clone(), costs);
    let mut truth = Run::default();
    for chunk in Schedule::new(workload, writes, scale.value_bytes, scale.memtable_bytes(), costs) {
        let (run, end) = (source.memtable(&chunk).run, chunk.begin + chunk.ops);
        let mut dropped = Dropped::default();
        truth = run.over(&truth, source.population(), end, &mut dropped);
        truth.drop_tombstones((0, u64::MAX), source.population(), end, &mut dropped);
        tree.flush(run, chunk.begin, end);
        tree.check();
    }
    (tree, truth, source)
}

impl Tree {
    /// The tables that the picker has are those that there are, disjoint below level 0, and their files add up.
    fn check(&self) {
        let numbers: Vec<u64> = (0..LEVELS).flat_map(|level| self.picker.numbers(level)).collect();
        assert_eq!(numbers.len(), self.tables.len());
        for level in 0..LEVELS {
            let metas: Vec<_> = self.runs(level).map(|table| table.meta).collect();
            assert_eq!(metas.iter().map(|meta| meta.file_bytes).sum::<u64>(), self.level_bytes()[level]);
            assert!(level == 0 || metas.windows(2).all(|pair| pair[0].last < pair[1].first), "level {level}");
        }
    }

    /// All levels merged, newest first.
    fn contents(&self) -> Run {
        let mut all = Run::default();
        let mut dropped = Dropped::default();
        for level in 0..LEVELS {
            if level == 0 {
                for table in self.runs(0) {
                    all = all.over(&table.run, &self.population, 0, &mut dropped);
                }
                continue;
            }
            let run = self.runs(level).fold(Run::default(), |mut run, table| {
                run.append(&table.run);
                run
            });
            all = all.over(&run, &self.population, 0, &mut dropped);
        }
        all.drop_tombstones((0, u64::MAX), &self.population, 0, &mut dropped);
        all
    }
}

/// Whatever is moved, merged and cut, the tree holds what was written.
#[test]
fn a_tree_holds_what_was_written() {
    for &workload in Workload::value_variants() {
        for strategy in ["leveled", "leveled+dynamic=no+ratio=4+picker=round-robin", "leveled+picker=oldest-first"] {
            let (tree, truth, source) = grown(workload, strategy, &scale());
            let population = source.population();
            let (held, written) = (tree.contents().counts(population), truth.counts(population));
            let off = (held.puts / written.puts - 1.0).abs();
            assert!(off < 0.005, "{workload:?}, {strategy}: {} of {} keys", held.puts, written.puts);
            assert!(tree.level_bytes()[LEVELS - 1] > 0 || strategy.contains("dynamic=no"), "{workload:?}, {strategy}");
        }
    }
}

#[test]
fn the_same_is_done_again() {
    for workload in [Workload::Zipf, Workload::TimeOrdered] {
        let figures = || {
            let (tree, ..) = grown(workload, "leveled", &scale());
            (tree.levels(), tree.picker_steps())
        };
        assert_eq!(figures(), figures());
    }
}

#[test]
fn a_sorted_load_is_only_moved() {
    let (tree, ..) = grown(Workload::Sequential, "leveled", &Scale { passes: 1, ..scale() });
    let levels = tree.levels();
    assert!(levels[1..].iter().all(|level| level.written_bytes == 0), "{levels:?}");
    assert!(levels[LEVELS - 1].moved_bytes > 0);
}

/// Deleted ranges give their space back, and tombstones do not stay for good.
#[test]
fn tombstones_go() {
    for workload in [Workload::TimeOrdered, Workload::DeleteHeavy] {
        let (tree, truth, source) = grown(workload, "leveled", &Scale { passes: 6, ..scale() });
        let live = truth.user_bytes(source.population(), 16.0);
        let space = tree.level_bytes().iter().sum::<u64>() as f64 / live;
        assert!(space < 1.4, "{workload:?}: {space}");
        let gone: f64 = tree.counters.iter().map(|counters| counters.dropped.tombstones).sum();
        let left: f64 = tree.entries().iter().map(|(_, tombstones)| tombstones).sum();
        assert!(gone > 10.0 * left && gone > 100_000.0, "{workload:?}: {gone} gone, {left} left");
    }
}

#[test]
fn parts_without_anything_below_are_the_gaps() {
    let strategy: Strategy = "leveled+dynamic=no+base-kib=64".parse().unwrap();
    let mut picker = VirtualTree::new(&strategy.options(), 1 << 20);
    let table = |number, first, last| VirtualTable {
        number,
        first,
        last,
        file_bytes: 1 << 20,
        entries: 10,
        tombstones: 0,
        min_seqno: number,
        max_seqno: number,
    };
    (1..5).for_each(|number| picker.flush(table(number, 0, 100)));
    let first = picker.start_next().unwrap();
    assert!(first.is_bottom());
    assert_eq!(nothing_below(&picker, &first, (0, 101)), [(0, 101)]);
    let below = [table(10, 10, 19), table(11, 20, 29), table(12, 50, 100)];
    picker.finish(&first, &below);
    // They are more than the first levels should hold, and move down.
    while let Some(job) = picker.start_next() {
        let moved: Vec<_> = below.iter().filter(|table| job.inputs().contains(&table.number)).copied().collect();
        assert!(job.is_trivial_move());
        picker.finish(&job, &moved);
    }
    (20..24).for_each(|number| picker.flush(table(number, 0, 100)));
    let job = picker.start_next().unwrap();
    assert!(job.output_level() == 1 && !job.is_bottom());
    assert_eq!(nothing_below(&picker, &job, (0, 101)), [(0, 10), (30, 50)]);
    assert_eq!(nothing_below(&picker, &job, (15, 25)), []);
}
