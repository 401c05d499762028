//! Every named point that a recorded run meets, one after the other.

use std::collections::BTreeMap;

use rand::RngExt;

use super::life::{Life, When, is_opening};
use super::point::{Class, Phase, Point};
use crate::evidence::record;
use crate::steps::rng;

/// Events of each thread in a run that ends at a point.
const LIMIT: u64 = 60;

/// Events in a run that is to meet points of every kind.
const LONG: u64 = 4 * LIMIT;

/// Points in one life: what is checked grows with it.
const LIFE: usize = 10;

/// How often a point that depends on the scheduling of threads is tried, with other options and longer runs.
const TRIES: u32 = 6;

/// Kills the process at every call that creating a database makes: before, in the middle, after. Answers how many
/// points there were.
///
/// # Panics
/// If what is left is not a database that can be opened, or none at all; if a point is not met.
pub fn every_point_of_creation(seed: u64) -> u64 {
    let mut recorded = Life::in_memory(seed);
    recorded.kill(When::Never { limit: 0 });
    let points = each(recorded.calls().into_iter().filter(is_opening), |_| true);
    for &point in &points {
        let mut life = Life::in_memory(seed);
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
    let mut killed = Life::in_memory(seed);
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
    let mut killed = Life::in_memory(seed);
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
    (0..TRIES).any(|tries| life.kill(When::Point { point, limit: LONG << tries.min(3) }))
}

fn every_point_after(killed: &Life) -> u64 {
    let mut recorded = killed.fork();
    recorded.kill(When::Never { limit: 0 });
    let mut points = each(recorded.calls().into_iter().filter(is_opening), Class::changes_files);
    let all = points.clone();
    // A background thread's calls may come later than in the recorded run, or not at all.
    points.retain(|&point| {
        let mut life = killed.fork();
        let died = life.kill(When::Point { point, limit: 0 });
        if point.nth.is_multiple_of(2) {
            // Again in the recovery from that.
            let point = all[point.nth as usize * 7 % all.len()];
            life.kill(When::Point { point, limit: 0 });
        }
        life.recover();
        died
    });
    done(&points)
}

/// Kills the process at the first call of each class that a run makes after it was opened. Answers how many points
/// there were.
///
/// # Panics
/// If something acknowledged is missing after that, or anything else is wrong; if a point is not met.
pub fn every_point_of_running(seed: u64) -> u64 {
    let mut recorded = Life::in_memory(seed);
    let mut classes: BTreeMap<String, Class> = BTreeMap::new();
    for _ in 0..3 {
        recorded.kill(When::Never { limit: LONG });
        classes.extend(recorded.calls().iter().map(|point| (point.class.to_string(), point.class)));
    }
    classes.retain(|_, class| class.phase != Phase::Opening);
    let mut life = Life::in_memory(seed);
    let (mut points, mut missed): (Vec<Point>, Vec<Point>) = Default::default();
    for (at, &class) in classes.values().enumerate() {
        if at % LIFE == LIFE - 1 {
            life.recover();
            life.restore();
            life = Life::in_memory(seed);
        }
        let point = Point { class, nth: 1 };
        if die_at(&mut life, point) { &mut points } else { &mut missed }.push(point);
        if at % 2 == 1 {
            life.recover();
        }
    }
    life.recover();
    life.restore();
    // What the background does it may or may not do while the database is being closed; what is only read depends on
    // options and on what is in memory at that moment.
    let alike = |a: &Class, b: &Class| (a.side, a.op, a.kind) == (b.side, b.op, b.kind);
    missed.retain(|missed| !points.iter().any(|point| alike(&point.class, &missed.class)));
    missed.iter().for_each(|point| println!("seed {seed}: {point} is not met"));
    let unmet = missed.iter().find(|point| point.class.changes_files());
    assert!(unmet.is_none(), "seed {seed}: {unmet:?} is not met");
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
