//! Python's methods of strings and lists, where minijinja's own set lacks them or takes fewer arguments.

use minijinja::{
    Error, State, Value,
    value::{Kwargs, Rest, ValueKind, from_args},
};
use minijinja_contrib::pycompat;

use super::refuse;

/// Widest text that a method fills up.
const WIDEST: usize = 4096;

/// Calls a method that the value itself does not have.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let done = match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => of_string(text, method, args),
        (ValueKind::Seq, _) => of_list(value, method, args),
        _ => None,
    };
    done.unwrap_or_else(|| {
        if method == "format" {
            bounded(value.as_str().unwrap_or_default())?;
        }
        pycompat::unknown_method_callback(state, value, method, args)
    })
}

/// Refuses a format that asks for a wide field: fuel does not bound what it would take.
pub(super) fn bounded(format: &str) -> Result<(), Error> {
    let wide = format.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 3);
    // A star takes its width from an argument.
    if wide || format.contains('*') {
        return Err(refuse("format: expected fields of at most 999 characters".into()));
    }
    Ok(())
}

/// A method of a list; None where it is not one of these.
fn of_list(list: &Value, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match method {
        "copy" => from_args::<()>(args).and_then(|()| Ok(Value::from_iter(list.try_iter()?))),
        "index" => from_args::<(Value,)>(args).and_then(|(item,)| {
            let at = list.try_iter()?.position(|other| other == item);
            at.map(Value::from).ok_or_else(|| refuse(format!("index: expected {item} in the list, got none")))
        }),
        _ => return None,
    })
}

/// A method of a string; None where it is not one of these.
fn of_string(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let none = || from_args::<()>(args);
    let one = || from_args::<(&str,)>(args).map(|(other,)| other);
    Some(match method {
        "removeprefix" => one().map(|prefix| text.strip_prefix(prefix).unwrap_or(text).into()),
        "removesuffix" => one().map(|suffix| text.strip_suffix(suffix).unwrap_or(text).into()),
        "strip" | "lstrip" | "rstrip" => strip(text, method, args),
        "casefold" => none().map(|()| text.to_lowercase().replace('ß', "ss").into()),
        "swapcase" => none().map(|()| swapped(text).into()),
        "title" => none().map(|()| titled(text).into()),
        "istitle" => none().map(|()| (text.chars().any(char::is_alphabetic) && titled(text) == text).into()),
        "isdecimal" => none().map(|()| (!text.is_empty() && text.chars().all(|c| c.is_numeric())).into()),
        "isidentifier" => none().map(|()| is_identifier(text).into()),
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, method, args),
        "startswith" | "endswith" => borders(text, method, args),
        "partition" => one().and_then(|by| parts(text, by, text.split_once(by), false)),
        "rpartition" => one().and_then(|by| parts(text, by, text.rsplit_once(by), true)),
        "split" | "rsplit" => split(text, method, args),
        "zfill" => from_args::<(usize,)>(args).and_then(|(width,)| zfill(text, width)),
        "ljust" | "rjust" | "center" => from_args::<(usize, Option<&str>)>(args)
            .and_then(|(width, fill)| filled(text, method, width, fill.unwrap_or(" "))),
        _ => return None,
    })
}

/// Python's white space: Unicode's, and four separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn strip(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (characters,) = from_args::<(Option<Value>,)>(args)?;
    let characters = match &characters {
        Some(given) if !given.is_none() => {
            Some(given.as_str().ok_or_else(|| refuse(format!("{method}: expected characters, got {given}")))?)
        }
        _ => None,
    };
    let strips = |c: char| characters.map_or_else(|| is_space(c), |list| list.contains(c));
    let text = if method == "rstrip" { text } else { text.trim_start_matches(strips) };
    Ok(if method == "lstrip" { text } else { text.trim_end_matches(strips) }.into())
}

fn swapped(text: &str) -> String {
    let swap =
        |c: char| -> String { if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() } };
    text.chars().map(swap).collect()
}

/// Every letter behind another in lower case, every other letter in upper case.
fn titled(text: &str) -> String {
    let mut within = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match (c.is_alphabetic(), within) {
            (true, true) => out.extend(c.to_lowercase()),
            (true, false) => {
                let mut upper = c.to_uppercase();
                out.extend(upper.next());
                out.extend(upper.flat_map(char::to_lowercase));
            }
            (false, _) => out.push(c),
        }
        within = c.is_alphabetic();
    }
    out
}

fn is_identifier(text: &str) -> bool {
    let first = |c: char| c == '_' || c.is_alphabetic();
    text.chars().next().is_some_and(first) && text.chars().all(|c| first(c) || c.is_numeric())
}

/// The part of a text between two places, as Python's slices count them; None where it begins behind the end.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    let characters = text.chars().count() as i64;
    let at = |place: i64| if place < 0 { (characters + place).max(0) } else { place };
    let (start, end) = (at(start.unwrap_or(0)), at(end.unwrap_or(characters)).min(characters));
    if start > characters || start > end {
        return None;
    }
    let byte = |place: i64| text.char_indices().nth(place as usize).map_or(text.len(), |(at, _)| at);
    Some((start as usize, &text[byte(start)..byte(end)]))
}

/// Places count characters, not bytes.
fn search(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (part, start, end) = from_args::<(&str, Option<i64>, Option<i64>)>(args)?;
    let within = slice(text, start, end);
    if method == "count" {
        let count = |text: &str| if part.is_empty() { text.chars().count() + 1 } else { text.matches(part).count() };
        return Ok(within.map_or(0, |(_, text)| count(text)).into());
    }
    let found = within.and_then(|(first, text)| {
        let at = if method.starts_with('r') { text.rfind(part) } else { text.find(part) }?;
        Some(first + text[..at].chars().count())
    });
    match found {
        Some(at) => Ok(at.into()),
        None if method.ends_with("find") => Ok((-1).into()),
        None => Err(refuse(format!("{method}: expected {part:?} in the text, got none"))),
    }
}

fn borders(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (parts, start, end) = from_args::<(Value, Option<i64>, Option<i64>)>(args)?;
    let parts: Vec<Value> = if parts.as_str().is_some() { vec![parts] } else { parts.try_iter()?.collect() };
    let Some((_, text)) = slice(text, start, end) else { return Ok(false.into()) };
    for part in parts {
        let part = part.as_str().ok_or_else(|| refuse(format!("{method}: expected texts, got {part}")))?;
        if if method == "startswith" { text.starts_with(part) } else { text.ends_with(part) } {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

fn parts(text: &str, by: &str, cut: Option<(&str, &str)>, last: bool) -> Result<Value, Error> {
    if by.is_empty() {
        return Err(refuse("partition: expected a text to part by, got an empty one".into()));
    }
    let parts = match cut {
        Some((before, after)) => [before, by, after],
        None if last => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from_iter(parts))
}

/// `split(sep=None, maxsplit=-1)`, and from the right.
fn split(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (given, named) = from_args::<(Rest<Value>, Kwargs)>(args)?;
    let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = match given.get(at) {
            Some(value) => Some(value.clone()),
            None => named.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none()))
    };
    let (by, most) = (argument(0, "sep")?, argument(1, "maxsplit")?);
    named.assert_all_used()?;
    let most = most.map_or(Ok(-1), i64::try_from)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
    let right = method == "rsplit";
    let mut parts: Vec<&str> = Vec::new();
    match by {
        Some(by) => {
            let by = by.as_str().filter(|by| !by.is_empty());
            let by = by.ok_or_else(|| refuse(format!("{method}: expected a text to part by, got an empty one")))?;
            match right {
                true => parts.extend(text.rsplitn(most + 1, by)),
                false => parts.extend(text.splitn(most + 1, by)),
            }
        }
        // By white space: at its ends and between parts any amount of it is one.
        None if right => {
            let mut rest = text.trim_end_matches(is_space);
            while !rest.is_empty() {
                let at = if parts.len() < most { rest.rfind(is_space) } else { None };
                let (before, word) = at.map_or(("", rest), |at| {
                    let behind = at + rest[at..].chars().next().map_or(1, char::len_utf8);
                    (&rest[..at], &rest[behind..])
                });
                parts.push(word);
                rest = before.trim_end_matches(is_space);
            }
        }
        None => {
            let mut rest = text.trim_start_matches(is_space);
            while !rest.is_empty() {
                let at = if parts.len() < most { rest.find(is_space) } else { None };
                let (word, after) = at.map_or((rest, ""), |at| rest.split_at(at));
                parts.push(word);
                rest = after.trim_start_matches(is_space);
            }
        }
    }
    if right {
        parts.reverse();
    }
    Ok(Value::from_iter(parts))
}

fn zfill(text: &str, width: usize) -> Result<Value, Error> {
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => text.split_at(text.len() - digits.len()),
        None => ("", text),
    };
    Ok(format!("{sign}{}{digits}", "0".repeat(missing(text, width)?)).into())
}

/// How many characters a text lacks to be so wide.
fn missing(text: &str, width: usize) -> Result<usize, Error> {
    if width > WIDEST {
        return Err(refuse(format!("expected a width of at most {WIDEST}, got {width}")));
    }
    Ok(width.saturating_sub(text.chars().count()))
}

fn filled(text: &str, method: &str, width: usize, fill: &str) -> Result<Value, Error> {
    if fill.chars().count() != 1 {
        return Err(refuse(format!("{method}: expected one character to fill with, got {fill:?}")));
    }
    let lacks = missing(text, width)?;
    // As CPython centres: where the width is odd, the extra character goes to the left.
    let left = match method {
        "ljust" => 0,
        "rjust" => lacks,
        _ => lacks / 2 + (lacks & width & 1),
    };
    Ok(format!("{}{text}{}", fill.repeat(left), fill.repeat(lacks - left)).into())
}
