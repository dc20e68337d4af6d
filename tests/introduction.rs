//! Peer transfers as the server sees them: introduced, passed on, ended once.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/world.rs"]
mod world;

use messenger::chat::{Event, Outcome};
use serde_json::{Value, json};
use world::World;

fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}

fn offer(number: u8, to: &str) -> Value {
    json!({"type": "offer", "to": to, "transfer": format!("{number:032x}"), "key": "aa", "files": [{"name": "a", "size": 5}]})
}

fn accept(number: u8) -> Value {
    json!({"type": "answer", "transfer": format!("{number:032x}"), "accept": true, "key": "bb"})
}

fn decline(number: u8) -> Value {
    json!({"type": "answer", "transfer": format!("{number:032x}"), "accept": false, "automatic": true})
}

fn done(number: u8) -> Value {
    json!({"type": "transfer", "transfer": format!("{number:032x}"), "outcome": "done", "bytes": 5, "hash": "c".repeat(64)})
}

/// How the transfers so far have ended.
fn outcomes(world: &World) -> Vec<Outcome> {
    let ended = |event: Event| match event {
        Event::TransferEnded { outcome, .. } => Some(outcome),
        _ => None,
    };
    world.events().into_iter().filter_map(|record| ended(record.event)).collect()
}

#[test]
fn a_transfer_is_introduced_and_its_end_recorded_once() {
    let mut world = World::new();
    let (han, leia, leia_too) = (world.logged_in("han"), world.logged_in("leia"), world.logged_in("leia"));
    let transfer = "0123456789abcdef0123456789abcdef";
    let offer = json!({"type": "offer", "id": 1, "to": "leia", "transfer": transfer, "key": "aa",
        "files": [{"name": "a.mp4", "size": 5}], "addrs": ["127.0.0.1:6000"]});
    assert_eq!(world.ask(han, &offer)["type"], "ok");
    let frames = world.frames(leia);
    assert_eq!(types(&frames), ["transfer_offered", "offer"]);
    assert_eq!((&frames[1]["from"], &frames[1]["seq"]), (&json!("han"), &frames[0]["seq"]));
    assert_eq!(frames[1]["addrs"], json!(["127.0.0.1:6000"]));
    world.frames(leia_too);
    let answer = json!({"type": "answer", "id": 2, "transfer": transfer, "accept": true, "key": "bb", "addrs": ["127.0.0.1:7000"]});
    assert_eq!(world.ask(leia, &answer)["type"], "ok");
    let frames = world.frames(han);
    assert_eq!(types(&frames), ["transfer_answered", "answer"]);
    assert_eq!(frames[1]["addrs"], json!(["127.0.0.1:7000"]));
    let frames = world.frames(leia_too);
    assert_eq!(types(&frames), ["transfer_answered", "answer"]);
    assert_eq!(frames[1]["addrs"], Value::Null, "who did not accept learns no address");
    let done = json!({"type": "transfer", "transfer": transfer, "outcome": "done", "bytes": 5, "hash": "c".repeat(64), "path": "direct"});
    assert_eq!(world.ask(han, &done)["seq"], Value::Null, "the receiver's word counts");
    assert!(world.ask(leia, &done)["seq"].is_u64());
    assert_eq!(types(&world.frames(han)), ["transfer_ended"]);
    world.disconnect(leia);
    let ended = world.events().iter().filter(|record| record.event.kind() == "transfer_ended").count();
    assert_eq!(ended, 1);
}

#[test]
fn an_offer_ends_with_its_sender_after_ten_minutes_or_when_all_have_declined() {
    let mut world = World::new();
    let (han, leia, leia_too) = (world.logged_in("han"), world.logged_in("leia"), world.logged_in("leia"));
    let ended = |world: &World| outcomes(world).len();
    world.ask(han, &offer(1, "leia"));
    world.ask(leia, &decline(1));
    assert_eq!(ended(&world), 0);
    world.ask(leia_too, &decline(1));
    assert_eq!(ended(&world), 1);
    world.ask(han, &offer(2, "leia"));
    for _ in 0..10 {
        world.wait(60_000);
        for key in [han, leia, leia_too] {
            world.send(key, "{\"type\":\"pong\"}\n");
        }
    }
    assert_eq!(ended(&world), 2);
    world.ask(han, &offer(3, "leia"));
    world.disconnect(han);
    assert_eq!(ended(&world), 3);
}

#[test]
fn an_offer_needs_a_session_that_can_take_it() {
    let mut world = World::new();
    let han = world.logged_in("han");
    assert_eq!(world.ask(han, &offer(1, "leia"))["code"], "no_such_peer");
    assert_eq!(world.ask(han, &offer(1, "han"))["code"], "no_such_peer", "not to the own session");
    let plain = world.connect();
    world.send(plain, format!("/login leia {}\n", world::PASSWORD));
    assert_eq!(world.ask(han, &offer(1, "leia"))["code"], "no_such_peer", "who speaks plain lines takes no file");
    let other = world.logged_in("han");
    assert_eq!(world.ask(han, &offer(1, "han"))["type"], "ok");
    assert_eq!(types(&world.frames(other)), ["transfer_offered", "offer"]);
}

#[test]
fn an_offer_to_oneself_that_no_session_can_take_is_cancelled_and_declined_by_nobody() {
    let mut world = World::new();
    let (sender, other) = (world.logged_in("han"), world.logged_in("han"));
    assert_eq!(world.ask(sender, &offer(1, "han"))["type"], "ok");
    world.disconnect(other);
    assert_eq!(outcomes(&world), []);
    world.disconnect(sender);
    assert_eq!(outcomes(&world), [Outcome::Cancelled]);
}

#[test]
fn an_offer_is_declined_when_the_last_session_that_has_not_declined_leaves() {
    let mut world = World::new();
    let (han, script, person) = (world.logged_in("han"), world.logged_in("leia"), world.logged_in("leia"));
    world.ask(han, &offer(1, "leia"));
    world.ask(script, &decline(1));
    world.frames(han);
    world.disconnect(person);
    assert_eq!(outcomes(&world), [Outcome::Declined]);
    let told = world.frames(han);
    assert_eq!(told.last().unwrap()["accept"], false, "{told:?}");
}

#[test]
fn a_receiver_that_comes_back_at_once_says_how_it_ended() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    world.ask(han, &offer(1, "leia"));
    world.ask(leia, &accept(1));
    world.disconnect(leia);
    world.wait(4_000);
    let leia = world.logged_in("leia");
    world.wait(30_000);
    assert_eq!(outcomes(&world), []);
    world.ask(leia, &done(1));
    assert_eq!(outcomes(&world), [Outcome::Done]);
}

#[test]
fn a_receiver_that_stays_away_has_failed() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    world.ask(han, &offer(1, "leia"));
    world.ask(leia, &accept(1));
    world.disconnect(leia);
    world.wait(5_000);
    assert_eq!(outcomes(&world), [Outcome::Failed]);
}

#[test]
fn a_transfer_goes_on_while_the_server_is_away_and_is_recorded_as_it_ended() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    world.ask(han, &offer(1, "leia"));
    world.ask(leia, &accept(1));
    world.ask(han, &offer(2, "leia"));
    let mut world = world.crash();
    let leia = world.logged_in("leia");
    world.wait(61_000);
    assert_eq!(outcomes(&world), [Outcome::Cancelled], "the offer that nobody had answered");
    world.ask(leia, &done(1));
    assert_eq!(outcomes(&world), [Outcome::Cancelled, Outcome::Done]);
}
