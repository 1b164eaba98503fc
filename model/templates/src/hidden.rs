//! Finds the renderer's variables that a template hides.
//!
//! Jinja compiles a template's outermost statements to a function. A name that they set before they read it is a local
//! variable of that function, and undefined until it is set: earlier loops and macros do not see the renderer's value.

use std::collections::HashMap;

use super::syntax::{Args, Body, Expr, Name, StmtKind, Suffix, Target};

/// Names, and whether each is hidden. Its first occurrence decides.
#[derive(Clone, Default)]
struct Names(HashMap<Name, bool>);

/// The names that are undefined at the start.
pub(super) fn hidden(body: &Body) -> impl Iterator<Item = Name> {
    let mut names = Names::default();
    names.body(body, &mut Vec::new());
    names.0.into_iter().filter_map(|(name, hidden)| hidden.then_some(name))
}

impl Names {
    fn reads(&mut self, name: &Name) {
        self.0.entry(name.clone()).or_insert(false);
    }

    fn sets(&mut self, target: &Target, set: &mut Vec<Name>) {
        match target {
            Target::Name(name) => {
                self.0.entry(name.clone()).or_insert(true);
                set.push(name.clone());
            }
            Target::Tuple(targets) => targets.iter().for_each(|target| self.sets(target, set)),
            Target::Attribute(name, _) => self.reads(name),
        }
    }

    /// Visits only statements that use the outermost variables: the bodies of most statements have their own variables.
    fn body(&mut self, body: &Body, set: &mut Vec<Name>) {
        for stmt in body {
            match &stmt.kind {
                StmtKind::Print(values) => values.iter().for_each(|value| self.expr(value)),
                StmtKind::If(branches, otherwise) => self.branches(branches, otherwise, set),
                StmtKind::For(def) => self.expr(&def.over),
                StmtKind::Set(target, value) => {
                    self.expr(value);
                    self.sets(target, set);
                }
                StmtKind::SetBlock(target, ..) => self.sets(target, set),
                StmtKind::Macro(def) => self.sets(&Target::Name(def.name.clone()), set),
                StmtKind::Call(call, _) => self.expr(call),
                StmtKind::Filter(filters, _) => filters.iter().for_each(|(_, args)| self.args(args)),
                StmtKind::With(values, _) => values.iter().for_each(|(_, value)| self.expr(value)),
                _ => {}
            }
        }
    }

    /// A name is hidden by a condition only if the first branch, some `elif` and `else` all set it.
    fn branches(&mut self, branches: &[(Expr, Body)], otherwise: &Body, set: &mut Vec<Name>) {
        let Some(((test, first), elifs)) = branches.split_first() else { return };
        self.expr(test);
        let mut parts = [const { Vec::new() }; 3];
        let mut names = [self.clone(), self.clone(), self.clone()];
        names[0].body(first, &mut parts[0]);
        for (test, body) in elifs {
            names[1].expr(test);
            names[1].body(body, &mut parts[1]);
        }
        names[2].body(otherwise, &mut parts[2]);
        let last = names[2].clone();
        for (name, _) in names.into_iter().flat_map(|names| names.0) {
            let all = parts.iter().all(|part| part.contains(&name));
            let hidden = all && last.0.get(&name).copied().unwrap_or(false);
            self.0.entry(name).or_insert(hidden);
        }
        parts.into_iter().for_each(|part| set.extend(part));
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Const(_) => {}
            Expr::Name(name) => self.reads(name),
            Expr::List(items) | Expr::Tuple(items) | Expr::Or(items) | Expr::And(items) | Expr::Concat(items) => {
                items.iter().for_each(|item| self.expr(item));
            }
            Expr::Dict(pairs) => pairs.iter().for_each(|(key, value)| {
                self.expr(key);
                self.expr(value);
            }),
            Expr::Cond { test, yes, no } => {
                [test, yes].into_iter().chain(no).for_each(|part| self.expr(part));
            }
            Expr::Not(operand) | Expr::Neg(operand) | Expr::Pos(operand) => self.expr(operand),
            Expr::Compare(first, rest) => {
                self.expr(first);
                rest.iter().for_each(|(_, operand)| self.expr(operand));
            }
            Expr::Math(first, rest) => {
                self.expr(first);
                rest.iter().for_each(|(_, operand)| self.expr(operand));
            }
            Expr::Post(base, suffixes) => {
                self.expr(base);
                for suffix in suffixes {
                    match suffix {
                        Suffix::Attribute(_) => {}
                        Suffix::Item(key) => self.expr(key),
                        Suffix::Slice(parts) => parts.iter().flatten().for_each(|part| self.expr(part)),
                        Suffix::Call(args) | Suffix::Filter(_, args) | Suffix::Test { args, .. } => self.args(args),
                    }
                }
            }
        }
    }

    fn args(&mut self, args: &Args) {
        args.positional.iter().chain(args.named.iter().map(|(_, value)| value)).for_each(|value| self.expr(value));
        args.list.iter().chain(&args.dict).for_each(|value| self.expr(value));
    }
}
