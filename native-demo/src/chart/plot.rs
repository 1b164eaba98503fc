//! Enters: lines, and a part of a sheet. Leaves: they are drawn there, between axes, below a title and a legend.

use plotters::{
    coord::cartesian::Cartesian2d,
    prelude::{BitMapBackend, ChartBuilder, Circle, PathElement},
    style::{
        Color, WHITE,
        text_anchor::{HPos, VPos},
    },
};

use super::{
    Series,
    legend::{Legend, Swatch},
    sheet::{AXIS, Area, GRID, HEADING, INK, NAME, NUMBER, SCALE, SOFT, TITLE},
    sheet::{colour, failed, shortened, sink, style, width, write},
    ticks::{Axis, drawable},
};

/// Points are marked where a line has no more than this many.
const FEW: usize = 32;
/// Between the chart and the edges of its part of the sheet.
const MARGIN: i32 = 16 * SCALE;
/// The length of the marks at an axis; numbers stand as far off again.
const MARK: i32 = 4 * SCALE;
/// The least side of a chart, without what is around it.
const LEAST: i32 = 60 * SCALE;
/// A line's width.
const STROKE: i32 = 2 * SCALE;

/// How a chart maps its values.
type Axes = Cartesian2d<Axis, Axis>;
/// What plotters draws a chart's lines by.
type Chart<'a, 'b> = plotters::chart::DualCoordChartContext<'a, BitMapBackend<'b>, Axes, Axes>;

/// A chart's words and lines.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    /// Whether it is alone in its picture.
    pub(super) alone: bool,
    pub(super) x_label: &'a str,
    pub(super) y_label: &'a str,
    pub(super) right_label: &'a str,
    pub(super) series: &'a [Series],
}

/// The points that can be drawn.
fn points(series: &Series) -> impl Iterator<Item = (f64, f64)> {
    series.points.iter().copied().filter(|&(x, y)| drawable(x) && drawable(y))
}

/// The room for an axis' numbers and its name.
pub(super) fn label_room(axis: &Axis, name: &str) -> Result<i32, String> {
    let mut widest = 0;
    for tick in &axis.ticks {
        widest = widest.max(width(&axis.label(*tick), NUMBER)?);
    }
    Ok(widest + 3 * MARK + if name.is_empty() { 0 } else { NAME + MARK })
}

/// Writes the title and the legend, and returns how much room they took above the chart.
pub(super) fn head(area: &Area<'_>, title: &str, alone: bool, left: i32, legend: &Legend) -> Result<i32, String> {
    let (wide, _) = area.dim_in_pixel();
    let height = if alone { TITLE } else { HEADING };
    let mut y = MARGIN;
    if !title.is_empty() {
        let title = shortened(title, height, wide as i32 - left - MARGIN)?;
        write(area, &title, &style(height, INK, HPos::Left, VPos::Top)?, (left, y))?;
        y += height + 2 * MARK;
    }
    legend.draw(area, (left, y))?;
    Ok(y + legend.height + 2 * MARK)
}

impl Plot<'_> {
    /// Draws on the whole area.
    pub(super) fn draw(&self, area: &Area<'_>) -> Result<(), String> {
        let (wide, tall) = area.dim_in_pixel();
        let values = |right: bool| {
            self.series.iter().filter(move |one| one.right_axis == right).flat_map(|one| points(one).map(|(_, y)| y))
        };
        let about = f64::from(tall) / f64::from(48 * SCALE);
        let x = Axis::tight(
            self.series.iter().flat_map(|one| points(one).map(|(x, _)| x)),
            f64::from(wide) / f64::from(60 * SCALE),
        );
        let mut left = Axis::round(values(false), about.max(2.0));
        let right = Axis::beside(values(true), &left);
        let (on_left, on_right) = (values(false).next().is_some(), values(true).next().is_some());
        let left_room = label_room(&left, self.y_label)?;
        let right_room = if on_right { label_room(&right, self.right_label)? } else { 0 };
        let legend = self.legend(wide as i32 - 2 * MARGIN - left_room)?;
        let top = head(area, self.title, self.alone, MARGIN + left_room, &legend)?;

        let below = NUMBER + 3 * MARK + if self.x_label.is_empty() { 0 } else { NAME + MARK };
        let across = wide as i32 - left_room - right_room - 3 * MARGIN;
        let up = tall as i32 - top - below - MARGIN;
        if across.min(up) < LEAST {
            return Err(format!("expected names that leave room for a chart, got {} lines", self.series.len()));
        }
        let x_label = shortened(self.x_label, NAME, across)?;
        let y_label = shortened(self.y_label, NAME, up)?;
        let right_label = shortened(self.right_label, NAME, up)?;

        if !on_left && on_right {
            left = left.bare();
        }
        let mut chart = ChartBuilder::on(area)
            .margin_top(top)
            .margin_bottom(MARGIN)
            .margin_left(MARGIN)
            .margin_right(if on_right { MARGIN } else { 2 * MARGIN })
            .x_label_area_size(below)
            .y_label_area_size(left_room)
            .right_y_label_area_size(right_room)
            .build_cartesian_2d(x.clone(), left)
            .map_err(failed)?
            .set_secondary_coord(x, right);
        let numbers = style(NUMBER, SOFT, HPos::Left, VPos::Top)?;
        let names = style(NAME, INK, HPos::Left, VPos::Top)?;
        chart
            .configure_mesh()
            .bold_line_style(GRID.stroke_width(SCALE as u32))
            .axis_style(AXIS.stroke_width(SCALE as u32))
            .set_all_tick_mark_size(MARK)
            .y_label_offset(sink(NUMBER))
            .label_style(numbers.clone())
            .axis_desc_style(names.clone())
            .x_desc(x_label)
            .y_desc(y_label)
            .draw()
            .map_err(failed)?;
        if on_right {
            chart
                .configure_secondary_axes()
                .axis_style(AXIS.stroke_width(SCALE as u32))
                .set_all_tick_mark_size(MARK)
                .y_label_offset(sink(NUMBER))
                .label_style(numbers)
                .axis_desc_style(names)
                .y_desc(right_label)
                .draw()
                .map_err(failed)?;
        }
        for (index, series) in self.series.iter().enumerate() {
            line(&mut chart, series, index)?;
        }
        if !on_left && !on_right {
            let middle = ((left_room + wide as i32) / 2, (top + tall as i32) / 2 - NAME);
            write(area, "no values", &style(NAME, SOFT, HPos::Center, VPos::Center)?, middle)?;
        }
        Ok(())
    }

    /// Names the lines, unless the one there is has the title's name.
    fn legend(&self, room: i32) -> Result<Legend, String> {
        let both = [true, false].iter().all(|right| self.series.iter().any(|one| one.right_axis == *right));
        let names = self.series.iter().enumerate().filter_map(|(index, one)| {
            let told = !one.name.is_empty() && (self.series.len() > 1 || one.name != self.title);
            let name = if both && one.right_axis { format!("{} (right)", one.name) } else { one.name.clone() };
            let swatch = if points(one).count() <= FEW { Swatch::Dotted } else { Swatch::Line };
            told.then(|| (name, colour(index), swatch))
        });
        Legend::new(names, room)
    }
}

/// Draws one line. Each piece is drawn by itself, with a disc where it meets the next: plotters' own joins reach far
/// beyond sharp corners, to values that are not there.
fn line(chart: &mut Chart<'_, '_>, series: &Series, index: usize) -> Result<(), String> {
    let points: Vec<_> = points(series).collect();
    let few = points.len() <= FEW;
    let disc = |radius: i32, colour: plotters::style::RGBColor| {
        points.iter().map(move |at| Circle::new(*at, radius, colour.filled()))
    };
    let pieces = points.windows(2).map(|two| PathElement::new(two, colour(index).stroke_width(STROKE as u32)));
    if series.right_axis {
        chart.draw_secondary_series(pieces).map_err(failed)?;
        chart.draw_secondary_series(disc(if few { 4 * SCALE } else { STROKE / 2 }, colour(index))).map_err(failed)?;
        // hollow, so that they are told from those of the left axis
        if few {
            chart.draw_secondary_series(disc(2 * SCALE, WHITE)).map_err(failed)?;
        }
    } else {
        chart.draw_series(pieces).map_err(failed)?;
        chart.draw_series(disc(if few { 4 * SCALE } else { STROKE / 2 }, colour(index))).map_err(failed)?;
    }
    Ok(())
}
