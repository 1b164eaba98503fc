//! Python's operators.

use std::cmp::Ordering;

use super::{
    budget::Budget,
    fail::{Res, fail},
    format::{as_float, percent},
    run::Run,
    sequence::{contains, less},
    syntax::{Compare, Math},
    value::{Value, order, same},
};

/// `a op b`.
pub(super) fn compare(op: Compare, a: &Value, b: &Value, budget: &Budget) -> Res<bool> {
    match op {
        Compare::Equal => same(a, b, budget),
        Compare::NotEqual => Ok(!same(a, b, budget)?),
        Compare::Less => less(a, b, budget),
        Compare::LessEqual => at_most(a, b, budget),
        Compare::Greater => less(b, a, budget),
        Compare::GreaterEqual => at_most(b, a, budget),
        Compare::In => contains(b, a, budget),
        Compare::NotIn => Ok(!contains(b, a, budget)?),
    }
}

/// `a <= b`.
pub(super) fn at_most(a: &Value, b: &Value, budget: &Budget) -> Res<bool> {
    Ok(matches!(order(a, b, budget)?, Some(Ordering::Less | Ordering::Equal)))
}

/// `-value` or `+value`.
pub(super) fn sign(value: &Value, minus: bool) -> Res<Value> {
    match value {
        Value::Float(f) => Ok(Value::Float(if minus { -f } else { *f })),
        _ => match value.whole().and_then(|i| if minus { i.checked_neg() } else { Some(i) }) {
            Some(i) => Ok(Value::Int(i)),
            None => fail(format!("expected a number of 64 bits after a sign, got {}", described(value))),
        },
    }
}

/// A value, for an error message.
fn described(value: &Value) -> String {
    match value {
        Value::Undefined(name) => format!("{name}, which is undefined"),
        _ => format!("a value of type {}", value.kind()),
    }
}

/// `a op b`.
pub(super) fn math(run: &Run, op: Math, a: &Value, b: &Value) -> Res<Value> {
    let budget = &run.budget;
    match (op, a, b) {
        (Math::Add, Value::Str(a), Value::Str(b)) => {
            budget.work(a.len() + b.len())?;
            return Ok(Value::str([&**a, &**b].concat()));
        }
        (Math::Add, Value::List(a), Value::List(b)) => {
            budget.work(32 * (a.items.len() + b.items.len()))?;
            return Value::list([&*a.items, &*b.items].concat(), budget);
        }
        (Math::Add, Value::Tuple(a), Value::Tuple(b)) => {
            budget.work(32 * (a.items.len() + b.items.len()))?;
            return Value::tuple([&*a.items, &*b.items].concat(), budget);
        }
        (Math::Mod, Value::Str(template), _) => return percent(run, template, b),
        (Math::Mul, Value::Str(_) | Value::List(_) | Value::Tuple(_), _) if b.whole().is_some() => {
            return repeat(a, b.whole().unwrap_or_default(), budget);
        }
        (Math::Mul, _, Value::Str(_) | Value::List(_) | Value::Tuple(_)) if a.whole().is_some() => {
            return repeat(b, a.whole().unwrap_or_default(), budget);
        }
        _ => {}
    }
    if let (Some(a), Some(b)) = (a.whole(), b.whole()) {
        return wholes(op, a, b);
    }
    match (as_float(a), as_float(b)) {
        (Some(a), Some(b)) => floats(op, a, b),
        _ if matches!(a, Value::Markup(_)) || matches!(b, Value::Markup(_)) => {
            fail("an operation on escaped text, which is not supported")
        }
        _ => fail(format!("an operation between {} and {}, which Python does not have", described(a), described(b))),
    }
}

fn repeat(value: &Value, times: i64, budget: &Budget) -> Res<Value> {
    let times = usize::try_from(times).unwrap_or(0);
    match value {
        Value::Str(text) => {
            budget.work(text.len().saturating_mul(times))?;
            Ok(Value::str(text.repeat(times)))
        }
        Value::List(items) | Value::Tuple(items) => {
            budget.work(items.items.len().saturating_mul(times).saturating_mul(32))?;
            let mut all = Vec::with_capacity(items.items.len() * times);
            for _ in 0..if items.items.is_empty() { 0 } else { times } {
                all.extend_from_slice(&items.items);
            }
            if matches!(value, Value::List(_)) { Value::list(all, budget) } else { Value::tuple(all, budget) }
        }
        _ => fail("expected a text or a list to repeat, got another value"),
    }
}

fn wholes(op: Math, a: i64, b: i64) -> Res<Value> {
    if b == 0 && matches!(op, Math::Div | Math::FloorDiv | Math::Mod) {
        return fail("a division by 0");
    }
    // Larger integers are not exact as floats.
    let exact = |i: i64| i.unsigned_abs() <= 1 << 53;
    let result = match op {
        Math::Add => a.checked_add(b),
        Math::Sub => a.checked_sub(b),
        Math::Mul => a.checked_mul(b),
        Math::Div if exact(a) && exact(b) => return Ok(Value::Float(a as f64 / b as f64)),
        Math::Div => None,
        Math::FloorDiv => a.checked_div(b).map(|q| if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q }),
        Math::Mod => a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r }),
        Math::Pow if b < 0 => return floats(op, a as f64, b as f64),
        Math::Pow => match (a, u32::try_from(b)) {
            (_, Ok(b)) => a.checked_pow(b),
            (0 | 1, Err(_)) => Some(a),
            _ => None,
        },
    };
    match result {
        Some(i) => Ok(Value::Int(i)),
        None => fail("an integer of more than 64 bits, which is not supported"),
    }
}

fn floats(op: Math, a: f64, b: f64) -> Res<Value> {
    if b == 0.0 && matches!(op, Math::Div | Math::FloorDiv | Math::Mod) || a == 0.0 && b < 0.0 && op == Math::Pow {
        return fail("a division by 0");
    }
    let remainder = || {
        let r = a % b;
        if r == 0.0 {
            0.0_f64.copysign(b)
        } else if (r < 0.0) != (b < 0.0) {
            r + b
        } else {
            r
        }
    };
    Ok(Value::Float(match op {
        Math::Add => a + b,
        Math::Sub => a - b,
        Math::Mul => a * b,
        Math::Div => a / b,
        Math::Mod => remainder(),
        Math::FloorDiv => {
            let quotient = (a - remainder()) / b;
            let floor = quotient.floor();
            if quotient == 0.0 {
                0.0_f64.copysign(a / b)
            } else if quotient - floor > 0.5 {
                floor + 1.0
            } else {
                floor
            }
        }
        Math::Pow if a < 0.0 && b.fract() != 0.0 => return fail("a root of a negative number"),
        Math::Pow => {
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return fail("a power that is too large");
            }
            power
        }
    }))
}
