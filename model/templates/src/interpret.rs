//! Runs a template's statements.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use super::{
    arguments::Arguments,
    budget::Budget,
    fail::{Res, fail},
    filters,
    functions::{Function, assign},
    print::text,
    repeat::Loop,
    sequence::collect,
    syntax::{Args, Body, Expr, For, MacroDef, Name, Stmt, StmtKind, Target},
    value::{Namespace, Value},
};

/// Longest text that a template may print.
const LONGEST_PROMPT: usize = 4 << 20;

/// One rendering.
pub(super) struct Run {
    pub(super) budget: Budget,
    root: Rc<Scope>,
    /// What may hold itself, to be emptied at the end.
    namespaces: RefCell<Vec<Rc<Namespace>>>,
    captured: RefCell<Vec<Rc<Scope>>>,
}

/// Variables, and those around them.
pub(super) struct Scope {
    names: RefCell<HashMap<Name, Value>>,
    outer: Option<Rc<Scope>>,
}

/// A macro, and the variables that it sees.
pub(super) struct Macro {
    pub(super) def: Arc<MacroDef>,
    scope: Rc<Scope>,
}

/// How a statement ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    Break,
    Continue,
}

impl Scope {
    /// An empty scope within another one.
    pub(super) fn within(outer: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self { names: RefCell::default(), outer: Some(outer.clone()) })
    }

    pub(super) fn set(&self, name: &Name, value: Value) {
        self.names.borrow_mut().insert(name.clone(), value);
    }

    fn get(&self, name: &str) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some(value) = scope.names.borrow().get(name) {
                return Some(value.clone());
            }
            scope = scope.outer.as_deref()?;
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // One after the other, so that nothing is freed by recursion.
        for namespace in self.namespaces.get_mut().iter() {
            drop(namespace.attributes.take());
        }
        for scope in self.captured.get_mut().iter() {
            drop(scope.names.take());
        }
    }
}

impl Run {
    /// A rendering with these variables.
    pub(super) fn new(budget: Budget, variables: HashMap<Name, Value>) -> Self {
        let root = Rc::new(Scope { names: RefCell::new(variables), outer: None });
        Self { budget, root, namespaces: RefCell::default(), captured: RefCell::default() }
    }

    /// What `body` prints.
    pub(super) fn render(&self, body: &Body) -> Res<String> {
        let mut out = String::new();
        self.body(body, &self.root, &mut out)?;
        Ok(out)
    }

    pub(super) fn keep_namespace(&self, namespace: &Rc<Namespace>) {
        self.namespaces.borrow_mut().push(namespace.clone());
    }

    /// The value of a name.
    pub(super) fn lookup(&self, name: &str, scope: &Scope) -> Res<Value> {
        match scope.get(name).or_else(|| Function::named(name).map(Value::Function)) {
            Some(value) => Ok(value),
            None if name == "self" => fail("the variable \"self\", which is not supported"),
            None => Ok(Value::undefined(name)),
        }
    }

    fn print(&self, out: &mut String, text: &str) -> Res<()> {
        self.budget.work(text.len())?;
        if out.len() + text.len() > LONGEST_PROMPT {
            return fail(format!("a prompt of more than {LONGEST_PROMPT} bytes"));
        }
        *out += text;
        Ok(())
    }

    /// Prints what a block gives, which Jinja takes only if it is a text.
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
                    return fail("the tag \"autoescape\" switched on, which is not supported");
                }
                return self.body(body, &Scope::within(scope), out);
            }
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
            StmtKind::Other(tag) => return fail(format!("the tag {tag:?}, for which there are no other templates")),
        }
        Ok(Flow::On)
    }

    /// What `body` prints, with its own variables.
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

    /// Gives `value` to `target`.
    pub(super) fn assign(&self, target: &Target, value: Value, scope: &Rc<Scope>) -> Res<()> {
        match target {
            Target::Name(name) => scope.set(name, value),
            Target::Attribute(name, attribute) => match self.lookup(name, scope)? {
                Value::Namespace(namespace) => assign(self, &namespace, attribute, value)?,
                other => return fail(format!("an attribute given to a {}, which is no namespace", other.kind())),
            },
            Target::Tuple(targets) => {
                let values = collect(&value, &self.budget)?;
                if values.len() != targets.len() {
                    return fail(format!("expected {} values for as many names, got {}", targets.len(), values.len()));
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
        // Jinja takes a loop for empty until one pass ends neither in `break` nor in `continue`.
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

    /// A macro that sees the variables of `scope`.
    fn macro_value(&self, def: &Arc<MacroDef>, scope: &Rc<Scope>) -> Res<Value> {
        self.budget.work(512)?;
        self.captured.borrow_mut().push(scope.clone());
        Ok(Value::Macro(Rc::new(Macro { def: def.clone(), scope: scope.clone() })))
    }

    /// A call that gets a block as `caller`.
    fn call_with(&self, call: &Expr, def: &Arc<MacroDef>, scope: &Rc<Scope>) -> Res<Value> {
        let caller = self.macro_value(def, scope)?;
        let (callee, mut args) = self.call_parts(call, scope)?;
        args.named.push(("caller".into(), caller));
        self.call(&callee, args)
    }

    /// What a macro prints.
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
            return fail(format!("the macro {:?}: an argument {name:?}, which it does not have", def.name));
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

/// Takes the argument of that name out.
fn take(named: &mut Vec<(Name, Value)>, name: &str) -> Option<Value> {
    let at = named.iter().position(|(known, _)| &**known == name)?;
    Some(named.remove(at).1)
}
