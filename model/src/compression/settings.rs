//! The spelling of one method, `name:key=value,key=value`. Input: text. Output: checked values, and their text.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use super::{NEWLINES, Newlines, THUMBNAILS, ThumbnailTokens, select::Budget};
use crate::error::Error;

/// The keys and values of one method, in lower case. A method reads each of its keys once; then [`Settings::finish`]
/// refuses all other keys.
pub(crate) struct Settings<'a> {
    /// The method's name.
    method: &'a str,
    /// The pairs that are not read yet.
    pairs: Vec<(&'a str, &'a str)>,
    /// The keys that the method has.
    known: Vec<&'static str>,
}

/// The error for a text that is not a compression, with at most 80 characters of the text.
pub(crate) fn refused(expected: impl Into<String>, got: &str) -> Error {
    const MOST: usize = 80;
    let cut = if got.chars().count() > MOST { "..." } else { "" };
    let got = if got.is_empty() { "nothing".into() } else { got.chars().take(MOST).collect::<String>() + cut };
    Error::Option { option: "compress", expected: expected.into(), got }
}

/// The names of a table, for messages: `a, b or c`.
pub(crate) fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).into(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The name of a value in a table.
pub(crate) fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: T) -> String {
    names.iter().find(|(_, known)| *known == value).map_or_else(String::new, |(name, _)| (*name).into())
}

/// The spelling of a value that may not be given: empty without one.
pub(crate) fn optional<T: Display>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

impl<'a> Settings<'a> {
    /// The method `name` without settings: all defaults.
    pub fn plain(name: &'a str) -> Self {
        Self { method: name, pairs: Vec::new(), known: Vec::new() }
    }

    /// Splits `name:key=value,key=value`.
    ///
    /// # Errors
    /// [`Error::Option`] for a pair without `=` and for a key that is there twice.
    pub fn of(part: &'a str) -> Result<Self, Error> {
        let Some((name, rest)) = part.split_once(':') else { return Ok(Self::plain(part.trim())) };
        let mut settings = Self::plain(name.trim());
        for pair in rest.split(',') {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(refused(format!("key=value after {}:", settings.method), pair.trim()));
            };
            let (key, value) = (key.trim(), value.trim());
            if settings.pairs.iter().any(|(other, _)| *other == key) {
                return Err(refused(format!("each key of {} once", settings.method), &format!("{key} twice")));
            }
            settings.pairs.push((key, value));
        }
        Ok(settings)
    }

    /// The method's name.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The error for the value `got` of `key`.
    pub fn wrong(&self, key: &str, expected: &str, got: &str) -> Error {
        refused(format!("{expected} for {key} of {}", self.method), got)
    }

    /// The value of `key`, if it is there. `parse` returns None for a value that is not allowed; `expected` says which are.
    ///
    /// # Errors
    /// [`Error::Option`] with the method, the key, and the allowed and the given value.
    pub fn given<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.known.push(key);
        let Some(at) = self.pairs.iter().position(|(given, _)| *given == key) else { return Ok(None) };
        let (_, text) = self.pairs.swap_remove(at);
        parse(text).map(Some).ok_or_else(|| self.wrong(key, expected, text))
    }

    /// A budget: a ratio above 0 and at most 1 if the value has a point, else a count of at least 1.
    pub fn budget(&mut self, key: &'static str, default: Budget) -> Result<Budget, Error> {
        Ok(self.budget_if_given(key)?.unwrap_or(default))
    }

    /// As [`Settings::budget`], without a default.
    pub fn budget_if_given(&mut self, key: &'static str) -> Result<Option<Budget>, Error> {
        let expected = "a ratio above 0 and at most 1 with a point such as 0.25, or a count of at least 1 such as 64";
        self.given(key, expected, |text| Budget::parse(text).filter(|budget| *budget != Budget::Count(0)))
    }

    /// As [`Settings::budget`], and the count may be 0.
    pub fn budget_or_none(&mut self, key: &'static str, default: Budget) -> Result<Budget, Error> {
        let expected = "a ratio above 0 and at most 1 with a point such as 0.25, or a count such as 10 or 0";
        Ok(self.given(key, expected, Budget::parse)?.unwrap_or(default))
    }

    /// A number above 0 and at most 1.
    pub fn share(&mut self, key: &'static str, default: f64) -> Result<f64, Error> {
        Ok(self.given(key, "a number above 0 and at most 1", share)?.unwrap_or(default))
    }

    /// A number from 0 to 1.
    pub fn weight(&mut self, key: &'static str, default: f64) -> Result<f64, Error> {
        let read = |text: &str| text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
        Ok(self.given(key, "a number from 0 to 1", read)?.unwrap_or(default))
    }

    /// A whole number in `range`.
    pub fn count(&mut self, key: &'static str, default: usize, range: RangeInclusive<usize>) -> Result<usize, Error> {
        let expected = match (*range.start(), *range.end()) {
            (least, usize::MAX) => format!("a whole number of at least {least}"),
            (least, most) => format!("a whole number from {least} to {most}"),
        };
        let read = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        Ok(self.given(key, &expected, read)?.unwrap_or(default))
    }

    /// A seed.
    pub fn seed(&mut self, key: &'static str) -> Result<Option<u64>, Error> {
        self.given(key, "a seed, a whole number from 0 to 18446744073709551615", |text| text.parse().ok())
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, Error> {
        Ok(self.given(key, "true or false", |text| text.parse().ok())?.unwrap_or(default))
    }

    /// A value of a table, by its name.
    pub fn one_of<T: Copy>(&mut self, key: &'static str, default: T, names: &[(&'static str, T)]) -> Result<T, Error> {
        let expected = listed(&names.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        let read = |text: &str| names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        Ok(self.given(key, &expected, read)?.unwrap_or(default))
    }

    /// A list of values with `/` between them, at least one. `allowed` says which values are.
    pub fn list<T: FromStr>(
        &mut self,
        key: &'static str,
        expected: &str,
        allowed: impl Fn(&T) -> bool,
    ) -> Result<Option<Vec<T>>, Error> {
        let one = |text: &str| text.trim().parse().ok().filter(&allowed);
        self.given(key, expected, |text| text.split('/').map(one).collect())
    }

    /// The key `newlines`.
    pub fn newlines(&mut self) -> Result<Newlines, Error> {
        self.one_of("newlines", Newlines::default(), &NEWLINES)
    }

    /// The key `thumbnail`.
    pub fn thumbnail(&mut self, default: ThumbnailTokens) -> Result<ThumbnailTokens, Error> {
        self.one_of("thumbnail", default, &THUMBNAILS)
    }

    /// Refuses the keys that no one read.
    ///
    /// # Errors
    /// [`Error::Option`] with the keys of the method.
    pub fn finish(&self) -> Result<(), Error> {
        let Some((key, _)) = self.pairs.first() else { return Ok(()) };
        Err(match &self.known[..] {
            [] => refused(format!("{} without settings", self.method), key),
            known => refused(format!("a key of {}: {}", self.method, listed(known)), key),
        })
    }
}

/// A number above 0 and at most 1.
pub(crate) fn share(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number| *number > 0.0 && *number <= 1.0)
}
