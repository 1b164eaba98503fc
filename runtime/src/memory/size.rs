//! A size that a user typed. Input: a text such as `6GB`. Output: bytes. The page reads the same sizes (`bytesOf` in
//! web-demo/page/numbers.js).

/// A text that is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No number, or another unit.
    #[error(
        "expected a number of bytes, or a number with kB, MB, GB, TB (or k, M, G, T), KiB, MiB, GiB or TiB, such as \
         6GB or 500MiB"
    )]
    NoSize,
    /// 2^64 bytes or more.
    #[error("it is larger than this program can count: expected less than 2^64 bytes (16777216 TiB)")]
    TooLarge,
}

/// A size in bytes, rounded down: `6GB`, `6G`, `1.5 GiB`, `500000000`, `5e8`. k, M, G and T are powers of 1000, with or
/// without B; KiB, MiB, GiB and TiB are powers of 1024. Units may be in upper or lower case.
///
/// # Errors
/// [`SizeError::NoSize`] for another text, [`SizeError::TooLarge`] for a size that 64 bits do not hold.
pub fn size(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    // Behind the last digit: the e of 5e8 is a part of the number.
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |at| at + 1);
    let (number, unit) = text.split_at(end);
    let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(SizeError::NoSize),
    };
    // Rust's numbers may have a sign.
    if !number.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(SizeError::NoSize);
    }
    // f64 does not hold every number of bytes.
    if let Some(bytes) = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        return Ok(bytes);
    }
    let bytes = number.parse::<f64>().map_err(|_| SizeError::NoSize)? * unit as f64;
    // 2 to the power of 64.
    if bytes < 18_446_744_073_709_551_616.0 { Ok(bytes as u64) } else { Err(SizeError::TooLarge) }
}

#[cfg(test)]
mod tests {
    use super::{SizeError, size};

    #[test]
    fn sizes_have_a_unit_or_are_bytes() {
        for (text, bytes) in [
            ("6GB", 6_000_000_000),
            ("6G", 6_000_000_000),
            ("6g", 6_000_000_000),
            ("6GiB", 6 << 30),
            ("500MB", 500_000_000),
            ("500M", 500_000_000),
            ("500MiB", 500 << 20),
            ("2 k", 2_000),
            ("1T", 1_000_000_000_000),
            ("1.5 gib", 3 << 29),
            (" 4096 ", 4096),
            ("4096B", 4096),
            ("0", 0),
            ("1e9", 1_000_000_000),
            ("1.5E9", 1_500_000_000),
            ("5e-1GB", 500_000_000),
            (".5kB", 500),
            // 2^53 + 1, which f64 does not have.
            ("9007199254740993", 9_007_199_254_740_993),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text} (got, expected)");
        }
    }

    #[test]
    fn another_text_and_a_size_of_more_than_64_bits_are_errors() {
        let texts = ["", "GB", "6X", "6Gi", "-1", "+1", "six", "1e", "e9", "inf", "nan", "1.2.3", "6GB6", ".", "6 G B"];
        for text in texts {
            assert_eq!(size(text), Err(SizeError::NoSize), "{text} (got, expected)");
        }
        for text in ["17179869184GiB", "18446744073709551616", "1e20", "1e999", "99999999999GB"] {
            assert_eq!(size(text), Err(SizeError::TooLarge), "{text} (got, expected)");
        }
        let why = size("1e20").expect_err("too large").to_string();
        assert_eq!(why, "it is larger than this program can count: expected less than 2^64 bytes (16777216 TiB)");
    }
}
