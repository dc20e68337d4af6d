//! Data directories that are not as a server leaves them: each is refused in a sentence that names the place, with exit 7,
//! and nothing in it is written.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use messenger::clock::{self, Timestamp};
use messenger::eventlog::memory::MemoryDisk;
use messenger::eventlog::{self, Batch, Storage as _, checked, segment_name};
use server::{PASSWORD, Server, USERS, messenger, run};

/// Events of which each segment has four, in two batches.
const SEGMENT_BYTES: u64 = 2_500;
/// The segment in the middle, and the newest.
const MIDDLE: u64 = 9;
const NEWEST: u64 = 17;

/// The log begins now: a server says when it is much older than its clock.
fn at(seq: u64) -> Timestamp {
    static START: LazyLock<Timestamp> = LazyLock::new(clock::wall);
    START.plus_ms(seq)
}

fn message(seq: u64, at: Timestamp) -> String {
    let text = "x".repeat(600);
    format!(r#"{{"seq":{seq},"ts":"{at}","type":"message","from":"yoda","to":"han","text":"{text}"}}"#)
}

/// Makes a log of 20 events in five segments; `line` gives each event's line.
fn make_log(data: &Path, line: impl Fn(u64) -> String) {
    // In memory first: a lock taken here might be held for a moment by the processes that other tests start.
    let disk = MemoryDisk::default();
    let mut log = eventlog::open(disk.clone(), uuid::Uuid::new_v4(), at(0), |_| {}).unwrap().log;
    log.set_segment_bytes_max(SEGMENT_BYTES);
    for first in (1..=20).step_by(2) {
        let lines: String = (first..=first + 1).map(|seq| line(seq) + "\n").collect();
        log.append(Batch { lines: lines.into(), first, last: first + 1, at: at(first + 1) }).unwrap();
    }
    log.close().unwrap();
    assert_eq!(eventlog::segments(&disk).unwrap(), [1, 5, MIDDLE, 13, NEWEST]);
    let events = data.join("events");
    fs::create_dir_all(&events).unwrap();
    fs::write(events.join("LOCK"), "").unwrap();
    for name in disk.list().unwrap() {
        fs::write(events.join(&name), disk.content(&name).unwrap()).unwrap();
    }
}

/// A data directory with accounts beside it.
struct Data(tempfile::TempDir);

impl Data {
    fn new(line: impl Fn(u64) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let accounts: String = USERS.iter().map(|user| format!("{user} {PASSWORD}\n")).collect();
        fs::write(directory.path().join("credentials.txt"), accounts).unwrap();
        let data = Self(directory);
        make_log(&data.path(), line);
        data
    }

    fn good() -> Self {
        Self::new(|seq| message(seq, at(seq)))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn segment(&self, first: u64) -> PathBuf {
        self.path().join("events").join(segment_name(first))
    }

    /// Puts another first line in the place of a segment's own.
    fn replace_header(&self, first: u64, change: impl Fn(&str) -> String) {
        let content = fs::read_to_string(self.segment(first)).unwrap();
        let (header, rest) = content.split_once('\n').unwrap();
        let (fields, _) = header.rsplit_once(",\"check\"").unwrap();
        let header = String::from_utf8(checked(&change(fields))).unwrap();
        fs::write(self.segment(first), header + rest).unwrap();
    }

    /// Puts something else in the place of a file.
    fn put_no_file(&self, path: &Path, kind: &str) {
        let _ = fs::remove_file(path);
        match kind {
            "a directory" => fs::create_dir(path).unwrap(),
            _ => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
        }
    }

    /// Erases with these arguments beside the usual ones, is refused so, and leaves every byte as it was.
    fn assert_not_erased(&self, arguments: &[&str], exit: i32, words: &str) {
        let before = files(&self.path());
        let done = run(&[&["erase", self.path().to_str().unwrap()][..], arguments].concat());
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.code() == Some(exit) && said.contains(words), "{words}: {:?}: {said}", done.status);
        assert!(files(&self.path()) == before, "{words}: it has written");
    }

    fn run(&self, way: &str) -> Output {
        let (data, credentials) = (self.path(), self.0.path().join("credentials.txt"));
        let (data, credentials) = (data.to_str().unwrap(), credentials.to_str().unwrap());
        match way {
            "serve" => run(&["serve", "0", "--data", data, "--credentials", credentials]),
            "erase" => run(&["erase", "--seq", "2", "--by", "admin", "--reason", "asked for", data]),
            "replay" => run(&["replay", data]),
            way => run(&["replay", data, way]),
        }
    }

    /// Each of these ways of looking at the data ends with exit 7 and a sentence that holds all of these words, and not a
    /// byte has changed.
    fn assert_refused(&self, ways: &[&str], words: &[&str]) {
        let before = files(&self.path());
        for way in ways {
            let done = self.run(way);
            let said = String::from_utf8(done.stderr).unwrap();
            assert_eq!(done.status.code(), Some(7), "{way}: {said}");
            assert_eq!(said.lines().count(), 1, "{way}: {said}");
            for word in words {
                assert!(said.contains(word), "{way}: {said:?} lacks {word:?}");
            }
            assert!(files(&self.path()) == before, "{way} has written");
        }
    }
}

/// All that is below a directory.
fn files(directory: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.insert(path.clone(), path.is_file().then(|| fs::read(&path).unwrap()));
    }
    found
}

const ALL_WAYS: [&str; 5] = ["serve", "erase", "replay", "--verify", "--state"];
/// Erasing reads the segments that it erases in, the newest and the ends of the others.
const READS_ALL: [&str; 4] = ["serve", "replay", "--verify", "--state"];

#[test]
fn a_good_log_is_taken_in_every_way() {
    let data = Data::good();
    for way in ["replay", "--verify", "--state", "erase", "--verify"] {
        let done = data.run(way);
        assert!(done.status.success() && done.stderr.is_empty(), "{way}: {done:?}");
    }
}

#[test]
fn a_segment_of_a_later_format_is_refused_by_name() {
    for first in [MIDDLE, NEWEST] {
        let data = Data::good();
        data.replace_header(first, |fields| fields.replace("\"format\":1", "\"format\":2"));
        let place = format!("{}, line 1", segment_name(first));
        data.assert_refused(&ALL_WAYS, &[&place, "format 2", "newer program"]);
    }
}

#[test]
fn an_event_of_a_later_program_is_refused_with_its_place() {
    let later = |seq: u64| message(seq, at(seq)).replace("\"message\"", "\"reaction\"");
    let with_later = |which: u64| Data::new(move |seq| if seq == which { later(seq) } else { message(seq, at(seq)) });
    let newest = with_later(NEWEST + 1);
    let place = format!("{}, line 3", segment_name(NEWEST));
    newest.assert_refused(&ALL_WAYS, &[&place, "\"reaction\"", "use the newer program"]);
    // What was folded before it left neither an index nor a snapshot.
    let closed = with_later(MIDDLE + 1);
    let place = format!("{}, line 3", segment_name(MIDDLE));
    closed.assert_refused(&READS_ALL, &[&place, "\"reaction\"", "use the newer program"]);
}

#[test]
fn a_file_that_is_no_part_of_a_log_is_refused_by_name() {
    let data = Data::good();
    fs::write(data.path().join("events/notes.txt"), "of somebody").unwrap();
    data.assert_refused(&ALL_WAYS, &["\"notes.txt\"", "move it elsewhere"]);
}

#[test]
fn a_segment_that_is_missing_in_the_middle_is_named() {
    let data = Data::good();
    fs::remove_file(data.segment(MIDDLE)).unwrap();
    let missing = format!("the segment with events {MIDDLE} to {} is missing", MIDDLE + 3);
    data.assert_refused(&ALL_WAYS, &[".jsonl, ", &missing, "from a copy"]);
}

#[test]
fn the_first_segments_are_missed() {
    let data = Data::good();
    fs::remove_file(data.segment(1)).unwrap();
    let ways = ["serve", "replay", "--verify", "--state", "--stats", "--grep=x", "--derive=elsewhere"];
    data.assert_refused(&ways, &[&segment_name(5), "missing", "from a copy"]);
}

#[test]
fn a_head_of_which_nothing_is_whole_is_refused_by_all_who_read() {
    for head in [vec![b'x'; 256], Vec::new()] {
        let data = Data::good();
        fs::write(data.path().join("events/HEAD"), head).unwrap();
        let derived = format!("--derive={}", data.path().display());
        let ways = ["serve", "replay", "--verify", "--state", "--stats", "--checkpoint", &derived];
        data.assert_refused(&ways, &["HEAD: ", "both its slots are broken", "from a copy"]);
    }
}

#[test]
fn a_number_that_was_changed_is_seen_by_a_search_that_passes_over_lines() {
    // The last event of a segment, and so of what is read at once; it would let everything before 19 be passed over.
    let data = Data::new(|seq| if seq == 12 { message(18, at(seq)) } else { message(seq, at(seq)) });
    let place = format!("{}, line 6, event 12", segment_name(MIDDLE));
    data.assert_refused(&["replay", "--verify", "--grep=nobody wrote this", "--user=nobody"], &[&place, "event 18"]);
}

#[test]
fn a_segment_under_a_number_beyond_its_end_is_refused() {
    let data = Data::good();
    fs::rename(data.segment(NEWEST), data.segment(9_999)).unwrap();
    data.assert_refused(&["serve", "--verify"], &[&segment_name(9_999), "from a copy"]);
}

#[test]
fn a_log_of_which_only_snapshots_are_left_is_not_begun_anew() {
    let server = served();
    fs::remove_dir_all(server.data().join("events")).unwrap();
    let mut server = server;
    let said = server.try_restart().unwrap_err();
    assert!(said.contains("snapshots/") && said.contains("nothing is there any more"), "{said}");
}

#[test]
fn a_segment_of_another_log_is_refused() {
    for first in [MIDDLE, NEWEST] {
        let (data, other) = (Data::good(), Data::good());
        fs::copy(other.segment(first), data.segment(first)).unwrap();
        data.assert_refused(&ALL_WAYS, &[".jsonl, line 1", "belongs to", "from a copy"]);
    }
}

#[test]
fn a_time_before_that_of_the_event_before_is_refused_with_its_place() {
    let turned_back = |which: u64| {
        Data::new(move |seq| {
            if seq == which { message(seq, Timestamp::from_ms(at(seq).as_ms() - 5)) } else { message(seq, at(seq)) }
        })
    };
    for (first, ways) in [(MIDDLE, &READS_ALL[..]), (NEWEST, &ALL_WAYS[..])] {
        let data = turned_back(first + 1);
        let place = format!("{}, line 3, event {}", segment_name(first), first + 1);
        data.assert_refused(ways, &[&place, "the time of event", "before that of the one before", "from a copy"]);
    }
}

#[test]
fn a_segment_begun_before_the_end_of_the_one_before_it_is_refused() {
    let data = Data::good();
    data.replace_header(MIDDLE, |fields| fields.replace(&at(MIDDLE - 1).to_string(), &at(1).to_string()));
    let place = format!("{}, line 1", segment_name(MIDDLE));
    data.assert_refused(&ALL_WAYS, &[&place, "its time is before that of the last event", "from a copy"]);
}

/// A server that ran on a log of many segments and was stopped, with an index and a snapshot of each.
fn served() -> Server {
    let directory = tempfile::tempdir().unwrap();
    make_log(&directory.path().join("data"), |seq| message(seq, at(seq)));
    let mut server = Server::start_in(directory, &[]);
    // The indexes are made behind the start, and at once for who asks.
    assert_eq!(server.login("han").command("/history yoda 100")["events"].as_array().unwrap().len(), 20);
    assert!(server.stop().success());
    assert_eq!(server.errors(), "");
    server
}

#[test]
fn an_index_and_a_snapshot_of_another_log_are_said_not_used_and_made_anew() {
    let (mut server, other) = (served(), served());
    let (snapshot, index) = (format!("snapshots/{:020}.json", NEWEST - 1), format!("index/{MIDDLE:020}.idx"));
    let own = [&snapshot, &index].map(|name| fs::read(server.data().join(name)).unwrap());
    let state = run(&["replay", &server.data_argument(), "--state"]).stdout;
    for name in [&snapshot, &index] {
        fs::copy(other.data().join(name), server.data().join(name)).unwrap();
    }
    let before = files(&server.data());
    // Looking back says it, goes by an older snapshot, and leaves it to the server to make it anew.
    let done = run(&["replay", &server.data_argument(), "--state"]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(said, format!("messenger: {snapshot} is not used: it is that of another log\n"));
    assert!(done.status.success() && done.stdout == state);
    assert_eq!(files(&server.data()), before);

    server.restart();
    let mut han = server.login("han");
    let history = han.command("/history yoda 100");
    assert_eq!(history["events"].as_array().unwrap().len(), 20);
    let said = server.errors();
    assert!(said.contains(&format!("{snapshot} is not used: it is that of another log")), "{said}");
    assert!(said.contains(&format!("the index of segment {MIDDLE} is made anew: ")), "{said}");
    assert!(server.stop().success());
    assert!(own == [&snapshot, &index].map(|name| fs::read(server.data().join(name)).unwrap()));
}

#[test]
fn a_log_whose_segments_are_all_gone_is_refused() {
    let data = Data::good();
    for first in (1..=NEWEST).step_by(4) {
        fs::remove_file(data.segment(first)).unwrap();
    }
    data.assert_refused(&["serve", "erase"], &["acknowledged events are changed or lost, from 1 to ", "from a copy"]);
    data.assert_refused(
        &["replay", "--verify", "--state"],
        &["HEAD: it speaks of events 1 to ", "no segment is there"],
    );
}

#[test]
fn what_stands_in_the_place_of_a_directory_is_named() {
    for name in ["index", "snapshots"] {
        let data = Data::good();
        fs::write(data.path().join(name), "of somebody").unwrap();
        let help = "move it elsewhere, and what belongs there is made again";
        data.assert_refused(&["serve"], &[name, "it is a file, and no directory", help]);
    }
    let data = Data::good();
    let events = data.path().join("events");
    fs::rename(&events, data.0.path().join("elsewhere")).unwrap();
    fs::write(&events, "of somebody").unwrap();
    data.assert_refused(&["serve"], &["data/events cannot be used: it is a file, and no directory; move it elsewhere"]);
}

#[test]
fn a_link_that_leads_nowhere_in_the_place_of_a_directory_is_said_done_without_and_nothing_is_erased() {
    let help = "it is a symbolic link that leads nowhere: bring back what it leads to, or remove the link";
    for name in ["index", "snapshots", "torn"] {
        let data = Data::good();
        let (link, target) = (data.path().join(name), data.0.path().join("elsewhere"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let order = ["--seq", "2", "--by", "admin", "--reason", "asked for"];
        data.assert_not_erased(&order, 1, &format!("{name} cannot be used: {help}"));
        let mut server = Server::start_in(data.0, &[]);
        assert_eq!(server.login("han").command("/history yoda 100")["events"].as_array().unwrap().len(), 20);
        assert!(server.stop().success());
        let said = server.errors();
        // What is not needed is not missed.
        assert_eq!(said.contains(&format!("messenger: {name} cannot be used: {help}")), name != "torn", "{said}");
        assert!(!said.contains("os error") && !target.exists(), "{said}");
        let state = run(&["replay", &server.data_argument(), "--state"]);
        assert!(state.status.success(), "{state:?}");
        fs::create_dir(&target).unwrap();
        server.restart();
        assert_eq!(server.login("han").command("/history yoda 100")["events"].as_array().unwrap().len(), 20);
        assert!(server.stop().success());
        assert_eq!(server.errors(), said, "all is well again");
        assert_eq!(fs::read_dir(&target).unwrap().count() > 0, name != "torn");
        let erased = run(&[&["erase", &server.data_argument()][..], &order].concat());
        assert!(erased.status.success(), "{erased:?}");
    }
}

#[test]
fn a_link_that_leads_nowhere_is_no_obscure_error() {
    let help = "it is a symbolic link that leads nowhere: bring back what it leads to, or remove the link";
    for name in ["events", "keys", "keys/checkpoint"] {
        let directory = tempfile::tempdir().unwrap();
        let data = Data(directory);
        fs::write(data.0.path().join("credentials.txt"), "yoda jedi\n").unwrap();
        let link = data.path().join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(data.0.path().join("elsewhere"), link).unwrap();
        let done = data.run("serve");
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.code() == Some(1) && said.contains(help) && said.contains(name), "{said}");
    }
}

#[test]
fn a_pipe_in_the_place_of_a_text_file_holds_nobody_up() {
    let data = Data::good();
    data.put_no_file(&data.path().join("messagelog.txt.tmp"), "a pipe");
    let mut server = Server::start_in(data.0, &[]);
    assert!(server.stop().success());
    let said = server.errors();
    assert!(said.contains("messagelog.txt.tmp cannot be written: it is a pipe, and no file"), "{said}");
}

#[test]
fn what_stands_in_the_place_of_a_file_of_the_log_is_named() {
    for kind in ["a pipe", "a directory"] {
        let refused = |name: &str, ways: &[&str]| {
            let data = Data::good();
            data.put_no_file(&data.path().join("events").join(name), kind);
            data.assert_refused(ways, &[name, &format!("it is {kind}, and no file"), "from a copy"]);
        };
        refused("HEAD", &[&ALL_WAYS[..], &["--checkpoint", "--stats", "--prove=2"]].concat());
        for first in [1, MIDDLE, NEWEST] {
            refused(&segment_name(first), &ALL_WAYS);
        }
        refused("next.tmp", &["serve", "erase"]);
        refused("erased.tmp", &["serve", "erase"]);
        // The lock holds nothing: there is nothing to be restored.
        let data = Data::good();
        data.put_no_file(&data.path().join("events/LOCK"), kind);
        let words = format!("data/events/LOCK cannot be used: it is {kind}, and no file; move it elsewhere");
        data.assert_refused(&["serve", "erase"], &[&words]);
    }
}

#[test]
fn what_stands_in_the_place_of_a_file_beside_the_log_is_passed_over_and_said() {
    let mut server = served();
    let (snapshot, index) = (format!("snapshots/{:020}.json", NEWEST - 1), format!("index/{MIDDLE:020}.idx"));
    let data = Data::good();
    for name in [&snapshot, &index] {
        data.put_no_file(&server.data().join(name), "a pipe");
    }
    let done = run(&["replay", &server.data_argument(), "--state"]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(said, format!("messenger: {snapshot} is not used: it is a pipe, and no file\n"));
    server.restart();
    let mut han = server.login("han");
    assert_eq!(han.command("/history yoda 100")["events"].as_array().unwrap().len(), 20);
    let said = server.errors();
    assert!(said.contains(&format!("{snapshot} is not used: it is a pipe, and no file")), "{said}");
    assert!(said.contains(&format!("the index of segment {MIDDLE} is made anew: it is a pipe, and no file")), "{said}");
    assert!(server.stop().success());
    assert!([&snapshot, &index].iter().all(|name| server.data().join(name).is_file()));
}

#[test]
fn an_erasure_that_is_refused_leaves_every_byte_as_it_was() {
    let (name, reason) = (["--by", "admin"], ["--reason", "asked for"]);
    let usual = [name, reason].concat();
    let asked = |data: &Data, seqs: &str, exit, words: &str| {
        data.assert_not_erased(&[&["--seq", seqs], &usual[..]].concat(), exit, words);
    };
    let data = Data::good();
    // What a crash left is put right by whoever writes, and by nobody else.
    let newest = fs::read(data.segment(NEWEST)).unwrap();
    fs::write(data.segment(NEWEST), [&newest[..], b"{\"seq\":21,"].concat()).unwrap();
    fs::write(data.path().join("events/erased.tmp"), "half of a segment").unwrap();
    fs::write(data.segment(21), "").unwrap();
    asked(&data, "2,21", 1, "there is no event 21 in the log, which ends with event 20");
    asked(&data, "0", 1, "there is no event 0");
    let many: Vec<String> = (1..=1_001).map(|seq| seq.to_string()).collect();
    asked(&data, &many.join(","), 2, "1001 events are named, and one erasure names at most 1000");
    let long = "x".repeat(16_385);
    let with = |by: &str, reason: &str, words: &str| {
        data.assert_not_erased(&["--seq", "2", "--by", by, "--reason", reason], 2, words);
    };
    with(&long, "asked for", "the name has 16385 bytes, and in the log it may have at most 16384");
    with("admin", &long, "the reason has 16385 bytes, and in the log it may have at most 16384");
    with(" ", "asked for", "neither may be empty");
    assert!(data.run("erase").status.success());
    asked(&data, "2", 1, "the text of event 2 was erased before");
    asked(&data, "21", 1, "event 21 is no message but of type \"erasure\"");

    let damaged = Data::good();
    let content = fs::read_to_string(damaged.segment(MIDDLE)).unwrap();
    fs::write(damaged.segment(MIDDLE), content.replacen("xxx", "xyx", 1)).unwrap();
    let place = format!("{}, line 4, event {MIDDLE}: events {MIDDLE} to {} are not", segment_name(MIDDLE), MIDDLE + 1);
    asked(&damaged, &(MIDDLE + 3).to_string(), 7, &place);
    fs::write(damaged.segment(1), "{").unwrap();
    asked(&damaged, "2", 7, &format!("{}, line 1, event 1: its first line has no end", segment_name(1)));
}

#[test]
fn a_key_that_is_none_of_this_log_is_refused_before_the_log_is_touched() {
    let keys = |data: &Data| data.path().join("keys");
    let (data, other) = (Data::good(), Data::good());
    eventlog::make_key(&other.path(), uuid::Uuid::new_v4()).unwrap();
    fs::rename(keys(&other), keys(&data)).unwrap();
    let newest = fs::read(data.segment(NEWEST)).unwrap();
    fs::write(data.segment(NEWEST), [&newest[..], b"{\"seq\":21,"].concat()).unwrap();
    let key = keys(&data).join("checkpoint");
    data.assert_refused(&["serve", "--checkpoint"], &["keys/checkpoint holds no key of this log; move it elsewhere"]);
    fs::write(&key, "of nobody").unwrap();
    data.assert_refused(&["serve", "--checkpoint"], &["keys/checkpoint holds no key of this log; move it elsewhere"]);
    let help = "and no file; move it elsewhere, and `serve` makes a new one";
    data.put_no_file(&key, "a pipe");
    data.assert_refused(
        &["serve", "--checkpoint"],
        &[&format!("keys/checkpoint cannot be used: it is a pipe, {help}")],
    );
    fs::rename(&key, key.with_extension("new")).unwrap();
    data.assert_refused(&["serve"], &[&format!("keys/checkpoint.new cannot be used: it is a pipe, {help}")]);
    fs::remove_dir_all(keys(&data)).unwrap();
    fs::write(keys(&data), "of somebody").unwrap();
    let words =
        "data/keys cannot be used: it is a file, and no directory; move it elsewhere, and `serve` makes a new one";
    data.assert_refused(&["serve"], &[words]);
    data.assert_refused(&["--checkpoint"], &["keys cannot be used: it is a file, and no directory; move it elsewhere"]);
}

#[test]
fn a_segment_that_was_cut_off_while_it_was_made_is_said_and_removed_by_a_start() {
    let begun = Data::good();
    let header = fs::read(begun.segment(NEWEST)).unwrap();
    for torn in [&b""[..], &header[..100], &[0; 300]] {
        let data = Data::good();
        fs::write(data.segment(21), torn).unwrap();
        let name = segment_name(21);
        let before = files(&data.path());
        let done = data.run("--verify");
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success(), "{said}");
        assert!(said.starts_with(&format!("messenger: {name} was cut off while it was made")), "{said}");
        assert!(String::from_utf8(done.stdout).unwrap().starts_with("intact: 20 events, head 20 "));
        for way in ["replay", "--state", "--stats", "--prove=20"] {
            let done = data.run(way);
            assert!(done.status.success() && done.stderr.is_empty(), "{way}: {done:?}");
        }
        assert!(files(&data.path()) == before);
        assert!(data.run("erase").status.success());
        assert!(!data.segment(21).exists());
    }
    // Where nothing says that it was never acknowledged, it is damage.
    let data = Data::good();
    fs::write(data.segment(NEWEST), "").unwrap();
    data.assert_refused(&["serve", "erase", "--verify"], &[&segment_name(NEWEST), "its first line has no end"]);
    let data = Data::good();
    fs::write(data.segment(21), "").unwrap();
    fs::remove_file(data.path().join("events/HEAD")).unwrap();
    data.assert_refused(&ALL_WAYS, &[&segment_name(21), "line 1", "its first line has no end"]);
}

#[test]
fn damage_has_its_exit_code_where_nothing_can_be_said() {
    let data = Data::good();
    fs::write(data.path().join("events/HEAD"), "").unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let done = messenger().args(["replay", data.path().to_str().unwrap(), "--verify"]).stderr(full).status().unwrap();
    assert_eq!(done.code(), Some(7));
}

#[test]
fn a_server_whose_notices_nobody_takes_goes_on_serving() {
    let mut server = served();
    // A torn batch at the start, and indexes that are not right later: both are to be said.
    let newest = server.data().join("events").join(segment_name(NEWEST));
    fs::write(&newest, [&fs::read(&newest).unwrap()[..], b"{\"seq\":23,"].concat()).unwrap();
    for index in fs::read_dir(server.data().join("index")).unwrap() {
        fs::write(index.unwrap().path(), "no index").unwrap();
    }
    server.mute();
    server.restart();
    assert_eq!(fs::read_dir(server.data().join("torn")).unwrap().count(), 1);
    let mut han = server.login("han");
    assert_eq!(han.command("/history yoda 100")["events"].as_array().unwrap().len(), 20);
    assert!(server.stop().success());
}

#[test]
fn who_asks_a_server_for_what_is_damaged_is_told_so_and_the_administrator_where() {
    let mut server = served();
    let segment = server.data().join("events").join(segment_name(MIDDLE));
    fs::write(&segment, fs::read_to_string(&segment).unwrap().replacen("xxx", "xyx", 1)).unwrap();
    server.restart();
    let is_told = |frame: &serde_json::Value| {
        let message = frame["message"].as_str().unwrap();
        assert!(frame["code"] == "storage_failed" && message.contains("damaged there or cannot be read"), "{frame}");
        assert!(message.contains("`messenger replay --verify`"), "{frame}");
    };
    let mut han = server.login_after("han", 20);
    han.frame_of("live");
    han.send(r#"{"type":"command","text":"/history yoda 100"}"#);
    is_told(&han.frame_of("error"));
    // What is behind the damage is still given.
    assert_eq!(han.command("/history yoda 7")["events"].as_array().unwrap().len(), 7);
    let mut han = server.login_after("han", 0);
    assert_eq!(han.frame_of("ok")["command"], "login");
    is_told(&han.frame_of("error"));
    assert_eq!(han.line(), "", "and nothing that would seem to be all");
    assert!(server.stop().success());
    let place = format!("{}, line 4, event {MIDDLE}: events {MIDDLE} to {} are not", segment_name(MIDDLE), MIDDLE + 1);
    assert!(server.errors().contains(&place), "{}", server.errors());
}
