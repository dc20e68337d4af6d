//! Lines folded as they stand in the log add what the events do that they are read as, whatever stands in them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Derived, Growth};
use crate::chat::Event;
use crate::chat::samples::event;
use crate::chat::straight::tests::{Change, apply, change};
use crate::clock::Timestamp;
use crate::eventlog::EventLine;
use crate::names::Text;

/// What is escaped or quoted in files, what looks like it, and what is neither.
const PIECES: [&str; 17] = [
    ";", "\"", "\\", "\n", "\r", "\t", "\u{0}", "\u{1b}", "\u{7f}", "\u{80}", "\u{9f}", "\u{a0}", "\u{bf}", "é", "☃",
    "🎲", "",
];

/// Texts of any length with such a piece anywhere.
fn text() -> impl Strategy<Value = Text> {
    let parts = ("[ !#-:<-\\[\\]-~]{0,40}", select(&PIECES[..]), "[ !#-:<-\\[\\]-~]{0,40}");
    parts.prop_filter_map("a text is not empty", |(before, piece, behind)| (before + piece + &behind).parse().ok())
}

/// Messages between and behind all other events.
fn any_event() -> impl Strategy<Value = Event> {
    let user = || select(&["yoda", "han", "leia"][..]).prop_map(|name| name.parse().unwrap());
    let group = select(&["jedi", "falcon", "g"][..]).prop_map(|name| name.parse().unwrap());
    prop_oneof![
        (user(), user(), text()).prop_map(|(from, to, text)| Event::Message { from, to, text, origin: None }),
        (group, user(), text()).prop_map(|(group, from, text)| Event::GroupMessage { group, from, text, origin: None }),
        event(),
    ]
}

/// Lines of events, one up to two seconds behind the other.
fn lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec((any_event(), select(&[0, 1, 300, 1_000, 2_000][..])), 1..20).prop_map(|events| {
        let mut ms = 1_685_631_600_000;
        let line = |(seq, (event, later_ms)): (u64, (Event, u64))| {
            ms += later_ms;
            let mut line = Vec::new();
            event.encode(seq, Timestamp::from_ms(ms), &mut line);
            line
        };
        (1..).zip(events).map(line).collect()
    })
}

/// Folds lines in both ways, and compares what each gives and all they add up to.
fn assert_folded_alike(lines: &[Vec<u8>]) {
    let (mut by_line, mut by_event) = (Derived::default(), Derived::default());
    let (mut growth_by_line, mut growth_by_event) = (Growth::default(), Growth::default());
    for line in lines {
        // Whoever reads the log finds what is wrong with any other.
        let Some(event) = EventLine::of(line) else { continue };
        let folded = by_line.apply_line(&event, &mut growth_by_line).map_err(|error| error.to_string());
        let read = Event::decode(line).map_err(|error| error.to_string());
        let expected = read.map(|record| by_event.apply(&record, &mut growth_by_event));
        assert_eq!(folded, expected, "{}", String::from_utf8_lossy(line));
    }
    assert_eq!(growth_by_line.bytes(), growth_by_event.bytes());
    assert_eq!(growth_by_line.into_lines(), growth_by_event.into_lines());
    assert!(by_line.userlog().eq(by_event.userlog()));
}

const LINE: &str = r#"{"seq":1,"ts":"2026-11-22T06:10:00.123Z","type":"message","from":"a","to":"b","text":"hi"}"#;

/// The line, changed.
fn changed(from: &str, to: &str) -> Vec<u8> {
    let line = LINE.replacen(from, to, 1).into_bytes();
    assert_ne!(line, LINE.as_bytes());
    line
}

#[test]
fn a_line_that_another_program_wrote_adds_the_same() {
    for other in [
        changed(".123Z", ".12Z"),
        changed(".123Z", ".123+00:00"),
        changed(",\"from\":", ", \"from\": "),
        changed(r#""from":"a","to":"b""#, r#""to":"b","from":"a""#),
        changed("hi", r"h\u0069"),
        changed("hi", r"\u003b"),
        changed("}", ",\"mood\":\"}\"}"),
    ] {
        let (mut derived, mut growth) = (Derived::default(), Growth::default());
        for line in [&other, LINE.as_bytes(), &other] {
            derived.apply_line(&EventLine::of(line).unwrap(), &mut growth).unwrap();
        }
        let lines = String::from_utf8(growth.into_lines().remove(0).1).unwrap();
        assert_eq!(lines.lines().count(), 3);
        assert!(lines.contains("\n2; 22 Nov 2026 06:10:00; b; hi\n"), "{lines}");
        assert_folded_alike(&[other.clone(), LINE.into(), other]);
    }
}

#[test]
fn a_line_that_is_no_events_adds_nothing_and_says_what_is_wrong() {
    for wrong in [
        changed("\"a\"", "\"a b\""),
        changed("\"b\"", "\"\""),
        changed("11-22", "11-31"),
        changed("\"a\"", r#""","type":"group_message","group":"g","from":"a""#),
        changed("2026-11-22T06:10:00", &"\0".repeat(19)),
        changed("2026-11-22T06:10:00.123Z", &"\0".repeat(24)),
        changed("hi", " "),
        changed("hi", "\t"),
        changed("\"seq\":1", "\"seq\":01"),
        changed(".123Z", ".1x3Z"),
        changed("}", ""),
        [&LINE.as_bytes()[..LINE.len() - 2], &b"\xff\"}"[..]].concat(),
    ] {
        // Also behind a line of the same second, whose words are known.
        assert_folded_alike(std::slice::from_ref(&wrong));
        assert_folded_alike(&[LINE.into(), wrong.clone(), LINE.into()]);
        let (mut derived, mut growth) = (Derived::default(), Growth::default());
        let line = EventLine::of(&wrong).unwrap();
        assert!(derived.apply_line(&line, &mut growth).is_err(), "{}", String::from_utf8_lossy(&wrong));
        assert_eq!(growth.into_lines(), []);
    }
}

proptest! {
    #[test]
    fn a_line_adds_what_its_event_does(lines in lines()) {
        assert_folded_alike(&lines);
    }

    #[test]
    fn what_becomes_of_a_line_adds_what_its_event_does_or_is_the_same_error(
        lines in lines(), changes in vec(vec(change(), 0..3), 20),
    ) {
        let change = |(mut line, changes): (Vec<u8>, Vec<Change>)| {
            changes.iter().for_each(|change| apply(change, &mut line));
            line
        };
        assert_folded_alike(&lines.into_iter().zip(changes).map(change).collect::<Vec<_>>());
    }
}
