//! Python's two ways to format: `text % values` and `text.format(values)`.

use super::{
    arguments::Arguments,
    fail::{Res, fail},
    print::{repr, text},
    run::Run,
    value::Value,
};

/// The format of one value.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: bool,
    precision: Option<usize>,
    kind: Option<char>,
}

/// `template % values`.
pub(super) fn percent(run: &Run, template: &str, values: &Value) -> Res<Value> {
    let budget = &run.budget;
    budget.work(template.len())?;
    let mut positional = match values {
        Value::Tuple(items) => items.items.clone(),
        _ => vec![values.clone()],
    }
    .into_iter();
    let mut out = String::new();
    let mut named = false;
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        out += before;
        rest = after;
        let mut value = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let (Value::Dict(dict), Some((key, after))) = (values, inner.split_once(')')) else {
                return fail("%: expected a dictionary for a name in brackets");
            };
            match dict.get_text(key, budget)? {
                Some(found) => value = Some(found.clone()),
                None => return fail(format!("%: expected the key {key:?}, got none")),
            }
            (named, rest) = (true, after);
        }
        let mut spec = Spec::default();
        let flags = rest.len() - rest.trim_start_matches(['#', '0', '-', ' ', '+']).len();
        for flag in rest[..flags].chars() {
            match flag {
                '#' => spec.alternate = true,
                '0' => spec.zero = true,
                '-' => spec.align = Some('<'),
                _ if spec.sign != Some('+') => spec.sign = Some(flag),
                _ => {}
            }
        }
        rest = &rest[flags..];
        (spec.width, rest) = number(rest)?;
        if let Some(after) = rest.strip_prefix('.') {
            let (precision, after) = number(after)?;
            (spec.precision, rest) = (Some(precision), after);
        }
        let Some(kind) = rest.chars().next() else {
            return fail("%: expected a letter, got the end of the text");
        };
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = value.or_else(|| positional.next()) else {
            return fail("%: expected a value for every placeholder, got fewer");
        };
        spec.align = spec.align.or(Some('>'));
        if spec.align == Some('<') {
            spec.zero = false;
        }
        percent_one(run, &mut out, spec, kind, &value)?;
    }
    out += rest;
    let left = positional.next().is_some();
    // Python reports this only if the values cannot be read by key.
    let keyed = matches!(values, Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_));
    if left && !named && !keyed {
        return fail("%: expected a placeholder for every value, got fewer");
    }
    Ok(Value::str(out))
}

fn percent_one(run: &Run, out: &mut String, mut spec: Spec, kind: char, value: &Value) -> Res<()> {
    match kind {
        's' | 'r' => {
            spec.zero = false;
            let whole = if kind == 's' { text(value, &run.budget)?.to_string() } else { repr(value, &run.budget)? };
            let kept = cut(&whole, spec.precision);
            pad(run, out, &spec, "", kept)
        }
        'd' | 'i' | 'u' => match (value.whole(), value) {
            (Some(i), _) => whole(run, out, Spec { kind: Some('d'), ..spec }, i),
            (None, Value::Float(f)) => whole(run, out, Spec { kind: Some('d'), ..spec }, truncate(*f)?),
            _ => fail(format!("%d: expected a number, got {}", value.kind())),
        },
        'x' | 'X' | 'o' => match value.whole() {
            Some(i) => whole(run, out, Spec { kind: Some(kind), ..spec }, i),
            None => fail(format!("%{kind}: expected an integer, got {}", value.kind())),
        },
        'f' | 'F' => match as_float(value) {
            Some(f) => fraction(run, out, &Spec { kind: Some('f'), ..spec }, f),
            None => fail(format!("%f: expected a number, got {}", value.kind())),
        },
        _ => fail(format!("%{kind}, which is not supported")),
    }
}

/// `template.format(values)`.
pub(super) fn format(run: &Run, template: &str, args: &Arguments) -> Res<Value> {
    run.budget.work(template.len())?;
    let mut out = String::new();
    let mut next = Some(0);
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        out += &rest[..at];
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out += brace;
            rest = after;
            continue;
        }
        let Some(end) = rest.find(['{', '}']).filter(|_| brace == "{") else {
            return fail("format: expected braces in pairs, got a single one");
        };
        if rest[end..].starts_with('{') {
            return fail("format: nested placeholders, which are not supported");
        }
        let field = &rest[..end];
        rest = &rest[end + 1..];
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (field, conversion) = match field.split_once('!') {
            Some((field, conversion)) => (field, Some(conversion)),
            None => (field, None),
        };
        let value = lookup(run, field, args, &mut next)?;
        let value = match conversion {
            None => value,
            Some("s") => Value::Str(text(&value, &run.budget)?),
            Some("r") => Value::str(repr(&value, &run.budget)?),
            Some(other) => return fail(format!("format: the conversion {other:?}, which is not supported")),
        };
        format_one(run, &mut out, spec, &value)?;
    }
    out += rest;
    Ok(Value::str(out))
}

/// The value of a placeholder.
fn lookup(run: &Run, field: &str, args: &Arguments, next: &mut Option<usize>) -> Res<Value> {
    let end = field.find(['.', '[']).unwrap_or(field.len());
    let (first, mut rest) = field.split_at(end);
    let by_place = |i: usize| match args.positional.get(i) {
        Some(value) => Ok(value.clone()),
        None => fail(format!("format: expected an argument number {i}, got none")),
    };
    let mut value = if first.is_empty() {
        let Some(i) = next.as_mut() else {
            return fail("format: numbered and unnumbered placeholders together");
        };
        *i += 1;
        by_place(*i - 1)?
    } else if first.bytes().all(|b| b.is_ascii_digit()) {
        if next.is_some_and(|i| i > 0) {
            return fail("format: numbered and unnumbered placeholders together");
        }
        *next = None;
        by_place(first.parse().unwrap_or(usize::MAX))?
    } else {
        match args.named.iter().find(|(name, _)| &**name == first) {
            Some((_, value)) => value.clone(),
            None => return fail(format!("format: expected an argument {first:?}, got none")),
        }
    };
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some((key, after)) = inner.split_once(']') else {
                return fail("format: expected \"]\", got the end of the placeholder");
            };
            let index = key.parse().ok().filter(|_| key.bytes().all(|b| b.is_ascii_digit()));
            value = run.item(&value, &index.map_or_else(|| Value::str(key), Value::Int))?;
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('.') {
            let end = inner.find(['.', '[']).unwrap_or(inner.len());
            value = run.attribute(&value, &inner[..end])?;
            rest = &inner[end..];
        } else {
            return fail("format: expected \".\" or \"[\" after \"]\"");
        }
    }
    Ok(value)
}

fn format_one(run: &Run, out: &mut String, spec: &str, value: &Value) -> Res<()> {
    if spec.is_empty() {
        let text = text(value, &run.budget)?;
        run.budget.work(text.len())?;
        *out += &text;
        return Ok(());
    }
    let mut spec = parse(spec)?;
    match value {
        Value::Str(text) if matches!(spec.kind, None | Some('s')) && !spec.grouping && spec.sign.is_none() => {
            if spec.zero && spec.fill.is_none() {
                spec.fill = Some('0');
            }
            spec.zero = false;
            spec.align = spec.align.or(Some('<'));
            if spec.align == Some('=') {
                return fail("format: \"=\" for a text");
            }
            pad(run, out, &spec, "", cut(text, spec.precision))
        }
        Value::Bool(_) | Value::Int(_) if matches!(spec.kind, None | Some('d' | 'x' | 'X' | 'o' | 'b')) => {
            if spec.precision.is_some() {
                return fail("format: a precision for an integer");
            }
            spec.align = spec.align.or(Some('>'));
            whole(run, out, spec, value.whole().unwrap_or_default())
        }
        Value::Bool(_) | Value::Int(_) | Value::Float(_) if matches!(spec.kind, Some('f' | 'F')) => {
            spec.align = spec.align.or(Some('>'));
            fraction(run, out, &spec, as_float(value).unwrap_or_default())
        }
        _ => fail(format!("format: a format for {}, which is not supported", value.kind())),
    }
}

/// Reads `[[fill]align][sign][#][0][width][,][.precision][kind]`.
fn parse(text: &str) -> Res<Spec> {
    let mut spec = Spec::default();
    let mut rest = text;
    let aligns = |c: &char| matches!(c, '<' | '>' | '=' | '^');
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(fill), Some(align)) if aligns(&align) => {
            (spec.fill, spec.align) = (Some(fill), Some(align));
            rest = chars.as_str();
        }
        (Some(align), _) if aligns(&align) => {
            spec.align = Some(align);
            rest = &text[1..];
        }
        _ => {}
    }
    if let Some(after) = rest.strip_prefix(['+', '-', ' ']) {
        spec.sign = rest.chars().next().filter(|sign| *sign != '-');
        rest = after;
    }
    if let Some(after) = rest.strip_prefix('#') {
        (spec.alternate, rest) = (true, after);
    }
    if let Some(after) = rest.strip_prefix('0') {
        spec.zero = spec.align.is_none();
        spec.fill = spec.fill.or(Some('0'));
        rest = after;
    }
    (spec.width, rest) = number(rest)?;
    if let Some(after) = rest.strip_prefix(',') {
        (spec.grouping, rest) = (true, after);
    }
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = number(after)?;
        (spec.precision, rest) = (Some(precision), after);
    }
    let mut chars = rest.chars();
    spec.kind = chars.next();
    if !chars.as_str().is_empty() || spec.grouping && spec.zero {
        return fail(format!("format: the format {text:?}, which is not supported"));
    }
    Ok(spec)
}

/// The number at the start of `text`, and the rest.
fn number(text: &str) -> Res<(usize, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(len);
    if digits.is_empty() {
        return Ok((0, rest));
    }
    match digits.parse() {
        Ok(n) if n <= 1 << 16 => Ok((n, rest)),
        _ => fail(format!("a width of {digits}")),
    }
}

fn cut(text: &str, precision: Option<usize>) -> &str {
    match precision.and_then(|precision| text.char_indices().nth(precision)) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// A number as a float.
pub(super) fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(f) => Some(*f),
        _ => value.whole().map(|i| i as f64),
    }
}

/// A number as an integer, truncated.
pub(super) fn truncate(f: f64) -> Res<i64> {
    if f.is_finite() && f.abs() < 9.2e18 {
        Ok(f as i64)
    } else {
        fail(format!("expected an integer of 64 bits, got {f}"))
    }
}

fn whole(run: &Run, out: &mut String, spec: Spec, i: i64) -> Res<()> {
    let size = i.unsigned_abs();
    let (prefix, mut digits) = match spec.kind {
        Some('x') => ("0x", format!("{size:x}")),
        Some('X') => ("0X", format!("{size:X}")),
        Some('o') => ("0o", format!("{size:o}")),
        Some('b') => ("0b", format!("{size:b}")),
        _ => ("", size.to_string()),
    };
    if let Some(precision) = spec.precision {
        digits = "0".repeat(precision.saturating_sub(digits.len())) + &digits;
    }
    if spec.grouping {
        digits = grouped(&digits);
    }
    let sign = sign(&spec, i < 0);
    let sign = if spec.alternate { format!("{sign}{prefix}") } else { sign.to_owned() };
    pad(run, out, &spec, &sign, &digits)
}

fn fraction(run: &Run, out: &mut String, spec: &Spec, f: f64) -> Res<()> {
    let precision = spec.precision.unwrap_or(6);
    run.budget.work(precision + 400)?;
    let mut digits = if f.is_finite() { format!("{:.precision$}", f.abs()) } else { "inf".into() };
    if f.is_nan() {
        digits = "nan".into();
    }
    if !f.is_finite() && spec.zero {
        return fail("format: zero padding of NaN or infinity, which is not supported");
    }
    if spec.grouping {
        let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
        digits = grouped(whole) + rest;
    }
    pad(run, out, spec, sign(spec, f.is_sign_negative() && !f.is_nan()), &digits)
}

fn sign(spec: &Spec, negative: bool) -> &'static str {
    match spec.sign {
        _ if negative => "-",
        Some('+') => "+",
        Some(' ') => " ",
        _ => "",
    }
}

/// Digits with commas between groups of three.
fn grouped(digits: &str) -> String {
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && digit.is_ascii_digit() {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn pad(run: &Run, out: &mut String, spec: &Spec, sign: &str, body: &str) -> Res<()> {
    run.budget.work(4 * (spec.width + body.len()))?;
    let missing = spec.width.saturating_sub(sign.len() + body.chars().count());
    let fill = |n: usize| spec.fill.unwrap_or(' ').to_string().repeat(n);
    let padded = match spec.align {
        _ if spec.zero => format!("{sign}{}{body}", "0".repeat(missing)),
        Some('=') => format!("{sign}{}{body}", fill(missing)),
        Some('<') => format!("{sign}{body}{}", fill(missing)),
        Some('^') => format!("{}{sign}{body}{}", fill(missing / 2), fill(missing - missing / 2)),
        _ => format!("{}{sign}{body}", fill(missing)),
    };
    *out += &padded;
    Ok(())
}
