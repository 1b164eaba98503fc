//! The filter `tojson`: Python's `json.dumps`, not Jinja's own filter, which escapes for HTML.

use super::{
    arguments::{Arguments, bind},
    budget::Budget,
    fail::{Res, fail},
    print::float,
    sequence::{iterate, sort},
    value::Value,
};

/// Format options.
struct Style {
    ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sorted: bool,
}

/// `value|tojson(ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn tojson(value: &Value, args: Arguments, budget: &Budget) -> Res<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sorted] = bind("tojson", names, 0, args)?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text.to_string()),
        Some(width) => match width.whole() {
            Some(width) => {
                let width = usize::try_from(width).unwrap_or(0);
                budget.work(width)?;
                Some(" ".repeat(width))
            }
            None => return fail(format!("tojson: expected an integer for indent, got {}", width.kind())),
        },
    };
    let (item, key) = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => {
            let pair: Vec<Value> = iterate(&pair, budget)?.collect();
            match pair.as_slice() {
                [Value::Str(item), Value::Str(key)] => (item.to_string(), key.to_string()),
                _ => return fail("tojson: expected two texts for separators"),
            }
        }
    };
    let truth = |value: Option<Value>| value.is_some_and(|value| value.truth());
    let style = Style { ascii: truth(ascii), indent, item, key, sorted: truth(sorted) };
    let mut out = String::new();
    style.write(&mut out, value, 0, budget)?;
    Ok(Value::str(out))
}

impl Style {
    fn write(&self, out: &mut String, value: &Value, depth: usize, budget: &Budget) -> Res<()> {
        budget.work(16)?;
        match value {
            Value::None => *out += "null",
            Value::Bool(true) => *out += "true",
            Value::Bool(false) => *out += "false",
            Value::Int(i) => *out += &i.to_string(),
            Value::Float(f) => *out += &number(*f),
            Value::Str(s) | Value::Markup(s) => self.quote(out, s, budget)?,
            Value::List(items) | Value::Tuple(items) => {
                self.all(out, ['[', ']'], &items.items, depth, budget, |out, item| {
                    self.write(out, item, depth + 1, budget)
                })?;
            }
            Value::Dict(dict) => {
                let pairs = if self.sorted {
                    let keys = dict.pairs.iter().map(|(key, _)| key.clone()).collect();
                    sort(keys, dict.pairs.clone(), false, budget)?
                } else {
                    dict.pairs.clone()
                };
                budget.work(64 * pairs.len())?;
                self.all(out, ['{', '}'], &pairs, depth, budget, |out, (key, value)| {
                    match key {
                        Value::Str(key) | Value::Markup(key) => self.quote(out, key, budget)?,
                        Value::None => *out += "\"null\"",
                        Value::Bool(b) => *out += if *b { "\"true\"" } else { "\"false\"" },
                        Value::Int(i) => *out += &format!("\"{i}\""),
                        Value::Float(f) => *out += &format!("\"{}\"", number(*f)),
                        _ => return fail(format!("tojson: expected a text as a key, got {}", key.kind())),
                    }
                    *out += &self.key;
                    self.write(out, value, depth + 1, budget)
                })?;
            }
            Value::Undefined(name) => return fail(format!("tojson: {name}, which is undefined")),
            _ => return fail(format!("tojson: expected a value that JSON supports, got {}", value.kind())),
        }
        Ok(())
    }

    /// Items between brackets; each on its own line if there is an indent.
    fn all<T>(
        &self,
        out: &mut String,
        brackets: [char; 2],
        items: &[T],
        depth: usize,
        budget: &Budget,
        mut write: impl FnMut(&mut String, &T) -> Res<()>,
    ) -> Res<()> {
        out.push(brackets[0]);
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = &self.indent {
                budget.work(indent.len() * depth)?;
                out.push('\n');
                *out += &indent.repeat(depth);
            }
            Ok(())
        };
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                budget.work(self.item.len())?;
                *out += &self.item;
            }
            line(out, depth + 1)?;
            budget.work(self.key.len())?;
            write(out, item)?;
        }
        if !items.is_empty() {
            line(out, depth)?;
        }
        out.push(brackets[1]);
        Ok(())
    }

    fn quote(&self, out: &mut String, text: &str, budget: &Budget) -> Res<()> {
        budget.work(2 * text.len())?;
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => *out += "\\\"",
                '\\' => *out += "\\\\",
                '\n' => *out += "\\n",
                '\r' => *out += "\\r",
                '\t' => *out += "\\t",
                '\x08' => *out += "\\b",
                '\x0c' => *out += "\\f",
                ' '..='~' => out.push(c),
                _ if c >= ' ' && !self.ascii => out.push(c),
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        *out += &format!("\\u{unit:04x}");
                    }
                }
            }
        }
        out.push('"');
        Ok(())
    }
}

fn number(f: f64) -> String {
    if f.is_nan() {
        "NaN".into()
    } else if f.is_infinite() {
        if f > 0.0 { "Infinity" } else { "-Infinity" }.into()
    } else {
        float(f)
    }
}
