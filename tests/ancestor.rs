//! The defects of the program that this one descends from, each as a test that it is gone. Those of its transfers are in
//! `tests/transfer.rs`, those of its client in `tests/client.rs`, those of its numbering in `tests/derive.rs`.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;
#[path = "support/world.rs"]
mod world;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::net::sockopt::set_socket_linger;
use serde_json::{Value, json};
use server::{PASSWORD, Server, run};
use world::World;

/// Ends a connection as a killed process with unread input does: by a reset.
fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
}

fn login_raw(server: &Server, user: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    writeln!(stream, "/login {user} {PASSWORD}").unwrap();
    let mut welcome = [0; 22];
    stream.read_exact(&mut welcome).unwrap();
    assert_eq!(&welcome, b"Welcome to Messenger!\n");
    stream
}

// Without frames, commands typed ahead ran together or killed the session, and long texts were cut.

#[test]
fn commands_typed_ahead_are_each_carried_out() {
    let server = Server::start();
    let mut han = server.login_plain("han");
    han.send_bytes(b"/msgto leia one\n/msgto leia two\n/msgto leia three\n");
    for _ in 0..3 {
        assert!(han.line().starts_with("message sent at "));
    }
    let mut leia = server.login_plain("leia");
    for text in ["one", "two", "three"] {
        assert!(leia.line().ends_with(&format!(", han: {text}")));
    }
}

#[test]
fn a_text_of_the_longest_arrives_whole() {
    let server = Server::start();
    let (mut han, mut leia) = (server.login("han"), server.login("leia"));
    let text: String = ('a'..='z').cycle().take(16_384).collect();
    han.command(&format!("/msgto leia {text}"));
    assert_eq!(leia.frame()["text"], text);
}

#[test]
fn an_answer_comes_in_one_piece() {
    let server = Server::start();
    let mut han = login_raw(&server, "han");
    han.write_all(b"/help\n").unwrap();
    let mut buffer = [0; 8_192];
    let count = han.read(&mut buffer).unwrap();
    let text = std::str::from_utf8(&buffer[..count]).unwrap();
    assert!(text.starts_with("/login") && text.ends_with("End the session.\n"), "{text}");
}

// Texts were searched for words of control, and split at commas.

#[test]
fn a_text_is_never_a_command_to_anyone() {
    let server = Server::start();
    let (mut han, mut leia) = (server.login_plain("han"), server.login_plain("leia"));
    for text in ["Goodbye", "Goodbye, /logout", "a, b, [c, d]", "{\"type\":\"error\"}", "/logout"] {
        han.send(&format!("/msgto leia {text}"));
        assert!(han.line().starts_with("message sent at "));
        assert!(leia.line().ends_with(&format!(", han: {text}")));
    }
    leia.send("/activeuser");
    assert!(leia.line().starts_with("han, 127.0.0.1, "));
}

// The socket of whoever connected last was taken for everybody's.

#[test]
fn what_is_for_one_user_shows_on_no_other_terminal() {
    let server = Server::start();
    let (mut first, mut second) = (server.connect(), server.connect());
    first.send(&format!("/login han {PASSWORD}"));
    assert_eq!(first.line(), "Welcome to Messenger!");
    second.send(&format!("/login leia {PASSWORD}"));
    assert_eq!(second.line(), "Welcome to Messenger!");
    let mut yoda = server.login_plain("yoda");
    yoda.send("/msgto han for han");
    yoda.send("/msgto leia for leia");
    assert!(first.line().ends_with(", yoda: for han"));
    assert!(second.line().ends_with(", yoda: for leia"));
    second.send("/logout");
    assert_eq!(second.line(), "Bye, leia!");
    first.send("/msgto yoda still here");
    assert!(first.line().starts_with("message sent at "), "one user's logout ends no other's session");
}

// A client that was killed stayed as a ghost: who wrote to it lost the own session, and its name was taken for ever.

#[test]
fn a_killed_client_leaves_no_ghost() {
    let server = Server::start();
    let mut leia = server.login_plain("leia");
    reset(login_raw(&server, "han"));
    leia.send("/msgto han where are you");
    assert!(leia.line().starts_with("message sent at "));
    leia.send("/msgto han really");
    assert!(leia.line().starts_with("message sent at "), "the sender's session lives");
    let mut han = server.login_plain("han");
    assert!(han.line().ends_with(", leia: where are you"), "the name can log in again, and nothing was lost");
    assert!(han.line().ends_with(", leia: really"));
}

// Blocking: one or two allowed failures looped for ever, a failure after a block blocked at once, success reset nothing.

fn failed(world: &mut World) -> Value {
    let key = world.connect();
    let login = json!({"type": "login", "username": "han", "password": "wrong"});
    world.send(key, format!("{login}\n"));
    let answer = world.frames(key).remove(0);
    world.disconnect(key);
    answer
}

#[test]
fn one_or_two_allowed_failures_block_at_the_first_or_second() {
    for failures_max in 1..=2 {
        let mut world = World::new();
        world.hub.handle_policy(messenger::chat::Policy { failures_max, ..world::policy() }, world.now());
        for _ in 1..failures_max {
            assert_eq!(failed(&mut world)["code"], "bad_credentials");
        }
        assert_eq!(failed(&mut world)["code"], "blocked");
    }
}

#[test]
fn after_a_block_has_passed_the_count_begins_anew() {
    let mut world = World::new();
    let codes: Vec<Value> = (0..4).map(|_| failed(&mut world)["code"].clone()).collect();
    assert_eq!(codes, ["bad_credentials", "bad_credentials", "blocked", "blocked"]);
    world.wait(10_000);
    assert_eq!(failed(&mut world)["attempts_left"], 2);
}

#[test]
fn a_good_login_sets_the_count_back() {
    let mut world = World::new();
    failed(&mut world);
    failed(&mut world);
    world.logged_in("han");
    assert_eq!(failed(&mut world)["attempts_left"], 2);
}

// It needed files made by hand, gave tracebacks for bad numbers, and failed to restart.

#[test]
fn it_starts_without_any_file_of_its_own() {
    let mut server = Server::start();
    assert!(server.stop().success());
    std::fs::remove_dir_all(server.data()).unwrap();
    server.restart();
    server.login_plain("han");
}

#[test]
fn a_number_that_is_none_is_refused_in_a_sentence() {
    let output = run(&["serve", "0", "2.5"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("between 1 and 5"));
}

#[test]
fn empty_lines_are_passed_over() {
    let server = Server::start();
    let mut han = server.login_plain("han");
    han.send_bytes(b"\n\r\n\n/msgto han after nothing\n");
    assert!(han.line().starts_with("message sent at "));
}

// A line feed in a message made two lines of the log, and the log of private messages did not name who sent them.

#[test]
fn a_line_feed_in_a_message_forges_nothing() {
    let mut server = Server::start();
    let forged = "hi\n2; 01 Jun 2022 21:39:04; yoda; forged";
    let event = "\n{\"seq\":99,\"ts\":\"2022-06-01T00:00:00.000Z\",\"type\":\"message\"}";
    server.login("han").command(&format!("/msgto leia {forged}{event}"));
    assert!(server.stop().success());
    let log = server.data_file("events/00000000000000000001.jsonl");
    let messages: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["type"] == "message")
        .collect();
    let [message] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(message["text"], format!("{forged}{event}"));
    assert_eq!((&message["from"], &message["to"]), (&json!("han"), &json!("leia")));
}

// Passwords stood in its logs.

#[test]
fn no_password_reaches_the_disk_or_the_console() {
    let mut server = Server::start_with(&["--console-texts"]);
    server.login_plain("han");
    let mut wrong = server.connect();
    wrong.send("/login leia swordfish");
    assert!(wrong.line().starts_with("Invalid Password"));
    assert!(server.stop().success());
    let mut told = server.data_file("events/00000000000000000001.jsonl") + &server.errors();
    told.extend(std::iter::from_fn(|| server.console_rest()));
    assert!(!told.contains("swordfish") && !told.contains(PASSWORD), "{told}");
}
