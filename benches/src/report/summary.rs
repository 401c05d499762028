//! [`Summary`]: what repetitions of one measurement come to.

/// The median of repetitions, and how far they are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The middle value; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
    /// How many there were.
    pub runs: usize,
}

impl Summary {
    /// Of `values`, in any order; `None` of none, or if one is not a number.
    ///
    /// ```
    /// use siltstone_benches::report::Summary;
    /// let summary = Summary::of([9.0, 1.0, 4.0]).unwrap();
    /// assert_eq!((summary.median, summary.spread()), (4.0, 2.0));
    /// ```
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Summary> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median =
            if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
        Some(Summary { median, least: values[0], most: values[values.len() - 1], runs: values.len() })
    }

    /// (largest - smallest) / median; 0 where the median is.
    pub fn spread(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.most - self.least) / self.median }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_do_not_depend_on_the_order() {
        let median = |values: &[f64]| Summary::of(values.iter().copied()).map(|summary| summary.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(&[9.0, 1.0, 4.0, 6.0]), Some(5.0));
        assert_eq!(median(&[1.0, f64::NAN]), None);
        assert_eq!(median(&[1.0, f64::INFINITY]), None);
    }

    #[test]
    fn the_spread_is_that_of_the_extremes_relative_to_the_median() {
        let summary = Summary::of([500.0, 1000.0, 250.0]).unwrap();
        assert_eq!((summary.least, summary.most, summary.runs, summary.spread()), (250.0, 1000.0, 3, 1.5));
        assert_eq!(Summary::of([0.0, 0.0]).unwrap().spread(), 0.0);
    }
}
