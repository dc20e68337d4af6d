//! More asked for than the disk or the batch takes: what waits is bounded, and nobody waits for ever.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/world.rs"]
mod world;

use serde_json::json;
use world::World;

/// So many times the longest answer there is to a short question.
fn helps(count: usize) -> String {
    format!("{}\n", json!({"type": "command", "text": "/help"})).repeat(count)
}

#[test]
fn while_the_disk_is_slow_answers_pile_up_only_so_far() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    world.disk_is_slow = true;
    world.send(han, format!("{}\n", json!({"type": "command", "text": "/msgto leia hi"})));
    let mut sent = 0;
    while !world.hub.is_overloaded() {
        world.send(leia, helps(100));
        sent += 100;
        assert!(sent < 10_000, "nothing stops what waits for the disk");
    }
    // What it has to say is only put off: nobody would tell the loop of its socket again.
    assert!(world.hub.wants_bytes(han));
    world.sync();
    assert!(!world.hub.is_overloaded());
    let frames = world.frames(leia);
    assert_eq!(frames.len(), sent + 1, "all is answered, and the message comes");
}

#[test]
fn who_had_to_wait_for_the_answers_of_another_is_answered_though_nothing_happens() {
    let mut world = World::new();
    let (han, leia) = (world.logged_in("han"), world.logged_in("leia"));
    let now = world.now();
    for _ in 0..100 {
        world.hub.handle_bytes(han, helps(100).as_bytes(), now);
    }
    assert!(world.hub.is_overloaded());
    world.send(leia, helps(1));
    assert_eq!(world.frames(leia).len(), 1);
}
