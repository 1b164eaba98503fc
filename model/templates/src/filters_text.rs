//! Filters from text to text.

use std::rc::Rc;

use super::{
    arguments::{Arguments, bind, whole},
    fail::{Res, fail},
    format::percent,
    print::{repr, text},
    run::Run,
    sequence::{collect, length},
    strings::{justify, replace, strip},
    text::{capitalize, is_letter, is_space, lines},
    value::Value,
};

/// `value|name(args)`.
pub(super) fn apply(run: &Run, name: &str, value: &Value, args: Arguments) -> Res<Value> {
    let budget = &run.budget;
    match name {
        "upper" | "lower" | "capitalize" | "title" | "wordcount" => {
            let [] = bind(name, [], 0, args)?;
            let text = soft(run, name, value)?;
            budget.work(4 * text.len())?;
            Ok(match name {
                "upper" => Value::str(text.to_uppercase()),
                "lower" => Value::str(text.to_lowercase()),
                "capitalize" => Value::str(capitalize(&text)),
                "title" => Value::str(title(&text)),
                _ => {
                    let mut words = text.split(|c: char| c != '_' && !is_letter(c) && !c.is_numeric());
                    Value::int(words.by_ref().filter(|word| !word.is_empty()).count())
                }
            })
        }
        "trim" => {
            let [chars] = bind(name, ["chars"], 0, args)?;
            Ok(Value::str(strip(&soft(run, name, value)?, name, chars.as_ref())?))
        }
        "center" => {
            let [width] = bind(name, ["width"], 0, args)?;
            justify(run, &soft(run, name, value)?, name, whole(name, width, 80)?, ' ')
        }
        "replace" => {
            let [old, new, count] = bind(name, ["old", "new", "count"], 2, args)?;
            let count = whole(name, count.filter(|count| !matches!(count, Value::None)), -1)?;
            let old = text(&old.unwrap_or(Value::None), budget)?;
            let new = text(&new.unwrap_or(Value::None), budget)?;
            replace(run, &text(value, budget)?, &old, &new, count)
        }
        "format" => {
            let template = soft(run, name, value)?;
            if !args.positional.is_empty() && !args.named.is_empty() {
                return fail("format: arguments with and without a name");
            }
            let values = if args.named.is_empty() {
                Value::tuple(args.positional, budget)?
            } else {
                let pairs = args.named.into_iter().map(|(name, value)| (Value::str(name), value)).collect();
                Value::dict(pairs, budget)?
            };
            percent(run, &template, &values)
        }
        "safe" => {
            let [] = bind(name, [], 0, args)?;
            Ok(Value::Markup(text(value, budget)?))
        }
        "e" | "escape" | "forceescape" => {
            let [] = bind(name, [], 0, args)?;
            match value {
                Value::Markup(_) if name != "forceescape" => Ok(value.clone()),
                _ => Ok(Value::Markup(escape(run, &text(value, budget)?)?.into())),
            }
        }
        "indent" => indent(run, value, args),
        "truncate" => truncate(run, value, args),
        "wordwrap" => wrap(run, value, args),
        "urlencode" => {
            let [] = bind(name, [], 0, args)?;
            urlencode(run, value)
        }
        _ => attributes(run, value, args),
    }
}

/// The value's text. An error for escaped text: in Python it keeps its mark, which affects later operations.
fn soft(run: &Run, what: &str, value: &Value) -> Res<Rc<str>> {
    if let Value::Markup(_) = value {
        return fail(format!("{what}: escaped text, which is not supported"));
    }
    text(value, &run.budget)
}

/// Capital letters after white space, a dash or an opening bracket. This differs from `str.title`.
fn title(text: &str) -> String {
    let splits = |c: char| is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_split = splits(first);
        let end = rest.find(|c| splits(c) != is_split).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.extend(first.to_uppercase());
        out += &word[first.len_utf8()..].to_lowercase();
        rest = after;
    }
    out
}

fn escape(run: &Run, text: &str) -> Res<String> {
    run.budget.work(6 * text.len())?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '>' => out += "&gt;",
            '<' => out += "&lt;",
            '\'' => out += "&#39;",
            '"' => out += "&#34;",
            _ => out.push(c),
        }
    }
    Ok(out)
}

fn indent(run: &Run, value: &Value, args: Arguments) -> Res<Value> {
    let [width, first, blank] = bind("indent", ["width", "first", "blank"], 0, args)?;
    let Value::Str(text) = value else {
        return fail(format!("indent: expected a text, got {}", value.kind()));
    };
    let columns = match width {
        Some(Value::Str(text)) => text.to_string(),
        width => {
            let width = usize::try_from(whole("indent", width, 4)?).unwrap_or(0);
            run.budget.work(width)?;
            " ".repeat(width)
        }
    };
    let blank = blank.is_some_and(|blank| blank.truth());
    run.budget.work(2 * text.len())?;
    let with_end = format!("{text}\n");
    let mut out = String::new();
    for (i, line) in lines(&with_end, false).into_iter().enumerate() {
        run.budget.work(columns.len() + line.len() + 1)?;
        if i > 0 {
            out.push('\n');
        }
        let indented = if i == 0 { first.as_ref().is_some_and(Value::truth) } else { blank || !line.is_empty() };
        if indented {
            out += &columns;
        }
        out += line;
    }
    Ok(Value::str(out))
}

fn truncate(run: &Run, value: &Value, args: Arguments) -> Res<Value> {
    let names = ["length", "killwords", "end", "leeway"];
    let [longest, kill, end, leeway] = bind("truncate", names, 0, args)?;
    let longest = whole("truncate", longest, 255)?;
    let leeway = whole("truncate", leeway.filter(|leeway| !matches!(leeway, Value::None)), 5)?;
    let end = end.map_or_else(|| Ok("...".into()), |end| soft(run, "truncate", &end))?;
    let size = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let end_len = size(end.chars().count());
    if longest < end_len || leeway < 0 {
        return fail("truncate: expected a length of at least the end's, and a leeway of at least 0");
    }
    if size(length(value, &run.budget)?) <= longest.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let Value::Str(text) = value else {
        return fail(format!("truncate: expected a text, got {}", value.kind()));
    };
    let keep = usize::try_from(longest - end_len).unwrap_or(0);
    let kept = &text[..text.char_indices().nth(keep).map_or(text.len(), |(at, _)| at)];
    let kept = match kept.rsplit_once(' ') {
        Some((before, _)) if !kill.is_some_and(|kill| kill.truth()) => before,
        _ => kept,
    };
    Ok(Value::str(format!("{kept}{end}")))
}

/// Supports only lines that need no wrapping.
fn wrap(run: &Run, value: &Value, args: Arguments) -> Res<Value> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, _, newline, _] = bind("wordwrap", names, 0, args)?;
    let width = usize::try_from(whole("wordwrap", width, 79)?).unwrap_or(0);
    let newline = match newline {
        None | Some(Value::None) => "\n".into(),
        Some(newline) => soft(run, "wordwrap", &newline)?,
    };
    let Value::Str(text) = value else {
        return fail(format!("wordwrap: expected a text, got {}", value.kind()));
    };
    run.budget.work(2 * text.len())?;
    let mut out = String::new();
    for (i, line) in lines(text, false).into_iter().enumerate() {
        if line.chars().any(|c| is_space(c) && !c.is_ascii_whitespace()) {
            return fail("wordwrap: white space beyond ASCII, which is not supported");
        }
        if line.chars().count() > width {
            return fail(format!("wordwrap: a line of more than {width} characters, which is not supported"));
        }
        run.budget.work(newline.len())?;
        if i > 0 {
            out += &newline;
        }
        out += line.trim_end_matches(['\t', '\n', '\x0b', '\x0c', '\r', ' ']);
    }
    Ok(Value::str(out))
}

/// Quotes a text for a URL; in a query also slashes.
fn quote(run: &Run, value: &Value, query: bool) -> Res<String> {
    let text = text(value, &run.budget)?;
    run.budget.work(3 * text.len())?;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    Ok(out)
}

fn urlencode(run: &Run, value: &Value) -> Res<Value> {
    let pairs = match value {
        Value::Dict(dict) => dict.pairs.iter().map(|(key, value)| Value::pair(key.clone(), value.clone())).collect(),
        Value::List(_) | Value::Tuple(_) | Value::View(..) | Value::Generator(_) | Value::Range(_) => {
            collect(value, &run.budget)?
        }
        _ => return Ok(Value::str(quote(run, value, false)?)),
    };
    let mut out = String::new();
    for (i, pair) in pairs.iter().enumerate() {
        let pair = collect(pair, &run.budget)?;
        let [key, value] = pair.as_slice() else { return fail("urlencode: expected pairs") };
        out += if i > 0 { "&" } else { "" };
        out += &format!("{}={}", quote(run, key, true)?, quote(run, value, true)?);
    }
    Ok(Value::str(out))
}

/// `xmlattr`.
fn attributes(run: &Run, value: &Value, args: Arguments) -> Res<Value> {
    let [space] = bind("xmlattr", ["autospace"], 0, args)?;
    let Value::Dict(dict) = value else {
        return fail(format!("xmlattr: expected a dictionary, got {}", value.kind()));
    };
    let mut parts = Vec::new();
    for (key, value) in &dict.pairs {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let Some(name) =
            key.text().filter(|name| !name.contains([' ', '\t', '\n', '\r', '\x0b', '\x0c', '/', '>', '=']))
        else {
            return fail(format!("xmlattr: the name {}", repr(key, &run.budget)?));
        };
        let value = if let Value::Markup(s) = value { s.to_string() } else { escape(run, &text(value, &run.budget)?)? };
        parts.push(format!("{}=\"{value}\"", escape(run, name)?));
    }
    let space = if parts.is_empty() || space.is_some_and(|space| !space.truth()) { "" } else { " " };
    Ok(Value::str(format!("{space}{}", parts.join(" "))))
}
