//! Closed segments: history to the beginning, catching up from anywhere, and whatever befalls the files beside the log.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/world.rs"]
mod world;

use messenger::chat::{Event, State};
use messenger::eventlog::memory::{Faults, MemoryDisk};
use messenger::eventlog::{self, Storage};
use messenger::server::ConnectionKey;
use messenger::server::archive_files::ArchiveFiles;
use serde_json::{Value, json};
use world::World;

const SEGMENT_BYTES: u64 = 3 << 10;

/// A server with dozens of closed segments: han and leia talk, luke is in a group for a while.
fn long_log() -> World {
    long_log_with("private")
}

/// The same with another first word in the private messages.
fn long_log_with(word: &str) -> World {
    let mut world = World::with_segments(SEGMENT_BYTES);
    let (han, leia, luke) = (world.logged_in("han"), world.logged_in("leia"), world.logged_in("luke"));
    world.command(han, "/creategroup falcon leia luke");
    world.command(leia, "/joingroup falcon");
    for number in 0..200 {
        match number {
            40 => drop(world.command(luke, "/joingroup falcon")),
            150 => drop(world.command(luke, "/leavegroup falcon")),
            _ => {}
        }
        let (one, other) = if number % 3 == 0 { (han, "leia") } else { (leia, "han") };
        world.command(one, &format!("/msgto {other} {word} {number}"));
        world.command(han, &format!("/groupmsg falcon group {number}"));
    }
    for key in [han, leia, luke] {
        world.disconnect(key);
    }
    assert!(eventlog::segments(&world.disk).unwrap().len() > 20);
    world
}

/// The texts of a history, page by page from its beginning.
fn history(world: &mut World, key: ConnectionKey, place: &str) -> Vec<String> {
    let mut events: Vec<Value> = Vec::new();
    loop {
        let before = events.first().map(|event| format!(" before {}", event["seq"])).unwrap_or_default();
        let answer = world.command(key, &format!("/history {place} 17{before}"));
        let page = answer["events"].as_array().unwrap_or_else(|| panic!("{answer}"));
        events.splice(0..0, page.iter().cloned());
        if answer["more"] == false {
            return events.iter().filter_map(|event| Some(event["text"].as_str()?.to_owned())).collect();
        }
        assert_eq!(page.len(), 17);
    }
}

fn texts(what: &str, numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| format!("{what} {number}")).collect()
}

fn files(world: &World, directory: &str) -> (MemoryDisk, Vec<String>) {
    let files = world.disk.beside(directory);
    let names = files.list().unwrap();
    (files, names)
}

/// The fold of the whole log is the state, and nothing was said at the start but what is expected.
fn check_opening(world: &World, said: &[&str]) {
    let mut folded = State::default();
    let count = world.events().len() - 1;
    for record in world.events() {
        folded.apply(record.seq, record.at, &record.event);
    }
    assert_eq!(world.hub.state(), &folded, "{count} events");
    assert_eq!(world.notices.len(), said.len(), "{:?}", world.notices);
    for (notice, expected) in world.notices.iter().zip(said) {
        assert!(notice.contains(expected), "{notice:?} is not about {expected:?}");
    }
}

#[test]
fn history_goes_back_to_the_beginning_of_every_conversation() {
    let mut world = long_log();
    assert!(world.hub.index().first() > 300, "closed segments are not kept in memory");
    let han = world.logged_in("han");
    assert_eq!(history(&mut world, han, "leia"), texts("private", 0..200));
    assert_eq!(history(&mut world, han, "#falcon"), texts("group", 0..200));
    assert_eq!(history(&mut world, han, "yoda"), [] as [String; 0]);
    let luke = world.logged_in("luke");
    assert_eq!(history(&mut world, luke, "#falcon"), texts("group", 0..150), "up to where luke left");
    assert_eq!(world.notices, [] as [String; 0]);
}

#[test]
fn a_history_may_begin_in_memory_and_end_in_the_archive() {
    let mut world = long_log();
    world.archivist_is_slow = true;
    let han = world.logged_in("han");
    for number in 200..260 {
        world.command(han, &format!("/msgto leia private {number}"));
    }
    let in_memory = world.hub.index().first();
    assert_eq!(history(&mut world, han, "leia"), texts("private", 0..260));
    world.archive();
    assert!(world.hub.index().first() > in_memory);
    assert_eq!(history(&mut world, han, "leia"), texts("private", 0..260));
}

#[test]
fn a_backlog_begins_anywhere_and_has_each_event_once() {
    let mut world = long_log();
    let events = world.events();
    for (user, after) in [("leia", 0), ("leia", 111), ("luke", 0), ("luke", 222), ("yoda", 5), ("leia", 1 << 60)] {
        let key = world.login_with(user, &json!({"after": after, "device": "laptop"}));
        let frames = world.frames(key);
        let got: Vec<u64> = frames[1..frames.len() - 1].iter().map(|frame| frame["seq"].as_u64().unwrap()).collect();
        let mut is_member = false;
        let mut is_owed = |event: &Event| match event {
            Event::Message { from, to, .. } => from.as_str() == user || to.as_str() == user,
            Event::GroupCreated { by, invited, .. } => {
                by.as_str() == user || invited.iter().any(|invited| invited.as_str() == user)
            }
            Event::GroupJoined { user: who, .. } => {
                is_member |= who.as_str() == user;
                is_member
            }
            Event::GroupLeft { user: who, .. } => {
                let was_member = is_member;
                is_member &= who.as_str() != user;
                was_member
            }
            Event::GroupMessage { .. } => is_member,
            _ => false,
        };
        let owed: Vec<u64> = events.iter().filter(|record| is_owed(&record.event)).map(|record| record.seq).collect();
        let owed: Vec<u64> = owed.into_iter().filter(|seq| *seq > after).collect();
        assert_eq!(got, owed, "{user} after {after}");
        assert_eq!(frames.last().unwrap()["type"], "live");
        world.disconnect(key);
    }
}

#[test]
fn what_is_said_while_catching_up_is_not_told_to_who_said_it() {
    let mut world = World::with_segments(SEGMENT_BYTES);
    let han = world.logged_in("han");
    let text = "x".repeat(16_000);
    for _ in 0..40 {
        world.command(han, &format!("/msgto leia {text}"));
    }
    // A part of the backlog waits unread, and leia is in the middle of it.
    let leia = world.connect();
    world.set_deaf(leia, true);
    let login = json!({"type": "login", "username": "leia", "password": world::PASSWORD, "after": 0});
    world.send(leia, format!("{login}\n"));
    for _ in 0..3 {
        world.send(leia, format!("{}\n", json!({"type": "command", "text": "/msgto han mine"})));
    }
    // What leia said is in closed segments by the time the backlog comes to it.
    for _ in 0..5 {
        world.command(han, &format!("/msgto leia {text}"));
    }
    let is_own = |event: &Event| matches!(event, Event::Message { from, .. } if from.as_str() == "leia");
    let said = world.events().iter().filter(|record| is_own(&record.event)).map(|record| record.seq).max();
    assert!(said.is_some_and(|seq| seq < world.hub.index().first()));
    world.command(han, "/msgto leia last");
    world.set_deaf(leia, false);
    let frames = world.frames(leia);
    let told: Vec<&Value> = frames.iter().filter(|frame| frame["type"] == "message").collect();
    assert!(told.iter().all(|frame| frame["from"] == "han"), "what one said oneself is told by its answer");
    assert_eq!(told.len(), 46);
    assert_eq!(told[45]["text"], "last");
    assert!(told.is_sorted_by(|one, next| one["seq"].as_u64() < next["seq"].as_u64()));
}

#[test]
fn an_opening_stands_on_the_newest_snapshot_and_says_nothing() {
    let world = long_log();
    let segments = eventlog::segments(&world.disk).unwrap();
    assert_eq!(files(&world, "index").1.len(), segments.len() - 1);
    assert_eq!(files(&world, "snapshots").1.len(), segments.len() - 1);
    let mut events_read = 0;
    struct Counter<'a>(&'a mut u64);
    impl eventlog::Visitor for Counter<'_> {
        fn event(&mut self, _: eventlog::Replayed<'_>) {
            *self.0 += 1;
        }
    }
    let after = segments.last().unwrap() - 1;
    let now = messenger::clock::Timestamp::from_ms(1);
    eventlog::open_after(world.disk.clone(), uuid::Uuid::nil(), now, after, &mut Counter(&mut events_read)).unwrap();
    assert_eq!(events_read, world.events().len() as u64 - after);
    check_opening(&world.crash(), &[]);
}

#[test]
fn without_snapshots_and_indexes_an_opening_makes_them_again() {
    let world = long_log();
    let contents = |world: &World, directory: &str| -> Vec<(String, Vec<u8>)> {
        let (disk, names) = files(world, directory);
        names.into_iter().map(|name| (name.clone(), disk.content(&name).unwrap())).collect()
    };
    let made_beside = ["index", "snapshots"].map(|directory| contents(&world, directory));
    for directory in ["index", "snapshots"] {
        let (disk, names) = files(&world, directory);
        names.iter().for_each(|name| disk.remove(name).unwrap());
        disk.sync_names().unwrap();
    }
    let world = world.crash();
    check_opening(&world, &[]);
    let made_at_start = ["index", "snapshots"].map(|directory| contents(&world, directory));
    assert!(made_at_start == made_beside, "they are the same however they are made");
}

#[test]
fn indexes_that_are_missing_are_made_again_behind_a_start() {
    let world = long_log();
    let (index, names) = files(&world, "index");
    let made: Vec<_> = names.iter().map(|name| index.content(name).unwrap()).collect();
    for name in &names[3..9] {
        index.remove(name).unwrap();
    }
    index.sync_names().unwrap();
    let world = world.crash();
    assert_eq!(world.notices, [] as [String; 0]);
    let (index, again) = files(&world, "index");
    assert!(again == names && made.iter().zip(&names).all(|(made, name)| index.content(name).as_ref() == Some(made)));
}

#[test]
fn a_missing_index_is_made_from_its_segment_and_the_snapshot_before_it() {
    let mut world = long_log();
    let han = world.logged_in("han");
    let (indexes, names) = files(&world, "index");
    names.iter().for_each(|name| indexes.remove(name).unwrap());
    world.reopen_archive();
    let newest = world.hub.index().first();
    let answer = world.command(han, &format!("/history leia 5 before {newest}"));
    assert_eq!(answer["events"].as_array().unwrap().len(), 5);
    assert!(indexes.list().unwrap().len() <= 2, "{:?}", indexes.list());
    assert_eq!(history(&mut world, han, "leia"), texts("private", 0..200));
}

#[test]
fn a_damaged_snapshot_is_passed_over_and_said() {
    let mut world = long_log();
    for spoil in 0..4 {
        let (disk, names) = files(&world, "snapshots");
        let newest = names.last().unwrap();
        let content = disk.content(newest).unwrap();
        let (changed, why) = match spoil {
            0 => (content[..content.len() / 2].to_vec(), "not as it was written"),
            1 => (Vec::new(), "no end"),
            2 => (disk.content(&names[0]).unwrap(), "not the last of a closed segment"),
            _ => (content.iter().map(|byte| byte ^ (byte & 1)).collect(), "not as it was written"),
        };
        disk.put(newest, changed);
        world = world.crash();
        check_opening(&world, &[why]);
        let han = world.logged_in("han");
        assert_eq!(history(&mut world, han, "leia"), texts("private", 0..200));
        world.disconnect(han);
    }
}

#[test]
fn a_snapshot_that_stays_unusable_is_named_once() {
    let world = long_log();
    let (snapshots, names) = files(&world, "snapshots");
    // It is that of no closed segment, so that nothing takes its place, and newer than all that can be used.
    snapshots.put("00000000000000099999.json", snapshots.content(&names[0]).unwrap());
    let mut world = world.crash();
    check_opening(&world, &["snapshots/00000000000000099999.json is not used"]);
    let (han, closed) = (world.logged_in("han"), world.hub.index().first());
    for number in 200..230 {
        world.command(han, &format!("/msgto leia private {number}"));
    }
    assert!(world.hub.index().first() > closed, "segments were archived");
    assert_eq!(world.notices.len(), 1, "{:?}", world.notices);
}

#[test]
fn a_snapshot_of_another_history_is_not_used() {
    // As many events in as many bytes, under the same number of a log: only the roots differ.
    let (world, other) = (long_log(), long_log_with("another"));
    let ((snapshots, names), (other_snapshots, other_names)) = (files(&world, "snapshots"), files(&other, "snapshots"));
    assert_eq!(names, other_names);
    let newest = names.last().unwrap();
    snapshots.put(newest, other_snapshots.content(newest).unwrap());
    check_opening(&world.crash(), &["it is that of another log"]);
}

#[test]
fn files_of_another_log_are_not_used() {
    let (mut world, mut other) = (long_log(), World::with_segments(SEGMENT_BYTES));
    let yoda = other.logged_in("yoda");
    for number in 0..300 {
        other.command(yoda, &format!("/msgto han other {number}"));
    }
    let (index, names) = files(&world, "index");
    let (other_index, other_names) = files(&other, "index");
    index.put(&names[0], other_index.content(&other_names[0]).unwrap());
    index.put("00000000000000009999.idx", other_index.content(&other_names[1]).unwrap());
    index.put("00000000000000000001.idx.reader.tmp", b"half".to_vec());
    index.put("README", b"hello".to_vec());
    let (snapshots, names) = files(&world, "snapshots");
    let (other_snapshots, other_names) = files(&other, "snapshots");
    snapshots.put(names.last().unwrap(), other_snapshots.content(&other_names[1]).unwrap());
    snapshots.put("notes.json", b"{}".to_vec());
    world = world.crash();
    let said = ["is not used", "9999.idx is the index of no closed", "README", "notes.json"];
    check_opening(&world, &said);
    assert!(!files(&world, "index").1.iter().any(|name| name.ends_with(".tmp")), "what was unfinished is removed");
    let han = world.logged_in("han");
    assert_eq!(history(&mut world, han, "leia"), texts("private", 0..200));
    assert!(world.notices[4].contains("made anew: it is the index of other events"), "{:?}", world.notices);
}

#[test]
fn whatever_bit_of_an_index_is_wrong_the_answers_are_right() {
    let mut world = long_log();
    let han = world.logged_in("han");
    let (index, names) = files(&world, "index");
    let good: Vec<Vec<u8>> = names.iter().map(|name| index.content(name).unwrap()).collect();
    let (private, group) = (texts("private", 0..200), texts("group", 0..200));
    let mut made_anew = 0;
    for place in (0..good[7].len()).step_by(5) {
        index.flip(&names[7], place, u32::try_from(place % 8).unwrap());
        if place % 2 == 0 {
            world.reopen_archive();
        }
        assert_eq!(history(&mut world, han, "leia"), private, "byte {place}");
        assert_eq!(history(&mut world, han, "#falcon"), group, "byte {place}");
        made_anew += usize::from(index.content(&names[7]).unwrap() == good[7]);
        index.put(&names[7], good[7].clone());
        world.reopen_archive();
    }
    // What was not read was not missed: entries and lists of others, and places of other events.
    assert!(made_anew * 4 > good[7].len() / 5, "{made_anew} of {} were noticed", good[7].len() / 5);
    assert_eq!(made_anew, world.notices.iter().filter(|notice| notice.contains("made anew")).count());
}

#[test]
fn where_no_index_can_be_written_the_answers_come_all_the_same() {
    let mut world = long_log();
    let han = world.logged_in("han");
    let (index, names) = files(&world, "index");
    names.iter().for_each(|name| index.remove(name).unwrap());
    world.disk.set_faults(Faults { sync_fails_after: Some(0), ..Faults::default() });
    assert_eq!(history(&mut world, han, "leia"), texts("private", 0..200));
    assert_eq!(history(&mut world, han, "leia"), texts("private", 0..200));
    let said = world.notices.iter().filter(|notice| notice.contains("cannot be written")).count();
    assert_eq!(said, 1, "{:?}", world.notices);
    assert!(files(&world, "index").1.is_empty());
}

#[test]
fn an_archivist_that_failed_goes_on_when_it_is_tried_again_and_at_the_next_closed_segment() {
    let mut world = long_log();
    world.archivist_is_slow = true;
    let han = world.logged_in("han");
    let first = world.hub.index().first();
    for number in 200..250 {
        world.command(han, &format!("/msgto leia private {number}"));
    }
    world.disk.set_faults(Faults { sync_fails_after: Some(0), ..Faults::default() });
    world.archive();
    assert_eq!(world.hub.index().first(), first, "what is not archived stays in memory");
    world.disk.set_faults(Faults::default());
    world.archive();
    let again = world.hub.index().first();
    assert!(again > first, "it is tried again");
    for number in 250..300 {
        world.command(han, &format!("/msgto leia private {number}"));
    }
    world.archive();
    assert!(world.hub.index().first() > again);
    assert_eq!(history(&mut world, han, "leia"), texts("private", 0..300));
    check_opening(&world.crash(), &[]);
}

#[test]
fn on_a_full_disk_an_archivist_owes_the_indexes_of_older_segments_too_and_tries_one() {
    let world = long_log();
    let (index, names) = files(&world, "index");
    names[3..9].iter().for_each(|name| index.remove(name).unwrap());
    index.sync_names().unwrap();
    world.disk.set_faults(Faults { room_bytes: Some(0), ..Faults::default() });
    let mut archivist = ArchiveFiles::new(&world.disk, "archivist").unwrap();
    let through = world.hub.index().first() - 1;
    let archived = archivist.archive_through(through);
    assert!(archived.is_done && archived.is_owing, "what is missing is older than what the hub holds");
    assert_eq!(archived.notices.len(), 1, "{:?}", archived.notices);
    assert!(archived.notices[0].contains("cannot be written"), "{:?}", archived.notices);
    world.disk.set_faults(Faults::default());
    let archived = archivist.archive_through(through);
    assert!(archived.is_done && !archived.is_owing && archived.notices.is_empty(), "{archived:?}");
    assert_eq!(files(&world, "index").1, names);
}

#[test]
fn transfers_over_the_end_of_a_segment_belong_to_their_conversation() {
    let mut world = World::with_segments(512);
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    let transfer = "0123456789abcdef0123456789abcdef";
    world.ask(
        han,
        &json!({"type": "offer", "to": "leia", "transfer": transfer, "key": "aa", "addrs": [],
        "files": [{"name": "f", "size": 1}]}),
    );
    for number in 0..20 {
        world.command(han, &format!("/msgto yoda {number}"));
    }
    world.frames(leia);
    world.ask(leia, &json!({"type": "answer", "transfer": transfer, "accept": false}));
    for number in 0..20 {
        world.command(han, &format!("/msgto yoda {number}"));
    }
    let (index, names) = files(&world, "index");
    let mut check = |removed: &[String]| {
        removed.iter().for_each(|name| index.remove(name).unwrap());
        world.reopen_archive();
        let events = world.command(han, "/history leia")["events"].clone();
        let types: Vec<&str> = events.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["transfer_offered", "transfer_answered", "transfer_ended"], "without {removed:?}");
    };
    check(&names);
    // Alone, an index begins with what the one before says is open.
    names.iter().for_each(|name| check(std::slice::from_ref(name)));
}
