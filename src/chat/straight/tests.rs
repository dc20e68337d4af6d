//! The two readers of event lines agree: on lines as they are written, and on what becomes of them by all kinds of changes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::chat::samples::event;

#[test]
fn a_line_as_it_is_written_is_read_straight() {
    let start = r#"{"seq":1,"ts":"2026-11-22T06:10:00.123Z","type":"#;
    for rest in [
        r#""message","from":"a","to":"b","text":"hi","device":"d","id":7}"#,
        r#""group_message","group":"g","from":"a","text":"hi"}"#,
        r#""login","user":"a","session":3,"ip":"::1","udp_port":6000,"device":"d"}"#,
        r#""logout","user":"a","session":3,"reason":"logout"}"#,
    ] {
        let line = format!("{start}{rest}");
        assert!(Event::assert_readers_agree(line.as_bytes()), "{rest}");
        assert_eq!(message_of(line.as_bytes()).is_some(), rest.contains("message"), "{rest}");
    }
}

#[test]
fn what_is_not_json_is_not_read_straight() {
    let line = r#"{"seq":1,"ts":"2026-11-22T06:10:00.123Z","type":"message","from":"a","to":"b","text":"hi"}"#;
    for (from, to) in [
        ("1,", "01,"),
        ("1,", "1.0,"),
        ("1,", "1e3,"),
        ("1,", "-0,"),
        ("1,", "18446744073709551616,"),
        ("hi", "h\ti"),
        ("hi", " "),
        ("-22T", "-31T"),
        ("2026-11", "2026-13"),
        ("}", "}}"),
        ("}", ",\"device\":\"d\"}"),
        ("}", ",\"text\":\"hi\"}"),
    ] {
        let changed = line.replacen(from, to, 1);
        assert_eq!(decode(changed.as_bytes()), None, "{changed}");
    }
}

proptest! {
    #[test]
    fn a_number_is_read_as_far_as_its_digits_go(digits in "[0-9]{0,25}", behind in "[^0-9]?|[^0-9].{0,9}") {
        let text = digits.clone() + &behind;
        let read = leading_number(text.as_bytes());
        let expected = if digits.is_empty() { Some(0) } else { digits.parse().ok() };
        prop_assert_eq!(read, expected.map(|value| (value, digits.len(), behind.as_bytes())));
    }
}

#[test]
fn a_type_behind_one_that_was_begun_is_not_taken_for_the_lines() {
    let start = r#"{"seq":1,"ts":"2026-11-22T06:10:00.123Z","type":"#;
    for rest in [
        r#""message","from":"","type":"login","user":"a","session":3,"ip":"::1"}"#,
        r#""message","from":"","type":"logout","user":"a","session":3,"reason":"logout"}"#,
        r#""message","from":"","type":"group_message","group":"g","from":"a","text":"hi"}"#,
        r#""group_message","group":"","type":"login","user":"a","session":3,"ip":"::1"}"#,
    ] {
        let line = format!("{start}{rest}");
        assert_eq!(decode(line.as_bytes()), None, "{rest}");
        assert!(message_of(line.as_bytes()).is_none(), "{rest}");
    }
}

/// A change of a line.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    SetByte(Index, u8),
    InsertByte(Index, u8),
    DropByte(Index),
    SwapBytes(Index),
    Insert(Index, &'static str),
    /// In the place of a field's value.
    SetValue(Index, &'static str),
    AddField(Index, &'static str),
    RepeatField(Index, Index),
    DropField(Index),
    SwapFields(Index, Index),
}

/// Numbers, strings and other values in the forms of JSON and near it; escapes, white space and bits of structure.
const PIECES: [&str; 46] = [
    "1e3",
    "1E3",
    "1e+3",
    "1e-1",
    "01",
    "00",
    "-0",
    "0",
    "-1",
    "+1",
    "1.0",
    "1.5",
    ".5",
    "1.",
    "0x1",
    "1_000",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "65536",
    "null",
    "true",
    "\"7\"",
    "[]",
    "{}",
    "[1,2]",
    r"\u0041",
    r"\/",
    r"\n",
    r"\\",
    r#"\""#,
    r"\ud83d\ude00",
    r"\ud83d",
    r"\udc00",
    r"\u0000",
    r"\x",
    "\u{0}",
    "\u{1f}",
    "\u{7f}",
    "\u{9b}",
    "\u{e9}",
    " ",
    "\n",
    "\t\r",
    "\u{feff}",
];

/// Fields that are not known, known ones again, and some that belong to other types.
const FIELDS: [&str; 16] = [
    r#""mood":[1,{"a":"}"}]"#,
    r#""type":"message""#,
    r#""type":"login""#,
    r#""seq":8"#,
    r#""text":"other""#,
    r#""from":"other""#,
    r#""user":"other""#,
    r#""device":"other""#,
    r#""id":9"#,
    r#""id":null"#,
    r#""udp_port":1"#,
    r#""reason":"timeout""#,
    r#""ts":"2026-11-22T06:10:00.123Z""#,
    r#""ts":"2026-11-22T06:10:60.000Z""#,
    r#" "id" : 1"#,
    r#""\u0069d":1"#,
];

/// Any change of a line.
pub(crate) fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(place, byte)| Change::SetByte(place, byte)),
        (place(), any::<u8>()).prop_map(|(place, byte)| Change::InsertByte(place, byte)),
        place().prop_map(Change::DropByte),
        place().prop_map(Change::SwapBytes),
        (place(), select(&PIECES[..])).prop_map(|(place, piece)| Change::Insert(place, piece)),
        (place(), select(&PIECES[..])).prop_map(|(place, piece)| Change::SetValue(place, piece)),
        (place(), select(&FIELDS[..])).prop_map(|(place, field)| Change::AddField(place, field)),
        (place(), place()).prop_map(|(from, to)| Change::RepeatField(from, to)),
        place().prop_map(Change::DropField),
        (place(), place()).prop_map(|(one, other)| Change::SwapFields(one, other)),
    ]
}

/// The fields of an object's line, at its commas outside of strings and brackets.
fn fields(line: &[u8]) -> Vec<Vec<u8>> {
    let inner = line.get(1..line.len().saturating_sub(1)).unwrap_or_default();
    let (mut depth, mut in_string, mut is_escaped) = (0, false, false);
    let is_end = |byte: &u8| {
        match byte {
            _ if is_escaped => {
                is_escaped = false;
                return false;
            }
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth -= 1,
            b',' => return !in_string && depth == 0,
            _ => {}
        }
        false
    };
    inner.split(is_end).map(<[u8]>::to_vec).collect()
}

fn with_fields(line: &mut Vec<u8>, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut fields = fields(line);
    change(&mut fields);
    *line = [b"{", &fields.join(&b","[..])[..], b"}"].concat();
}

/// Changes a line.
pub(crate) fn apply(change: &Change, line: &mut Vec<u8>) {
    let length = line.len().max(1);
    match change {
        Change::SetByte(place, byte) => line.get_mut(place.index(length)).into_iter().for_each(|old| *old = *byte),
        Change::InsertByte(place, byte) => line.insert(place.index(line.len() + 1), *byte),
        Change::DropByte(place) if !line.is_empty() => drop(line.remove(place.index(length))),
        Change::SwapBytes(place) if line.len() > 1 => {
            let place = place.index(length - 1);
            line.swap(place, place + 1);
        }
        Change::DropByte(_) | Change::SwapBytes(_) => {}
        Change::Insert(place, piece) => {
            let place = place.index(line.len() + 1);
            line.splice(place..place, piece.bytes());
        }
        Change::SetValue(place, piece) => with_fields(line, |fields| {
            let field = place.index(fields.len());
            let field = &mut fields[field];
            field.truncate(field.iter().position(|byte| *byte == b':').map_or(0, |colon| colon + 1));
            field.extend(piece.bytes());
        }),
        Change::AddField(place, field) => {
            with_fields(line, |fields| fields.insert(place.index(fields.len() + 1), field.as_bytes().to_vec()));
        }
        Change::RepeatField(from, to) => with_fields(line, |fields| {
            let field = fields[from.index(fields.len())].clone();
            fields.insert(to.index(fields.len() + 1), field);
        }),
        Change::DropField(place) => with_fields(line, |fields| drop(fields.remove(place.index(fields.len())))),
        Change::SwapFields(one, other) => with_fields(line, |fields| {
            let (one, other) = (one.index(fields.len()), other.index(fields.len()));
            fields.swap(one, other);
        }),
    }
}

/// The time of a message, and the rest of its line.
fn message_of(line: &[u8]) -> Option<(&[u8; 24], Message<'_, &[u8]>)> {
    let mut rest = Rest::new(line)?;
    let (_, time) = rest.start()?;
    Some((time, message(rest.0, UserName::split_start)?))
}

/// What is read of a message alone is what its event has, and nothing else is taken for one.
fn assert_message_agrees(line: &[u8]) {
    let event = decode(line).map(|record| (record.at.to_rfc3339(), record.event));
    let is_message = matches!(event, Some((_, Event::Message { .. } | Event::GroupMessage { .. })));
    let message = message_of(line).filter(|(time, _)| Timestamp::from_log_form(*time).is_some());
    let read = message.map(|(time, Message { from, to, text, origin })| {
        let from = UserName::from_bytes(from).unwrap();
        let to = match to {
            Addressee::User(to) => Addressee::User(UserName::from_bytes(to).unwrap()),
            Addressee::Group(group) => Addressee::Group(group),
        };
        (*time, Message { from, to, text, origin }.into_event().expect("it may be a text"))
    });
    assert_eq!(read, event.filter(|_| is_message), "of {line:?}");
}

proptest! {
    #[test]
    fn the_readers_agree_on_every_line_and_on_whatever_becomes_of_it(
        event in event(), seq in any::<u64>(), ms in any::<u64>(), changes in vec(change(), 0..4),
    ) {
        let mut line = Vec::new();
        event.encode(seq, Timestamp::from_ms(ms), &mut line);
        for change in &changes {
            apply(change, &mut line);
        }
        Event::assert_readers_agree(&line);
        assert_message_agrees(&line);
    }
}
