//! Many clients, a server and a disk in one thread, driven by a seed: connections break, the power is cut between any two
//! calls of the disk and again while the next server starts, syncs fail, the disk fills up and empties. Against a shadow
//! model: whatever was acknowledged is in the log, once and in order, and every client got what it was owed, once and in
//! order.
//!
//! A failure names its seed: `SIMULATION_SEED=7 cargo test --test simulation` runs that one alone.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/random.rs"]
mod random;
#[path = "support/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use messenger::chat::{Event, State};
use messenger::eventlog::Storage;
use messenger::eventlog::memory::Faults;
use messenger::server::ConnectionKey;
use random::Random;
use serde_json::{Value, json};
use world::World;

const SEEDS: u64 = 1_500;
const STEPS: usize = 250;
/// Segments are closed at this length, so that most of a run is in closed ones.
const SEGMENT_BYTES: u64 = 2 << 10;
const USERS: [&str; 4] = ["han", "leia", "luke", "yoda"];
const GROUPS: [&str; 2] = ["falcon", "jedi"];

/// A client with a device, as the protocol wants one: a cursor, an outbox, and numbers without gaps.
struct SimulatedClient {
    user: &'static str,
    device: String,
    connection: Option<ConnectionKey>,
    is_logged_in: bool,
    /// What it logs in by in place of the password, until the server has lost it.
    token: Option<String>,
    cursor: u64,
    /// Commands not yet sent, or to be sent again.
    outbox: VecDeque<String>,
    /// Sent and not yet answered, with their numbers.
    under_way: VecDeque<(u64, String)>,
    sent: u64,
    /// After a refusal: nothing is sent until all that was under way is answered.
    is_renumbering: bool,
    /// Every event received.
    received: Vec<(u64, String)>,
    /// Texts of messages that were answered `ok`, or known by `sent` to be in the log.
    done: Vec<String>,
    refused: BTreeSet<String>,
    partial: String,
}

struct Simulation {
    seed: u64,
    random: Random,
    world: World,
    clients: Vec<SimulatedClient>,
    texts: u64,
    /// Event lines that anybody was shown or told of.
    seen: BTreeMap<u64, String>,
}

impl SimulatedClient {
    fn new(user: &'static str, device: String) -> Self {
        Self {
            user,
            device,
            connection: None,
            is_logged_in: false,
            token: None,
            cursor: 0,
            outbox: VecDeque::new(),
            under_way: VecDeque::new(),
            sent: 0,
            is_renumbering: false,
            received: Vec::new(),
            done: Vec::new(),
            refused: BTreeSet::new(),
            partial: String::new(),
        }
    }

    fn break_off(&mut self) {
        self.connection = None;
        self.is_logged_in = false;
        self.is_renumbering = false;
        self.partial.clear();
    }

    /// What is left of what was under way goes back into the outbox.
    fn handle_login(&mut self, sent: u64) {
        assert!(sent >= self.sent, "{}: numbers are for ever", self.device);
        self.is_logged_in = true;
        while let Some((id, command)) = self.under_way.pop_back() {
            if id <= sent {
                self.done.push(command);
            } else {
                self.put_back(command);
            }
        }
        self.sent = sent;
    }

    fn handle_ok(&mut self, id: u64) {
        let (expected, command) = self.under_way.pop_front().expect("an answer to a command");
        assert_eq!(id, expected, "answers come in order");
        self.sent = id;
        self.done.push(command);
    }

    fn handle_error(&mut self, id: u64, code: &str) {
        let (expected, command) = self.under_way.pop_front().expect("an answer to a command");
        assert_eq!(id, expected, "answers come in order");
        match code {
            "out_of_order" => {
                assert!(self.is_renumbering, "out of order without a refusal before");
                self.put_back(command);
            }
            "storage_failed" => self.put_back(command),
            "usage" | "group_exists" | "not_invited" | "not_joined" | "already_joined" | "already_invited"
            | "unknown_group" => {
                self.refused.insert(command);
            }
            other => panic!("unexpected refusal {other} of {command}"),
        }
        self.is_renumbering = !self.under_way.is_empty();
    }

    /// A command that was not carried out is sent again, in the order in which they were thought of.
    fn put_back(&mut self, command: String) {
        let place = self.outbox.partition_point(|other| order(other) < order(&command));
        self.outbox.insert(place, command);
    }
}

/// When a command was thought of: its last word.
fn order(command: &str) -> u64 {
    command.rsplit('#').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut clients: Vec<SimulatedClient> =
            USERS.iter().map(|user| SimulatedClient::new(user, format!("{user}-laptop"))).collect();
        clients.push(SimulatedClient::new("han", "han-phone".into()));
        clients.push(SimulatedClient::new("leia", "leia-phone".into()));
        let (random, world) = (Random::new(seed), World::with_segments(SEGMENT_BYTES));
        Self { seed, random, world, clients, texts: 0, seen: BTreeMap::new() }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.listen();
        }
        self.heal();
        self.check();
        self.check_histories();
    }

    fn step(&mut self) {
        let client = self.random.below(self.clients.len());
        match self.random.below(100) {
            0..40 => self.think(client),
            40..65 => self.talk(client),
            65..72 => self.break_off(client),
            72..75 => self.world.disk_is_slow = !self.world.disk_is_slow,
            75 => {
                self.world.writes_per_turn = if self.random.one_in(2) { 1 + self.random.below(3) } else { usize::MAX }
            }
            76..78 => self.world.archivist_is_slow = !self.world.archivist_is_slow,
            78..82 => self.world.sync(),
            82..84 => self.world.archive(),
            84..86 => self.spoil_archive(),
            86..88 => self.world.wait(self.random.next() % 20_000),
            88..92 => self.set_deaf(client),
            92..94 => self.crash(),
            94..96 => {
                let faults = Faults { sync_fails_after: Some(self.random.next() % 3), ..Faults::default() };
                self.world.disk.set_faults(faults);
            }
            96..98 => {
                let room_bytes = if self.random.one_in(2) { Some(self.random.next() % 100_000) } else { None };
                self.world.disk.set_faults(Faults { room_bytes, ..Faults::default() });
            }
            _ => {
                self.talk(client);
                self.send_half_a_line(client);
            }
        }
        if self.world.has_failed {
            self.crash();
        }
    }

    /// A person has an idea.
    fn think(&mut self, client: usize) {
        self.texts += 1;
        let number = self.texts;
        let (user, group) = (*self.random.pick(&USERS), *self.random.pick(&GROUPS));
        let command = match self.random.below(12) {
            0 => format!("/creategroup {group} {user} {}", self.random.pick(&USERS)),
            1 => format!("/invite {group} {user}"),
            2 | 3 => format!("/joingroup {group}"),
            4 => format!("/leavegroup {group}"),
            5..8 => format!("/groupmsg {group} message #{number}"),
            _ => format!("/msgto {user} message #{number}"),
        };
        // Commands without a text are told apart by what the number behind them is remembered as.
        let command = if command.contains('#') { command } else { format!("{command} #{number}") };
        self.clients[client].outbox.push_back(command);
    }

    /// Connects, or sends what is waiting.
    fn talk(&mut self, client: usize) {
        let Some(key) = self.clients[client].connection else { return self.connect(client) };
        let most = self.random.below(4) + 1;
        let client = &mut self.clients[client];
        if !client.is_logged_in || client.is_renumbering {
            return;
        }
        let mut lines = String::new();
        while client.under_way.len() < most {
            let Some(command) = client.outbox.pop_front() else { break };
            let id = client.under_way.back().map_or(client.sent, |(id, _)| *id) + 1;
            lines += &format!("{}\n", json!({"type": "command", "id": id, "text": text_of(&command)}));
            client.under_way.push_back((id, command));
        }
        self.world.send(key, lines);
    }

    fn connect(&mut self, number: usize) {
        let key = self.world.connect();
        let client = &mut self.clients[number];
        client.connection = Some(key);
        let (user, device) = (client.user, &client.device);
        let mut login =
            json!({"type": "login", "username": user, "device": device, "after": client.cursor, "want_token": true});
        let (field, proof) = client.token.as_deref().map_or(("password", world::PASSWORD), |token| ("token", token));
        login[field] = proof.into();
        self.world.send(key, format!("{login}\n"));
    }

    fn break_off(&mut self, client: usize) {
        if let Some(key) = self.clients[client].connection {
            self.clients[client].break_off();
            self.world.disconnect(key);
        }
    }

    fn set_deaf(&mut self, client: usize) {
        if let Some(key) = self.clients[client].connection {
            let room = self.random.one_in(2).then(|| self.random.below(3) * self.random.below(1_000));
            self.world.set_room(key, room);
        }
    }

    /// The connection breaks in the middle of a line, which must not have happened.
    fn send_half_a_line(&mut self, client: usize) {
        if let Some(key) = self.clients[client].connection {
            self.world.send(key, "{\"type\":\"command\",\"text\":\"/msgto han never #0");
            self.break_off(client);
        }
    }

    /// The power is cut between two calls of the disk, with a part of what was not synced on it, and comes back; perhaps
    /// it is cut again while the next server starts. A server whose log has failed may also start again on a machine that
    /// goes on.
    fn crash(&mut self) {
        let mut is_cut = !self.world.has_failed || self.random.one_in(2);
        if self.random.one_in(2) && !self.world.has_failed {
            let power_fails_after = Some(self.random.next() % 12);
            self.world.disk.set_faults(Faults { power_fails_after, ..Faults::default() });
            self.world.sync();
            self.world.archive();
        }
        let (disk, passed_ms) = (self.world.disk.clone(), self.world.passed_ms());
        self.world = loop {
            let mut coins = Random::new(self.random.next());
            if is_cut {
                disk.cut_power(|| coins.one_in(2));
            }
            let power_fails_after = self.random.one_in(4).then(|| self.random.next() % 24);
            disk.set_faults(Faults { power_fails_after, ..Faults::default() });
            match World::start(disk.clone(), world::options(), passed_ms, SEGMENT_BYTES) {
                Ok(world) if !world.has_failed => break world,
                Ok(_) => {}
                Err(error) => assert!(error.contains("the power is off"), "the server refuses to start: {error}"),
            }
            is_cut = true;
        };
        disk.set_faults(Faults::default());
        self.clients.iter_mut().for_each(SimulatedClient::break_off);
    }

    /// What was derived from closed segments is lost or damaged, or something else lies there.
    fn spoil_archive(&mut self) {
        let directory = *self.random.pick(&["index", "snapshots"]);
        let files = self.world.disk.beside(directory);
        let names = files.list().unwrap();
        if names.is_empty() || self.random.one_in(8) {
            files.put("notes.txt", b"hello".to_vec());
            return;
        }
        let name = self.random.pick(&names).clone();
        if self.random.one_in(2) {
            self.world.reopen_archive();
        }
        let content = files.content(&name).unwrap();
        match self.random.below(4) {
            0 => drop(files.remove(&name)),
            1 => files.put(&name, content[..self.random.below(content.len() + 1)].to_vec()),
            2 => files.put(&name, files.content(self.random.pick::<String>(&names)).unwrap()),
            _ => {
                let place = self.random.below(content.len().max(1));
                files.flip(&name, place, u32::try_from(self.random.below(8)).unwrap());
            }
        }
    }

    /// Every client takes in what it was sent.
    fn listen(&mut self) {
        for number in 0..self.clients.len() {
            let Some(key) = self.clients[number].connection else { continue };
            let text = self.world.text(key);
            let client = &mut self.clients[number];
            client.partial += &text;
            while let Some(end) = client.partial.find('\n') {
                let line: String = client.partial.drain(..=end).collect();
                let frame: Value = serde_json::from_str(&line).unwrap();
                if let Some(seq) = take_in(client, &frame, &line) {
                    let before = self.seen.insert(seq, line.clone());
                    assert!(before.is_none_or(|before| before == line), "event {seq} is always the same");
                }
                if client.connection.is_none() {
                    break;
                }
            }
            if self.world.is_closed(key) {
                self.break_off(number);
            }
        }
    }

    /// All is well again: everybody connects, and sends and reads until nothing is left.
    fn heal(&mut self) {
        self.world.disk.set_faults(Faults::default());
        self.world.disk_is_slow = false;
        self.world.writes_per_turn = usize::MAX;
        self.world.sync();
        if self.world.has_failed {
            self.crash();
        }
        for turn in 0..400 {
            for client in 0..self.clients.len() {
                if let Some(key) = self.clients[client].connection {
                    self.world.set_deaf(key, false);
                }
                self.listen();
                self.talk(client);
            }
            self.listen();
            let is_done = |client: &SimulatedClient| {
                client.is_logged_in && client.outbox.is_empty() && client.under_way.is_empty()
            };
            // One turn more, in which what was said last arrives.
            if turn > 0 && self.clients.iter().all(is_done) {
                break;
            }
        }
        self.listen();
        for client in &self.clients {
            let left = client.outbox.len() + client.under_way.len();
            assert_eq!(left, 0, "{} is stuck", client.device);
        }
    }

    fn check(&self) {
        let log = self.world.log();
        let lines: Vec<&str> = log.split_inclusive('\n').collect();
        for (seq, line) in &self.seen {
            let place = usize::try_from(*seq - 1).unwrap();
            assert_eq!(lines.get(place), Some(&line.as_str()), "event {seq} was seen and is in the log as it was");
        }
        self.check_messages();
        self.check_deliveries(&lines);
        let mut folded = State::default();
        self.world.events().iter().for_each(|record| folded.apply(record.seq, record.at, &record.event));
        assert_eq!(&folded, self.world.hub.state(), "the fold of the log is the state");
    }

    /// What each client has had carried out is in the log exactly once, in its order; what was refused is not.
    fn check_messages(&self) {
        for client in &self.clients {
            let mut in_log = Vec::new();
            for record in self.world.events() {
                if let Event::Message { from, text, origin: Some(origin), .. }
                | Event::GroupMessage { from, text, origin: Some(origin), .. } = &record.event
                    && from.as_str() == client.user
                    && origin.device.as_str() == client.device
                {
                    in_log.push(order(text.as_str()));
                }
            }
            let is_message = |command: &&String| command.starts_with("/msgto") || command.starts_with("/groupmsg");
            let mut done: Vec<u64> = client.done.iter().filter(is_message).map(|command| order(command)).collect();
            done.sort_unstable();
            assert_eq!(in_log, done, "{}: every message once, in order", client.device);
            assert!(client.refused.iter().all(|command| !in_log.contains(&order(command)) || !is_message(&command)));
        }
    }

    /// Page by page to its beginning, the history of each conversation is what the log has of it.
    fn check_histories(&mut self) {
        let events: Vec<Value> = self.world.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // On a disk that was full the first who is refused makes the server ask for room again.
        let key = self.world.login(USERS[0]);
        self.world.disconnect(key);
        for user in USERS {
            let key = self.world.logged_in(user);
            let groups: Vec<Value> = self.world.command(key, "/groups")["groups"].as_array().unwrap().clone();
            for other in USERS {
                let is_ours = |event: &&Value| {
                    event["type"] == "message"
                        && (event["from"] == user && event["to"] == other
                            || event["from"] == other && event["to"] == user)
                };
                let expected: Vec<Value> = events.iter().filter(is_ours).cloned().collect();
                assert_eq!(self.history(key, other), expected, "between {user} and {other}");
            }
            let is_joined = |group: &Value| group["joined"].as_array().unwrap().iter().any(|name| name == user);
            for group in groups.into_iter().filter(is_joined) {
                let name = group["group"].as_str().unwrap();
                let expected: Vec<Value> = events.iter().filter(|event| event["group"] == name).cloned().collect();
                assert_eq!(self.history(key, &format!("#{name}")), expected, "of {name}, for {user}");
            }
            self.world.disconnect(key);
        }
    }

    fn history(&mut self, key: ConnectionKey, place: &str) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        loop {
            let count = self.random.below(20) + 1;
            let before = events.first().map(|event| format!(" before {}", event["seq"])).unwrap_or_default();
            let answer = self.world.command(key, &format!("/history {place} {count}{before}"));
            if self.random.one_in(4) {
                self.spoil_archive();
            }
            let page = answer["events"].as_array().unwrap_or_else(|| panic!("{answer}"));
            events.splice(0..0, page.iter().cloned());
            if answer["more"] == false {
                return events;
            }
            assert_eq!(page.len(), count, "there are more");
        }
    }

    /// What each client was owed it has received, once, in order; by the rules written down a second time here.
    fn check_deliveries(&self, lines: &[&str]) {
        for client in &self.clients {
            let received: Vec<u64> = client.received.iter().map(|(seq, _)| *seq).collect();
            assert!(received.is_sorted_by(|one, next| one < next), "{}: {received:?} rises", client.device);
            let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (seq, line) in (1..).zip(lines) {
                let event: Value = serde_json::from_str(line).unwrap();
                let is_own = event["device"] == client.device.as_str() && !event["id"].is_null();
                if is_owed(&mut groups, &event, client.user) && !is_own {
                    assert!(received.contains(&seq), "{} has not got {line}", client.device);
                } else if received.contains(&seq) {
                    assert!(is_own, "{} has got {line}", client.device);
                }
            }
        }
    }
}

/// The command as it is sent: a number behind one without a text is only remembered.
fn text_of(command: &str) -> &str {
    let has_text = command.starts_with("/msgto") || command.starts_with("/groupmsg");
    if has_text { command } else { command.split(" #").next().unwrap() }
}

/// A client takes in one frame; the number of the event, if it is one.
fn take_in(client: &mut SimulatedClient, frame: &Value, line: &str) -> Option<u64> {
    let id = frame["id"].as_u64();
    match frame["type"].as_str().unwrap() {
        "ok" if frame["command"] == "login" => {
            client.token = Some(frame["token"].as_str().unwrap().to_owned());
            client.handle_login(frame["sent"].as_u64().unwrap());
        }
        "ok" => client.handle_ok(id.unwrap()),
        "error" if frame["code"] == "replaced" || frame["code"] == "shutting_down" => client.break_off(),
        "error" if !client.is_logged_in => {
            client.token = client.token.take().filter(|_| frame["code"] != "bad_credentials");
            client.break_off();
        }
        "error" => client.handle_error(id.unwrap(), frame["code"].as_str().unwrap()),
        "live" => client.cursor = client.cursor.max(frame["seq"].as_u64().unwrap()),
        "ping" => {}
        _ => {
            let seq = frame["seq"].as_u64().unwrap();
            assert!(seq > client.cursor, "{}: {line} came twice", client.device);
            client.cursor = seq;
            client.received.push((seq, line.to_owned()));
            return Some(seq);
        }
    }
    None
}

/// Whether an event is pushed to a user, by the protocol's table; keeps the groups up to date on the way.
fn is_owed(groups: &mut BTreeMap<String, BTreeSet<String>>, event: &Value, user: &str) -> bool {
    let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let is_invited = event["invited"].as_array().is_some_and(|invited| invited.iter().any(|name| name == user));
    let members = groups.entry(text("group")).or_default();
    match event["type"].as_str().unwrap() {
        "message" => event["from"] == user || event["to"] == user,
        "group_message" => members.contains(user),
        "group_created" => {
            members.insert(text("by"));
            is_invited || event["by"] == user
        }
        "group_invited" => members.contains(user) || is_invited,
        "group_joined" => {
            members.insert(text("user"));
            members.contains(user)
        }
        "group_left" => {
            let was_member = members.contains(user);
            members.remove(&text("user"));
            was_member
        }
        _ => false,
    }
}

#[test]
fn whatever_breaks_nothing_is_lost_and_nothing_doubled() {
    let seeds = match std::env::var("SIMULATION_SEED") {
        Ok(seed) => vec![seed.parse().expect("SIMULATION_SEED is a number")],
        Err(_) => (0..SEEDS).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            simulation.run();
            assert_eq!(simulation.seed, seed);
            simulation.world.events().len()
        });
        if let Err(panic) = run {
            eprintln!("the simulation failed with SIMULATION_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
