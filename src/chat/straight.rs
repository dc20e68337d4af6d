//! Reading JSON that stands exactly as this program writes it: straight through, without a table of fields.
//!
//! Whatever differs, if only by a space, and all kinds that are rare, are left to the general reader. What is read here,
//! the general reader reads the same.

use memchr::memchr2;

use super::Seq;
use super::event::{Addressee, Event, LogoutReason, Origin, Record};
use crate::clock::Timestamp;
use crate::names::{DeviceName, GroupName, TEXT_BYTES_MAX, Text, UserName};

#[cfg(test)]
pub(crate) mod tests;

/// What stands behind the time of a message.
const MESSAGE: &str = r#"","type":"message""#;
const GROUP_MESSAGE: &str = r#"","type":"group_message""#;

/// A private message or one to a group, as its line has it; users are read as `U`.
#[derive(Debug)]
pub(crate) struct Message<'a, U> {
    pub(crate) from: U,
    pub(crate) to: Addressee<U>,
    /// What may be a [`Text`], in UTF-8: without quotes, backslashes and controls below 0x20.
    pub(crate) text: &'a [u8],
    pub(crate) origin: Option<Origin>,
}

impl Message<'_, UserName> {
    #[inline]
    fn into_event(self) -> Option<Event> {
        let Self { from, to, text, origin } = self;
        let text = std::str::from_utf8(text).ok()?.parse().ok()?;
        Some(match to {
            Addressee::User(to) => Event::Message { from, to, text, origin },
            Addressee::Group(group) => Event::GroupMessage { group, from, text, origin },
        })
    }
}

/// Reads a line, without its line feed; `None` leaves it to the general reader.
// Inlined, for a record is large, and would be copied.
#[inline]
pub(super) fn decode(line: &[u8]) -> Option<Record> {
    let mut rest = Rest::new(line)?;
    let (seq, time) = rest.start()?;
    let at = Timestamp::from_log_form(time)?;
    let event = match rest.starts_with(MESSAGE) || rest.starts_with(GROUP_MESSAGE) {
        true => rest.message(UserName::from_start)?.into_event()?,
        false => rest.rarer_event()?,
    };
    rest.is("}").then_some(Record { seq, at, event })
}

/// Reads what stands behind the time in the line of a message, without its line feed; users by `user`. `None` for other
/// events, and for what is left to the general reader.
#[inline]
pub(crate) fn message<'a, U>(
    behind_time: &'a [u8],
    user: impl Fn(&'a [u8]) -> Option<(U, &'a [u8])>,
) -> Option<Message<'a, U>> {
    let mut rest = Rest(behind_time);
    let message = rest.message(user)?;
    rest.is("}").then_some(message)
}

/// The number in decimal digits at the beginning of some bytes, how many digits it has, and what follows it; 0 if there
/// are none. `None` if it is too large.
#[inline]
pub(crate) fn leading_number(bytes: &[u8]) -> Option<(u64, usize, &[u8])> {
    let (mut value, mut count) = bytes.first_chunk().map_or((0, 0), |first| first_digits(*first));
    while let Some(digit @ 0..=9) = bytes.get(count).map(|byte| byte.wrapping_sub(b'0')) {
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
        count += 1;
    }
    Some((value, count, &bytes[count..]))
}

/// The number in the digits that eight bytes begin with, and how many they are: all looked at in one word.
///
/// Source: Daniel Lemire, "Quickly parsing eight digits".
#[inline]
fn first_digits(bytes: [u8; 8]) -> (u64, usize) {
    let digits = u64::from_le_bytes(bytes) ^ 0x3030_3030_3030_3030;
    // The top bit of a byte that is no digit is set; what is carried from there changes only bytes behind it.
    let others = (digits | digits.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080;
    let bits = others.trailing_zeros() & !7;
    // In the place of those that are missing, zeros lead.
    let Some(eight) = digits.checked_shl(64 - bits) else { return (0, 0) };
    let pairs = eight.wrapping_mul(10).wrapping_add(eight >> 8);
    let hundreds = (pairs & 0xFF_0000_00FF).wrapping_mul(100 + (1_000_000 << 32));
    let ones = (pairs >> 16 & 0xFF_0000_00FF).wrapping_mul(1 + (10_000 << 32));
    (hundreds.wrapping_add(ones) >> 32, bits as usize / 8)
}

/// What of a line is not read yet. What reads gives `None` where something else stands there.
pub(crate) struct Rest<'a>(&'a [u8]);

// Inlined where a field's name is an argument, so that its length is known where it is compared.
impl<'a> Rest<'a> {
    /// A whole line, without its line feed; `None` if it is no object.
    pub(crate) fn new(line: &'a [u8]) -> Option<Self> {
        line.starts_with(b"{").then_some(Self(line))
    }

    /// Whether this is all that is left.
    #[inline(always)]
    pub(crate) fn is(&self, end: &str) -> bool {
        self.0 == end.as_bytes()
    }

    /// Whether this comes next.
    #[inline(always)]
    pub(crate) fn starts_with(&self, literal: &str) -> bool {
        self.0.starts_with(literal.as_bytes())
    }

    /// Reads past what is known.
    #[inline(always)]
    pub(crate) fn literal(&mut self, literal: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(literal.as_bytes())?;
        Some(())
    }

    /// A whole number as JSON has it: no leading zero, and what follows is no part of it.
    fn number(&mut self) -> Option<u64> {
        let (value, digits, rest) = leading_number(self.0)?;
        let has_leading_zero = digits > 1 && self.0.starts_with(b"0");
        let is_json = digits > 0 && !has_leading_zero && !matches!(rest, [b'.' | b'e' | b'E', ..]);
        self.0 = rest;
        is_json.then_some(value)
    }

    /// A whole number, behind its name.
    #[inline(always)]
    pub(crate) fn field(&mut self, name: &str) -> Option<u64> {
        self.literal(name)?;
        self.number()
    }

    /// A string without escapes, behind its name and its opening quote.
    #[inline(always)]
    pub(crate) fn word(&mut self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.word_bytes(name)?.0).ok()
    }

    /// The same, not looked at yet but for controls; and whether all of it is ASCII.
    #[inline(always)]
    fn word_bytes(&mut self, name: &str) -> Option<(&'a [u8], bool)> {
        self.literal(name)?;
        let (word, rest) = self.0.split_at_checked(memchr2(b'"', b'\\', self.0)?)?;
        self.0 = rest;
        self.literal("\"")?;
        // In one go: both what is no ASCII and a control come out on top.
        let highest = word.iter().copied().fold(0, |highest: u8, byte| highest.max(byte.wrapping_sub(0x20)));
        let is_ascii = highest < 0x60;
        // A control that is not escaped is no JSON.
        let is_json = is_ascii || word.iter().copied().fold(u8::MAX, u8::min) >= 0x20;
        is_json.then_some((word, is_ascii))
    }

    /// A name, behind its field's and the opening quote: no name has an escape.
    #[inline(always)]
    fn name<T>(&mut self, field: &str, from_start: impl Fn(&'a [u8]) -> Option<(T, &'a [u8])>) -> Option<T> {
        self.literal(field)?;
        let (name, rest) = from_start(self.0)?;
        self.0 = rest;
        self.literal("\"")?;
        Some(name)
    }

    /// What every event begins with: its number, and when it was, as it stands there. That may be no moment.
    #[inline(always)]
    fn start(&mut self) -> Option<(Seq, &'a [u8; 24])> {
        let seq = self.field("{\"seq\":")?;
        self.literal(",\"ts\":\"")?;
        let (time, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some((seq, time))
    }

    /// A message from the end of its time on.
    #[inline(always)]
    fn message<U>(&mut self, user: impl Fn(&'a [u8]) -> Option<(U, &'a [u8])>) -> Option<Message<'a, U>> {
        // Once the type is read, the line is a message's or none.
        let (from, to) = if self.literal(MESSAGE).is_some() {
            let from = self.name(",\"from\":\"", &user)?;
            (from, Addressee::User(self.name(",\"to\":\"", &user)?))
        } else {
            self.literal(GROUP_MESSAGE)?;
            let group = self.name(",\"group\":\"", GroupName::from_start)?;
            (self.name(",\"from\":\"", &user)?, Addressee::Group(group))
        };
        let (text, is_ascii) = self.word_bytes(",\"text\":\"")?;
        // As most texts are: only the others have to be looked at as a whole.
        let is_text = is_ascii && text.len() <= TEXT_BYTES_MAX && text.first().is_some_and(u8::is_ascii_graphic);
        if !is_text {
            Text::check(std::str::from_utf8(text).ok()?).ok()?;
        }
        Some(Message { from, to, text, origin: self.origin()? })
    }

    /// An event of another type, from the end of its time on.
    fn rarer_event(&mut self) -> Option<Event> {
        self.literal("\",\"type\":\"")?;
        if self.literal("login\"").is_some() {
            return Some(Event::Login {
                user: self.name(",\"user\":\"", UserName::from_start)?,
                session: self.field(",\"session\":")?,
                ip: self.word(",\"ip\":\"")?.parse().ok()?,
                udp_port: match self.starts_with(",\"udp_port\":") {
                    true => Some(u16::try_from(self.field(",\"udp_port\":")?).ok()?),
                    false => None,
                },
                device: match self.starts_with(",\"device\":") {
                    true => Some(self.name(",\"device\":\"", DeviceName::from_start)?),
                    false => None,
                },
            });
        }
        self.literal("logout\"")?;
        Some(Event::Logout {
            user: self.name(",\"user\":\"", UserName::from_start)?,
            session: self.field(",\"session\":")?,
            reason: match self.word(",\"reason\":\"")? {
                "logout" => LogoutReason::Logout,
                "disconnected" => LogoutReason::Disconnected,
                _ => return None,
            },
        })
    }

    #[inline]
    fn origin(&mut self) -> Option<Option<Origin>> {
        if self.is("}") {
            return Some(None);
        }
        let device = self.name(",\"device\":\"", DeviceName::from_start)?;
        Some(Some(Origin { device, id: self.field(",\"id\":")? }))
    }
}
