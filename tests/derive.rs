//! The derived files that a running server keeps: what is in them, and that they come back.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use messenger::clock::Timestamp;
use messenger::derive;
use server::{Server, run};

/// Looks until something holds; a test that waits for as long has failed.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The fields of a derived file but for the times, which must be moments.
fn lines(server: &Server, name: &str) -> Vec<Vec<String>> {
    let file = std::fs::File::open(server.data().join(name)).unwrap();
    let without_time = |line: Result<Vec<String>, derive::FieldError>| {
        let mut fields = line.unwrap();
        Timestamp::parse_typed(&fields.remove(1), false).unwrap();
        fields
    };
    derive::read(file).map(without_time).collect()
}

/// Compares all derived files with those that `replay --derive` writes.
fn assert_derived_alike(server: &Server) {
    let other = tempfile::tempdir().unwrap();
    let directory = other.path().join("made");
    let done = run(&["replay", &server.data_argument(), "--derive", directory.to_str().unwrap()]);
    assert!(done.status.success() && done.stdout.is_empty() && done.stderr.is_empty(), "{done:?}");
    let texts = |directory: &std::path::Path| {
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        // Login tokens are not derived.
        let files = files.filter(|path| path.is_file() && !path.ends_with("tokens"));
        let mut texts: Vec<_> =
            files.map(|path| (path.file_name().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())).collect();
        texts.sort();
        texts
    };
    assert_eq!(texts(&server.data()), texts(&directory));
}

#[test]
fn files_follow_what_happens() {
    let mut server = Server::start();
    let mut yoda = server.login("yoda");
    let mut han = server.login("han");
    yoda.command("/msgto han a; \"b\" \\n");
    yoda.send(r#"{"type":"command","text":"/msgto han one\ntwo; 2; 01 Jan 2020 00:00:00; luke; forged"}"#);
    yoda.frame_of("ok");
    yoda.command("/creategroup jedi han");
    yoda.command("/creategroup empty han");
    han.command("/joingroup jedi");
    han.command("/groupmsg jedi hi");
    let count = |name: &str| server.data().join(name).exists().then(|| lines(&server, name).len());
    let counts = || ["messagelog.txt", "jedi_messagelog.txt", "empty_messagelog.txt"].map(count);
    eventually("all is in the files", || counts() == [Some(2), Some(1), Some(0)]);
    let forged = "one\ntwo; 2; 01 Jan 2020 00:00:00; luke; forged";
    assert_eq!(lines(&server, "messagelog.txt"), [["1", "han", "a; \"b\" \\n"], ["2", "han", forged]]);
    assert_eq!(server.data_file("messagelog.txt").lines().count(), 2);
    assert_eq!(lines(&server, "jedi_messagelog.txt"), [["1", "han", "hi"]]);
    assert_eq!(server.data_file("empty_messagelog.txt"), "");
    eventually("both are there", || lines(&server, "userlog.txt").len() == 2);
    assert_eq!(lines(&server, "userlog.txt"), [["1", "yoda", "127.0.0.1", "0"], ["2", "han", "127.0.0.1", "0"]]);
    yoda.logout();
    eventually("yoda's line is gone", || lines(&server, "userlog.txt") == [["1", "han", "127.0.0.1", "0"]]);
    assert_derived_alike(&server);
    for name in ["userlog.txt", "messagelog.txt", "jedi_messagelog.txt"] {
        let mode = std::fs::metadata(server.data().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(server.stop().success());
    assert_eq!(server.data_file("userlog.txt"), "");
    assert_derived_alike(&server);
    assert_eq!(server.errors(), "");
}

#[test]
fn a_stopped_server_has_written_every_message() {
    const MESSAGES: usize = 3_000;
    let mut server = Server::start_with(&["--rate", "0"]);
    let mut yoda = server.login("yoda");
    let mut typed = String::new();
    for number in 0..MESSAGES {
        typed.push_str(&format!("{{\"type\":\"command\",\"text\":\"/msgto han {number}\"}}\n"));
    }
    yoda.send_bytes(typed.as_bytes());
    (0..MESSAGES).for_each(|_| drop(yoda.frame_of("ok")));
    assert!(server.stop().success());
    let texts: Vec<String> = lines(&server, "messagelog.txt").into_iter().map(|mut fields| fields.remove(2)).collect();
    assert_eq!(texts, (0..MESSAGES).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_derived_alike(&server);
}

#[test]
fn the_files_are_there_from_the_start() {
    let server = Server::start();
    eventually("they are there", || server.data().join("userlog.txt").exists());
    assert_eq!(server.data_file("userlog.txt"), "");
    assert_eq!(server.data_file("messagelog.txt"), "");
}

#[test]
fn a_start_after_a_kill_makes_deleted_and_damaged_files_anew() {
    let mut server = Server::start();
    let mut yoda = server.login("yoda");
    yoda.command("/msgto han one");
    yoda.command("/creategroup jedi han");
    yoda.command("/groupmsg jedi two");
    server.kill();
    std::fs::write(server.data().join("messagelog.txt"), "1; half a li").unwrap();
    std::fs::write(server.data().join("messagelog.txt.tmp"), "left over from a crash").unwrap();
    let _ = std::fs::remove_file(server.data().join("jedi_messagelog.txt"));
    std::fs::write(server.data().join("userlog.txt"), "1; ghost\n").unwrap();
    server.restart();
    server.login("yoda").command("/msgto han three");
    assert!(server.stop().success());
    assert_eq!(lines(&server, "messagelog.txt"), [["1", "han", "one"], ["2", "han", "three"]]);
    assert_eq!(lines(&server, "jedi_messagelog.txt"), [["1", "yoda", "two"]]);
    assert_eq!(server.data_file("userlog.txt"), "");
    assert_derived_alike(&server);
}

#[test]
fn a_file_that_is_taken_away_from_a_running_server_comes_back() {
    let mut server = Server::start();
    let mut yoda = server.login("yoda");
    yoda.command("/msgto han one");
    let path = server.data().join("messagelog.txt");
    eventually("the message is there", || std::fs::read(&path).is_ok_and(|bytes| !bytes.is_empty()));
    std::fs::remove_file(&path).unwrap();
    yoda.command("/msgto han two");
    eventually("the file is back", || path.exists() && lines(&server, "messagelog.txt").len() == 2);
    std::fs::write(&path, "something else").unwrap();
    yoda.command("/msgto han three");
    eventually("the file is right", || lines_or_none(&server) == Some(3));
    assert!(
        server.errors().contains("was changed by somebody else; the derived files are made anew"),
        "{}",
        server.errors()
    );
    assert!(server.stop().success());
    assert_derived_alike(&server);
}

/// How many lines there are, if the file is ours at all.
fn lines_or_none(server: &Server) -> Option<usize> {
    let file = std::fs::File::open(server.data().join("messagelog.txt")).ok()?;
    derive::read(file).collect::<Result<Vec<_>, _>>().ok().map(|lines| lines.len())
}

#[test]
fn a_file_that_cannot_be_written_is_told_of_and_never_stops_the_chat() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("data/messagelog.txt");
    std::fs::create_dir_all(blocked.join("in the way")).unwrap();
    let mut server = Server::start_in(directory, &[]);
    let mut yoda = server.login("yoda");
    yoda.command("/msgto han one");
    eventually("it is told", || server.errors().contains("messagelog.txt cannot be written"));
    yoda.command("/msgto han two");
    std::fs::remove_dir_all(&blocked).unwrap();
    eventually("it is written", || blocked.exists() && lines(&server, "messagelog.txt").len() == 2);
    eventually("that is told too", || server.errors().contains("the derived files are written again"));
    assert!(server.stop().success());
    assert_derived_alike(&server);
}

#[test]
fn replay_does_not_write_where_a_server_does() {
    let server = Server::start();
    let data = server.data_argument();
    let done = run(&["replay", &data, "--derive", &data]);
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("kept by a server there"), "{done:?}");
}
