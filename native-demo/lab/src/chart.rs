//! Input: series of points. Output: an SVG file, drawn by plotters: lines, or stacked bars.

use std::{error::Error, ops::Range};

use fovea_terminal::failure::Failure;
use plotters::prelude::*;

/// Size of a panel in pixels.
const SIZE: (u32, u32) = (900, 380);
/// Most points of a line that are marked.
const MARKED: usize = 60;

/// How series are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One line per series.
    Lines,
    /// One bar per x; the series are stacked.
    Bars,
}

/// A named series of points (x, y).
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points, x in rising order. Bars: the same x in all series.
    pub points: Vec<(f64, f64)>,
}

/// One plot with its own axes.
pub struct Panel {
    /// The title.
    pub title: String,
    /// The label of the x axis.
    pub x_label: String,
    /// How series are drawn.
    pub style: Style,
    /// The series.
    pub series: Vec<Series>,
}

impl Panel {
    /// Ranges of both axes. y begins at 0, so that heights can be compared.
    fn ranges(&self) -> [Range<f64>; 2] {
        let points = || self.series.iter().flat_map(|s| &s.points).filter(|(x, y)| x.is_finite() && y.is_finite());
        let low = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
        let high = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
        let (left, right) = (low(&mut points().map(|p| p.0)), high(&mut points().map(|p| p.0)));
        let (bottom, top) = (low(&mut points().map(|p| p.1)).min(0.0), high(&mut points().map(|p| p.1)).max(1e-6));
        match self.style {
            _ if left > right => [0.0..1.0, 0.0..1.0],
            Style::Bars => [left - 0.5..right + 0.5, 0.0..1.0],
            Style::Lines if left == right => [left - 0.5..right + 0.5, bottom..1.05 * top],
            Style::Lines => [left..right, bottom..1.05 * top],
        }
    }
}

/// Draws panels below each other.
///
/// # Errors
/// [`Failure::Chart`] with plotters' words.
pub fn svg(panels: &[Panel]) -> Result<String, Failure> {
    let mut svg = String::new();
    draw(&mut svg, panels).map_err(|why| Failure::Chart(why.to_string()))?;
    Ok(svg)
}

fn draw(svg: &mut String, panels: &[Panel]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::with_string(svg, (SIZE.0, SIZE.1 * panels.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((panels.len(), 1)).iter().zip(panels) {
        let [x, y] = panel.ranges();
        let mut chart = ChartBuilder::on(area)
            .caption(&panel.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(x, y)?;
        chart.configure_mesh().x_desc(panel.x_label.as_str()).light_line_style(WHITE).draw()?;
        let mut stacked = vec![0.0; panel.series.iter().map(|s| s.points.len()).max().unwrap_or(0)];
        for (index, series) in panel.series.iter().enumerate() {
            let style = Palette99::pick(index).filled().stroke_width(2);
            let points = series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
            let drawn = match panel.style {
                Style::Lines => {
                    let marks = if series.points.len() > MARKED { 0 } else { 3 };
                    chart.draw_series(LineSeries::new(points, style).point_size(marks))?
                }
                Style::Bars => chart.draw_series(points.zip(&mut stacked).map(|((x, y), below)| {
                    let bar = Rectangle::new([(x - 0.4, *below), (x + 0.4, *below + y)], style);
                    *below += y;
                    bar
                }))?,
            };
            drawn.label(&series.name).legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], style));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(style: Style) -> Panel {
        let series = |name: &str, ys: &[f64]| Series {
            name: name.to_owned(),
            points: ys.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect(),
        };
        let series = vec![series("right answers", &[0.1, 0.4, 0.3, 0.2, 0.5]), series("tokens", &[0.5; 5])];
        Panel { title: "a study".into(), x_label: "gamma".into(), style, series }
    }

    #[test]
    fn a_figure_has_its_names_and_all_points() -> Result<(), Failure> {
        let svg = svg(&[panel(Style::Lines), panel(Style::Lines)])?;
        for name in ["right answers", "tokens", "a study", "gamma"] {
            assert_eq!(svg.matches(name).count(), 2, "{name}: once per panel (got, expected)");
        }
        assert_eq!(svg.matches("<circle").count(), 20, "points (got, expected)");
        let lines = svg
            .split("points=\"")
            .skip(1)
            .filter(|rest| rest.split('"').next().is_some_and(|points| points.split_whitespace().count() == 5));
        assert_eq!(lines.count(), 4, "lines of 5 points (got, expected)");
        Ok(())
    }

    #[test]
    fn stacked_bars_have_one_part_per_value() -> Result<(), Failure> {
        let bars = svg(&[panel(Style::Bars)])?.matches("<rect").count();
        let empty = Panel { series: Vec::new(), ..panel(Style::Bars) };
        assert!(bars >= svg(&[empty])?.matches("<rect").count() + 10, "expected 10 parts and a legend, got {bars}");
        Ok(())
    }

    #[test]
    fn odd_series_are_drawn() -> Result<(), Failure> {
        for points in [vec![], vec![(1.0, 0.0)], vec![(0.0, f64::NAN), (1.0, f64::INFINITY)], vec![(2.0, -3.0); 9]] {
            let series = vec![Series { name: "odd".into(), points }];
            svg(&[Panel { series, ..panel(Style::Lines) }])?;
        }
        Ok(())
    }
}
