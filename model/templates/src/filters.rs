//! Jinja's filters, by name.

use super::{
    arguments::{Arguments, bind, whole},
    fail::{Res, fail},
    filters_items::{self as items, Getter},
    filters_text as texts,
    format::{as_float, truncate},
    print::{float, repr, sorted_repr, text},
    run::Run,
    sequence::{iterate, length},
    syntax::is_filter,
    tojson::tojson,
    value::Value,
};

/// `value|name(args)`.
pub(super) fn apply(run: &Run, name: &str, value: &Value, args: Arguments) -> Res<Value> {
    let budget = &run.budget;
    budget.work(64)?;
    match name {
        "default" | "d" => {
            let [default, boolean] = bind(name, ["default_value", "boolean"], 0, args)?;
            let boolean = boolean.is_some_and(|boolean| boolean.truth());
            let keep = !matches!(value, Value::Undefined(_)) && (value.truth() || !boolean);
            Ok(if keep { value.clone() } else { default.unwrap_or_else(|| Value::str("")) })
        }
        "length" | "count" => {
            let [] = bind(name, [], 0, args)?;
            Ok(Value::int(length(value, budget)?))
        }
        "string" => {
            let [] = bind(name, [], 0, args)?;
            Ok(if let Value::Markup(_) = value { value.clone() } else { Value::Str(text(value, budget)?) })
        }
        "tojson" => tojson(value, args, budget),
        "abs" => {
            let [] = bind(name, [], 0, args)?;
            match (value, value.whole().and_then(i64::checked_abs)) {
                (Value::Float(f), _) => Ok(Value::Float(f.abs())),
                (_, Some(i)) => Ok(Value::Int(i)),
                _ => fail(format!("abs: expected a number, got {}", value.kind())),
            }
        }
        "round" => round(value, args),
        "int" => int(run, value, args),
        "float" => {
            let [default] = bind(name, ["default"], 0, args)?;
            defined(name, value)?;
            let parsed = as_float(value).or_else(|| value.text().and_then(parse_float));
            Ok(parsed.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
        }
        "filesizeformat" => file_size(value, args),
        "pprint" => {
            let [] = bind(name, [], 0, args)?;
            let text = if let Value::Dict(_) | Value::List(_) | Value::Tuple(_) = value {
                sorted_repr(value, budget)?
            } else {
                repr(value, budget)?
            };
            // Python breaks longer texts into several lines.
            if text.chars().count() > 72 {
                return fail("pprint: a text of more than 72 characters, which is not supported");
            }
            Ok(Value::str(text))
        }
        "random" | "striptags" | "urlize" => fail(format!("the filter {name:?}, which is not supported")),
        "map" => map(run, value, args),
        "capitalize" | "center" | "e" | "escape" | "forceescape" | "format" | "indent" | "lower" | "replace"
        | "safe" | "title" | "trim" | "truncate" | "upper" | "urlencode" | "wordcount" | "wordwrap" | "xmlattr" => {
            texts::apply(run, name, value, args)
        }
        _ if is_filter(name) => items::apply(run, name, value, args),
        _ => fail(format!("the filter {name:?}, which is unknown")),
    }
}

fn defined(what: &str, value: &Value) -> Res<()> {
    match value {
        Value::Undefined(name) => fail(format!("{what}: {name}, which is undefined")),
        _ => Ok(()),
    }
}

fn map(run: &Run, value: &Value, args: Arguments) -> Res<Value> {
    let mut results = Vec::new();
    if value.truth() {
        let Arguments { positional, named } = args;
        if positional.is_empty() && named.iter().any(|(name, _)| &**name == "attribute") {
            let [attribute, default] = bind("map", ["attribute", "default"], 0, Arguments { positional, named })?;
            let getter = Getter::one(run, attribute, false, default)?;
            for item in iterate(value, &run.budget)? {
                results.push(getter.get(run, &item)?);
            }
        } else {
            let mut positional = positional.into_iter();
            let Some(Value::Str(name)) = positional.next() else {
                return fail("map: expected a filter's name or an attribute");
            };
            let rest: Vec<Value> = positional.collect();
            for item in iterate(value, &run.budget)? {
                run.budget.step()?;
                let args = Arguments { positional: rest.clone(), named: named.clone() };
                results.push(apply(run, &name, &item, args)?);
            }
        }
    }
    Value::generator(results, &run.budget)
}

fn round(value: &Value, args: Arguments) -> Res<Value> {
    let [precision, method] = bind("round", ["precision", "method"], 0, args)?;
    let precision = whole("round", precision, 0)?;
    let Some(precision) = i32::try_from(precision).ok().filter(|p| p.abs() <= 300) else {
        return fail(format!("round: a precision of {precision}"));
    };
    let method = match &method {
        None => "common",
        Some(Value::Str(method)) if matches!(&**method, "common" | "ceil" | "floor") => method,
        Some(_) => return fail("round: expected common, ceil or floor as the method"),
    };
    let Some(f) = as_float(value) else {
        return fail(format!("round: expected a number, got {}", value.kind()));
    };
    if method == "common" {
        return match (value, usize::try_from(precision)) {
            (Value::Float(_), Ok(_)) if !f.is_finite() => Ok(Value::Float(f)),
            (Value::Float(_), Ok(digits)) => Ok(Value::Float(format!("{f:.digits$}").parse().unwrap_or(f))),
            (_, Ok(_)) => Ok(Value::Int(value.whole().unwrap_or_default())),
            (_, Err(_)) => fail("round: a negative precision, which is not supported"),
        };
    }
    if precision != 0 {
        let scale = 10.0_f64.powi(precision);
        let scaled = if method == "ceil" { (f * scale).ceil() } else { (f * scale).floor() };
        return Ok(Value::Float((scaled + 0.0) / scale));
    }
    let rounded = if method == "ceil" { f.ceil() } else { f.floor() };
    truncate(rounded)?;
    // Python uses an integer here, which has no negative zero.
    Ok(Value::Float(rounded + 0.0))
}

fn int(run: &Run, value: &Value, args: Arguments) -> Res<Value> {
    let [default, base] = bind("int", ["default", "base"], 0, args)?;
    let base = whole("int", base, 10)?;
    defined("int", value)?;
    if let Some(text) = value.text() {
        run.budget.work(text.len())?;
        if let Some(i) = parse_int(text, base)? {
            return Ok(Value::Int(i));
        }
        return match parse_float(text) {
            Some(f) if f.is_finite() => Ok(Value::Int(truncate(f)?)),
            _ => Ok(default.unwrap_or(Value::Int(0))),
        };
    }
    match value {
        Value::Float(f) if f.is_nan() => Ok(default.unwrap_or(Value::Int(0))),
        Value::Float(f) => Ok(Value::Int(truncate(*f)?)),
        _ => Ok(value.whole().map_or_else(|| default.unwrap_or(Value::Int(0)), Value::Int)),
    }
}

/// Python's `int` of a text; None if it is not a number.
fn parse_int(text: &str, base: i64) -> Res<Option<i64>> {
    let text = text.trim_matches(super::text::is_space);
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let prefix = digits.get(..2).unwrap_or_default().to_ascii_lowercase();
    let known = match prefix.as_str() {
        "0x" => 16,
        "0o" => 8,
        "0b" => 2,
        _ => 0,
    };
    let prefixed = known != 0 && (base == known || base == 0);
    let digits = if prefixed { &digits[2..] } else { digits };
    let radix = match base {
        0 if prefixed => known,
        0 => 10,
        2..=36 => base,
        _ => return fail(format!("int: expected a base between 2 and 36, got {base}")),
    };
    let radix = u32::try_from(radix).unwrap_or(10);
    let clean = underscores(digits, |c| c.is_digit(radix), prefixed);
    let Some(clean) = clean.filter(|clean| !clean.is_empty() && clean.chars().all(|c| c.is_digit(radix))) else {
        return Ok(None);
    };
    if base == 0 && !prefixed && clean.len() > 1 && clean.starts_with('0') && clean.chars().any(|c| c != '0') {
        return Ok(None);
    }
    match i64::from_str_radix(&clean, radix) {
        Ok(i) => Ok(Some(if negative { -i } else { i })),
        Err(_) => fail("int: an integer of more than 64 bits, which is not supported"),
    }
}

/// `text` without single underscores between digits; None if it has other underscores.
fn underscores(text: &str, is_digit: impl Fn(char) -> bool, first: bool) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut digit = first;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '_' {
            if !digit || !chars.peek().copied().is_some_and(&is_digit) {
                return None;
            }
            digit = false;
            continue;
        }
        digit = is_digit(c);
        out.push(c);
    }
    Some(out)
}

/// Python's `float` of a text; None if it is not a number.
fn parse_float(text: &str) -> Option<f64> {
    let text = underscores(text.trim_matches(super::text::is_space), |c| c.is_ascii_digit(), false)?;
    let rest = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let word = matches!(rest.to_ascii_lowercase().as_str(), "inf" | "infinity" | "nan");
    if word || rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') { text.parse().ok() } else { None }
}

fn file_size(value: &Value, args: Arguments) -> Res<Value> {
    let [binary] = bind("filesizeformat", ["binary"], 0, args)?;
    let binary = binary.is_some_and(|binary| binary.truth());
    let Some(bytes) = as_float(value).or_else(|| value.text().and_then(parse_float)) else {
        return fail(format!("filesizeformat: expected a number, got {}", value.kind()));
    };
    let base = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok(Value::str("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::str(format!("{} Bytes", float(bytes.trunc()).trim_end_matches(".0"))));
    }
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let mut unit = base * base;
    let mut at = 0;
    while bytes >= unit && at + 1 < prefixes.len() {
        unit *= base;
        at += 1;
    }
    let prefix = if binary { format!("{}iB", prefixes[at].to_uppercase()) } else { format!("{}B", prefixes[at]) };
    Ok(Value::str(format!("{:.1} {prefix}", base * bytes / unit)))
}
