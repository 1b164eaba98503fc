//! The syntax tree of a template, and the names of all filters and tests.

use std::sync::Arc;

pub(super) type Name = Arc<str>;
pub(super) type Body = Vec<Stmt>;

/// A statement and its line.
pub(super) struct Stmt {
    pub(super) line: u32,
    pub(super) kind: StmtKind,
}

pub(super) enum StmtKind {
    /// Text between tags.
    Data(String),
    Print(Vec<Expr>),
    If(Vec<(Expr, Body)>, Body),
    For(Arc<For>),
    Set(Target, Expr),
    SetBlock(Target, Vec<(Name, Args)>, Body),
    Macro(Arc<MacroDef>),
    /// A call expression, and the block that it gets as `caller`.
    Call(Expr, Arc<MacroDef>),
    Filter(Vec<(Name, Args)>, Body),
    With(Vec<(Target, Expr)>, Body),
    /// A body with its own variables: `generation`.
    Scope(Body),
    /// The same, but it sees only the outermost variables: `block`.
    Block(Body),
    AutoEscape(Expr, Body),
    Break,
    Continue,
    /// A tag that needs other templates, which are not supported.
    Other(Name),
}

pub(super) struct For {
    pub(super) target: Target,
    pub(super) over: Expr,
    pub(super) test: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Body,
    pub(super) otherwise: Body,
}

pub(super) struct MacroDef {
    /// Empty for the body of a tag `call`.
    pub(super) name: Name,
    pub(super) parameters: Vec<(Name, Option<Expr>)>,
    pub(super) body: Body,
    /// The special names that the body reads.
    pub(super) reads: Special,
}

/// Names that a macro defines only if its body reads them.
#[derive(Clone, Copy, Default)]
pub(super) struct Special {
    pub(super) caller: bool,
    pub(super) varargs: bool,
    pub(super) kwargs: bool,
}

/// The target of an assignment.
pub(super) enum Target {
    Name(Name),
    Tuple(Vec<Target>),
    /// An attribute of a namespace.
    Attribute(Name, Name),
}

/// An expression. Chains of operators are lists, so that a long chain does not nest.
pub(super) enum Expr {
    Const(Const),
    Name(Name),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    /// `yes if test else no`.
    Cond {
        test: Box<Expr>,
        yes: Box<Expr>,
        no: Option<Box<Expr>>,
    },
    Or(Vec<Expr>),
    And(Vec<Expr>),
    Not(Box<Expr>),
    Neg(Box<Expr>),
    Pos(Box<Expr>),
    Compare(Box<Expr>, Vec<(Compare, Expr)>),
    Math(Box<Expr>, Vec<(Math, Expr)>),
    Concat(Vec<Expr>),
    Post(Box<Expr>, Vec<Suffix>),
}

pub(super) enum Const {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Math {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

/// An operation after a value.
pub(super) enum Suffix {
    Attribute(Name),
    Item(Expr),
    Slice(Box<[Option<Expr>; 3]>),
    Call(Args),
    Filter(Name, Args),
    Test { name: Name, args: Args, negated: bool },
}

/// Arguments of a call.
#[derive(Default)]
pub(super) struct Args {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(Name, Expr)>,
    /// `*list`.
    pub(super) list: Option<Box<Expr>>,
    /// `**dictionary`.
    pub(super) dict: Option<Box<Expr>>,
}

/// Whether a filter of this name exists.
pub(super) fn is_filter(name: &str) -> bool {
    let names = "abs attr batch capitalize center count d default dictsort e escape filesizeformat first float \
        forceescape format groupby indent int items join last length list lower map max min pprint random reject \
        rejectattr replace reverse round safe select selectattr slice sort string striptags sum title tojson trim \
        truncate unique upper urlencode urlize wordcount wordwrap xmlattr";
    names.split(' ').any(|known| known == name)
}

/// Whether a test of this name exists.
pub(super) fn is_test(name: &str) -> bool {
    let names = "!= < <= == > >= boolean callable defined divisibleby eq equalto escaped even false filter float ge \
        greaterthan gt in integer iterable le lessthan lower lt mapping ne none number odd sameas sequence string test \
        true undefined upper";
    names.split(' ').any(|known| known == name)
}
