//! Enters: categories, and what each consists of. Leaves: a bar for each, of stacked parts.

use plotters::{
    prelude::{ChartBuilder, Rectangle},
    style::{
        Color, FontTransform,
        text_anchor::{HPos, VPos},
    },
};

use super::{
    Chart,
    legend::{Legend, Swatch},
    plot::{head, label_room},
    sheet::{AXIS, Area, GRID, INK, NAME, NUMBER, SCALE, SOFT},
    sheet::{colour, draw, failed, shortened, sink, style, width, write},
    ticks::{Axis, drawable},
};

/// The height of the bars.
const BARS: i32 = 300 * SCALE;
/// From one bar to the next.
const PITCH: i32 = 56 * SCALE;
/// The picture's width is between these.
const WIDTHS: (i32, i32) = (560 * SCALE, 1400 * SCALE);
/// The room that a category's name has when it stands upright.
const UPRIGHT: i32 = 150 * SCALE;
/// Around the chart.
const MARGIN: i32 = 16 * SCALE;

/// Bars of stacked parts, the first part lowest. Values that are not finite count as 0.
///
/// # Errors
///
/// Where a part has not one value for each category, or a negative one, or drawing fails.
pub fn stacked_bars(
    title: &str,
    y_label: &str,
    categories: &[String],
    parts: &[(String, Vec<f64>)],
) -> Result<Chart, String> {
    for (name, values) in parts {
        if values.len() != categories.len() {
            let (expected, got) = (categories.len(), values.len());
            return Err(format!("part {name:?}: expected {expected} values, one for each category, got {got}"));
        }
        if let Some((value, category)) = values.iter().zip(categories).find(|(value, _)| **value < 0.0) {
            return Err(format!("part {name:?}: expected values from 0, got {value} for {category:?}"));
        }
    }
    let value = |part: usize, category: usize| {
        parts.get(part).and_then(|(_, values)| values.get(category)).copied().filter(|one| drawable(*one))
    };
    let total = |category: usize| (0..parts.len()).filter_map(|part| value(part, category)).sum::<f64>();
    let axis = Axis::round((0..categories.len()).map(total).chain([0.0]), 6.0);

    let (from, across) = (axis.from, Axis::tight([0.0, categories.len().max(1) as f64].into_iter(), 1.0).bare());
    let left = label_room(&axis, y_label)?;
    let count = i32::try_from(categories.len().max(1)).map_err(|_| "expected fewer categories".to_owned())?;
    let wide = count.saturating_mul(PITCH).saturating_add(left + 2 * MARGIN).clamp(WIDTHS.0, WIDTHS.1);
    let names = Names::new(categories, (wide - left - 2 * MARGIN) / count)?;
    let named = parts.iter().enumerate().map(|(index, (name, _))| (name.clone(), colour(index), Swatch::Field));
    let legend = Legend::new(named, wide - left - 2 * MARGIN)?;
    let above = 2 * MARGIN + 30 * SCALE + legend.height;

    draw((wide, above + BARS + names.height + MARGIN), |area| {
        let top = head(area, title, true, MARGIN + left, &legend)?;
        let mut chart = ChartBuilder::on(area)
            .margin_top(top)
            .margin_bottom(MARGIN)
            .margin_left(MARGIN)
            .margin_right(MARGIN)
            .x_label_area_size(names.height)
            .y_label_area_size(left)
            .build_cartesian_2d(across, axis)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID.stroke_width(SCALE as u32))
            .axis_style(AXIS.stroke_width(SCALE as u32))
            .set_all_tick_mark_size(4 * SCALE)
            .y_label_offset(sink(NUMBER))
            .label_style(style(NUMBER, SOFT, HPos::Left, VPos::Top)?)
            .axis_desc_style(style(NAME, INK, HPos::Left, VPos::Top)?)
            .y_desc(shortened(y_label, NAME, BARS)?)
            .draw()
            .map_err(failed)?;
        for category in 0..categories.len() {
            let (middle, mut low) = (category as f64 + 0.5, 0.0);
            for part in 0..parts.len() {
                let high = low + value(part, category).unwrap_or(0.0);
                if high > low {
                    let corners = [(middle - 0.36, low), (middle + 0.36, high)];
                    let field = Rectangle::new(corners, colour(part).filled());
                    chart.plotting_area().draw(&field).map_err(failed)?;
                }
                low = high;
            }
            let at = chart.plotting_area().map_coordinate(&(middle, from));
            names.write(area, category, (at.0, at.1 + 7 * SCALE))?;
        }
        Ok(())
    })
}

/// What stands below the bars.
struct Names {
    shown: Vec<String>,
    upright: bool,
    /// Only every so many are written, where the bars are too thin.
    every: usize,
    /// How high they get, with what is free above them.
    height: i32,
}

impl Names {
    /// Lays the names flat where all fit between bars, and stands them up otherwise.
    fn new(categories: &[String], pitch: i32) -> Result<Self, String> {
        let mut shown = Vec::with_capacity(categories.len());
        let mut longest = 0;
        for name in categories {
            let name = shortened(name, NUMBER, UPRIGHT)?;
            longest = longest.max(width(&name, NUMBER)?);
            shown.push(name);
        }
        let upright = longest > pitch - 6 * SCALE;
        let every = if upright { NUMBER.div_euclid(pitch.max(1)) as usize + 1 } else { 1 };
        Ok(Self { shown, upright, every, height: 10 * SCALE + if upright { longest } else { NUMBER } })
    }

    /// Writes one below a point.
    fn write(&self, area: &Area<'_>, index: usize, at: (i32, i32)) -> Result<(), String> {
        let Some(name) = self.shown.get(index).filter(|_| index.is_multiple_of(self.every)) else { return Ok(()) };
        let style = if self.upright {
            style(NUMBER, INK, HPos::Right, VPos::Center)?.transform(FontTransform::Rotate270)
        } else {
            style(NUMBER, INK, HPos::Center, VPos::Top)?
        };
        let at = if self.upright { (at.0 + sink(NUMBER), at.1) } else { at };
        write(area, name, &style, at)
    }
}
