//! `replay --state --at` any event and any moment of a log of many segments, with snapshots and without.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;

use std::fs;
use std::path::Path;

use messenger::chat::{Event, State};
use messenger::clock::{self, Timestamp};
use messenger::eventlog::memory::MemoryDisk;
use messenger::eventlog::{self, Batch, LogReader, Storage as _};
use messenger::replay::{Point, state_at};
use serde_json::Value;
use server::Server;

/// An event of a number: people come and go, are blocked, make groups and join them, and talk most of the time.
fn event(seq: u64) -> Event {
    let user = ["yoda", "han", "leia", "luke"][usize::try_from(seq / 7 % 4).unwrap()].parse().unwrap();
    let other = "obiwan".parse().unwrap();
    let group = format!("group{}", seq / 60).parse().unwrap();
    match seq % 20 {
        1 => Event::Login { user, session: seq, ip: [127, 0, 0, 1].into(), udp_port: None, device: None },
        5 => Event::GroupCreated { group, by: user, invited: vec![other], origin: None },
        9 => Event::GroupJoined { group, user: other, origin: None },
        13 => Event::UserBlocked { user: other, until: clock::wall().plus_ms(seq % 7 * 1_000_000) },
        17 => Event::Logout { user, session: seq / 20 * 20 + 1, reason: messenger::chat::LogoutReason::Logout },
        _ => Event::Message { from: user, to: other, text: format!("message {seq}").parse().unwrap(), origin: None },
    }
}

/// Makes a log of so many events in many segments, with two events at each moment.
fn make_log(data: &Path, start: Timestamp, events: u64) {
    let disk = MemoryDisk::default();
    let mut log = eventlog::open(disk.clone(), uuid::Uuid::new_v4(), start, |_| {}).unwrap().log;
    log.set_segment_bytes_max(2_000);
    for first in (1..=events).step_by(4) {
        let at = |seq: u64| start.plus_ms(seq / 2 * 10);
        let (last, mut lines) = (first + 3, Vec::new());
        for seq in first..=last {
            event(seq).encode(seq, at(seq), &mut lines);
            lines.push(b'\n');
        }
        log.append(Batch { lines, first, last, at: at(last) }).unwrap();
    }
    log.close().unwrap();
    assert!(eventlog::segments(&disk).unwrap().len() > 8);
    fs::create_dir_all(data.join("events")).unwrap();
    for name in disk.list().unwrap() {
        fs::write(data.join("events").join(&name), disk.content(&name).unwrap()).unwrap();
    }
}

fn shown(data: &Path, point: Point) -> Value {
    let (state, notices) = state_at(LogReader::open(data).unwrap(), point).unwrap();
    assert_eq!(notices, [""; 0]);
    serde_json::to_value(state).unwrap()
}

#[test]
fn any_point_is_the_fold_of_all_before_it_with_snapshots_and_without() {
    const EVENTS: u64 = 200;
    let directory = tempfile::tempdir().unwrap();
    let start = clock::wall();
    make_log(&directory.path().join("data"), start, EVENTS);
    let mut server = Server::start_in(directory, &[]);
    assert!(server.stop().success());
    assert!(fs::read_dir(server.data().join("snapshots")).unwrap().count() > 8);
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("events")).unwrap();
    for entry in fs::read_dir(server.data().join("events")).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.path().join("events").join(entry.file_name())).unwrap();
    }
    let mut folded = State::default();
    for seq in 0..=EVENTS {
        if seq > 0 {
            folded.apply(seq, start.plus_ms(seq / 2 * 10), &event(seq));
        }
        let state = shown(&server.data(), Point::Event(seq));
        assert_eq!(state, shown(copy.path(), Point::Event(seq)));
        let mut sessions: Vec<u64> = folded.sessions().map(|(_, session)| session.id).collect();
        sessions.sort_unstable();
        let shown_sessions = state["logged_in"].as_array().unwrap().iter().map(|session| session["session"].as_u64());
        assert!(shown_sessions.eq(sessions.iter().copied().map(Some)), "event {seq}: {state} and {sessions:?}");
        let groups = state["groups"].as_array().unwrap().iter().map(|group| group["group"].as_str().unwrap());
        assert!(groups.eq(folded.groups.keys().map(messenger::names::GroupName::as_str)), "event {seq}");
        assert_eq!((state["seq"].as_u64(), &state["ts"]), (Some(seq), &serde_json::json!(folded.at.to_string())));
        // The moment of two events is that behind the second; one between is behind the same. The server's come later.
        for ms in [0, 3].into_iter().filter(|_| seq < EVENTS) {
            let moment = start.plus_ms(seq / 2 * 10 + ms);
            let state = shown(&server.data(), Point::Moment(moment));
            assert_eq!(state["seq"].as_u64(), Some(seq / 2 * 2 + 1), "{ms} ms behind event {seq}");
        }
    }
}
