//! Who is told of a message, and in which order, whatever the sockets take at once.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/world.rs"]
mod world;

use messenger::server::connection::ConnectionKey;
use serde_json::{Value, json};
use world::World;

fn texts(frames: &[Value]) -> Vec<&str> {
    frames.iter().filter_map(|frame| frame["text"].as_str()).collect()
}

#[test]
fn a_message_to_a_group_reaches_who_is_a_member_and_there_when_it_is_sent() {
    let mut world = World::new();
    let (han, leia, luke) = (world.logged_in("han"), world.logged_in("leia"), world.logged_in("luke"));
    world.command(han, "/creategroup rebels leia luke");
    world.command(leia, "/joingroup rebels");
    let mut number = 0;
    let mut check = |world: &mut World, expected: &[ConnectionKey], others: &[ConnectionKey]| {
        // Twice: who was found for the first is remembered for the second.
        for _ in 0..2 {
            number += 1;
            let (expected, others) = (expected.iter(), others.iter());
            expected.clone().chain(others.clone()).for_each(|key| drop(world.frames(*key)));
            world.command(han, &format!("/groupmsg rebels {number}"));
            expected.for_each(|key| assert_eq!(texts(&world.frames(*key)), [number.to_string()]));
            others.for_each(|key| assert_eq!(texts(&world.frames(*key)), [""; 0]));
        }
    };
    check(&mut world, &[leia], &[luke]);
    world.command(luke, "/joingroup rebels");
    check(&mut world, &[leia, luke], &[]);
    let at_home = world.login("luke");
    check(&mut world, &[leia, luke, at_home], &[]);
    world.command(leia, "/leavegroup rebels");
    check(&mut world, &[luke, at_home], &[leia]);
    world.command(luke, "/logout");
    check(&mut world, &[at_home], &[leia]);
    world.disconnect(at_home);
    check(&mut world, &[], &[leia]);
}

#[test]
fn a_socket_that_takes_a_part_of_what_it_is_told_gets_the_rest_in_order_before_what_comes_later() {
    for room in 1..400 {
        let mut world = World::new();
        let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
        world.frames(leia);
        world.set_room(leia, Some(room));
        let command = |text: &str| format!("{}\n", json!({"type": "command", "text": text}));
        world.send(han, command("/msgto leia one") + &command("/msgto leia two"));
        world.send(leia, command("/msgto han three"));
        world.send(han, command("/msgto leia four"));
        world.set_deaf(leia, false);
        let frames = world.frames(leia);
        let told: Vec<&str> = frames.iter().map(|frame| frame["text"].as_str().unwrap_or("answer")).collect();
        assert_eq!(told, ["one", "two", "answer", "four"], "{room} bytes are taken");
    }
}

#[test]
fn who_speaks_the_plain_dialect_is_told_in_order_between_others() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.connect());
    world.send(leia, "/login leia force\n");
    world.text(leia);
    let command = |text: &str| format!("{}\n", json!({"type": "command", "text": text}));
    world.disk_is_slow = true;
    world.send(han, command("/msgto leia one"));
    // These are of one batch: two events, with the answer to the plain speaker's own command between.
    world.send(han, command("/msgto leia two"));
    world.send(leia, "/msgto han three\n");
    world.send(han, command("/msgto leia four"));
    world.disk_is_slow = false;
    world.sync();
    world.sync();
    let told = world.text(leia);
    let places: Vec<usize> = ["one", "two", "han", "four"]
        .iter()
        .scan(0, |from, word| {
            *from += told[*from..].find(word).unwrap_or_else(|| panic!("{word} is not told in its place: {told}"));
            Some(*from)
        })
        .collect();
    assert!(places.is_sorted());
    assert_eq!(told.lines().count(), 4, "{told}");
}

#[test]
fn who_waits_to_be_written_to_is_told_later_batches_in_the_same_write_and_who_has_an_answer_comes_first() {
    let mut world = World::new();
    let (han, leia, luke) = (world.logged_in("han"), world.logged_in("leia"), world.logged_in("luke"));
    [han, leia, luke].into_iter().for_each(|key| drop(world.frames(key)));
    let command = |text: &str| format!("{}\n", json!({"type": "command", "text": text}));
    let writes = [world.writes(leia), world.writes(luke)];
    // One socket a turn: that of the answer, however many messages wait before it.
    world.writes_per_turn = 1;
    for (number, to) in ["leia", "luke", "leia", "luke"].into_iter().enumerate() {
        world.send(han, command(&format!("/msgto {to} {number}")));
        assert_eq!(world.frames(han).len(), 1, "the answer to message {number}");
    }
    world.writes_per_turn = usize::MAX;
    world.wait(0);
    assert_eq!([world.writes(leia), world.writes(luke)], writes.map(|before| before + 1));
    assert_eq!(texts(&world.frames(leia)), ["0", "2"]);
    assert_eq!(texts(&world.frames(luke)), ["1", "3"]);
}

#[test]
fn who_goes_before_it_is_written_to_stands_in_nobodys_way() {
    let mut world = World::new();
    let (han, leia, luke) = (world.logged_in("han"), world.logged_in("leia"), world.logged_in("luke"));
    [han, leia, luke].into_iter().for_each(|key| drop(world.frames(key)));
    world.writes_per_turn = 1;
    for text in ["/msgto leia one", "/msgto luke two"] {
        world.send(han, format!("{}\n", json!({"type": "command", "text": text})));
    }
    world.disconnect(leia);
    world.writes_per_turn = usize::MAX;
    world.wait(0);
    assert_eq!(texts(&world.frames(luke)), ["two"]);
    assert!(world.hub.is_quiet());
}

#[test]
fn a_client_that_has_ended_its_side_gets_its_last_lines_however_slowly_it_reads() {
    let mut world = World::new();
    let leia = world.logged_in("leia");
    world.frames(leia);
    world.set_room(leia, Some(10));
    world.send(leia, format!("{}\n", json!({"type": "command", "text": "/logout"})));
    world.end_input(leia);
    world.set_deaf(leia, false);
    let frames = world.frames(leia);
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(frames[0]["command"], "logout");
    assert!(world.is_closed(leia));
}

#[test]
fn what_was_decided_before_a_logout_is_told_before_its_answer() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.connect());
    world.send(leia, "/login leia force\n");
    let luke = world.logged_in("luke");
    [leia, luke].into_iter().for_each(|key| drop(world.text(key)));
    world.disk_is_slow = true;
    let command = |text: &str| format!("{}\n", json!({"type": "command", "text": text}));
    // The first is with the disk, the others wait for it.
    world.send(han, command("/msgto han zero"));
    world.send(han, command("/msgto leia one") + &command("/msgto luke two"));
    world.send(leia, "/logout\n");
    world.send(luke, command("/logout"));
    world.send(han, command("/msgto leia three") + &command("/msgto luke four"));
    world.disk_is_slow = false;
    world.sync();
    world.sync();
    let told = world.text(leia);
    assert!(told.lines().next().unwrap().contains("one") && told.lines().last().unwrap().starts_with("Bye"), "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");
    let frames = world.frames(luke);
    let told: Vec<&str> = frames.iter().map(|frame| frame["text"].as_str().unwrap_or("answer")).collect();
    assert_eq!(told, ["two", "answer"]);
    // Nothing is lost, and nothing told again.
    let leia = world.login("leia");
    assert_eq!(texts(&world.frames(leia)[1..]), ["three"]);
}

#[test]
fn what_many_are_told_at_once_is_written_before_more_is_made() {
    const COMMANDS: usize = 2_000;
    let mut world = World::new();
    let keys: Vec<ConnectionKey> =
        (0..32).map(|number| world.logged_in(["han", "leia", "luke", "yoda"][number % 4])).collect();
    keys.iter().for_each(|key| drop(world.frames(*key)));
    let command = |text: &str| format!("{}\n", json!({"type": "command", "text": text}));
    world.disk_is_slow = true;
    world.send(keys[0], command("/msgto han zero"));
    // All their answers wait for that message to be durable.
    keys[1..].iter().for_each(|key| world.send(*key, command("/help").repeat(COMMANDS)));
    world.disk_is_slow = false;
    world.sync();
    let mut bytes = 0;
    for key in &keys[1..] {
        let told = world.text(*key);
        assert_eq!(told.lines().filter(|line| line.contains("\"command\":\"help\"")).count(), COMMANDS);
        bytes += told.len();
    }
    let limit = 3 * messenger::server::limits::BATCH_BYTES_MAX;
    assert!(bytes > 2 * limit && world.most_output_bytes < limit, "{} of {bytes} bytes", world.most_output_bytes);
}
