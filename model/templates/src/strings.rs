//! The methods of Python's `str`.

use super::{
    arguments::{Arguments, bind, whole},
    fail::{Res, fail},
    format::format,
    run::Run,
    sequence::iterate,
    text::{all_case, capitalize, casefold, is_letter, is_space, is_title, lines, printable, swapcase, title},
    value::Value,
};

/// Whether a text has a method of this name. Calling an unsupported one is an error.
pub(super) fn is_method(name: &str) -> bool {
    let names = "capitalize casefold center count encode endswith expandtabs find format format_map index isalnum \
        isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join \
        ljust lower lstrip maketrans partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit \
        rstrip split splitlines startswith strip swapcase title translate upper zfill";
    names.split(' ').any(|known| known == name)
}

/// `text.name(args)`.
pub(super) fn call(run: &Run, text: &str, name: &str, args: Arguments) -> Res<Value> {
    let budget = &run.budget;
    // One letter may become three, and each of these methods copies the text.
    budget.work(4 * text.len() + 16)?;
    match name {
        "upper" | "lower" | "capitalize" | "title" | "swapcase" | "casefold" => {
            let [] = bind(name, [], 0, args)?;
            Ok(Value::str(match name {
                "upper" => text.to_uppercase(),
                "lower" => text.to_lowercase(),
                "capitalize" => capitalize(text),
                "title" => title(text),
                "swapcase" => swapcase(text),
                _ => casefold(text),
            }))
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = bind(name, ["*chars"], 0, args)?;
            Ok(Value::str(strip(text, name, chars.as_ref())?))
        }
        "split" | "rsplit" => split(run, text, name == "rsplit", args),
        "splitlines" => {
            let [ends] = bind(name, ["keepends"], 0, args)?;
            let lines = lines(text, ends.is_some_and(|ends| ends.truth()));
            Value::list(lines.into_iter().map(Value::str).collect(), budget)
        }
        "partition" | "rpartition" => {
            let [separator] = bind(name, ["*sep"], 1, args)?;
            let separator = needed(name, separator.as_ref())?;
            if separator.is_empty() {
                return fail(format!("{name}: expected a separator, got an empty text"));
            }
            let found = if name == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            let parts = match found {
                Some((before, after)) => [before, separator, after],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Value::tuple(parts.into_iter().map(Value::str).collect(), budget)
        }
        "replace" => {
            let [old, new, count] = bind(name, ["*old", "*new", "count"], 2, args)?;
            let count = whole(name, count, -1)?;
            replace(run, text, needed(name, old.as_ref())?, needed(name, new.as_ref())?, count)
        }
        "startswith" | "endswith" => affix(run, text, name, args),
        "removeprefix" | "removesuffix" => {
            let [affix] = bind(name, ["*affix"], 1, args)?;
            let affix = needed(name, affix.as_ref())?;
            let rest = if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            Ok(Value::str(rest.unwrap_or(text)))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => find(text, name, args),
        "join" => {
            let [items] = bind(name, ["*iterable"], 1, args)?;
            join(run, text, &items.unwrap_or(Value::None))
        }
        "center" | "ljust" | "rjust" => {
            let [width, fill] = bind(name, ["*width", "*fillchar"], 1, args)?;
            let fill = fill.as_ref().map_or(Ok(" "), |fill| needed(name, Some(fill)))?;
            let mut chars = fill.chars();
            let (Some(fill), None) = (chars.next(), chars.next()) else {
                return fail(format!("{name}: expected one character to fill with, got {fill:?}"));
            };
            justify(run, text, name, whole(name, width, 0)?, fill)
        }
        "zfill" => {
            let [width] = bind(name, ["*width"], 1, args)?;
            let width = usize::try_from(whole(name, width, 0)?).unwrap_or(0);
            budget.work(width)?;
            let sign = text.len() - text.strip_prefix(['+', '-']).unwrap_or(text).len();
            let zeros = "0".repeat(width.saturating_sub(text.chars().count()));
            Ok(Value::str(format!("{}{zeros}{}", &text[..sign], &text[sign..])))
        }
        "expandtabs" => {
            let [size] = bind(name, ["tabsize"], 0, args)?;
            let size = usize::try_from(whole(name, size, 8)?).unwrap_or(0);
            budget.work(text.matches('\t').count().saturating_mul(size))?;
            let mut out = String::new();
            let mut column = 0;
            for c in text.chars() {
                match c {
                    '\t' => {
                        let spaces = if size == 0 { 0 } else { size - column % size };
                        out += &" ".repeat(spaces);
                        column += spaces;
                        continue;
                    }
                    '\n' | '\r' => column = 0,
                    _ => column += 1,
                }
                out.push(c);
            }
            Ok(Value::str(out))
        }
        "format" => format(run, text, &args),
        _ if name.starts_with("is") => {
            let [] = bind(name, [], 0, args)?;
            Ok(Value::Bool(is(text, name)?))
        }
        _ => fail(format!("the method {name:?} of a text, which is not supported")),
    }
}

fn needed<'v>(what: &str, value: Option<&'v Value>) -> Res<&'v str> {
    match value {
        Some(Value::Str(text)) => Ok(text),
        Some(other) => fail(format!("{what}: expected a text, got {}", other.kind())),
        None => fail(format!("{what}: expected a text, got nothing")),
    }
}

/// `strip`, `lstrip` and `rstrip`, by the name of the method.
pub(super) fn strip<'t>(text: &'t str, name: &str, chars: Option<&Value>) -> Res<&'t str> {
    let chars: Option<Vec<char>> = match chars {
        None | Some(Value::None) => None,
        chars => Some(needed(name, chars)?.chars().collect()),
    };
    if chars.as_ref().is_some_and(|chars| chars.len() > 256) {
        return fail(format!("{name}: expected at most 256 characters, got more"));
    }
    let goes = |c: char| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(&c));
    let text = if name == "rstrip" { text } else { text.trim_start_matches(goes) };
    Ok(if name == "lstrip" { text } else { text.trim_end_matches(goes) })
}

fn split(run: &Run, text: &str, from_end: bool, args: Arguments) -> Res<Value> {
    let name = if from_end { "rsplit" } else { "split" };
    let [separator, most] = bind(name, ["sep", "maxsplit"], 0, args)?;
    let most = usize::try_from(whole(name, most, -1)?).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = Vec::new();
    match separator {
        None | Some(Value::None) => {
            let trim = |text: &'_ str| -> usize {
                let rest = if from_end { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
                text.len() - rest.len()
            };
            let mut rest = text;
            loop {
                let spaces = trim(rest);
                rest = if from_end { &rest[..rest.len() - spaces] } else { &rest[spaces..] };
                if rest.is_empty() {
                    break;
                }
                if parts.len() == most {
                    parts.push(rest);
                    break;
                }
                let (part, left) = if from_end {
                    let start = rest.char_indices().rev().find(|(_, c)| is_space(*c));
                    let start = start.map_or(0, |(at, c)| at + c.len_utf8());
                    (&rest[start..], &rest[..start])
                } else {
                    rest.split_at(rest.find(is_space).unwrap_or(rest.len()))
                };
                parts.push(part);
                rest = left;
            }
            if from_end {
                parts.reverse();
            }
        }
        separator => {
            let separator = needed(name, separator.as_ref())?;
            if separator.is_empty() {
                return fail(format!("{name}: expected a separator, got an empty text"));
            }
            let pieces = most.saturating_add(1);
            if from_end {
                parts.extend(text.rsplitn(pieces, separator));
                parts.reverse();
            } else {
                parts.extend(text.splitn(pieces, separator));
            }
        }
    }
    run.budget.work(64 * parts.len())?;
    Value::list(parts.into_iter().map(Value::str).collect(), &run.budget)
}

/// `text.replace(old, new, count)`.
pub(super) fn replace(run: &Run, text: &str, old: &str, new: &str, count: i64) -> Res<Value> {
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    run.budget.work(2 * text.len())?;
    let found = text.matches(old).take(most).count();
    run.budget.work(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(Value::str(text.replacen(old, new, most)))
}

/// `text.join(items)`.
pub(super) fn join(run: &Run, text: &str, items: &Value) -> Res<Value> {
    let mut out = String::new();
    for (i, item) in iterate(items, &run.budget)?.enumerate() {
        let Value::Str(item) = item else {
            return fail(format!("join: expected texts, got {}", item.kind()));
        };
        run.budget.work(text.len() + item.len())?;
        if i > 0 {
            out += text;
        }
        out += &item;
    }
    Ok(Value::str(out))
}

/// `center`, `ljust` and `rjust`.
pub(super) fn justify(run: &Run, text: &str, name: &str, width: i64, fill: char) -> Res<Value> {
    let width = usize::try_from(width).unwrap_or(0);
    run.budget.work(width.saturating_mul(4))?;
    let missing = width.saturating_sub(text.chars().count());
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // An odd fill character goes to the same side as in Python.
        _ => missing / 2 + (missing & width & 1),
    };
    let fill = fill.to_string();
    Ok(Value::str(format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left))))
}

/// The part of `text` between two character positions, and the number of characters before it.
fn window<'t>(what: &str, text: &'t str, start: Option<Value>, end: Option<Value>) -> Res<Option<(&'t str, usize)>> {
    if start.is_none() && end.is_none() {
        return Ok(Some((text, 0)));
    }
    let len = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let place = |value: Option<Value>, default: i64| -> Res<i64> {
        let i = whole(what, value.filter(|value| !matches!(value, Value::None)), default)?;
        Ok(if i < 0 { i.saturating_add(len).max(0) } else { i })
    };
    let (start, end) = (place(start, 0)?, place(end, len)?.min(len));
    if start > end {
        return Ok(None);
    }
    let byte = |place: i64| {
        let place = usize::try_from(place).unwrap_or(0);
        text.char_indices().nth(place).map_or(text.len(), |(at, _)| at)
    };
    Ok(Some((&text[byte(start)..byte(end)], usize::try_from(start).unwrap_or(0))))
}

fn affix(run: &Run, text: &str, name: &str, args: Arguments) -> Res<Value> {
    let [affixes, start, end] = bind(name, ["*prefix", "*start", "*end"], 1, args)?;
    let affixes = match &affixes {
        Some(Value::Tuple(items)) => items.items.clone(),
        other => vec![other.clone().unwrap_or(Value::None)],
    };
    let window = window(name, text, start, end)?;
    let mut has = false;
    for affix in &affixes {
        let affix = needed(name, Some(affix))?;
        run.budget.work(affix.len())?;
        has |= window.is_some_and(
            |(text, _)| {
                if name == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) }
            },
        );
    }
    Ok(Value::Bool(has))
}

fn find(text: &str, name: &str, args: Arguments) -> Res<Value> {
    let [part, start, end] = bind(name, ["*sub", "*start", "*end"], 1, args)?;
    let part = needed(name, part.as_ref())?;
    let window = window(name, text, start, end)?;
    if name == "count" {
        return Ok(Value::int(window.map_or(0, |(text, _)| text.matches(part).count())));
    }
    let at = window.and_then(|(text, before)| {
        let at = if name.starts_with('r') { text.rfind(part) } else { text.find(part) };
        at.map(|at| before + text[..at].chars().count())
    });
    match at {
        Some(at) => Ok(Value::int(at)),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => fail(format!("{name}: expected {part:?} in the text, got none")),
    }
}

/// `isdigit` and similar methods.
fn is(text: &str, name: &str) -> Res<bool> {
    let all = |is: fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    Ok(match name {
        "isalpha" => all(is_letter),
        "isalnum" => all(|c| is_letter(c) || c.is_numeric()),
        "isascii" => text.is_ascii(),
        "isspace" => all(is_space),
        "isdigit" | "isdecimal" | "isnumeric" if text.is_ascii() => all(|c| c.is_ascii_digit()),
        "islower" => all_case(text, false),
        "isupper" => all_case(text, true),
        "istitle" => is_title(text),
        "isprintable" => text.chars().all(|c| if c.is_ascii() { !c.is_ascii_control() } else { printable(c) }),
        "isidentifier" => {
            all(|c| c == '_' || c.is_alphanumeric()) && !text.starts_with(|c: char| c != '_' && !is_letter(c))
        }
        _ => return fail(format!("the method {name:?} of a text that is not ASCII, which is not supported")),
    })
}
