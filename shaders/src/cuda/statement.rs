//! Functions and statements.
//!
//! naga says by an `Emit` statement when expressions are evaluated. Most may also be evaluated later, because they
//! depend on nothing that changes. But a variable must be read at the `Emit`, because a later statement may change it.
//! So a read becomes a constant with a name there, as do expressions that are used twice or have a name in WGSL.

use std::collections::HashMap;
use std::fmt::Write;

use naga::{
    AtomicFunction, Barrier, Block, Expression, Function, Handle, Literal, LocalVariable, Statement, SwitchValue,
    proc::TypeResolution, valid::FunctionInfo,
};

use super::{Context, CudaError, names::Names, unsupported, variant};

/// A function while its text is written.
pub struct Body<'a> {
    pub context: &'a Context<'a>,
    pub function: &'a Function,
    pub info: &'a FunctionInfo,
    pub locals: HashMap<Handle<LocalVariable>, String>,
    arguments: Vec<String>,
    names: Names,
    /// Names of the expressions that are evaluated, in the order of their declarations.
    baked: Vec<(Handle<Expression>, String)>,
    /// The label at the end of the body of each loop around the statement; None where no `continue` jumps to it.
    loops: Vec<Option<String>>,
    /// The functions that it calls.
    calls: Vec<Handle<Function>>,
    text: String,
    depth: usize,
}

impl<'a> Body<'a> {
    pub fn new(context: &'a Context<'a>, function: &'a Function, info: &'a FunctionInfo) -> Self {
        let mut names = context.names.clone();
        let arguments = function.arguments.iter();
        let arguments = arguments.map(|a| names.unique(a.name.as_deref().unwrap_or("argument"))).collect();
        let locals = function.local_variables.iter();
        let locals = locals.map(|(h, v)| (h, names.unique(v.name.as_deref().unwrap_or("local")))).collect();
        let (baked, loops, calls, text) = (Vec::new(), Vec::new(), Vec::new(), String::new());
        Self { context, function, info, locals, arguments, names, baked, loops, calls, text, depth: 2 }
    }

    /// The function as a method of `Kernel`, and the functions that it calls.
    pub fn method(mut self, name: &str) -> Result<(String, Vec<Handle<Function>>), CudaError> {
        let result = match &self.function.result {
            Some(result) => self.context.type_name(result.ty)?,
            None => "void".into(),
        };
        let mut parameters = Vec::new();
        for (argument, name) in self.function.arguments.iter().zip(&self.arguments) {
            parameters.push(format!("{} {name}", self.context.type_name(argument.ty)?));
        }
        for (handle, variable) in self.function.local_variables.iter() {
            let ty = self.context.type_name(variable.ty)?;
            let init = variable.init.map_or(Ok("{}".into()), |init| self.formula(init))?;
            let name = self.locals.get(&handle).cloned().unwrap_or_default();
            self.line(&format!("{ty} {name} = {init};"));
        }
        self.block(&self.function.body)?;
        let (parameters, text) = (parameters.join(", "), self.text);
        Ok((format!("    FOVEA_FN {result} {name}({parameters}) {{\n{text}    }}\n"), self.calls))
    }

    /// The name of a value that was calculated before.
    pub fn baked(&self, handle: Handle<Expression>) -> Option<&str> {
        self.baked.iter().rev().find(|(baked, _)| *baked == handle).map(|(_, name)| name.as_str())
    }

    pub fn argument(&self, index: u32) -> Result<String, CudaError> {
        self.arguments.get(index as usize).cloned().ok_or_else(|| unsupported(format!("argument {index}")))
    }

    fn line(&mut self, text: &str) {
        let indent = 4 * self.depth;
        writeln!(self.text, "{:indent$}{text}", "").unwrap_or_default(); // writing to a String never fails
    }

    /// The statements of a block in braces, between `before` and `after`.
    fn braces(&mut self, before: &str, block: &'a Block, after: &str) -> Result<(), CudaError> {
        self.line(&format!("{before}{{"));
        self.depth += 1;
        let visible = self.baked.len();
        self.block(block)?;
        self.baked.truncate(visible);
        self.depth -= 1;
        self.line(&format!("}}{after}"));
        Ok(())
    }

    fn block(&mut self, block: &'a Block) -> Result<(), CudaError> {
        block.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &'a Statement) -> Result<(), CudaError> {
        match *statement {
            Statement::Emit(ref range) => {
                for handle in range.clone() {
                    if self.bakes(handle) {
                        let value = match self.function.expressions[handle] {
                            Expression::Load { pointer } => self.load(pointer)?,
                            _ => self.formula(handle)?,
                        };
                        self.bake(handle, &value)?;
                    }
                }
            }
            Statement::Block(ref block) => self.braces("", block, "")?,
            Statement::If { condition, ref accept, ref reject } => self.branch(condition, accept, reject)?,
            Statement::Switch { selector, ref cases } => {
                let selector = self.expression(selector)?;
                self.line(&format!("switch ({selector}) {{"));
                for case in cases {
                    let label = match case.value {
                        SwitchValue::I32(value) => format!("case {value}: "),
                        SwitchValue::U32(value) => format!("case {value}u: "),
                        SwitchValue::Default => "default: ".into(),
                    };
                    self.braces(&label, &case.body, if case.fall_through { "" } else { " break;" })?;
                }
                self.line("}");
            }
            Statement::Loop { ref body, ref continuing, break_if } => self.repeat(body, continuing, break_if)?,
            Statement::Break => self.line("break;"),
            Statement::Continue => match self.loops.last().cloned().flatten() {
                Some(label) => self.line(&format!("goto {label};")),
                None => return Err(unsupported("`continue` outside of a loop")),
            },
            Statement::Return { value: None } => self.line("return;"),
            Statement::Return { value: Some(value) } => {
                let value = self.expression(value)?;
                self.line(&format!("return {};", bare(&value)));
            }
            Statement::ControlBarrier(barrier) if (Barrier::WORK_GROUP | Barrier::STORAGE).contains(barrier) => {
                self.line("__syncthreads();");
            }
            Statement::Store { pointer, value } => {
                let value = self.expression(value)?;
                let line = if self.is_atomic(pointer) {
                    format!("wgsl::atomic_store({}, {value});", self.place(pointer)?)
                } else {
                    self.write(pointer, bare(&value))?
                };
                self.line(&line);
            }
            Statement::Atomic { pointer, fun, value, result } => {
                let call = format!("{}(&{}, {})", atomic(fun)?, self.place(pointer)?, self.expression(value)?);
                self.result(result, &call)?;
            }
            Statement::Call { function, ref arguments, result } => {
                self.calls.push(function);
                let name = self.context.function(function)?;
                let arguments = arguments.iter().map(|&argument| {
                    let pointer = self.inner(argument).pointer_space().is_some();
                    if pointer { self.place(argument) } else { self.expression(argument) }
                });
                let call = format!("{name}({})", arguments.collect::<Result<Vec<_>, _>>()?.join(", "));
                self.result(result, &call)?;
            }
            ref other => return Err(unsupported(format!("the statement {}", variant(other)))),
        }
        Ok(())
    }

    /// Whether an expression becomes a constant at its `Emit`.
    fn bakes(&self, handle: Handle<Expression>) -> bool {
        let uses = self.info[handle].ref_count;
        if self.inner(handle).pointer_space().is_some() || uses == 0 {
            return false;
        }
        match self.function.expressions[handle] {
            Expression::Load { .. } => true,
            _ if self.function.named_expressions.contains_key(&handle) => true,
            Expression::AccessIndex { .. } => false,
            _ => uses > 1,
        }
    }

    fn load(&self, pointer: Handle<Expression>) -> Result<String, CudaError> {
        if self.is_atomic(pointer) {
            return Ok(format!("wgsl::atomic_load({})", self.place(pointer)?));
        }
        self.read(pointer)
    }

    fn is_atomic(&self, pointer: Handle<Expression>) -> bool {
        self.inner(pointer).is_atomic_pointer(&self.context.module.types)
    }

    /// Declares the constant of an expression.
    fn bake(&mut self, handle: Handle<Expression>, value: &str) -> Result<(), CudaError> {
        let ty = match self.info[handle].ty {
            TypeResolution::Handle(ty) => self.context.type_name(ty)?,
            TypeResolution::Value(ref inner) => self.context.inner_name(inner)?,
        };
        let wanted = self.function.named_expressions.get(&handle).map_or("e", String::as_str);
        let name = self.names.unique(wanted);
        self.line(&format!("const {ty} {name} = {};", bare(value)));
        self.baked.push((handle, name));
        Ok(())
    }

    /// A call, and the constant of its result where it is used.
    fn result(&mut self, result: Option<Handle<Expression>>, call: &str) -> Result<(), CudaError> {
        match result {
            Some(result) if self.info[result].ref_count > 0 => self.bake(result, call),
            _ => {
                self.line(&format!("{call};"));
                Ok(())
            }
        }
    }

    /// `if`. Of a condition that is a constant, only one branch is written.
    fn branch(&mut self, condition: Handle<Expression>, accept: &'a Block, reject: &'a Block) -> Result<(), CudaError> {
        if let Some(Literal::Bool(value)) = self.number(condition) {
            let taken = if value { accept } else { reject };
            return if taken.is_empty() { Ok(()) } else { self.braces("", taken, "") };
        }
        let condition = self.expression(condition)?;
        if accept.is_empty() {
            return self.braces(&format!("if (!{condition}) "), reject, "");
        }
        self.braces(&format!("if ({}) ", bare(&condition)), accept, "")?;
        if reject.is_empty() { Ok(()) } else { self.braces("else ", reject, "") }
    }

    /// `loop`. Its `continuing` sees the values of the body, but not if a `continue` jumps out of their braces.
    fn repeat(
        &mut self,
        body: &'a Block,
        continuing: &'a Block,
        break_if: Option<Handle<Expression>>,
    ) -> Result<(), CudaError> {
        let label = continues(body).then(|| self.names.unique("next"));
        self.loops.push(label.clone());
        self.line("for (;;) {");
        self.depth += 1;
        let visible = self.baked.len();
        match &label {
            Some(label) => {
                self.braces("", body, "")?;
                self.line(&format!("{label}:;"));
            }
            None => self.block(body)?,
        }
        self.block(continuing)?;
        if let Some(condition) = break_if {
            let condition = self.expression(condition)?;
            self.line(&format!("if ({}) {{ break; }}", bare(&condition)));
        }
        self.baked.truncate(visible);
        self.depth -= 1;
        self.line("}");
        self.loops.pop();
        Ok(())
    }
}

/// The text without parentheses around the whole.
pub fn bare(text: &str) -> &str {
    let Some(inside) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) else {
        return text;
    };
    let mut open = 0;
    for c in inside.chars() {
        open += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if open < 0 {
            return text;
        }
    }
    inside
}

/// Whether a block has a `continue` of the loop around it.
fn continues(block: &Block) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Continue => true,
        Statement::Block(block) => continues(block),
        Statement::If { accept, reject, .. } => continues(accept) || continues(reject),
        Statement::Switch { cases, .. } => cases.iter().any(|case| continues(&case.body)),
        _ => false,
    })
}

fn atomic(function: AtomicFunction) -> Result<&'static str, CudaError> {
    match function {
        AtomicFunction::Add => Ok("atomicAdd"),
        AtomicFunction::Subtract => Ok("atomicSub"),
        AtomicFunction::And => Ok("atomicAnd"),
        AtomicFunction::InclusiveOr => Ok("atomicOr"),
        AtomicFunction::ExclusiveOr => Ok("atomicXor"),
        AtomicFunction::Min => Ok("atomicMin"),
        AtomicFunction::Max => Ok("atomicMax"),
        AtomicFunction::Exchange { compare: None } => Ok("atomicExch"),
        AtomicFunction::Exchange { compare: Some(_) } => Err(unsupported("atomicCompareExchangeWeak")),
    }
}
