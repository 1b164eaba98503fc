//! Values: the C++ text of an expression of WGSL.

use naga::{
    BinaryOperator, Expression, Handle, Literal, MathFunction, ScalarKind, SwizzleComponent, Type, TypeInner,
    UnaryOperator, VectorSize,
};

use super::{
    Context, CudaError,
    place::Whole,
    statement::{Body, bare},
    unsupported, variant,
};

/// Names of the components of a vector.
pub const COMPONENTS: [&str; 4] = ["x", "y", "z", "w"];

/// A literal as C++ with the same value.
pub fn literal(literal: Literal) -> Result<String, CudaError> {
    match literal {
        // The shortest text that is the same f32: always with a point or an exponent.
        Literal::F32(value) if value.is_finite() => Ok(format!("{value:?}f")),
        Literal::F16(value) if value.is_finite() => Ok(format!("f16({:?}f)", value.to_f32())),
        Literal::U32(value) => Ok(format!("{value}u")),
        Literal::I32(i32::MIN) => Ok("i32(0x80000000u)".into()),
        Literal::I32(value) => Ok(format!("{value}")),
        Literal::Bool(value) => Ok(format!("{value}")),
        other => Err(unsupported(format!("the literal {other:?}"))),
    }
}

/// A vector of equal components.
pub fn splat(size: VectorSize, value: &str) -> String {
    format!("wgsl::splat<{}>({value})", size as u8)
}

impl Context<'_> {
    /// A value of several components.
    pub fn compose(&self, ty: Handle<Type>, components: &[String]) -> Result<String, CudaError> {
        let (name, components) = (self.type_name(ty)?, components.join(", "));
        Ok(match self.module.types[ty].inner {
            TypeInner::Vector { .. } => format!("{name}({components})"),
            TypeInner::Array { .. } => format!("{name}{{{{{components}}}}}"),
            _ => format!("{name}{{{components}}}"),
        })
    }
}

impl Body<'_> {
    /// The type of an expression.
    pub fn inner(&self, handle: Handle<Expression>) -> &TypeInner {
        self.info[handle].ty.inner_with(&self.context.module.types)
    }

    /// The text of a value: its name where a statement has calculated it before.
    pub fn expression(&self, handle: Handle<Expression>) -> Result<String, CudaError> {
        if let Some(name) = self.baked(handle) {
            return Ok(name.into());
        }
        self.formula(handle)
    }

    /// The text that calculates a value.
    pub fn formula(&self, handle: Handle<Expression>) -> Result<String, CudaError> {
        match self.function.expressions[handle] {
            Expression::Literal(value) => literal(value),
            Expression::Constant(constant) => self.context.constant(constant),
            Expression::ZeroValue(ty) => Ok(format!("{}{{}}", self.context.type_name(ty)?)),
            Expression::Compose { ty, ref components } => {
                let components: Result<Vec<_>, _> = components.iter().map(|c| self.expression(*c)).collect();
                self.context.compose(ty, &components?)
            }
            Expression::Splat { size, value } => Ok(splat(size, &self.expression(value)?)),
            Expression::Swizzle { size, vector, pattern } => {
                let indices = pattern.iter().take(size as usize).map(|c: &SwizzleComponent| format!("{}", *c as u8));
                let indices = indices.collect::<Vec<_>>().join(", ");
                Ok(format!("wgsl::swizzle<{indices}>({})", self.expression(vector)?))
            }
            Expression::FunctionArgument(index) => self.argument(index),
            Expression::AccessIndex { base, index } => self.member(&self.expression(base)?, base, index),
            Expression::Access { base, index } => {
                let (text, at) = (self.expression(base)?, self.expression(index)?);
                Ok(match self.whole(base)? {
                    Whole::Array => format!("{text}[{}]", bare(&at)),
                    _ => format!("wgsl::at({text}, {at})"),
                })
            }
            Expression::Load { .. } => {
                Err(unsupported("a value that is read in another block than the one that uses it"))
            }
            Expression::Unary { op, expr } => self.unary(op, expr),
            Expression::Binary { op, left, right } => self.binary(op, left, right),
            Expression::Select { condition, accept, reject } => {
                let by_component = matches!(self.inner(condition), TypeInner::Vector { .. });
                let (condition, accept, reject) =
                    (self.expression(condition)?, self.expression(accept)?, self.expression(reject)?);
                Ok(if by_component {
                    format!("wgsl::select({reject}, {accept}, {condition})")
                } else {
                    format!("({condition} ? {accept} : {reject})")
                })
            }
            Expression::Math { fun, arg, arg1, arg2, arg3: None } => {
                let name = math(fun).ok_or_else(|| unsupported(format!("the function {fun:?}")))?;
                let arguments = [Some(arg), arg1, arg2].into_iter().flatten().map(|a| self.expression(a));
                Ok(format!("wgsl::{name}({})", arguments.collect::<Result<Vec<_>, _>>()?.join(", ")))
            }
            Expression::As { expr, kind, convert } => self.cast(expr, kind, convert),
            ref other => Err(unsupported(format!("the expression {}", variant(other)))),
        }
    }

    fn unary(&self, op: UnaryOperator, handle: Handle<Expression>) -> Result<String, CudaError> {
        let value = self.expression(handle)?;
        match (op, self.inner(handle)) {
            (UnaryOperator::Negate, TypeInner::Scalar(scalar)) if scalar.kind == ScalarKind::Sint => {
                Ok(format!("wgsl::negative({value})"))
            }
            (UnaryOperator::Negate, _) => Ok(format!("(-({value}))")),
            (UnaryOperator::BitwiseNot, _) => Ok(format!("(~{value})")),
            (UnaryOperator::LogicalNot, TypeInner::Scalar(_)) => Ok(format!("(!{value})")),
            (UnaryOperator::LogicalNot, _) => Err(unsupported("the operator ! of a vector")),
        }
    }

    /// Vectors and matrices have operators in the prelude. Of the operators of C++, those of scalars whose result is
    /// another one than in WGSL are functions.
    fn binary(
        &self,
        op: BinaryOperator,
        left: Handle<Expression>,
        right: Handle<Expression>,
    ) -> Result<String, CudaError> {
        use BinaryOperator as Op;
        let (a, b) = (self.expression(left)?, self.expression(right)?);
        let scalar = match *self.inner(left) {
            TypeInner::Scalar(scalar) if matches!(self.inner(right), TypeInner::Scalar(_)) => Some(scalar.kind),
            TypeInner::Matrix { .. } if !matches!(op, Op::Add | Op::Multiply) => {
                return Err(unsupported(format!("the operator {op:?} of a matrix")));
            }
            _ => None,
        };
        let signed = scalar == Some(ScalarKind::Sint);
        let function = match (op, scalar) {
            (Op::Add, _) if signed => "plus",
            (Op::Subtract, _) if signed => "minus",
            (Op::Multiply, _) if signed => "times",
            (Op::Divide, Some(ScalarKind::Sint | ScalarKind::Uint)) if !self.divides(right) => "over",
            (Op::Modulo, Some(ScalarKind::Sint | ScalarKind::Uint)) if !self.divides(right) => "rest",
            (Op::Modulo, Some(ScalarKind::Float)) => return Err(unsupported("the operator % of floats")),
            (Op::ShiftLeft, Some(_)) if signed || !self.shifts(right) => "left",
            (Op::ShiftRight, Some(_)) if !self.shifts(right) => "right",
            (Op::And, Some(ScalarKind::Bool)) => "conjunction",
            (Op::InclusiveOr, Some(ScalarKind::Bool)) => "disjunction",
            _ => return Ok(format!("({a} {} {b})", symbol(op))),
        };
        Ok(format!("wgsl::{function}({a}, {b})"))
    }

    /// Whether a divisor is a constant for which `/` and `%` of C++ are those of WGSL.
    fn divides(&self, handle: Handle<Expression>) -> bool {
        match self.number(handle) {
            Some(Literal::U32(value)) => value != 0,
            Some(Literal::I32(value)) => value > 0,
            _ => false,
        }
    }

    /// Whether the right operand of a shift is a constant below 32.
    fn shifts(&self, handle: Handle<Expression>) -> bool {
        matches!(self.number(handle), Some(Literal::U32(value)) if value < 32)
    }

    /// The value of an expression that is a literal or a constant.
    pub fn number(&self, handle: Handle<Expression>) -> Option<Literal> {
        let module = self.context.module;
        let mut expression = &self.function.expressions[handle];
        while let Expression::Constant(constant) = *expression {
            expression = &module.global_expressions[module.constants[constant].init];
        }
        if let Expression::Literal(literal) = *expression { Some(literal) } else { None }
    }

    fn cast(&self, handle: Handle<Expression>, kind: ScalarKind, width: Option<u8>) -> Result<String, CudaError> {
        let value = self.expression(handle)?;
        let function = if width.is_some() { "convert" } else { "bits" };
        let to = match (kind, width) {
            (ScalarKind::Uint, None | Some(4)) => "u32",
            (ScalarKind::Sint, None | Some(4)) => "i32",
            (ScalarKind::Float, None | Some(4)) => "f32",
            (ScalarKind::Float, Some(2)) => "f16",
            (ScalarKind::Bool, Some(_)) => "bool",
            (kind, width) => return Err(unsupported(format!("a conversion to {kind:?} of {width:?} bytes"))),
        };
        match *self.inner(handle) {
            TypeInner::Scalar(from) | TypeInner::Vector { scalar: from, .. } if width.is_some() || from.width == 4 => {}
            ref other => return Err(unsupported(format!("a conversion of {other:?}"))),
        }
        Ok(format!("wgsl::{function}<{to}>({value})"))
    }
}

fn symbol(op: BinaryOperator) -> &'static str {
    naga::back::binary_operation_str(op)
}

/// The function of the prelude.
fn math(function: MathFunction) -> Option<&'static str> {
    Some(match function {
        MathFunction::Abs => "abs",
        MathFunction::Min => "min",
        MathFunction::Max => "max",
        MathFunction::Clamp => "clamp",
        MathFunction::Ceil => "ceil",
        MathFunction::Floor => "floor",
        MathFunction::Round => "round",
        MathFunction::Trunc => "trunc",
        MathFunction::Exp => "exp",
        MathFunction::Exp2 => "exp2",
        MathFunction::Log => "log",
        MathFunction::Log2 => "log2",
        MathFunction::Sqrt => "sqrt",
        MathFunction::InverseSqrt => "inverseSqrt",
        MathFunction::Tanh => "tanh",
        MathFunction::Fma => "fma",
        MathFunction::Dot => "dot",
        MathFunction::Transpose => "transpose",
        MathFunction::Dot4I8Packed => "dot4I8Packed",
        _ => return None,
    })
}
