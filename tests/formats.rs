//! Logs of every format that was released, made by the real program of their time: each later version must read them.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use messenger::chat::{Event, State};
use messenger::clock::Timestamp;
use messenger::eventlog::{self, Disk, LogReader};
use messenger::names::{GroupName, UserName};
use messenger::server::{self, Opened};
use tempfile::TempDir;

/// The number of the log of format 1.
const LOG: &str = "e392ba50-1d75-409e-b04d-fd8dea83498e";

/// A data directory with a copy of the log of a format.
fn copy_of(format: &str) -> TempDir {
    let data = tempfile::tempdir().unwrap();
    let events = data.path().join("events");
    fs::create_dir(&events).unwrap();
    for file in fs::read_dir(Path::new("tests/fixtures").join(format).join("events")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), events.join(file.file_name())).unwrap();
    }
    data
}

fn open(data: &TempDir) -> Opened<Disk> {
    let now = Timestamp::from_ms(1_800_000_000_000);
    server::open(Disk::lock(data.path()).unwrap(), uuid::Uuid::nil(), now, |_, _| {}).unwrap()
}

/// Checks the state at the end of the log of format 1.
fn check_end_of_format_1(state: &State) {
    assert_eq!((state.seq, state.at.to_string()), (40, "2026-11-27T03:32:26.050Z".to_owned()));
    let names: Vec<&str> = state.users.keys().map(UserName::as_str).collect();
    assert!(["han", "leia", "luke"].iter().all(|name| names.contains(name)), "{names:?}");
    let user = |name: &str| &state.users[&name.parse::<UserName>().unwrap()];
    let sent: Vec<(&str, u64)> = user("han").devices.iter().map(|device| (device.name.as_str(), device.sent)).collect();
    assert_eq!(sent, [("laptop", 5)]);
    assert_eq!(user("han").keys[0].1, "aa11");
    assert!(state.users.values().all(|user| user.sessions.is_empty()));
    let blocked_until = state.strangers[&"yoda".parse::<UserName>().unwrap()].blocked_until.unwrap();
    assert_eq!(blocked_until.to_string(), "2026-11-27T03:32:35.709Z");
    let falcon = &state.groups[&"falcon".parse::<GroupName>().unwrap()];
    let mut joined: Vec<&str> = falcon.joined.keys().map(UserName::as_str).collect();
    joined.sort_unstable();
    assert_eq!((falcon.creator.as_str(), joined), ("han", vec!["han", "leia"]));
    assert!(falcon.past.contains_key(&"luke".parse::<UserName>().unwrap()));
}

#[test]
fn a_log_of_format_1_verifies() {
    let verified = eventlog::verify(copy_of("format-1").path()).unwrap();
    assert_eq!((verified.events, verified.seq), (40, 40));
    assert_eq!(verified.root.to_string(), "490db6ab29f831f9cdf4e7c4a97c65962512dc53d3cbecd13fa2df799ab49fba");
    assert_eq!((verified.erasures_left, verified.unfinished_bytes, verified.is_head_half_broken), (0, 0, false));
}

#[test]
fn a_log_of_format_1_is_read_with_every_kind_of_event() {
    let data = copy_of("format-1");
    let mut reader = LogReader::open(data.path()).unwrap();
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    let mut texts = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        let record = Event::decode(line.bytes).unwrap();
        *kinds.entry(record.event.kind()).or_default() += 1;
        if let Event::Message { text, .. } = record.event {
            texts.push(text.as_str().to_owned());
        }
    }
    let expected = [
        ("erased", 2),
        ("erasure", 2),
        ("group_created", 1),
        ("group_invited", 1),
        ("group_joined", 2),
        ("group_left", 1),
        ("group_message", 1),
        ("key_bound", 2),
        ("login", 6),
        ("login_failed", 3),
        ("logout", 6),
        ("message", 3),
        ("server_started", 3),
        ("server_stopped", 3),
        ("transfer_answered", 1),
        ("transfer_ended", 1),
        ("transfer_offered", 1),
        ("user_blocked", 1),
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected);
    let first = "help me: \u{e9} \u{4e2d} \u{1f600} \"my only\\hope\"\nsecond line\t\u{202e}\u{7}\u{85}";
    assert_eq!(texts, [first, "a note to myself", "the last word"]);
}

#[test]
fn a_server_goes_on_with_a_log_of_format_1_and_so_does_the_next_one() {
    let data = copy_of("format-1");
    // The first opening has the log alone, the second what was derived from it too.
    for _ in 0..2 {
        let Opened { log, state, index, notices, .. } = open(&data);
        check_end_of_format_1(&state);
        let warning = "days ahead of the log's last event";
        assert!(notices.iter().all(|notice| notice.contains(warning)), "{notices:?}");
        assert_eq!((log.seq(), log.id().to_string(), index.first()), (40, LOG.to_owned(), 35));
        log.close().unwrap();
    }
    assert_eq!(eventlog::verify(data.path()).unwrap().events, 40);
}
