//! Input: texts, pictures and rectangles at their places, in pixels. Output: an SVG file with the pictures inside it.

use fovea_model::Picture;
use fovea_overlay::png;
use fovea_terminal::failure::Failure;

/// The content of a figure.
#[derive(Default)]
pub struct Sheet {
    body: String,
}

impl Sheet {
    /// Adds a line of text whose baseline begins at (x, y).
    pub fn text(&mut self, [x, y]: [usize; 2], text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        self.body += &format!("<text x=\"{x}\" y=\"{y}\">{text}</text>\n");
    }

    /// Adds a picture as an embedded PNG file.
    ///
    /// # Errors
    /// As [`png`].
    pub fn image(&mut self, [x, y]: [usize; 2], picture: &Picture) -> Result<(), Failure> {
        let (width, height, data) = (picture.width(), picture.height(), base64(&png(picture)?));
        let data = format!("data:image/png;base64,{data}");
        self.body += &format!("<image x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" href=\"{data}\"/>\n");
        Ok(())
    }

    /// Adds a filled rectangle.
    pub fn swatch(&mut self, [x, y]: [usize; 2], [width, height]: [usize; 2], [r, g, b]: [u8; 3]) {
        self.body +=
            &format!("<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"rgb({r},{g},{b})\"/>\n");
    }

    /// Adds a frame with these edges: white on black, so that it is visible on every color.
    pub fn frame(&mut self, [left, top, right, bottom]: [f32; 4]) {
        let (width, height) = (right - left, bottom - top);
        for (color, thick) in [("black", 4), ("white", 2)] {
            self.body += &format!(
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"none\" \
                 stroke=\"{color}\" stroke-width=\"{thick}\"/>\n"
            );
        }
    }

    /// The file.
    pub fn svg(self, [width, height]: [usize; 2]) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// Base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = [0, 1, 2].map(|i| u32::from(chunk.get(i).copied().unwrap_or(0)) << (16 - 8 * i)).iter().sum::<u32>();
        for i in 0..4 {
            let letter = char::from(LETTERS[(bits >> (18 - 6 * i)) as usize & 63]);
            text.push(if i <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_base64() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text, "{bytes:?} (got, expected)");
        }
    }
}
