//! Jinja's grammar: parses tokens to statements and expressions.

use std::sync::Arc;

use super::{
    fail::{Res, fail},
    lexer::{Token, tokens},
    syntax::{
        Args, Body, Compare, Const, Expr, For, MacroDef, Math, Name, Special, Stmt, StmtKind, Suffix, Target,
        is_filter, is_test,
    },
};

/// Maximum nesting of statements and expressions. Parsing, running and dropping them recurse to this depth.
const DEEPEST: usize = 60;

/// The statements of a template.
pub(super) fn parse(template: &str) -> Res<Body> {
    let tokens = tokens(template)?;
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
        in_loop: false,
        macros: Vec::new(),
        blocks: Vec::new(),
        soft: false,
        unknown: None,
    };
    let body = parser.body(&[]);
    let line = parser.line();
    body.map_err(|failed| failed.on(line))
}

struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    depth: usize,
    /// Whether the parser is inside a loop, so that `break` is valid.
    in_loop: bool,
    /// The special names that the enclosing macros read.
    macros: Vec<Special>,
    blocks: Vec<Name>,
    /// Whether Jinja reports unknown filters and tests only when they run: directly inside a condition.
    soft: bool,
    /// The first one that it reports now.
    unknown: Option<String>,
}

impl Parser {
    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |(_, line)| *line)
    }

    fn current(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn look(&self) -> Option<&Token> {
        self.tokens.get(self.at + 1).map(|(token, _)| token)
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.current(), Some(Token::Op(got)) if *got == op)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.current(), Some(Token::Name(got)) if got == name)
    }

    fn skip_op(&mut self, op: &str) -> bool {
        let is = self.is_op(op);
        self.at += usize::from(is);
        is
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let is = self.is_name(name);
        self.at += usize::from(is);
        is
    }

    fn unexpected<T>(&self, expected: &str) -> Res<T> {
        match self.current() {
            Some(Token::Data(_)) => fail(format!("expected {expected}, got text")),
            Some(Token::PrintBegin) => fail(format!("expected {expected}, got \"{{{{\"")),
            Some(Token::PrintEnd) => fail(format!("expected {expected}, got \"}}}}\"")),
            Some(Token::TagBegin) => fail(format!("expected {expected}, got \"{{%\"")),
            Some(Token::TagEnd) => fail(format!("expected {expected}, got \"%}}\"")),
            Some(Token::Name(name)) => fail(format!("expected {expected}, got {name:?}")),
            Some(Token::Op(op)) => fail(format!("expected {expected}, got {op:?}")),
            Some(_) => fail(format!("expected {expected}, got a text or a number")),
            None => fail(format!("expected {expected}, got the end of the template")),
        }
    }

    fn expect_op(&mut self, op: &str) -> Res<()> {
        if self.skip_op(op) { Ok(()) } else { self.unexpected(&format!("{op:?}")) }
    }

    fn expect_tag_end(&mut self) -> Res<()> {
        if self.current() != Some(&Token::TagEnd) {
            return self.unexpected("\"%}\"");
        }
        self.at += 1;
        Ok(())
    }

    fn name(&mut self) -> Res<Name> {
        let Some(Token::Name(name)) = self.current() else {
            return self.unexpected("a name");
        };
        let name = name.as_str().into();
        self.at += 1;
        Ok(name)
    }

    /// A dotted name of a filter or a test.
    fn dotted(&mut self) -> Res<Name> {
        let mut name = self.name()?;
        while self.skip_op(".") {
            name = format!("{name}.{}", self.name()?).into();
        }
        Ok(name)
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        if self.depth >= DEEPEST {
            return fail(format!("expected at most {DEEPEST} nested expressions and blocks, got more"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    // Statements.

    /// Statements up to a tag with one of the names `ends`, which is not consumed. Without names: up to the end.
    fn body(&mut self, ends: &[&str]) -> Res<Body> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let kind = match self.current() {
                None if ends.is_empty() => return Ok(body),
                None => return fail(format!("expected the tag {:?}, got the end of the template", ends[0])),
                Some(Token::Data(text)) => {
                    let text = text.clone();
                    self.at += 1;
                    StmtKind::Data(text)
                }
                Some(Token::PrintBegin) => {
                    self.at += 1;
                    let value = self.tuple(true, None)?;
                    if self.current() != Some(&Token::PrintEnd) {
                        return self.unexpected("\"}}\"");
                    }
                    self.at += 1;
                    StmtKind::Print(vec![value])
                }
                Some(Token::TagBegin) => {
                    self.at += 1;
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(body);
                    }
                    let kind = self.deeper(Self::statement)?;
                    self.expect_tag_end()?;
                    kind
                }
                Some(_) => return self.unexpected("a tag"),
            };
            if let Some(unknown) = self.unknown.take() {
                return fail(unknown);
            }
            body.push(Stmt { line, kind });
        }
    }

    /// The end of a tag, and the body after it, which has its own scope.
    fn block(&mut self, ends: &[&str]) -> Res<Body> {
        let soft = std::mem::take(&mut self.soft);
        let body = self.plain_block(ends);
        self.soft = soft;
        body
    }

    fn plain_block(&mut self, ends: &[&str]) -> Res<Body> {
        // An optional colon, as in Python.
        self.skip_op(":");
        self.expect_tag_end()?;
        self.body(ends)
    }

    /// The same with one end tag, which is consumed.
    fn block_to(&mut self, end: &str) -> Res<Body> {
        let body = self.block(&[end])?;
        self.at += 1;
        Ok(body)
    }

    fn statement(&mut self) -> Res<StmtKind> {
        let name = self.name()?;
        Ok(match &*name {
            "for" => self.for_loop()?,
            "if" => self.condition()?,
            "set" => self.set()?,
            "macro" => {
                let name = self.plain_name()?;
                let parameters = self.parameters()?;
                StmtKind::Macro(Arc::new(self.macro_body(name, parameters, "endmacro")?))
            }
            "call" => {
                let parameters = if self.is_op("(") { self.parameters()? } else { Vec::new() };
                let call = self.expression()?;
                if !matches!(&call, Expr::Post(_, suffixes) if matches!(suffixes.last(), Some(Suffix::Call(_)))) {
                    return fail("expected a call in the tag \"call\", got another expression");
                }
                StmtKind::Call(call, Arc::new(self.macro_body("".into(), parameters, "endcall")?))
            }
            "filter" => {
                let filters = self.filters(true)?;
                StmtKind::Filter(filters, self.block_to("endfilter")?)
            }
            "with" => self.with()?,
            "generation" => StmtKind::Scope(self.outside_loops(|parser| parser.block_to("endgeneration"))?),
            "block" => self.named_block()?,
            "autoescape" => {
                let on = self.expression()?;
                StmtKind::AutoEscape(on, self.block_to("endautoescape")?)
            }
            "print" => {
                let mut values = Vec::new();
                while self.current() != Some(&Token::TagEnd) {
                    if !values.is_empty() {
                        self.expect_op(",")?;
                    }
                    values.push(self.expression()?);
                }
                StmtKind::Print(values)
            }
            "break" | "continue" if !self.in_loop => return fail(format!("the tag {name:?} outside of a loop")),
            "break" => StmtKind::Break,
            "continue" => StmtKind::Continue,
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.current(), None | Some(Token::TagEnd)) {
                    self.at += 1;
                }
                StmtKind::Other(name)
            }
            _ => return fail(format!("the tag {name:?}, which is unknown or has no opening tag")),
        })
    }

    fn outside_loops<T>(&mut self, read: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        let in_loop = std::mem::replace(&mut self.in_loop, false);
        let result = read(self);
        self.in_loop = in_loop;
        result
    }

    fn for_loop(&mut self) -> Res<StmtKind> {
        let target = self.target(false)?;
        if !self.skip_name("in") {
            return self.unexpected("\"in\"");
        }
        let over = self.tuple(false, Some("recursive"))?;
        let test = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        let in_loop = std::mem::replace(&mut self.in_loop, true);
        let body = self.block(&["endfor", "else"])?;
        self.in_loop = in_loop;
        let otherwise = if self.skip_name("else") {
            self.block_to("endfor")?
        } else {
            self.at += 1;
            Vec::new()
        };
        Ok(StmtKind::For(Arc::new(For { target, over, test, recursive, body, otherwise })))
    }

    fn condition(&mut self) -> Res<StmtKind> {
        let soft = std::mem::replace(&mut self.soft, true);
        let mut branches = Vec::new();
        loop {
            let test = self.tuple(false, None)?;
            branches.push((test, self.plain_block(&["elif", "else", "endif"])?));
            if !self.skip_name("elif") {
                break;
            }
        }
        let otherwise = if self.skip_name("else") { self.plain_block(&["endif"])? } else { Vec::new() };
        self.at += 1;
        self.soft = soft;
        Ok(StmtKind::If(branches, otherwise))
    }

    fn set(&mut self) -> Res<StmtKind> {
        let target = self.target(true)?;
        if self.skip_op("=") {
            return Ok(StmtKind::Set(target, self.tuple(true, None)?));
        }
        let filters = self.filters(false)?;
        Ok(StmtKind::SetBlock(target, filters, self.block_to("endset")?))
    }

    fn with(&mut self) -> Res<StmtKind> {
        let mut values = Vec::new();
        while !matches!(self.current(), Some(Token::TagEnd)) && !self.is_op(":") {
            if !values.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(false)?;
            self.expect_op("=")?;
            values.push((target, self.expression()?));
        }
        Ok(StmtKind::With(values, self.block_to("endwith")?))
    }

    fn named_block(&mut self) -> Res<StmtKind> {
        let name = self.name()?;
        if self.blocks.contains(&name) {
            return fail(format!("a second block with the name {name:?}"));
        }
        self.blocks.push(name.clone());
        if self.is_name("scoped") || self.is_name("required") {
            return fail("a block that is scoped or required, which is not supported");
        }
        let body = self.outside_loops(|parser| parser.block_to("endblock"))?;
        self.skip_name(&name);
        Ok(StmtKind::Block(body))
    }

    fn plain_name(&mut self) -> Res<Name> {
        let name = self.name()?;
        if constant(&name).is_some() {
            return fail(format!("expected a variable to set, got {name:?}"));
        }
        Ok(name)
    }

    fn parameters(&mut self) -> Res<Vec<(Name, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut parameters: Vec<(Name, Option<Expr>)> = Vec::new();
        while !self.is_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.plain_name()?;
            let default = if self.skip_op("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, before)| before.is_some()) {
                return fail(format!("the parameter {name:?} without a default after one with a default"));
            }
            parameters.push((name, default));
        }
        self.at += 1;
        Ok(parameters)
    }

    fn macro_body(&mut self, name: Name, parameters: Vec<(Name, Option<Expr>)>, end: &str) -> Res<MacroDef> {
        self.macros.push(Special::default());
        let body = self.outside_loops(|parser| parser.block_to(end));
        let reads = self.macros.pop().unwrap_or_default();
        if let Some(around) = self.macros.last_mut() {
            around.caller |= reads.caller;
            around.varargs |= reads.varargs;
            around.kwargs |= reads.kwargs;
        }
        Ok(MacroDef { name, parameters, body: body?, reads })
    }

    fn target(&mut self, attributes: bool) -> Res<Target> {
        let mut targets = Vec::new();
        let mut tuple = false;
        loop {
            if tuple && (self.is_name("in") || self.is_op(")") || self.current() == Some(&Token::TagEnd)) {
                break;
            }
            targets.push(self.one_target(attributes)?);
            if !self.skip_op(",") {
                break;
            }
            tuple = true;
        }
        match targets.pop() {
            Some(target) if !tuple => Ok(target),
            last => {
                targets.extend(last);
                Ok(Target::Tuple(targets))
            }
        }
    }

    fn one_target(&mut self, attributes: bool) -> Res<Target> {
        if self.skip_op("(") {
            let target = self.deeper(|parser| parser.target(attributes))?;
            self.expect_op(")")?;
            return Ok(target);
        }
        let name = self.plain_name()?;
        if attributes && self.skip_op(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
    }

    // Expressions.

    fn expression(&mut self) -> Res<Expr> {
        self.deeper(|parser| {
            let unknown = parser.unknown.clone();
            let mut conditions = 0;
            let mut value = parser.or()?;
            while parser.skip_name("if") {
                let test = Box::new(parser.or()?);
                let no = if parser.skip_name("else") { Some(Box::new(parser.expression()?)) } else { None };
                if conditions > 8 {
                    return fail("expected at most 8 conditions without \"else\" in a row, got more");
                }
                value = Expr::Cond { test, yes: Box::new(value), no };
                conditions += 1;
            }
            if conditions > 0 {
                parser.unknown = unknown;
            }
            Ok(value)
        })
    }

    /// Values separated by commas, or one value. `end` is a name that may follow.
    fn tuple(&mut self, conditions: bool, end: Option<&str>) -> Res<Expr> {
        let mut items = Vec::new();
        let mut tuple = false;
        loop {
            let ends = matches!(self.current(), Some(Token::PrintEnd | Token::TagEnd)) || self.is_op(")");
            if ends || end.is_some_and(|end| self.is_name(end)) {
                break;
            }
            items.push(if conditions { self.expression()? } else { self.deeper(Self::or)? });
            if !self.skip_op(",") {
                break;
            }
            tuple = true;
        }
        match items.pop() {
            Some(item) if !tuple => Ok(item),
            None => self.unexpected("an expression"),
            last => {
                items.extend(last);
                Ok(Expr::Tuple(items))
            }
        }
    }

    /// Operands of one level with an operator between them.
    fn chain(
        &mut self,
        operand: fn(&mut Self) -> Res<Expr>,
        skip: fn(&mut Self) -> bool,
        join: fn(Vec<Expr>) -> Expr,
    ) -> Res<Expr> {
        let first = operand(self)?;
        if !skip(self) {
            return Ok(first);
        }
        let mut operands = vec![first, operand(self)?];
        while skip(self) {
            operands.push(operand(self)?);
        }
        Ok(join(operands))
    }

    fn or(&mut self) -> Res<Expr> {
        self.chain(Self::and, |parser| parser.skip_name("or"), Expr::Or)
    }

    fn and(&mut self) -> Res<Expr> {
        self.chain(Self::not, |parser| parser.skip_name("and"), Expr::And)
    }

    fn not(&mut self) -> Res<Expr> {
        if self.skip_name("not") {
            return Ok(Expr::Not(Box::new(self.deeper(Self::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Res<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let not_in = self.is_name("not") && matches!(self.look(), Some(Token::Name(name)) if name == "in");
            let (op, len) = match self.current() {
                Some(Token::Op("==")) => (Compare::Equal, 1),
                Some(Token::Op("!=")) => (Compare::NotEqual, 1),
                Some(Token::Op("<")) => (Compare::Less, 1),
                Some(Token::Op("<=")) => (Compare::LessEqual, 1),
                Some(Token::Op(">")) => (Compare::Greater, 1),
                Some(Token::Op(">=")) => (Compare::GreaterEqual, 1),
                Some(Token::Name(name)) if name == "in" => (Compare::In, 1),
                _ if not_in => (Compare::NotIn, 2),
                _ => break,
            };
            self.at += len;
            rest.push((op, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn math(&mut self, operand: fn(&mut Self) -> Res<Expr>, ops: &[(&str, Math)]) -> Res<Expr> {
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some((_, op)) = ops.iter().find(|(op, _)| self.is_op(op)) {
            self.at += 1;
            rest.push((*op, operand(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Math(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Res<Expr> {
        self.math(Self::concat, &[("+", Math::Add), ("-", Math::Sub)])
    }

    fn concat(&mut self) -> Res<Expr> {
        self.chain(Self::product, |parser| parser.skip_op("~"), Expr::Concat)
    }

    fn product(&mut self) -> Res<Expr> {
        let ops = [("*", Math::Mul), ("/", Math::Div), ("//", Math::FloorDiv), ("%", Math::Mod)];
        self.math(Self::power, &ops)
    }

    fn power(&mut self) -> Res<Expr> {
        self.math(|parser| parser.unary(true), &[("**", Math::Pow)])
    }

    fn unary(&mut self, filters: bool) -> Res<Expr> {
        let value = if self.skip_op("-") {
            Expr::Neg(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else if self.skip_op("+") {
            Expr::Pos(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else {
            self.primary()?
        };
        let mut suffixes = Vec::new();
        self.postfix(&mut suffixes)?;
        if filters {
            self.filters_and_tests(&mut suffixes)?;
        }
        Ok(if suffixes.is_empty() { value } else { Expr::Post(Box::new(value), suffixes) })
    }

    fn primary(&mut self) -> Res<Expr> {
        let Some(token) = self.current() else {
            return self.unexpected("an expression");
        };
        let value = match token {
            Token::Name(name) => {
                let value = constant(name).map_or_else(|| Expr::Name(name.as_str().into()), Expr::Const);
                if let (Expr::Name(name), Some(around)) = (&value, self.macros.last_mut()) {
                    around.caller |= &**name == "caller";
                    around.varargs |= &**name == "varargs";
                    around.kwargs |= &**name == "kwargs";
                }
                value
            }
            Token::Str(text) => {
                let mut text = text.clone();
                while let Some(Token::Str(more)) = self.look() {
                    text += more;
                    self.at += 1;
                }
                Expr::Const(Const::Str(text))
            }
            Token::Int(i) => Expr::Const(Const::Int(*i)),
            Token::Float(f) => Expr::Const(Const::Float(*f)),
            Token::Op("(") => return self.deeper(Self::parentheses),
            Token::Op("[") => return self.deeper(Self::list),
            Token::Op("{") => return self.deeper(Self::dict),
            _ => return self.unexpected("an expression"),
        };
        self.at += 1;
        Ok(value)
    }

    fn parentheses(&mut self) -> Res<Expr> {
        self.at += 1;
        if self.skip_op(")") {
            return Ok(Expr::Tuple(Vec::new()));
        }
        let value = self.tuple(true, None)?;
        self.expect_op(")")?;
        Ok(value)
    }

    /// Items between brackets, separated by commas; one more comma may follow the last item.
    fn items<T>(&mut self, end: &str, mut read: impl FnMut(&mut Self) -> Res<T>) -> Res<Vec<T>> {
        self.at += 1;
        let mut items = Vec::new();
        while !self.is_op(end) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op(end) {
                    break;
                }
            }
            items.push(read(self)?);
        }
        self.expect_op(end)?;
        Ok(items)
    }

    fn list(&mut self) -> Res<Expr> {
        Ok(Expr::List(self.items("]", Self::expression)?))
    }

    fn dict(&mut self) -> Res<Expr> {
        let pairs = self.items("}", |parser| {
            let key = parser.expression()?;
            parser.expect_op(":")?;
            Ok((key, parser.expression()?))
        })?;
        Ok(Expr::Dict(pairs))
    }

    /// Attributes, items and calls.
    fn postfix(&mut self, suffixes: &mut Vec<Suffix>) -> Res<()> {
        loop {
            if self.skip_op(".") {
                suffixes.push(match self.current() {
                    Some(Token::Name(name)) => Suffix::Attribute(name.as_str().into()),
                    Some(Token::Int(i)) => Suffix::Item(Expr::Const(Const::Int(*i))),
                    _ => return self.unexpected("a name or a number"),
                });
                self.at += 1;
            } else if self.skip_op("[") {
                suffixes.push(self.subscript()?);
            } else if self.is_op("(") {
                suffixes.push(Suffix::Call(self.arguments()?));
            } else {
                return Ok(());
            }
        }
    }

    fn subscript(&mut self) -> Res<Suffix> {
        let mut parts = [None, None, None];
        let mut part = 0;
        let mut items = Vec::new();
        while !self.is_op("]") {
            if self.skip_op(":") {
                part += 1;
                if part > 2 {
                    return self.unexpected("\"]\"");
                }
                continue;
            }
            if part == 0 && parts[0].is_some() {
                self.expect_op(",")?;
                items.extend(parts[0].take());
            } else if parts[part].is_some() {
                return self.unexpected("\"]\"; items of several slices are not supported");
            }
            parts[part] = Some(self.expression()?);
        }
        self.at += 1;
        if part > 0 && items.is_empty() {
            return Ok(Suffix::Slice(Box::new(parts)));
        }
        let [last, None, None] = parts else {
            return fail("items of several slices, which are not supported");
        };
        Ok(Suffix::Item(match last {
            Some(item) if items.is_empty() => item,
            last => {
                items.extend(last);
                Expr::Tuple(items)
            }
        }))
    }

    fn filters_and_tests(&mut self, suffixes: &mut Vec<Suffix>) -> Res<()> {
        loop {
            if self.is_op("|") {
                let filters = self.filters(false)?;
                suffixes.extend(filters.into_iter().map(|(name, args)| Suffix::Filter(name, args)));
            } else if self.skip_name("is") {
                let negated = self.skip_name("not");
                let name = self.dotted()?;
                self.check_known(is_test(&name), "test", &name);
                let args = self.test_arguments()?;
                suffixes.push(Suffix::Test { name, args, negated });
            } else if self.is_op("(") {
                suffixes.push(Suffix::Call(self.arguments()?));
            } else {
                return Ok(());
            }
        }
    }

    fn check_known(&mut self, known: bool, what: &str, name: &str) {
        if !known && !self.soft {
            self.unknown.get_or_insert(format!("the {what} {name:?}, which is unknown"));
        }
    }

    fn test_arguments(&mut self) -> Res<Args> {
        let argument = match self.current() {
            Some(Token::Op("(")) => return self.arguments(),
            Some(Token::Name(name)) if name == "is" => return fail("two tests with \"is\" in a row"),
            Some(Token::Name(name)) => !matches!(name.as_str(), "else" | "or" | "and"),
            Some(Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Op("[" | "{")) => true,
            _ => false,
        };
        if !argument {
            return Ok(Args::default());
        }
        let value = self.primary()?;
        let mut suffixes = Vec::new();
        self.postfix(&mut suffixes)?;
        let value = if suffixes.is_empty() { value } else { Expr::Post(Box::new(value), suffixes) };
        Ok(Args { positional: vec![value], ..Args::default() })
    }

    /// Filters, each after a bar. `inline`: the first one has no bar.
    fn filters(&mut self, mut inline: bool) -> Res<Vec<(Name, Args)>> {
        let mut filters = Vec::new();
        while inline || self.skip_op("|") {
            inline = false;
            let name = self.dotted()?;
            self.check_known(is_filter(&name), "filter", &name);
            let args = if self.is_op("(") { self.arguments()? } else { Args::default() };
            filters.push((name, args));
        }
        Ok(filters)
    }

    fn arguments(&mut self) -> Res<Args> {
        self.deeper(|parser| {
            let mut args = Args::default();
            parser.items(")", |parser| parser.argument(&mut args))?;
            Ok(args)
        })
    }

    fn argument(&mut self, args: &mut Args) -> Res<()> {
        let named = matches!((self.current(), self.look()), (Some(Token::Name(_)), Some(Token::Op("="))));
        let allowed = if self.is_op("*") {
            args.list.is_none() && args.dict.is_none()
        } else if named || self.is_op("**") {
            args.dict.is_none()
        } else {
            args.list.is_none() && args.dict.is_none() && args.named.is_empty()
        };
        if !allowed {
            return fail("arguments in an order that Jinja does not allow");
        }
        if self.skip_op("*") {
            args.list = Some(Box::new(self.expression()?));
        } else if self.skip_op("**") {
            args.dict = Some(Box::new(self.expression()?));
        } else if named {
            let name = self.name()?;
            self.at += 1;
            args.named.push((name, self.expression()?));
        } else {
            args.positional.push(self.expression()?);
        }
        Ok(())
    }
}

/// The constant with this name.
fn constant(name: &str) -> Option<Const> {
    Some(match name {
        "true" | "True" => Const::Bool(true),
        "false" | "False" => Const::Bool(false),
        "none" | "None" => Const::None,
        _ => return None,
    })
}
