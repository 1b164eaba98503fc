//! Enters: lines of one chart, or of several. Leaves: a picture of them.

use plotters::style::text_anchor::{HPos, VPos};

use super::{
    Chart, Panel, Series,
    plot::Plot,
    sheet::{INK, SCALE, TITLE, draw, shortened, style, write},
};

/// A chart's size, when it has a picture to itself.
const ALONE: (i32, i32) = (860 * SCALE, 480 * SCALE);
/// A panel's size.
const PANEL: (i32, i32) = (460 * SCALE, 300 * SCALE);
/// The room for the title above panels.
const HEAD: i32 = 36 * SCALE;

/// Lines over one another. Those with few points have markers; those of the right axis have hollow ones, and are read
/// there.
///
/// # Errors
///
/// Where the lines' names leave no room for the chart, or drawing fails.
pub fn lines(
    title: &str,
    x_label: &str,
    y_label: &str,
    right_label: Option<&str>,
    series: &[Series],
) -> Result<Chart, String> {
    let plot = Plot { title, alone: true, x_label, y_label, right_label: right_label.unwrap_or(""), series };
    draw(ALONE, |area| plot.draw(area))
}

/// Several small charts of lines in one picture, two in a row, or three where there are more than six.
///
/// # Errors
///
/// Where there is no panel, there are too many for a picture, names leave no room in one, or drawing fails.
pub fn panels(title: &str, panels: &[Panel]) -> Result<Chart, String> {
    let columns = match panels.len() {
        0 => return Err("expected at least one panel, got none".to_owned()),
        1 => 1,
        2..=6 => 2,
        _ => 3,
    };
    let rows = panels.len().div_ceil(columns);
    let Ok(tall) = i32::try_from(rows.saturating_mul(PANEL.1 as usize)) else {
        return Err(format!("expected as many panels as fit into a picture, got {}", panels.len()));
    };
    let head = if title.is_empty() { 0 } else { HEAD };
    let width = PANEL.0 * columns as i32;
    draw((width, tall.saturating_add(head)), |area| {
        let left = 16 * SCALE;
        let shown = shortened(title, TITLE, width - 2 * left)?;
        write(area, &shown, &style(TITLE, INK, HPos::Left, VPos::Top)?, (left, 14 * SCALE))?;
        let (_, below) = area.split_vertically(head);
        for (part, panel) in below.split_evenly((rows, columns)).iter().zip(panels) {
            let Panel { title, x_label, series } = panel;
            Plot { title, alone: false, x_label, y_label: "", right_label: "", series }.draw(part)?;
        }
        Ok(())
    })
}
