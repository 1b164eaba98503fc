//! Input: series of points. Output: an SVG file, drawn by plotters: lines, stacked bars, or marks with error bars.

use std::{
    error::Error,
    ops::Range,
    path::{Path, PathBuf},
};

use fovea_terminal::{failure::Failure, output::Output};
use plotters::{coord::Shift, prelude::*};

/// Size of a panel in pixels.
const SIZE: (u32, u32) = (900, 380);
/// Most points of a line that are marked.
const MARKED: usize = 60;
/// Width of the legend beside a plot of marks, and of bars, pixels.
const LEGENDS: [u32; 2] = [240, 80];
/// Colors of marks and bars: Okabe and Ito's, which people with color blindness can tell apart, with grey instead of yellow.
const COLORS: [RGBColor; 8] = [
    BLACK,
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
];
/// Corners of marks around their place, pixels; without corners it is a circle. Each is used filled, then hollow.
const SHAPES: [&[(i32, i32)]; 8] = [
    &[],
    &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
    &[(0, -6), (5, 4), (-5, 4)],
    &[(0, -6), (6, 0), (0, 6), (-6, 0)],
    &[(0, 6), (5, -4), (-5, -4)],
    &[(-6, 0), (4, -5), (4, 5)],
    &[(6, 0), (-4, -5), (-4, 5)],
    &[(-2, -6), (2, -6), (2, -2), (6, -2), (6, 2), (2, 2), (2, 6), (-2, 6), (-2, 2), (-6, 2), (-6, -2), (-2, -2)],
];

/// How series are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One line per series.
    Lines,
    /// One bar per x; the series are stacked.
    Bars,
    /// One line per series, with a mark and an error bar per point. Marks differ by color and shape; the legend is beside
    /// the plot.
    Marks,
}

/// A named series of points (x, y).
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points, x in rising order. Bars: the same x in all series.
    pub points: Vec<(f64, f64)>,
    /// Marks: half the length of each point's error bar.
    pub errors: Vec<f64>,
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
    /// Ranges of both axes. y begins at 0, so that heights can be compared; for marks it has room for the error bars.
    fn ranges(&self) -> [Range<f64>; 2] {
        let points = || self.series.iter().flat_map(|s| &s.points).filter(|(x, y)| x.is_finite() && y.is_finite());
        let low = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
        let high = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
        let (left, right) = (low(&mut points().map(|p| p.0)), high(&mut points().map(|p| p.0)));
        let (bottom, top) = (low(&mut points().map(|p| p.1)).min(0.0), high(&mut points().map(|p| p.1)).max(1e-6));
        match self.style {
            _ if left > right => [0.0..1.0, 0.0..1.0],
            Style::Marks => {
                let ends = |sign: f64| self.series.iter().flat_map(move |s| s.ends(sign)).filter(|y| y.is_finite());
                let (bottom, top) = (low(&mut ends(-1.0)), high(&mut ends(1.0)));
                let room = (0.05 * (top - bottom)).max(0.5);
                [left.min(0.0)..1.03 * right.max(1.0), bottom - room..top + room]
            }
            Style::Bars => [left - 0.5..right + 0.5, 0.0..1.0],
            Style::Lines if left == right => [left - 0.5..right + 0.5, bottom..1.05 * top],
            Style::Lines => [left..right, bottom..1.05 * top],
        }
    }
}

impl Series {
    /// The lower (`sign` -1) or upper (1) ends of the error bars.
    fn ends(&self, sign: f64) -> impl Iterator<Item = f64> {
        let errors = self.errors.iter().copied().chain(std::iter::repeat(0.0));
        self.points.iter().zip(errors).map(move |((_, y), error)| y + sign * error)
    }
}

/// The file of a figure, opened before any work begins.
///
/// # Errors
/// [`Failure::Usage`] for a name that does not end in .svg, and as [`Output::new`].
pub fn file(path: Option<&Path>, read: &[PathBuf]) -> Result<Option<Output>, Failure> {
    let Some(path) = path else { return Ok(None) };
    if let Some(end) = path.extension().filter(|end| !end.eq_ignore_ascii_case("svg")) {
        let why = format!("{}: expected a name in .svg, got .{}", path.display(), end.display());
        return Err(Failure::Usage(why));
    }
    Output::new(path, read).map(Some)
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
        let beside = match panel.style {
            Style::Marks => LEGENDS[0],
            Style::Bars => LEGENDS[1],
            Style::Lines => 0,
        };
        let (area, legend) = area.split_horizontally(SIZE.0 - beside);
        let mut chart = ChartBuilder::on(&area)
            .caption(&panel.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(x, y)?;
        let number = |x: &f64| format!("{}", (x * 1e3).round() / 1e3);
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(panel.x_label.as_str()).x_label_formatter(&number).light_line_style(WHITE).draw()?;
        let (x, y) = legend.get_base_pixel();
        if panel.style == Style::Marks {
            marks(&root, panel, |x, y| chart.backend_coord(&(x, y)), (x + 10, y + 40))?;
            continue;
        }
        let mut stacked = vec![0.0; panel.series.iter().map(|s| s.points.len()).max().unwrap_or(0)];
        for (index, series) in panel.series.iter().enumerate() {
            let style = match panel.style {
                Style::Bars => COLORS[(index + 1) % COLORS.len()].filled(),
                _ => Palette99::pick(index).filled().stroke_width(2),
            };
            let points = series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
            let drawn = match panel.style {
                // Marks are drawn above.
                Style::Lines | Style::Marks => {
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
            if panel.style == Style::Bars {
                let (x, y) = (x + 10, y + 40 + 21 * index as i32);
                root.draw(&Rectangle::new([(x, y - 5), (x + 12, y + 5)], style))?;
                root.draw(&Text::new(series.name.as_str(), (x + 18, y - 7), ("sans-serif", 13)))?;
            }
        }
        if panel.style == Style::Bars {
            continue;
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    }
    root.present()?;
    Ok(())
}

/// Draws series as marks on `root`, and their legend below `legend`; `at` is the pixel of a point.
fn marks(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    panel: &Panel,
    at: impl Fn(f64, f64) -> (i32, i32),
    legend: (i32, i32),
) -> Result<(), Box<dyn Error>> {
    for (index, series) in panel.series.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let ends = series.ends(-1.0).zip(series.ends(1.0));
        let finite =
            |((x, y), (low, high)): &(&(f64, f64), (f64, f64))| [*x, *y, *low, *high].iter().all(|v| v.is_finite());
        let points: Vec<_> = series.points.iter().zip(ends).filter(finite).collect();
        let places: Vec<(i32, i32)> = points.iter().map(|((x, y), _)| at(*x, *y)).collect();
        root.draw(&PathElement::new(places.clone(), color.stroke_width(1)))?;
        for ((x, _), (low, high)) in &points {
            root.draw(&PathElement::new(vec![at(*x, *low), at(*x, *high)], color.stroke_width(1)))?;
        }
        let below = (legend.0, legend.1 + 21 * index as i32);
        for place in places.into_iter().chain([below]) {
            mark(root, index, place)?;
        }
        root.draw(&Text::new(series.name.as_str(), (below.0 + 12, below.1 - 7), ("sans-serif", 13)))?;
    }
    Ok(())
}

/// Draws the mark of a series. 16 series have different marks.
fn mark(root: &DrawingArea<SVGBackend<'_>, Shift>, index: usize, (x, y): (i32, i32)) -> Result<(), Box<dyn Error>> {
    let color = COLORS[index % COLORS.len()];
    let fill = if (index / SHAPES.len()).is_multiple_of(2) { color } else { WHITE };
    let mut corners: Vec<(i32, i32)> = SHAPES[index % SHAPES.len()].iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
    let Some(&first) = corners.first() else {
        root.draw(&Circle::new((x, y), 4, fill.filled()))?;
        root.draw(&Circle::new((x, y), 4, color.stroke_width(2)))?;
        return Ok(());
    };
    root.draw(&Polygon::new(corners.clone(), fill.filled()))?;
    corners.push(first);
    root.draw(&PathElement::new(corners, color.stroke_width(2)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(style: Style) -> Panel {
        let series = |name: &str, ys: &[f64]| Series {
            name: name.to_owned(),
            points: ys.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect(),
            errors: vec![0.1; ys.len()],
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
    fn marks_differ_and_have_error_bars() -> Result<(), Failure> {
        let svg = svg(&[panel(Style::Marks)])?;
        for name in ["right answers", "tokens", "a study", "gamma"] {
            assert_eq!(svg.matches(name).count(), 1, "{name} (got, expected)");
        }
        // Five points and the legend: each circle has a face and an edge.
        assert_eq!(svg.matches("<circle").count(), 12, "circles (got, expected)");
        assert_eq!(svg.matches("<polygon").count(), 6, "squares (got, expected)");
        let [x, y] = panel(Style::Marks).ranges();
        assert!(y.start < 0.0 && y.end > 0.6 && x.contains(&4.0), "expected room for error bars, got {x:?}, {y:?}");
        Ok(())
    }

    #[test]
    fn odd_series_are_drawn() -> Result<(), Failure> {
        for points in [vec![], vec![(1.0, 0.0)], vec![(0.0, f64::NAN), (1.0, f64::INFINITY)], vec![(2.0, -3.0); 9]] {
            for style in [Style::Lines, Style::Marks] {
                let series = vec![Series { name: "odd".into(), points: points.clone(), errors: Vec::new() }];
                svg(&[Panel { series, ..panel(style) }])?;
            }
        }
        Ok(())
    }
}
