//! Jinja's filters and tests, where minijinja's differ from them.

use std::borrow::Cow;

use minijinja::{
    Error, State, Value, filters,
    formatting::{self, FormatStyle},
    value::{Kwargs, Rest, ValueKind, ValueOrKwargs as Argument},
};

use super::{LONGEST_PROMPT, WIDEST, methods, refuse};

/// Adds them.
pub(super) fn add(environment: &mut minijinja::Environment<'static>) {
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("indent", indent);
    environment.add_filter("format", format);
    // Jinja's are generators: true, whatever they hold.
    environment.add_filter(
        "select",
        |state: &mut State, value: Value, test: Option<Cow<str>>, args: Rest<Argument>| {
            filters::select(state, value, test, args).map(generated)
        },
    );
    environment.add_filter(
        "reject",
        |state: &mut State, value: Value, test: Option<Cow<str>>, args: Rest<Argument>| {
            filters::reject(state, value, test, args).map(generated)
        },
    );
    environment.add_filter(
        "selectattr",
        |state: &mut State, value: Value, name: Cow<str>, test: Option<Cow<str>>, args: Rest<Argument>| {
            filters::selectattr(state, value, name, test, args).map(generated)
        },
    );
    environment.add_filter(
        "rejectattr",
        |state: &mut State, value: Value, name: Cow<str>, test: Option<Cow<str>>, args: Rest<Argument>| {
            filters::rejectattr(state, value, name, test, args).map(generated)
        },
    );
    environment.add_filter("map", |state: &mut State, value: Value, args: Rest<Argument>| {
        filters::map(state, value, args).map(generated)
    });
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    environment.add_test("iterable", |value: &Value| {
        let kinds = [ValueKind::Seq, ValueKind::String, ValueKind::Map, ValueKind::Iterable, ValueKind::Undefined];
        kinds.contains(&value.kind())
    });
    // Python's strings and dictionaries have a length and items, too.
    environment.add_test("sequence", |value: &Value| {
        let kinds = [ValueKind::Seq, ValueKind::String, ValueKind::Map, ValueKind::Undefined];
        kinds.contains(&value.kind())
    });
}

fn length(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(0.into()),
        _ => filters::length(value).map(Value::from),
    }
}

fn default(value: &Value, other: Option<Value>, boolean: Option<bool>, named: Kwargs) -> Result<Value, Error> {
    let other = other.or(named.get::<Option<Value>>("default_value")?);
    let falsy = boolean.or(named.get::<Option<bool>>("boolean")?).unwrap_or(false) && !value.is_true();
    named.assert_all_used()?;
    Ok(if value.is_undefined() || falsy { other.unwrap_or_else(|| "".into()) } else { value.clone() })
}

/// Whole numbers as Python's `int` reads them, else the other value.
fn int(value: &Value, other: Option<Value>, base: Option<u32>) -> Value {
    let other = || other.clone().unwrap_or_else(|| 0.into());
    let base = base.unwrap_or(10);
    match value.kind() {
        ValueKind::Bool => i64::from(value.is_true()).into(),
        ValueKind::Number if value.is_integer() => value.clone(),
        ValueKind::Number => whole(&f64::try_from(value.clone()).unwrap_or(f64::NAN)).unwrap_or_else(other),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default().trim().replace('_', "");
            let prefix = match base {
                16 => text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")),
                8 => text.strip_prefix("0o").or_else(|| text.strip_prefix("0O")),
                2 => text.strip_prefix("0b").or_else(|| text.strip_prefix("0B")),
                _ => None,
            };
            let digits = prefix.unwrap_or(&text);
            let read = (2..=36).contains(&base).then(|| i64::from_str_radix(digits, base).ok()).flatten();
            read.map(Value::from).or_else(|| whole(&text.parse().ok()?)).unwrap_or_else(other)
        }
        _ => other(),
    }
}

fn whole(number: &f64) -> Option<Value> {
    (number.is_finite() && number.abs() < 9e18).then(|| (number.trunc() as i64).into())
}

fn float(value: &Value, other: Option<Value>) -> Value {
    let read = match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::String => value.as_str().and_then(|text| text.trim().replace('_', "").parse().ok()),
        _ => None,
    };
    read.map(Value::from).or(other).unwrap_or_else(|| 0.0.into())
}

/// Every line but the first, by default, and no blank ones; with a width that a template can mean.
fn indent(
    text: String,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<String, Error> {
    let width = width.or(named.get::<Option<Value>>("width")?).unwrap_or_else(|| 4.into());
    let first = first.or(named.get::<Option<bool>>("first")?).unwrap_or(false);
    let blank = blank.or(named.get::<Option<bool>>("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    let by = match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(usize::try_from(width).unwrap_or(0).min(WIDEST + 1)),
    };
    if by.len() > WIDEST || text.len() > LONGEST_PROMPT {
        return Err(refuse(format!("indent: expected at most {WIDEST} columns, got more")));
    }
    let lines = text.split('\n').enumerate().map(|(i, line)| {
        let indented = if i == 0 { first } else { !line.is_empty() || blank };
        if indented { format!("{by}{line}") } else { line.to_owned() }
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// `'%s' | format(x)`.
fn format(text: &str, args: Rest<Value>) -> Result<Value, Error> {
    methods::bounded(text)?;
    formatting::format(FormatStyle::Printf, text, &args).map(Value::from)
}

/// What a generator has still to give.
fn generated(items: Vec<Value>) -> Value {
    Value::make_one_shot_iterator(items.into_iter())
}
