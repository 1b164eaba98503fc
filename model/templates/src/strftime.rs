//! Python's `strftime` on Linux: glibc's, in the C locale.

use super::{
    clock::Moment,
    fail::{Res, fail},
};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// Maximum width of a field.
const WIDEST: usize = 64;

/// Flags and width between `%` and a directive's letter.
#[derive(Clone, Copy, Default)]
struct Flags {
    pad: Option<char>,
    upper: bool,
    swap: bool,
    width: Option<usize>,
}

/// Formats a moment.
pub(super) fn strftime(format: &str, at: &Moment) -> Res<String> {
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out += before;
        let letters = after.trim_start_matches(['_', '-', '0', '^', '#']);
        let mut flags = Flags::default();
        for flag in after[..after.len() - letters.len()].chars() {
            match flag {
                '^' => flags.upper = true,
                '#' => flags.swap = true,
                pad => flags.pad = Some(pad),
            }
        }
        let behind = letters.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &letters[..letters.len() - behind.len()];
        if !digits.is_empty() {
            flags.width = digits.parse().ok().filter(|width| *width <= WIDEST);
            if flags.width.is_none() {
                return fail(format!("strftime_now: a width of {digits}"));
            }
        }
        let plain = behind.strip_prefix(['E', 'O']).unwrap_or(behind);
        let Some(letter) = plain.chars().next() else {
            return Ok(out + "%" + after);
        };
        rest = &plain[letter.len_utf8()..];
        if !directive(&mut out, letter, flags, at)? {
            // Unknown directives are printed unchanged.
            out.push('%');
            out += &after[..after.len() - rest.len()];
        }
    }
    Ok(out + rest)
}

/// Prints one directive; false if the letter is unknown.
fn directive(out: &mut String, letter: char, flags: Flags, at: &Moment) -> Res<bool> {
    let hour12 = if at.hour % 12 == 0 { 12 } else { at.hour % 12 };
    let weekday = at.weekday();
    let day_of_year = at.day_of_year();
    let year = at.year;
    let (iso_year, iso_week) = iso(at);
    let month = MONTHS[usize::try_from(at.month - 1).unwrap_or(0) % 12];
    let day = DAYS[usize::try_from(weekday).unwrap_or(0) % 7];
    let monday = (weekday + 6) % 7;
    match letter {
        'a' => word(out, &day[..3], flags, false),
        'A' => word(out, day, flags, false),
        'b' | 'h' => word(out, &month[..3], flags, false),
        'B' => word(out, month, flags, false),
        'p' => word(out, if at.hour < 12 { "AM" } else { "PM" }, flags, flags.swap),
        'P' => word(out, if at.hour < 12 { "am" } else { "pm" }, flags, false),
        'C' => number(out, year.div_euclid(100), 2, '0', flags),
        'd' => number(out, at.day, 2, '0', flags),
        'e' => number(out, at.day, 2, '_', flags),
        'g' => number(out, iso_year.rem_euclid(100), 2, '0', flags),
        'G' => number(out, iso_year, 1, '0', flags),
        'H' => number(out, at.hour, 2, '0', flags),
        'I' => number(out, hour12, 2, '0', flags),
        'j' => number(out, day_of_year + 1, 3, '0', flags),
        'k' => number(out, at.hour, 2, '_', flags),
        'l' => number(out, hour12, 2, '_', flags),
        'm' => number(out, at.month, 2, '0', flags),
        'M' => number(out, at.minute, 2, '0', flags),
        'S' => number(out, at.second, 2, '0', flags),
        'u' => number(out, monday + 1, 1, '0', flags),
        'U' => number(out, (day_of_year + 7 - weekday) / 7, 2, '0', flags),
        'V' => number(out, iso_week, 2, '0', flags),
        'w' => number(out, weekday, 1, '0', flags),
        'W' => number(out, (day_of_year + 7 - monday) / 7, 2, '0', flags),
        'y' => number(out, year.rem_euclid(100), 2, '0', flags),
        'Y' => number(out, year, 1, '0', flags),
        'n' => word(out, "\n", flags, false),
        't' => word(out, "\t", flags, false),
        '%' => word(out, "%", flags, false),
        'c' => whole(out, "%a %b %e %H:%M:%S %Y", flags, at)?,
        'D' | 'x' => whole(out, "%m/%d/%y", flags, at)?,
        'F' => whole(out, "%Y-%m-%d", flags, at)?,
        'r' => whole(out, "%I:%M:%S %p", flags, at)?,
        'R' => whole(out, "%H:%M", flags, at)?,
        'T' | 'X' => whole(out, "%H:%M:%S", flags, at)?,
        // Python itself replaces these; its time has no zone.
        'f' => number(out, at.microsecond, 6, '0', flags),
        'z' | 'Z' => {}
        's' => return fail("strftime_now: seconds since 1970, which are not supported"),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Year and week of ISO 8601: weeks start on Monday, and the first week contains the year's first Thursday.
fn iso(at: &Moment) -> (i64, i64) {
    let monday = (at.weekday() + 6) % 7;
    let week = (at.day_of_year() - monday + 10) / 7;
    let weeks = |year: i64| {
        let first = Moment { year, month: 1, day: 1, ..*at }.weekday();
        if first == 4 || first == 3 && leap(year) { 53 } else { 52 }
    };
    if week < 1 {
        (at.year - 1, weeks(at.year - 1))
    } else if week > weeks(at.year) {
        (at.year + 1, 1)
    } else {
        (at.year, week)
    }
}

/// Whether `year` has 366 days.
pub(super) fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn number(out: &mut String, value: i64, width: usize, pad: char, flags: Flags) {
    let digits = value.to_string();
    let width = match flags.pad {
        Some('-') => flags.width.unwrap_or(0),
        _ => flags.width.unwrap_or(width).max(width),
    };
    let fill = match flags.pad.unwrap_or(pad) {
        '_' | '-' => " ",
        _ => "0",
    };
    *out += &fill.repeat(width.saturating_sub(digits.len()));
    *out += &digits;
}

fn word(out: &mut String, text: &str, flags: Flags, lower: bool) {
    let fill = if flags.pad == Some('0') { "0" } else { " " };
    *out += &fill.repeat(flags.width.unwrap_or(0).saturating_sub(text.len()));
    *out += &match () {
        () if lower => text.to_lowercase(),
        () if flags.upper || flags.swap => text.to_uppercase(),
        () => text.to_owned(),
    };
}

/// A directive that is short for several others.
fn whole(out: &mut String, format: &str, flags: Flags, at: &Moment) -> Res<()> {
    let text = strftime(format, at)?;
    word(out, &text, Flags { swap: false, ..flags }, false);
    Ok(())
}
