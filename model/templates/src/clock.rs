//! The local date and time.

use chrono::{Datelike, Local, Timelike};

/// A date and a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) year: i64,
    /// From 1.
    pub(super) month: i64,
    /// From 1.
    pub(super) day: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
    pub(super) microsecond: i64,
}

/// The local time.
pub(super) fn now() -> Moment {
    let now = Local::now();
    Moment {
        year: now.year().into(),
        month: now.month().into(),
        day: now.day().into(),
        hour: now.hour().into(),
        minute: now.minute().into(),
        second: now.second().into(),
        // During a leap second, chrono reports more than 10^9 nanoseconds.
        microsecond: (now.nanosecond() / 1000 % 1_000_000).into(),
    }
}

impl Moment {
    /// Days since the start of 1970.
    pub(super) fn days(&self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let (cycle, of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        cycle * 146_097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - 719_468
    }

    /// Days since the last Sunday.
    pub(super) fn weekday(&self) -> i64 {
        (self.days() + 4).rem_euclid(7)
    }

    /// Days since the start of the year.
    pub(super) fn day_of_year(&self) -> i64 {
        self.days() - Self { month: 1, day: 1, ..*self }.days()
    }
}
