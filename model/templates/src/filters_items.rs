//! Filters for lists, dictionaries and other values with items.

use super::{
    arguments::{Arguments, bind, whole},
    attributes::{Attribute, attribute},
    checks::check,
    fail::{Res, fail},
    operators::math,
    print::text,
    run::Run,
    sequence::{collect, iterate, less, sort},
    syntax::Math,
    value::{Value, same},
};

/// `value|name(args)`.
pub(super) fn apply(run: &Run, name: &str, value: &Value, args: Arguments) -> Res<Value> {
    let budget = &run.budget;
    match name {
        "list" => {
            let [] = bind(name, [], 0, args)?;
            Value::list(collect(value, budget)?, budget)
        }
        "first" => {
            let [] = bind(name, [], 0, args)?;
            Ok(iterate(value, budget)?.next().unwrap_or_else(|| Value::undefined("the first item of nothing")))
        }
        "last" => {
            let [] = bind(name, [], 0, args)?;
            reversible(name, value)?;
            let last = collect(value, budget)?.pop();
            Ok(last.unwrap_or_else(|| Value::undefined("the last item of nothing")))
        }
        "reverse" => {
            let [] = bind(name, [], 0, args)?;
            let mut items = collect(value, budget)?;
            items.reverse();
            match value {
                Value::Str(_) => {
                    let text: String = items.iter().filter_map(Value::text).collect();
                    Ok(Value::str(text))
                }
                Value::Generator(_) => Value::list(items, budget),
                _ => Value::generator(items, budget),
            }
        }
        "items" => {
            let [] = bind(name, [], 0, args)?;
            match value {
                Value::Undefined(_) => Value::generator(Vec::new(), budget),
                Value::Dict(dict) => {
                    let pairs = dict.pairs.iter().map(|(key, value)| Value::pair(key.clone(), value.clone()));
                    Value::generator(pairs.collect(), budget)
                }
                _ => fail(format!("items: expected a dictionary, got {}", value.kind())),
            }
        }
        "join" => join(run, value, args),
        "attr" => {
            let [name] = bind(name, ["name"], 1, args)?;
            let Some(Value::Str(name)) = name else { return fail("attr: expected a text") };
            Ok(match attribute(run, value, &name)? {
                Attribute::Value(found) => found,
                _ => Value::undefined(name),
            })
        }
        "select" | "reject" | "selectattr" | "rejectattr" => select(run, name, value, args),
        "sort" => {
            let [reverse, case, attribute] = bind(name, ["reverse", "case_sensitive", "attribute"], 0, args)?;
            let getter = Getter::several(run, attribute, !truth(case))?;
            let items = collect(value, budget)?;
            let keys: Res<Vec<Value>> = items.iter().map(|item| getter.get(run, item)).collect();
            Value::list(sort(keys?, items, truth(reverse), budget)?, budget)
        }
        "dictsort" => dictsort(run, value, args),
        "unique" => {
            let [case, attribute] = bind(name, ["case_sensitive", "attribute"], 0, args)?;
            let getter = Getter::one(run, attribute, !truth(case), None)?;
            let mut seen: Vec<Value> = Vec::new();
            let mut kept = Vec::new();
            'items: for item in iterate(value, budget)? {
                let key = getter.get(run, &item)?;
                if !key.hashable() {
                    return fail(format!("unique: a value of type {}, which Python cannot hash", key.kind()));
                }
                for other in &seen {
                    if same(other, &key, budget)? {
                        continue 'items;
                    }
                }
                seen.push(key);
                kept.push(item);
            }
            Value::generator(kept, budget)
        }
        "min" | "max" => {
            let [case, attribute] = bind(name, ["case_sensitive", "attribute"], 0, args)?;
            let getter = Getter::one(run, attribute, !truth(case), None)?;
            let mut best: Option<(Value, Value)> = None;
            for item in iterate(value, budget)? {
                let key = getter.get(run, &item)?;
                let better = match &best {
                    None => true,
                    Some((known, _)) if name == "min" => less(&key, known, budget)?,
                    Some((known, _)) => less(known, &key, budget)?,
                };
                if better {
                    best = Some((key, item));
                }
            }
            Ok(best.map_or_else(|| Value::undefined("the aggregate of nothing"), |(_, item)| item))
        }
        "sum" => {
            let [attribute, start] = bind(name, ["attribute", "start"], 0, args)?;
            let getter = Getter::one(run, attribute, false, None)?;
            let mut total = start.unwrap_or(Value::Int(0));
            if total.text().is_some() {
                return fail("sum: expected a start value that is no text");
            }
            for item in iterate(value, budget)? {
                total = math(run, Math::Add, &total, &getter.get(run, &item)?)?;
            }
            Ok(total)
        }
        "groupby" => groupby(run, value, args),
        "batch" => batch(run, value, args),
        _ => slice(run, value, args),
    }
}

fn truth(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.truth())
}

fn reversible(what: &str, value: &Value) -> Res<()> {
    match value {
        Value::Generator(_) => fail(format!("{what}: a generator, which has no end to start from")),
        _ => Ok(()),
    }
}

/// Reads an item's attribute, for example `a.b.0`, for filters with such an argument.
pub(super) struct Getter {
    /// Several attributes, if the argument contains commas.
    parts: Vec<Vec<Value>>,
    several: bool,
    lower: bool,
    default: Option<Value>,
}

impl Getter {
    pub(super) fn one(run: &Run, attribute: Option<Value>, lower: bool, default: Option<Value>) -> Res<Self> {
        let default = default.filter(|default| !matches!(default, Value::None));
        Ok(Self { parts: vec![parts(run, attribute)?], several: false, lower, default })
    }

    fn several(run: &Run, attribute: Option<Value>, lower: bool) -> Res<Self> {
        let parts = match &attribute {
            Some(Value::Str(text)) => {
                run.budget.work(64 * text.len())?;
                text.split(',').map(|part| parts(run, Some(Value::str(part)))).collect::<Res<_>>()?
            }
            _ => vec![parts(run, attribute)?],
        };
        Ok(Self { parts, several: true, lower, default: None })
    }

    pub(super) fn get(&self, run: &Run, item: &Value) -> Res<Value> {
        let mut keys = Vec::with_capacity(self.parts.len());
        for parts in &self.parts {
            let mut value = item.clone();
            for part in parts {
                run.budget.step()?;
                value = run.item(&value, part)?;
                if let (Value::Undefined(_), Some(default)) = (&value, &self.default) {
                    value = default.clone();
                }
            }
            if let (true, Some(text)) = (self.lower, value.text()) {
                run.budget.work(2 * text.len())?;
                value = Value::str(text.to_lowercase());
            }
            keys.push(value);
        }
        match keys.pop() {
            Some(key) if !self.several => Ok(key),
            last => {
                keys.extend(last);
                Value::list(keys, &run.budget)
            }
        }
    }
}

fn parts(run: &Run, attribute: Option<Value>) -> Res<Vec<Value>> {
    match attribute {
        None | Some(Value::None) => Ok(Vec::new()),
        Some(Value::Str(text)) => {
            run.budget.work(64 * text.len())?;
            let part = |part: &str| match part.parse() {
                Ok(i) if part.bytes().all(|b| b.is_ascii_digit()) => Value::Int(i),
                _ => Value::str(part),
            };
            Ok(text.split('.').map(part).collect())
        }
        Some(other) => Ok(vec![other]),
    }
}

fn join(run: &Run, value: &Value, args: Arguments) -> Res<Value> {
    let [separator, attribute] = bind("join", ["d", "attribute"], 0, args)?;
    let separator = separator.map_or_else(|| Ok("".into()), |separator| text(&separator, &run.budget))?;
    let getter = Getter::one(run, attribute, false, None)?;
    let mut out = String::new();
    for (i, item) in iterate(value, &run.budget)?.enumerate() {
        let text = text(&getter.get(run, &item)?, &run.budget)?;
        run.budget.work(separator.len() + text.len())?;
        if i > 0 {
            out += &separator;
        }
        out += &text;
    }
    Ok(Value::str(out))
}

fn select(run: &Run, filter: &str, value: &Value, args: Arguments) -> Res<Value> {
    let mut kept = Vec::new();
    if value.truth() {
        let mut positional = args.positional.into_iter();
        let attribute = if filter.ends_with("attr") {
            match positional.next() {
                None => return fail(format!("{filter}: expected an attribute")),
                attribute => attribute,
            }
        } else {
            None
        };
        let getter = Getter::one(run, attribute, false, None)?;
        let test = match positional.next() {
            None => None,
            Some(Value::Str(name)) => Some(name),
            Some(other) => return fail(format!("{filter}: expected a test's name, got {}", other.kind())),
        };
        let rest: Vec<Value> = positional.collect();
        for item in iterate(value, &run.budget)? {
            run.budget.step()?;
            let got = getter.get(run, &item)?;
            let passes = match &test {
                None => got.truth(),
                Some(name) => {
                    check(run, name, &got, Arguments { positional: rest.clone(), named: args.named.clone() })?
                }
            };
            if passes == filter.starts_with("select") {
                kept.push(item);
            }
        }
    }
    Value::generator(kept, &run.budget)
}

fn dictsort(run: &Run, value: &Value, args: Arguments) -> Res<Value> {
    let budget = &run.budget;
    let [case, by, reverse] = bind("dictsort", ["case_sensitive", "by", "reverse"], 0, args)?;
    let by = match &by {
        None => 0,
        Some(Value::Str(by)) if &**by == "key" => 0,
        Some(Value::Str(by)) if &**by == "value" => 1,
        Some(_) => return fail("dictsort: expected \"key\" or \"value\" to sort by"),
    };
    let Value::Dict(dict) = value else {
        return fail(format!("dictsort: expected a dictionary, got {}", value.kind()));
    };
    let getter = Getter::one(run, Some(Value::Int(by)), !truth(case), None)?;
    let pairs: Vec<Value> = dict.pairs.iter().map(|(key, value)| Value::pair(key.clone(), value.clone())).collect();
    let keys: Res<Vec<Value>> = pairs.iter().map(|pair| getter.get(run, pair)).collect();
    Value::list(sort(keys?, pairs, truth(reverse), budget)?, budget)
}

fn groupby(run: &Run, value: &Value, args: Arguments) -> Res<Value> {
    let budget = &run.budget;
    let [attribute, default, case] = bind("groupby", ["attribute", "default", "case_sensitive"], 1, args)?;
    let lower = !truth(case);
    let getter = Getter::one(run, attribute.clone(), lower, default.clone())?;
    let plain = Getter::one(run, attribute, false, default)?;
    let items = collect(value, budget)?;
    let keys: Res<Vec<Value>> = items.iter().map(|item| getter.get(run, item)).collect();
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for item in sort(keys?, items, false, budget)? {
        let key = getter.get(run, &item)?;
        match groups.last_mut() {
            Some((known, group)) if same(known, &key, budget)? => group.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let groups: Res<Vec<Value>> = groups
        .into_iter()
        .map(|(key, group)| {
            let key = if lower { plain.get(run, &group[0])? } else { key };
            Value::group(key, Value::list(group, budget)?, budget)
        })
        .collect();
    Value::list(groups?, budget)
}

/// A number of parts, or of items per part.
fn count(what: &str, value: Option<Value>) -> Res<usize> {
    match usize::try_from(whole(what, value, 0)?) {
        Ok(n) if (1..=10_000).contains(&n) => Ok(n),
        _ => fail(format!("{what}: expected a number between 1 and 10000")),
    }
}

fn batch(run: &Run, value: &Value, args: Arguments) -> Res<Value> {
    let [size, fill] = bind("batch", ["linecount", "fill_with"], 1, args)?;
    let size = count("batch", size)?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let items = collect(value, &run.budget)?;
    let mut parts = Vec::new();
    for part in items.chunks(size) {
        let mut part = part.to_vec();
        if let Some(fill) = &fill {
            part.resize(size, fill.clone());
        }
        parts.push(Value::list(part, &run.budget)?);
    }
    Value::generator(parts, &run.budget)
}

fn slice(run: &Run, value: &Value, args: Arguments) -> Res<Value> {
    let [slices, fill] = bind("slice", ["slices", "fill_with"], 1, args)?;
    let slices = count("slice", slices)?;
    let items = collect(value, &run.budget)?;
    let (size, longer) = (items.len() / slices, items.len() % slices);
    let mut rest = items.into_iter();
    let mut parts = Vec::new();
    for i in 0..slices {
        let mut part: Vec<Value> = rest.by_ref().take(size + usize::from(i < longer)).collect();
        if let Some(fill) = fill.as_ref().filter(|fill| !matches!(fill, Value::None) && i >= longer) {
            part.push(fill.clone());
        }
        parts.push(Value::list(part, &run.budget)?);
    }
    Value::generator(parts, &run.budget)
}
