//! [`Mark`]: the sign by which a line is told from others without its colour.

use plotters::element::{Drawable, PointCollection};
use plotters::prelude::*;
use plotters_backend::{BackendCoord, DrawingErrorKind};

use super::{Look, Shape};

/// A sign of a few pixels at a place in any coordinates.
pub(super) struct Mark<C> {
    pub(super) at: C,
    pub(super) look: Look,
}

/// From the middle to the rim, in pixels.
const SIZE: i32 = 4;

impl<'a, C> PointCollection<'a, C> for &'a Mark<C> {
    type Point = &'a C;
    type IntoIter = std::iter::Once<&'a C>;

    fn point_iter(self) -> Self::IntoIter {
        std::iter::once(&self.at)
    }
}

impl<C, DB: DrawingBackend> Drawable<DB> for Mark<C> {
    fn draw<I: Iterator<Item = BackendCoord>>(
        &self,
        mut points: I,
        backend: &mut DB,
        _parent: (u32, u32),
    ) -> Result<(), DrawingErrorKind<DB::ErrorType>> {
        let Some((x, y)) = points.next() else { return Ok(()) };
        let (filled, thick) = (self.look.colour.filled(), self.look.colour.stroke_width(2));
        let mut stroke = |from, to| backend.draw_line((x + from, y + to), (x - from, y - to), &thick);
        match self.look.shape {
            Shape::Disc => backend.draw_circle((x, y), SIZE as u32, &filled, true),
            Shape::Ring => {
                backend.draw_circle((x, y), SIZE as u32, &WHITE.filled(), true)?;
                backend.draw_circle((x, y), SIZE as u32, &thick, false)
            }
            Shape::Square => backend.draw_rect((x - SIZE, y - SIZE), (x + SIZE, y + SIZE), &filled, true),
            Shape::Triangle => {
                let corners = [(x, y - SIZE), (x - SIZE, y + SIZE), (x + SIZE, y + SIZE)];
                backend.fill_polygon(corners, &filled)
            }
            Shape::Cross => stroke(SIZE, SIZE).and_then(|()| stroke(SIZE, -SIZE)),
            Shape::Plus => stroke(SIZE, 0).and_then(|()| stroke(0, SIZE)),
            Shape::Bar => stroke(0, SIZE),
        }
    }
}
