//! The real server on long logs: made beforehand in many segments, and closing one while it runs.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;

use std::path::Path;

use messenger::chat::Event;
use messenger::eventlog::{self, Batch, Disk, SEGMENT_BYTES_MAX};
use serde_json::Value;
use server::{Client, Server};

/// Makes a log of messages from yoda to han, a hundred a batch, in segments of this length.
fn make_log(data: &Path, segment_bytes: u64, messages: u64, text_bytes: usize) {
    let start = messenger::clock::wall();
    let mut log = eventlog::open(Disk::lock(data).unwrap(), uuid::Uuid::new_v4(), start, |_| {}).unwrap().log;
    log.set_segment_bytes_max(segment_bytes);
    for first in (1..=messages).step_by(100) {
        let last = (first + 99).min(messages);
        let mut lines = Vec::new();
        for seq in first..=last {
            let text = format!("{seq} {}", "x".repeat(text_bytes)).parse().unwrap();
            let (from, to) = ("yoda".parse().unwrap(), "han".parse().unwrap());
            Event::Message { from, to, text, origin: None }.encode(seq, start, &mut lines);
            lines.push(b'\n');
        }
        log.append(Batch { lines, first, last, at: start }).unwrap();
    }
    log.close().unwrap();
}

/// The numbers of all messages with a user, page by page from the newest.
fn history(client: &mut Client, user: &str, count: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = Vec::new();
    let mut before = String::new();
    loop {
        let answer = client.command(&format!("/history {user} {count}{before}"));
        let page = answer["events"].as_array().unwrap();
        numbers.splice(0..0, page.iter().map(number));
        if answer["more"] == false {
            return numbers;
        }
        before = format!(" before {}", page[0]["seq"]);
    }
}

fn number(event: &Value) -> u64 {
    event["text"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    // What the archivist is writing has no name yet.
    names.retain(|name| !name.ends_with(".tmp"));
    names.sort_unstable();
    names
}

#[test]
fn a_log_of_many_segments_is_indexed_at_the_first_start_and_stood_on_at_the_next() {
    let directory = tempfile::tempdir().unwrap();
    make_log(&directory.path().join("data"), 8 << 10, 3_000, 1);
    let mut server = Server::start_in(directory, &[]);
    let (index, snapshots) = (server.data().join("index"), server.data().join("snapshots"));
    let all: Vec<u64> = (1..=3_000).collect();
    let mut han = server.login("han");
    assert_eq!(history(&mut han, "yoda", 1_000), all);
    assert_eq!(server.errors(), "");
    let made = names(&index);
    assert!(made.len() > 10 && names(&snapshots).len() == made.len(), "{made:?}");

    server.stop();
    std::fs::write(index.join(&made[3]), "no index").unwrap();
    std::fs::remove_file(index.join(&made[6])).unwrap();
    std::fs::write(index.join("notes.txt"), "of somebody").unwrap();
    server.restart();
    let mut han = server.login("han");
    assert_eq!(history(&mut han, "yoda", 700), all);
    let errors = server.errors();
    let said: Vec<&str> = errors.lines().collect();
    // One that is not there is made again without a word.
    assert_eq!(said.len(), 2, "{errors}");
    assert!(said[0].contains("notes.txt") && said[1].contains("made anew"), "{errors}");
    assert!(index.join(&made[6]).is_file());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(index.join(&made[3])).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    server.kill();
    std::fs::write(snapshots.join(names(&snapshots).last().unwrap()), "no snapshot").unwrap();
    server.restart();
    assert_eq!(history(&mut server.login("han"), "yoda", 1_000), all);
    assert!(server.errors().lines().nth(2).unwrap().contains("is not used: its first line"), "{}", server.errors());
}

#[test]
fn a_segment_that_is_closed_while_the_server_runs_is_archived_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let (messages, text_bytes) = (SEGMENT_BYTES_MAX / 16_000, 16_000);
    make_log(&directory.path().join("data"), SEGMENT_BYTES_MAX * 2, messages + 100, text_bytes);
    let mut server = Server::start_in(directory, &[]);
    let mut han = server.login("han");
    han.command("/msgto yoda 1000000");
    // The first event of the server began the next segment; another thread archives the one before.
    let snapshots = server.data().join("snapshots");
    for turn in 0.. {
        assert!(turn < 100_000, "no snapshot was made");
        han.send(r#"{"type":"ping"}"#);
        han.frame_of("ok");
        if names(&snapshots).iter().any(|name| name.ends_with(".json")) {
            break;
        }
    }
    assert_eq!(names(&server.data().join("index")), ["00000000000000000001.idx"]);
    let numbers = history(&mut han, "yoda", 1_000);
    assert!(numbers.iter().copied().eq((1..=messages + 100).chain([1_000_000])));
    server.kill();
    server.restart();
    let numbers = history(&mut server.login("han"), "yoda", 1_000);
    assert!(numbers.iter().copied().eq((1..=messages + 100).chain([1_000_000])));
    assert_eq!(server.errors(), "");
}
