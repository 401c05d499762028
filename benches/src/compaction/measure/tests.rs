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

/// The simulator says what the engine does, level by level, within the tolerance that [`Tolerance`] justifies.
#[test]
fn runs_are_what_the_simulator_says() {
    let cases = [
        (Workload::Uniform, "leveled"),
        (Workload::Uniform, "leveled+dynamic=no+ratio=4"),
        (Workload::Zipf, "leveled+ratio=6"),
        (Workload::DeleteHeavy, "leveled"),
        (Workload::TimeOrdered, "leveled"),
        (Workload::Uniform, "leveled+picker=round-robin"),
    ];
    let mut differences = Vec::new();
    for (workload, strategy) in cases {
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
        let these = both.differences(Tolerance::default());
        differences.extend(these.into_iter().map(|difference| format!("{workload:?} x {strategy}: {difference}")));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
