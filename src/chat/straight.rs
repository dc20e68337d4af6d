//! Reading JSON that stands exactly as this program writes it: straight through, without a table of fields.
//!
//! Whatever differs, if only by a space, and all kinds that are rare, are left to the general reader. What is read here,
//! the general reader reads the same.

use memchr::{memchr, memchr2};

use super::event::{Event, LogoutReason, Origin, Record};
use crate::clock::Timestamp;
use crate::names::{DeviceName, GroupName, UserName};

#[cfg(test)]
mod tests;

/// Reads a line, without its line feed; `None` leaves it to the general reader.
pub(super) fn decode(line: &[u8]) -> Option<Record> {
    let mut rest = Rest::new(line);
    rest.literal(b"{\"seq\":")?;
    let seq = rest.number()?;
    rest.literal(b",\"ts\":\"")?;
    let at = Timestamp::from_log_form(rest.take(24)?)?;
    rest.literal(b"\",\"type\":\"")?;
    let event = match rest.until_quote()? {
        "message" => Event::Message {
            from: UserName::from_bytes(rest.name(b",\"from\":\"")?).ok()?,
            to: UserName::from_bytes(rest.name(b",\"to\":\"")?).ok()?,
            text: rest.word(b",\"text\":\"")?.parse().ok()?,
            origin: rest.origin()?,
        },
        "group_message" => Event::GroupMessage {
            group: GroupName::from_bytes(rest.name(b",\"group\":\"")?).ok()?,
            from: UserName::from_bytes(rest.name(b",\"from\":\"")?).ok()?,
            text: rest.word(b",\"text\":\"")?.parse().ok()?,
            origin: rest.origin()?,
        },
        "login" => Event::Login {
            user: UserName::from_bytes(rest.name(b",\"user\":\"")?).ok()?,
            session: rest.field(b",\"session\":")?,
            ip: rest.word(b",\"ip\":\"")?.parse().ok()?,
            udp_port: match rest.starts_with(b",\"udp_port\":") {
                true => Some(u16::try_from(rest.field(b",\"udp_port\":")?).ok()?),
                false => None,
            },
            device: match rest.starts_with(b",\"device\":") {
                true => Some(DeviceName::from_bytes(rest.name(b",\"device\":\"")?).ok()?),
                false => None,
            },
        },
        "logout" => Event::Logout {
            user: UserName::from_bytes(rest.name(b",\"user\":\"")?).ok()?,
            session: rest.field(b",\"session\":")?,
            reason: match rest.word(b",\"reason\":\"")? {
                "logout" => LogoutReason::Logout,
                "disconnected" => LogoutReason::Disconnected,
                _ => return None,
            },
        },
        _ => return None,
    };
    rest.is(b"}").then_some(Record { seq, at, event })
}

/// What of a line is not read yet. What reads gives `None` where something else stands there.
pub(crate) struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// A whole line, without its line feed.
    pub(crate) fn new(line: &'a [u8]) -> Self {
        Self(line)
    }

    /// Whether this is all that is left.
    pub(crate) fn is(&self, end: &[u8]) -> bool {
        self.0 == end
    }

    /// Whether this comes next.
    pub(crate) fn starts_with(&self, literal: &[u8]) -> bool {
        self.0.starts_with(literal)
    }

    /// Reads past what is known.
    pub(crate) fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A whole number as JSON has it: no leading zero, and what follows is no part of it.
    fn number(&mut self) -> Option<u64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = self.take(count)?;
        let is_json = matches!(digits, [b'0'] | [b'1'..=b'9', ..]) && !matches!(self.0, [b'.' | b'e' | b'E', ..]);
        if !is_json {
            return None;
        }
        digits.iter().try_fold(0_u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
    }

    /// A whole number, behind its name.
    pub(crate) fn field(&mut self, name: &[u8]) -> Option<u64> {
        self.literal(name)?;
        self.number()
    }

    /// A string without escapes, behind its name and its opening quote.
    pub(crate) fn word(&mut self, name: &[u8]) -> Option<&'a str> {
        self.literal(name)?;
        self.until_quote()
    }

    /// The bytes of a name up to its closing quote, behind its field's name and opening quote: whether they are a name
    /// is for its type to say.
    fn name(&mut self, field: &[u8]) -> Option<&'a [u8]> {
        self.literal(field)?;
        let end = memchr(b'"', self.0)?;
        let name = self.take(end)?;
        self.literal(b"\"")?;
        Some(name)
    }

    fn until_quote(&mut self) -> Option<&'a str> {
        let end = memchr2(b'"', b'\\', self.0)?;
        let word = self.take(end)?;
        self.literal(b"\"")?;
        // A control that is not escaped is no JSON.
        if word.iter().fold(u8::MAX, |lowest, byte| lowest.min(*byte)) < 0x20 {
            return None;
        }
        std::str::from_utf8(word).ok()
    }

    fn origin(&mut self) -> Option<Option<Origin>> {
        if self.is(b"}") {
            return Some(None);
        }
        Some(Some(Origin {
            device: DeviceName::from_bytes(self.name(b",\"device\":\"")?).ok()?,
            id: self.field(b",\"id\":")?,
        }))
    }
}
