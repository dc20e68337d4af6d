//! What can be told of an event's line by its bytes, without decoding it.
//!
//! Sound by the form of the log: fields in a fixed order, no spaces, and every quote inside a string escaped, so that
//! `,"user":"` stands nowhere but before the value of such a field.

use memchr::{memchr, memmem};

pub(super) const FROM: &[u8] = br#","from":""#;
pub(super) const TO: &[u8] = br#","to":""#;
pub(super) const BY: &[u8] = br#","by":""#;
pub(super) const USER: &[u8] = br#","user":""#;
pub(super) const GROUP: &[u8] = br#","group":""#;

/// The bytes of an RFC 3339 moment in the log.
const TIME_BYTES: usize = 24;

/// The value of `seq`.
pub(super) fn seq(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(br#"{"seq":"#)?.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The value of `type`.
pub(super) fn kind(line: &[u8]) -> Option<&str> {
    let rest = behind_seq(line)?.get(TIME_BYTES..)?.strip_prefix(br#"","type":""#)?;
    to_quote(rest)
}

/// The value of `ts`, to be compared as text.
pub(super) fn time(line: &[u8]) -> Option<&[u8]> {
    behind_seq(line)?.get(..TIME_BYTES)
}

/// The value of the field of a key, where it is a name.
pub(super) fn name<'a>(line: &'a [u8], key: &[u8]) -> Option<&'a str> {
    to_quote(value(line, key)?)
}

/// Whether a name is among those invited.
pub(super) fn invites(line: &[u8], name: &str) -> bool {
    let Some(rest) = value(line, br#","invited":["#) else { return false };
    // No name holds a bracket or a quote.
    let list = memchr(b']', rest).and_then(|end| rest.get(..end)).unwrap_or_default();
    list.split(|byte| *byte == b',').any(|item| to_quote(item.strip_prefix(b"\"").unwrap_or(item)) == Some(name))
}

/// Who did it, where an event has somebody who did.
pub(super) fn actor(line: &[u8]) -> Option<&str> {
    [FROM, BY, USER].iter().find_map(|key| name(line, key))
}

fn behind_seq(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(br#"{"seq":"#)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    rest.get(digits..)?.strip_prefix(br#","ts":""#)
}

/// What follows the key of a field with the quote or bracket that opens its value.
fn value<'a>(line: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    memmem::find(line, key).and_then(|at| line.get(at + key.len()..))
}

fn to_quote(bytes: &[u8]) -> Option<&str> {
    let end = memchr(b'"', bytes)?;
    std::str::from_utf8(bytes.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_text_is_not_taken_for_them() {
        let line = concat!(
            r#"{"seq":41,"ts":"2026-11-22T06:10:00.123Z","type":"message","from":"yoda","to":"han","#,
            r#""text":"\",\"user\":\"leia\",\"invited\":[\"luke\"]"}"#
        );
        let line = line.as_bytes();
        assert_eq!(kind(line), Some("message"));
        assert_eq!(time(line), Some(&b"2026-11-22T06:10:00.123Z"[..]));
        assert_eq!(name(line, TO), Some("han"));
        assert_eq!(name(line, USER), None);
        assert_eq!(actor(line), Some("yoda"));
        assert!(!invites(line, "luke"));
    }

    #[test]
    fn a_name_in_a_list_is_found_whole() {
        let line = br#"{"seq":1,"ts":"2026-11-22T06:10:00.123Z","type":"group_created","group":"g","by":"yoda","invited":["han","leia"]}"#;
        assert!(invites(line, "han") && invites(line, "leia"));
        assert!(!invites(line, "ha") && !invites(line, "yoda"));
    }
}
