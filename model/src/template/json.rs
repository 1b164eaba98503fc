//! The filter `tojson`, as Hugging Face has it: Python's `json.dumps(x, ensure_ascii=False)`, without HTML's escapes.

use std::fmt::Write;

use minijinja::{
    Error, Value,
    value::{Kwargs, ValueKind},
};

use super::{LONGEST_PROMPT, WIDEST, refuse};

/// Deepest nesting that is written.
const DEEPEST: usize = 64;

/// How values are written.
struct Style {
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sorted: bool,
}

/// `value | tojson(ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn tojson(
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    separators: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let indent = indent.or(named.get::<Option<Value>>("indent")?);
    let separators = separators.or(named.get::<Option<Value>>("separators")?);
    let ascii = ensure_ascii.or(named.get::<Option<bool>>("ensure_ascii")?).unwrap_or(false);
    let sorted = named.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    named.assert_all_used()?;
    let indent = match indent.filter(|indent| !indent.is_none() && !indent.is_undefined()) {
        None => None,
        Some(text) if text.as_str().is_some_and(|text| text.len() <= WIDEST) => text.as_str().map(str::to_owned),
        Some(count) => {
            let count = i64::try_from(count.clone()).ok().filter(|n| *n <= WIDEST as i64);
            let count = count.ok_or_else(|| refuse(format!("tojson: expected an indent of at most {WIDEST}")))?;
            Some(" ".repeat(usize::try_from(count).unwrap_or(0)))
        }
    };
    let pair = separators.filter(|s| !s.is_none() && !s.is_undefined());
    let (item, key) = match pair {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => {
            let pair: Vec<String> = pair.try_iter()?.map(|part| part.to_string()).collect();
            let [item, key] = pair.as_slice() else { return Err(refuse("tojson: expected two separators".into())) };
            (item.clone(), key.clone())
        }
    };
    let mut out = String::new();
    write(&mut out, value, &Style { indent, item, key, ascii, sorted }, 0)?;
    // Not to be escaped: Hugging Face's renderer escapes nothing.
    Ok(Value::from_safe_string(out))
}

fn write(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST || out.len() > LONGEST_PROMPT {
        return Err(refuse(format!("tojson: expected at most {DEEPEST} levels and {LONGEST_PROMPT} bytes, got more")));
    }
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    };
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => string(out, value.as_str().unwrap_or_default(), style.ascii),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut items = 0;
            for item in value.try_iter()? {
                if items > 0 {
                    out.push_str(&style.item);
                }
                line(out, depth + 1);
                write(out, &item, style, depth + 1)?;
                items += 1;
            }
            if items > 0 {
                line(out, depth);
            }
            out.push(']');
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sorted {
                keys.sort_by_key(Value::to_string);
            }
            out.push('{');
            for (i, key) in keys.iter().enumerate() {
                if i > 0 {
                    out.push_str(&style.item);
                }
                line(out, depth + 1);
                match key.kind() {
                    ValueKind::String => string(out, key.as_str().unwrap_or_default(), style.ascii),
                    ValueKind::None => out.push_str("\"null\""),
                    ValueKind::Bool => out.push_str(if key.is_true() { "\"true\"" } else { "\"false\"" }),
                    ValueKind::Number => string(out, &number(key), style.ascii),
                    kind => return Err(refuse(format!("tojson: expected a key of text, got {kind}"))),
                }
                out.push_str(&style.key);
                write(out, &value.get_item(key)?, style, depth + 1)?;
            }
            if !keys.is_empty() {
                line(out, depth);
            }
            out.push('}');
        }
        kind => return Err(refuse(format!("tojson: expected a value that JSON has, got {kind}"))),
    }
    Ok(())
}

/// A number as Python writes it in JSON.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(number) if number.is_nan() => "NaN".to_owned(),
        Ok(number) if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        _ => float(value),
    }
}

/// A number as Python prints it: the shortest text that reads back the same, with an exponent of two digits or more.
pub(super) fn float(value: &Value) -> String {
    let Ok(number) = f64::try_from(value.clone()) else { return value.to_string() };
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => text.replace("NaN", "nan"),
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

fn string(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a text does not fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
