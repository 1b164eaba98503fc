//! Chooses the text model and the mmproj file among GGUF files. Input: their names, and what the user wants. Output: two
//! names. What a file contains is read from its name, as llama.cpp and most repositories write it.

use super::Block;

/// The types of mmproj files, the best one first.
const PREFERRED: [&str; 4] = ["F16", "BF16", "F32", "Q8_0"];
/// The letters before the first digit of a quantisation.
const KINDS: [&str; 8] = ["F", "FP", "BF", "Q", "IQ", "TQ", "MXFP", "NVFP"];

/// Whether a file is in GGUF.
pub fn is_gguf(file: &str) -> bool {
    file.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether a GGUF file has the vision tower and the projector, and not a text model.
pub fn is_mmproj(file: &str) -> bool {
    file.to_ascii_lowercase().contains("mmproj")
}

/// Why a GGUF file can't be read, in a few words. None: it can, or its name does not show it.
pub fn unreadable(file: &str) -> Option<String> {
    let number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if file.contains('/') {
        return Some("in a folder".to_owned());
    }
    if let [.., first, "of", last] = stem(file).split('-').collect::<Vec<_>>()[..]
        && number(first)
        && number(last)
    {
        return Some("one of several parts, which llama-gguf-split --merge can join".to_owned());
    }
    quantisation(file).filter(|found| !Block::reads(found))
}

/// The text model and the mmproj file that `wanted` names among GGUF files: by the name of a file, or by a part of it,
/// such as `Q4_K_M`. `wanted` is for the mmproj file if it contains `mmproj`.
///
/// A file that `wanted` does not name must be the only one. Of several mmproj files it is the one in F16, or else in
/// BF16, F32 or Q8_0.
///
/// # Errors
/// What was expected and what was found.
pub fn choose<'a>(files: &[&'a str], wanted: &[String]) -> Result<[&'a str; 2], String> {
    let one = |mmproj: bool| {
        let what = if mmproj { "mmproj file" } else { "text model" };
        let mut found: Vec<&'a str> = files.iter().copied().filter(|file| is_mmproj(file) == mmproj).collect();
        let named: Vec<&str> = wanted.iter().map(String::as_str).filter(|name| is_mmproj(name) == mmproj).collect();
        let which = match named[..] {
            [] => {
                let kinds = if mmproj { &PREFERRED[..] } else { &[] };
                let best = kinds.iter().map(|kind| of_kind(&found, kind)).find(|files| !files.is_empty());
                found = best.unwrap_or(found);
                what.to_owned()
            }
            [name] => {
                found = matching(&found, name);
                format!("{what} with the name `{name}`")
            }
            _ => return Err(format!("expected at most one name of a {what}, got {}", named.join(", "))),
        };
        match found[..] {
            [only] => Ok(only),
            [] => Err(format!("expected one {which}, got none")),
            _ => Err(format!("expected one {which}, got {}", found.len())),
        }
    };
    Ok([one(false)?, one(true)?])
}

/// The files of a quantisation.
fn of_kind<'a>(files: &[&'a str], kind: &str) -> Vec<&'a str> {
    files.iter().copied().filter(|file| quantisation(file).is_some_and(|found| found == kind)).collect()
}

/// The file of exactly this name; or else the files whose names differ only in upper and lower case; or else the
/// files whose names contain it between separators.
fn matching<'a>(files: &[&'a str], wanted: &str) -> Vec<&'a str> {
    if let Some(exact) = files.iter().copied().find(|file| *file == wanted) {
        return vec![exact];
    }
    let same: Vec<&str> = files.iter().copied().filter(|file| file.eq_ignore_ascii_case(wanted)).collect();
    if !same.is_empty() {
        return same;
    }
    let wanted = stem(wanted).to_ascii_uppercase();
    let within = |file: &&&str| {
        let name = stem(file).to_ascii_uppercase();
        name.match_indices(wanted.as_str()).any(|(at, _)| {
            let before = name[..at].chars().next_back();
            let after = name[at + wanted.len()..].chars().next();
            // Q4_K is not Q4_K_M.
            before.is_none_or(|c| "._-".contains(c)) && after.is_none_or(|c| ".-".contains(c))
        })
    };
    files.iter().filter(within).copied().collect()
}

/// The quantisation in the name of a file, in upper case: `Q4_K_M` of `llava-7b.Q4_K_M.gguf`.
fn quantisation(file: &str) -> Option<String> {
    let name = stem(file).to_ascii_uppercase();
    let is_kind = |text: &&str| {
        let letters = text.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
        letters.len() < text.len()
            && KINDS.contains(&letters)
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let ends = name.rmatch_indices(['.', '_', '-']).map(|(at, _)| &name[at + 1..]);
    let found = ends.chain([name.as_str()]).find(is_kind)?;
    Some(found.strip_prefix("FP").map_or_else(|| found.to_owned(), |bits| format!("F{bits}")))
}

/// The name without the ending.
fn stem(file: &str) -> &str {
    if is_gguf(file) { &file[..file.len() - ".gguf".len()] } else { file }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [&str; 7] = [
        "llava-v1.6-mistral-7b.Q4_K.gguf",
        "llava-v1.6-mistral-7b.Q4_K_M.gguf",
        "llava-v1.6-mistral-7b-IQ4_XS.gguf",
        "llava-v1.6-mistral-7b_Q8_0.gguf",
        "mmproj-BF16.gguf",
        "mmproj-model-f16.gguf",
        "mmproj-model-f32.gguf",
    ];

    #[test]
    fn names_choose_files() {
        let choose = |files: &[&'static str], wanted: &[&str]| {
            choose(files, &wanted.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        for (wanted, expected) in [
            (vec!["Q4_K"], Ok([0, 5])),
            (vec!["q4_k_m"], Ok([1, 5])),
            (vec!["IQ4_XS", "mmproj-model-f32"], Ok([2, 6])),
            (vec!["mmproj-bf16.gguf", FILES[3]], Ok([3, 4])),
            (vec!["Q8_0"], Ok([3, 5])),
            (vec![], Err("expected one text model, got 4")),
            (vec!["7b"], Err("expected one text model with the name `7b`, got 3")),
            (vec!["Q4"], Err("expected one text model with the name `Q4`, got none")),
            (vec![""], Err("expected one text model with the name ``, got none")),
            (vec!["Q8_0", "mmproj-model"], Err("expected one mmproj file with the name `mmproj-model`, got 2")),
            (vec!["Q4_K", "f16"], Err("expected at most one name of a text model, got Q4_K, f16")),
        ] {
            let expected = expected.map(|two| two.map(|i| FILES[i])).map_err(str::to_owned);
            assert_eq!(choose(&FILES, &wanted), expected, "{wanted:?} (got, expected)");
        }
        assert_eq!(choose(&["a.gguf", "mmproj.gguf"], &[]), Ok(["a.gguf", "mmproj.gguf"]));
        // Letters of upper and lower case, with and without the ending.
        let cases = ["Model-Q8_0.GGUF", "model-q8_0.gguf", "x-MMPROJ-f16.Gguf"];
        for (wanted, expected) in [
            (vec!["model-q8_0.gguf"], Ok([cases[1], cases[2]])),
            (vec!["Model-Q8_0.GGUF", "mmproj-F16.gguf"], Ok([cases[0], cases[2]])),
            (vec!["MODEL-Q8_0.gguf"], Err("expected one text model with the name `MODEL-Q8_0.gguf`, got 2".to_owned())),
        ] {
            assert_eq!(choose(&cases, &wanted), expected, "{wanted:?} (got, expected)");
        }
        assert_eq!(choose(&["a.gguf"], &[]), Err("expected one mmproj file, got none".to_owned()));
    }

    #[test]
    fn names_show_what_cannot_be_read() {
        for name in
            ["Q4_K_M", "a.q6_k", "a-Q6_K_L", "a_Q4_0", "a-fp16", "mmproj-BF16", "Qwen2-0.5b", "model", "a-7b-of"]
        {
            assert_eq!(unreadable(&format!("{name}.gguf")), None, "{name}");
        }
        for (name, expected) in [
            ("a.Q2_K", "Q2_K"),
            ("a-Q3_K_M", "Q3_K_M"),
            ("a-i1-IQ2_M", "IQ2_M"),
            ("a-Q4_0_4_4", "Q4_0_4_4"),
            ("a-MXFP4_MOE", "MXFP4_MOE"),
            ("Q8_0/a-Q8_0", "in a folder"),
            ("a-Q8_0-00001-of-00002", "one of several parts, which llama-gguf-split --merge can join"),
        ] {
            assert_eq!(unreadable(&format!("{name}.gguf")).as_deref(), Some(expected), "{name}");
        }
    }
}
