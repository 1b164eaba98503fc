//! Enters: numbers that training and evaluation report, and their names. Leaves: tables, lines, bars and
//! rows of pictures, as RGB pixels or a PNG file.
//!
//! Everything is drawn three times as large and averaged down, which makes edges and letters smooth. The one font is
//! compiled in, so that a chart looks the same everywhere; it has printable ASCII and ± – → × γ.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};

mod bars;
mod gallery;
mod legend;
mod lines;
mod plot;
mod sheet;
mod table;
mod ticks;

pub use bars::stacked_bars;
pub use gallery::{ColourBar, GalleryRow, gallery};
pub use lines::{lines, panels};
pub use table::table;

/// A drawn chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Three bytes a pixel, row by row from the top.
    pub rgb: Vec<u8>,
}

impl Chart {
    /// The chart as the bytes of a PNG file.
    ///
    /// # Errors
    ///
    /// Where the bytes are not width x height x 3, or the encoder fails.
    pub fn png(&self) -> Result<Vec<u8>, String> {
        let (width, height) = (self.width, self.height);
        let image = RgbImage::from_raw(width, height, self.rgb.clone()).ok_or_else(|| {
            format!("a chart of {width}x{height} pixels: expected 3 bytes each, got {} bytes in all", self.rgb.len())
        })?;
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, ImageFormat::Png).map_err(|why| format!("the chart could not be encoded: {why}"))?;
        Ok(png.into_inner())
    }
}

/// One line of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// x and y, in the order in which they are joined. Values that are not finite, or beyond 1e30, are left out.
    pub points: Vec<(f64, f64)>,
    /// Whether y is read on the right axis.
    pub right_axis: bool,
}

/// One small chart among several in a picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// Above the chart.
    pub title: String,
    /// Below the chart; may be empty.
    pub x_label: String,
    /// Its lines.
    pub series: Vec<Series>,
}

#[cfg(test)]
mod tests;
