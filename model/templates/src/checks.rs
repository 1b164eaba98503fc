//! Jinja's tests: the names after `is`.

use super::{
    arguments::{Arguments, bind},
    fail::{Res, fail},
    operators,
    print::text,
    run::Run,
    sequence::{contains, iterate, less},
    syntax::{Math, is_filter, is_test},
    text::all_case,
    value::{Value, identical, same},
};

/// `value is name(args)`.
pub(super) fn check(run: &Run, name: &str, value: &Value, args: Arguments) -> Res<bool> {
    let budget = &run.budget;
    if !is_test(name) {
        return fail(format!("the test {name:?}, which is unknown"));
    }
    match name {
        "==" | "eq" | "equalto" | "!=" | "ne" | "<" | "lt" | "lessthan" | "<=" | "le" | ">" | "gt" | "greaterthan"
        | ">=" | "ge" | "in" | "sameas" | "divisibleby" => {
            let parameter = match name {
                "in" => "seq",
                "sameas" => "other",
                "divisibleby" => "num",
                _ => "*other",
            };
            let [other] = bind(name, [parameter], 1, args)?;
            let other = other.unwrap_or(Value::None);
            return Ok(match name {
                "==" | "eq" | "equalto" => same(value, &other, budget)?,
                "!=" | "ne" => !same(value, &other, budget)?,
                "<" | "lt" | "lessthan" => less(value, &other, budget)?,
                "<=" | "le" => operators::at_most(value, &other, budget)?,
                ">" | "gt" | "greaterthan" => less(&other, value, budget)?,
                ">=" | "ge" => operators::at_most(&other, value, budget)?,
                "in" => contains(&other, value, budget)?,
                "divisibleby" => divides(run, value, other)? == Some(0.0),
                _ => match identical(value, &other) {
                    Some(is) => is,
                    None => return fail("the test \"sameas\" with equal texts or numbers, which Python may share"),
                },
            });
        }
        _ => {}
    }
    let [] = bind(name, [], 0, args)?;
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        "string" => value.text().is_some(),
        "escaped" => matches!(value, Value::Markup(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => {
            value.text().is_some()
                || matches!(
                    value,
                    Value::Undefined(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_) | Value::Range(_)
                )
        }
        "iterable" => matches!(value, Value::Loop(_) | Value::Markup(_)) || iterate(value, budget).is_ok(),
        "callable" => matches!(
            value,
            Value::Undefined(_)
                | Value::Macro(_)
                | Value::Function(_)
                | Value::Method(_)
                | Value::Joiner(_)
                | Value::Loop(_)
        ),
        "odd" => divides(run, value, Value::Int(2))? == Some(1.0),
        "even" => divides(run, value, Value::Int(2))? == Some(0.0),
        "lower" => all_case(&text(value, budget)?, false),
        "upper" => all_case(&text(value, budget)?, true),
        "filter" => value.text().is_some_and(is_filter),
        _ => value.text().is_some_and(is_test),
    })
}

/// The remainder of a division, if it is a number.
fn divides(run: &Run, value: &Value, by: Value) -> Res<Option<f64>> {
    Ok(super::format::as_float(&operators::math(run, Math::Mod, value, &by)?))
}
