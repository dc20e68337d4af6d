//! Reading JSON that stands exactly as this program writes it: straight through, without a table of fields.
//!
//! Whatever differs, if only by a space, and all kinds that are rare, are left to the general reader. What is read here,
//! the general reader reads the same.

use memchr::memchr2;

use super::event::{Event, LogoutReason, Origin, Record};
use crate::clock::Timestamp;
use crate::names::{DeviceName, GroupName, UserName};

#[cfg(test)]
mod tests;

/// Reads a line, without its line feed; `None` leaves it to the general reader.
// Inlined, for a record is large, and would be copied.
#[inline]
pub(super) fn decode(line: &[u8]) -> Option<Record> {
    let mut rest = Rest::new(line)?;
    rest.literal("{\"seq\":")?;
    let seq = rest.number()?;
    rest.literal(",\"ts\":\"")?;
    let at = Timestamp::from_log_form(rest.take(24)?.as_bytes())?;
    let event = match rest.name("\",\"type\":\"")? {
        b"message" => Event::Message {
            from: UserName::from_bytes(rest.name(",\"from\":\"")?).ok()?,
            to: UserName::from_bytes(rest.name(",\"to\":\"")?).ok()?,
            text: rest.word(",\"text\":\"")?.parse().ok()?,
            origin: rest.origin()?,
        },
        b"group_message" => Event::GroupMessage {
            group: GroupName::from_bytes(rest.name(",\"group\":\"")?).ok()?,
            from: UserName::from_bytes(rest.name(",\"from\":\"")?).ok()?,
            text: rest.word(",\"text\":\"")?.parse().ok()?,
            origin: rest.origin()?,
        },
        b"login" => Event::Login {
            user: UserName::from_bytes(rest.name(",\"user\":\"")?).ok()?,
            session: rest.field(",\"session\":")?,
            ip: rest.word(",\"ip\":\"")?.parse().ok()?,
            udp_port: match rest.starts_with(",\"udp_port\":") {
                true => Some(u16::try_from(rest.field(",\"udp_port\":")?).ok()?),
                false => None,
            },
            device: match rest.starts_with(",\"device\":") {
                true => Some(DeviceName::from_bytes(rest.name(",\"device\":\"")?).ok()?),
                false => None,
            },
        },
        b"logout" => Event::Logout {
            user: UserName::from_bytes(rest.name(",\"user\":\"")?).ok()?,
            session: rest.field(",\"session\":")?,
            reason: match rest.word(",\"reason\":\"")? {
                "logout" => LogoutReason::Logout,
                "disconnected" => LogoutReason::Disconnected,
                _ => return None,
            },
        },
        _ => return None,
    };
    if !rest.is("}") {
        return None;
    }
    Some(Record { seq, at, event })
}

/// What of a line is not read yet. What reads gives `None` where something else stands there.
pub(crate) struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// A whole line, without its line feed; `None` if it is not UTF-8.
    pub(crate) fn new(line: &'a [u8]) -> Option<Self> {
        std::str::from_utf8(line).ok().map(Self)
    }

    /// Whether this is all that is left.
    pub(crate) fn is(&self, end: &str) -> bool {
        self.0 == end
    }

    /// Whether this comes next.
    pub(crate) fn starts_with(&self, literal: &str) -> bool {
        self.0.starts_with(literal)
    }

    /// Reads past what is known.
    pub(crate) fn literal(&mut self, literal: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    fn take(&mut self, count: usize) -> Option<&'a str> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A whole number as JSON has it: no leading zero, and what follows is no part of it.
    fn number(&mut self) -> Option<u64> {
        let (mut value, mut count) = (0_u64, 0);
        while let Some(digit @ b'0'..=b'9') = self.0.as_bytes().get(count) {
            value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            count += 1;
        }
        let has_leading_zero = count > 1 && self.0.starts_with('0');
        let digits = self.take(count)?;
        let is_json = !digits.is_empty() && !has_leading_zero && !self.0.starts_with(['.', 'e', 'E']);
        is_json.then_some(value)
    }

    /// A whole number, behind its name.
    pub(crate) fn field(&mut self, name: &str) -> Option<u64> {
        self.literal(name)?;
        self.number()
    }

    /// A string without escapes, behind its name and its opening quote.
    pub(crate) fn word(&mut self, name: &str) -> Option<&'a str> {
        self.literal(name)?;
        let end = memchr2(b'"', b'\\', self.0.as_bytes())?;
        let word = self.take(end)?;
        self.literal("\"")?;
        // A control that is not escaped is no JSON.
        let lowest = word.bytes().fold(u8::MAX, u8::min);
        (lowest >= 0x20).then_some(word)
    }

    /// What stands up to the closing quote, behind a field's name and opening quote: whether it is a name is for its
    /// type to say, and no name has an escape.
    fn name(&mut self, field: &str) -> Option<&'a [u8]> {
        self.literal(field)?;
        // Names are short: byte by byte is quicker than a call that looks at many.
        let end = self.0.bytes().position(|byte| byte == b'"')?;
        let name = self.take(end)?;
        self.literal("\"")?;
        Some(name.as_bytes())
    }

    fn origin(&mut self) -> Option<Option<Origin>> {
        if self.is("}") {
            return Some(None);
        }
        Some(Some(Origin {
            device: DeviceName::from_bytes(self.name(",\"device\":\"")?).ok()?,
            id: self.field(",\"id\":")?,
        }))
    }
}
