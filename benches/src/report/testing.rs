//! Records of runs that never were, for the tests of this module.

use crate::engines::{EngineKind, LevelShape};
use crate::measure::{Kind, Latencies, Second};
use crate::run::{Outcome, Record};
use crate::session::{KindMeasurement, Measurement};
use crate::settings::Settings;
use crate::step::Step;

/// The steps of the session, for instance `fillrandom,readrandom:threads=2`.
pub fn steps(text: &str) -> Vec<Step> {
    text.split(',').map(|step| step.parse().unwrap()).collect()
}

/// A million operations in some seconds.
pub fn measurement(step: &Step, seconds: f64) -> Measurement {
    let ops = 1_000_000;
    let kinds = step.workload.kinds().iter().map(|&kind| KindMeasurement {
        kind,
        ops: if kind == Kind::Puts { ops / 4 } else { ops },
        latencies: Latencies::default(),
    });
    let row = |second: u64| Second {
        seconds: second as f64,
        ops: ops / 5,
        device_bytes: Some(second << 20),
        disk_bytes: Some(second << 20),
        ..Second::default()
    };
    Measurement {
        workload: step.workload,
        durability: Settings::default().durability,
        ops,
        kinds: kinds.collect(),
        cut: false,
        seconds,
        idle_seconds: 1.0,
        settled: true,
        latencies: Latencies {
            p50_us: 1.0,
            p99_us: 5.0,
            p999_us: 9.0,
            max_us: 4000.0,
            samples: 62_500,
            curve_us: vec![(0.0, 0.5), (0.5, 1.0), (0.99, 5.0), (0.999, 9.0), (0.99999, 50.0), (1.0, 4000.0)],
        },
        caller_cpu_ns: 1_000 * ops,
        cpu_ns: 2_000 * ops,
        user_bytes: 116 * ops,
        device_write_bytes: Some(348 * ops),
        engine_write_bytes: None,
        stall_ns: Some(500_000_000),
        disk_bytes: 128 * ops,
        peak_disk_bytes: 232 * ops,
        table_bytes: Some(120 * ops),
        live_bytes: 116 * ops,
        peak_rss_bytes: Some(300 << 20),
        anonymous_bytes: Some(200 << 20),
        harness_bytes: 50 << 20,
        levels: vec![
            LevelShape { level: 0, ..LevelShape::default() },
            LevelShape { level: 6, files: 3, bytes: 120 << 20, written_bytes: 240 << 20, read_bytes: 9 << 20 },
        ],
        series: (1..=5).map(row).collect(),
    }
}

/// A record of session `text`'s step `at`.
pub fn record(engine: EngineKind, repetition: u32, text: &str, at: usize, outcome: Outcome) -> Record {
    let steps = steps(text);
    let settings = match (&outcome, steps.get(at)) {
        (Outcome::Measurement(_), Some(step)) => step.settings(&Settings::default()),
        _ => Settings::default(),
    };
    Record {
        suite: "basic".to_owned(),
        session: "main".to_owned(),
        engine,
        engine_version: format!("{} 1.2", engine.name()),
        repetition,
        steps,
        at,
        machine: "a machine | with <a> core".to_owned(),
        version: "0.1.0".to_owned(),
        rustc: "rustc 1.95.0".to_owned(),
        notes: if matches!(outcome, Outcome::Details(_)) {
            format!("{}: see *there*", engine.name())
        } else {
            String::new()
        },
        settings,
        outcome,
    }
}

/// What one attempt at session `text` leaves: a measurement a step, each taking so many seconds, and the details.
pub fn session(engine: EngineKind, repetition: u32, text: &str, seconds: &[f64]) -> Vec<Record> {
    let steps = steps(text);
    let measured = seconds.iter().zip(&steps).enumerate().map(|(at, (&seconds, step))| {
        let outcome = Outcome::Measurement(Box::new(measurement(step, seconds)));
        record(engine, repetition, text, at, outcome)
    });
    let details = Outcome::Details(format!("{} <says>", engine.name()));
    measured.chain([record(engine, repetition, text, seconds.len(), details)]).collect()
}
