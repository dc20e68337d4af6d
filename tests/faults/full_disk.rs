//! A disk that fills up and empties while users talk: what it has no room for is refused and did not happen, what was
//! answered is there, and when there is room again the server goes on.

use messenger::chat::Event;
use messenger::eventlog::memory::{Faults, MemoryDisk};
use messenger::server::ConnectionKey;
use serde_json::{Value, json};

use crate::random::Random;
use crate::world::{self, World};

const SEEDS: u64 = 60;
const STEPS: usize = 250;
const SEGMENT_BYTES: u64 = 160 << 10;
/// The disk, when it has room.
const ROOM_BYTES: u64 = 64 << 20;

struct Talk {
    random: Random,
    world: World,
    han: Option<ConnectionKey>,
    texts: usize,
    /// What was answered `ok`, in order.
    said: Vec<String>,
    refused: Vec<String>,
}

impl Talk {
    fn new(seed: u64, room_is_a_lie: bool) -> Self {
        let disk = MemoryDisk::default();
        disk.set_faults(Faults { room_bytes: Some(ROOM_BYTES), ..Faults::default() });
        let mut world = World::on_segments(disk, world::options(), 0, SEGMENT_BYTES);
        world.room_is_a_lie = room_is_a_lie;
        Self { random: Random::new(seed), world, han: None, texts: 0, said: Vec::new(), refused: Vec::new() }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => {
                let bound = *self.random.pick(&[ROOM_BYTES, 1 << 20, 8 << 10]);
                let room_bytes = Some(self.random.next() % bound);
                let freed_room_is_taken = self.random.one_in(2);
                self.world.disk.set_faults(Faults { room_bytes, freed_room_is_taken, ..Faults::default() });
            }
            1 => {
                if let Some(han) = self.han.take() {
                    self.world.disconnect(han);
                }
            }
            2 => {
                let ms = self.random.next() % 2_000;
                self.world.wait(ms);
            }
            3 => self.world.archivist_is_slow = !self.world.archivist_is_slow,
            _ => {
                self.say();
            }
        }
    }

    /// Logs in where that is needed, and says something. Gives whether it was said.
    fn say(&mut self) -> bool {
        let Some(han) = self.han.or_else(|| self.login()) else { return false };
        self.han = Some(han);
        self.texts += 1;
        let text = format!("number {} {}", self.texts, "x".repeat(self.random.below(8_000)));
        let command = json!({"type": "command", "text": format!("/msgto leia {text}")});
        self.world.send(han, format!("{command}\n"));
        match self.answer(han) {
            Some(answer) if answer["type"] == "ok" => self.said.push(text),
            Some(answer) => {
                assert_eq!(answer["code"], "storage_failed", "{answer}");
                self.refused.push(text);
                return false;
            }
            None => assert!(self.world.has_failed, "every command is answered"),
        }
        true
    }

    fn login(&mut self) -> Option<ConnectionKey> {
        let key = self.world.login("han");
        match self.answer(key) {
            Some(answer) if answer["type"] == "ok" => return Some(key),
            Some(answer) => assert_eq!(answer["code"], "storage_failed", "{answer}"),
            None => assert!(self.world.has_failed, "every login is answered"),
        }
        self.world.disconnect(key);
        None
    }

    fn answer(&mut self, key: ConnectionKey) -> Option<Value> {
        let frames = self.world.frames(key);
        frames.into_iter().find(|frame| frame["type"] == "ok" || frame["type"] == "error")
    }

    /// There is room, the power is cut, and another server starts: what was answered is there, what was refused is not.
    fn check(mut self) {
        self.world.disk.set_faults(Faults::default());
        // The first who is refused makes the server look for room.
        assert!(self.say() || self.say() || self.say(), "the server goes on when there is room");
        let mut coins = Random::new(self.random.next());
        let world = self.world.crash_with(|| coins.one_in(2));
        let text = |event: &Event| match event {
            Event::Message { text, .. } => Some(text.as_str().to_owned()),
            _ => None,
        };
        let in_log: Vec<String> = world.events().iter().filter_map(|record| text(&record.event)).collect();
        assert!(in_log == self.said, "what was answered is in the log, once and in order, and nothing else");
    }
}

#[test]
fn a_disk_that_fills_up_and_empties_stops_nothing_and_loses_nothing() {
    let (mut said, mut refused) = (0, 0);
    for seed in 0..SEEDS {
        let mut talk = Talk::new(seed, false);
        for step in 0..STEPS {
            talk.step();
            assert!(!talk.world.has_failed, "seed {seed}, step {step}: the log failed on a disk that was full");
        }
        said += talk.said.len();
        refused += talk.refused.len();
        talk.check();
    }
    assert!(said > 2_000 && refused > 200, "{said} were said, {refused} refused");
}

#[test]
fn a_server_that_does_not_ask_for_room_first_fails_and_that_is_found() {
    let fails = |seed| {
        let mut talk = Talk::new(seed, true);
        (0..STEPS).any(|_| {
            talk.step();
            talk.world.has_failed
        })
    };
    assert!((0..SEEDS).any(fails));
}
