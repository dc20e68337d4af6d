//! Time: the one place that reads a clock, and the form in which moments are written.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, TimeZone, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in milliseconds since 1970-01-01T00:00:00Z, from then to the end of the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

/// The last moment that four digits of a year can write.
const LAST_MS: u64 = 253_402_300_799_999;

/// A string is no moment in any of the forms that are read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time: use 2026-11-22T06:10:00Z, \"2026-11-22 06:10:00\" or 2026-11-22 (the last two are local)")]
pub struct TimeError(String);

impl Timestamp {
    /// The moment `ms` milliseconds after the epoch; what lies past the year 9999 becomes its last moment.
    pub const fn from_ms(ms: u64) -> Self {
        Self(if ms > LAST_MS { LAST_MS } else { ms })
    }

    /// Milliseconds since the epoch.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// This moment and `ms` milliseconds.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self::from_ms(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 if it is not earlier.
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// RFC 3339 in UTC with milliseconds, as it stands in the log: always these 24 bytes.
    pub fn to_rfc3339(self) -> [u8; 24] {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil_from_days(days);
        let mut out = *b"0000-00-00T00:00:00.000Z";
        let pairs = [
            (0, year / 100),
            (2, year % 100),
            (5, month),
            (8, day),
            (11, ms / 3_600_000),
            (14, ms / 60_000 % 60),
            (17, ms / 1_000 % 60),
            (20, ms / 10 % 100),
        ];
        for (place, value) in pairs {
            out[place..place + 2].copy_from_slice(&digits(value));
        }
        out[22] = digits(ms % 10)[1];
        out
    }

    /// Reads the form in which [`Timestamp::to_rfc3339`] writes, and no other.
    pub fn from_log_form(text: &[u8]) -> Option<Self> {
        let ([date, time, rest], []) = text.as_chunks::<8>() else { return None };
        let (date, time, rest) =
            (pairs(*date, *b"0000-00-")?, pairs(*time, *b"00T00:00")?, pairs(*rest, *b":00.000Z")?);
        let (year, month, day) = (date[0] * 100 + date[2], date[5], time[0]);
        let (hour, minute, second, ms) = (time[3], time[6], rest[1], rest[4] * 10 + rest[6] / 10);
        let is_moment = (1..=days_in_month(year, month)).contains(&day) && hour <= 23 && minute <= 59 && second <= 59;
        if !is_moment {
            return None;
        }
        let moment = ((days_from_civil(year, month, day)? * 24 + hour) * 60 + minute) * 60 + second;
        Some(Self::from_ms(moment * 1_000 + ms))
    }

    /// As people read it where they are: `01 Jun 2023 15:00:01`, in the local time zone.
    pub fn to_local_words(self) -> String {
        self.utc().with_timezone(&Local).format(WORDS).to_string()
    }

    /// The same words in UTC, for files that must read the same everywhere.
    pub fn to_utc_words(self) -> String {
        self.utc().format(WORDS).to_string()
    }

    /// The day in UTC, `2026-11-22`.
    pub fn to_utc_day(self) -> String {
        self.utc().format("%Y-%m-%d").to_string()
    }

    /// Reads a moment that a person typed: RFC 3339, or a date or a date with a time in the local zone.
    ///
    /// A date alone is its first moment, or with `end` its last, so that `--until DATE` includes the day.
    pub fn parse_typed(text: &str, end: bool) -> Result<Self, TimeError> {
        if let Ok(moment) = text.parse() {
            return Ok(moment);
        }
        let wrong = || TimeError(text.to_owned());
        for form in ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", WORDS] {
            if let Ok(local) = NaiveDateTime::parse_from_str(text, form) {
                return local_moment(local).ok_or_else(wrong);
            }
        }
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| wrong())?;
        let time = if end { day.and_hms_milli_opt(23, 59, 59, 999) } else { day.and_hms_opt(0, 0, 0) };
        time.and_then(local_moment).ok_or_else(wrong)
    }

    fn utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0.cast_signed()).unwrap_or_default()
    }
}

/// The ancestor's way of writing a moment.
const WORDS: &str = "%d %b %Y %H:%M:%S";

fn local_moment(local: NaiveDateTime) -> Option<Timestamp> {
    let ms = Local.from_local_datetime(&local).earliest()?.timestamp_millis();
    u64::try_from(ms).ok().map(Timestamp::from_ms)
}

/// The two digits of a value below 100.
pub(crate) fn digits(value: u64) -> [u8; 2] {
    const DIGITS: [[u8; 2]; 100] = {
        let mut digits = [*b"00"; 100];
        let mut value = 0_u8;
        while value < 100 {
            digits[value as usize] = [b'0' + value / 10, b'0' + value % 10];
            value += 1;
        }
        digits
    };
    usize::try_from(value).ok().and_then(|value| DIGITS.get(value)).copied().unwrap_or(*b"00")
}

/// Year, month and day of a day counted from 1970-01-01.
/// Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// At each place of a text of this form, in which a digit is written `0`, the number of two digits that begins there.
///
/// All eight bytes are looked at in one word. Source: Daniel Lemire, "Quickly parsing eight digits".
fn pairs(text: [u8; 8], form: [u8; 8]) -> Option<[u64; 8]> {
    const TOP_BITS: u64 = 0x8080_8080_8080_8080;
    // Against the form a digit is its value, and a sign that is right is zero.
    let digits = u64::from_le_bytes(text) ^ u64::from_le_bytes(form);
    // Added to what is too large, the top bit of its byte is set.
    let room = u64::from_le_bytes(form.map(|sign| if sign == b'0' { 0x80 - 10 } else { 0x80 - 1 }));
    let is_form = (digits | digits.wrapping_add(room)) & TOP_BITS == 0;
    is_form.then(|| (digits * 10 + (digits >> 8)).to_le_bytes().map(u64::from))
}

/// How many days a month has, of the Gregorian calendar; none if there is no such month.
fn days_in_month(year: u64, month: u64) -> u64 {
    let is_leap_year = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u64::from(is_leap_year),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    }
}

/// The day counted from 1970-01-01 of a date from then on. Source: as above, `days_from_civil`.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_rfc3339()).unwrap_or_default())
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        if let Some(moment) = Self::from_log_form(text.as_bytes()) {
            return Ok(moment);
        }
        let moment = DateTime::parse_from_rfc3339(text).map_err(|_| TimeError(text.to_owned()))?;
        u64::try_from(moment.timestamp_millis()).map(Self::from_ms).map_err(|_| TimeError(text.to_owned()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The time of day as the machine believes it; it may jump.
pub fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap_or(LAST_MS))
}

/// Moments in local words, for whoever writes many of the same second.
#[derive(Debug, Default)]
pub struct LocalWords {
    second: Option<u64>,
    words: String,
}

impl LocalWords {
    /// The same as [`Timestamp::to_local_words`].
    pub fn of(&mut self, moment: Timestamp) -> &str {
        let second = moment.as_ms() / 1_000;
        if self.second != Some(second) {
            self.second = Some(second);
            self.words = moment.to_local_words();
        }
        &self.words
    }
}

/// A moment as [`Timestamp::to_rfc3339`] has it, remembered while it lasts: all that is recorded in a turn of a server is
/// recorded in one moment.
#[derive(Debug)]
pub struct LogForm {
    at: Timestamp,
    form: [u8; 24],
}

impl Default for LogForm {
    fn default() -> Self {
        let at = Timestamp::default();
        Self { at, form: at.to_rfc3339() }
    }
}

impl LogForm {
    /// The same as [`Timestamp::to_rfc3339`].
    pub fn of(&mut self, at: Timestamp) -> [u8; 24] {
        if self.at != at {
            *self = Self { at, form: at.to_rfc3339() };
        }
        self.form
    }
}

/// A point on the clock that never goes back, for deadlines.
pub fn monotonic() -> Instant {
    Instant::now()
}

/// The clock of a log: follows the machine's clock, but never falls and never stands still.
///
/// When the machine's clock is behind (set back, or the log comes from a machine that was ahead), time goes on from
/// the last event at the pace of the monotonic clock, so that whatever waits for a moment is waited out.
#[derive(Debug, Clone, Copy)]
pub struct LogClock {
    base: Timestamp,
    started: Instant,
}

impl LogClock {
    /// A clock for a log whose last event is at `last`.
    pub fn new(last: Timestamp) -> Self {
        Self { base: last, started: monotonic() }
    }

    /// The present moment.
    pub fn now(&mut self) -> Timestamp {
        let passed = monotonic().duration_since(self.started);
        let steady = self.base.plus_ms(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
        let wall = wall();
        if wall > steady {
            *self = Self { base: wall, started: monotonic() };
        }
        steady.max(wall)
    }
}

/// The duration from `now` until `deadline`, zero if it has passed.
pub fn until(deadline: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(deadline.ms_since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_is_rfc_3339_in_utc_with_milliseconds() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_795_327_800_123, "2026-11-22T06:10:00.123Z"),
            (LAST_MS, "9999-12-31T23:59:59.999Z"),
        ];
        for (ms, text) in cases {
            assert_eq!(Timestamp::from_ms(ms).to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap().as_ms(), ms);
        }
    }

    #[test]
    fn the_written_form_agrees_with_chrono_on_every_day_of_four_centuries() {
        for day in 0..146_097_u64 {
            let moment = Timestamp::from_ms(day * 86_400_000 + day % 86_400_000);
            let expected = moment.utc().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
            assert_eq!(moment.to_string(), expected);
            assert_eq!(Timestamp::from_log_form(expected.as_bytes()), Some(moment));
        }
    }

    #[test]
    fn what_is_no_moment_is_not_read_as_one() {
        for wrong in [
            "2026-02-29T00:00:00.000Z",
            "2100-02-29T00:00:00.000Z",
            "2026-04-31T00:00:00.000Z",
            "2026-01-32T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-00-01T00:00:00.000Z",
            "2026-01-00T00:00:00.000Z",
            "2026-01-01T24:00:00.000Z",
            "2026-01-01T00:60:00.000Z",
        ] {
            assert_eq!(Timestamp::from_log_form(wrong.as_bytes()), None, "{wrong}");
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
        for wrong in [
            "2026-01-01T00:00:60.000Z",
            "0000-00-00T00:00:00.000Z",
            "1969-12-31T23:59:59.999Z",
            "2026-01-0AT00:00:00.000Z",
        ] {
            assert_eq!(Timestamp::from_log_form(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_log_clock_goes_on_from_a_last_event_in_the_future() {
        let ahead = wall().plus_ms(3_600_000);
        let mut clock = LogClock::new(ahead);
        let first = clock.now();
        assert!(first >= ahead && first.ms_since(ahead) < 60_000);
        assert!(clock.now() >= first);
    }

    #[test]
    fn a_date_alone_spans_its_day() {
        let first = Timestamp::parse_typed("2026-11-22", false).unwrap();
        let last = Timestamp::parse_typed("2026-11-22", true).unwrap();
        assert_eq!(last.ms_since(first), 86_399_999);
        assert!(Timestamp::parse_typed("yesterday", false).is_err());
    }
}
