//! Which record an operation is about: the distributions of YCSB (Cooper, Silberstein, Tam, Ramakrishnan, Sears,
//! "Benchmarking Cloud Serving Systems with YCSB", SoCC 2010).

use rand::Rng;
use rand_distr::{Distribution, Zipf};

use super::Permutation;
use crate::error::{Error, Result};

/// The exponent of all skewed choices, YCSB's `zipfian.constant`: rank k is chosen with a probability proportional to
/// 1 / k^0.99.
pub const ZIPF_EXPONENT: f64 = 0.99;

/// Zipf-distributed records whose popularity has nothing to do with their number: YCSB's `scrambled_zipfian`.
#[derive(Clone, Debug)]
pub struct Scrambled {
    ranks: Zipf<f64>,
    order: Permutation,
}

/// Records of which the newest is the most popular one: YCSB's `latest`.
#[derive(Clone, Debug)]
pub struct Latest {
    ranks: Zipf<f64>,
}

fn ranks(records: u64) -> Result<Zipf<f64>> {
    // Fails of no record only: the exponent is a valid constant.
    Zipf::new(records as f64, ZIPF_EXPONENT).map_err(|_| Error::Settings("there is no record to choose".to_owned()))
}

/// A rank from 0 on.
#[inline]
fn rank(ranks: &Zipf<f64>, random: &mut impl Rng) -> u64 {
    (ranks.sample(random) as u64).saturating_sub(1)
}

impl Scrambled {
    /// Chooses of the records `[0, records)`; which are popular follows from `seed`.
    ///
    /// # Errors
    /// [`Error::Settings`] if there is none.
    pub fn new(records: u64, seed: u64) -> Result<Self> {
        Ok(Scrambled { ranks: ranks(records)?, order: Permutation::new(records, seed) })
    }

    /// The next record.
    #[inline]
    pub fn draw(&self, random: &mut impl Rng) -> u64 {
        self.order.at(rank(&self.ranks, random))
    }
}

impl Latest {
    /// Chooses of `records` records and those that come.
    ///
    /// # Errors
    /// [`Error::Settings`] if there is none.
    pub fn new(records: u64) -> Result<Self> {
        Ok(Latest { ranks: ranks(records)? })
    }

    /// The next record, of `[0, records)` with the newest one last; `records` is at least what it was at first.
    #[inline]
    pub fn draw(&self, records: u64, random: &mut impl Rng) -> u64 {
        (records - 1).saturating_sub(rank(&self.ranks, random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    const RECORDS: u64 = 1000;
    const DRAWS: u64 = 200_000;

    /// The share of the accesses that the `top` most popular of all records should have.
    fn expected_share(top: u64) -> f64 {
        let weights = |to: u64| (1..=to).map(|k| (k as f64).powf(-ZIPF_EXPONENT)).sum::<f64>();
        weights(top) / weights(RECORDS)
    }

    fn counts(mut draw: impl FnMut(&mut SmallRng) -> u64) -> Vec<u64> {
        let mut random = SmallRng::seed_from_u64(7);
        let mut counts = vec![0; RECORDS as usize];
        (0..DRAWS).for_each(|_| counts[draw(&mut random) as usize] += 1);
        counts
    }

    fn assert_shares(by_popularity: &[u64]) {
        for top in [1, 10, 100, 500] {
            let share = by_popularity[..top].iter().sum::<u64>() as f64 / DRAWS as f64;
            let expected = expected_share(top as u64);
            assert!((share - expected).abs() < 0.02 * expected + 0.002, "top {top}: {share} {expected}");
        }
    }

    #[test]
    fn the_hottest_records_have_the_share_of_zipf_and_are_anywhere() {
        let scrambled = Scrambled::new(RECORDS, 42).unwrap();
        let counts = counts(|random| scrambled.draw(random));
        let mut sorted = counts.clone();
        sorted.sort_by(|a, b| b.cmp(a));
        assert_shares(&sorted);
        let upper_half = counts[500..].iter().sum::<u64>() as f64 / DRAWS as f64;
        assert!((0.2..0.8).contains(&upper_half), "{upper_half}");
        let hottest = |scrambled: &Scrambled| (0..3).map(|rank| scrambled.order.at(rank)).collect::<Vec<_>>();
        assert_ne!(hottest(&scrambled), hottest(&Scrambled::new(RECORDS, 43).unwrap()));
        assert!(Scrambled::new(0, 42).is_err());
    }

    #[test]
    fn the_newest_record_is_the_most_popular_one() {
        let latest = Latest::new(RECORDS).unwrap();
        let mut counts = counts(|random| latest.draw(RECORDS, random));
        counts.reverse();
        assert_shares(&counts);
        let mut random = SmallRng::seed_from_u64(7);
        let newest = (0..DRAWS).filter(|_| latest.draw(RECORDS + 5, &mut random) == RECORDS + 4).count();
        let share = newest as f64 / DRAWS as f64;
        assert!((share - expected_share(1)).abs() < 0.005, "{share}");
        assert!(Latest::new(0).is_err());
        assert_eq!(Latest::new(1).unwrap().draw(1, &mut random), 0);
    }
}
