//! `{% generation %}` and `{% endgeneration %}`: Hugging Face's tags around what an assistant says, which training masks by
//! and which print nothing. They become `with`, which prints nothing either and keeps variables to itself, as they do.

use crate::error::Error;

/// Blocks, by the word that ends each. A loop's `break` may not leave any but `if`: minijinja would panic.
const BLOCKS: [(&str, &str); 8] = [
    ("for", "endfor"),
    ("with", "endwith"),
    ("generation", "endgeneration"),
    ("macro", "endmacro"),
    ("call", "endcall"),
    ("filter", "endfilter"),
    ("autoescape", "endautoescape"),
    ("block", "endblock"),
];

/// The template with these tags as `with` and `endwith`. Strings, comments and raw blocks stay as they are.
///
/// # Errors
/// [`Error::Tokenizer`] for a `break` or `continue` whose loop is around another block than `if`.
pub(super) fn without_tags(template: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(template.len());
    let mut open: Vec<&str> = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let length = match from.as_bytes().get(1) {
            Some(b'#') => from[2..].find("#}").map_or(from.len(), |end| end + 4),
            Some(b'{') => tag_length(from, "}}"),
            Some(b'%') => tag_length(from, "%}"),
            _ => 1,
        };
        let (tag, behind) = from.split_at(length);
        let first = word(tag).and_then(|words| words.split(|c: char| !c.is_alphanumeric()).next()).unwrap_or_default();
        // `set` is a block where it has no value.
        if BLOCKS.iter().any(|(start, _)| *start == first) || (first == "set" && !tag.contains('=')) {
            open.push(first);
        } else if first == "endset" || BLOCKS.iter().any(|(_, end)| *end == first) {
            open.pop();
        } else if ["break", "continue"].contains(&first) && open.last().is_some_and(|block| *block != "for") {
            let block = open.last().copied().unwrap_or_default();
            return Err(super::failed(format!(
                "expected {first} within its loop, got it within {block}: not supported"
            )));
        }
        match word(tag) {
            Some("generation") => out.push_str(&tag.replacen("generation", "with", 1)),
            Some("endgeneration") => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            Some("raw") => {
                let raw = raw_length(behind);
                out.push_str(tag);
                out.push_str(&behind[..raw]);
                rest = &behind[raw..];
                continue;
            }
            _ => out.push_str(tag),
        }
        rest = behind;
    }
    Ok(out + rest)
}

/// The length of a tag that ends with `end`, which does not count within strings.
fn tag_length(from: &str, end: &str) -> usize {
    let bytes = from.as_bytes();
    let mut at = 2;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            _ if bytes[at..].starts_with(end.as_bytes()) => return at + 2,
            _ => at += 1,
        }
    }
    from.len()
}

/// The length of what a raw block holds, with its end: the first tag of that name.
fn raw_length(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%") {
        let start = from + at;
        let end = text[start..].find("%}").map_or(text.len(), |end| start + end + 2);
        if word(&text[start..end]) == Some("endraw") {
            return end;
        }
        from = start + 2;
    }
    text.len()
}

/// The one word of a block tag; None where there is more, or it is none.
fn word(tag: &str) -> Option<&str> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    Some(inner.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tags_change() {
        for (template, expected) in [
            ("{% generation %}a{% endgeneration %}", "{% with %}a{% endwith %}"),
            ("{%- generation -%}a{%-endgeneration+%}", "{%- with -%}a{%-endwith+%}"),
            ("{%\n  generation\n%}", "{%\n  with\n%}"),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}"),
            ("{{ \"\\\"{% generation %}\" }}", "{{ \"\\\"{% generation %}\" }}"),
            ("{# {% generation %} #}", "{# {% generation %} #}"),
            (
                "{% raw %}{% generation %}{% endraw %}{% generation %}",
                "{% raw %}{% generation %}{% endraw %}{% with %}",
            ),
            ("{% set generation = 1 %}{{ generation }}", "{% set generation = 1 %}{{ generation }}"),
            ("{% if '%} {% generation %}' %}", "{% if '%} {% generation %}' %}"),
            ("é { ü {% generation", "é { ü {% generation"),
            ("{", "{"),
            ("{{ 'é", "{{ 'é"),
            ("{% 'a\\", "{% 'a\\"),
        ] {
            assert_eq!(without_tags(template).expect("a template"), expected, "{template}");
        }
    }

    #[test]
    fn a_break_that_leaves_another_block_is_refused() {
        for template in [
            "{% for i in x %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
            "{% for i in x %}{% with %}{%- continue %}{% endwith %}{% endfor %}",
            "{% for i in x %}{% set a %}{% break %}{% endset %}{% endfor %}",
        ] {
            assert!(without_tags(template).is_err(), "{template}");
        }
        for template in [
            "{% for i in x %}{% if i %}{% break %}{% endif %}{% endfor %}",
            "{% with %}{% for i in x %}{% set a = 1 %}{% continue %}{% endfor %}{% endwith %}",
        ] {
            assert_eq!(without_tags(template).expect("a template"), template);
        }
    }
}
