//! The server's rules on bytes, in memory: what a client sends, what each is told, and when.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/world.rs"]
mod world;

use messenger::eventlog::memory::{Faults, MemoryDisk};
use serde_json::{Value, json};
use world::{World, options};

fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}

fn texts(frames: &[Value]) -> Vec<&str> {
    frames.iter().filter_map(|frame| frame["text"].as_str()).collect()
}

#[test]
fn the_server_says_nothing_before_the_first_line() {
    let mut world = World::new();
    let key = world.connect();
    world.wait(1_000);
    assert_eq!(world.text(key), "");
}

#[test]
fn a_login_is_answered_and_followed_by_live() {
    let mut world = World::new();
    let key = world.login_with("yoda", &json!({"id": 1, "device": "laptop", "udp_port": 6000}));
    let frames = world.frames(key);
    assert_eq!(types(&frames), ["ok", "live"]);
    let expected = json!({"type": "ok", "id": 1, "command": "login", "user": "yoda", "session": 1, "seq": 2,
        "ts": frames[0]["ts"], "log": "00000000-0000-0000-0000-000000000000", "device": "laptop", "sent": 0});
    assert_eq!(frames[0], expected);
    assert_eq!(frames[1], json!({"type": "live", "seq": 2}));
}

#[test]
fn a_message_reaches_every_session_of_the_receiver_and_the_senders_others() {
    let mut world = World::new();
    let (han, han_too) = (world.logged_in("han"), world.logged_in("han"));
    let (leia, leia_too, luke) = (world.logged_in("leia"), world.logged_in("leia"), world.logged_in("luke"));
    let answer = world.ask(han, &json!({"type": "command", "id": "x", "text": "/msgto leia I  know "}));
    let (seq, ts) = (answer["seq"].clone(), answer["ts"].clone());
    let expected =
        json!({"type": "ok", "id": "x", "command": "msgto", "seq": seq, "ts": ts, "to": "leia", "online": true});
    assert_eq!(answer, expected);
    let event = json!({"seq": seq, "ts": ts, "type": "message", "from": "han", "to": "leia", "text": "I  know "});
    for key in [leia, leia_too, han_too] {
        assert_eq!(world.frames(key), std::slice::from_ref(&event));
    }
    assert_eq!(world.text(luke) + &world.text(han), "");
}

#[test]
fn what_is_pushed_is_the_line_of_the_log_to_the_byte() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    world.ask(han, &json!({"type": "command", "text": "/msgto leia \u{1b}[2J \" \\ \u{85} é"}));
    let pushed = world.text(leia);
    assert!(world.log().ends_with(&pushed) && pushed.contains("\\u001b"));
}

#[test]
fn nothing_is_told_before_it_is_durable_not_even_a_refusal_decided_on_it() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    world.disk_is_slow = true;
    let line = |text: &str| format!("{}\n", json!({"type": "command", "text": text}));
    world.send(han, line("/creategroup g leia"));
    world.send(han, line("/creategroup g luke"));
    world.send(leia, line("/groups"));
    assert_eq!(world.text(han) + &world.text(leia), "");
    world.sync();
    assert_eq!(types(&world.frames(han)), ["ok", "error"]);
    assert_eq!(types(&world.frames(leia)), ["group_created", "ok"]);
}

#[test]
fn while_one_batch_is_with_the_disk_the_next_fills() {
    let mut world = World::new();
    let han = world.logged_in("han");
    world.disk_is_slow = true;
    let line = |text: &str| format!("{}\n", json!({"type": "command", "text": text}));
    world.send(han, line("/msgto leia 1"));
    world.send(han, line("/msgto leia 2"));
    world.send(han, line("/msgto leia 3"));
    world.sync();
    assert_eq!(world.frames(han).len(), 1, "the first batch held one message");
    world.sync();
    assert_eq!(world.frames(han).len(), 2, "the second the two that came meanwhile");
}

#[test]
fn commands_typed_ahead_in_one_segment_are_each_answered_in_order() {
    let mut world = World::new();
    let key = world.connect();
    world.send(key, "/login han force\n/msgto leia one\n/nonsense\n\n/msgto leia two\r\n/logout\n");
    let text = world.text(key);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert_eq!(lines[0], "Welcome to Messenger!");
    assert!(lines[1].starts_with("message sent at ") && lines[3].starts_with("message sent at "));
    assert_eq!(lines[2], "Error. Invalid command!");
    assert_eq!(lines[4], "Bye, han!");
    assert!(world.is_closed(key));
}

#[test]
fn the_halves_of_lines_of_many_clients_stay_apart() {
    let mut world = World::new();
    let keys = [world.logged_in("han"), world.logged_in("leia"), world.logged_in("yoda")];
    let line = |number: usize| format!("{{\"type\":\"command\",\"text\":\"/msgto luke {number}\"}}\n");
    for (number, key) in keys.into_iter().enumerate() {
        world.send(key, &line(number)[..20 + number]);
    }
    // A whole line in between, and one that is longer than any may be and has not ended yet.
    let (whole, long) = (world.logged_in("luke"), world.logged_in("luke"));
    world.send(long, "x".repeat(70 << 10));
    world.send(whole, line(9));
    for (number, key) in keys.into_iter().enumerate() {
        world.send(key, format!("{}{}", &line(number)[20 + number..], line(number + 3)));
        assert_eq!(types(&world.frames(key)), ["ok", "ok"]);
    }
    assert_eq!(texts(&world.frames(whole)), ["0", "3", "1", "4", "2", "5"]);
    world.frames(long);
    world.send(long, "\n");
    assert_eq!(world.frames(long)[0]["code"], "line_too_long");
}

#[test]
fn the_plain_dialect_shows_events_as_sentences() {
    let mut world = World::new();
    let key = world.connect();
    world.send(key, "/login leia force\n");
    assert_eq!(world.text(key), "Welcome to Messenger!\n");
    let han = world.logged_in("han");
    world.command(han, "/msgto leia Goodbye, a, b; c");
    let text = world.text(key);
    assert!(text.ends_with(", han: Goodbye, a, b; c\n"), "{text}");
    assert!(!world.is_closed(key), "a word in a text ends nothing");
}

#[test]
fn bad_lines_are_answered_and_the_connection_lives_on() {
    let mut world = World::new();
    let han = world.logged_in("han");
    let mut code = |line: &[u8]| {
        world.send(han, line);
        let frames = world.frames(han);
        assert_eq!(frames.len(), 1, "{frames:?}");
        (frames[0]["code"].as_str().unwrap_or_default().to_owned(), frames[0]["id"].clone())
    };
    assert_eq!(code(b"{\"type\":\"dance\",\"id\":4}\n"), ("bad_line".into(), json!(4)));
    assert_eq!(code(b"{\"type\":\"command\",\"id\":\"a\"}\n"), ("bad_line".into(), json!("a")));
    assert_eq!(code(b"{\"type\":\"command\",\"text\":\"\xff\"}\n"), ("bad_line".into(), Value::Null));
    assert_eq!(code(b"/msgto leia hi\n"), ("bad_line".into(), Value::Null));
    let mut long = vec![b'x'; 70_000];
    long.push(b'\n');
    assert_eq!(code(&long), ("line_too_long".into(), Value::Null));
    assert_eq!(code(b"{\"type\":\"command\",\"text\":\"/login han force\"}\n").0, "unknown_command");
    assert_eq!(code(b"{\"type\":\"login\",\"username\":\"han\",\"password\":\"force\"}\n").0, "already_logged_in");
}

#[test]
fn the_answers_of_the_other_commands_have_their_fields() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.login_with("leia", &json!({"udp_port": 7})));
    let users = world.command(han, "/activeuser")["users"].clone();
    assert_eq!(users, json!([{"user": "leia", "since": users[0]["since"], "ip": "127.0.0.1", "udp_port": 7}]));
    let users = world.command(han, "/users")["users"].clone();
    assert_eq!(users[0], json!({"user": "han", "online": true}));
    assert_eq!(users[3], json!({"user": "yoda", "online": false}));
    let made = world.command(han, "/creategroup g leia luke");
    assert_eq!((&made["joined"], &made["invited"]), (&json!(["han"]), &json!(["leia", "luke"])));
    world.frames(leia);
    let joined = world.command(leia, "/joingroup g");
    assert_eq!((&joined["joined"], &joined["invited"]), (&json!(["han", "leia"]), &json!(["luke"])));
    let groups = world.command(leia, "/groups")["groups"].clone();
    assert_eq!(groups, json!([{"group": "g", "creator": "han", "joined": ["han", "leia"], "invited": ["luke"]}]));
    let ping = world.ask(han, &json!({"type": "ping", "id": 9}));
    assert_eq!((&ping["command"], &ping["id"]), (&json!("ping"), &json!(9)));
    assert_eq!(ping["seq"], joined["seq"]);
    assert_eq!(world.command(han, "/help")["commands"].as_array().unwrap().len(), 12);
}

#[test]
fn a_group_message_reaches_those_who_have_joined_but_the_sending_session() {
    let mut world = World::new();
    let [han, leia, luke] = ["han", "leia", "luke"].map(|name| world.logged_in(name));
    let han_too = world.logged_in("han");
    world.command(han, "/creategroup g leia luke");
    world.command(leia, "/joingroup g");
    for key in [han, leia, luke, han_too] {
        world.text(key);
    }
    let answer = world.command(han, "/groupmsg g hello");
    assert_eq!(answer["group"], "g");
    assert_eq!(texts(&world.frames(leia)), ["hello"]);
    assert_eq!(texts(&world.frames(han_too)), ["hello"]);
    assert_eq!(world.text(luke), "", "invited is not joined");
}

#[test]
fn history_is_the_log_of_one_conversation() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    for text in ["1", "2", "3"] {
        world.command(han, &format!("/msgto leia {text}"));
    }
    world.command(han, "/msgto luke other");
    world.frames(leia);
    let history = world.command(leia, "/history han 2");
    assert_eq!(texts(history["events"].as_array().unwrap()), ["2", "3"]);
    assert_eq!(history["more"], true);
    let before = history["events"][0]["seq"].clone();
    let history = world.command(leia, &format!("/history han 2 before {before}"));
    assert_eq!(texts(history["events"].as_array().unwrap()), ["1"]);
    assert_eq!(history["more"], false);
}

#[test]
fn history_holds_what_was_decided_before_it() {
    let mut world = World::new();
    let han = world.logged_in("han");
    world.disk_is_slow = true;
    let line = |text: &str| format!("{}\n", json!({"type": "command", "text": text}));
    world.send(han, line("/msgto leia one"));
    world.send(han, line("/history leia") + &line("/msgto leia two"));
    world.sync();
    world.sync();
    let frames = world.frames(han);
    let commands: Vec<&str> = frames.iter().map(|frame| frame["command"].as_str().unwrap()).collect();
    assert_eq!(commands, ["msgto", "history", "msgto"]);
    assert_eq!(texts(frames[1]["events"].as_array().unwrap()), ["one"]);
}

#[test]
fn messages_wait_for_who_is_away_and_come_once_in_order() {
    let mut world = World::new();
    let han = world.logged_in("han");
    for number in 0..2_000 {
        world.send(han, format!("{}\n", json!({"type": "command", "text": format!("/msgto leia {number}")})));
    }
    let leia = world.login("leia");
    let frames = world.frames(leia);
    let expected: Vec<String> = (0..2_000).map(|number| number.to_string()).collect();
    assert_eq!(texts(&frames), expected);
    assert_eq!(types(&frames)[2_001], "live");
    world.command(leia, "/logout");
    world.frames(han);
    world.command(han, "/msgto leia late");
    let leia = world.login("leia");
    assert_eq!(texts(&world.frames(leia)), ["late"], "after a logout only what came since");
}

#[test]
fn a_login_with_a_cursor_gets_what_is_behind_it_and_the_own_messages_too() {
    let mut world = World::new();
    let leia = world.logged_in("leia");
    let han = world.logged_in("han");
    let first = world.command(leia, "/msgto han one")["seq"].clone();
    world.command(han, "/msgto leia two");
    world.command(leia, "/msgto han three");
    world.disconnect(leia);
    let leia = world.login_with("leia", &json!({"after": first}));
    assert_eq!(texts(&world.frames(leia)), ["two", "three"]);
}

#[test]
fn a_session_beside_another_gets_nothing_old() {
    let mut world = World::new();
    let (han, _leia) = (world.logged_in("han"), world.logged_in("leia"));
    world.command(han, "/msgto leia old");
    let second = world.login("leia");
    assert_eq!(types(&world.frames(second)), ["ok", "live"]);
}

#[test]
fn a_reader_that_is_too_slow_gets_everything_once_from_the_log() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    world.set_deaf(leia, true);
    let filler = "x".repeat(10_000);
    for number in 0..300 {
        world.command(han, &format!("/msgto leia {number} {filler}"));
    }
    world.set_deaf(leia, false);
    world.command(han, "/msgto leia last");
    let frames = world.frames(leia);
    let seqs: Vec<u64> = frames.iter().map(|frame| frame["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "rising, each once");
    assert_eq!(frames.len(), 301);
    assert_eq!(frames[300]["text"], "last");
}

#[test]
fn who_asks_for_history_and_never_reads_takes_little_memory_and_misses_nothing() {
    const HELD_BYTES_MAX: usize = 2 << 20;
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    let filler = "x".repeat(16_000);
    for _ in 0..80 {
        world.command(han, &format!("/msgto leia {filler}"));
    }
    world.frames(leia);
    world.set_deaf(leia, true);
    let ask = format!("{}\n", json!({"type": "command", "text": "/history han 100"}));
    let asked = 20;
    let held = |world: &World| world.hub.output_bytes(leia);
    world.send(leia, ask.repeat(asked));
    assert!(!world.hub.wants_bytes(leia));
    let first = held(&world);
    assert!(first > HELD_BYTES_MAX / 4, "an answer is nearly as long as a line may be");
    for _ in 0..150 {
        world.command(han, &format!("/msgto leia {filler}"));
        assert!(held(&world) < HELD_BYTES_MAX, "{} bytes", held(&world));
    }
    world.set_deaf(leia, false);
    let frames = world.frames(leia);
    assert_eq!(frames.iter().filter(|frame| frame["command"] == "history").count(), asked);
    assert_eq!(texts(&frames).len(), 150);
}

#[test]
fn watchers_are_told_of_logins_and_logouts_of_others() {
    let mut world = World::new();
    let han = world.login_with("han", &json!({"watch": true}));
    world.frames(han);
    let leia = world.logged_in("leia");
    world.command(leia, "/logout");
    let frames = world.frames(han);
    assert_eq!(types(&frames), ["login", "logout"]);
    assert_eq!((&frames[0]["user"], &frames[1]["reason"]), (&json!("leia"), &json!("logout")));
}

#[test]
fn a_second_login_of_a_device_ends_the_first_with_replaced() {
    let mut world = World::new();
    let first = world.login_with("han", &json!({"device": "falcon"}));
    world.frames(first);
    let second = world.login_with("han", &json!({"device": "falcon"}));
    assert_eq!(world.frames(first)[0]["code"], "replaced");
    assert!(world.is_closed(first));
    assert_eq!(types(&world.frames(second)), ["ok", "live"]);
}

#[test]
fn numbered_commands_sent_again_are_known_even_after_a_crash() {
    let mut world = World::new();
    let device = json!({"device": "falcon"});
    let send = |id: u64| json!({"type": "command", "id": id, "text": format!("/msgto leia {id}")});
    let han = world.login_with("han", &device);
    world.frames(han);
    let made = world.ask(han, &send(1));
    assert_eq!(world.ask(han, &send(3))["expected"], 2);
    world.disk_is_slow = true;
    world.send(han, format!("{}\n", send(2)));
    let mut world = world.crash();
    let han = world.login_with("han", &device);
    assert_eq!(world.frames(han)[0]["sent"], 1, "what was not answered is wholly absent");
    let again = world.ask(han, &send(1));
    let expected =
        json!({"type": "ok", "id": 1, "command": "msgto", "duplicate": true, "seq": made["seq"], "ts": made["ts"]});
    assert_eq!(again, expected);
    assert_eq!(world.ask(han, &send(2))["type"], "ok");
    let leia = world.login("leia");
    assert_eq!(texts(&world.frames(leia)), ["1", "2"]);
}

#[test]
fn wrong_passwords_are_counted_over_connections_and_block_through_a_restart() {
    let mut world = World::new();
    let wrong = json!({"type": "login", "username": "han", "password": "x"});
    let keys = [world.connect(), world.connect(), world.connect()];
    assert_eq!(world.ask(keys[0], &wrong)["attempts_left"], 2);
    assert_eq!(world.ask(keys[1], &wrong)["attempts_left"], 1);
    assert_eq!(world.ask(keys[2], &wrong)["retry_after_ms"], 10_000);
    assert!(!world.is_closed(keys[2]), "a block leaves the connection open");
    let mut world = world.crash();
    let key = world.login("han");
    assert_eq!(world.frames(key)[0]["code"], "blocked");
    world.wait(10_000);
    let right = json!({"type": "login", "username": "han", "password": "force"});
    assert_eq!(world.ask(key, &right)["type"], "ok");
}

#[test]
fn names_that_are_no_names_are_refused_alike_and_leave_no_event() {
    let mut world = World::new();
    let key = world.connect();
    let events = world.events().len();
    let answer = world.ask(key, &json!({"type": "login", "username": "../x", "password": "x"}));
    assert_eq!(answer["code"], "bad_credentials");
    assert_eq!(world.events().len(), events);
    let answer = world.ask(key, &json!({"type": "command", "text": "/groups"}));
    assert_eq!(answer["code"], "not_logged_in");
}

#[test]
fn clear_text_is_for_loopback_only_and_what_was_encrypted_for_all() {
    let mut world = World::new();
    let safe = world.connect_from("192.0.2.7".parse().unwrap());
    world.encrypt(safe);
    world.send(safe, "{\"type\":\"ping\"}\n");
    assert_eq!(world.frames(safe)[0]["type"], "ok");
    let far = world.connect_from("192.0.2.7".parse().unwrap());
    world.send(far, "{\"type\":\"ping\"}\n");
    assert_eq!(world.frames(far)[0]["code"], "cleartext_refused");
    assert!(world.is_closed(far));
    let mapped = world.connect_from("::ffff:127.0.0.1".parse().unwrap());
    world.send(mapped, "{\"type\":\"ping\"}\n");
    assert_eq!(world.frames(mapped)[0]["type"], "ok");
}

#[test]
fn who_ends_without_a_word_is_closed_at_once() {
    let mut world = World::new();
    for said in ["", "\r\n", "/users"] {
        let key = world.connect();
        world.send(key, said);
        world.end_input(key);
        assert!(world.is_closed(key), "{said:?}");
    }
}

#[test]
fn who_does_not_log_in_for_thirty_seconds_is_closed() {
    let mut world = World::new();
    let key = world.connect();
    world.wait(29_999);
    assert!(!world.is_closed(key));
    world.wait(1);
    assert!(world.is_closed(key));
}

#[test]
fn who_is_silent_is_asked_and_then_given_up() {
    let mut world = World::new();
    let (silent, lively) = (world.logged_in("han"), world.logged_in("leia"));
    world.wait(90_000);
    assert_eq!(world.text(silent), "{\"type\":\"ping\"}\n");
    world.send(lively, "{\"type\":\"pong\"}\n");
    world.wait(30_000);
    assert!(world.is_closed(silent) && !world.is_closed(lively));
    let last = world.events().pop().unwrap();
    let mut line = Vec::new();
    last.event.encode(last.seq, last.at, &mut line);
    assert!(String::from_utf8(line).unwrap().contains("\"reason\":\"timeout\""));
}

#[test]
fn after_the_end_of_input_everything_before_it_is_answered() {
    let mut world = World::new();
    let key = world.connect();
    world.send(key, "/login han force\n");
    world.disk_is_slow = true;
    world.send(key, "/msgto leia hi\n/history leia\n");
    world.end_input(key);
    for _ in 0..5 {
        world.sync();
    }
    let text = world.text(key);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(world.is_closed(key));
}

#[test]
fn who_says_its_last_word_at_once_gets_everything_it_is_owed_before() {
    for last_word in ["/logout\n", ""] {
        let mut world = World::new();
        let leia = world.logged_in("leia");
        for number in 0..2_000 {
            world.command(leia, &format!("/msgto han message {number}"));
        }
        let key = world.connect();
        world.send(key, format!("/login han force\n/msgto leia thanks\n{last_word}"));
        world.end_input(key);
        let text = world.text(key);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("message ")).collect();
        assert_eq!(lines.len(), 2_001, "2,000 messages and the own confirmation");
        assert!(lines[2_000].ends_with("leia: message 1999"), "{}", lines[2_000]);
        assert!(!text.contains("han to leia"), "what a session sent is not told to it again");
        assert_eq!(text.ends_with("Bye, han!\n"), !last_word.is_empty());
        assert!(world.is_closed(key));
    }
}

#[test]
fn a_stop_tells_every_session_and_closes_the_log() {
    let mut world = World::new();
    let (han, idle) = (world.logged_in("han"), world.connect());
    world.hub.handle_stop(world.now());
    world.sync();
    world.wait(0);
    assert_eq!(world.frames(han)[0]["code"], "shutting_down");
    assert!(world.is_closed(han) && world.is_closed(idle));
    let kinds: Vec<&str> = world.events().iter().map(|record| record.event.kind()).collect();
    assert_eq!(kinds, ["server_started", "login", "logout", "server_stopped"]);
    assert!(world.hub.is_quiet());
}

#[test]
fn a_full_disk_refuses_what_changes_and_serves_what_does_not() {
    let disk = MemoryDisk::default();
    disk.set_faults(Faults { room_bytes: Some(400 << 10), ..Faults::default() });
    let mut world = World::on(disk, options(), 0);
    let han = world.logged_in("han");
    let long = format!("/msgto leia {}", "x".repeat(16_000));
    let sent = (0..).take_while(|_| world.command(han, &long)["type"] == "ok").count();
    assert!((2..40).contains(&sent), "{sent}");
    assert_eq!(world.command(han, &long)["code"], "storage_failed");
    assert_eq!(world.command(han, "/groups")["type"], "ok");
    assert!((0..2_000).any(|_| world.command(han, "/msgto leia hi")["code"] == "storage_failed"));
    let is_refused = |world: &mut World| {
        let other = world.login("leia");
        world.frames(other)[0]["code"] == "storage_failed"
    };
    assert!((0..5).any(|_| is_refused(&mut world)), "a login is an event too");
    world.disk.set_faults(Faults::default());
    // A refusal asks for room, so that at the latest the second try finds some.
    assert!((0..2).any(|_| world.command(han, "/msgto leia hi")["type"] == "ok"));
    world.disconnect(han);
    assert_eq!(world.events().pop().unwrap().event.kind(), "logout");
}

#[test]
fn a_client_over_its_rate_waits_and_loses_nothing() {
    let mut world =
        World::on(MemoryDisk::default(), messenger::server::HubOptions { commands_per_second: 200, ..options() }, 0);
    let han = world.logged_in("han");
    let line = format!("{}\n", json!({"type": "command", "text": "/msgto leia hi"}));
    for _ in 0..1_100 {
        world.send(han, &line);
    }
    let first = world.frames(han).len();
    assert_eq!(first, 999, "a burst is 1,000 commands, and the login was the first");
    assert!(!world.hub.wants_bytes(han));
    for _ in 0..200 {
        world.wait(5);
    }
    assert_eq!(first + world.frames(han).len(), 1_100);
    assert!(world.hub.wants_bytes(han));
}

#[test]
fn the_console_names_who_wrote_to_whom_and_not_what() {
    let mut world = World::new();
    let han = world.logged_in("han");
    world.command(han, "/msgto leia secret plans");
    world.command(han, "/activeuser");
    assert!(world.console.contains("han message to leia at "));
    assert!(!world.console.contains("secret"));
    assert!(world.console.contains("han issued /activeuser command\n"));
}

#[test]
fn a_batch_that_the_disk_is_slow_with_makes_nobody_pay_but_in_time() {
    let mut world = World::new();
    let senders: Vec<_> = (0..4).map(|_| world.logged_in("han")).collect();
    let text = format!("/msgto leia {}", "x".repeat(16_000));
    let line = format!("{}\n", json!({"type": "command", "id": 1, "text": text}));
    world.disk_is_slow = true;
    for _ in 0..500 {
        for key in &senders {
            world.send(*key, &line);
        }
    }
    world.disk_is_slow = false;
    let mut answers = Vec::new();
    while answers.len() < 2_000 {
        world.sync();
        let before = answers.len();
        for key in &senders {
            let frames = world.frames(*key).into_iter();
            answers.extend(frames.filter_map(|frame| frame["id"].as_u64().map(|_| frame["type"].clone())));
        }
        assert!(answers.len() > before, "{before} were answered, and no more come");
    }
    assert!(answers.iter().all(|kind| kind == "ok"), "only a full disk refuses");
}

#[test]
fn who_falls_behind_is_not_told_of_own_commands() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    world.set_deaf(leia, true);
    world.disk_is_slow = true;
    let long = format!("{}\n", json!({"type": "command", "text": format!("/msgto leia {}", "x".repeat(16_000))}));
    for _ in 0..80 {
        world.send(han, &long);
        world.send(leia, format!("{}\n", json!({"type": "command", "text": "/msgto leia note"})));
        world.sync();
    }
    world.disk_is_slow = false;
    world.sync();
    world.set_deaf(leia, false);
    let frames = world.frames(leia);
    assert_eq!(frames.iter().filter(|frame| frame["type"] == "ok").count(), 80);
    assert_eq!(texts(&frames).iter().filter(|text| **text == "note").count(), 0);
    assert_eq!(texts(&frames).len(), 80);
}

#[test]
fn a_session_that_the_disk_cannot_feed_ends_and_leaves_no_ghost() {
    let mut world = World::new();
    let han = world.logged_in("han");
    world.command(han, "/msgto leia hi");
    world.reads_fail = true;
    let leia = world.login("leia");
    let last_word = world.frames(leia).pop().unwrap();
    assert_eq!(last_word["code"], "storage_failed");
    assert!(last_word["message"].as_str().unwrap().contains("`messenger replay --verify`"), "{last_word}");
    assert!(world.is_closed(leia));
    let answer = world.command(han, "/history leia");
    assert_eq!((&answer["code"], &answer["message"]), (&last_word["code"], &last_word["message"]));
    assert_eq!(world.command(han, "/activeuser")["users"], json!([]));
}

#[test]
fn on_a_full_disk_what_changes_nothing_is_answered_as_ever() {
    let disk = MemoryDisk::default();
    disk.set_faults(Faults { room_bytes: Some(600 << 10), ..Faults::default() });
    let mut world = World::on(disk, options(), 0);
    let han = world.login_with("han", &json!({"device": "laptop"}));
    world.frames(han);
    let numbered = |id: u64, text: &str| json!({"type": "command", "id": id, "text": text});
    let long = format!("/msgto leia {}", "x".repeat(16_000));
    let sent = (1..).take_while(|id| world.ask(han, &numbered(*id, &long))["type"] == "ok").count() as u64;
    assert_eq!(world.ask(han, &numbered(sent, &long))["duplicate"], true);
    assert_eq!(world.ask(han, &numbered(sent + 1, "/msgto jabba pay"))["code"], "unknown_user");
    assert_eq!(world.ask(han, &numbered(sent + 7, &long))["code"], "out_of_order");
}
