//! `messenger erase` on the data of real servers: the text is gone from every file, and the log still verifies.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::Output;

use messenger::chat::Event;
use messenger::eventlog::memory::MemoryDisk;
use messenger::eventlog::{self, Batch, Hash, Storage as _, segment_name};
use serde_json::Value;
use server::{Client, PASSWORD, Server, run};

const SEGMENT: &str = "events/00000000000000000001.jsonl";

/// A stopped server: han told leia two things, and the group jedi one. Gives the numbers of the messages and the last
/// head that somebody saw.
fn told() -> (Server, [u64; 3], String) {
    let mut server = Server::start();
    let mut han = server.login("han");
    han.command("/creategroup jedi luke");
    let texts = ["/msgto leia the secret plan", "/msgto leia lunch", "/groupmsg jedi the secret base"];
    let seqs = texts.map(|text| han.command(text)["seq"].as_u64().unwrap());
    han.send(r#"{"type":"ping"}"#);
    let head = han.frame_of("ok");
    let head = format!("{}:{}", head["seq"], head["root"].as_str().unwrap());
    assert!(server.stop().success());
    assert!(holds(&server.data(), "secret"));
    (server, seqs, head)
}

fn erase(server: &Server, seqs: &str) -> Output {
    run(&["erase", "--seq", seqs, "--by", "admin", "--reason", "asked for", &server.data_argument()])
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Whether any file below a directory holds a text.
fn holds(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => holds(&path, text),
        false => String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(text),
    })
}

fn verify(server: &Server, head: &str) -> Output {
    run(&["replay", &server.data_argument(), "--verify", "--expect", head])
}

fn history(client: &mut Client, place: &str) -> Vec<Value> {
    client.command(&format!("/history {place}"))["events"].as_array().unwrap().clone()
}

#[test]
fn what_a_link_leads_to_would_keep_the_text_so_that_nothing_is_erased() {
    let (server, [plan, ..], head) = told();
    let elsewhere = server.directory().join("elsewhere");
    for name in [SEGMENT, "messagelog.txt"] {
        let own = server.data().join(name);
        fs::rename(&own, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &own).unwrap();
        let refused = erase(&server, &plan.to_string());
        assert_eq!(refused.status.code(), Some(1), "{name}");
        assert!(
            err(&refused).contains("a symbolic link, and what it leads to would keep the text"),
            "{}",
            err(&refused)
        );
        fs::rename(&elsewhere, &own).unwrap();
    }
    assert!(verify(&server, &head).status.success());
    assert!(erase(&server, &plan.to_string()).status.success());
    assert!(!holds(&server.data(), "secret plan"));
}

#[test]
fn a_link_in_the_place_of_the_next_segment_is_not_written_through() {
    let (server, [plan, ..], _) = told();
    let precious = server.directory().join("precious");
    fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, server.data().join("events/next.tmp")).unwrap();
    assert!(erase(&server, &plan.to_string()).status.success());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    for entry in fs::read_dir(server.data().join("events")).unwrap() {
        assert!(!entry.unwrap().path().is_symlink());
    }
}

#[test]
fn what_would_stand_in_the_way_of_an_erasure_stops_it_before_it_is_ordered() {
    let (server, [plan, ..], head) = told();
    let text_files = ["messagelog.txt.tmp", "userlog.txt.tmp", "old_messagelog.txt.tmp", "old_messagelog.txt"];
    fs::write(server.data().join("old_messagelog.txt"), "").unwrap();
    for name in ["torn/kept"].iter().chain(&text_files) {
        let in_the_way = server.data().join(name);
        let _ = fs::remove_file(&in_the_way);
        fs::create_dir_all(&in_the_way).unwrap();
        let refused = erase(&server, &plan.to_string());
        assert!(refused.status.code() == Some(1) && err(&refused).contains(name), "{refused:?}");
        let kinds = run(&["replay", &server.data_argument(), "--type", "erasure"]);
        assert!(kinds.status.success() && kinds.stdout.is_empty(), "{kinds:?}");
        assert!(verify(&server, &head).status.success());
        fs::remove_dir(in_the_way).unwrap();
    }
    assert!(erase(&server, &plan.to_string()).status.success());
    assert!(!holds(&server.data(), "plan"));
}

#[test]
fn the_text_leaves_every_file_and_the_log_holds_what_was_seen() {
    let (mut server, [plan, lunch, base], head) = told();
    let torn = server.data().join("torn");
    fs::create_dir_all(&torn).unwrap();
    fs::write(torn.join("00000000000000000001-1-1"), "a secret that was never acknowledged").unwrap();
    let done = erase(&server, &format!("{plan},{base}"));
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    assert!(out(&done).starts_with("erased: the text of 2 messages; head "), "{done:?}");
    assert!(!holds(&server.data(), "secret") && holds(&server.data(), "lunch"));
    let verified = verify(&server, &head);
    assert!(verified.status.success(), "{verified:?}");
    assert_eq!(server.data_file("messagelog.txt").lines().count(), 2);
    assert!(server.data_file("messagelog.txt").lines().next().unwrap().ends_with("; leia; "));
    let again = erase(&server, &plan.to_string());
    assert!(again.status.code() == Some(1) && err(&again).contains("was erased before"), "{again:?}");

    let shown = out(&run(&["replay", &server.data_argument(), "--type", "erased,erasure", "--format", "text"]));
    assert!(shown.contains("a message of han to leia was erased"), "{shown}");
    assert!(shown.contains("jedi: a message of han was erased"), "{shown}");
    assert!(shown.contains(&format!("admin had the text of {plan}, {base} erased: asked for")), "{shown}");

    // What is owed and what was said before show the line as it stands.
    server.restart();
    let mut leia = server.login_after("leia", 0);
    let owed = leia.frame_of("erased");
    assert_eq!((owed["seq"].as_u64(), owed["from"].as_str(), owed["text"].as_str()), (Some(plan), Some("han"), None));
    assert_eq!(leia.frame_of("message")["seq"], lunch);
    leia.frame_of("live");
    let seen = history(&mut leia, "han");
    let kinds: Vec<&str> = seen.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["erased", "message"]);
    let mut han = server.login("han");
    assert_eq!(history(&mut han, "#jedi").last().unwrap()["seq"], base);
    han.command("/msgto leia more");
    assert_eq!(leia.frame_of("message")["text"], "more");
    assert!(server.stop().success());
    assert!(verify(&server, &head).status.success());
    assert!(server.errors().is_empty(), "{}", server.errors());
}

#[test]
fn numbers_of_a_device_stay_used_when_their_messages_are_erased() {
    let mut server = Server::start();
    let login = format!(r#"{{"type":"login","username":"han","password":"{PASSWORD}","device":"d"}}"#);
    let send = r#"{"type":"command","id":1,"text":"/msgto leia the secret plan"}"#;
    let mut han = server.connect();
    han.send(&login);
    han.frame_of("live");
    han.send(send);
    let seq = han.frame_of("ok")["seq"].as_u64().unwrap();
    assert!(server.stop().success());
    assert!(erase(&server, &seq.to_string()).status.success());
    server.restart();
    let mut han = server.connect();
    han.send(&login);
    assert_eq!(han.frame_of("ok")["sent"], 1);
    han.frame_of("live");
    han.send(send);
    assert_eq!(han.frame_of("ok")["duplicate"], true);
}

#[test]
fn it_is_refused_beside_a_server_and_for_what_is_no_message() {
    let (mut server, [plan, ..], _) = told();
    let failed = erase(&server, "1");
    assert!(failed.status.code() == Some(1) && err(&failed).contains("event 1 is no message"), "{failed:?}");
    let failed = erase(&server, &format!("{plan},999"));
    assert!(failed.status.code() == Some(1) && err(&failed).contains("there is no event 999"), "{failed:?}");
    let failed = run(&["erase", "--seq", "1", "--by", "a", "--reason", "b", "no-such-directory"]);
    assert!(failed.status.code() == Some(1) && err(&failed).contains("no log to erase from"), "{failed:?}");
    assert!(!Path::new("no-such-directory").exists());
    let failed = run(&["erase", "--seq", "1", "--by", "a", "--reason", " ", &server.data_argument()]);
    assert_eq!(failed.status.code(), Some(2));
    server.restart();
    let failed = erase(&server, &plan.to_string());
    assert!(failed.status.code() == Some(1) && err(&failed).contains("stop it first"), "{failed:?}");
    assert!(holds(&server.data(), "secret"));
}

#[test]
fn what_was_ordered_before_a_crash_is_erased_when_the_server_starts() {
    let (mut server, [plan, ..], head) = told();
    let (log, texts) = (server.data().join(SEGMENT), server.data().join("messagelog.txt"));
    let (old_log, old_texts) = (fs::read(&log).unwrap(), fs::read(&texts).unwrap());
    assert!(erase(&server, &plan.to_string()).status.success());
    // As it is behind a crash between the order and the rewriting.
    fs::write(&log, old_log).unwrap();
    fs::write(&texts, old_texts).unwrap();
    let told = verify(&server, &head);
    assert!(told.status.success() && err(&told).contains("1 messages were ordered to be erased"), "{told:?}");
    server.restart();
    let mut leia = server.login_after("leia", 0);
    assert_eq!(leia.frame_of("erased")["seq"], plan);
    leia.frame_of("live");
    // The lines behind it have moved.
    assert_eq!(history(&mut leia, "han").last().unwrap()["text"], "lunch");
    assert!(server.stop().success());
    let said = server.errors();
    assert!(said.lines().count() == 1 && said.contains("the text of 1 messages was erased"), "{said}");
    assert_eq!(fs::read_dir(server.data().join("snapshots")).unwrap().count(), 1);
    assert!(!holds(&server.data(), "secret plan"));
    assert!(verify(&server, &head).status.success());
}

#[test]
fn an_erased_line_that_no_erasure_names_is_damage() {
    let (server, [plan, ..], head) = told();
    assert!(erase(&server, &plan.to_string()).status.success());
    // The order is taken out of the log, as if nobody had given it: a whole segment, and HEAD.
    let events = server.data().join("events");
    for path in fs::read_dir(&events).unwrap().map(|entry| entry.unwrap().path()) {
        if !path.ends_with("00000000000000000001.jsonl") {
            fs::remove_file(path).unwrap();
        }
    }
    let failed = verify(&server, &head);
    assert_eq!(failed.status.code(), Some(7));
    let place = format!("event {plan}: the line is erased, and no erasure names it");
    assert!(err(&failed).contains(&place), "{failed:?}");
}

/// A log of three segments in which a message is erased by an order that is of this name and stands in this segment.
fn erased_by(by: &str, order_first: bool) -> tempfile::TempDir {
    let at = messenger::clock::wall();
    let disk = MemoryDisk::default();
    let mut log = eventlog::open(disk.clone(), uuid::Uuid::new_v4(), at, |_| {}).unwrap().log;
    log.set_segment_bytes_max(400);
    let (message, order) = if order_first { (2, 1) } else { (1, 2) };
    let said = Event::Message {
        from: "han".parse().unwrap(),
        to: "leia".parse().unwrap(),
        text: "the secret plan".parse().unwrap(),
        origin: None,
    };
    let ordered = Event::Erasure { by: by.into(), reason: "asked for".into(), erased: vec![message] };
    let line = |event: &Event, seq: u64| {
        let mut line = Vec::new();
        event.encode(seq, at, &mut line);
        line
    };
    for seq in 1..=3 {
        let event = match seq {
            seq if seq == message => said.clone(),
            seq if seq == order => ordered.clone(),
            _ => Event::ServerStarted { version: "1".into() },
        };
        let lines = [&line(&event, seq)[..], b"\n"].concat();
        log.append(Batch { lines, first: seq, last: seq, at }).unwrap();
    }
    log.close().unwrap();
    let (from, to) = ("han".parse().unwrap(), messenger::chat::Addressee::User("leia".parse().unwrap()));
    let leaf = Hash::of_leaf(&line(&said, message)).to_string();
    let left = line(&Event::Erased { from, to, origin: None, leaf }, message);
    let directory = tempfile::tempdir().unwrap();
    for name in disk.list().unwrap() {
        let mut content = disk.content(&name).unwrap();
        if name == segment_name(message) {
            let old = line(&said, message);
            let place = memchr::memmem::find(&content, &old).unwrap();
            content.splice(place..place + old.len(), left.iter().copied());
        }
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

#[test]
fn an_order_has_a_name_and_stands_behind_what_it_names() {
    let verify = |directory: &tempfile::TempDir| run(&["replay", directory.path().to_str().unwrap(), "--verify"]);
    let good = verify(&erased_by("admin", false));
    assert!(good.status.success() && good.stderr.is_empty(), "{good:?}");
    for (directory, seq) in [(erased_by(" ", false), 1), (erased_by("admin", true), 2)] {
        let bad = verify(&directory);
        assert_eq!(bad.status.code(), Some(7), "{bad:?}");
        let place = format!("{}, line 2, event {seq}: the line is erased, and no erasure names it", segment_name(seq));
        assert!(err(&bad).contains(&place), "{bad:?}");
    }
}

#[test]
fn of_one_segment_alone_it_is_said_that_its_orders_may_stand_elsewhere() {
    let directory = erased_by("admin", false);
    let done = run(&["replay", directory.path().join(segment_name(1)).to_str().unwrap(), "--verify"]);
    assert!(
        done.status.success() && err(&done).contains("of 1 erased lines the order is not in this segment"),
        "{done:?}"
    );
}

#[test]
fn a_line_that_is_erased_in_the_segment_still_written_is_damage() {
    let at = messenger::clock::wall();
    let disk = MemoryDisk::default();
    let mut log = eventlog::open(disk.clone(), uuid::Uuid::new_v4(), at, |_| {}).unwrap().log;
    let said = format!(r#"{{"seq":1,"ts":"{at}","type":"message","from":"han","to":"leia","text":"plan"}}"#);
    let ordered = format!(r#"{{"seq":2,"ts":"{at}","type":"erasure","by":"admin","reason":"asked","erased":[1]}}"#);
    log.append(Batch { lines: format!("{said}\n{ordered}\n").into(), first: 1, last: 2, at }).unwrap();
    log.close().unwrap();
    let leaf = Hash::of_leaf(said.as_bytes());
    let left = format!(r#"{{"seq":1,"ts":"{at}","type":"erased","from":"han","to":"leia","leaf":"{leaf}"}}"#);
    let content = String::from_utf8(disk.content(&segment_name(1)).unwrap()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(segment_name(1)), content.replace(&said, &left)).unwrap();
    fs::write(directory.path().join("HEAD"), disk.content("HEAD").unwrap()).unwrap();
    let done = run(&["replay", directory.path().to_str().unwrap(), "--verify"]);
    assert_eq!(done.status.code(), Some(7), "{done:?}");
    assert!(err(&done).contains("line 2, event 1: the line is erased, in a segment that is still being"), "{done:?}");
}
