//! The plots of a case, each with its table.

use super::case::Case;
use super::document::Plot;
use super::figure::{Figure, Quantile, three_digits};
use super::plots::{Axis, Bar, Line, bars, lines};
use super::table::{Cell, Table};
use super::tables::{median_cell, row_name};
use crate::engines::{EngineKind, LevelShape};
use crate::session::Measurement;

/// A course over time has at least this many rows; shorter ones say nothing.
const LEAST_ROWS: usize = 3;

/// Ticks of an axis of numbers, and of one of nines, whose labels are long and are to stand at whole ones.
const TICKS: usize = 10;
const NINES: usize = 7;

/// Moments in the table beside a course over time.
const MOMENTS: usize = 10;

/// A bar of speed for each engine.
pub fn speeds(case: &Case) -> Vec<Plot> {
    let plot = |figure: Figure| {
        let mut table = Table::new(1, ["engine", &figure.name(), "least", "most", "runs"]);
        let mut drawn = Vec::new();
        for (&engine, series) in &case.series {
            let summary = series.summary(figure);
            let number = |value: Option<f64>| Cell::from(value.map_or("-".to_owned(), |value| figure.format(value)));
            let runs = format!("{} of {}", series.measurements.len(), series.expected);
            let (least, most) = (summary.map(|summary| summary.least), summary.map(|summary| summary.most));
            let median = summary.map(|summary| summary.median);
            table.row([engine.name().into(), number(median), number(least), number(most), runs.into()]);
            drawn.push(Bar {
                name: engine.name().to_owned(),
                value: median.unwrap_or(0.0),
                range: least.zip(most),
                text: median_cell(Some(series), figure).text,
                is_ours: engine == EngineKind::Siltstone,
            });
        }
        Plot { title: format!("{}: {}", row_name(case, figure), figure.name()), svg: bars(&drawn), table }
    };
    case.speeds().into_iter().map(plot).collect()
}

/// The curve of latencies of each engine's typical run, if there are curves.
pub fn latencies(case: &Case) -> Option<Plot> {
    let curves: Vec<Line> = typical(case).map(|(engine, m)| Line { engine, points: curve(m) }).collect();
    if curves.iter().all(|curve| curve.points.is_empty()) {
        return None;
    }
    let quantiles = [Quantile::P50, Quantile::P99, Quantile::P999, Quantile::Max].map(Figure::Latency);
    let head = ["engine"].into_iter().chain(quantiles.iter().map(|figure| figure.short_name()));
    let mut table = Table::new(1, head);
    for (engine, series) in &case.series {
        let medians = quantiles.iter().map(|&figure| median_cell(Some(series), figure));
        table.row([Cell::from(engine.name())].into_iter().chain(medians));
    }
    let x = Axis { label: "share of the operations that were as fast", format: &share, ticks: NINES, is_log: false };
    let y = Axis { label: "latency, us", format: &three_digits, ticks: TICKS, is_log: true };
    Some(Plot { title: format!("{}: latencies", case.name), svg: lines(x, y, &curves), table })
}

/// The number of nines of each quantile, so that the rare ones have room, and its latency. The longest of all is as rare
/// as the sample is large.
fn curve(m: &Measurement) -> Vec<(f64, f64)> {
    let rarest = 1.0 / m.latencies.samples.max(1) as f64;
    let nines = |quantile: f64| -(1.0 - quantile).max(rarest).log10();
    let points = m.latencies.curve_us.iter().map(|&(quantile, us)| (nines(quantile), us));
    let mut points: Vec<(f64, f64)> = points.filter(|point| point.0.is_finite() && point.1 > 0.0).collect();
    // Quantiles rarer than the sample say nothing that the longest does not say.
    points.dedup_by(|later, earlier| {
        later.0 <= earlier.0 && {
            earlier.1 = later.1;
            true
        }
    });
    points
}

/// A number of nines as a share.
fn share(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10f64.powf(-nines));
    format!("{} %", format!("{percent:.4}").trim_end_matches('0').trim_end_matches('.'))
}

/// Operations a second over time, of each engine's typical run, if it took long enough.
pub fn rates_over_time(case: &Case) -> Option<Plot> {
    over_time(case, "thousand operations a second", |m| {
        let mut last = 0.0;
        let rate = |row: &crate::measure::Second| {
            let seconds = row.seconds - std::mem::replace(&mut last, row.seconds);
            (row.seconds, if seconds > 0.0 { row.ops as f64 / seconds / 1e3 } else { 0.0 })
        };
        m.series.iter().map(rate).collect()
    })
}

/// Bytes sent to storage so far / user bytes so far, over time.
pub fn write_amplification_over_time(case: &Case) -> Option<Plot> {
    over_time(case, "write amplification so far", |m| {
        let user_bytes_an_op = if m.ops > 0 { m.user_bytes as f64 / m.ops as f64 } else { 0.0 };
        let (mut ops, mut device_bytes) = (0.0, 0.0);
        let mut points = Vec::new();
        for row in &m.series {
            ops += row.ops as f64;
            device_bytes += row.device_bytes.unwrap_or(0) as f64;
            if ops * user_bytes_an_op > 0.0 && device_bytes > 0.0 {
                points.push((row.seconds, device_bytes / (ops * user_bytes_an_op)));
            }
        }
        points
    })
}

/// A plot of what `course` reads from each engine's typical run; `None` if no course is long enough.
fn over_time(case: &Case, label: &str, course: impl Fn(&Measurement) -> Vec<(f64, f64)>) -> Option<Plot> {
    let all: Vec<Line> = typical(case).map(|(engine, m)| Line { engine, points: course(m) }).collect();
    let longest = all.iter().filter(|line| line.points.len() >= LEAST_ROWS).max_by_key(|line| line.points.len())?;
    let end = longest.points.last()?.0;
    let head = ["second".to_owned()].into_iter().chain(all.iter().map(|line| line.engine.name().to_owned()));
    let mut table = Table::new(0, head);
    for moment in 1..=MOMENTS {
        let second = end * moment as f64 / MOMENTS as f64;
        let at = |line: &Line| line.points.iter().find(|point| point.0 >= second).map(|point| three_digits(point.1));
        let cells = all.iter().map(|line| Cell::from(at(line).unwrap_or_else(|| "-".to_owned())));
        table.row([Cell::from(three_digits(second))].into_iter().chain(cells));
    }
    let x = Axis { label: "seconds", format: &three_digits, ticks: TICKS, is_log: false };
    let y = Axis { label, format: &three_digits, ticks: TICKS, is_log: false };
    Some(Plot { title: format!("{}: {label}", case.name), svg: lines(x, y, &all), table })
}

/// What each level of each engine's typical run holds at the end, if there are engines with levels.
pub fn levels(case: &Case) -> Option<Plot> {
    let mut table = Table::new(1, ["engine", "level", "files", "MiB", "MiB written into it", "MiB read for that"]);
    let mut drawn = Vec::new();
    for (engine, m) in typical(case) {
        for level in
            m.levels.iter().filter(|level| **level != LevelShape { level: level.level, ..LevelShape::default() })
        {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let sizes = [level.bytes, level.written_bytes, level.read_bytes].map(|bytes| three_digits(mib(bytes)));
            let [bytes, written, read] = sizes.map(Cell::from);
            let counts = [level.level.into(), level.files].map(|count: u64| Cell::from(count.to_string()));
            drawn.push(Bar {
                name: format!("{} L{}", engine.name(), level.level),
                value: mib(level.bytes),
                range: None,
                text: format!("{} MiB", bytes.text),
                is_ours: engine == EngineKind::Siltstone,
            });
            table.row([Cell::from(engine.name())].into_iter().chain(counts).chain([bytes, written, read]));
        }
    }
    (!drawn.is_empty()).then(|| Plot { title: format!("{}: levels", case.name), svg: bars(&drawn), table })
}

/// The run of each engine whose course is shown.
fn typical(case: &Case) -> impl Iterator<Item = (EngineKind, &Measurement)> {
    case.series.iter().filter_map(|(&engine, series)| Some((engine, series.typical()?)))
}
