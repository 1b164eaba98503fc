//! Python's values, and what they refer to: scopes, macros and running loops.
//!
//! Lists and dictionaries are immutable, because the sandbox forbids changes. Each stores its nesting depth, which is
//! at most [`DEEPEST`], so that functions on values may recurse.

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use super::{
    budget::Budget,
    fail::{Res, fail},
    syntax::{For, MacroDef, Name},
};

/// Maximum nesting of lists, tuples and dictionaries.
pub(super) const DEEPEST: usize = 64;

/// A value.
#[derive(Clone)]
pub(super) enum Value {
    /// An undefined value, and its name.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    /// Text marked by `escape` or `safe`. Python treats it specially in operations with other text.
    Markup(Rc<str>),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    Range(Range),
    View(Rc<Dict>, View),
    /// Items that can be read once: the result of `map`, `select` and others.
    Generator(Rc<Generator>),
    Namespace(Rc<Namespace>),
    Cycler(Rc<Cycler>),
    Joiner(Rc<Joiner>),
    Macro(Rc<Macro>),
    Loop(Rc<Loop>),
    /// A function, by its name.
    Function(&'static str),
    /// A bound method.
    Method(Rc<Method>),
}

/// The items of a list or a tuple.
pub(super) struct Items {
    pub(super) items: Vec<Value>,
    depth: usize,
    /// A pair of `groupby`; its two items have names.
    pub(super) group: bool,
}

/// A dictionary, in insertion order.
pub(super) struct Dict {
    pub(super) pairs: Vec<(Value, Value)>,
    depth: usize,
}

/// Python's `range`.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) start: i64,
    pub(super) stop: i64,
    pub(super) step: i64,
}

/// The part of a dictionary that a view shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Keys,
    Values,
    Items,
}

pub(super) struct Generator {
    pub(super) rest: RefCell<VecDeque<Value>>,
    depth: usize,
}

/// The result of `namespace`: the only value that a template can change.
pub(super) struct Namespace {
    pub(super) attributes: RefCell<Vec<(Rc<str>, Value)>>,
}

pub(super) struct Cycler {
    pub(super) items: Rc<Items>,
    pub(super) at: Cell<usize>,
}

pub(super) struct Joiner {
    pub(super) separator: Value,
    pub(super) used: Cell<bool>,
}

pub(super) struct Method {
    pub(super) of: Value,
    pub(super) name: Arc<str>,
}

/// A scope: its variables, and the enclosing scope.
pub(super) struct Scope {
    pub(super) names: RefCell<HashMap<Name, Value>>,
    pub(super) outer: Option<Rc<Scope>>,
}

/// A macro, and the scope that it sees.
pub(super) struct Macro {
    pub(super) def: Arc<MacroDef>,
    pub(super) scope: Rc<Scope>,
}

/// A running loop: the variable `loop` of templates.
pub(super) struct Loop {
    pub(super) def: Arc<For>,
    /// The scope of the loop.
    pub(super) scope: Rc<Scope>,
    pub(super) depth: usize,
    pub(super) state: RefCell<LoopState>,
    /// Number of items taken so far.
    pub(super) index: Cell<usize>,
}

/// The items of a running loop.
pub(super) struct LoopState {
    pub(super) iter: Iter,
    /// Items that were read in advance.
    pub(super) ahead: VecDeque<Value>,
    pub(super) before: Option<Value>,
    pub(super) current: Option<Value>,
    pub(super) changed: Option<Vec<Value>>,
}

/// Iterates over a value's items.
pub(super) enum Iter {
    Items(Rc<Items>, usize),
    Chars(Rc<str>, usize),
    Range(Range, usize),
    Dict(Rc<Dict>, View, usize),
    Generator(Rc<Generator>),
    Empty,
}

impl Scope {
    /// An empty scope inside another one.
    pub(super) fn within(outer: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self { names: RefCell::default(), outer: Some(outer.clone()) })
    }

    pub(super) fn set(&self, name: &Name, value: Value) {
        self.names.borrow_mut().insert(name.clone(), value);
    }

    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some(value) = scope.names.borrow().get(name) {
                return Some(value.clone());
            }
            scope = scope.outer.as_deref()?;
        }
    }
}

impl Range {
    /// Its length.
    pub(super) fn len(self) -> usize {
        let (start, stop, step) = (i128::from(self.start), i128::from(self.stop), i128::from(self.step));
        let span = if step > 0 { stop - start } else { start - stop };
        if span <= 0 { 0 } else { usize::try_from((span - 1) / step.abs() + 1).unwrap_or(usize::MAX) }
    }

    /// Its number `i`.
    pub(super) fn at(self, i: usize) -> Value {
        let i = i64::try_from(i).unwrap_or(i64::MAX);
        Value::Int(self.start.wrapping_add(self.step.wrapping_mul(i)))
    }
}

impl Dict {
    /// The value of `key`.
    pub(super) fn get(&self, key: &Value, budget: &Budget) -> Res<Option<&Value>> {
        for (known, value) in &self.pairs {
            if same(known, key, budget)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The value of a text key.
    pub(super) fn get_text(&self, key: &str, budget: &Budget) -> Res<Option<&Value>> {
        budget.work(self.pairs.len())?;
        Ok(self.pairs.iter().find(|(known, _)| known.text() == Some(key)).map(|(_, value)| value))
    }
}

impl Value {
    pub(super) fn str(text: impl AsRef<str>) -> Self {
        Self::Str(text.as_ref().into())
    }

    pub(super) fn undefined(name: impl AsRef<str>) -> Self {
        Self::Undefined(name.as_ref().into())
    }

    pub(super) fn int(n: usize) -> Self {
        Self::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }

    pub(super) fn list(items: Vec<Self>, budget: &Budget) -> Res<Self> {
        Ok(Self::List(Rc::new(Items::new(items, budget)?)))
    }

    pub(super) fn tuple(items: Vec<Self>, budget: &Budget) -> Res<Self> {
        Ok(Self::Tuple(Rc::new(Items::new(items, budget)?)))
    }

    /// A key and its value from a dictionary. As a pair they nest no deeper than the dictionary.
    pub(super) fn pair(key: Self, value: Self) -> Self {
        let depth = 1 + key.depth().max(value.depth());
        Self::Tuple(Rc::new(Items { items: vec![key, value], depth, group: false }))
    }

    /// A pair of `groupby`.
    pub(super) fn group(key: Self, items: Self, budget: &Budget) -> Res<Self> {
        let pair = Items::new(vec![key, items], budget)?;
        Ok(Self::Tuple(Rc::new(Items { group: true, ..pair })))
    }

    pub(super) fn generator(items: Vec<Self>, budget: &Budget) -> Res<Self> {
        let Items { items, depth, .. } = Items::new(items, budget)?;
        Ok(Self::Generator(Rc::new(Generator { rest: RefCell::new(items.into()), depth })))
    }

    /// A dictionary. Of equal keys, it keeps the first key with the last value.
    pub(super) fn dict(pairs: Vec<(Self, Self)>, budget: &Budget) -> Res<Self> {
        let mut depth = 0;
        let mut unique: Vec<(Self, Self)> = Vec::with_capacity(pairs.len());
        'pairs: for (key, value) in pairs {
            if !key.hashable() {
                return fail(format!("a dictionary's key of type {}, which Python cannot hash", key.kind()));
            }
            depth = depth.max(key.depth()).max(value.depth());
            for (known, old) in &mut unique {
                if same(known, &key, budget)? {
                    *old = value;
                    continue 'pairs;
                }
            }
            budget.work(64)?;
            unique.push((key, value));
        }
        Ok(Self::Dict(Rc::new(Dict { pairs: unique, depth: deeper(depth)? })))
    }

    /// A value from JSON.
    pub(super) fn json(value: &serde_json::Value, budget: &Budget) -> Res<Self> {
        use serde_json::Value as Json;
        Ok(match value {
            Json::Null => Self::None,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(i), _) => Self::Int(i),
                (None, Some(f)) => Self::Float(f),
                (None, None) => return fail(format!("expected a number of 64 bits, got {n}")),
            },
            Json::String(s) => Self::str(s),
            Json::Array(items) => {
                let items: Res<Vec<Self>> = items.iter().map(|item| Self::json(item, budget)).collect();
                Self::list(items?, budget)?
            }
            Json::Object(map) => {
                let pairs: Res<Vec<_>> =
                    map.iter().map(|(key, value)| Ok((Self::str(key), Self::json(value, budget)?))).collect();
                Self::dict(pairs?, budget)?
            }
        })
    }

    /// The text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Str(s) | Self::Markup(s) => Some(s),
            _ => None,
        }
    }

    /// The value as an integer; `True` is 1.
    pub(super) fn whole(&self) -> Option<i64> {
        match self {
            Self::Bool(b) => Some(i64::from(*b)),
            Self::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The items of a list or a tuple.
    pub(super) fn items(&self) -> Option<&Rc<Items>> {
        match self {
            Self::List(items) | Self::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// Python's name of its type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Markup(_) => "Markup",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::View(_, View::Keys) => "dict_keys",
            Self::View(_, View::Values) => "dict_values",
            Self::View(_, View::Items) => "dict_items",
            Self::Generator(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Cycler(_) => "Cycler",
            Self::Joiner(_) => "Joiner",
            Self::Macro(_) => "Macro",
            Self::Loop(_) => "LoopContext",
            Self::Function(_) => "function",
            Self::Method(_) => "method",
        }
    }

    /// Its nesting depth. A value that refers to a loop counts as too deep, so that no value can contain it: loops
    /// refer to values, which would make cycles.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::List(items) | Self::Tuple(items) => items.depth,
            Self::Dict(dict) | Self::View(dict, _) => dict.depth,
            Self::Generator(generator) => generator.depth,
            Self::Cycler(cycler) => cycler.items.depth,
            Self::Joiner(joiner) => joiner.separator.depth(),
            Self::Method(method) => method.of.depth() + 1,
            Self::Loop(_) => DEEPEST,
            _ => 0,
        }
    }

    /// Its truth value in Python.
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(b) => *b,
            Self::Int(i) => *i != 0,
            Self::Float(f) => *f != 0.0,
            Self::Str(s) | Self::Markup(s) => !s.is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.items.is_empty(),
            Self::Dict(dict) | Self::View(dict, _) => !dict.pairs.is_empty(),
            Self::Range(range) => range.len() > 0,
            _ => true,
        }
    }

    /// Whether it can be a dictionary key.
    pub(super) fn hashable(&self) -> bool {
        match self {
            Self::List(_) | Self::Dict(_) | Self::View(..) => false,
            Self::Tuple(items) => items.items.iter().all(Self::hashable),
            _ => true,
        }
    }
}

impl Items {
    fn new(items: Vec<Value>, budget: &Budget) -> Res<Self> {
        budget.work(64 + 32 * items.len())?;
        let depth = deeper(items.iter().map(Value::depth).max().unwrap_or(0))?;
        Ok(Self { items, depth, group: false })
    }
}

fn deeper(depth: usize) -> Res<usize> {
    if depth >= DEEPEST {
        return fail(format!("expected at most {DEEPEST} nested values and no loop inside a value, got more"));
    }
    Ok(depth + 1)
}

/// Whether two values are equal.
pub(super) fn same(a: &Value, b: &Value, budget: &Budget) -> Res<bool> {
    budget.work(1)?;
    if let (Some(a), Some(b)) = (a.text(), b.text()) {
        budget.work(if a.len() == b.len() { a.len() } else { 0 })?;
        return Ok(a == b);
    }
    if let (Some(a), Some(b)) = (a.whole(), b.whole()) {
        return Ok(a == b);
    }
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Float(_), _) | (_, Value::Float(_)) => numbers(a, b) == Some(Some(Ordering::Equal)),
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            if a.items.len() != b.items.len() {
                return Ok(false);
            }
            for (a, b) in a.items.iter().zip(&b.items) {
                if !same(a, b, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.pairs.len() != b.pairs.len() {
                return Ok(false);
            }
            for (key, value) in &a.pairs {
                match b.get(key, budget)? {
                    Some(other) if same(value, other, budget)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Range(a), Value::Range(b)) => {
            let len = a.len();
            len == b.len() && (len == 0 || a.start == b.start && (len == 1 || a.step == b.step))
        }
        (Value::View(..), Value::View(..)) => {
            return fail("a comparison of two dictionary views, which is not supported");
        }
        _ => identical(a, b).unwrap_or(false),
    })
}

/// Whether two values are one object; None if the answer depends on how Python shares numbers and texts.
pub(super) fn identical(a: &Value, b: &Value) -> Option<bool> {
    Some(match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) if a == b => return (-5..=256).contains(a).then_some(true),
        (Value::Float(a), Value::Float(b)) if a == b => return None,
        (Value::Str(a), Value::Str(b)) | (Value::Markup(a), Value::Markup(b)) if a == b => {
            return Rc::ptr_eq(a, b).then_some(true);
        }
        (Value::Tuple(a), Value::Tuple(b)) if a.items.is_empty() && b.items.is_empty() => true,
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Generator(a), Value::Generator(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        (Value::Cycler(a), Value::Cycler(b)) => Rc::ptr_eq(a, b),
        (Value::Joiner(a), Value::Joiner(b)) => Rc::ptr_eq(a, b),
        (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
        (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
        (Value::Function(a), Value::Function(b)) => a == b,
        _ => false,
    })
}

/// The order of two numbers, if both are numbers; the inner None is for NaN.
fn numbers(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => Some(a.partial_cmp(b)),
        (Value::Float(a), b) => b.whole().map(|b| whole_and_float(b, *a).map(Ordering::reverse)),
        (a, Value::Float(b)) => a.whole().map(|a| whole_and_float(a, *b)),
        (a, b) => Some(Some(a.whole()?.cmp(&b.whole()?))),
    }
}

fn whole_and_float(a: i64, b: f64) -> Option<Ordering> {
    // If they are equal after rounding, compares again without rounding.
    match (a as f64).partial_cmp(&b)? {
        Ordering::Equal => Some(i128::from(a).cmp(&(b as i128))),
        other => Some(other),
    }
}

/// The order of two values; None if one is NaN. An error if Python defines no order, for example of a number and a
/// text.
pub(super) fn order(a: &Value, b: &Value, budget: &Budget) -> Res<Option<Ordering>> {
    budget.work(1)?;
    if let (Some(a), Some(b)) = (a.text(), b.text()) {
        budget.work(a.len().min(b.len()))?;
        return Ok(Some(a.cmp(b)));
    }
    if let Some(order) = numbers(a, b) {
        return Ok(order);
    }
    match (a, b) {
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.items.iter().zip(&b.items) {
                if !same(a, b, budget)? {
                    return order(a, b, budget);
                }
            }
            Ok(Some(a.items.len().cmp(&b.items.len())))
        }
        (Value::Undefined(name), _) | (_, Value::Undefined(name)) => fail(format!("{name}, which is undefined")),
        _ => fail(format!("a comparison of {} and {}, which have no order", a.kind(), b.kind())),
    }
}
