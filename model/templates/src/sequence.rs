//! Values with items: iteration, search, slices, sorting.

use std::cmp::Ordering;

use super::{
    budget::Budget,
    fail::{Res, fail},
    value::{Iter, Value, View, order, same},
};

/// The items of `value`; an error if it has none.
pub(super) fn iterate(value: &Value, budget: &Budget) -> Res<Iter> {
    let (len, iter) = match value {
        Value::Undefined(_) => (0, Iter::Empty),
        Value::Str(s) => (s.len(), Iter::Chars(s.clone(), 0)),
        Value::Markup(_) => return fail("the characters of escaped text, which are not supported"),
        Value::List(items) | Value::Tuple(items) => (items.items.len(), Iter::Items(items.clone(), 0)),
        Value::Range(range) => (range.len(), Iter::Range(*range, 0)),
        Value::Dict(dict) => (dict.pairs.len(), Iter::Dict(dict.clone(), View::Keys, 0)),
        Value::View(dict, view) => (dict.pairs.len(), Iter::Dict(dict.clone(), *view, 0)),
        Value::Generator(generator) => (generator.rest.borrow().len(), Iter::Generator(generator.clone())),
        Value::Loop(_) => return fail("a loop's items read through the loop, which is not supported"),
        _ => return fail(format!("expected a value with items, got a {}", value.kind())),
    };
    budget.work(32 * len)?;
    Ok(iter)
}

impl Iterator for Iter {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        match self {
            Self::Items(items, at) => {
                *at += 1;
                items.items.get(*at - 1).cloned()
            }
            Self::Chars(text, at) => {
                let c = text[*at..].chars().next()?;
                *at += c.len_utf8();
                Some(Value::str(c.encode_utf8(&mut [0; 4])))
            }
            Self::Range(range, at) => {
                *at += 1;
                (*at <= range.len()).then(|| range.at(*at - 1))
            }
            Self::Dict(dict, view, at) => {
                let (key, value) = dict.pairs.get(*at)?;
                *at += 1;
                Some(match view {
                    View::Keys => key.clone(),
                    View::Values => value.clone(),
                    View::Items => Value::pair(key.clone(), value.clone()),
                })
            }
            Self::Generator(generator) => generator.rest.try_borrow_mut().ok()?.pop_front(),
            Self::Empty => None,
        }
    }
}

/// All items of `value`.
pub(super) fn collect(value: &Value, budget: &Budget) -> Res<Vec<Value>> {
    Ok(iterate(value, budget)?.collect())
}

/// `len(value)`.
pub(super) fn length(value: &Value, budget: &Budget) -> Res<usize> {
    Ok(match value {
        Value::Undefined(_) => 0,
        Value::Str(s) | Value::Markup(s) => {
            budget.work(s.len())?;
            s.chars().count()
        }
        Value::List(items) | Value::Tuple(items) => items.items.len(),
        Value::Dict(dict) | Value::View(dict, _) => dict.pairs.len(),
        Value::Range(range) => range.len(),
        _ => return fail(format!("expected a value with a length, got a {}", value.kind())),
    })
}

/// `item in value`.
pub(super) fn contains(value: &Value, item: &Value, budget: &Budget) -> Res<bool> {
    match value {
        Value::Str(text) | Value::Markup(text) => match item.text() {
            Some(part) => {
                budget.work(text.len() + part.len())?;
                Ok(text.contains(part))
            }
            None => fail(format!("expected a text to search for in a text, got a {}", item.kind())),
        },
        Value::Dict(_) | Value::View(_, View::Keys) if !item.hashable() => {
            fail(format!("a key of type {}, which Python cannot hash", item.kind()))
        }
        Value::Dict(dict) | Value::View(dict, View::Keys) => Ok(dict.get(item, budget)?.is_some()),
        Value::Range(range) if item.whole().is_some() => {
            let i = i128::from(item.whole().unwrap_or_default());
            let (start, stop, step) = (i128::from(range.start), i128::from(range.stop), i128::from(range.step));
            let within = if step > 0 { start <= i && i < stop } else { stop < i && i <= start };
            Ok(within && (i - start) % step == 0)
        }
        _ => {
            for other in iterate(value, budget)? {
                if same(&other, item, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// The index of item `i` of `len`; negative ones count from the end.
fn place(i: i64, len: usize) -> Option<usize> {
    let i = usize::try_from(if i < 0 { i.checked_add(i64::try_from(len).ok()?)? } else { i }).ok()?;
    (i < len).then_some(i)
}

/// `value[key]`; None if there is no such item.
pub(super) fn item(value: &Value, key: &Value, budget: &Budget) -> Res<Option<Value>> {
    Ok(match value {
        Value::Dict(dict) => dict.get(key, budget)?.cloned(),
        Value::List(items) | Value::Tuple(items) => {
            key.whole().and_then(|i| Some(items.items[place(i, items.items.len())?].clone()))
        }
        Value::Range(range) => key.whole().and_then(|i| Some(range.at(place(i, range.len())?))),
        Value::Str(text) => match key.whole() {
            Some(i) => {
                budget.work(2 * text.len())?;
                let at = place(i, text.chars().count());
                at.and_then(|at| text.chars().nth(at)).map(|c| Value::str(c.encode_utf8(&mut [0; 4])))
            }
            None => None,
        },
        Value::Markup(_) if key.whole().is_some() => {
            return fail("a character of escaped text, which is not supported");
        }
        _ => None,
    })
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: &Value, parts: [Option<Value>; 3], budget: &Budget) -> Res<Value> {
    let mut bounds = [None; 3];
    for (bound, part) in bounds.iter_mut().zip(&parts) {
        *bound = match part {
            None | Some(Value::None) => None,
            Some(part) => match part.whole() {
                Some(i) => Some(i),
                None => return fail(format!("expected an integer in a slice, got {}", part.kind())),
            },
        };
    }
    if bounds[2] == Some(0) {
        return fail("expected a step in a slice, got 0");
    }
    match value {
        Value::Str(text) => {
            budget.work(8 * text.len())?;
            let chars: Vec<char> = text.chars().collect();
            let kept: String = indices(bounds, chars.len()).map(|i| chars[i]).collect();
            Ok(Value::str(kept))
        }
        Value::List(items) | Value::Tuple(items) => {
            let kept = indices(bounds, items.items.len()).map(|i| items.items[i].clone()).collect();
            if matches!(value, Value::List(_)) { Value::list(kept, budget) } else { Value::tuple(kept, budget) }
        }
        Value::Range(_) => fail("a slice of a range, which is not supported"),
        Value::Undefined(name) => fail(format!("a slice of {name}, which is undefined")),
        _ => fail(format!("expected a value with slices, got a {}", value.kind())),
    }
}

/// The indices of a slice of `len` items.
fn indices([start, stop, step]: [Option<i64>; 3], len: usize) -> impl Iterator<Item = usize> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let step = step.unwrap_or(1);
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |i: Option<i64>, default: i64| match i {
        None => default,
        Some(i) if i < 0 => i.saturating_add(len).clamp(low, high),
        Some(i) => i.clamp(low, high),
    };
    let first = clamp(start, if step > 0 { low } else { high });
    let end = clamp(stop, if step > 0 { high } else { low });
    std::iter::successors(Some(first), move |i| i.checked_add(step))
        .take_while(move |i| if step > 0 { *i < end } else { *i > end })
        .filter_map(|i| usize::try_from(i).ok())
}

/// Sorts `items` by their `keys`, stable, like Python's `sorted`.
pub(super) fn sort<T>(keys: Vec<Value>, items: Vec<T>, reverse: bool, budget: &Budget) -> Res<Vec<T>> {
    let mut pairs: Vec<Option<(Value, T)>> = keys.into_iter().zip(items).map(Some).collect();
    let mut width = 1;
    // The standard library's sort does not support comparisons that fail.
    while width < pairs.len() {
        let mut merged = Vec::with_capacity(pairs.len());
        for start in (0..pairs.len()).step_by(2 * width) {
            let middle = (start + width).min(pairs.len());
            let end = (start + 2 * width).min(pairs.len());
            let (mut left, mut right) = (start, middle);
            while left < middle || right < end {
                let take_right = match (pairs.get(left), pairs.get(right)) {
                    (Some(Some((a, _))), Some(Some((b, _)))) if left < middle && right < end => {
                        let (a, b) = if reverse { (b, a) } else { (a, b) };
                        less(b, a, budget)?
                    }
                    _ => left >= middle,
                };
                let at = if take_right { &mut right } else { &mut left };
                merged.push(pairs[*at].take());
                *at += 1;
            }
        }
        pairs = merged;
        width *= 2;
    }
    Ok(pairs.into_iter().flatten().map(|(_, item)| item).collect())
}

/// `a < b`.
pub(super) fn less(a: &Value, b: &Value, budget: &Budget) -> Res<bool> {
    Ok(order(a, b, budget)? == Some(Ordering::Less))
}
