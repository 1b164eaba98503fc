//! Pointers: the C++ text of the variable that a pointer of WGSL points to.

use naga::{AddressSpace, Expression, Handle, TypeInner};

use super::{
    CudaError,
    expression::COMPONENTS,
    statement::{Body, bare},
    unsupported, variant,
};

/// What an index selects from.
pub enum Whole {
    Vector,
    Matrix,
    Array,
    Struct(Handle<naga::Type>),
}

impl Body<'_> {
    /// What a pointer points to, or a value, as the base of an access.
    pub fn whole(&self, base: Handle<Expression>) -> Result<Whole, CudaError> {
        let resolution = &self.info[base].ty;
        let types = &self.context.module.types;
        let inner = resolution.inner_with(types);
        let (inner, handle) = match *inner {
            TypeInner::Pointer { base, .. } => (&types[base].inner, Some(base)),
            TypeInner::ValuePointer { size: Some(_), .. } => return Ok(Whole::Vector),
            _ => (inner, resolution.handle()),
        };
        match (inner, handle) {
            (TypeInner::Vector { .. }, _) => Ok(Whole::Vector),
            (TypeInner::Matrix { .. }, _) => Ok(Whole::Matrix),
            (TypeInner::Array { .. }, _) => Ok(Whole::Array),
            (TypeInner::Struct { .. }, Some(handle)) => Ok(Whole::Struct(handle)),
            (other, _) => Err(unsupported(format!("an access to {}", variant(other)))),
        }
    }

    /// Whether a pointer points to memory, and not to registers.
    pub fn in_memory(&self, pointer: Handle<Expression>) -> bool {
        let space = self.inner(pointer).pointer_space();
        !matches!(space, Some(AddressSpace::Function | AddressSpace::Private))
    }

    /// The text of a constant access.
    pub fn member(&self, text: &str, base: Handle<Expression>, index: u32) -> Result<String, CudaError> {
        Ok(match self.whole(base)? {
            Whole::Vector => format!("{text}.{}", COMPONENTS.get(index as usize).copied().unwrap_or_default()),
            Whole::Matrix => format!("{text}.c{index}"),
            Whole::Array => format!("{text}[{index}u]"),
            Whole::Struct(ty) => format!("{text}.{}", self.context.member_name(ty, index)?),
        })
    }

    /// The variable, to read it. A component that an index selects from registers is a value, without an address.
    pub fn read(&self, pointer: Handle<Expression>) -> Result<String, CudaError> {
        match self.function.expressions[pointer] {
            Expression::AccessIndex { base, index } => self.member(&self.read(base)?, base, index),
            Expression::Access { base, index } => {
                let (text, at) = (self.read(base)?, self.expression(index)?);
                Ok(match self.whole(base)? {
                    Whole::Array => format!("{text}[{}]", bare(&at)),
                    Whole::Vector if self.in_memory(base) => format!("wgsl::component({text}, {at})"),
                    _ if self.in_memory(base) => return Err(unsupported("an index of a matrix in memory")),
                    _ => format!("wgsl::at({text}, {at})"),
                })
            }
            _ => self.variable(pointer),
        }
    }

    /// The statement that writes `value` to the variable.
    pub fn write(&self, pointer: Handle<Expression>, value: &str) -> Result<String, CudaError> {
        if let Expression::Access { base, index } = self.function.expressions[pointer]
            && !self.in_memory(base)
            && !matches!(self.whole(base)?, Whole::Array)
        {
            let Whole::Vector = self.whole(base)? else {
                return Err(unsupported("a column that an index selects, to write it"));
            };
            return Ok(format!("wgsl::put({}, {}, {value});", self.place(base)?, self.expression(index)?));
        }
        Ok(format!("{} = {value};", self.place(pointer)?))
    }

    /// The variable, to write it or to take its address.
    pub fn place(&self, pointer: Handle<Expression>) -> Result<String, CudaError> {
        match self.function.expressions[pointer] {
            Expression::AccessIndex { base, index } => self.member(&self.place(base)?, base, index),
            Expression::Access { base, index } => {
                let (text, at) = (self.place(base)?, self.expression(index)?);
                match self.whole(base)? {
                    Whole::Array => Ok(format!("{text}[{}]", bare(&at))),
                    Whole::Vector if self.in_memory(base) => Ok(format!("wgsl::component({text}, {at})")),
                    _ => Err(unsupported("a component of a component that an index selects, to write it")),
                }
            }
            _ => self.variable(pointer),
        }
    }

    fn variable(&self, pointer: Handle<Expression>) -> Result<String, CudaError> {
        match self.function.expressions[pointer] {
            Expression::GlobalVariable(handle) => Ok(self.context.global(handle)?.into()),
            Expression::LocalVariable(handle) => {
                self.locals.get(&handle).cloned().ok_or_else(|| unsupported("a variable without a name"))
            }
            Expression::FunctionArgument(index) => self.argument(index),
            ref other => Err(unsupported(format!("a pointer from {}", variant(other)))),
        }
    }
}
