//! Enters: a size, and what is to be drawn on it. Leaves: a chart, averaged down from a drawing [`SCALE`] times as large.

use std::{fmt::Display, sync::LazyLock};

use plotters::{
    coord::Shift,
    prelude::{BitMapBackend, DrawingArea, FontDesc, FontFamily, FontStyle, IntoDrawingArea, RGBColor, TextStyle},
    style::{
        Color, WHITE, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::Chart;

/// How many drawn pixels make one of the chart's, along each side.
pub(super) const SCALE: i32 = 3;
/// The most pixels that a chart may have.
const MOST: i64 = 8_000_000;

/// Lines that bound a chart or a table.
pub(super) const AXIS: RGBColor = RGBColor(150, 150, 150);
/// Titles and numbers.
pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
/// What is said beside them.
pub(super) const SOFT: RGBColor = RGBColor(96, 96, 96);
/// Lines to read a value by.
pub(super) const GRID: RGBColor = RGBColor(228, 228, 228);

/// The picture's title, a panel's title, names and notes, numbers at axes: heights of a line, in drawn pixels.
pub(super) const TITLE: i32 = 20 * SCALE;
/// See [`TITLE`].
pub(super) const HEADING: i32 = 16 * SCALE;
/// See [`TITLE`].
pub(super) const NAME: i32 = 14 * SCALE;
/// See [`TITLE`].
pub(super) const NUMBER: i32 = 13 * SCALE;

/// Where a drawing happens; all its lengths are in drawn pixels.
pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// What the font is registered as.
const FACE: &str = "DejaVu Sans";
static REGISTERED: LazyLock<bool> = LazyLock::new(|| {
    register_font(FACE, FontStyle::Normal, include_bytes!("../../assets/DejaVuSans-ascii.ttf")).is_ok()
});

/// Okabe and Ito's colours for the colour-blind, those first that are far apart on white; paler from the eighth on.
pub(super) fn colour(index: usize) -> RGBColor {
    let colours =
        [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (85, 85, 85)];
    let (r, g, b) = colours[index % colours.len()];
    let pale = |part: u8| if index < colours.len() { part } else { part / 2 + 127 };
    RGBColor(pale(r), pale(g), pale(b))
}

/// What went wrong while drawing.
pub(super) fn failed(why: impl Display) -> String {
    format!("the chart could not be drawn: {why}")
}

/// The font at a line's height.
pub(super) fn font(height: i32) -> Result<FontDesc<'static>, String> {
    if !*REGISTERED {
        return Err(format!("the font {FACE}: expected the TrueType file compiled in, got bytes that are none"));
    }
    Ok(FontDesc::new(FontFamily::Name(FACE), f64::from(height), FontStyle::Normal))
}

/// The font in a colour, hung up at a point.
pub(super) fn style(height: i32, colour: RGBColor, h: HPos, v: VPos) -> Result<TextStyle<'static>, String> {
    Ok(TextStyle { font: font(height)?, color: colour.to_backend_color(), pos: Pos::new(h, v) })
}

/// How wide a text gets.
pub(super) fn width(text: &str, height: i32) -> Result<i32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (width, _) = font(height)?.box_size(text).map_err(failed)?;
    Ok(i32::try_from(width).unwrap_or(i32::MAX / 4))
}

/// Cuts a text between words into lines no wider than `room`; a word that is wider has a line to itself.
pub(super) fn wrapped(text: &str, height: i32, room: i32) -> Result<Vec<String>, String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), height)? <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    Ok(lines)
}

/// The text, or its beginning and dots where it is wider than `room`.
pub(super) fn shortened(text: &str, height: i32, room: i32) -> Result<String, String> {
    let mut kept: Vec<char> = text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
    let mut shown: String = kept.iter().collect();
    while width(&shown, height)? > room && kept.pop().is_some() {
        shown = kept.iter().chain(&['.', '.', '.']).collect();
    }
    Ok(shown)
}

/// How far below its point a text is to be hung up by its middle: plotters takes that to be above the letters' own.
pub(super) const fn sink(height: i32) -> i32 {
    height / 5
}

/// Writes one line.
pub(super) fn write(area: &Area<'_>, text: &str, style: &TextStyle<'_>, at: (i32, i32)) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    area.draw_text(text, style, at).map_err(failed)
}

/// Draws on white. The size is in drawn pixels, and rounded up to whole ones of the chart.
pub(super) fn draw(
    (width, height): (i32, i32),
    with: impl FnOnce(&Area<'_>) -> Result<(), String>,
) -> Result<Chart, String> {
    let whole = |side: i32| i64::from(side.max(1)).div_euclid(i64::from(SCALE)) + i64::from(side % SCALE != 0);
    let (wide, tall) = (whole(width), whole(height));
    let (Ok(columns), Ok(rows)) = (u32::try_from(wide), u32::try_from(tall)) else {
        return Err(format!("expected a chart's sides to be positive, got {wide}x{tall}"));
    };
    if wide.saturating_mul(tall) > MOST {
        return Err(format!("expected a chart of at most {MOST} pixels, got {wide}x{tall}: show less in it"));
    }
    let scale = SCALE as usize;
    let (row, drawn) = (columns as usize * scale * 3, (columns * SCALE as u32, rows * SCALE as u32));
    let mut large = vec![u8::MAX; row * rows as usize * scale];
    {
        let area = BitMapBackend::with_buffer(&mut large, drawn).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        with(&area)?;
        area.present().map_err(failed)?;
    }
    let mut rgb = Vec::with_capacity(large.len() / scale / scale);
    for band in large.chunks_exact(row * scale) {
        for at in (0..row).step_by(3 * scale) {
            for part in 0..3 {
                let sum: usize = (0..scale)
                    .flat_map(|y| (0..scale).map(move |x| y * row + at + x * 3 + part))
                    .map(|index| usize::from(band[index]))
                    .sum();
                rgb.push(u8::try_from(sum / (scale * scale)).unwrap_or(u8::MAX));
            }
        }
    }
    Ok(Chart { width: columns, height: rows, rgb })
}
