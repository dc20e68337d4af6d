//! The real server as its users and its operator see it: processes, sockets, signals and files.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;

use std::io::Read as _;
use std::net::{Shutdown, TcpStream};

use rustix::process::Signal;
use serde_json::{Value, json};
use server::{PASSWORD, Server, messenger, run};

fn login_frame(user: &str, fields: &Value) -> String {
    let mut frame = json!({"type": "login", "username": user, "password": PASSWORD});
    frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    frame.to_string()
}

fn text_of(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

#[test]
fn the_first_lines_are_those_of_the_contract_and_the_console_follows() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("credentials.txt"), "yoda jedi").unwrap();
    let mut child = messenger()
        .current_dir(directory.path())
        .args(["serve", "0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut text = String::new();
    let mut buffer = [0; 256];
    while text.lines().count() < 3 || !text.ends_with('\n') {
        let count = out.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "the server ended: {text}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["=== Server is running ===", "=== Waiting for connection request from clients...==="]);
    assert!(lines[2].starts_with("listening on 127.0.0.1:"), "{}", lines[2]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(directory.path().join("data/events/HEAD").is_file(), "the data directory is made where there is none");
}

#[test]
fn two_people_talk_with_nothing_but_a_line_of_text_each() {
    let server = Server::start();
    let mut yoda = server.login_plain("yoda");
    let mut han = server.login_plain("han");
    yoda.send("/msgto han do or do not");
    assert!(yoda.line().starts_with("message sent at "));
    assert!(han.line().ends_with(", yoda: do or do not"));
    han.send("/logout");
    assert_eq!(han.line(), "Bye, han!");
    assert_eq!(han.line(), "", "the connection is closed");
}

#[test]
fn a_line_in_pieces_is_one_line_and_lines_in_one_piece_are_many() {
    let server = Server::start();
    let mut yoda = server.login("yoda");
    for byte in format!("{}\r\n", json!({"type": "command", "id": 7, "text": "/msgto yoda slow"})).bytes() {
        yoda.send_bytes(&[byte]);
    }
    assert_eq!(yoda.frame()["id"], 7);
    let many: String = (0..100).map(|id| format!("{}\n", json!({"type": "ping", "id": id}))).collect();
    yoda.send_bytes(many.as_bytes());
    for id in 0..100 {
        assert_eq!(yoda.frame()["id"], id);
    }
}

#[test]
fn after_kill_9_in_mid_conversation_everything_answered_is_there_once() {
    let mut server = Server::start();
    let mut han = server.connect();
    han.send(&login_frame("han", &json!({"device": "laptop"})));
    han.frame_of("live");
    let mut answered = 0;
    for id in 1..=500 {
        han.send(&json!({"type": "command", "id": id, "text": format!("/msgto leia message {id}")}).to_string());
    }
    while answered < 100 {
        answered = han.frame()["id"].as_u64().unwrap();
    }
    server.kill();
    // What the server still wrote before it died was answered too.
    while let Some(line) = han.last_line() {
        let Ok(frame) = serde_json::from_str::<Value>(&line) else { break };
        answered = frame["id"].as_u64().unwrap();
    }
    server.restart();
    let mut han = server.connect();
    han.send(&login_frame("han", &json!({"device": "laptop"})));
    let sent = han.frame_of("ok")["sent"].as_u64().unwrap();
    assert!(sent >= answered, "{answered} were answered, {sent} are there");
    han.frame_of("live");
    // Sent again from before the break: what is there is known, what is not is carried out.
    for id in answered + 1..=500 {
        han.send(&json!({"type": "command", "id": id, "text": format!("/msgto leia message {id}")}).to_string());
        let answer = han.frame_of("ok");
        assert_eq!(answer["duplicate"] == true, id <= sent, "{answer}");
    }
    let mut leia = server.connect();
    leia.send(&login_frame("leia", &json!({"after": 0})));
    for id in 1..=500 {
        assert_eq!(leia.frame_of("message")["text"], format!("message {id}"));
    }
    assert_eq!(leia.frame()["type"], "live");
}

#[test]
fn a_restart_takes_its_port_back_at_once_and_brings_the_state_back() {
    let mut server = Server::start();
    let mut han = server.login_plain("han");
    han.send("/creategroup rebels leia");
    assert!(han.line().starts_with("Group chat room has been created"));
    assert!(server.stop().success());
    assert_eq!(han.line(), "The server is shutting down.");
    server.restart();
    let mut leia = server.login_plain("leia");
    assert!(leia.line().contains("rebels"), "the invitation waited for her");
    leia.send("/joingroup rebels");
    assert_eq!(leia.line(), "Joined the group chat: rebels successfully.");
}

#[test]
fn sigterm_ends_sessions_with_a_word_and_the_log_with_server_stopped() {
    let mut server = Server::start();
    let mut han = server.login("han");
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(han.frame()["code"], "shutting_down");
    assert_eq!(han.line(), "");
    let log = server.data_file("events/00000000000000000001.jsonl");
    let types: Vec<String> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types[types.len() - 3..], ["logout", "server_stopped", "commit"]);
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_names_the_directory() {
    let server = Server::start();
    let credentials = server.directory().join("credentials.txt");
    // Started a second time by mistake, it would have the same port, too: another would not help.
    for port in ["0", &server.address.port().to_string()] {
        let output =
            run(&["serve", port, "--data", &server.data_argument(), "--credentials", credentials.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        let said = text_of(&output.stderr);
        assert!(said.contains(&server.data_argument()) && said.contains("another server"), "{said}");
        assert_eq!(text_of(&output.stdout), "", "no word that it runs");
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do_and_nothing_is_made() {
    let server = Server::start();
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("credentials.txt"), "yoda jedi\n").unwrap();
    let port = server.address.port().to_string();
    let output = messenger().current_dir(other.path()).args(["serve", &port]).output().unwrap();
    let error = text_of(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains(&server.address.to_string()) && error.contains("another port"), "{error}");
    assert!(!other.path().join("data").exists(), "nothing was begun");
}

#[test]
fn wrong_numbers_of_allowed_failures_are_refused_with_the_sentence_of_old() {
    for value in ["0", "6", "2.5", "-1", "three", ""] {
        let output = run(&["serve", "0", value]);
        assert_eq!(output.status.code(), Some(2), "{value}");
        let expected = format!(
            "messenger: Invalid number of allowed failed consecutive attempt: {value}. The valid value of argument \
             number is an integer between 1 and 5\n"
        );
        assert_eq!(text_of(&output.stderr), expected);
    }
}

#[test]
fn a_bad_file_of_accounts_is_refused_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let serve = || messenger().current_dir(directory.path()).args(["serve", "0"]).output().unwrap();
    let missing = serve();
    assert_eq!(missing.status.code(), Some(78));
    assert!(text_of(&missing.stderr).contains("credentials.txt"));
    std::fs::write(directory.path().join("credentials.txt"), "yoda jedi\nhan\n").unwrap();
    let broken = serve();
    assert_eq!(broken.status.code(), Some(78));
    let error = text_of(&broken.stderr);
    assert!(error.contains("credentials.txt") && error.contains('2'), "{error}");
    assert!(!directory.path().join("data").exists(), "nothing was begun");
}

#[test]
fn sighup_reads_the_accounts_again_and_keeps_the_old_where_the_new_are_wrong() {
    let server = Server::start();
    let file = server.directory().join("credentials.txt");
    let accounts = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{accounts}chewbacca grrr\n")).unwrap();
    server.signal(Signal::HUP);
    assert!(server.console_line().contains("6"), "the console says how many accounts there are now");
    let mut chewbacca = server.connect();
    chewbacca.send("/login chewbacca grrr");
    assert_eq!(chewbacca.line(), "Welcome to Messenger!");
    std::fs::write(&file, "broken\n").unwrap();
    server.signal(Signal::HUP);
    let says = |words: &str| {
        while !server.errors().contains(words) {
            std::thread::yield_now();
        }
    };
    says("credentials.txt");
    // Nobody will ever write to it: it must not be waited for.
    std::fs::remove_file(&file).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    server.signal(Signal::HUP);
    says("a pipe");
    server.login_plain("yoda");
}

#[test]
fn a_client_that_ends_its_input_is_answered_to_the_end_and_then_closed() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.address).unwrap();
    let lines = format!("/login han {PASSWORD}\n/msgto leia one\n/users\n/msgto leia two, but not who");
    std::io::Write::write_all(&mut stream, lines.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("message sent at ").count(), 1, "half a line is never carried out: {text}");
    assert!(text.ends_with("yoda, offline\n"), "{text}");
}

#[test]
fn bytes_that_are_no_lines_harm_nobody() {
    let server = Server::start();
    let mut han = server.login("han");
    let mut random = 0x9e37_79b9_u32;
    for _ in 0..50 {
        let mut stranger = server.connect();
        let junk: Vec<u8> = (0..10_000)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                random.to_be_bytes()[0]
            })
            .collect();
        stranger.send_bytes(&junk);
    }
    let mut long = server.login("leia");
    long.send(&"x".repeat(200_000));
    assert_eq!(long.frame()["code"], "line_too_long");
    long.send("{\"type\":");
    assert_eq!(long.frame()["code"], "bad_line");
    long.command("/msgto han still here");
    assert_eq!(han.frame()["text"], "still here");
}

#[test]
fn damage_in_the_log_is_refused_with_its_place_and_nothing_is_written() {
    let mut server = Server::start();
    let mut han = server.login("han");
    for count in 0..20 {
        han.command(&format!("/msgto leia {count}"));
    }
    server.kill();
    let file = server.data().join("events/00000000000000000001.jsonl");
    let mut bytes = std::fs::read(&file).unwrap();
    let place = bytes.windows(4).position(|window| window == b"leia").unwrap();
    bytes[place] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let credentials = server.directory().join("credentials.txt");
    let output =
        run(&["serve", "0", "--data", &server.data_argument(), "--credentials", credentials.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(7));
    assert!(text_of(&output.stderr).contains("00000000000000000001.jsonl"), "{}", text_of(&output.stderr));
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[test]
fn a_console_that_nobody_reads_stalls_nobody() {
    let mut server = Server::start_with(&["--rate", "0", "--console-texts"]);
    // The reader of the console is gone: the pipe breaks, the server goes on.
    server.close_console();
    let mut han = server.login("han");
    let text = "x".repeat(10_000);
    for _ in 0..200 {
        han.command(&format!("/msgto leia {text}"));
    }
    assert!(server.stop().success());
}

#[test]
fn everything_that_waited_comes_at_once_to_who_logs_in() {
    let server = Server::start_with(&["--rate", "0"]);
    let mut han = server.login("han");
    let text = "x".repeat(1_000);
    for count in 0..1_000 {
        han.send(&json!({"type": "command", "id": count, "text": format!("/msgto leia {count} {text}")}).to_string());
    }
    while han.frame_of("ok")["id"] != 999 {}
    let mut leia = server.connect();
    leia.send(&login_frame("leia", &json!({})));
    // Nobody else says anything: nothing but the backlog itself moves it on.
    for count in 0..1_000 {
        assert_eq!(leia.frame_of("message")["text"], format!("{count} {text}"));
    }
    assert_eq!(leia.frame()["type"], "live");
}

#[test]
fn a_client_that_was_not_read_because_much_waited_for_the_disk_is_read_later() {
    let server = Server::start();
    let mut writers: Vec<_> = (0..16).map(|number| server.login(["yoda", "obiwan"][number % 2])).collect();
    let mut han = server.login("han");
    // In the log a DEL takes six bytes: what is read of eleven such clients fills a batch.
    let message = json!({"type": "command", "text": format!("/msgto leia {}", "\x7f".repeat(16_000))}).to_string();
    // All of them have something to be read in one turn, han last.
    server.signal(Signal::STOP);
    for writer in &mut writers {
        writer.send_bytes(format!("{message}\n").repeat(4).as_bytes());
    }
    han.send(r#"{"type":"command","text":"/groups"}"#);
    server.signal(Signal::CONT);
    assert_eq!(han.frame_of("ok")["command"], "groups");
    for writer in &mut writers {
        (0..4).for_each(|_| assert_eq!(writer.frame_of("ok")["to"], "leia"));
    }
}

#[test]
fn all_clients_find_a_place_that_come_while_the_server_is_busy() {
    let server = Server::start();
    // The system may allow fewer than the server asks for.
    let allowed =
        std::fs::read_to_string("/proc/sys/net/core/somaxconn").map_or(128, |text| text.trim().parse().unwrap());
    server.signal(Signal::STOP);
    let clients: Vec<_> = (0..600.min(allowed)).map(|_| server.connect()).collect();
    server.signal(Signal::CONT);
    for mut client in clients {
        client.send("/groups");
        assert_eq!(client.line(), "Please login");
    }
}
