use super::*;

fn scale() -> Scale {
    Scale { keys: 200_000, passes: 2, memtable_kib: 64, ..Scale::default() }
}

fn run(workload: Workload, strategy: &str, scale: &Scale) -> Outcome {
    simulate(workload, &strategy.parse().unwrap(), scale, Costs::plain(16), |_, _| ()).unwrap()
}

#[test]
fn growth_is_told_from_the_beginning_to_the_end() {
    let outcome = run(Workload::Uniform, "leveled", &scale());
    let ops: Vec<u64> = outcome.series.iter().map(|moment| moment.ops).collect();
    assert!(ops.len() > 5 && ops.is_sorted() && ops[0] < 20_000, "{ops:?}");
    let end = outcome.end();
    assert_eq!((end.ops, end.user_bytes), (400_000, 400_000 * 116));
    assert!((end.live_bytes as f64 / (200_000.0 * 116.0) - 1.0).abs() < 1e-3);
    assert!(outcome.peak_space_amplification > outcome.space_amplification());
    assert!(
        outcome.write_amplification() > 3.0
            && outcome.write_amplification() < 2.0 * outcome.predicted.write_amplification
    );
}

#[test]
fn a_smaller_ratio_writes_less_each_time_and_takes_more_space() {
    let scale = Scale { keys: 1_000_000, ..scale() };
    let (narrow, wide) =
        (run(Workload::Uniform, "leveled+ratio=4", &scale), run(Workload::Uniform, "leveled+ratio=16", &scale));
    assert!(narrow.write_amplification() < wide.write_amplification());
    assert!(narrow.space_amplification() > wide.space_amplification());
}

#[test]
fn a_get_of_a_present_key_finds_it_once() {
    let outcome = run(Workload::Uniform, "leveled", &scale());
    let (present, absent) = outcome.touched();
    assert!((0.9..1.3).contains(&present.blocks), "{present:?}");
    assert!(absent.tables >= present.tables && absent.blocks < 0.2, "{present:?} {absent:?}");
}

/// Ten terabytes, coarsely: what a pick costs does not grow with the number of tables.
#[test]
fn picks_stay_cheap_however_large_the_tree_is() {
    let steps = |keys| {
        let scale = Scale { keys, passes: 1, memtable_kib: 4 << 20, value_bytes: 1000, ..Scale::default() };
        let outcome = run(Workload::Uniform, "leveled+table-kib=1048576", &scale);
        let tables: u64 = outcome.levels.iter().map(|level| level.written_bytes >> 30).sum();
        (outcome.levels[LEVELS - 1].tables, outcome.picker_steps.unwrap() as f64 / tables as f64)
    };
    let ((small_tables, small), (large_tables, large)) = (steps(100_000_000), steps(10_000_000_000));
    assert!(large_tables > 50 * small_tables, "{small_tables} {large_tables}");
    assert!(large < 4.0 * small, "{small} and {large} steps a table written");
}

#[test]
fn a_scale_that_cannot_be_is_refused() {
    let refused = simulate(
        Workload::Uniform,
        &"leveled".parse().unwrap(),
        &Scale { keys: 0, ..scale() },
        Costs::plain(16),
        |_, _| (),
    );
    assert!(refused.is_err());
}
