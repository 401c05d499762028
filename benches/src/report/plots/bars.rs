//! Bars that lie: one a row, its name before it and its value behind it.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Area, FONT, Failed, WIDTH, draw};

/// A bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it stands for.
    pub name: String,
    /// Its length; 0 or more.
    pub value: f64,
    /// Where what it stands for lies between, drawn as a line over the bar.
    pub range: Option<(f64, f64)>,
    /// Its value in words.
    pub text: String,
    /// Whether it is the one that the plot is about.
    pub is_ours: bool,
}

/// Pixels of a row, and of the bar in it.
const ROW: i32 = 24;
const THICKNESS: i32 = 16;

/// Pixels for names and for values.
const NAMES: i32 = 130;
const VALUES: i32 = 150;

/// Draws bars to one scale that begins at 0.
///
/// # Errors
/// What drawing failed with, in words.
pub fn bars(bars: &[Bar]) -> Result<String, String> {
    let most = bars.iter().map(|bar| bar.range.map_or(bar.value, |range| range.1.max(bar.value))).fold(0.0, f64::max);
    let height = ROW * bars.len().max(1) as i32 + 8;
    draw(height as u32, |area| {
        for (row, bar) in bars.iter().enumerate() {
            paint(area, bar, 4 + row as i32 * ROW, most)?;
        }
        let bottom = height - 4;
        area.draw(&PathElement::new([(NAMES, 4), (NAMES, bottom)], BLACK.stroke_width(1)))
    })
}

fn paint(area: &Area<'_>, bar: &Bar, top: i32, most: f64) -> Result<(), Failed> {
    let across = |value: f64| {
        let part = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
        NAMES + (part * f64::from(WIDTH as i32 - NAMES - VALUES)).round() as i32
    };
    let middle = top + ROW / 2;
    let (upper, lower) = (middle - THICKNESS / 2, middle + THICKNESS / 2);
    let colour = if bar.is_ours { RGBColor(40, 40, 40) } else { RGBColor(150, 170, 190) };
    area.draw(&Rectangle::new([(NAMES, upper), (across(bar.value), lower)], colour.filled()))?;
    let mut end = across(bar.value);
    if let Some((least, most)) = bar.range {
        end = end.max(across(most));
        let line = RGBColor(213, 94, 0).stroke_width(2);
        area.draw(&PathElement::new([(across(least), middle), (across(most), middle)], line))?;
        for at in [least, most].map(across) {
            area.draw(&PathElement::new([(at, middle - 4), (at, middle + 4)], line))?;
        }
    }
    let style = |anchor| TextStyle::from(FONT.into_font()).color(&BLACK).pos(Pos::new(anchor, VPos::Center));
    area.draw(&Text::new(bar.name.clone(), (NAMES - 6, middle), style(HPos::Right)))?;
    area.draw(&Text::new(bar.text.clone(), (end + 6, middle), style(HPos::Left)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, value: f64, range: Option<(f64, f64)>) -> Bar {
        Bar { name: name.to_owned(), value, range, text: format!("{value} K"), is_ours: name == "siltstone" }
    }

    /// Widths of the bars; the first rectangle is the ground.
    fn widths(svg: &str) -> Vec<u32> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let rectangles = document.descendants().filter(|node| node.tag_name().name() == "rect").skip(1);
        rectangles.map(|node| node.attribute("width").unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn lengths_are_in_proportion_and_names_and_values_are_there() {
        let svg = bars(&[bar("siltstone", 400.0, None), bar("a <b>", 100.0, Some((50.0, 200.0)))]).unwrap();
        let widths = widths(&svg);
        assert!(widths[0].abs_diff(4 * widths[1]) <= 2, "{widths:?}");
        for text in ["siltstone", "a &lt;b&gt;", "400 K", "100 K"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }

    #[test]
    fn nothing_and_zeros_can_be_drawn() {
        assert!(roxmltree::Document::parse(&bars(&[]).unwrap()).is_ok());
        assert_eq!(widths(&bars(&[bar("x", 0.0, None)]).unwrap()), [0]);
    }
}
