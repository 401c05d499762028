//! Every named point that a recorded run meets, one after the other.

use std::collections::BTreeMap;

use rand::RngExt;

use super::life::{Life, When, is_opening};
use super::point::{Class, Phase, Point};
use crate::evidence::record;
use crate::steps::rng;

/// Events of each thread in a run that ends at a point.
const LIMIT: u64 = 60;

/// How often a point that depends on the scheduling of threads is tried, with a longer run each time.
const TRIES: u32 = 5;

/// Kills the process at every call that creating a database makes: before, in the middle, after. Answers how many
/// points there were.
///
/// # Panics
/// If what is left is not a database that can be opened, or none at all; if a point is not met.
pub fn every_point_of_creation(seed: u64) -> u64 {
    let mut recorded = Life::new(seed);
    recorded.kill(When::Never { limit: 0 });
    let points = each(recorded.calls().into_iter().filter(is_opening), |_| true);
    for &point in &points {
        let mut life = Life::new(seed);
        assert!(life.kill(When::Point { point, limit: 0 }), "seed {seed}: {point} is not met in a new directory");
        life.kill(When::Never { limit: 2 });
        life.recover();
    }
    done(&points)
}

/// Kills the process at every call of the recovery from what an earlier kill left; the first call of each kind if it
/// only reads. Answers how many points there were.
///
/// # Panics
/// If something acknowledged is missing after that, or anything else is wrong; if a point is not met.
pub fn every_point_of_recovery(seed: u64, killed_at: &str) -> u64 {
    let mut killed = Life::new(seed);
    killed.kill(When::Never { limit: LIMIT });
    let point: Point = killed_at.parse().expect("a point");
    assert!(die_at(&mut killed, point), "seed {seed}: {point} is not met");
    every_point_after(&killed)
}

/// The same after a kill at a point that the seed chooses among those that a run meets.
///
/// # Panics
/// As [`every_point_of_recovery`].
pub fn every_point_of_some_recovery(seed: u64) -> u64 {
    let mut killed = Life::new(seed);
    killed.kill(When::Never { limit: LIMIT });
    let mut calls = killed.calls();
    calls.retain(|last| last.class.phase == Phase::Running && last.class.changes_files());
    calls.sort_by_key(ToString::to_string);
    let rng = &mut rng(seed);
    let last = calls[rng.random_range(0..calls.len())];
    let point = Point { nth: rng.random_range(1..=last.nth), ..last };
    if die_at(&mut killed, point) { every_point_after(&killed) } else { 0 }
}

/// Tries until the point is met.
fn die_at(life: &mut Life, point: Point) -> bool {
    (0..TRIES).any(|tries| life.kill(When::Point { point, limit: LIMIT << tries }))
}

fn every_point_after(killed: &Life) -> u64 {
    let mut recorded = killed.fork();
    recorded.kill(When::Never { limit: 0 });
    let points = each(recorded.calls().into_iter().filter(is_opening), Class::changes_files);
    for &point in &points {
        let mut life = killed.fork();
        // A background thread's calls may come later than in the recorded run, or not at all.
        life.kill(When::Point { point, limit: 0 });
        life.recover();
    }
    done(&points)
}

/// Kills the process at the first call of each class that a run makes after it was opened. Answers how many points
/// there were.
///
/// # Panics
/// If something acknowledged is missing after that, or anything else is wrong; if a point is not met.
pub fn every_point_of_running(seed: u64) -> u64 {
    let mut recorded = Life::new(seed);
    let mut classes: BTreeMap<String, Class> = BTreeMap::new();
    for _ in 0..3 {
        recorded.kill(When::Never { limit: 4 * LIMIT });
        classes.extend(recorded.calls().iter().map(|point| (point.class.to_string(), point.class)));
    }
    classes.retain(|_, class| class.phase != Phase::Opening);
    let mut life = Life::new(seed);
    let mut points = Vec::new();
    for (at, &class) in classes.values().enumerate() {
        if at % 16 == 15 {
            life.recover();
            life.restore();
            life = Life::new(seed);
        }
        let point = Point { class, nth: 1 };
        assert!(die_at(&mut life, point), "seed {seed}: {point} is not met");
        points.push(point);
        if at % 2 == 1 {
            life.recover();
        }
    }
    life.recover();
    life.restore();
    done(&points)
}

/// From the last call of each class: every call of it if `all` says so, the first one otherwise.
fn each(last: impl Iterator<Item = Point>, all: impl Fn(&Class) -> bool) -> Vec<Point> {
    let mut points: Vec<Point> = last
        .flat_map(|last| (1..=if all(&last.class) { last.nth } else { 1 }).map(move |nth| Point { nth, ..last }))
        .collect();
    points.sort_by_key(ToString::to_string);
    points
}

fn done(points: &[Point]) -> u64 {
    let count = points.len() as u64;
    record("kills_at_points", count);
    count
}
