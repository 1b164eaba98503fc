//! Splits a template into Jinja's tokens, and removes white space like Jinja.
//!
//! With Hugging Face's options: removes the newline after a block (`trim_blocks`), and blanks before a block that
//! starts its line (`lstrip_blocks`).

use super::{
    fail::{Res, fail},
    text::is_space,
};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Data(String),
    /// `{{`
    PrintBegin,
    /// `}}`
    PrintEnd,
    /// `{%`
    TagBegin,
    /// `%}`
    TagEnd,
    Name(String),
    Str(String),
    Int(i64),
    Float(f64),
    Op(&'static str),
}

/// Operators, longer ones first.
const OPERATORS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";", "!",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    Comment,
    Tag,
    Print,
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: u32,
    /// Whether the last token ended a line.
    line_starts: bool,
    open: Vec<&'static str>,
    tokens: Vec<(Token, u32)>,
}

/// The tokens of `template`, each with its line.
pub(super) fn tokens(template: &str) -> Res<Vec<(Token, u32)>> {
    let mut source = template.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer { source: &source, at: 0, line: 1, line_starts: true, open: Vec::new(), tokens: Vec::new() };
    let read = lexer.root();
    let line = lexer.line;
    read.map_err(|failed| failed.on(line))?;
    Ok(lexer.tokens)
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    /// Skips `len` bytes.
    fn skip(&mut self, len: usize) {
        let passed = &self.rest()[..len];
        self.line += u32::try_from(passed.matches('\n').count()).unwrap_or(0);
        self.at += len;
        if len > 0 {
            self.line_starts = passed.ends_with('\n');
        }
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.skip(rest.len() - rest.trim_start_matches(is_space).len());
    }

    fn root(&mut self) -> Res<()> {
        while self.at < self.source.len() {
            let Some((text, begin)) = self.next_begin() else {
                self.data(self.rest().len(), "+", false);
                return Ok(());
            };
            let after = &self.rest()[text + 2..];
            let sign = sign(after);
            self.data(text, sign, begin != Begin::Print);
            if begin == Begin::Tag
                && let Some(len) = raw_tag(&self.rest()[2..])
            {
                self.skip(2 + len);
                self.raw()?;
                continue;
            }
            self.skip(2 + sign.len());
            if begin == Begin::Comment {
                self.comment()?;
            } else {
                self.push(if begin == Begin::Tag { Token::TagBegin } else { Token::PrintBegin });
                self.inside(begin)?;
            }
        }
        Ok(())
    }

    /// Length of the text before the next tag.
    fn next_begin(&self) -> Option<(usize, Begin)> {
        let rest = self.rest();
        rest.match_indices('{').find_map(|(at, _)| match rest.as_bytes().get(at + 1)? {
            b'#' => Some((at, Begin::Comment)),
            b'%' => Some((at, Begin::Tag)),
            b'{' => Some((at, Begin::Print)),
            _ => None,
        })
    }

    /// Text of `len` bytes before a tag that starts with `sign`. `block`: blanks before the tag may be removed.
    fn data(&mut self, len: usize, sign: &str, block: bool) {
        let text = &self.rest()[..len];
        let kept = match sign {
            "-" => text.trim_end_matches(is_space),
            "" if block => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                let blank = !text[line..].is_empty() && text[line..].chars().all(is_space);
                if blank && (line > 0 || self.line_starts) { &text[..line] } else { text }
            }
            _ => text,
        };
        if !kept.is_empty() {
            self.push(Token::Data(kept.to_owned()));
        }
        self.skip(len);
    }

    fn comment(&mut self) -> Res<()> {
        let Some(end) = self.rest().find("#}") else {
            return fail("expected the end of a comment, got the end of the template");
        };
        let sign = self.rest()[..end].chars().next_back();
        self.skip(end + 2);
        self.after_block(sign);
        Ok(())
    }

    /// Skips white space after a comment or a block that ended with `sign`.
    fn after_block(&mut self, sign: Option<char>) {
        match sign {
            Some('-') => self.skip_space(),
            Some('+') => {}
            _ if self.rest().starts_with('\n') => self.skip(1),
            _ => {}
        }
    }

    /// Text up to the tag `endraw`.
    fn raw(&mut self) -> Res<()> {
        let rest = self.rest();
        for (at, _) in rest.match_indices("{%") {
            let after = &rest[at + 2..];
            let begin = sign(after);
            let name = after[begin.len()..].trim_start_matches(is_space);
            let Some(end) = name.strip_prefix("endraw") else { continue };
            let end = end.trim_start_matches(is_space);
            let close = sign(end);
            let Some(behind) = end[close.len()..].strip_prefix("%}") else { continue };
            self.data(at, begin, true);
            self.skip(rest.len() - behind.len() - at);
            self.after_block(close.chars().next());
            return Ok(());
        }
        fail("expected the tag \"endraw\", got the end of the template")
    }

    /// Tokens up to the end of a tag.
    fn inside(&mut self, begin: Begin) -> Res<()> {
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                return fail("expected the end of a tag, got the end of the template");
            }
            if self.open.is_empty() && self.end(begin) {
                return Ok(());
            }
            let Some(c) = rest.chars().next() else { continue };
            if is_space(c) {
                self.skip_space();
            } else if c.is_ascii_digit() {
                self.number()?;
            } else if c == '_' || c.is_alphanumeric() {
                self.name()?;
            } else if c == '\'' || c == '"' {
                self.string(c)?;
            } else {
                self.operator(c)?;
            }
        }
    }

    fn end(&mut self, begin: Begin) -> bool {
        let rest = self.rest();
        let sign = sign(rest);
        let close = if begin == Begin::Print { "}}" } else { "%}" };
        if !rest[sign.len()..].starts_with(close) || begin == Begin::Print && sign == "+" {
            return false;
        }
        self.push(if begin == Begin::Print { Token::PrintEnd } else { Token::TagEnd });
        self.skip(sign.len() + 2);
        match begin {
            Begin::Print if sign == "-" => self.skip_space(),
            Begin::Print => {}
            _ => self.after_block(sign.chars().next()),
        }
        true
    }

    fn operator(&mut self, c: char) -> Res<()> {
        let rest = self.rest();
        let Some(op) = OPERATORS.into_iter().find(|op| rest.starts_with(op)) else {
            return fail(format!("the character {c:?} inside a tag"));
        };
        match op {
            "(" => self.open.push(")"),
            "[" => self.open.push("]"),
            "{" => self.open.push("}"),
            ")" | "]" | "}" => match self.open.pop() {
                Some(expected) if expected == op => {}
                Some(expected) => return fail(format!("expected {expected:?}, got {op:?}")),
                None => return fail(format!("{op:?} without an opening bracket")),
            },
            _ => {}
        }
        self.push(Token::Op(op));
        self.skip(op.len());
        Ok(())
    }

    fn name(&mut self) -> Res<()> {
        let rest = self.rest();
        let len = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        let name = &rest[..len];
        if name.chars().next().is_some_and(|c| c != '_' && !c.is_alphabetic()) {
            return fail(format!("expected a name, got {name:?}"));
        }
        self.push(Token::Name(name.to_owned()));
        self.skip(len);
        Ok(())
    }

    fn number(&mut self) -> Res<()> {
        let rest = self.rest();
        let after_dot = self.source[..self.at].ends_with('.');
        if let Some(len) = float(rest).filter(|_| !after_dot) {
            let Ok(value) = rest[..len].replace('_', "").parse() else {
                return fail(format!("expected a number, got {}", &rest[..len]));
            };
            self.push(Token::Float(value));
            self.skip(len);
            return Ok(());
        }
        let (radix, prefix, len) = integer(rest);
        let digits = rest[prefix..len].replace('_', "");
        let Ok(value) = i64::from_str_radix(&digits, radix) else {
            return fail(format!("the number {}, which is too large", &rest[..len]));
        };
        self.push(Token::Int(value));
        self.skip(len);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Res<()> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest[1..].char_indices().find(|&(_, c)| {
            let ends = !escaped && c == quote;
            escaped = !escaped && c == '\\';
            ends
        });
        let Some((len, _)) = end else {
            return fail("expected the end of a text, got the end of the template");
        };
        let text = unescape(&rest[1..=len])?;
        self.push(Token::Str(text));
        self.skip(len + 2);
        Ok(())
    }
}

/// The sign (`-` or `+`) at the start or the end of a tag.
fn sign(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'-') => "-",
        Some(b'+') => "+",
        _ => "",
    }
}

/// Length of the rest of a tag `raw` after `{%`, including the white space that it removes.
fn raw_tag(text: &str) -> Option<usize> {
    let name = text[sign(text).len()..].trim_start_matches(is_space).strip_prefix("raw")?;
    let end = name.trim_start_matches(is_space);
    let behind = match end.strip_prefix("-%}") {
        Some(behind) => behind.trim_start_matches(is_space),
        None => end.strip_prefix("%}")?,
    };
    Some(text.len() - behind.len())
}

/// Length of the digits, with single underscores between them, at the start of `text`.
fn digits(text: &str, is_digit: impl Fn(u8) -> bool) -> usize {
    let bytes = text.as_bytes();
    let mut len = 0;
    while bytes.get(len).is_some_and(|&b| is_digit(b))
        || len > 0 && bytes.get(len) == Some(&b'_') && bytes.get(len + 1).is_some_and(|&b| is_digit(b))
    {
        len += 1;
    }
    len
}

/// Length of the float at the start of `text`.
fn float(text: &str) -> Option<usize> {
    let decimal = |text: &str| digits(text, |b| b.is_ascii_digit());
    let whole = decimal(text);
    let fraction = text[whole..].strip_prefix('.').map_or(0, decimal);
    let mantissa = if fraction > 0 { whole + 1 + fraction } else { whole };
    let exponent = text[mantissa..].strip_prefix(['e', 'E']).and_then(|rest| {
        let sign = sign(rest).len();
        let len = decimal(&rest[sign..]);
        (len > 0).then_some(1 + sign + len)
    });
    match exponent {
        Some(exponent) => Some(mantissa + exponent),
        None => (fraction > 0).then_some(mantissa),
    }
}

/// Radix, length of the prefix, and total length of the integer at the start of `text`.
fn integer(text: &str) -> (u32, usize, usize) {
    let bytes = text.as_bytes();
    for (letter, radix) in [(b'b', 2), (b'o', 8), (b'x', 16)] {
        if bytes[0] == b'0' && bytes.get(1).is_some_and(|b| b.to_ascii_lowercase() == letter) {
            let is_digit = |b: u8| char::from(b).is_digit(radix);
            let underscore = usize::from(bytes.get(2) == Some(&b'_'));
            let len = digits(&text[2 + underscore..], is_digit);
            if len > 0 {
                return (radix, 2, 2 + underscore + len);
            }
        }
    }
    let len = if bytes[0] == b'0' { digits(text, |b| b == b'0') } else { digits(text, |b| b.is_ascii_digit()) };
    (10, 0, len)
}

/// Decodes a text's escapes like Python; unknown ones stay unchanged.
fn unescape(text: &str) -> Res<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(c) = chars.next() else {
            return fail("a text that ends in a backslash");
        };
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\x0b'),
            'x' => out.push(code(&mut chars, 2)?),
            'u' => out.push(code(&mut chars, 4)?),
            'U' => out.push(code(&mut chars, 8)?),
            '0'..='7' => {
                let rest = chars.as_str();
                let more = rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let value = rest[..more].bytes().fold(c as u32 - 48, |value, b| value * 8 + u32::from(b - b'0'));
                out.push(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER));
                chars = rest[more..].chars();
            }
            'N' => return fail("a character given by its name in a text, which is not supported"),
            c if c.is_ascii() => out.extend(['\\', c]),
            // Python first turns a non-ASCII character into an escape; the preceding backslash then escapes its
            // backslash.
            c => match c as u32 {
                code @ ..0x100 => out += &format!("\\x{code:02x}"),
                code @ ..0x1_0000 => out += &format!("\\u{code:04x}"),
                code => out += &format!("\\U{code:08x}"),
            },
        }
    }
    Ok(out)
}

/// The character whose code point follows in `len` hexadecimal digits.
fn code(chars: &mut std::str::Chars<'_>, len: usize) -> Res<char> {
    let digits: String = chars.take(len).collect();
    let known = digits.len() == len && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let c = u32::from_str_radix(&digits, 16).ok().filter(|_| known).and_then(char::from_u32);
    c.map_or_else(|| fail(format!("expected the code point of a character, got {digits:?}")), Ok)
}
