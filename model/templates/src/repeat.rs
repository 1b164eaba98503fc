//! Advances a running loop, and reads the variable `loop` of templates.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
};

use super::{
    budget::Budget,
    fail::{Res, fail},
    run::Run,
    sequence::iterate,
    syntax::For,
    value::{Loop, LoopState, Scope, Value, same},
};

impl Loop {
    pub(super) fn new(def: Arc<For>, scope: Rc<Scope>, over: &Value, depth: usize, budget: &Budget) -> Res<Self> {
        let iter = iterate(over, budget)?;
        let state = LoopState { iter, ahead: VecDeque::new(), before: None, current: None, changed: None };
        Ok(Self { def, scope, depth, state: RefCell::new(state), index: Cell::new(0) })
    }

    /// The next item that fulfils the loop's condition.
    fn pull(&self, run: &Run) -> Res<Option<Value>> {
        loop {
            run.budget.step()?;
            // The condition is template code that may use `loop`, so no state may be borrowed here.
            let item = self.state.borrow_mut().iter.next();
            let Some(item) = item else { return Ok(None) };
            let Some(test) = &self.def.test else { return Ok(Some(item)) };
            let inner = Scope::within(&self.scope);
            run.assign(&self.def.target, item.clone(), &inner)?;
            if run.eval(test, &inner)?.truth() {
                return Ok(Some(item));
            }
        }
    }

    /// Advances to the next item.
    pub(super) fn advance(&self, run: &Run) -> Res<Option<Value>> {
        let ahead = self.state.borrow_mut().ahead.pop_front();
        let item = match ahead {
            Some(item) => Some(item),
            None => self.pull(run)?,
        };
        if item.is_some() {
            let mut state = self.state.borrow_mut();
            state.before = state.current.take();
            state.current.clone_from(&item);
            self.index.set(self.index.get() + 1);
        }
        Ok(item)
    }

    /// The item after this one.
    fn peek(&self, run: &Run) -> Res<Option<Value>> {
        if self.state.borrow().ahead.is_empty()
            && let Some(item) = self.pull(run)?
        {
            self.state.borrow_mut().ahead.push_back(item);
        }
        Ok(self.state.borrow().ahead.front().cloned())
    }

    fn length(&self, run: &Run) -> Res<usize> {
        while let Some(item) = self.pull(run)? {
            self.state.borrow_mut().ahead.push_back(item);
        }
        Ok(self.index.get() + self.state.borrow().ahead.len())
    }

    /// `loop.name`.
    pub(super) fn attribute(&self, run: &Run, name: &str) -> Res<Option<Value>> {
        let index = self.index.get();
        let or_undefined = |value: Option<Value>, what: &str| value.unwrap_or_else(|| Value::undefined(what));
        Ok(Some(match name {
            "index" => Value::int(index),
            "index0" => Value::int(index.saturating_sub(1)),
            "first" => Value::Bool(index <= 1),
            "last" => Value::Bool(self.peek(run)?.is_none()),
            "length" => Value::int(self.length(run)?),
            "revindex" => Value::int(self.length(run)? + 1 - index),
            "revindex0" => Value::int(self.length(run)? - index),
            "depth" => Value::int(self.depth + 1),
            "depth0" => Value::int(self.depth),
            "previtem" => or_undefined(self.state.borrow().before.clone(), "loop.previtem"),
            "nextitem" => or_undefined(self.peek(run)?, "loop.nextitem"),
            _ => return Ok(None),
        }))
    }

    /// `loop.cycle` and `loop.changed`.
    pub(super) fn call(&self, run: &Run, name: &str, args: Vec<Value>) -> Res<Value> {
        if name == "cycle" {
            let len = args.len().max(1);
            return match args.into_iter().nth(self.index.get().saturating_sub(1) % len) {
                Some(value) => Ok(value),
                None => fail("loop.cycle: expected values, got none"),
            };
        }
        let known = self.state.borrow().changed.clone();
        let args = Value::tuple(args, &run.budget)?;
        let Some(items) = args.items() else { return Ok(Value::Bool(true)) };
        if let Some(known) = known
            && same(&Value::tuple(known, &run.budget)?, &args, &run.budget)?
        {
            return Ok(Value::Bool(false));
        }
        self.state.borrow_mut().changed = Some(items.items.clone());
        Ok(Value::Bool(true))
    }

    /// Runs a `recursive` loop on other items.
    pub(super) fn again(&self, run: &Run, over: &Value) -> Res<Value> {
        if !self.def.recursive {
            return fail("a call of a loop that is not recursive");
        }
        let _level = run.budget.deeper()?;
        let mut out = String::new();
        run.run_loop(&self.def, over, &self.scope, self.depth + 1, &mut out)?;
        Ok(Value::str(out))
    }
}
