//! The function `strftime_now`, as Hugging Face has it: Python's `datetime.now().strftime(format)`, local time in the C locale.

use std::fmt::Write;

use chrono::{
    Local,
    format::{Item, StrftimeItems},
};
use minijinja::Error;

use super::refuse;

/// Longest format, and longest text of one.
const LONGEST: usize = 1024;

/// The local time now, by `format`.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let wrong = || {
        refuse(format!(
            "strftime_now: expected a format of strftime's, got {:?}",
            format.chars().take(40).collect::<String>()
        ))
    };
    if format.len() > LONGEST {
        return Err(wrong());
    }
    // A time without a zone: Python prints nothing for %z and %Z then, and six digits for %f.
    let format = format.replace("%z", "").replace("%Z", "").replace("%f", "%6f");
    let items: Vec<Item> = StrftimeItems::new(&format).collect();
    if items.contains(&Item::Error) {
        return Err(wrong());
    }
    let mut text = String::new();
    write!(text, "{}", Local::now().format_with_items(items.iter())).map_err(|_| wrong())?;
    Ok(text)
}
