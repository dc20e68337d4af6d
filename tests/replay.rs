//! `messenger replay` on the logs of real servers.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Output, Stdio};

use messenger::clock::{self, Timestamp};
use messenger::eventlog::{self, Batch, Disk, Log, LogReader, SEGMENT_BYTES_MAX};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use server::{Server, messenger, run};

const SEGMENT: &str = "00000000000000000001.jsonl";
const NONE: [u64; 0] = [];

/// A server that was killed in the middle of this, so that two sessions are still open in its log:
///
/// 1 server_started · 2 login yoda · 3 login han · 4 message · 5 message · 6 group_created · 7 group_joined ·
/// 8 group_message · 9–11 login_failed leia · 12 user_blocked leia
fn story() -> Server {
    let mut server = Server::start();
    let mut yoda = server.login("yoda");
    let mut han = server.login("han");
    yoda.command("/msgto han the plan is ready");
    han.command("/msgto leia I know; \"really\" \u{202e}\u{1b}[2J");
    yoda.command("/creategroup jedi han luke");
    han.command("/joingroup jedi");
    han.command("/groupmsg jedi a plan");
    let mut stranger = server.connect();
    for _ in 0..3 {
        stranger.send("/login leia wrong");
        stranger.line();
    }
    server.kill();
    server
}

/// Runs `messenger replay` on the data of a server.
fn replay(server: &Server, arguments: &[&str]) -> Output {
    run(&[&["replay", &server.data_argument()], arguments].concat())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What a successful run says.
fn said(server: &Server, arguments: &[&str]) -> String {
    let done = replay(server, arguments);
    assert!(done.status.success() && done.stderr.is_empty(), "{arguments:?}: {done:?}");
    text(&done.stdout).to_owned()
}

/// The numbers of the events that a run shows.
fn shown(server: &Server, arguments: &[&str]) -> Vec<u64> {
    said(server, arguments)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect()
}

fn segment(server: &Server) -> PathBuf {
    server.data().join("events").join(SEGMENT)
}

#[test]
fn json_is_the_event_lines_byte_for_byte() {
    let server = story();
    let log = std::fs::read_to_string(segment(&server)).unwrap();
    let events: String = log.split_inclusive('\n').filter(|line| line.starts_with(r#"{"seq":"#)).collect();
    assert_eq!(events.lines().count(), 12);
    assert_eq!(said(&server, &[]), events);
    assert_eq!(said(&server, &["--format", "json"]), events);
}

#[test]
fn each_condition_lets_through_what_it_names_and_all_must_hold() {
    let server = story();
    assert_eq!(shown(&server, &["--from", "11"]), [11, 12]);
    assert_eq!(shown(&server, &["--to", "2"]), [1, 2]);
    assert_eq!(shown(&server, &["--from", "5", "--to", "4"]), NONE);
    assert_eq!(shown(&server, &["--user", "yoda"]), [2, 4, 6]);
    assert_eq!(shown(&server, &["--user", "luke"]), [6]);
    assert_eq!(shown(&server, &["--user", "leia"]), [5, 9, 10, 11, 12]);
    assert_eq!(shown(&server, &["--group", "jedi"]), [6, 7, 8]);
    assert_eq!(shown(&server, &["--type", "message,group_message"]), [4, 5, 8]);
    assert_eq!(shown(&server, &["--type", "login", "--type", "message"]), [2, 3, 4, 5]);
    assert_eq!(shown(&server, &["--grep", "plan"]), [4, 8]);
    assert_eq!(shown(&server, &["--grep", "\"really\" \u{202e}\u{1b}["]), [5]);
    assert_eq!(shown(&server, &["--grep", "yoda"]), NONE);
    assert_eq!(shown(&server, &["--user", "han", "--grep", "plan", "--type", "message", "--from", "2"]), [4]);
}

#[test]
fn moments_are_inclusive_on_both_sides() {
    let server = story();
    let at = |seq: u64| {
        let line = said(&server, &["--from", &seq.to_string(), "--to", &seq.to_string()]);
        serde_json::from_str::<Value>(&line).unwrap()["ts"].as_str().unwrap().to_owned()
    };
    let (fourth, sixth) = (at(4), at(6));
    let all: Vec<(u64, String)> = (1..=12).map(|seq| (seq, at(seq))).collect();
    let expected: Vec<u64> = all.iter().filter(|(_, ts)| *ts >= fourth && *ts <= sixth).map(|(seq, _)| *seq).collect();
    assert!(expected.contains(&4) && expected.contains(&6));
    assert_eq!(shown(&server, &["--since", &fourth, "--until", &sixth]), expected);
    let tomorrow = clock::wall().plus_ms(86_400_000).to_utc_day();
    assert_eq!(shown(&server, &["--since", &tomorrow]), NONE);
    assert_eq!(shown(&server, &["--until", &tomorrow]).len(), 12);
    assert_eq!(shown(&server, &["--until", "2020-01-01"]), NONE);
}

#[test]
fn text_is_sentences_that_no_message_can_forge() {
    let server = story();
    let told = said(&server, &["--format", "text"]);
    let sentences: Vec<&str> = told.lines().map(|line| line.split_once(", ").unwrap().1).collect();
    assert_eq!(
        sentences[1..8],
        [
            "yoda logged in from 127.0.0.1, session 1",
            "han logged in from 127.0.0.1, session 2",
            "yoda to han: the plan is ready",
            "han to leia: I know; \"really\" \\u202e\\u001b[2J",
            "yoda created the group chat jedi and invited han, luke",
            "jedi: han joined",
            "jedi, han: a plan",
        ]
    );
    assert!(told.lines().zip(1..).all(|(line, seq)| line.trim_start().starts_with(&format!("{seq}  "))));
}

#[test]
fn csv_has_a_header_and_reads_back() {
    let server = story();
    let table = said(&server, &["--format", "csv"]);
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let rows: Vec<std::collections::HashMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 12);
    assert_eq!(rows[4]["text"], "I know; \"really\" \u{202e}\u{1b}[2J");
    assert_eq!((&*rows[5]["type"], &*rows[5]["invited"], &*rows[5]["text"]), ("group_created", "han luke", ""));
    assert_eq!(said(&server, &["--format", "csv", "--from", "99"]).lines().count(), 1);
}

#[test]
fn the_state_is_that_of_the_point_asked_for() {
    let server = story();
    let state = |arguments: &[&str]| {
        serde_json::from_str::<Value>(&said(&server, &[&["--state"], arguments].concat())).unwrap()
    };
    let end = state(&[]);
    assert_eq!(end["seq"], 12);
    let who = |state: &Value| {
        state["logged_in"].as_array().unwrap().iter().map(|session| session["user"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(who(&end), ["yoda", "han"]);
    assert_eq!(end["blocked"][0]["user"], "leia");
    let group = json!([{"group": "jedi", "creator": "yoda", "joined": ["yoda", "han"], "invited": ["luke"]}]);
    assert_eq!(end["groups"], group);

    let early = state(&["--at", "2"]);
    assert_eq!((&early["seq"], who(&early), &early["groups"]), (&json!(2), vec![json!("yoda")], &json!([])));
    assert_eq!(early["blocked"], json!([]));
    assert_eq!(state(&["--at", "0"])["seq"], 0);
    let later = state(&["--at", &clock::wall().plus_ms(60_000).to_string()]);
    assert_eq!((&later["seq"], &later["blocked"]), (&json!(12), &json!([])));
    assert_eq!(state(&["--at", "2020-01-01"])["seq"], 0);

    let beyond = replay(&server, &["--state", "--at", "13"]);
    assert_eq!(beyond.status.code(), Some(1));
    assert_eq!(text(&beyond.stderr), "messenger: there is no event 13 yet: the log ends with event 12\n");
}

#[test]
fn stats_count_by_type_user_and_day() {
    let server = story();
    let stats: Value = serde_json::from_str(&said(&server, &["--stats", "--format", "json"])).unwrap();
    assert_eq!(stats["events"], 12);
    assert_eq!(stats["bytes"], said(&server, &[]).len());
    assert_eq!(stats["by_type"]["login_failed"], 3);
    assert_eq!(stats["by_user"], json!({"yoda": 3, "han": 4, "leia": 4}));
    assert_eq!(stats["by_day"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>(), 12);
    assert_eq!((&stats["first"]["seq"], &stats["last"]["seq"]), (&json!(1), &json!(12)));
    let told = said(&server, &["--stats", "--user", "han", "--type", "message"]);
    assert!(told.starts_with("events   2, ") && told.contains("        2  message\n"), "{told}");
}

#[test]
fn an_intact_log_is_said_to_be_so_with_its_head() {
    let server = story();
    let log = std::fs::read_to_string(segment(&server)).unwrap();
    let commit: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let expected = format!("intact: 12 events, head 12 {}\n", commit["root"].as_str().unwrap());
    assert_eq!(said(&server, &["--verify"]), expected);
    let file = segment(&server);
    assert_eq!(text(&run(&["replay", file.to_str().unwrap(), "--verify"]).stdout), expected);
}

#[test]
fn what_is_behind_head_is_neither_shown_nor_vouched_for() {
    let mut server = Server::start();
    let mut yoda = server.login("yoda");
    yoda.command("/msgto han one");
    let before = (said(&server, &[]), said(&server, &["--verify"]));
    let head = std::fs::read(server.data().join("events/HEAD")).unwrap();
    yoda.command("/msgto han two");
    server.kill();
    std::fs::write(server.data().join("events/HEAD"), head).unwrap();
    assert_eq!(said(&server, &[]), before.0);
    let done = replay(&server, &["--verify"]);
    assert_eq!((done.status.code(), text(&done.stdout)), (Some(0), &*before.1));
    assert!(text(&done.stderr).contains("bytes that were never acknowledged"), "{done:?}");
}

#[test]
fn a_flipped_bit_is_found_with_its_place() {
    let server = story();
    let mut log = std::fs::read(segment(&server)).unwrap();
    let place = memchr::memmem::find(&log, b"the plan is").unwrap();
    log[place] ^= 1;
    std::fs::write(segment(&server), &log).unwrap();
    let line = log[..place].iter().filter(|byte| **byte == b'\n').count() + 1;
    let done = replay(&server, &["--verify"]);
    assert_eq!((done.status.code(), text(&done.stdout)), (Some(7), ""));
    // The leaf shows in the root of its commit, which stands in the line behind it.
    let expected = format!(
        "messenger: not intact: {SEGMENT}, line {}, event 4: event 4 is not the one that was committed; restore \
         the log from a copy\n",
        line + 1
    );
    assert_eq!(text(&done.stderr), expected);
}

#[test]
fn a_cut_log_is_found_to_have_lost_acknowledged_events() {
    let server = story();
    let log = std::fs::read(segment(&server)).unwrap();
    let end = memchr::memmem::find(&log, br#"{"seq":8,"#).unwrap();
    std::fs::write(segment(&server), &log[..end]).unwrap();
    let done = replay(&server, &["--verify"]);
    assert_eq!(done.status.code(), Some(7));
    let expected = "events 8 to 12 were acknowledged and are not there; restore the log from a copy";
    assert_eq!(text(&done.stderr), format!("messenger: not intact: {expected}\n"));
    let done = replay(&server, &[]);
    assert_eq!((done.status.code(), text(&done.stdout).lines().count()), (Some(7), 7), "what is there is shown");
}

#[test]
fn one_segments_file_is_a_log_too() {
    let server = story();
    let all = said(&server, &[]);
    let events = server.data().join("events");
    let within = |log: &str, arguments: &[&str]| {
        let done = messenger().current_dir(&events).args(["replay", log]).args(arguments).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        text(&done.stdout).to_owned()
    };
    assert_eq!(within(".", &[]), all);
    assert_eq!(within(SEGMENT, &[]), all);
    assert_eq!(within(SEGMENT, &["--since", "2020-01-01"]), all);
    assert_eq!(within(SEGMENT, &["--from", "12"]).lines().count(), 1);
    let copy = tempfile::tempdir().unwrap();
    let copied = copy.path().join(SEGMENT);
    std::fs::copy(segment(&server), &copied).unwrap();
    assert_eq!(text(&run(&["replay", copied.to_str().unwrap()]).stdout), all, "without HEAD");
}

#[test]
fn where_there_is_no_log_it_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("nothing").to_str().unwrap().to_owned();
    for way in [&[][..], &["--verify"], &["--stats"], &["--state"], &["--follow"]] {
        let done = run(&[&["replay", &missing], way].concat());
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        assert!(text(&done.stderr).starts_with(&format!("messenger: there is no log at {missing}")), "{done:?}");
        assert!(text(&done.stderr).ends_with("name a data directory, an events directory or a segment's file\n"));
    }
    let empty = run(&["replay", directory.path().to_str().unwrap()]);
    assert_eq!((empty.status.code(), text(&empty.stdout)), (Some(1), ""));
}

#[test]
fn what_makes_no_sense_is_refused_as_usage() {
    for wrong in [
        &["--verify", "--follow"][..],
        &["--verify", "--from", "3"],
        &["--verify", "--format", "json"],
        &["--state", "--user", "yoda"],
        &["--state", "--format", "csv"],
        &["--stats", "--follow"],
        &["--stats", "--format", "csv"],
        &["--derive", "x", "--grep", "y"],
        &["--at", "3"],
        &["--from", "-1"],
        &["--since", "yesterday"],
        &["--user", "no such name"],
        &["--type", "massage"],
        &["--format", "xml"],
        &["one", "two"],
    ] {
        let done = run(&[&["replay"], wrong].concat());
        assert_eq!((done.status.code(), text(&done.stdout)), (Some(2), ""), "{wrong:?}: {done:?}");
        assert!(!done.stderr.is_empty());
    }
}

#[test]
fn a_new_log_is_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    drop(log_in(&directory.path().join("data")));
    let data = directory.path().join("data").to_str().unwrap().to_owned();
    let said = |arguments: &[&str]| {
        let done = run(&[&["replay", &data], arguments].concat());
        assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        text(&done.stdout).to_owned()
    };
    assert_eq!(said(&[]), "");
    assert_eq!(said(&["--since", "2026-01-01"]), "");
    assert!(said(&["--verify"]).starts_with("intact: 0 events, head 0 e3b0c442"));
    assert!(said(&["--stats"]).starts_with("events   0, 0 bytes\n"));
    assert!(said(&["--state"]).contains("\"seq\": 0"));
}

/// `messenger replay --follow`, running.
struct Follow {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Follow {
    fn start(data: &str, arguments: &[&str]) -> Self {
        let mut child =
            messenger().args(["replay", data, "--follow"]).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().map(BufReader::new);
        Self { child, out }
    }

    fn seq(&mut self) -> u64 {
        let mut line = String::new();
        self.out.as_mut().unwrap().read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["seq"].as_u64().unwrap()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn to_follow_is_to_see_what_happens_and_an_interruption_ends_it() {
    let server = Server::start();
    let mut follow = Follow::start(&server.data_argument(), &["--type", "message"]);
    let mut yoda = server.login("yoda");
    for number in 0..3 {
        let seq = yoda.command(&format!("/msgto han {number}"))["seq"].as_u64().unwrap();
        assert_eq!(follow.seq(), seq);
    }
    kill_process(Pid::from_child(&follow.child), Signal::INT).unwrap();
    assert_eq!(follow.child.wait().unwrap().code(), Some(130));
    let mut rest = Vec::new();
    follow.out.take().unwrap().read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn to_follow_ends_with_the_last_event_that_can_match() {
    let server = story();
    let mut follow = Follow::start(&server.data_argument(), &["--from", "11", "--to", "12"]);
    assert_eq!((follow.seq(), follow.seq()), (11, 12));
    assert!(follow.child.wait().unwrap().success());
}

#[test]
fn to_follow_ends_quietly_when_nobody_reads_any_more() {
    let server = story();
    let mut follow = Follow::start(&server.data_argument(), &["--from", "12"]);
    assert_eq!(follow.seq(), 12);
    // Nothing is written from here on: the end of the pipe alone says it.
    drop(follow.out.take());
    assert!(follow.child.wait().unwrap().success());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut log = log_in(&data);
    append(&mut log, 200, &"x".repeat(10_000));
    log.close().unwrap();
    let mut child = messenger()
        .args(["replay", data.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

#[test]
fn to_follow_goes_on_in_the_next_segment() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut log = log_in(&data);
    append(&mut log, 1, "first");
    let mut follow = Follow::start(data.to_str().unwrap(), &[]);
    assert_eq!(follow.seq(), 1);
    let bytes = 16_000;
    let enough = SEGMENT_BYTES_MAX / bytes as u64 + 2;
    for _ in 0..=enough / 256 {
        append(&mut log, 256, &"x".repeat(bytes));
    }
    let last = log.seq() + 2;
    append(&mut log, 2, "last");
    for seq in 2..=last {
        assert_eq!(follow.seq(), seq);
    }
    let segments = std::fs::read_dir(data.join("events")).unwrap();
    let names = segments.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut segments: Vec<String> = names.filter(|name| name.ends_with(".jsonl")).collect();
    segments.sort();
    assert_eq!(segments.len(), 2);
    let verified = text(&run(&["replay", data.to_str().unwrap(), "--verify"]).stdout).to_owned();
    assert!(verified.starts_with(&format!("intact: {last} events, head {last} ")), "{verified}");

    // Its second segment alone holds no beginning.
    let second = data.join("events").join(&segments[1]).to_str().unwrap().to_owned();
    let first_of_second: u64 = segments[1].trim_end_matches(".jsonl").parse().unwrap();
    let first_line = text(&run(&["replay", &second]).stdout).lines().next().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<Value>(&first_line).unwrap()["seq"], first_of_second);
    let beyond = data.join("events").join(SEGMENT).to_str().unwrap().to_owned();
    assert!(run(&["replay", &beyond, "--from", &last.to_string()]).stdout.is_empty());
    let done = run(&["replay", &second, "--state"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains(&format!("begins with event {first_of_second}")), "{done:?}");
}

#[test]
fn what_was_read_ahead_of_a_crash_is_not_shown_for_what_came_after() {
    let mut server = Server::start();
    // Who is still there when the server is killed: a logout might be in the log and not yet in HEAD.
    let mut yoda = server.login("yoda");
    yoda.command("/msgto han before");
    server.kill();
    let mut reader = LogReader::open(&server.data()).unwrap();
    let head = reader.end();
    let torn: Vec<u8> = (head + 1..head + 4).flat_map(|seq| line(seq, clock::wall(), "never acknowledged")).collect();
    let mut log = std::fs::read(segment(&server)).unwrap();
    log.extend(torn);
    std::fs::write(segment(&server), &log).unwrap();
    while reader.next_line().unwrap().is_some() {}
    server.restart();
    let mut yoda = server.login("yoda");
    yoda.command("/msgto han after");
    server.kill();
    let mut after = Vec::new();
    while let Some(event) = reader.next_line().unwrap() {
        after.extend_from_slice(event.bytes);
        after.push(b'\n');
    }
    assert_eq!(text(&after), said(&server, &["--from", &(head + 1).to_string()]));
    assert!(text(&after).contains("\"after\""));
}

#[test]
fn what_is_rare_is_found_wherever_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut log = log_in(&data);
    // Batches of all sizes, long and short lines: what is looked for stands at all places of what is read at once.
    let mut expected = Vec::new();
    for batch in 0..400_u64 {
        let is_rare = batch % 7 == 3;
        let text = format!("{}{}", if is_rare { "needle " } else { "" }, "x".repeat((batch * 97 % 3_000) as usize + 1));
        let count = batch % 5 + 1;
        let first = log.seq() + 1;
        append(&mut log, count, &text);
        if is_rare {
            expected.extend(first..first + count);
        }
    }
    let data = data.to_str().unwrap();
    let found = |arguments: &[&str]| -> Vec<u64> {
        let done = run(&[&["replay", data], arguments].concat());
        assert!(done.status.success(), "{done:?}");
        let seq = |line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
        text(&done.stdout).lines().map(seq).collect()
    };
    let (before, after): (Vec<u64>, Vec<u64>) = expected.iter().partition(|seq| **seq <= 700);
    assert_eq!(found(&["--grep", "needle"]), expected);
    assert_eq!(found(&["--grep", "needle", "--to", "700"]), before);
    assert_eq!(found(&["--grep", "needle", "--from", "701"]), after);
    assert_eq!(found(&["--grep", "needle", "--since", "1970-01-01T00:16:40.701Z"]), after);
    // In every line, also in those that are no events.
    assert_eq!(found(&["--grep", "e"]), expected);
    assert_eq!(found(&["--user", "yoda"]), (1..=log.seq()).collect::<Vec<_>>());
    assert_eq!(found(&["--user", "leia"]), NONE);

    let mut follow = Follow::start(data, &["--grep", "needle", "--from", "701"]);
    for seq in after {
        assert_eq!(follow.seq(), seq);
    }
    append(&mut log, 300, "nothing");
    append(&mut log, 2, "a needle");
    assert_eq!((follow.seq(), follow.seq()), (log.seq() - 1, log.seq()));
    // What can match no more is not waited for, though no line holds what is looked for.
    let mut over = Follow::start(data, &["--user", "leia", "--to", "700"]);
    assert!(over.child.wait().unwrap().success());
}

#[test]
fn the_help_shows_every_option_with_an_example() {
    let done = run(&["replay", "--help"]);
    let help = text(&done.stdout);
    let (options, examples) = help.split_once("Examples:").unwrap();
    for option in ["from", "to", "since", "until", "user", "group", "type", "format", "at", "derive", "grep"] {
        assert!(options.contains(&format!("as in `--{option} ")), "--{option}");
    }
    for option in ["follow", "verify", "state", "stats"] {
        assert!(options.contains(&format!("--{option}\n")) && examples.contains(&format!("--{option}")), "--{option}");
    }
}

/// A log without a server.
fn log_in(data: &std::path::Path) -> Log<Disk> {
    let disk = Disk::lock(data).unwrap();
    eventlog::open(disk, uuid::Uuid::new_v4(), Timestamp::from_ms(1_000_000), |_| {}).unwrap().log
}

/// A line of the log with its line feed.
fn line(seq: u64, ts: Timestamp, text: &str) -> Vec<u8> {
    let mut line = format!(r#"{{"seq":{seq},"ts":"{ts}","type":"message","from":"yoda","to":"han","text":"{text}"}}"#);
    line.push('\n');
    line.into_bytes()
}

/// Makes a batch durable.
fn append(log: &mut Log<Disk>, count: u64, text: &str) {
    let first = log.seq() + 1;
    let last = log.seq() + count;
    let at = |seq| Timestamp::from_ms(1_000_000 + seq);
    let lines = (first..=last).flat_map(|seq| line(seq, at(seq), text)).collect();
    log.append(Batch { lines, first, last, at: at(last) }).unwrap();
}

#[test]
fn a_log_without_its_head_is_not_intact() {
    let mut server = Server::start();
    server.login("han").command("/msgto leia hi");
    assert!(server.stop().success());
    std::fs::remove_file(server.data().join("events/HEAD")).unwrap();
    let output = run(&["replay", &server.data_argument(), "--verify"]);
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output.stderr).contains("HEAD"), "{}", text(&output.stderr));
}
