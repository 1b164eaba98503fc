//! Enters: a short text in capitals. Leaves: its letters on a canvas, as smooth strokes of any size.

use super::canvas::{Area, Canvas, Colour, mix};

/// The strokes of a character: lines through points of two digits each, x (0 to 4) and y (0 the top to 6 the foot), with
/// blanks where the pen is lifted. `>` is an arrow, `x` the multiplication sign.
const fn strokes(character: char) -> &'static str {
    match character {
        '0' | 'O' => "103041453616050110",
        '1' => "011016 0626",
        '2' => "01103041420646",
        '3' => "01103041423313 334445361605",
        '4' => "36300444",
        '5' => "400002324345361605",
        '6' => "413010010516364544331304",
        '7' => "004016",
        '8' => "103041423313020110 1304051636454433",
        '9' => "051636454130100102133342",
        'A' => "0602204246 0444",
        'B' => "06003041423303 3344453606",
        'C' => "4130100105163645",
        'D' => "00304145360600",
        'E' => "40000646 0333",
        'F' => "400006 0333",
        'G' => "41301001051636454323",
        'H' => "0006 4046 0343",
        'I' => "0006",
        'J' => "4045361605",
        'K' => "0006 4003 1246",
        'L' => "000646",
        'M' => "0600234046",
        'N' => "06004640",
        'P' => "06003041423303",
        'Q' => "103041453616050110 2446",
        'R' => "06003041423303 2346",
        'S' => "413010010213334445361605",
        'T' => "0040 2026",
        'U' => "000516364540",
        'V' => "002640",
        'W' => "0016233640",
        'X' => "0046 4006",
        'Y' => "002340 2326",
        'Z' => "00400646",
        'x' => "0235 3205",
        '-' => "0333",
        '>' => "0343 214325",
        '%' => "0640 0010110100 3545463635",
        _ => "",
    }
}

/// Stroke segments of a character, from (x, y) to (x, y) in sixths of a capital's height.
fn segments(character: char) -> impl Iterator<Item = [[f32; 2]; 2]> {
    let point = |digits: &[u8; 2]| digits.map(|digit| f32::from(digit.saturating_sub(b'0')));
    strokes(character).split(' ').flat_map(move |line| {
        line.as_bytes().as_chunks::<2>().0.windows(2).map(move |pair| [point(&pair[0]), point(&pair[1])])
    })
}

/// From the start of a character to that of the next, in sixths of a capital's height.
fn advance(character: char) -> f32 {
    let right = segments(character).flatten().map(|[x, _]| x).fold(0.0, f32::max);
    if character == ' ' { 3.0 } else { right + 2.0 }
}

/// Pixels from a point to a segment.
fn distance([x, y]: [f32; 2], [[x0, y0], [x1, y1]]: [[f32; 2]; 2]) -> f32 {
    let (dx, dy) = (x1 - x0, y1 - y0);
    let along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy).max(f32::EPSILON)).clamp(0.0, 1.0);
    (x - x0 - along * dx).hypot(y - y0 - along * dy)
}

/// How wide `text` is with capitals of `size` pixels.
pub fn width(text: &str, size: f32) -> f32 {
    (text.chars().map(advance).sum::<f32>() - 2.0).max(0.0) * size / 6.0
}

/// Writes `text` with capitals of `size` pixels, from (`x`, `y`), their left top corner; returns where it ends.
pub fn write(canvas: &mut Canvas, text: &str, [x, y]: [f32; 2], size: f32, colour: Colour) -> f32 {
    let (unit, reach) = (size / 6.0, size * 0.075);
    let mut pen = x;
    for character in text.chars() {
        let lines: Vec<_> = segments(character).map(|s| s.map(|[a, b]| [pen + a * unit, y + b * unit])).collect();
        let step = advance(character) * unit;
        let area = Area { x: (pen - 2.0) as i32..(pen + step) as i32 + 1, y: (y - 2.0) as i32..(y + size) as i32 + 3 };
        canvas.map(&area, |px, py, under| {
            let centre = [px as f32 + 0.5, py as f32 + 0.5];
            let nearest = lines.iter().map(|&line| distance(centre, line)).fold(f32::INFINITY, f32::min);
            // a pixel is covered as far as the stroke's edge has passed its centre
            mix(under, colour, (reach + 0.5 - nearest).clamp(0.0, 1.0))
        });
        pen += step;
    }
    x + width(text, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capital_and_digit_has_strokes_of_whole_points() {
        for character in ('A'..='Z').chain('0'..='9').chain("x->%".chars()) {
            assert!(segments(character).next().is_some(), "{character}");
            for line in strokes(character).split(' ') {
                assert!(line.len() >= 4 && line.len() % 2 == 0, "{character}: {line}");
            }
        }
    }

    #[test]
    fn widths_add_up() {
        assert_eq!((width("", 6.0), width("I", 6.0), width("IO", 6.0)), (0.0, 0.0, 6.0));
    }
}
