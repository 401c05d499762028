use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::super::workload::Popularity;
use super::super::population::hot_keys;
use super::*;

const KEYS: u64 = 20_000;

fn uniform() -> Population {
    Population::new(KEYS, Popularity::Uniform)
}

fn segment(first: u64, end: u64) -> Segment {
    Segment { first, end, value_bytes: 100.0, birth: 50.0, oldest: 40.0 }
}

/// Runs of one class, from `(first, end, put, tombstone)`.
fn run(parts: &[(u64, u64, f32, f32)]) -> Run {
    let mut run = Run::default();
    for &(first, end, put, tombstone) in parts {
        run.append(&Run::of_segment(segment(first, end), vec![Shares { load: 0.0, put, tombstone }]));
    }
    run
}

/// A drawn key; the lowest ranks are the most popular.
fn draw(rng: &mut StdRng, popularity: Popularity, cumulative: &[f64]) -> u64 {
    match popularity {
        Popularity::Uniform => rng.random_range(0..KEYS),
        Popularity::HotSet { keys, writes } => {
            let hot = hot_keys(KEYS, keys);
            if rng.random_bool(writes) { rng.random_range(0..hot) } else { rng.random_range(hot..KEYS) }
        }
        Popularity::Zipf { .. } => {
            let at = rng.random_range(0.0..1.0) * cumulative[cumulative.len() - 1];
            cumulative.partition_point(|&sum| sum <= at) as u64
        }
    }
}

/// The newest entry of each key that draws met: whether it is a put, and when it was written.
type Drawn = BTreeMap<u64, (bool, u64)>;

fn drawn(rng: &mut StdRng, popularity: Popularity, deletes: f64, writes: std::ops::Range<u64>) -> Drawn {
    let mut sum = 0.0;
    let weights = (1..=KEYS).map(|rank| {
        sum += (rank as f64).powf(-0.99);
        sum
    });
    let cumulative: Vec<f64> = weights.collect();
    writes.map(|write| (draw(rng, popularity, &cumulative), (!rng.random_bool(deletes), write))).collect()
}

fn modelled(population: &Population, deletes: f64, writes: std::ops::Range<u64>) -> Run {
    let shares = population.classes().iter().map(|class| {
        let there = population.share_drawn(class, (writes.end - writes.start) as f64);
        Shares { load: 0.0, put: (there * (1.0 - deletes)) as f32, tombstone: (there * deletes) as f32 }
    });
    let birth = (writes.start + writes.end) as f64 / 2.0;
    let whole = Segment { first: 0, end: KEYS, value_bytes: 100.0, birth, oldest: writes.start as f64 };
    Run::of_segment(whole, shares.collect())
}

fn assert_near(what: &str, modelled: f64, counted: f64, tolerance: f64) {
    // Of a count, a few standard deviations.
    let allowed = tolerance * counted + 4.0 * counted.sqrt();
    assert!((modelled - counted).abs() <= allowed, "{what}: {modelled:.1} modelled, {counted:.1} counted");
}

/// Real keys drawn and merged, beside the model's shares: unions of three runs, what they hide, and how old tombstones
/// are that go.
#[test]
fn unions_are_those_of_real_draws() {
    let popularities = [
        (Popularity::Uniform, 0.01),
        (Popularity::HotSet { keys: 0.01, writes: 0.9 }, 0.01),
        // Its classes are of unlike keys.
        (Popularity::Zipf { exponent: 0.99 }, 0.02),
    ];
    for (popularity, tolerance) in popularities {
        let population = Population::new(KEYS, popularity);
        for (seed, deletes, writes) in [(1, 0.0, 3_000), (2, 0.5, 8_000), (3, 0.3, 40_000)] {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut counted, mut model): (Drawn, Run) = Default::default();
            let (mut gone, mut ages, mut shadowed, mut dropped) = (0.0, 0.0, 0.0, Dropped::default());
            for part in 0..3 {
                let span = part * writes..(part + 1) * writes;
                let now = span.end;
                model = modelled(&population, deletes, span.clone()).over(&model, &population, now, &mut dropped);
                for (key, entry) in drawn(&mut rng, popularity, deletes, span) {
                    if let Some((was_put, written)) = counted.insert(key, entry) {
                        shadowed += 1.0;
                        gone += f64::from(u8::from(!was_put));
                        ages += if was_put { 0.0 } else { (now - written) as f64 };
                    }
                }
                let counts = model.counts(&population);
                let puts = counted.values().filter(|(put, _)| *put).count() as f64;
                let what = format!("{popularity:?}, deletes {deletes}, part {part}");
                assert_near(&what, counts.puts, puts, tolerance);
                assert_near(&what, counts.tombstones, counted.len() as f64 - puts, tolerance);
                assert_near(&what, dropped.shadowed, shadowed, tolerance);
                assert_near(&what, dropped.tombstones, gone, tolerance);
            }
            if gone > 500.0 {
                let (mean, counted) = (dropped.age_sum / dropped.tombstones, ages / gone);
                // The last draw of a key that is drawn often is late in its span, which the model does not know.
                assert!((mean / counted - 1.0).abs() < 0.35, "{popularity:?}: age {mean} modelled, {counted} counted");
            }
        }
    }
}

/// No two runs of the load hold the same key; what is drawn later hides it.
#[test]
fn the_load_adds_up_and_is_hidden_in_proportion() {
    let population = uniform();
    let part = |load| Run::of_segment(segment(0, KEYS), vec![Shares { load, ..Shares::default() }]);
    let mut dropped = Dropped::default();
    let mut all = Run::default();
    for _ in 0..10 {
        all = part(0.1).over(&all, &population, 0, &mut dropped);
    }
    assert!((all.counts(&population).puts - KEYS as f64).abs() < 1.0 && dropped.shadowed < 1.0);
    let draws = Run::of_segment(segment(0, KEYS), vec![Shares { load: 0.0, put: 0.25, tombstone: 0.25 }]);
    let both = draws.over(&all, &population, 0, &mut dropped).counts(&population);
    assert!((both.puts - 15_000.0).abs() < 1.0 && (both.tombstones - 5_000.0).abs() < 1.0, "{both:?}");
    assert!((dropped.shadowed - 10_000.0).abs() < 1.0);
}

/// Segments of random bounds, against shares kept key by key.
#[test]
fn segments_are_merged_as_their_keys_are() {
    let population = Population::new(200, Popularity::Uniform);
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut random = || {
            let (mut parts, mut at) = (Vec::new(), 0);
            while at < 180 {
                let first = at + if rng.random_bool(0.5) { rng.random_range(0..20) } else { 0 };
                let end = first + rng.random_range(1..40);
                let (put, tombstone) = [(1.0, 0.0), (0.0, 1.0), (0.5, 0.25), (0.25, 0.0)][rng.random_range(0..4)];
                parts.push((first, end.min(200), put, tombstone));
                at = end;
            }
            parts.retain(|part| part.0 < part.1);
            run(&parts)
        };
        let (newer, older) = (random(), random());
        let at = |run: &Run, key: u64| {
            let part = run.parts().find(|(segment, _)| segment.first <= key && key < segment.end);
            part.map_or(Shares::default(), |(_, shares)| shares[0])
        };
        let merged = newer.over(&older, &population, 100, &mut Dropped::default());
        assert!(merged.segments.windows(2).all(|pair| pair[0].end <= pair[1].first), "seed {seed}");
        for key in 0..200 {
            assert_eq!(at(&merged, key), at(&newer, key).over(at(&older, key)), "seed {seed}, key {key}");
        }
        let part = merged.slice(50, 120);
        for key in 0..200 {
            let expected = if (50..120).contains(&key) { at(&merged, key) } else { Shares::default() };
            assert_eq!(at(&part, key), expected, "seed {seed}, key {key}");
        }
    }
}

/// What goes in comes out, or is counted as dropped.
#[test]
fn entries_are_conserved() {
    let population = uniform();
    let newer = run(&[(0, 5_000, 0.5, 0.1), (5_000, 9_000, 0.0, 1.0), (12_000, 20_000, 0.3, 0.3)]);
    let older = run(&[(1_000, 8_000, 0.9, 0.05), (8_000, 13_000, 0.2, 0.2)]);
    let mut dropped = Dropped::default();
    let mut merged = newer.over(&older, &population, 100, &mut dropped);
    let entries = |run: &Run| run.counts(&population).entries();
    let into = entries(&newer) + entries(&older);
    assert!((entries(&merged) + dropped.shadowed - into).abs() < 0.1);
    let (before, hidden) = (merged.counts(&population), dropped.tombstones);
    merged.drop_tombstones((0, 10_000), &population, 100, &mut dropped);
    let after = merged.counts(&population);
    assert!((after.puts - before.puts).abs() < 1e-6);
    assert!((before.tombstones - after.tombstones - (dropped.tombstones - hidden)).abs() < 0.1);
    assert!(after.tombstones > 0.0, "beyond the range they stay");
    let left: Vec<_> = merged.densities(&population).filter(|(_, density)| density.tombstones > 0.0).collect();
    assert!(left.iter().all(|(segment, _)| segment.first >= 10_000));
    assert!(
        !merged.segments.iter().any(|s| s.first < 9_000 && s.end > 5_000),
        "where only tombstones were, nothing is"
    );
    assert_eq!((dropped.age_max, dropped.age_sum), (60.0, dropped.tombstones * 50.0));
}

#[test]
fn neighbours_that_are_alike_become_one_without_loss() {
    let population = uniform();
    let mut run = Run::default();
    for (at, put) in [0.50, 0.505, 0.50, 0.9].into_iter().enumerate() {
        let first = at as u64 * 1000;
        let part = Segment { value_bytes: 100.0 + at as f64, ..segment(first, first + 1000) };
        run.push(part, &[Shares { put, ..Shares::default() }], &population);
    }
    assert_eq!(run.segments.len(), 2);
    let counts = run.counts(&population);
    assert!((counts.puts - 2405.0).abs() < 0.01, "{counts:?}");
    let bytes = 500.0 * 100.0 + 505.0 * 101.0 + 500.0 * 102.0 + 900.0 * 103.0;
    assert!((run.user_bytes(&population, 0.0) - bytes).abs() < 10.0);
}
