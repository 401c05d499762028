//! Lines of engines over one axis, with marks, and a legend that has them.

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::mark::Mark;
use super::{Area, FONT, Failed, WIDTH, draw, look};
use crate::engines::EngineKind;

/// The points of an engine, ascending in x.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Whose.
    pub engine: EngineKind,
    /// Finite numbers in the units of the axes.
    pub points: Vec<(f64, f64)>,
}

/// An axis.
#[derive(Clone, Copy)]
pub struct Axis<'a> {
    /// What it counts, unit included.
    pub label: &'a str,
    /// A tick in words.
    pub format: &'a dyn Fn(f64) -> String,
    /// How many ticks it has at most.
    pub ticks: usize,
    /// Whether it is logarithmic; values of 0 and less are then left out.
    pub is_log: bool,
}

const HEIGHT: u32 = 340;

/// Pixels for the legend, on the right.
const LEGEND: u32 = 120;

/// About how many marks a line gets.
const MARKS: usize = 8;

type Chart<'a, 's> = ChartContext<'a, SVGBackend<'s>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

impl Axis<'_> {
    /// Where a value lies on the axis; `None` if it has no place there.
    fn place(&self, value: f64) -> Option<f64> {
        let placed = if self.is_log { value.log10() } else { value };
        placed.is_finite().then_some(placed)
    }

    fn tick(&self, placed: f64) -> String {
        (self.format)(if self.is_log { 10f64.powf(placed) } else { placed })
    }

    /// From where to where the axis goes for these places; a linear one begins at 0.
    fn range(&self, places: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
        let (least, most) = places.fold((f64::MAX, f64::MIN), |(least, most), at| (least.min(at), most.max(at)));
        match (least <= most, self.is_log) {
            (false, _) => 0.0..1.0,
            (true, true) => least.floor()..most.ceil().max(least.floor() + 1.0),
            (true, false) => least.min(0.0)..if most > 0.0 { most * 1.05 } else { 1.0 },
        }
    }
}

/// Draws lines over a mesh.
///
/// # Errors
/// What drawing failed with, in words.
pub fn lines(x: Axis<'_>, y: Axis<'_>, lines: &[Line]) -> Result<String, String> {
    let placed: Vec<Line> = lines
        .iter()
        .map(|line| {
            let points = line.points.iter().filter_map(|&(at, value)| Some((x.place(at)?, y.place(value)?)));
            Line { engine: line.engine, points: points.collect() }
        })
        .collect();
    draw(HEIGHT, |area| {
        let (plot, legend) = area.split_horizontally(WIDTH - LEGEND);
        let points = || placed.iter().flat_map(|line| &line.points);
        let mut chart = ChartBuilder::on(&plot)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(x.range(points().map(|point| point.0)), y.range(points().map(|point| point.1)))?;
        chart
            .configure_mesh()
            .x_desc(x.label)
            .y_desc(y.label)
            .x_labels(x.ticks)
            .y_labels(y.ticks)
            .x_label_formatter(&|&at| x.tick(at))
            .y_label_formatter(&|&at| y.tick(at))
            .label_style(FONT)
            .axis_desc_style(FONT)
            .max_light_lines(1)
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(220, 220, 220))
            .draw()?;
        placed.iter().try_for_each(|line| paint(&mut chart, line))?;
        placed.iter().enumerate().try_for_each(|(row, line)| legend_row(&legend, row, line.engine))
    })
}

fn paint(chart: &mut Chart<'_, '_>, line: &Line) -> Result<(), Failed> {
    let look = look(line.engine);
    let style = look.colour.stroke_width(look.width);
    let points = line.points.iter().copied();
    chart.draw_series(LineSeries::new(points, style))?;
    let step = line.points.len().div_ceil(MARKS).max(1);
    chart.draw_series(line.points.iter().step_by(step).map(|&at| Mark { at, look }))?;
    Ok(())
}

fn legend_row(area: &Area<'_>, row: usize, engine: EngineKind) -> Result<(), Failed> {
    let look = look(engine);
    let middle = 24 + 20 * row as i32;
    area.draw(&PathElement::new([(4, middle), (30, middle)], look.colour.stroke_width(look.width)))?;
    area.draw(&Mark { at: (17, middle), look })?;
    area.draw(&Text::new(engine.name(), (36, middle - 7), FONT.into_font()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(label: &str, is_log: bool) -> Axis<'_> {
        Axis { label, format: &|value| format!("<{value:.0}>"), ticks: 10, is_log }
    }

    fn line(engine: EngineKind, points: &[(f64, f64)]) -> Line {
        Line { engine, points: points.to_vec() }
    }

    #[test]
    fn lines_marks_and_legend_are_there() {
        let ours = line(EngineKind::Siltstone, &[(0.0, 1.0), (1.0, 10.0), (2.0, 100.0)]);
        let others = EngineKind::COMPARED[1..].iter().map(|&engine| line(engine, &[(0.0, 2.0), (2.0, 50.0)]));
        let all: Vec<Line> = std::iter::once(ours).chain(others).collect();
        let svg = lines(axis("time & space", false), axis("us", true), &all).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let count = |tag: &str| document.descendants().filter(|node| node.tag_name().name() == tag).count();
        // Discs of ours and rings of redb's, each once more in the legend; rings are two circles.
        assert_eq!(count("circle"), (3 + 1) + 2 * (2 + 1), "{svg}");
        let texts: String = document.descendants().filter_map(|node| node.text()).collect();
        for text in ["siltstone", "surrealkv", "time & space", "<100>"] {
            assert!(texts.contains(text), "{text}: {texts}");
        }
    }

    #[test]
    fn logarithmic_axes_leave_out_what_has_no_logarithm() {
        let svg = lines(axis("x", false), axis("y", true), &[line(EngineKind::Siltstone, &[(0.0, 0.0), (1.0, 5.0)])]);
        assert_eq!(svg.unwrap().matches("<circle").count(), 1 + 1);
        let range = axis("y", true).range([0.3, 2.1].into_iter());
        assert_eq!((range.start, range.end), (0.0, 3.0));
        assert!(lines(axis("x", false), axis("y", true), &[]).is_ok());
        assert!(lines(axis("x", false), axis("y", false), &[line(EngineKind::Redb, &[(0.0, 0.0)])]).is_ok());
    }
}
