use super::super::check::{Comparison, Tolerance};
use super::super::simulate::simulate;
use super::*;
use clap::ValueEnum;

fn scale() -> Scale {
    Scale { keys: 8_000, memtable_kib: 64, gets: 1_000, ..Scale::default() }
}

fn run(workload: Workload, strategy: &str, scale: Scale) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec { workload, strategy: strategy.to_owned(), scale, costs: None };
    let outcome = measure(&spec, dir.path(), &ProgressBar::hidden()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    outcome
}

/// The engine under each workload: what it holds in the end is compared inside.
#[test]
fn every_workload_runs_and_is_verified() {
    for &workload in Workload::value_variants() {
        let outcome = run(workload, "leveled+ratio=4", scale());
        let end = outcome.end();
        assert_eq!(end.ops, 24_000, "{workload:?}");
        assert!(end.live_bytes > 0 && end.disk_bytes > end.live_bytes / 2, "{end:?}");
        let (present, absent) = outcome.touched();
        assert!((0.5..1.5).contains(&present.blocks) && absent.blocks < 0.5, "{workload:?}: {present:?} {absent:?}");
        assert!(outcome.write_amplification() > 1.5 && outcome.levels[0].written_bytes > 0, "{workload:?}");
        let (gone, mean, max) = outcome.tombstone_ages();
        let deletes = matches!(workload, Workload::DeleteHeavy | Workload::TimeOrdered);
        assert_eq!(gone > 1000, deletes, "{workload:?}: {gone} tombstones gone");
        assert!(mean <= max as f64 && max <= end.ops && (mean > 0.0) == deletes, "{workload:?}");
    }
}

#[test]
fn every_strategy_runs() {
    for strategy in Strategy::all() {
        let outcome = run(Workload::Uniform, &strategy.to_string(), Scale { passes: 2, ..scale() });
        assert_eq!(outcome.end().ops, 16_000, "{strategy}");
    }
}

#[test]
fn what_cannot_be_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |strategy: &str, scale: Scale| {
        let spec = Spec { workload: Workload::Uniform, strategy: strategy.to_owned(), scale, costs: None };
        measure(&spec, dir.path(), &ProgressBar::hidden()).unwrap_err().to_string()
    };
    assert!(refused("lsm", scale()).contains("leveled"));
    assert!(refused("leveled", Scale { keys: 0, ..scale() }).contains("keys"));
    let absent = Spec { workload: Workload::Uniform, strategy: "leveled".to_owned(), scale: scale(), costs: None };
    assert!(measure(&absent, &dir.path().join("absent"), &ProgressBar::hidden()).is_err());
}

/// Runs the engine and the simulator, and finds them alike, level by level, within what [`Tolerance`] justifies.
fn assert_as_simulated(workload: Workload, strategy: &str) {
    let scale = Scale { keys: 40_000, passes: 2, background_threads: 1, paced: true, ..scale() };
    let dir = tempfile::tempdir().unwrap();
    let strategy: Strategy = strategy.parse().unwrap();
    let options = scale.keyspace_options(&strategy);
    let costs = Costs::measure(workload, &options, scale.key_bytes, scale.value_bytes, dir.path()).unwrap();
    let spec = Spec { workload, strategy: strategy.to_string(), scale: scale.clone(), costs: Some(costs) };
    let measured = measure(&spec, dir.path(), &ProgressBar::hidden()).unwrap();
    let simulated = simulate(workload, &strategy, &scale, costs, |_, _| ()).unwrap();
    let both = Comparison { measured, simulated };
    println!("{both}");
    assert_eq!(both.differences(Tolerance::of(workload)), Vec::<String>::new());
}

#[test]
fn uniform_draws_are_as_simulated() {
    assert_as_simulated(Workload::Uniform, "leveled");
}

#[test]
fn fixed_levels_are_as_simulated() {
    assert_as_simulated(Workload::Uniform, "leveled+dynamic=no+ratio=4");
}

#[test]
fn another_order_is_as_simulated() {
    assert_as_simulated(Workload::Uniform, "leveled+picker=round-robin");
}

#[test]
fn zipf_draws_are_as_simulated() {
    assert_as_simulated(Workload::Zipf, "leveled+ratio=6");
}

#[test]
fn deletes_are_as_simulated() {
    assert_as_simulated(Workload::DeleteHeavy, "leveled");
}

#[test]
fn a_moving_window_is_as_simulated() {
    assert_as_simulated(Workload::TimeOrdered, "leveled");
}
