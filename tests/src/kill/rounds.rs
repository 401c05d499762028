//! Kills by a seed: at random moments, and at points drawn from those that a run meets.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::enumerate::every_point_of_some_recovery;
use super::life::{Life, When};
use super::point::Point;
use crate::evidence::record;
use crate::steps::rng;

/// Kills of one life: its shipped log is read again after each, so lives are short.
const KILLS_A_LIFE: u64 = 15;

/// Events of each thread in a run that ends at a point.
const LIMIT: u64 = 60;

/// Some 10 seconds: four lives, and every point of a recovery.
///
/// # Panics
/// If the database is not what it must be, with what is needed to run it again.
pub fn round(seed: u64) {
    kills(seed, 4 * KILLS_A_LIFE);
    every_point_of_some_recovery(seed);
    record("lost", 0);
    record("wrong", 0);
}

/// `count` kills, in lives of which one half is shipped and one half has much metadata.
///
/// # Panics
/// If the database is not what it must be, with what is needed to run it again.
pub fn kills(seed: u64, count: u64) {
    let mut left = count;
    // Lives differ in their lowest bits; see `Plan`.
    let mut life = seed << 16;
    while left > 0 {
        let kills = left.min(KILLS_A_LIFE);
        live(life, kills);
        left -= kills;
        life += 1;
    }
}

/// One life of `kills` kills.
fn live(seed: u64, kills: u64) {
    let rng = &mut rng(seed);
    let mut life = Life::new(seed);
    let mut calls: Vec<Point> = Vec::new();
    let (mut at_random, mut at_points) = (0, 0);
    while at_random + at_points < kills {
        if calls.is_empty() || rng.random_bool(0.05) {
            // Which points there are differs with the options of the run.
            life.kill(When::Never { limit: LIMIT });
            calls = life.calls();
            calls.sort_by_key(ToString::to_string);
        }
        if rng.random_bool(0.5) {
            life.kill(at_random_moment(rng));
            at_random += 1;
        } else {
            at_points += u64::from(life.kill(at_random_point(rng, &calls)));
        }
        if rng.random_bool(0.4) {
            life.recover();
        }
    }
    life.recover();
    life.restore();
    record("kills_at_random", at_random);
    record("kills_at_points", at_points);
    record("killed_batches", life.events());
}

/// Three of four after something was written, the others also while the database is being opened.
fn at_random_moment(rng: &mut StdRng) -> When {
    When::At { delay: Duration::from_micros(rng.random_range(0..40_000)), after_write: rng.random_bool(0.75) }
}

fn at_random_point(rng: &mut StdRng, calls: &[Point]) -> When {
    let last = calls[rng.random_range(0..calls.len())];
    When::Point { point: Point { nth: rng.random_range(1..=last.nth), ..last }, limit: LIMIT }
}
