//! Enters: rows of words and numbers. Leaves: a table as papers have it, with rules above and below.

use plotters::{
    prelude::{RGBColor, Rectangle},
    style::{
        Color,
        text_anchor::{HPos, VPos},
    },
};

use super::{
    Chart,
    sheet::{AXIS, Area, HEADING, INK, NAME, SCALE, SOFT, TITLE},
    sheet::{draw, failed, sink, style, width, wrapped, write},
};

/// The height of a row.
const ROW: i32 = 26 * SCALE;
/// The height of a line of notes.
const NOTE: i32 = 19 * SCALE;
/// Beside each column.
const PAD: i32 = 14 * SCALE;
/// Around the table.
const MARGIN: i32 = 22 * SCALE;
/// The title and the notes have at least this width before they are cut into lines.
const LEAST: i32 = 420 * SCALE;
/// Every other row's ground.
const STRIPE: RGBColor = RGBColor(244, 246, 248);

/// A table, its first column flush left and the others flush right, with notes below. Its size follows what is in it.
///
/// # Errors
///
/// Where there is no column, a row has not one cell for each, the table is too large for a picture, or drawing fails.
pub fn table(title: &str, notes: &[String], header: &[&str], rows: &[Vec<String>]) -> Result<Chart, String> {
    if header.is_empty() {
        return Err("expected a table of at least one column, got none".to_owned());
    }
    if let Some((index, row)) = rows.iter().enumerate().find(|(_, row)| row.len() != header.len()) {
        let (expected, got) = (header.len(), row.len());
        return Err(format!("row {}: expected {expected} cells, one for each column, got {got}", index + 1));
    }
    let mut edges = vec![0i32];
    let mut across = 0i32;
    for (column, name) in header.iter().enumerate() {
        let mut widest = width(name, HEADING)?;
        for cell in rows.iter().filter_map(|row| row.get(column)) {
            widest = widest.max(width(cell, HEADING)?);
        }
        across = across.saturating_add(widest).saturating_add(2 * PAD);
        edges.push(across);
    }
    let room = across.max(LEAST);
    let title = wrapped(title, TITLE, room)?;
    let mut below = Vec::new();
    for note in notes {
        below.extend(wrapped(note, NAME, room)?);
    }
    let mut wide = across;
    for (lines, height) in [(&title, TITLE), (&below, NAME)] {
        for line in lines {
            wide = wide.max(width(line, height)?);
        }
    }
    let count = |number: usize, each: i32| i32::try_from(number).unwrap_or(i32::MAX).saturating_mul(each);
    let above = count(title.len(), TITLE + 4 * SCALE) + if title.is_empty() { 0 } else { 8 * SCALE };
    let body = count(rows.len() + 1, ROW);
    let after = count(below.len(), NOTE) + if below.is_empty() { 0 } else { 10 * SCALE };
    let tall = [above, body, after, 2 * MARGIN].into_iter().fold(0i32, i32::saturating_add);

    draw((wide.saturating_add(2 * MARGIN), tall), |area| {
        let heading = style(TITLE, INK, HPos::Left, VPos::Top)?;
        for (index, line) in title.iter().enumerate() {
            write(area, line, &heading, (MARGIN, MARGIN + count(index, TITLE + 4 * SCALE)))?;
        }
        let top = MARGIN + above;
        for index in (1..rows.len()).step_by(2) {
            let y = top + count(index + 1, ROW);
            fill(area, [(MARGIN, y), (MARGIN + across, y + ROW)], STRIPE)?;
        }
        let names = std::iter::once(header.to_vec());
        let cells = rows.iter().map(|row| row.iter().map(String::as_str).collect());
        for (index, row) in names.chain(cells).enumerate() {
            let y = top + count(index, ROW) + ROW / 2;
            for (column, (text, ends)) in row.iter().zip(edges.windows(2)).enumerate() {
                let (x, side) = if column == 0 { (ends[0] + PAD, HPos::Left) } else { (ends[1] - PAD, HPos::Right) };
                let colour = if index == 0 { SOFT } else { INK };
                write(area, text, &style(HEADING, colour, side, VPos::Center)?, (MARGIN + x, y + sink(HEADING)))?;
            }
        }
        for (y, thick, colour) in [(0, 2, INK), (ROW, 1, AXIS), (body, 2, INK)] {
            let y = top + y;
            fill(area, [(MARGIN, y - thick * SCALE / 2), (MARGIN + across, y + thick * SCALE / 2)], colour)?;
        }
        let small = style(NAME, SOFT, HPos::Left, VPos::Top)?;
        for (index, line) in below.iter().enumerate() {
            write(area, line, &small, (MARGIN, top + body + 10 * SCALE + count(index, NOTE)))?;
        }
        Ok(())
    })
}

/// Fills a rectangle.
fn fill(area: &Area<'_>, corners: [(i32, i32); 2], colour: RGBColor) -> Result<(), String> {
    area.draw(&Rectangle::new(corners, colour.filled())).map_err(failed)
}
