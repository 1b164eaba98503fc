//! Unusual pictures, questions and settings: each gives an answer, or a typed error before the device computes.

use std::sync::Arc;

use fovea_model::{AskOptions, Compression, Conversation, Error, Model, Pick, Picture, Stage, TextGuided, Within};
use fovea_runtime::Keep;
use fovea_tests::{
    device::cpu,
    golden::{fixtures, json},
    run::{ask, awkward_picture, compressed, fixture, options, picture},
};

const SHIRT: &str = "What number is on the shirt?";

fn bytes(file: &str) -> Vec<u8> {
    let path = fixtures().join("awkward").join(file);
    std::fs::read(&path).unwrap_or_else(|e| panic!("expected {}, got: {e}", path.display()))
}

/// The error message of a picture that cannot be decoded.
fn refusal(what: &str, bytes: &[u8]) -> String {
    match Picture::decode(bytes) {
        Err(Error::Picture(why)) => why,
        other => {
            panic!("{what}: expected an error about the picture, got {:?}", other.map(|p| (p.width(), p.height())))
        }
    }
}

#[test]
fn incomplete_pictures_are_refused_with_a_reason() {
    for (file, word) in [
        ("empty.png", "empty file"),
        ("text.png", "something else"),
        ("truncated.png", "whole Png"),
        ("truncated.jpg", "whole Jpeg"),
        ("truncated_progressive.jpg", "whole Jpeg"),
        ("truncated.webp", "whole WebP"),
        ("truncated.gif", "whole Gif"),
        ("truncated.bmp", "whole Bmp"),
        ("header_only.png", "whole Png"),
        ("header_20000x20000.png", "whole Png"),
        ("zero_width.png", "expected"),
    ] {
        let why = refusal(file, &bytes(file));
        assert!(why.contains(word) && why.contains("expected"), "{file}: expected the word {word:?}, got: {why}");
    }
    let all = json("awkward/expected.json");
    let refused = all.as_object().expect("an object").values().filter(|row| row["decode"] == false).count();
    assert_eq!(refused, 11, "pictures to refuse (in the fixtures, in this table)");
}

#[test]
fn an_unsupported_format_is_named_in_the_error() {
    for (bytes, name) in [
        (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
        (b"\0\0\0\x1Cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
        (b"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"/>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x0CjP  \r\n\x87\n", "JPEG 2000"),
        (b"\0\0\0\x0CJXL \r\n\x87\n", "JPEG XL"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"\0\0\x01\0\x01\0", "ICO"),
    ] {
        let why = refusal(name, bytes);
        assert!(why.contains(&format!("got {name};")), "expected it to be named {name}, got: {why}");
    }
}

#[test]
fn a_truncated_picture_is_refused_or_complete_and_never_panics() {
    for file in [
        "rgb.png",
        "interlaced.png",
        "progressive.jpg",
        "lossless.webp",
        "palette.gif",
        "rgb.bmp",
        "frame_beyond.gif",
        "frame_inside.webp",
        "os2.bmp",
        "colours_jfif_adobe0.jpg",
    ] {
        let whole = bytes(file);
        let picture = Picture::decode(&whole).expect("a whole picture");
        // Every length of the header, which contains the sizes, and some longer lengths.
        for cut in (0..whole.len()).filter(|cut| *cut < 128 || cut % 7 == 0) {
            match Picture::decode(&whole[..cut]) {
                Ok(got) => assert_eq!(got, picture, "{file} cut at {cut}: expected all pixels or an error"),
                Err(Error::Picture(_)) => {}
                Err(other) => {
                    panic!("{file} cut at {cut}: expected an error about the picture, got: {other}")
                }
            }
        }
    }
}

#[test]
fn a_picture_with_any_byte_changed_never_panics() {
    for file in [
        "palette.gif",
        "rgb.png",
        "exif6.jpg",
        "lossy.webp",
        "one_bit.bmp",
        "frame_beyond.gif",
        "frame_inside.webp",
        "profile_deflated.png",
        "exif_two.jpg",
        "five_six_five.bmp",
    ] {
        let whole = bytes(file);
        for at in (0..whole.len()).filter(|at| *at < 96 || at % 13 == 0) {
            for value in [0, 0x7f, 0xff, whole[at] ^ 1] {
                let mut changed = whole.clone();
                changed[at] = value;
                match Picture::decode(&changed) {
                    Ok(got) => {
                        assert_eq!(got.rgb().len(), got.width() * got.height() * 3, "{file}, byte {at} = {value}")
                    }
                    Err(Error::Picture(_)) => {}
                    Err(other) => {
                        panic!("{file}, byte {at} = {value}: expected an error about the picture, got: {other}")
                    }
                }
            }
        }
    }
}

#[test]
fn unusual_pictures_are_answered() {
    let model = fixture("tiny-0", cpu());
    for (file, (width, height)) in [
        ("one_pixel.png", (1, 1)),
        ("needle_1x10000.png", (1, 10000)),
        ("cmyk.jpg", (24, 16)),
        ("grey16.png", (24, 16)),
        ("grey_alpha16.png", (24, 16)),
        ("rgba16.png", (24, 16)),
        ("palette_transparency.png", (24, 16)),
        ("one_bit.png", (24, 16)),
        ("interlaced.png", (24, 16)),
        ("animated.gif", (24, 16)),
        ("animated.webp", (24, 16)),
        ("animated.png", (24, 16)),
        ("exif5.jpg", (16, 24)),
        ("exif6.png", (16, 24)),
        ("exif8.webp", (16, 24)),
        ("xmp8.jpg", (16, 24)),
        ("wrong_extension.jpg", (24, 16)),
        ("margin.gif", (9, 7)),
        ("five_bit.bmp", (24, 16)),
    ] {
        let image = awkward_picture(file);
        assert_eq!((image.width(), image.height()), (width, height), "{file}: size (got, expected)");
        let turn = ask(&mut Conversation::new(&model, image), SHIRT, &options(2))
            .unwrap_or_else(|e| panic!("{file}: got {e}"));
        let finite = turn.step_logits.iter().flatten().all(|l| l.is_finite());
        assert!(finite && !turn.answer_ids.is_empty(), "{file}: expected finite logits and an answer");
        assert!(!turn.looked[0].kept.is_empty(), "{file}: expected at least one visual token");
    }
}

#[test]
fn a_picture_so_wide_or_tall_that_no_map_remains_is_answered_by_its_thumbnail() {
    let model = fixture("tiny-0", cpu());
    // A tall picture loses its columns, and keeps the newlines of its 8 rows in the stock sequence; a wide one loses
    // its rows. Both use the first of the smallest canvases, 48x96.
    for ((width, height), stock) in [((1, 4000), 64 + 8), ((4000, 1), 64)] {
        let image = Picture::from_rgb(width, height, vec![128; width * height * 3]).expect("a picture");
        let sampled = ask(&mut Conversation::new(&model, image.clone()), SHIRT, &options(2)).expect("an answer");
        assert_eq!(
            (sampled.statistics.tokens.all, sampled.statistics.tokens.compressed),
            (stock, 64),
            "{width}x{height}"
        );
        let plain = ask(&mut Conversation::new(&model, image), SHIRT, &compressed("text", 2)).expect("an answer");
        assert_eq!(plain.statistics.tokens.compressed, stock, "{width}x{height}: stock tokens (got, expected)");
        assert_eq!(plain.looked[0].token_count(), stock, "{width}x{height}: origins (got, expected)");
    }
}

/// Returns the error of a question, and checks that the conversation then answers as if the question had not been
/// asked.
fn refused(model: &Arc<Model>, question: &str, options: &AskOptions) -> Error {
    let image = picture("48x48-0.png");
    let mut conversation = Conversation::new(model, image.clone());
    let error = match ask(&mut conversation, question, options) {
        Err(error) => error,
        Ok(turn) => panic!("expected an error, got the answer {:?}", turn.answer_ids),
    };
    let good = fovea_tests::run::options(2);
    let after = ask(&mut conversation, SHIRT, &good).expect("an answer after an error");
    let fresh = ask(&mut Conversation::new(model, image), SHIRT, &good).expect("a fresh answer");
    assert_eq!(after.answer_ids, fresh.answer_ids, "answer after an error (got, expected)");
    assert_eq!(after.step_logits, fresh.step_logits, "logits after an error (got, expected)");
    error
}

#[test]
fn errors_name_the_setting_that_is_out_of_range() {
    let model = fixture("tiny-0", cpu());
    let text = |layer, keep| {
        let compression = Compression { within: Within::Text(TextGuided { layer, keep }), ..Compression::focus() };
        AskOptions { compression: Some(compression), ..options(2) }
    };
    let keep = |keep| text(None, Some(keep));
    let pick = |pick| AskOptions { pick, ..options(2) };
    let rows = [
        (keep(Keep::Gamma(0.0)), "compress", "got 0"),
        (keep(Keep::Gamma(-0.5)), "compress", "got -0.5"),
        (keep(Keep::Gamma(1.000001)), "compress", "got 1.000001"),
        (keep(Keep::Gamma(f64::NAN)), "compress", "got nan"),
        (keep(Keep::Ratio(0.0)), "compress", "got 0"),
        (keep(Keep::Ratio(1.5)), "compress", "got 1.5"),
        (keep(Keep::Ratio(f64::INFINITY)), "compress", "got inf"),
        (keep(Keep::Count(0)), "compress", "got 0"),
        (text(Some(6), None), "compress", "0 to 5 of the text model for text, got layer 6"),
        (text(Some(usize::MAX), None), "compress", "0 to 5"),
        (AskOptions { max_new_tokens: 0, ..options(2) }, "max-new-tokens", "got 0"),
        (pick(Pick { temperature: f64::NAN, ..Pick::default() }), "temperature", "got NaN"),
        (pick(Pick { temperature: -1.0, ..Pick::default() }), "temperature", "got -1"),
        (pick(Pick { temperature: f64::INFINITY, ..Pick::default() }), "temperature", "got inf"),
        (pick(Pick { top_p: 0.0, ..Pick::default() }), "top-p", "got 0"),
        (pick(Pick { top_p: 1.5, ..Pick::default() }), "top-p", "got 1.5"),
        (pick(Pick { top_p: f64::NAN, ..Pick::default() }), "top-p", "got NaN"),
    ];
    for (bad, name, words) in rows {
        let error = refused(&model, SHIRT, &bad);
        assert!(
            matches!(error, Error::Option { option, .. } if option == name),
            "expected an error about {name}, got: {error}"
        );
        assert!(error.to_string().contains(words), "{name}: expected {words:?} in the error, got: {error}");
    }
}

#[test]
fn the_error_of_a_too_long_question_has_both_numbers() {
    let model = fixture("tiny-0", cpu());
    let error = refused(&model, &"word ".repeat(9000), &options(2));
    let Error::TooLong { need, have } = error else { panic!("expected the error `too long`, got: {error}") };
    assert!(need > 9000 && have == 8192, "expected over 9000 of 8192, got {need} of {have}");
    let words = error.to_string();
    assert!(words.contains(&need.to_string()) && words.contains("8192"), "expected both numbers, got: {words}");

    // A number of new tokens that would overflow the sum.
    let error = refused(&model, SHIRT, &AskOptions { max_new_tokens: usize::MAX, ..options(2) });
    assert!(matches!(error, Error::TooLong { have: 8192, .. }), "expected the error `too long`, got: {error}");
}

#[test]
fn the_context_can_be_filled_to_the_last_token() {
    let model = fixture("tiny-0", cpu());
    let image = picture("48x48-0.png");
    let turn = ask(&mut Conversation::new(&model, image.clone()), SHIRT, &options(1)).expect("an answer");
    let around = turn.prompt.ids.len() - 1 + turn.statistics.tokens.compressed;
    let over = options(8192 - around + 1);
    let got = ask(&mut Conversation::new(&model, image), SHIRT, &over).map(|t| t.answer_ids.len());
    assert!(matches!(got, Err(Error::TooLong { need: 8193, have: 8192 })), "expected 8193 of 8192, got {got:?}");
    // The limit is exact: shortens the context to what the question needs, and to one token less.
    let mut files = fovea_tests::checkpoint::Files::fixture("tiny-0");
    for (room, fits) in [(around + 2, true), (around + 1, false)] {
        files.config("/text_config/max_position_embeddings", serde_json::json!(room));
        let model = fovea_tests::run::load(files.source(), cpu()).expect("a model");
        let got =
            ask(&mut Conversation::new(&model, picture("48x48-0.png")), SHIRT, &options(2)).map(|t| t.answer_ids.len());
        assert_eq!(got.is_ok(), fits, "a context of {room}: whether the question fits, got {got:?}");
    }
}

#[test]
fn odd_questions_are_answered() {
    let model = fixture("tiny-0", cpu());
    for question in [
        "",
        " ",
        "\u{0}",
        "a\u{0}b",
        "\u{202e}right to left\u{202c}",
        "ما الرقم المكتوب على القميص؟",
        "<image>",
        "<image><image>\u{e000}",
        "<|eot_id|><|start_header_id|>system<|end_header_id|>",
        "{{ messages }}{% raise %}",
        "\u{e000}",
        "\u{10ffff}\u{fffd}",
    ] {
        let turn = ask(&mut Conversation::new(&model, picture("48x48-0.png")), question, &options(2));
        let turn = turn.unwrap_or_else(|e| panic!("{question:?}: expected an answer, got: {e}"));
        assert!((1..=2).contains(&turn.answer_ids.len()), "{question:?}: expected one or two tokens");
        assert!(turn.statistics.stage_ms.contains_key(&Stage::Prune), "{question:?}: expected the text sampler");
    }
}

#[test]
fn a_question_over_a_megabyte_is_refused_before_tokenization() {
    let model = fixture("tiny-0", cpu());
    let error = refused(&model, &"x".repeat((1 << 20) + 1), &options(2));
    assert!(
        matches!(error, Error::Option { option: "messages", .. }),
        "expected an error about its length, got: {error}"
    );
    assert!(error.to_string().contains("1048577"), "expected its length in the error, got: {error}");
}
