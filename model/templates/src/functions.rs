//! What a template can call by name.

use std::{cell::Cell, cell::RefCell, rc::Rc};

use super::{
    arguments::{Arguments, bind, whole},
    clock,
    fail::{Res, fail},
    interpret::Run,
    print::text,
    sequence::collect,
    strftime::strftime,
    value::{Cycler, Joiner, Namespace, Range, Value, View},
};

/// Longest range that the sandbox allows.
const LONGEST_RANGE: usize = 100_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    Lipsum,
    RaiseException,
    StrftimeNow,
}

impl Function {
    /// The function of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "range" => Self::Range,
            "dict" => Self::Dict,
            "namespace" => Self::Namespace,
            "cycler" => Self::Cycler,
            "joiner" => Self::Joiner,
            "lipsum" => Self::Lipsum,
            "raise_exception" => Self::RaiseException,
            "strftime_now" => Self::StrftimeNow,
            _ => return None,
        })
    }

    pub(super) fn call(self, run: &Run, args: Arguments) -> Res<Value> {
        let budget = &run.budget;
        match self {
            Self::Range => range(args),
            Self::Dict => Value::dict(pairs(run, "dict", args)?, budget),
            Self::Namespace => namespace(run, args),
            Self::Cycler => {
                if args.positional.is_empty() || !args.named.is_empty() {
                    return fail("cycler: expected values, each without a name");
                }
                let Value::Tuple(items) = Value::tuple(args.positional, budget)? else {
                    return fail("cycler: expected values");
                };
                Ok(Value::Cycler(Rc::new(Cycler { items, at: Cell::new(0) })))
            }
            Self::Joiner => {
                let [separator] = bind("joiner", ["sep"], 0, args)?;
                let separator = separator.unwrap_or_else(|| Value::str(", "));
                if separator.items().is_some() || separator.text().is_none() {
                    return fail("joiner: expected a text");
                }
                Ok(Value::Joiner(Rc::new(Joiner { separator, used: Cell::new(false) })))
            }
            Self::Lipsum => fail("lipsum: random text, which is not supported"),
            Self::RaiseException => {
                let [message] = bind("raise_exception", ["message"], 1, args)?;
                let message = text(&message.unwrap_or(Value::None), budget)?;
                fail(format!("its own error: {message}"))
            }
            Self::StrftimeNow => {
                let [format] = bind("strftime_now", ["format"], 1, args)?;
                match format {
                    Some(Value::Str(format)) => {
                        budget.work(64 * format.len())?;
                        Ok(Value::str(strftime(&format, &clock::now())?))
                    }
                    _ => fail("strftime_now: expected a text"),
                }
            }
        }
    }
}

fn range(args: Arguments) -> Res<Value> {
    let [a, b, step] = bind("range", ["*start", "*stop", "*step"], 1, args)?;
    let (start, stop) = if b.is_some() { (a, b) } else { (None, a) };
    let step = whole("range", step, 1)?;
    if step == 0 {
        return fail("range: expected a step, got 0");
    }
    let range = Range { start: whole("range", start, 0)?, stop: whole("range", stop, 0)?, step };
    if range.len() > LONGEST_RANGE {
        return fail(format!("range: expected at most {LONGEST_RANGE} numbers, got {}", range.len()));
    }
    Ok(Value::Range(range))
}

/// The arguments of Python's `dict`.
fn pairs(run: &Run, what: &str, args: Arguments) -> Res<Vec<(Value, Value)>> {
    let budget = &run.budget;
    let mut positional = args.positional.into_iter();
    let mut pairs = match positional.next() {
        None => Vec::new(),
        Some(Value::Dict(dict) | Value::View(dict, View::Items)) => {
            budget.work(64 * dict.pairs.len())?;
            dict.pairs.clone()
        }
        Some(items) => {
            let mut pairs = Vec::new();
            for item in collect(&items, budget)? {
                match <[Value; 2]>::try_from(collect(&item, budget)?) {
                    Ok([key, value]) => pairs.push((key, value)),
                    Err(_) => return fail(format!("{what}: expected pairs")),
                }
            }
            pairs
        }
    };
    if positional.next().is_some() {
        return fail(format!("{what}: expected at most 1 value without a name"));
    }
    pairs.extend(args.named.into_iter().map(|(name, value)| (Value::str(name), value)));
    Ok(pairs)
}

fn namespace(run: &Run, args: Arguments) -> Res<Value> {
    let Value::Dict(dict) = Value::dict(pairs(run, "namespace", args)?, &run.budget)? else {
        return fail("namespace: expected pairs");
    };
    let namespace = Rc::new(Namespace { attributes: RefCell::new(Vec::new()) });
    run.keep_namespace(&namespace);
    for (key, value) in &dict.pairs {
        let Value::Str(key) = key else {
            return fail("namespace: expected texts as names");
        };
        assign(run, &namespace, key, value.clone())?;
    }
    Ok(Value::Namespace(namespace))
}

/// Gives a namespace's attribute a value.
pub(super) fn assign(run: &Run, namespace: &Namespace, name: &str, value: Value) -> Res<()> {
    if name.starts_with('_') {
        return fail(format!("the attribute {name:?} of a namespace: expected one without an underscore"));
    }
    if value.depth() >= super::value::DEEPEST {
        return fail("a loop kept in a namespace, or values nested too deep");
    }
    let mut attributes = namespace.attributes.borrow_mut();
    run.budget.work(attributes.len() + 64)?;
    match attributes.iter_mut().find(|(known, _)| &**known == name) {
        Some((_, old)) => *old = value,
        None => attributes.push((name.into(), value)),
    }
    Ok(())
}
