//! Python's character classes and case conversions.

/// Python's white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Whether `c` ends a line for `splitlines`.
fn ends_line(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Lines as `splitlines` splits them, with line ends if `ends` is set.
pub(super) fn lines(text: &str, ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !ends_line(c) {
            continue;
        }
        let mut next = at + c.len_utf8();
        if c == '\r' && chars.next_if(|(_, c)| *c == '\n').is_some() {
            next += 1;
        }
        lines.push(&text[start..if ends { next } else { at }]);
        start = next;
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}

/// The title case of a letter, if it differs from its upper case.
fn title_letter(c: char, out: &mut String) {
    match c {
        'Ǆ'..='ǆ' => out.push('ǅ'),
        'Ǉ'..='ǉ' => out.push('ǈ'),
        'Ǌ'..='ǌ' => out.push('ǋ'),
        'Ǳ'..='ǳ' => out.push('ǲ'),
        'ŉ' => *out += "ʼN",
        // Georgian uses capitals only for whole words.
        'ა'..='ჺ' | 'ჽ'..='ჿ' => out.push(c),
        // Greek letters with iota subscript.
        '\u{1f80}'..='\u{1faf}' => out.extend(char::from_u32(c as u32 | 8)),
        'ᾳ' | 'ᾼ' => out.push('ᾼ'),
        'ῃ' | 'ῌ' => out.push('ῌ'),
        'ῳ' | 'ῼ' => out.push('ῼ'),
        _ => {
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            for more in upper {
                match more {
                    'Ι' if ('\u{1fb0}'..='\u{1fff}').contains(&c) => out.push('\u{345}'),
                    _ => out.extend(more.to_lowercase()),
                }
            }
        }
    }
}

/// `str.capitalize`.
pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::with_capacity(text.len());
    if let Some(first) = chars.next() {
        title_letter(first, &mut out);
        // Lower-cases the whole text, since the form of a sigma depends on the letters around it.
        let lower = text.to_lowercase();
        out += lower.get(first.to_lowercase().map(char::len_utf8).sum()..).unwrap_or_default();
    }
    out
}

/// Whether `c` has a case.
fn cased(c: char) -> bool {
    c.is_lowercase()
        || c.is_uppercase()
        || matches!(c, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ' | '\u{1f88}'..='\u{1faf}' | 'ᾼ' | 'ῌ' | 'ῼ')
}

/// `str.title`.
pub(super) fn title(text: &str) -> String {
    let lower = |word: &str, out: &mut String| *out += &word.to_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    let mut inside = false;
    for c in text.chars() {
        if cased(c) && inside {
            word.push(c);
            continue;
        }
        lower(&word, &mut out);
        word.clear();
        inside = cased(c);
        if inside { title_letter(c, &mut out) } else { out.push(c) }
    }
    lower(&word, &mut out);
    out
}

/// `str.swapcase`.
pub(super) fn swapcase(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else if c.is_lowercase() {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// `str.casefold`.
pub(super) fn casefold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'ı' => out.push(c),
            // Cherokee folds to upper case.
            '\u{13a0}'..='\u{13f5}' => out.push(c),
            '\u{13f8}'..='\u{13fd}' | '\u{ab70}'..='\u{abbf}' => out.extend(c.to_uppercase()),
            _ => out.extend(c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase)),
        }
    }
    out
}

/// `str.islower` and `str.isupper`: at least one letter has this case, and no letter the other.
pub(super) fn all_case(text: &str, upper: bool) -> bool {
    let mut some = false;
    for c in text.chars().filter(|c| cased(*c)) {
        if !(if upper { c.is_uppercase() } else { c.is_lowercase() }) {
            return false;
        }
        some = true;
    }
    some
}

/// `str.istitle`.
pub(super) fn is_title(text: &str) -> bool {
    let (mut some, mut inside) = (false, false);
    for c in text.chars() {
        if c.is_lowercase() && !inside || cased(c) && !c.is_lowercase() && inside {
            return false;
        }
        inside = cased(c);
        some |= inside;
    }
    some
}

/// Whether Python's `repr` prints the non-ASCII character `c` unchanged.
pub(super) fn printable(c: char) -> bool {
    // After another character, Rust's debug format escapes the same characters as Python.
    ['a', c].iter().collect::<String>().escape_debug().nth(1) != Some('\\')
}

/// Whether `c` is a letter for Python. Combining characters are not letters, as far as Rust knows them.
pub(super) fn is_letter(c: char) -> bool {
    let circled = matches!(c, 'Ⓐ'..='ⓩ' | '\u{1f130}'..='\u{1f189}');
    c.is_alphabetic() && (c.is_ascii() || !c.is_numeric() && !circled && c.escape_debug().len() == 1)
}
