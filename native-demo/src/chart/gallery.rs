//! Enters: small pictures in rows and columns, and what stands beside them. Leaves: one picture of them all on white,
//! with a bar that says what their colours mean.

use plotters::{
    prelude::{RGBColor, Rectangle},
    style::{
        Color,
        text_anchor::{HPos, VPos},
    },
};

use super::{
    Chart,
    sheet::{AXIS, Area, HEADING, INK, NAME, NUMBER, SCALE, SOFT, TITLE},
    sheet::{draw, failed, shortened, style, width, wrapped, write},
};

/// Around everything, in pixels; all lengths here are.
const MARGIN: i32 = 22;
/// Between two pictures of a row.
const GAP: i32 = 12;
/// The title and the notes have at least this width.
const LEAST: i32 = 460;
/// From a line of text to what follows it.
const LEAD: i32 = 6;
/// From a row of pictures to the next.
const APART: i32 = 16;
/// The most rows and columns, and the longest side of a picture: far above what fits, and far below what overflows.
const MOST: (usize, u32) = (64, 4096);
/// The colour bar.
const BAR: (i32, i32) = (260, 14);

/// Pictures side by side, with a heading.
pub struct GalleryRow {
    /// Above them.
    pub title: String,
    /// Each with what stands below it, which may be empty.
    pub pictures: Vec<(Chart, String)>,
}

/// What colours mean.
pub struct ColourBar {
    /// Before the bar.
    pub name: String,
    /// Its colours, evenly from left to right.
    pub colours: Vec<[u8; 3]>,
    /// Names of places on it, which are from 0 on the left to 1 on the right.
    pub ticks: Vec<(f32, String)>,
}

/// A line of text that has its place.
struct Line {
    text: String,
    height: i32,
    colour: RGBColor,
    /// Where in the line the point is.
    side: HPos,
    /// In pixels.
    at: (i32, i32),
}

/// Drawn pixels as pixels, rounded up.
const fn pixels(drawn: i32) -> i32 {
    (drawn + SCALE - 1) / SCALE
}

/// Rows of pictures below a title, notes and a colour bar; `columns` are the headings of the pictures of every row.
///
/// # Errors
///
/// Where a row has more pictures than there are columns, there is too much for a picture, or drawing fails.
pub fn gallery(
    title: &str,
    notes: &[String],
    bar: &ColourBar,
    columns: &[String],
    rows: &[GalleryRow],
) -> Result<Chart, String> {
    if let Some((index, row)) = rows.iter().enumerate().find(|(_, row)| row.pictures.len() > columns.len()) {
        let (expected, got) = (columns.len(), row.pictures.len());
        return Err(format!("row {}: expected {expected} pictures at most, one for each column, got {got}", index + 1));
    }
    let pictures = || rows.iter().flat_map(|row| &row.pictures);
    let longest = pictures().map(|(picture, _)| picture.width.max(picture.height)).max().unwrap_or(0);
    if columns.len().max(rows.len()) > MOST.0 || longest > MOST.1 {
        let got = format!("{} rows, {} columns and {longest} pixels", rows.len(), columns.len());
        return Err(format!("expected at most {} rows and columns, and {} pixels a side, got {got}", MOST.0, MOST.1));
    }
    let mut pitch = pictures().map(|(picture, _)| picture.width as i32).max().unwrap_or(0);
    for (text, height) in columns.iter().map(|c| (c, NAME)).chain(pictures().map(|(_, below)| (below, NUMBER))) {
        pitch = pitch.max(pixels(width(text, height)?));
    }
    let across = columns.len() as i32 * (pitch + GAP) - GAP;
    let room = across.max(LEAST);
    let middle = |column: usize| MARGIN + column as i32 * (pitch + GAP) + pitch / 2;

    let mut lines = Vec::new();
    let mut y = MARGIN;
    let mut put = |text: String, height: i32, colour: RGBColor, side: HPos, at: (i32, i32)| {
        lines.push(Line { text, height, colour, side, at });
    };
    for (text, height, colour) in
        [(title, TITLE, INK)].into_iter().chain(notes.iter().map(|n| (n.as_str(), NAME, SOFT)))
    {
        for line in wrapped(text, height, room * SCALE)? {
            put(line, height, colour, HPos::Left, (MARGIN, y));
            y += pixels(height) + LEAD;
        }
    }
    y += LEAD;
    put(bar.name.clone(), NAME, INK, HPos::Left, (MARGIN, y));
    let bar_at = (MARGIN + pixels(width(&bar.name, NAME)?) + GAP, y);
    y += BAR.1 + LEAD;
    for (place, name) in &bar.ticks {
        let x = bar_at.0 + (place.clamp(0.0, 1.0) * BAR.0 as f32).round() as i32;
        put(name.clone(), NUMBER, SOFT, HPos::Center, (x, y));
    }
    y += pixels(NUMBER) + APART;
    for (column, name) in columns.iter().enumerate() {
        put(name.clone(), NAME, INK, HPos::Center, (middle(column), y));
    }
    y += pixels(NAME) + LEAD;
    let mut placed = Vec::new();
    for row in rows {
        let heading = shortened(&row.title, HEADING, room * SCALE)?;
        put(heading, HEADING, INK, HPos::Left, (MARGIN, y));
        y += pixels(HEADING) + LEAD;
        let tall = row.pictures.iter().map(|(picture, _)| picture.height as i32).max().unwrap_or(0);
        for (column, (picture, below)) in row.pictures.iter().enumerate() {
            placed.push((picture, (middle(column) - picture.width as i32 / 2, y)));
            put(below.clone(), NUMBER, SOFT, HPos::Center, (middle(column), y + tall + LEAD));
        }
        y += tall + LEAD + pixels(NUMBER) + APART;
    }

    let (wide, tall) = (room.max(bar_at.0 + BAR.0) + 2 * MARGIN, y - APART + MARGIN);
    let mut chart = draw((wide * SCALE, tall * SCALE), |area| {
        for line in &lines {
            let style = style(line.height, line.colour, line.side, VPos::Top)?;
            write(area, &line.text, &style, (line.at.0 * SCALE, line.at.1 * SCALE))?;
        }
        bar.draw(area, (bar_at.0 * SCALE, bar_at.1 * SCALE))
    })?;
    for (picture, at) in placed {
        paste(&mut chart, picture, at)?;
    }
    Ok(chart)
}

impl ColourBar {
    /// Draws the bar and its ticks below and right of a point.
    fn draw(&self, area: &Area<'_>, (left, top): (i32, i32)) -> Result<(), String> {
        let (long, high) = (BAR.0 * SCALE, BAR.1 * SCALE);
        let parts = self.colours.len().max(1) as i32;
        for (index, [red, green, blue]) in self.colours.iter().enumerate() {
            let edge = |index: i32| left + long * index / parts;
            let corners = [(edge(index as i32), top), (edge(index as i32 + 1), top + high)];
            area.draw(&Rectangle::new(corners, RGBColor(*red, *green, *blue).filled())).map_err(failed)?;
        }
        for (place, _) in &self.ticks {
            let x = left + (place.clamp(0.0, 1.0) * long as f32).round() as i32;
            let corners = [(x - SCALE / 2, top + high), (x + SCALE / 2, top + high + 3 * SCALE)];
            area.draw(&Rectangle::new(corners, AXIS.filled())).map_err(failed)?;
        }
        Ok(())
    }
}

/// Lays a picture onto another, its corner at (`left`, `top`). It has room there.
fn paste(onto: &mut Chart, picture: &Chart, (left, top): (i32, i32)) -> Result<(), String> {
    let (wide, row) = (onto.width as usize * 3, picture.width as usize * 3);
    let (left, top) = (left.max(0) as usize * 3, top.max(0) as usize);
    for (index, pixels) in picture.rgb.chunks_exact(row.max(1)).enumerate() {
        let start = (top + index) * wide + left;
        let under = onto.rgb.get_mut(start..start + row).filter(|_| left + row <= wide);
        let under = under.ok_or_else(|| {
            let (width, height) = (picture.width, picture.height);
            format!("a picture of {width}x{height} pixels: expected room for it, got row {index} outside")
        })?;
        under.copy_from_slice(pixels);
    }
    Ok(())
}
