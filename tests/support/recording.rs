//! A run of a server on a disk that records its calls: with it the power can be cut behind each of them, afterwards, as
//! often as wanted.
#![allow(dead_code, reason = "each test uses the parts that it needs")]

use messenger::chat::Seq;
use messenger::clock::Timestamp;
use messenger::eventlog::memory::{DiskImage, Faults, MemoryDisk};
use messenger::server::ConnectionKey;
use serde_json::json;

use crate::history::History;
use crate::random::Random;
use crate::world::{self, World};

/// Segments are closed at this length, so that a short run closes several.
pub const SEGMENT_BYTES: u64 = 1_536;
const STEPS: usize = 48;
const USERS: [&str; 4] = ["han", "leia", "luke", "yoda"];
const GROUPS: [&str; 2] = ["falcon", "jedi"];

/// A run, and what it wrote.
pub struct Recording {
    /// The disk at the start, and behind each call.
    pub images: Vec<DiskImage>,
    /// The last event that anybody may have been told of by then.
    pub acknowledged: Vec<Seq>,
    pub history: History,
    /// When it ended.
    pub now: Timestamp,
    /// The disk as it was in the end.
    pub disk: MemoryDisk,
}

struct Run {
    random: Random,
    world: World,
    keys: Vec<ConnectionKey>,
    said: u64,
    transfers: u64,
    acknowledged: Vec<(usize, Seq)>,
}

impl Recording {
    /// Runs a server with a few clients on a disk with these faults. `is_stopped` is whether it is stopped in the end.
    pub fn make(seed: u64, faults: Faults, is_stopped: bool) -> Self {
        let disk = MemoryDisk::default();
        disk.set_faults(faults);
        disk.start_recording();
        let world = World::on_segments(disk.clone(), world::options(), 0, SEGMENT_BYTES);
        let mut run =
            Run { random: Random::new(seed), world, keys: Vec::new(), said: 0, transfers: 0, acknowledged: Vec::new() };
        (0..STEPS).for_each(|_| run.step());
        run.world.disk_is_slow = false;
        run.world.sync();
        if is_stopped {
            run.restart();
        }
        run.world.archive();
        let Run { mut world, mut acknowledged, .. } = run;
        assert!(!world.has_failed);
        let history = History::new(&world.log());
        let now = world.now().at;
        acknowledged.append(&mut world.acknowledged);
        let images = disk.take_recording();
        let acknowledged = by_image(images.len(), &acknowledged);
        Self { images, acknowledged, history, now, disk }
    }
}

/// What was acknowledged behind each of so many calls; `marks` have how many had been made when an event was.
pub fn by_image(images: usize, marks: &[(usize, Seq)]) -> Vec<Seq> {
    let mut acknowledged = vec![0; images];
    for (calls, seq) in marks {
        // The image with this number is that behind the last call that had been made.
        let from = calls.saturating_sub(1);
        acknowledged[from..].iter_mut().for_each(|known| *known = (*known).max(*seq));
    }
    acknowledged
}

impl Run {
    fn step(&mut self) {
        if self.keys.is_empty() || (self.keys.len() < USERS.len() && self.random.one_in(6)) {
            let user = USERS[self.keys.len()];
            let key = self.world.login(user);
            self.keys.push(key);
        }
        match self.random.below(24) {
            0..10 => self.say(),
            10..14 => self.say_in_a_group(),
            14 | 15 => self.world.disk_is_slow = !self.world.disk_is_slow,
            16 => self.world.sync(),
            17 => self.world.archivist_is_slow = !self.world.archivist_is_slow,
            18 => self.world.archive(),
            19 | 20 => {
                let ms = self.random.next() % 2_000;
                self.world.wait(ms);
            }
            21 => self.offer(),
            22 => {
                if let Some(key) = self.keys.pop() {
                    self.world.disconnect(key);
                }
            }
            _ if self.random.one_in(3) => self.restart(),
            _ => self.say(),
        }
    }

    fn command(&mut self, text: &str) {
        let key = *self.random.pick(&self.keys);
        self.world.send(key, format!("{}\n", json!({"type": "command", "text": text})));
    }

    fn say(&mut self) {
        self.said += 1;
        let text = "and so on ".repeat(self.random.below(8).pow(2));
        let command = format!("/msgto {} number {} {text}", self.random.pick(&USERS), self.said);
        self.command(&command);
    }

    fn say_in_a_group(&mut self) {
        self.said += 1;
        let (group, user) = (*self.random.pick(&GROUPS), *self.random.pick(&USERS));
        let command = match self.random.below(6) {
            0 => format!("/creategroup {group} {user}"),
            1 => format!("/invite {group} {user}"),
            2 => format!("/joingroup {group}"),
            3 if self.random.one_in(3) => format!("/leavegroup {group}"),
            _ => format!("/groupmsg {group} number {}", self.said),
        };
        self.command(&command);
    }

    fn offer(&mut self) {
        self.transfers += 1;
        let transfer = format!("{:032x}", self.transfers);
        let key = *self.random.pick(&self.keys);
        let offer = json!({"type": "offer", "to": self.random.pick(&USERS), "transfer": transfer, "key": "aa",
            "addrs": [], "files": [{"name": "f", "size": 1}]});
        self.world.send(key, format!("{offer}\n"));
        let key = *self.random.pick(&self.keys);
        self.world.send(key, format!("{}\n", json!({"type": "answer", "transfer": transfer, "accept": false})));
    }

    /// The server stops, and another goes on.
    fn restart(&mut self) {
        self.keys.clear();
        let passed_ms = self.world.passed_ms();
        let mut old = std::mem::replace(&mut self.world, World::new());
        self.acknowledged.append(&mut old.acknowledged);
        let (disk, mut acknowledged) = old.stop();
        self.acknowledged.append(&mut acknowledged);
        self.world = World::on_segments(disk, world::options(), passed_ms, SEGMENT_BYTES);
    }
}
