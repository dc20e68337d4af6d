//! Login tokens: given, taken, replaced and ended, on the hub in memory and over the sockets of real servers.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;
#[path = "support/world.rs"]
mod world;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};
use server::{PASSWORD, Server};
use world::World;

const DAY_MS: u64 = 86_400_000;

fn by_password(user: &str, fields: &Value) -> Value {
    with(json!({"type": "login", "username": user, "password": world::PASSWORD}), fields)
}

fn by_token(user: &str, device: &str, token: &str, fields: &Value) -> Value {
    with(json!({"type": "login", "username": user, "device": device, "token": token}), fields)
}

fn with(mut frame: Value, fields: &Value) -> Value {
    frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    frame
}

/// Logs in on a connection of its own, which is closed again.
fn login(world: &mut World, frame: &Value) -> Value {
    let key = world.connect();
    let answer = world.ask(key, frame);
    world.disconnect(key);
    answer
}

/// The token of a device after a login by password.
fn given(world: &mut World, user: &str, device: &str) -> String {
    let answer = login(world, &by_password(user, &json!({"device": device, "want_token": true})));
    answer["token"].as_str().unwrap().to_owned()
}

fn is_good(world: &mut World, user: &str, device: &str, token: &str) -> bool {
    let answer = login(world, &by_token(user, device, token, &json!({})));
    assert!(answer["type"] == "ok" || answer["code"] == "bad_credentials", "{answer}");
    answer["type"] == "ok"
}

#[test]
fn a_token_is_given_to_a_device_that_wants_one() {
    let mut world = World::new();
    let answer = login(&mut world, &by_password("han", &json!({"id": 7, "device": "laptop", "want_token": true})));
    assert_eq!((&answer["id"], answer["token"].as_str().unwrap().len()), (&json!(7), 43));
    for fields in
        [json!({"device": "laptop"}), json!({"want_token": true}), json!({"device": "laptop", "want_token": false})]
    {
        let answer = login(&mut world, &by_password("han", &fields));
        assert!(answer["type"] == "ok" && answer.get("token").is_none(), "{answer}");
    }
}

#[test]
fn a_token_is_good_for_its_user_and_device_alone_and_a_wrong_one_counts_for_nothing() {
    let mut world = World::new();
    let token = given(&mut world, "han", "laptop");
    let events = world.events().len();
    let unknown = "A".repeat(43);
    for (user, device, token) in [
        ("han", "phone", &*token),
        ("leia", "laptop", &*token),
        ("nobody", "laptop", &*token),
        ("han", "laptop", &*unknown),
        ("han", "laptop", ""),
        ("../han", "laptop", &*token),
    ] {
        for _ in 0..5 {
            let answer = login(&mut world, &by_token(user, device, token, &json!({})));
            assert_eq!(answer["code"], "bad_credentials", "{user} {device} {token}");
        }
    }
    let answer = login(&mut world, &json!({"type": "login", "username": "han", "token": token}));
    assert_eq!(answer["code"], "bad_credentials", "a login by token names its device");
    assert_eq!(world.events().len(), events);
    assert!(is_good(&mut world, "han", "laptop", &token));
}

#[test]
fn a_password_that_stands_beside_a_token_is_what_counts() {
    let mut world = World::new();
    let token = given(&mut world, "han", "laptop");
    let right = by_password("han", &json!({"device": "laptop", "token": "old"}));
    assert_eq!(login(&mut world, &right)["type"], "ok");
    let wrong = by_token("han", "laptop", &token, &json!({"password": "x"}));
    assert_eq!(login(&mut world, &wrong)["attempts_left"], 2);
    // Which a refused token tells, and does not change.
    for _ in 0..3 {
        assert_eq!(login(&mut world, &by_token("han", "phone", &token, &json!({})))["attempts_left"], 2);
    }
}

#[test]
fn a_token_is_good_during_a_block_and_a_login_by_it_ends_the_block_in_every_replay() {
    let mut world = World::new();
    let token = given(&mut world, "han", "laptop");
    let key = world.connect();
    for _ in 0..3 {
        world.ask(key, &json!({"type": "login", "username": "han", "password": "x"}));
    }
    let refused = login(&mut world, &by_token("han", "phone", &token, &json!({})));
    assert_eq!((&refused["code"], &refused["attempts_left"]), (&json!("bad_credentials"), &json!(0)));
    assert_eq!(login(&mut world, &by_password("han", &json!({})))["code"], "blocked");
    assert!(is_good(&mut world, "han", "laptop", &token));
    let mut world = world.crash();
    assert_eq!(login(&mut world, &by_password("han", &json!({})))["type"], "ok", "as after any good login");
}

#[test]
fn a_token_ends_after_thirty_days() {
    let mut world = World::new();
    let token = given(&mut world, "han", "laptop");
    world.wait(30 * DAY_MS - 1);
    assert!(is_good(&mut world, "han", "laptop", &token));
    world.wait(1);
    assert!(!is_good(&mut world, "han", "laptop", &token));
}

#[test]
fn a_login_by_password_replaces_the_token_unless_it_is_refused() {
    let mut world = World::new();
    let first = given(&mut world, "han", "laptop");
    let sessions: Vec<_> = (0..8).map(|_| world.logged_in("han")).collect();
    let wish = json!({"device": "laptop", "want_token": true});
    assert_eq!(login(&mut world, &by_password("han", &wish))["code"], "too_many_sessions");
    assert_eq!(login(&mut world, &by_token("han", "laptop", &first, &json!({})))["code"], "too_many_sessions");
    sessions.into_iter().for_each(|key| world.disconnect(key));
    assert!(is_good(&mut world, "han", "laptop", &first));
    let second = given(&mut world, "han", "laptop");
    assert_ne!(first, second);
    assert!(!is_good(&mut world, "han", "laptop", &first));
    assert!(is_good(&mut world, "han", "laptop", &second));
}

#[test]
fn a_client_in_use_gets_a_fresh_token_each_day_and_no_lost_answer_locks_it_out() {
    let mut world = World::new();
    let wish = json!({"want_token": true});
    let first = given(&mut world, "han", "laptop");
    world.wait(DAY_MS);
    assert_eq!(login(&mut world, &by_token("han", "laptop", &first, &wish))["token"], first, "it is fresh enough");
    world.wait(1);
    let mut next = || {
        let answer = login(&mut world, &by_token("han", "laptop", &first, &wish));
        answer["token"].as_str().unwrap().to_owned()
    };
    // Two answers are lost.
    let (lost, _, third) = (next(), next(), next());
    assert!(![&lost, &first].contains(&&third));
    assert!(!is_good(&mut world, "han", "laptop", &lost));
    assert!(is_good(&mut world, "han", "laptop", &first));
    assert!(is_good(&mut world, "han", "laptop", &third));
    assert!(!is_good(&mut world, "han", "laptop", &first), "the new one was used");
    world.wait(30 * DAY_MS - 2);
    assert!(is_good(&mut world, "han", "laptop", &third));
}

#[test]
fn what_is_sent_behind_a_login_by_token_is_answered_behind_it() {
    let mut world = World::new();
    let token = given(&mut world, "han", "laptop");
    let key = world.connect();
    let login = by_token("han", "laptop", &token, &json!({"id": 1, "want_token": true}));
    let second = by_token("han", "laptop", &token, &json!({"id": 2}));
    let users = json!({"type": "command", "id": 3, "text": "/users"});
    world.send(key, format!("{login}\n{second}\n{users}\n"));
    let answers = world.frames(key).into_iter().filter(|frame| frame["type"] != "live");
    let told: Vec<(Value, Value)> = answers.map(|frame| (frame["id"].clone(), frame["type"].clone())).collect();
    assert_eq!(told, [(json!(1), json!("ok")), (json!(2), json!("error")), (json!(3), json!("ok"))]);
}

/// What a real server answers to a login on a connection of its own.
fn answer(server: &Server, frame: &Value) -> Value {
    let mut client = server.connect();
    client.send(&frame.to_string());
    let answer = client.frame();
    if answer["type"] == "ok" {
        client.frame_of("live");
        client.logout();
    }
    answer
}

fn token_of(server: &Server, user: &str, device: &str) -> String {
    let wish = json!({"password": PASSWORD, "device": device, "want_token": true});
    answer(server, &by_password(user, &wish))["token"].as_str().unwrap().to_owned()
}

fn is_taken(server: &Server, user: &str, device: &str, token: &str) -> bool {
    answer(server, &by_token(user, device, token, &json!({})))["type"] == "ok"
}

/// Gives the server other accounts, and waits until it has them.
fn set_accounts(server: &Server, accounts: &str) {
    let said = "the credentials were read again";
    let before = server.errors().matches(said).count();
    fs::write(server.directory().join("credentials.txt"), accounts).unwrap();
    server.signal(Signal::HUP);
    while server.errors().matches(said).count() == before {
        std::thread::yield_now();
    }
}

#[test]
fn a_token_outlives_the_server_however_it_ends_and_stands_nowhere_on_its_disk() {
    let mut server = Server::start();
    let first = token_of(&server, "han", "laptop");
    assert!(server.stop().success());
    server.restart();
    assert!(is_taken(&server, "han", "laptop", &first));
    let second = token_of(&server, "han", "laptop");
    server.kill();
    server.restart();
    assert!(!is_taken(&server, "han", "laptop", &first));
    assert!(is_taken(&server, "han", "laptop", &second));
    assert!(!is_taken(&server, "han", "phone", &second) && !is_taken(&server, "leia", "laptop", &second));
    let file = server.data().join("tokens");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let written = server.data_file("tokens");
    assert!(
        ![&first, &second].iter().any(|token| written.contains(*token)) && !written.contains(PASSWORD),
        "{written}"
    );
    assert!(!server.data_file("events/00000000000000000001.jsonl").contains(&second));
    assert!(!server.errors().contains("token"), "{}", server.errors());
}

#[test]
fn a_changed_password_ends_the_tokens_of_its_user_also_when_it_is_changed_back() {
    let mut server = Server::start();
    let (han, leia) = (token_of(&server, "han", "laptop"), token_of(&server, "leia", "laptop"));
    let accounts = fs::read_to_string(server.directory().join("credentials.txt")).unwrap();
    set_accounts(&server, &accounts.replace("han secret", "han other"));
    assert!(!is_taken(&server, "han", "laptop", &han));
    set_accounts(&server, &accounts);
    assert!(!is_taken(&server, "han", "laptop", &han));
    assert!(is_taken(&server, "leia", "laptop", &leia));
    // While it does not run, too.
    assert!(server.stop().success());
    fs::write(server.directory().join("credentials.txt"), accounts.replace("leia secret", "leia other")).unwrap();
    server.restart();
    assert!(!is_taken(&server, "han", "laptop", &han) && !is_taken(&server, "leia", "laptop", &leia));
}

#[test]
fn who_is_taken_out_of_the_accounts_loses_the_tokens_for_good() {
    let mut server = Server::start();
    let (han, leia) = (token_of(&server, "han", "laptop"), token_of(&server, "leia", "laptop"));
    let accounts = fs::read_to_string(server.directory().join("credentials.txt")).unwrap();
    set_accounts(&server, &accounts.replace("han secret\n", ""));
    assert!(!is_taken(&server, "han", "laptop", &han));
    set_accounts(&server, &accounts);
    assert!(!is_taken(&server, "han", "laptop", &han));
    // At a start as well.
    for text in [accounts.replace("leia secret\n", ""), accounts.clone()] {
        assert!(server.stop().success());
        fs::write(server.directory().join("credentials.txt"), text).unwrap();
        server.restart();
        assert!(!is_taken(&server, "han", "laptop", &han) && !is_taken(&server, "leia", "laptop", &leia));
    }
}

#[test]
fn a_file_of_tokens_that_is_broken_costs_a_login_by_password_and_never_the_start() {
    let mut server = Server::start();
    let han = token_of(&server, "han", "laptop");
    let leia = token_of(&server, "leia", "laptop");
    server.kill();
    let file = server.data().join("tokens");
    let lines = server.data_file("tokens");
    let broken: String = lines.lines().map(|line| line.replace("han laptop", "han lap top") + "\n").collect();
    fs::write(&file, broken).unwrap();
    server.restart();
    assert!(server.errors().contains("tokens, line 1: no login token"), "{}", server.errors());
    assert!(!is_taken(&server, "han", "laptop", &han) && is_taken(&server, "leia", "laptop", &leia));

    server.kill();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    server.restart();
    assert!(
        server.errors().contains("data/tokens: it is a directory, and no file; no login tokens"),
        "{}",
        server.errors()
    );
    assert!(!is_taken(&server, "leia", "laptop", &leia));
    let wish = json!({"password": PASSWORD, "device": "laptop", "want_token": true});
    let answer = answer(&server, &by_password("leia", &wish));
    assert!(answer["type"] == "ok" && answer.get("token").is_none(), "{answer}");
}
