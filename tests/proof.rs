//! Witnesses of a real server's log: heads that were seen, one event proven to somebody without the log, the head signed.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};
use server::{Client, PASSWORD, Server, messenger, run};

/// What a client sees as the newest head, as `SEQ:ROOT`.
fn ping(client: &mut Client) -> String {
    client.send(r#"{"type":"ping"}"#);
    let answer = client.frame_of("ok");
    format!("{}:{}", answer["seq"], answer["root"].as_str().unwrap())
}

/// A stopped server with some messages in its log, and the heads that a witness saw, rising.
fn witnessed() -> (Server, Vec<String>) {
    let mut server = Server::start();
    let mut han = server.login("han");
    let heads = ["one", "two \"\u{e9}\"", "three\nlines"].map(|text| {
        han.command(&format!("/msgto leia {text}"));
        ping(&mut han)
    });
    assert!(server.stop().success());
    (server, heads.to_vec())
}

fn replay(server: &Server, arguments: &[&str]) -> Output {
    run(&[&["replay", &server.data_argument()], arguments].concat())
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn seq(head: &str) -> u64 {
    head.split_once(':').unwrap().0.parse().unwrap()
}

/// Runs the server's log of another machine into the place of this one: the same events by number, another text.
fn rewrite(server: &mut Server, texts: &[&str]) {
    fs::remove_dir_all(server.data()).unwrap();
    server.restart();
    let mut han = server.login("han");
    texts.iter().for_each(|text| drop(han.command(&format!("/msgto leia {text}"))));
    drop(han);
    assert!(server.stop().success());
}

#[test]
fn a_log_holds_the_heads_that_were_seen_of_it() {
    let (server, heads) = witnessed();
    let [one, two, three] = &heads[..] else { panic!("three") };
    let done = replay(&server, &["--verify", "--expect", two, "--expect", one, "--expect", three]);
    assert!(done.status.success() && out(&done).starts_with("intact: "), "{done:?}");
    assert!(err(&done).contains("holds all 3 heads"), "{done:?}");
    let wrong = format!("{}:{}", seq(one), two.split_once(':').unwrap().1);
    let failed = replay(&server, &["--verify", "--expect", &wrong]);
    assert_eq!((failed.status.code(), out(&failed)), (Some(7), String::new()));
    assert!(err(&failed).contains(&format!("does not hold head {wrong}")), "{failed:?}");
    for arguments in [&["--expect", one][..], &["--verify", "--expect", "41"], &["--heads", "file"]] {
        assert_eq!(replay(&server, arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_rewritten_log_is_intact_by_itself_and_told_by_its_witnesses() {
    let (mut server, heads) = witnessed();
    let file = server.directory().join("heads");
    rewrite(&mut server, &["one", "2", "three"]);
    assert!(replay(&server, &["--verify"]).status.success());
    fs::write(&file, format!("{}\n{}\n", heads[0], heads[1])).unwrap();
    let failed = replay(&server, &["--verify", "--heads", file.to_str().unwrap()]);
    assert_eq!(failed.status.code(), Some(7));
    // Times differ, so that not even the first head is held.
    assert!(err(&failed).contains(&format!("does not hold head {}", heads[0])), "{failed:?}");
    assert!(err(&failed).contains(&format!("among the events 1 to {}", seq(&heads[0]))), "{failed:?}");
}

#[test]
fn a_log_cut_back_to_an_older_copy_is_told_with_what_is_gone() {
    let mut server = Server::start();
    let mut han = server.login("han");
    han.command("/msgto leia one");
    let one = ping(&mut han);
    drop(han);
    assert!(server.stop().success());
    let copy = server.directory().join("copy");
    copy_directory(&server.data(), &copy);
    server.restart();
    let mut han = server.login("han");
    han.command("/msgto leia two");
    let two = ping(&mut han);
    assert!(server.stop().success());

    assert!(replay(&server, &["--verify", "--expect", &one, "--expect", &two]).status.success());
    let copied = run(&["replay", copy.to_str().unwrap(), "--verify", "--expect", &two, "--expect", &one]);
    assert_eq!(copied.status.code(), Some(7));
    let told = err(&copied);
    assert!(told.contains(&format!("the log was cut: head {two} was seen")), "{told}");
    assert!(told.contains(&format!("up to event {} it is what was seen (head {one} holds)", seq(&one))), "{told}");
    assert!(told.contains(&format!("to {} are gone", seq(&two))), "{told}");
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_directory(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn heads_of_other_logs_are_passed_over_and_alone_prove_that_this_is_another() {
    let (server, heads) = witnessed();
    let file = server.directory().join("heads");
    let log = {
        let text = fs::read_to_string(server.data().join("events/00000000000000000001.jsonl")).unwrap();
        let header: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        header["log"].as_str().unwrap().to_owned()
    };
    let other = "00000000-0000-0000-0000-000000000007";
    let verify = |lines: String| {
        fs::write(&file, lines).unwrap();
        replay(&server, &["--verify", "--heads", file.to_str().unwrap()])
    };
    let done = verify(format!("{other} {}\n{log} {}\n", heads[0], heads[1]));
    assert!(done.status.success() && err(&done).contains("1 heads are of other logs"), "{done:?}");
    assert_eq!(verify(format!("{other} {}\n", heads[0])).status.code(), Some(7));
    let broken = verify(format!("{}\nnonsense\n", heads[0]));
    assert!(broken.status.code() == Some(1) && err(&broken).contains("line 2"), "{broken:?}");
    assert_eq!(verify(String::new()).status.code(), Some(1));
}

#[test]
fn one_event_is_proven_to_somebody_without_the_log() {
    let (server, heads) = witnessed();
    let [one, two, _] = &heads[..] else { panic!("three") };
    let file = server.directory().join("proof.json");
    let verified = out(&replay(&server, &["--verify"]));
    let newest: Vec<&str> = verified.trim().rsplitn(3, ' ').collect();
    let newest = format!("{}:{}", newest[1], newest[0]);

    // Each message was committed alone: the head seen behind it has its number.
    let event = seq(two).to_string();
    let done = replay(&server, &["--prove", &event, "--expect", two]);
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    fs::write(&file, &done.stdout).unwrap();
    let check = |head: &str| run(&["replay", "--check-proof", file.to_str().unwrap(), "--expect", head]);
    for head in [two, &newest] {
        let proven = check(head);
        assert!(proven.status.success(), "{proven:?}");
        assert!(out(&proven).starts_with(&format!("proven: event {event} is in the log with head ")), "{proven:?}");
        let line = out(&replay(&server, &["--from", &event, "--to", &event]));
        assert!(out(&proven).ends_with(&format!("\n{line}")), "{proven:?}");
    }
    assert_eq!(check(one).status.code(), Some(7));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("two", "own", 1)).unwrap();
    let changed = check(two);
    assert_eq!(changed.status.code(), Some(7));
    assert!(err(&changed).contains("not proven"), "{changed:?}");
    fs::write(&file, "{}").unwrap();
    assert_eq!(check(two).status.code(), Some(7));
}

#[test]
fn what_cannot_be_proven_is_said() {
    let (server, heads) = witnessed();
    let [one, two, _] = &heads[..] else { panic!("three") };
    let failed = replay(&server, &["--prove", "999"]);
    assert!(failed.status.code() == Some(1) && err(&failed).contains("no event 999"), "{failed:?}");
    let forged = format!("{}:{}", seq(one), two.split_once(':').unwrap().1);
    assert_eq!(replay(&server, &["--prove", "1", "--expect", &forged]).status.code(), Some(7));
    // Who knows an old head only cannot be shown a later event by it: the log may have gone on in any way.
    let later = seq(two).to_string();
    let told = replay(&server, &["--prove", &later, "--expect", one]);
    assert!(told.status.success() && err(&told).contains("came after head"), "{told:?}");
    let file = server.directory().join("proof.json");
    fs::write(&file, &told.stdout).unwrap();
    let failed = run(&["replay", "--check-proof", file.to_str().unwrap(), "--expect", one]);
    assert!(failed.status.code() == Some(7) && err(&failed).contains("came after the head"), "{failed:?}");
    assert_eq!(run(&["replay", "--check-proof", file.to_str().unwrap()]).status.code(), Some(2));
}

#[test]
fn the_checkpoint_is_a_signed_note_by_a_key_that_stays() {
    let (mut server, heads) = witnessed();
    let key_file = server.data().join("keys/checkpoint");
    assert_eq!(fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
    let done = replay(&server, &["--checkpoint"]);
    assert!(done.status.success(), "{done:?}");
    let verifier = err(&done).trim().rsplit_once(' ').unwrap().1.to_owned();
    // The base64 may hold a plus itself.
    let key = STANDARD.decode(verifier.splitn(3, '+').nth(2).unwrap()).unwrap();
    let note = out(&done);
    let (text, signatures) = note.split_once("\n\n").unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("messenger/") && lines[0].len() == 46, "{note}");
    assert!(lines[1].parse::<u64>().unwrap() > seq(&heads[2]));
    let signature = signatures.trim_end().strip_prefix(&format!("\u{2014} {} ", lines[0])).unwrap();
    let signature = STANDARD.decode(signature).unwrap();
    let public = UnparsedPublicKey::new(&ED25519, &key[1..]);
    assert!(public.verify(format!("{text}\n").as_bytes(), &signature[4..]).is_ok());
    assert!(public.verify(text.as_bytes(), &signature[4..]).is_err());

    server.restart();
    assert!(server.stop().success());
    assert!(err(&replay(&server, &["--checkpoint"])).contains(&verifier), "the key stays");
    fs::remove_file(&key_file).unwrap();
    let none = replay(&server, &["--checkpoint"]);
    assert!(none.status.code() == Some(1) && err(&none).contains("there is no key"), "{none:?}");
}

/// Runs the client of yoda, who says these lines and leaves.
fn chat(server: &Server, options: &[&str], lines: &str) -> Output {
    let mut client = messenger()
        .args(["connect", "127.0.0.1", &server.address.port().to_string(), "--user", "yoda"])
        .args(options)
        .env("MESSENGER_PASSWORD", PASSWORD)
        .env("XDG_STATE_HOME", server.directory())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    client.wait_with_output().unwrap()
}

/// The one file of heads that a client has left under a directory.
fn heads_file(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| match path.is_dir() {
        true => heads_file(&path),
        false => path.ends_with("heads").then_some(path),
    })
}

#[test]
fn a_client_keeps_the_heads_it_saw_and_the_log_holds_them() {
    let mut server = Server::start();
    assert!(chat(&server, &[], "/msgto han one\n").status.success());
    let scripted = chat(&server, &["--ui", "json"], "/msgto han two\n");
    // What the client asks for itself is no frame of a script.
    assert!(scripted.status.success() && !out(&scripted).contains(r#""command":"ping""#), "{scripted:?}");
    assert!(server.stop().success());
    let file = heads_file(&server.directory().join("messenger")).unwrap();
    let heads = fs::read_to_string(&file).unwrap();
    let texts = server.data_file("events/00000000000000000001.jsonl");
    let header: serde_json::Value = serde_json::from_str(texts.lines().next().unwrap()).unwrap();
    // One behind each login, one behind each message.
    assert_eq!(heads.lines().count(), 4, "{heads}");
    assert!(heads.lines().all(|line| line.starts_with(header["log"].as_str().unwrap())), "{heads}");
    let done = replay(&server, &["--verify", "--heads", file.to_str().unwrap()]);
    assert!(done.status.success() && err(&done).contains("holds all 4 heads"), "{done:?}");
}

#[test]
fn a_client_says_loudly_that_a_log_was_cut_or_rewritten() {
    let mut server = Server::start();
    chat(&server, &[], "/msgto han one\n");
    assert!(server.stop().success());
    let copy = server.directory().join("copy");
    copy_directory(&server.data(), &copy);
    server.restart();
    let lines: String = (0..20).map(|number| format!("/msgto han {number}\n")).collect();
    let done = chat(&server, &[], &lines);
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    assert!(server.stop().success());

    fs::remove_dir_all(server.data()).unwrap();
    copy_directory(&copy, &server.data());
    server.restart();
    // Somebody else is first this time: the client meets another number of events than the one that it saw.
    let _han = server.login("han");
    let told = err(&chat(&server, &[], ""));
    assert_eq!(told.matches("The server's log was CUT: it ends with event ").count(), 1, "{told}");
    assert!(told.contains("--heads"), "{told}");
    assert!(server.stop().success());

    // The file is evidence still, and a root that is not the one that was seen is told, too.
    let file = heads_file(&server.directory().join("messenger")).unwrap();
    let heads = fs::read_to_string(&file).unwrap();
    assert_eq!(replay(&server, &["--verify", "--heads", file.to_str().unwrap()]).status.code(), Some(7));
    server.restart();
    let mut han = server.login("han");
    let newest = ping(&mut han);
    let log = heads.split(' ').next().unwrap();
    // The client's own login is the next event.
    let next = seq(&newest) + 1;
    fs::write(&file, format!("{log} {next}:{}\n", "ab".repeat(32))).unwrap();
    let told = err(&chat(&server, &[], ""));
    assert!(told.contains(&format!("The server's log was CHANGED: over its events up to {next}")), "{told}");
}
