//! Functions that a template can call by name.

use std::{cell::Cell, cell::RefCell, rc::Rc};

use super::{
    arguments::{Arguments, bind, whole},
    clock,
    fail::{Res, fail},
    print::text,
    run::Run,
    sequence::collect,
    strftime::strftime,
    value::{Cycler, DEEPEST, Joiner, Namespace, Range, Value, View},
};

/// Maximum length of a range in the sandbox.
const LONGEST_RANGE: usize = 100_000;

/// The function of this name.
pub(super) fn named(name: &str) -> Option<Value> {
    let names = "range dict namespace cycler joiner lipsum raise_exception strftime_now";
    names.split(' ').find(|known| *known == name).map(Value::Function)
}

/// Calls a function.
pub(super) fn call(run: &Run, name: &str, args: Arguments) -> Res<Value> {
    let budget = &run.budget;
    match name {
        "range" => range(args),
        "dict" => Value::dict(pairs(run, "dict", args)?, budget),
        "namespace" => namespace(run, args),
        "cycler" => {
            if args.positional.is_empty() || !args.named.is_empty() {
                return fail("cycler: expected positional arguments only");
            }
            let Value::Tuple(items) = Value::tuple(args.positional, budget)? else {
                return fail("cycler: expected values");
            };
            Ok(Value::Cycler(Rc::new(Cycler { items, at: Cell::new(0) })))
        }
        "joiner" => {
            let [separator] = bind("joiner", ["sep"], 0, args)?;
            let separator = separator.unwrap_or_else(|| Value::str(", "));
            if separator.items().is_some() || separator.text().is_none() {
                return fail("joiner: expected a text");
            }
            Ok(Value::Joiner(Rc::new(Joiner { separator, used: Cell::new(false) })))
        }
        "lipsum" => fail("lipsum: random text, which is not supported"),
        "raise_exception" => {
            let [message] = bind("raise_exception", ["message"], 1, args)?;
            let message = text(&message.unwrap_or(Value::None), budget)?;
            fail(format!("the template raised an error: {message}"))
        }
        _ => {
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
        return fail(format!("{what}: expected at most 1 positional argument"));
    }
    pairs.extend(args.named.into_iter().map(|(name, value)| (Value::str(name), value)));
    Ok(pairs)
}

fn namespace(run: &Run, args: Arguments) -> Res<Value> {
    let Value::Dict(dict) = Value::dict(pairs(run, "namespace", args)?, &run.budget)? else {
        return fail("namespace: expected pairs");
    };
    let namespace = Rc::new(Namespace { attributes: RefCell::new(Vec::new()) });
    run.namespaces.borrow_mut().push(namespace.clone());
    for (key, value) in &dict.pairs {
        let Value::Str(key) = key else {
            return fail("namespace: expected texts as names");
        };
        assign(run, &namespace, key, value.clone())?;
    }
    Ok(Value::Namespace(namespace))
}

/// Sets an attribute of a namespace.
pub(super) fn assign(run: &Run, namespace: &Namespace, name: &str, value: Value) -> Res<()> {
    if name.starts_with('_') {
        return fail(format!("the attribute {name:?} of a namespace: expected one without an underscore"));
    }
    if value.depth() >= DEEPEST {
        return fail("a loop stored in a namespace, or values nested too deeply");
    }
    let mut attributes = namespace.attributes.borrow_mut();
    run.budget.work(attributes.len() + 64)?;
    match attributes.iter_mut().find(|(known, _)| &**known == name) {
        Some((_, old)) => *old = value,
        None => attributes.push((name.into(), value)),
    }
    Ok(())
}
