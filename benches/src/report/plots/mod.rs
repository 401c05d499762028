//! Plots as SVG: bars, and lines over something. Each engine has a mark of its own, so that colours are not needed to
//! tell them apart.

mod bars;
mod lines;
mod mark;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::engines::EngineKind;

pub use bars::{Bar, bars};
pub use lines::{Axis, Line, lines};

/// What drawing fails with.
type Failed = DrawingAreaErrorKind<std::io::Error>;

type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;

/// Pixels across.
const WIDTH: u32 = 640;

/// Text in plots: any font of this kind that the reader's machine has.
const FONT: (&str, u32) = ("sans-serif", 13);

/// Draws on a white area of some height.
///
/// # Errors
/// What drawing failed with, in words.
fn draw(height: u32, paint: impl FnOnce(&Area<'_>) -> Result<(), Failed>) -> Result<String, String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = area.fill(&WHITE).and_then(|()| paint(&area)).and_then(|()| area.present());
        drawn.map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

/// The marks of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Disc,
    Ring,
    Triangle,
    Cross,
    Square,
    Plus,
    Bar,
}

/// How an engine looks.
#[derive(Clone, Copy, Debug)]
struct Look {
    colour: RGBColor,
    shape: Shape,
    width: u32,
}

/// The colours are those of Okabe and Ito, "Color Universal Design" (2008), which the colour-blind tell apart; ours is
/// black.
fn look(engine: EngineKind) -> Look {
    let (colour, shape, width) = match engine {
        EngineKind::Siltstone => (RGBColor(0, 0, 0), Shape::Disc, 3),
        EngineKind::RocksDb => (RGBColor(213, 94, 0), Shape::Triangle, 1),
        EngineKind::Fjall => (RGBColor(0, 114, 178), Shape::Cross, 1),
        EngineKind::Redb => (RGBColor(0, 158, 115), Shape::Ring, 1),
        EngineKind::Lmdb => (RGBColor(204, 121, 167), Shape::Square, 1),
        EngineKind::SurrealKv => (RGBColor(230, 159, 0), Shape::Plus, 1),
        EngineKind::Floor => (RGBColor(86, 180, 233), Shape::Bar, 1),
    };
    Look { colour, shape, width }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn engines_look_different_also_without_colours() {
        let looks: Vec<Look> = EngineKind::value_variants().iter().map(|&engine| look(engine)).collect();
        for (at, a) in looks.iter().enumerate() {
            for b in &looks[at + 1..] {
                assert!(a.colour != b.colour && a.shape != b.shape, "{a:?} {b:?}");
            }
        }
    }
}
