//! The tables of a report: ratios to the best peer, goals, and all figures.

use super::case::{Case, Profile, Series, is_peer};
use super::figure::{Figure, Quantile, three_digits};
use super::formula::Verdict;
use super::goals;
use super::summary::Summary;
use super::table::{Cell, Mark, Table};
use crate::engines::EngineKind;

/// What stands where nothing was measured.
const NONE: &str = "-";

/// Figures in the table of all.
const ALL: [Figure; 17] = [
    Figure::RateToIdle,
    Figure::IdleSeconds,
    Figure::Latency(Quantile::P50),
    Figure::Latency(Quantile::P99),
    Figure::Latency(Quantile::P999),
    Figure::Latency(Quantile::Max),
    Figure::CallerCpu,
    Figure::Cpu,
    Figure::DeviceWriteAmplification,
    Figure::EngineWriteAmplification,
    Figure::SpaceAmplification,
    Figure::PeakSpaceAmplification,
    Figure::TableSpaceAmplification,
    Figure::StallSeconds,
    Figure::PeakRss,
    Figure::Anonymous,
    Figure::Seconds,
];

/// What a case's figure is called in a row.
pub fn row_name(case: &Case, figure: Figure) -> String {
    match figure {
        Figure::RateOf(kind) => format!("{}: {}", case.name, kind.name()),
        Figure::Seconds => format!("{}, seconds", case.name),
        _ => case.name.clone(),
    }
}

/// A median with its spread, and how many runs of how many if some are missing.
pub fn median_cell(series: Option<&Series>, figure: Figure) -> Cell {
    let Some(series) = series else { return NONE.into() };
    let summary = series.summary(figure);
    let mut remarks: Vec<String> = summary.map(percent).into_iter().collect();
    if series.is_incomplete() {
        remarks.push(format!("{} of {} runs", series.measurements.len(), series.expected));
    }
    if series.measurements.iter().any(|measurement| measurement.cut) {
        remarks.push("cut".to_owned());
    }
    let text = summary.map_or(NONE.to_owned(), |summary| figure.format(summary.median));
    let text = if remarks.is_empty() { text } else { format!("{text} ({})", remarks.join(", ")) };
    Cell::marked(text, if series.is_incomplete() { Mark::Bad } else { Mark::Plain })
}

fn percent(summary: Summary) -> String {
    format!("{:.0} %", summary.spread() * 100.0)
}

/// How many times better `ours` is than another figure.
///
/// ```
/// use siltstone_benches::report::{Figure, times_better};
/// assert_eq!(times_better(Figure::Rate, 300.0, 200.0), 1.5);
/// assert_eq!(times_better(Figure::Seconds, 2.0, 5.0), 2.5);
/// ```
pub fn times_better(figure: Figure, ours: f64, other: f64) -> f64 {
    if figure.is_more_better() { ours / other } else { other / ours }
}

fn ratio_cell(figure: Figure, ours: Option<Summary>, other: Option<Summary>) -> Cell {
    let (Some(ours), Some(other)) = (ours, other) else { return NONE.into() };
    let ratio = times_better(figure, ours.median, other.median);
    match (ratio.is_finite(), ratio < 1.0) {
        (false, _) => NONE.into(),
        (true, true) => Cell::marked(format!("{} loss", three_digits(ratio)), Mark::Bad),
        (true, false) => Cell::marked(three_digits(ratio), Mark::Good),
    }
}

/// Each workload's speed, and how many times that of the best peer ours is.
pub fn ratios(profile: &Profile) -> Table {
    let engines = profile.engines();
    let has_peers = engines.iter().any(|&engine| is_peer(engine));
    let has_floor = engines.contains(&EngineKind::Floor);
    let mut head = vec!["workload"];
    head.extend(engines.iter().map(|engine| engine.name()));
    head.extend(if has_peers { &["best peer", "ours / best"][..] } else { &[] });
    head.extend(has_floor.then_some("ours / floor"));
    let mut table = Table::new(1, head);
    for case in &profile.cases {
        for figure in case.speeds() {
            let ours = case.summary(EngineKind::Siltstone, figure);
            let mut row: Vec<Cell> = vec![row_name(case, figure).into()];
            row.extend(engines.iter().map(|engine| median_cell(case.series.get(engine), figure)));
            if has_peers {
                let best = case.best(figure, |_| true);
                row.push(best.map_or(NONE, |(engine, _)| engine.name()).into());
                row.push(ratio_cell(figure, ours, best.map(|(_, summary)| summary)));
            }
            if has_floor {
                row.push(ratio_cell(figure, ours, case.summary(EngineKind::Floor, figure)));
            }
            table.row(row);
        }
    }
    table
}

/// How often which verdict was passed: reached, missed, open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Goals that are reached.
    pub reached: usize,
    /// Goals that are not.
    pub missed: usize,
    /// Goals that what was measured does not decide.
    pub open: usize,
}

/// How ours stands to each goal that was measured.
pub fn goals(profile: &Profile) -> (Table, Score) {
    let engines: Vec<EngineKind> =
        profile.engines().into_iter().filter(|&engine| engine != EngineKind::Floor).collect();
    let head = ["workload", "figure", "goal", "stands"].into_iter();
    let mut table = Table::new(4, head.chain(engines.iter().map(|engine| engine.name())));
    let mut score = Score::default();
    for outcome in goals::judge(profile) {
        let figure = outcome.goal.figure;
        let absent: Vec<&str> = outcome.absent.iter().map(|engine| engine.name()).collect();
        let without = if absent.is_empty() { String::new() } else { format!(" (without {})", absent.join(", ")) };
        let stands = match outcome.verdict {
            Verdict::Reached => {
                score.reached += 1;
                Cell::marked(format!("reached{without}"), Mark::Good)
            }
            Verdict::Missed => {
                score.missed += 1;
                Cell::marked(format!("missed{without}"), Mark::Bad)
            }
            Verdict::Unknown(missing) => {
                score.open += 1;
                format!("open: no figure of {}", missing.join(", ")).into()
            }
            Verdict::NotMeant => continue,
        };
        let formula = outcome.goal.formula().to_string();
        let mut row: Vec<Cell> = vec![outcome.case.name.as_str().into(), figure.name().into(), formula.into(), stands];
        row.extend(engines.iter().map(|engine| median_cell(outcome.case.series.get(engine), figure)));
        table.row(row);
    }
    (table, score)
}

/// The medians of all figures; workloads of several kinds of operations have a row for each kind as well.
pub fn figures(profile: &Profile) -> Table {
    let head = ["workload", "engine", "runs", "kops/s", "spread"].into_iter();
    let mut table = Table::new(2, head.chain(ALL.iter().map(|figure| figure.short_name())));
    for case in &profile.cases {
        let kinds = case.step.workload.kinds();
        for (&engine, series) in &case.series {
            table.row(figures_row(&case.name, engine, series, Figure::Rate, Some));
            for &kind in kinds.iter().filter(|_| kinds.len() > 1) {
                let name = row_name(case, Figure::RateOf(kind));
                let of_kind = |figure| match figure {
                    Figure::Latency(quantile) => Some(Figure::LatencyOf(kind, quantile)),
                    _ => None,
                };
                table.row(figures_row(&name, engine, series, Figure::RateOf(kind), of_kind));
            }
        }
    }
    table
}

/// `choose` says what stands in the place of a figure.
fn figures_row(
    name: &str,
    engine: EngineKind,
    series: &Series,
    rate: Figure,
    choose: impl Fn(Figure) -> Option<Figure>,
) -> Vec<Cell> {
    let runs = format!("{} of {}", series.measurements.len(), series.expected);
    let runs = Cell::marked(runs, if series.is_incomplete() { Mark::Bad } else { Mark::Plain });
    let median = |figure: Figure| {
        let summary = series.summary(figure);
        Cell::from(summary.map_or(NONE.to_owned(), |summary| figure.format(summary.median)))
    };
    let spread = series.summary(rate).map_or(NONE.to_owned(), percent);
    let mut row: Vec<Cell> = vec![name.into(), engine.name().into(), runs, median(rate), spread.into()];
    row.extend(ALL.iter().map(|&figure| choose(figure).map_or(Cell::default(), median)));
    row
}
