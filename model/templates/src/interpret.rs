//! Runs a template's statements.

use std::{rc::Rc, sync::Arc};

use super::{
    arguments::Arguments,
    fail::{Res, fail},
    filters,
    functions::{self, assign},
    print::text,
    run::Run,
    sequence::collect,
    syntax::{Args, Body, Expr, For, MacroDef, Name, Stmt, StmtKind, Target},
    value::{Loop, Macro, Scope, Value},
};

/// Maximum length of the output in bytes.
const LONGEST_PROMPT: usize = 4 << 20;

/// The control flow after a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    Break,
    Continue,
}

impl Run {
    /// Runs `body`; returns its output.
    pub(super) fn render(&self, body: &Body) -> Res<String> {
        let mut out = String::new();
        self.body(body, &self.root, &mut out)?;
        Ok(out)
    }

    /// The value of a variable.
    pub(super) fn lookup(&self, name: &str, scope: &Scope) -> Res<Value> {
        match scope.get(name).or_else(|| functions::named(name)) {
            Some(value) => Ok(value),
            None if name == "self" => fail("the variable \"self\", which is not supported"),
            None => Ok(Value::undefined(name)),
        }
    }

    fn print(&self, out: &mut String, text: &str) -> Res<()> {
        self.budget.work(text.len())?;
        if out.len() + text.len() > LONGEST_PROMPT {
            return fail(format!("expected at most {LONGEST_PROMPT} bytes of output, got more"));
        }
        *out += text;
        Ok(())
    }

    /// Prints the result of a block, which must be a text.
    fn print_block(&self, tag: &str, out: &mut String, value: &Value) -> Res<()> {
        match value.text() {
            Some(text) => self.print(out, text),
            None => fail(format!("the tag {tag:?}: expected a text, got {}", value.kind())),
        }
    }

    pub(super) fn body(&self, body: &Body, scope: &Rc<Scope>, out: &mut String) -> Res<Flow> {
        let _level = self.budget.deeper()?;
        for stmt in body {
            self.budget.step()?;
            let flow = self.statement(stmt, scope, out).map_err(|failed| failed.on(stmt.line))?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn statement(&self, stmt: &Stmt, scope: &Rc<Scope>, out: &mut String) -> Res<Flow> {
        match &stmt.kind {
            StmtKind::Data(text) => self.print(out, text)?,
            StmtKind::Print(values) => {
                for value in values {
                    let text = text(&self.eval(value, scope)?, &self.budget)?;
                    self.print(out, &text)?;
                }
            }
            StmtKind::If(branches, otherwise) => {
                for (test, body) in branches {
                    if self.eval(test, scope)?.truth() {
                        return self.body(body, scope, out);
                    }
                }
                return self.body(otherwise, scope, out);
            }
            StmtKind::For(def) => {
                let over = self.eval(&def.over, scope)?;
                return self.run_loop(def, &over, scope, 0, out);
            }
            StmtKind::Set(target, value) => {
                let value = self.eval(value, scope)?;
                self.assign(target, value, scope)?;
            }
            StmtKind::SetBlock(target, filters, body) => {
                let (flow, value) = self.capture(body, scope)?;
                if flow != Flow::On {
                    return Ok(flow);
                }
                let value = self.apply(filters, value, scope)?;
                self.assign(target, value, scope)?;
            }
            StmtKind::Macro(def) => {
                let value = self.macro_value(def, scope)?;
                scope.set(&def.name, value);
            }
            StmtKind::Call(call, def) => {
                let value = self.call_with(call, def, scope)?;
                self.print_block("call", out, &value)?;
            }
            StmtKind::Filter(filters, body) => {
                let (flow, value) = self.capture(body, scope)?;
                if flow != Flow::On {
                    return Ok(flow);
                }
                let value = self.apply(filters, value, scope)?;
                self.print_block("filter", out, &value)?;
            }
            StmtKind::With(values, body) => {
                let inner = Scope::within(scope);
                for (target, value) in values {
                    let value = self.eval(value, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.body(body, &inner, out);
            }
            StmtKind::Scope(body) => return self.body(body, &Scope::within(scope), out),
            StmtKind::Block(body) => return self.body(body, &Scope::within(&self.root), out),
            StmtKind::AutoEscape(on, body) => {
                if self.eval(on, scope)?.truth() {
                    return fail("the tag \"autoescape\" set to true, which is not supported");
                }
                return self.body(body, &Scope::within(scope), out);
            }
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
            StmtKind::Other(tag) => {
                return fail(format!("the tag {tag:?}, which needs other templates, but there are none"));
            }
        }
        Ok(Flow::On)
    }

    /// Runs `body` in its own scope; returns its output.
    fn capture(&self, body: &Body, scope: &Rc<Scope>) -> Res<(Flow, Value)> {
        let mut out = String::new();
        let flow = self.body(body, &Scope::within(scope), &mut out)?;
        Ok((flow, Value::str(out)))
    }

    fn apply(&self, filters: &[(Name, Args)], mut value: Value, scope: &Rc<Scope>) -> Res<Value> {
        for (name, args) in filters {
            let args = self.arguments(args, scope)?;
            value = filters::apply(self, name, &value, args)?;
        }
        Ok(value)
    }

    /// Assigns `value` to `target`.
    pub(super) fn assign(&self, target: &Target, value: Value, scope: &Rc<Scope>) -> Res<()> {
        match target {
            Target::Name(name) => scope.set(name, value),
            Target::Attribute(name, attribute) => match self.lookup(name, scope)? {
                Value::Namespace(namespace) => assign(self, &namespace, attribute, value)?,
                other => return fail(format!("expected a namespace to set an attribute of, got a {}", other.kind())),
            },
            Target::Tuple(targets) => {
                let values = collect(&value, &self.budget)?;
                if values.len() != targets.len() {
                    return fail(format!(
                        "expected {} values for the same number of names, got {}",
                        targets.len(),
                        values.len()
                    ));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
            }
        }
        Ok(())
    }

    /// Runs a loop over `over`.
    pub(super) fn run_loop(
        &self,
        def: &Arc<For>,
        over: &Value,
        scope: &Rc<Scope>,
        depth: usize,
        out: &mut String,
    ) -> Res<Flow> {
        let state = Rc::new(Loop::new(def.clone(), scope.clone(), over, depth, &self.budget)?);
        let name = Name::from("loop");
        // For Jinja, a loop is empty until one pass ends without `break` and `continue`.
        let mut any = false;
        while let Some(item) = state.advance(self)? {
            let inner = Scope::within(scope);
            inner.set(&name, Value::Loop(state.clone()));
            self.assign(&def.target, item, &inner)?;
            match self.body(&def.body, &inner, out)? {
                Flow::On => any = true,
                Flow::Continue => {}
                Flow::Break => break,
            }
        }
        if any { Ok(Flow::On) } else { self.body(&def.otherwise, &Scope::within(scope), out) }
    }

    /// A macro that sees the scope `scope`.
    fn macro_value(&self, def: &Arc<MacroDef>, scope: &Rc<Scope>) -> Res<Value> {
        self.budget.work(512)?;
        self.captured.borrow_mut().push(scope.clone());
        Ok(Value::Macro(Rc::new(Macro { def: def.clone(), scope: scope.clone() })))
    }

    /// Calls with a block as `caller`.
    fn call_with(&self, call: &Expr, def: &Arc<MacroDef>, scope: &Rc<Scope>) -> Res<Value> {
        let caller = self.macro_value(def, scope)?;
        let (callee, mut args) = self.call_parts(call, scope)?;
        args.named.push(("caller".into(), caller));
        self.call(&callee, args)
    }

    /// Runs a macro; returns its output.
    pub(super) fn call_macro(&self, of: &Macro, args: Arguments) -> Res<Value> {
        let _level = self.budget.deeper()?;
        let def = &of.def;
        let scope = Scope::within(&of.scope);
        let Arguments { positional, mut named } = args;
        let mut positional = positional.into_iter();
        for (name, default) in &def.parameters {
            let given = positional.next().or_else(|| take(&mut named, name));
            let value = match (given, default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.eval(default, &scope)?,
                (None, None) => Value::undefined(name),
            };
            scope.set(name, value);
        }
        if def.reads.caller && def.parameters.iter().all(|(name, _)| &**name != "caller") {
            let caller = take(&mut named, "caller").unwrap_or_else(|| Value::undefined("caller"));
            scope.set(&"caller".into(), caller);
        }
        if def.reads.kwargs {
            let pairs = named.drain(..).map(|(name, value)| (Value::str(name), value)).collect();
            scope.set(&"kwargs".into(), Value::dict(pairs, &self.budget)?);
        } else if let Some((name, _)) = named.first() {
            return fail(format!("the macro {:?}: got an unknown argument {name:?}", def.name));
        }
        let rest: Vec<Value> = positional.collect();
        if def.reads.varargs {
            scope.set(&"varargs".into(), Value::tuple(rest, &self.budget)?);
        } else if !rest.is_empty() {
            return fail(format!("the macro {:?}: expected at most {} arguments", def.name, def.parameters.len()));
        }
        let mut out = String::new();
        self.body(&def.body, &scope, &mut out)?;
        Ok(Value::str(out))
    }
}

/// Removes and returns the argument of this name.
fn take(named: &mut Vec<(Name, Value)>, name: &str) -> Option<Value> {
    let at = named.iter().position(|(known, _)| &**known == name)?;
    Some(named.remove(at).1)
}
