//! A merge of tables: what a compaction and a scan take each entry from.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use siltstone::internals::parts::{MergeCursor, Table};
use siltstone_benches::data::mix;
use tempfile::TempDir;

use crate::fixture::{Entries, directory, lazy};
use crate::timing;

const ENTRIES: u64 = 500_000;

/// How the entries lie in the inputs.
#[derive(Clone, Copy)]
enum Spread {
    /// Each entry in one of them at random.
    Even,
    /// Fifteen of sixteen in the first: a small level that is merged into a large one.
    OneDominates,
}

impl Spread {
    fn input(self, at: usize, inputs: u64) -> u64 {
        let random = mix(at as u64);
        match self {
            Spread::Even => random % inputs,
            Spread::OneDominates if random & 15 != 0 => 0,
            Spread::OneDominates => (random >> 4) % inputs,
        }
    }
}

struct Fixture {
    tables: Vec<Table>,
    _dir: TempDir,
}

impl Fixture {
    fn new(entries: &Entries, inputs: u64, spread: Spread) -> Self {
        let dir = directory();
        let table = |input: u64| {
            let own = entries.iter().enumerate().filter(|&(at, _)| spread.input(at, inputs) == input);
            Table::create(dir.path(), input + 1, own.map(|(_, entry)| entry)).expect("a table can be written")
        };
        let tables: Vec<Table> = (0..inputs).map(table).collect();
        let mut all = entries.iter();
        walk(&mut MergeCursor::new(&tables), |key, value| {
            assert!(all.next().is_some_and(|entry| (&entry.0[..], entry.1) == (key, value)));
        });
        assert!(all.next().is_none());
        Fixture { tables, _dir: dir }
    }
}

fn walk(merge: &mut MergeCursor, mut visit: impl FnMut(&[u8], &[u8])) {
    merge.seek_to_first().expect("the tables are intact");
    while merge.valid() {
        visit(merge.key(), merge.value());
        merge.step().expect("the tables are intact");
    }
}

pub fn bench(c: &mut Criterion) {
    let entries = lazy(|| Entries::new(ENTRIES));
    let mut group = c.benchmark_group("merge of tables, a step");
    group.throughput(Throughput::Elements(1));
    let cases = [
        ("1 input", 1, Spread::Even),
        ("2 inputs", 2, Spread::Even),
        ("8 inputs", 8, Spread::Even),
        ("2 inputs, one dominates", 2, Spread::OneDominates),
        ("8 inputs, one dominates", 8, Spread::OneDominates),
    ];
    for (name, inputs, spread) in cases {
        let fixture = lazy(|| Fixture::new(&entries, inputs, spread));
        group.bench_function(name, |b| {
            let mut merge = MergeCursor::new(&fixture.tables);
            timing::steps(b, ENTRIES, || {
                walk(&mut merge, |key, value| {
                    black_box((key, value));
                });
            });
        });
    }
}
