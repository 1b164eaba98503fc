//! Evaluates expressions.

use std::rc::Rc;

use super::{
    arguments::{Arguments, bind},
    attributes::{Attribute, attribute, call},
    checks::check,
    fail::{Res, fail},
    filters, functions,
    operators::{compare, math, sign},
    print::text,
    run::Run,
    sequence::{collect, item, slice},
    syntax::{Args, Const, Expr, Math, Suffix},
    value::{Scope, Value},
};

impl Run {
    pub(super) fn eval(&self, expr: &Expr, scope: &Rc<Scope>) -> Res<Value> {
        self.budget.step()?;
        let _level = self.budget.deeper()?;
        Ok(match expr {
            Expr::Const(value) => constant(value),
            Expr::Name(name) => self.lookup(name, scope)?,
            Expr::List(items) => Value::list(self.all(items, scope)?, &self.budget)?,
            Expr::Tuple(items) => Value::tuple(self.all(items, scope)?, &self.budget)?,
            Expr::Dict(pairs) => {
                let pairs: Res<Vec<_>> =
                    pairs.iter().map(|(key, value)| Ok((self.eval(key, scope)?, self.eval(value, scope)?))).collect();
                Value::dict(pairs?, &self.budget)?
            }
            Expr::Cond { test, yes, no } => {
                if self.eval(test, scope)?.truth() {
                    self.eval(yes, scope)?
                } else if let Some(no) = no {
                    self.eval(no, scope)?
                } else {
                    Value::undefined("a condition without \"else\"")
                }
            }
            Expr::Or(operands) => self.first(operands, true, scope)?,
            Expr::And(operands) => self.first(operands, false, scope)?,
            Expr::Not(operand) => Value::Bool(!self.eval(operand, scope)?.truth()),
            Expr::Neg(operand) => sign(&self.eval(operand, scope)?, true)?,
            Expr::Pos(operand) => sign(&self.eval(operand, scope)?, false)?,
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first, scope)?;
                for (op, right) in rest {
                    let right = self.eval(right, scope)?;
                    if !compare(*op, &left, &right, &self.budget)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Value::Bool(true)
            }
            Expr::Math(first, rest) => self.math(first, rest, scope)?,
            Expr::Concat(operands) => {
                let mut out = String::new();
                for value in self.all(operands, scope)? {
                    let text = text(&value, &self.budget)?;
                    self.budget.work(text.len())?;
                    out += &text;
                }
                Value::str(out)
            }
            Expr::Post(base, suffixes) => {
                let value = self.eval(base, scope)?;
                self.suffixes(value, suffixes, scope)?
            }
        })
    }

    fn all(&self, exprs: &[Expr], scope: &Rc<Scope>) -> Res<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr, scope)).collect()
    }

    /// The first operand whose truth value is `truth`, or the last operand.
    fn first(&self, operands: &[Expr], truth: bool, scope: &Rc<Scope>) -> Res<Value> {
        let mut value = Value::None;
        for operand in operands {
            value = self.eval(operand, scope)?;
            if value.truth() == truth {
                break;
            }
        }
        Ok(value)
    }

    fn math(&self, first: &Expr, rest: &[(Math, Expr)], scope: &Rc<Scope>) -> Res<Value> {
        let mut left = self.eval(first, scope)?;
        for (op, right) in rest {
            let right = self.eval(right, scope)?;
            left = math(self, *op, &left, &right)?;
        }
        Ok(left)
    }

    fn suffixes(&self, mut value: Value, suffixes: &[Suffix], scope: &Rc<Scope>) -> Res<Value> {
        for suffix in suffixes {
            self.budget.step()?;
            value = match suffix {
                Suffix::Attribute(name) => self.attribute(&value, name)?,
                Suffix::Item(key) => {
                    let key = self.eval(key, scope)?;
                    self.item(&value, &key)?
                }
                Suffix::Slice(parts) => {
                    let mut bounds = [const { None }; 3];
                    for (bound, part) in bounds.iter_mut().zip(parts.iter()) {
                        *bound = part.as_ref().map(|part| self.eval(part, scope)).transpose()?;
                    }
                    slice(&value, bounds, &self.budget)?
                }
                Suffix::Call(args) => {
                    let args = self.arguments(args, scope)?;
                    self.call(&value, args)?
                }
                Suffix::Filter(name, args) => {
                    let args = self.arguments(args, scope)?;
                    filters::apply(self, name, &value, args)?
                }
                Suffix::Test { name, args, negated } => {
                    let args = self.arguments(args, scope)?;
                    Value::Bool(check(self, name, &value, args)? != *negated)
                }
            };
        }
        Ok(value)
    }

    /// The callee and the arguments of a call; `expr` ends in a call.
    pub(super) fn call_parts(&self, expr: &Expr, scope: &Rc<Scope>) -> Res<(Value, Arguments)> {
        let Expr::Post(base, suffixes) = expr else { return fail("expected a call") };
        let Some((Suffix::Call(args), before)) = suffixes.split_last() else { return fail("expected a call") };
        let base = self.eval(base, scope)?;
        Ok((self.suffixes(base, before, scope)?, self.arguments(args, scope)?))
    }

    pub(super) fn arguments(&self, args: &Args, scope: &Rc<Scope>) -> Res<Arguments> {
        let mut positional = self.all(&args.positional, scope)?;
        let mut named = Vec::with_capacity(args.named.len());
        for (name, value) in &args.named {
            named.push((name.clone(), self.eval(value, scope)?));
        }
        if let Some(list) = &args.list {
            positional.extend(collect(&self.eval(list, scope)?, &self.budget)?);
        }
        if let Some(dict) = &args.dict {
            let Value::Dict(dict) = self.eval(dict, scope)? else {
                return fail("expected a dictionary after \"**\"");
            };
            self.budget.work(64 * dict.pairs.len())?;
            for (key, value) in &dict.pairs {
                let Value::Str(key) = key else { return fail("expected texts as keys after \"**\"") };
                named.push((key.as_ref().into(), value.clone()));
            }
        }
        for (i, (name, _)) in named.iter().enumerate() {
            self.budget.work(i)?;
            if named[..i].iter().any(|(other, _)| other == name) {
                return fail(format!("got the argument {name:?} twice"));
            }
        }
        Ok(Arguments { positional, named })
    }

    pub(super) fn call(&self, callee: &Value, args: Arguments) -> Res<Value> {
        match callee {
            Value::Function(name) => functions::call(self, name, args),
            Value::Method(method) => call(self, method, args),
            Value::Macro(of) => self.call_macro(of, args),
            Value::Loop(of) => {
                let [over] = bind("loop", ["iterable"], 1, args)?;
                of.again(self, &over.unwrap_or(Value::None))
            }
            Value::Joiner(joiner) => {
                let [] = bind("joiner", [], 0, args)?;
                Ok(if joiner.used.replace(true) { joiner.separator.clone() } else { Value::str("") })
            }
            Value::Undefined(name) => fail(format!("a call of {name}, which is undefined")),
            other => fail(format!("a call of a {}, which cannot be called", other.kind())),
        }
    }

    /// `value.name`: Python's attribute, or the item of that name.
    pub(super) fn attribute(&self, value: &Value, name: &str) -> Res<Value> {
        Ok(match attribute(self, value, name)? {
            Attribute::Value(found) => found,
            Attribute::Unsafe => Value::undefined(name),
            Attribute::None => match value {
                Value::Dict(dict) => {
                    dict.get_text(name, &self.budget)?.cloned().unwrap_or_else(|| Value::undefined(name))
                }
                _ => Value::undefined(name),
            },
        })
    }

    /// `value[key]`: the item, or Python's attribute of that name.
    pub(super) fn item(&self, value: &Value, key: &Value) -> Res<Value> {
        if let Value::Undefined(name) = value {
            return fail(format!("an item of {name}, which is undefined"));
        }
        if let Some(found) = item(value, key, &self.budget)? {
            return Ok(found);
        }
        let name = text_of_key(key);
        Ok(match key {
            Value::Str(key) => match attribute(self, value, key)? {
                Attribute::Value(found) => found,
                _ => Value::undefined(name),
            },
            _ => Value::undefined(name),
        })
    }
}

/// A key, for an error message.
fn text_of_key(key: &Value) -> String {
    match key {
        Value::Str(key) => key.chars().take(64).collect(),
        Value::Int(i) => format!("item {i}"),
        _ => "an item".to_owned(),
    }
}

fn constant(value: &Const) -> Value {
    match value {
        Const::None => Value::None,
        Const::Bool(b) => Value::Bool(*b),
        Const::Int(i) => Value::Int(*i),
        Const::Float(f) => Value::Float(*f),
        Const::Str(s) => Value::str(s),
    }
}
