//! Values as Python's `str` and `repr` print them.

use std::rc::Rc;

use super::{
    budget::Budget,
    fail::{Res, fail},
    text::printable,
    value::{Value, View},
};

/// `str(value)`.
pub(super) fn text(value: &Value, budget: &Budget) -> Res<Rc<str>> {
    match value {
        Value::Undefined(_) => Ok("".into()),
        Value::Str(s) | Value::Markup(s) => {
            budget.work(8)?;
            Ok(s.clone())
        }
        _ => Ok(repr(value, budget)?.into()),
    }
}

/// `repr(value)`.
pub(super) fn repr(value: &Value, budget: &Budget) -> Res<String> {
    let mut out = String::new();
    write(&mut out, value, false, budget)?;
    Ok(out)
}

/// `repr(value)` with sorted dictionary keys, like `pprint` on one line.
pub(super) fn sorted_repr(value: &Value, budget: &Budget) -> Res<String> {
    let mut out = String::new();
    write(&mut out, value, true, budget)?;
    Ok(out)
}

fn write(out: &mut String, value: &Value, sorted: bool, budget: &Budget) -> Res<()> {
    budget.work(8)?;
    match value {
        Value::Undefined(_) => *out += "Undefined",
        Value::None => *out += "None",
        Value::Bool(true) => *out += "True",
        Value::Bool(false) => *out += "False",
        Value::Int(i) => *out += &i.to_string(),
        Value::Float(f) => *out += &float(*f),
        Value::Str(s) => quote(out, s, budget)?,
        Value::Markup(s) => {
            *out += "Markup(";
            quote(out, s, budget)?;
            out.push(')');
        }
        Value::List(list) => {
            out.push('[');
            write_all(out, list.items.iter(), sorted, budget)?;
            out.push(']');
        }
        Value::Tuple(tuple) => {
            out.push('(');
            write_all(out, tuple.items.iter(), sorted, budget)?;
            *out += if tuple.items.len() == 1 { ",)" } else { ")" };
        }
        Value::Dict(dict) => write_pairs(out, &dict.pairs, sorted, budget)?,
        Value::View(dict, view) => {
            *out += value.kind();
            *out += "([";
            match view {
                View::Keys => write_all(out, dict.pairs.iter().map(|(key, _)| key), sorted, budget)?,
                View::Values => write_all(out, dict.pairs.iter().map(|(_, value)| value), sorted, budget)?,
                View::Items => {
                    for (i, (key, value)) in dict.pairs.iter().enumerate() {
                        *out += if i > 0 { ", (" } else { "(" };
                        write_all(out, [key, value].into_iter(), sorted, budget)?;
                        out.push(')');
                    }
                }
            }
            *out += "])";
        }
        Value::Range(range) => {
            *out += &format!("range({}, {}", range.start, range.stop);
            if range.step != 1 {
                *out += &format!(", {}", range.step);
            }
            out.push(')');
        }
        Value::Namespace(namespace) => {
            // A namespace may contain itself.
            let _level = budget.deeper()?;
            *out += "<Namespace ";
            let pairs: Vec<_> =
                namespace.attributes.borrow().iter().map(|(k, v)| (Value::Str(k.clone()), v.clone())).collect();
            write_pairs(out, &pairs, sorted, budget)?;
            out.push('>');
        }
        Value::Macro(of) if of.def.name.is_empty() => *out += "<Macro anonymous>",
        Value::Macro(of) => {
            *out += "<Macro ";
            quote(out, &of.def.name, budget)?;
            out.push('>');
        }
        // Python prints an address, or the number of remaining items.
        _ => return fail(format!("printing a {}, which is not supported", value.kind())),
    }
    Ok(())
}

fn write_all<'v>(out: &mut String, values: impl Iterator<Item = &'v Value>, sorted: bool, budget: &Budget) -> Res<()> {
    for (i, value) in values.enumerate() {
        if i > 0 {
            *out += ", ";
        }
        write(out, value, sorted, budget)?;
    }
    Ok(())
}

fn write_pairs(out: &mut String, pairs: &[(Value, Value)], sorted: bool, budget: &Budget) -> Res<()> {
    let mut order: Vec<&(Value, Value)> = pairs.iter().collect();
    if sorted {
        if pairs.iter().any(|(key, _)| key.text().is_none()) {
            return fail("printing a dictionary with sorted keys that are not texts, which is not supported");
        }
        budget.work(pairs.len() * 64)?;
        order.sort_by(|a, b| a.0.text().cmp(&b.0.text()));
    }
    out.push('{');
    for (i, (key, value)) in order.into_iter().enumerate() {
        if i > 0 {
            *out += ", ";
        }
        write(out, key, sorted, budget)?;
        *out += ": ";
        write(out, value, sorted, budget)?;
    }
    out.push('}');
    Ok(())
}

/// A text's `repr`.
fn quote(out: &mut String, text: &str, budget: &Budget) -> Res<()> {
    budget.work(2 * text.len())?;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => *out += "\\\\",
            '\n' => *out += "\\n",
            '\r' => *out += "\\r",
            '\t' => *out += "\\t",
            _ if c == quote => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ if !c.is_ascii() && printable(c) => out.push(c),
            _ => match c as u32 {
                code @ ..0x100 => *out += &format!("\\x{code:02x}"),
                code @ ..0x1_0000 => *out += &format!("\\u{code:04x}"),
                code => *out += &format!("\\U{code:08x}"),
            },
        }
    }
    out.push(quote);
    Ok(())
}

/// A float: the shortest digits that identify it, with an exponent if it is very large or small.
pub(super) fn float(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{f:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        exponent @ -4..16 => {
            let plain = f.to_string();
            if exponent >= 0 && !plain.contains('.') { format!("{plain}.0") } else { plain }
        }
        exponent => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}
