//! A picture within a request. Input: a data URL. Output: the bytes of the picture's file.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{error::RequestError, keys::quoted};

/// The bytes of `data:TYPE;base64,DATA`; None for a text that is not a data URL. The type is not read: the bytes decide.
///
/// It allocates three quarters of the length of `text`, which the caller bounds.
///
/// # Errors
/// `request` for a data URL that is not base64.
pub fn data_url(text: &str) -> Option<Result<Vec<u8>, RequestError>> {
    let start = text.get(.."data:".len())?;
    start.eq_ignore_ascii_case("data:").then(|| decoded(text))
}

fn decoded(text: &str) -> Result<Vec<u8>, RequestError> {
    let refused = |message: String| RequestError::new("request", Some("image_url"), message);
    let is_base64 = |(head, _): &(&str, &str)| head.to_ascii_lowercase().ends_with(";base64");
    let Some((_, data)) = text.split_once(',').filter(is_base64) else {
        return Err(refused(format!("expected a data URL `data:TYPE;base64,DATA`, got {}", quoted(text))));
    };
    STANDARD.decode(data).map_err(|why| refused(format!("expected base64 in the data URL, got: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded_and_the_rest_is_refused() {
        for (text, expected) in [
            ("data:image/png;base64,QUJD", "ABC"),
            ("DATA:;BASE64,QUJD", "ABC"),
            ("data:image/svg+xml;charset=utf-8;base64,", ""),
        ] {
            assert_eq!(data_url(text), Some(Ok(expected.as_bytes().to_vec())), "{text} (got, expected)");
        }
        for (text, word) in [
            ("data:", "data:TYPE;base64,DATA"),
            ("data:image/png,abc", "data:TYPE;base64,DATA"),
            ("data:image/png;base64", "data:TYPE;base64,DATA"),
            ("data:image/png;base64,Q*JD", "expected base64"),
            ("data:image/png;base64,QUJ", "expected base64"),
        ] {
            let Some(Err(why)) = data_url(text) else { panic!("{text}: expected an error") };
            assert!(why.code == "request" && why.message.contains(word), "{text}: expected {word:?}, got {why:?}");
        }
        for text in ["", "data", "d\u{e4}ta:", "a.png", "https://example.org/data:"] {
            assert_eq!(data_url(text), None, "{text} (got, expected)");
        }
    }
}
