//! Attributes and methods that the sandbox allows.

use std::rc::Rc;

use super::{
    arguments::{Arguments, bind, whole},
    fail::{Res, fail},
    run::Run,
    sequence::{contains, iterate},
    strings,
    value::{Method, Value, View, same},
};

const DICT: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];
/// Methods that change a dictionary or a list. They exist, but the sandbox hides them.
const DICT_UNSAFE: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const LIST: [&str; 3] = ["copy", "count", "index"];
const LIST_UNSAFE: [&str; 8] = ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
const NUMBER: &str = "as_integer_ratio bit_count bit_length conjugate denominator from_bytes fromhex hex imag \
    is_integer numerator real to_bytes";

/// The result of an attribute lookup.
pub(super) enum Attribute {
    Value(Value),
    /// Exists in Python, but the sandbox hides it.
    Unsafe,
    None,
}

/// Python's `getattr(value, name)`.
pub(super) fn attribute(run: &Run, value: &Value, name: &str) -> Res<Attribute> {
    if name.starts_with("__") && name.ends_with("__") {
        return Ok(Attribute::Unsafe);
    }
    let method = || Attribute::Value(Value::Method(Rc::new(Method { of: value.clone(), name: name.into() })));
    let found = |value| Ok(Attribute::Value(value));
    Ok(match value {
        Value::Undefined(missing) => return fail(format!("the attribute {name:?} of {missing}, which is undefined")),
        Value::Str(_) if strings::is_method(name) => method(),
        Value::Markup(_) if strings::is_method(name) => {
            return fail(format!("the method {name:?} of escaped text, which is not supported"));
        }
        Value::Dict(_) if DICT.contains(&name) => method(),
        Value::Dict(_) if DICT_UNSAFE.contains(&name) => Attribute::Unsafe,
        Value::List(_) if LIST.contains(&name) => method(),
        Value::List(_) if LIST_UNSAFE.contains(&name) => Attribute::Unsafe,
        Value::Tuple(items) if items.group && name == "grouper" => return found(items.items[0].clone()),
        Value::Tuple(items) if items.group && name == "list" => return found(items.items[1].clone()),
        Value::Tuple(_) | Value::Range(_) if LIST[1..].contains(&name) => method(),
        Value::Range(range) => match name {
            "start" => return found(Value::Int(range.start)),
            "stop" => return found(Value::Int(range.stop)),
            "step" => return found(Value::Int(range.step)),
            _ => Attribute::None,
        },
        Value::Bool(_) | Value::Int(_) | Value::Float(_) if NUMBER.split(' ').any(|known| known == name) => {
            return fail(format!("the attribute {name:?} of a number, which is not supported"));
        }
        Value::View(..) if matches!(name, "isdisjoint" | "mapping") => {
            return fail(format!("the attribute {name:?} of a dictionary's view, which is not supported"));
        }
        Value::Generator(_) if matches!(name, "send" | "throw" | "close") || name.starts_with("gi_") => {
            return fail(format!("the attribute {name:?} of a generator, which is not supported"));
        }
        Value::Namespace(namespace) => {
            let attributes = namespace.attributes.borrow();
            run.budget.work(attributes.len())?;
            let known = attributes.iter().find(|(known, _)| &**known == name);
            known.map_or(Attribute::None, |(_, value)| Attribute::Value(value.clone()))
        }
        Value::Cycler(cycler) => match name {
            "next" | "reset" => method(),
            "current" => return found(cycler.items.items[cycler.at.get()].clone()),
            "pos" => return found(Value::int(cycler.at.get())),
            "items" => return found(Value::Tuple(cycler.items.clone())),
            _ => Attribute::None,
        },
        Value::Joiner(joiner) => match name {
            "sep" => return found(joiner.separator.clone()),
            "used" => return found(Value::Bool(joiner.used.get())),
            _ => Attribute::None,
        },
        Value::Macro(of) => match name {
            "name" if of.def.name.is_empty() => return found(Value::None),
            "name" => return found(Value::str(&of.def.name)),
            "arguments" => {
                let names = of.def.parameters.iter().map(|(name, _)| Value::str(name)).collect();
                return found(Value::tuple(names, &run.budget)?);
            }
            "caller" => return found(Value::Bool(of.def.reads.caller)),
            "catch_kwargs" => return found(Value::Bool(of.def.reads.kwargs)),
            "catch_varargs" => return found(Value::Bool(of.def.reads.varargs)),
            _ => Attribute::None,
        },
        Value::Loop(_) if matches!(name, "cycle" | "changed") => method(),
        Value::Loop(of) => of.attribute(run, name)?.map_or(Attribute::None, Attribute::Value),
        _ => Attribute::None,
    })
}

/// Calls a method.
pub(super) fn call(run: &Run, method: &Method, args: Arguments) -> Res<Value> {
    let name = &*method.name;
    match &method.of {
        Value::Str(text) => strings::call(run, text, name, args),
        Value::Dict(dict) => match name {
            "get" => {
                let [key, default] = bind(name, ["*key", "*default"], 1, args)?;
                let key = key.unwrap_or(Value::None);
                // Returns an error if Python cannot hash the key.
                contains(&method.of, &key, &run.budget)?;
                Ok(dict.get(&key, &run.budget)?.cloned().or(default).unwrap_or(Value::None))
            }
            "items" | "keys" | "values" => {
                let [] = bind(name, [], 0, args)?;
                let view = match name {
                    "items" => View::Items,
                    "keys" => View::Keys,
                    _ => View::Values,
                };
                Ok(Value::View(dict.clone(), view))
            }
            "copy" => {
                let [] = bind(name, [], 0, args)?;
                Value::dict(dict.pairs.clone(), &run.budget)
            }
            _ => fail(format!("the method {name:?} of a dictionary, which is not supported")),
        },
        Value::List(items) if name == "copy" => {
            let [] = bind(name, [], 0, args)?;
            Value::list(items.items.clone(), &run.budget)
        }
        Value::List(_) | Value::Tuple(_) | Value::Range(_) => search(run, &method.of, name, args),
        Value::Cycler(cycler) => {
            let [] = bind(name, [], 0, args)?;
            let current = cycler.items.items[cycler.at.get()].clone();
            let next = (cycler.at.get() + 1) % cycler.items.items.len();
            cycler.at.set(if name == "reset" { 0 } else { next });
            Ok(if name == "reset" { Value::None } else { current })
        }
        Value::Loop(of) if args.named.is_empty() => of.call(run, name, args.positional),
        other => fail(format!("the method {name:?} of a {}, which is not supported", other.kind())),
    }
}

/// `list.index` and `list.count`.
fn search(run: &Run, list: &Value, name: &str, args: Arguments) -> Res<Value> {
    let [item, start, stop] = bind(name, ["*value", "*start", "*stop"], 1, args)?;
    if start.is_some() || stop.is_some() {
        let _ = whole(name, start, 0)?;
        return fail(format!("the method {name:?} of a list with a start, which is not supported"));
    }
    let item = item.unwrap_or(Value::None);
    let mut count = 0;
    for (i, other) in iterate(list, &run.budget)?.enumerate() {
        if same(&other, &item, &run.budget)? {
            if name == "index" {
                return Ok(Value::int(i));
            }
            count += 1;
        }
    }
    if name == "index" { fail("index: expected a value of the list") } else { Ok(Value::int(count)) }
}
