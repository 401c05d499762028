//! [`Population`]: the classes of keys that are drawn equally often.

use super::super::workload::Popularity;

/// Keys that are drawn equally often, scattered over the key space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// Its share of the keys.
    pub keys: f64,
    /// Its share of the draws.
    pub draws: f64,
}

/// All keys there are, by class.
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    keys: u64,
    classes: Vec<Class>,
}

impl Population {
    /// `keys` keys, at least 1, that are drawn as `popularity` says.
    ///
    /// Of a Zipf distribution, the ranks from one power of two up to the next are one class: popularity within it
    /// differs by less than two, and the union of shares is nearly linear over so little.
    pub fn new(keys: u64, popularity: Popularity) -> Population {
        let classes = match popularity {
            Popularity::Uniform => vec![Class { keys: 1.0, draws: 1.0 }],
            Popularity::HotSet { keys: hot, writes } => {
                let hot = hot_keys(keys, hot) as f64 / keys.max(1) as f64;
                let cold = Class { keys: 1.0 - hot, draws: 1.0 - writes };
                let classes = [Class { keys: hot, draws: writes }, cold];
                classes.into_iter().filter(|class| class.keys > 0.0).collect()
            }
            Popularity::Zipf { exponent } => zipf(keys, exponent),
        };
        Population { keys: keys.max(1), classes }
    }

    /// How many keys there are.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// The classes; their shares add up to 1.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The expected share of the keys of `class` that `draws` draws meet.
    pub fn share_drawn(&self, class: &Class, draws: f64) -> f64 {
        let population = class.keys * self.keys as f64;
        // 1 - (1 - p)^n, without losing the small.
        let each = (class.draws / population.max(1.0)).min(1.0);
        -(draws * (-each).ln_1p()).exp_m1()
    }
}

/// How many of `keys` are hot, if a share of `hot` is: at least one.
pub fn hot_keys(keys: u64, hot: f64) -> u64 {
    ((keys as f64 * hot) as u64).clamp(1, keys.max(1))
}

fn zipf(keys: u64, exponent: f64) -> Vec<Class> {
    let mut classes = Vec::new();
    let mut first = 1;
    while first <= keys {
        let end = first.saturating_mul(2).min(keys.saturating_add(1));
        classes.push(Class { keys: (end - first) as f64, draws: power_sum(first, end, exponent) });
        first = end;
        if end == u64::MAX {
            break;
        }
    }
    let (all_keys, all_draws) = classes.iter().fold((0.0, 0.0), |sum, c| (sum.0 + c.keys, sum.1 + c.draws));
    classes.iter().map(|class| Class { keys: class.keys / all_keys, draws: class.draws / all_draws }).collect()
}

/// The sum of `1 / r^exponent` for `r` from `first`, at least 1, up to `end`: term by term at the beginning, then by the
/// midpoint rule, whose error there is below one in a million.
fn power_sum(first: u64, end: u64, exponent: f64) -> f64 {
    const TERMS: u64 = 1024;
    let term = |rank: u64| (rank as f64).powf(-exponent);
    let exact_end = end.min(TERMS.max(first));
    let exact: f64 = (first..exact_end).map(term).sum();
    let (low, high) = (exact_end as f64 - 0.5, end as f64 - 0.5);
    let power = 1.0 - exponent;
    let integral = if power.abs() < 1e-9 { (high / low).ln() } else { (high.powf(power) - low.powf(power)) / power };
    exact + if exact_end < end { integral } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_one() {
        for popularity in [
            Popularity::Uniform,
            Popularity::Zipf { exponent: 0.99 },
            Popularity::Zipf { exponent: 1.0 },
            Popularity::HotSet { keys: 0.01, writes: 0.9 },
        ] {
            for keys in [1, 2, 3, 1000, 1_000_000, 1_000_000_000_000] {
                let population = Population::new(keys, popularity);
                let sum = |of: fn(&Class) -> f64| population.classes().iter().map(of).sum::<f64>();
                let off = (sum(|c| c.keys) - 1.0).abs();
                assert!(off < 1e-9, "{popularity:?}, {keys} keys: {off}");
                assert!(keys == 1 || (sum(|c| c.draws) - 1.0).abs() < 1e-9, "{popularity:?}, {keys} keys");
            }
        }
    }

    #[test]
    fn power_sums_are_those_of_their_terms() {
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            for (first, end) in [(1, 2), (1, 100_000), (700, 1500), (4096, 8192), (50_000, 50_001)] {
                let exact: f64 = (first..end).map(|rank: u64| (rank as f64).powf(-exponent)).sum();
                let sum = power_sum(first, end, exponent);
                assert!((sum / exact - 1.0).abs() < 1e-6, "{exponent}, {first}..{end}: {sum}, not {exact}");
            }
        }
    }

    #[test]
    fn draws_meet_the_expected_share() {
        let population = Population::new(1000, Popularity::Uniform);
        let share = |draws| population.share_drawn(&population.classes()[0], draws);
        assert_eq!(share(0.0), 0.0);
        assert!((share(1.0) - 0.001).abs() < 1e-12);
        assert!((share(1000.0) - 0.632_3).abs() < 1e-3);
        let many = Population::new(1_000_000_000_000, Popularity::Uniform);
        assert!((many.share_drawn(&many.classes()[0], 1.0) * 1e12 - 1.0).abs() < 1e-6, "the small is not lost");
        let one = Population::new(1, Popularity::Zipf { exponent: 0.99 });
        assert_eq!(one.share_drawn(&one.classes()[0], 3.0), 1.0);
    }
}
