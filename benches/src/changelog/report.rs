//! What was measured, as text and as lines of JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::Figures;

/// All repetitions of one figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figure {
    part: &'static str,
    name: &'static str,
    values: Vec<f64>,
}

/// All figures, in the order in which they came first.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    figures: Vec<Figure>,
}

impl Report {
    pub(super) fn add(&mut self, part: &'static str, figures: Figures) {
        for (name, value) in figures {
            match self.figures.iter_mut().find(|figure| figure.part == part && figure.name == name) {
                Some(figure) => figure.values.push(value),
                None => self.figures.push(Figure { part, name, values: vec![value] }),
            }
        }
    }

    pub(super) fn figures(&self) -> &[Figure] {
        &self.figures
    }

    /// A table in Markdown.
    pub(super) fn table(&self) -> String {
        let mut table = String::from("| part | figure | median | spread |\n|---|---|---:|---:|\n");
        for Figure { part, name, values } in &self.figures {
            let mut sorted = values.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let median = sorted[sorted.len() / 2];
            let spread = 100.0 * (sorted[sorted.len() - 1] - sorted[0]) / median.abs().max(f64::MIN_POSITIVE);
            let digits = if median.abs() >= 100.0 { 0 } else { 3 };
            let _ = writeln!(table, "| {part} | {name} | {median:.digits$} | {spread:.0} % |");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_come_together_in_order_with_median_and_spread() {
        let mut report = Report::default();
        for value in [1.0, 4.0, 2.0] {
            report.add("restore", vec![("read", value), ("restored", 200.0 * value)]);
        }
        assert_eq!(report.figures().len(), 2);
        let table = report.table();
        assert!(table.contains("| restore | read | 2.000 | 150 % |"), "{table}");
        assert!(table.contains("| restore | restored | 400 | 150 % |"), "{table}");
    }
}
