//! A hub with clients in memory on a log on a disk in memory: no socket, no thread, a clock that the test moves.
#![allow(dead_code, reason = "each test uses the parts that it needs")]

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use messenger::chat::{Event, Policy, Record, Seq};
use messenger::clock::{Timestamp, monotonic};
use messenger::eventlog::memory::MemoryDisk;
use messenger::eventlog::{self, Batch, Log, SEGMENT_BYTES_MAX, segment_name};
use messenger::server::archive_files::ArchiveFiles;
use messenger::server::tokens::{Holder, LoginToken, Shown, Tokens};
use messenger::server::{self, Archive, ConnectionKey, Hub, HubOptions, Now, Opened, Output};
use serde_json::Value;

pub const PASSWORD: &str = "force";

/// The server's world, in memory.
pub struct World {
    pub hub: Hub,
    pub disk: MemoryDisk,
    pub console: String,
    /// Whether batches stay with the disk until [`World::sync`].
    pub disk_is_slow: bool,
    /// The most bytes that clients were told and not sent at any time.
    pub most_output_bytes: usize,
    /// Sockets written to in a turn.
    pub writes_per_turn: usize,
    /// Whether the disk gives no lines back.
    pub reads_fail: bool,
    /// Whether the disk has failed, and with it the server.
    pub has_failed: bool,
    /// Whether closed segments stay with the hub until [`World::archive`].
    pub archivist_is_slow: bool,
    /// Whether the hub is told of far more room than there is.
    pub room_is_a_lie: bool,
    /// What became durable: how many calls of the disk had been recorded by then, and the last event.
    pub acknowledged: Vec<(usize, Seq)>,
    /// What the archive and the opening had to say.
    pub notices: Vec<String>,
    archive: Archive<MemoryDisk>,
    archivist: ArchiveFiles<MemoryDisk>,
    closed: Option<Seq>,
    segment_bytes: u64,
    log: Log<MemoryDisk>,
    in_flight: Option<Batch>,
    start: Instant,
    passed_ms: u64,
    clients: HashMap<ConnectionKey, Client>,
    /// They do not outlive the server.
    tokens: Tokens,
    tokens_made: u8,
}

#[derive(Default)]
struct Client {
    received: Vec<u8>,
    /// How many bytes its socket takes before it reads again; `None` while it reads.
    room: Option<usize>,
    is_dropped: bool,
    is_shut: bool,
    writes: usize,
}

pub fn policy() -> Policy {
    let mut accounts: messenger::names::NameSet<_> =
        ["han", "leia", "luke", "yoda"].into_iter().map(|name| name.parse().unwrap()).collect();
    accounts.sort_unstable();
    Policy { failures_max: 3, accounts }
}

pub fn options() -> HubOptions {
    HubOptions {
        log: uuid::Uuid::nil(),
        commands_per_second: 0,
        allow_cleartext: false,
        connections_max: 1_000,
        console_texts: false,
    }
}

impl World {
    pub fn new() -> Self {
        Self::on(MemoryDisk::default(), options(), 0)
    }

    /// A server whose segments are closed at this length.
    pub fn with_segments(bytes: u64) -> Self {
        Self::on_segments(MemoryDisk::default(), options(), 0, bytes)
    }

    /// A server started on what an earlier one left.
    pub fn on(disk: MemoryDisk, options: HubOptions, passed_ms: u64) -> Self {
        Self::on_segments(disk, options, passed_ms, SEGMENT_BYTES_MAX)
    }

    pub fn on_segments(disk: MemoryDisk, options: HubOptions, passed_ms: u64, segment_bytes: u64) -> Self {
        Self::start(disk, options, passed_ms, segment_bytes).unwrap()
    }

    /// A server started on what an earlier one left, or why that cannot be.
    pub fn start(disk: MemoryDisk, options: HubOptions, passed_ms: u64, segment_bytes: u64) -> Result<Self, String> {
        let start = monotonic();
        let now = now(start, passed_ms);
        let opened = server::open(disk.clone(), uuid::Uuid::nil(), now.at, |_, _| {});
        let Opened { mut log, state, index, archivist, notices } = opened.map_err(|error| error.to_string())?;
        log.set_segment_bytes_max(segment_bytes);
        log.tend(now.tick).map_err(|error| error.to_string())?;
        let archive = Archive::new(ArchiveFiles::new(&disk, "reader").unwrap());
        let hub = Hub::new(options, policy(), state, index, log.root().to_string(), log.room_bytes(), now);
        let disk_calls = disk.recorded();
        let mut world = Self {
            hub,
            disk,
            console: String::new(),
            disk_is_slow: false,
            writes_per_turn: usize::MAX,
            most_output_bytes: 0,
            reads_fail: false,
            has_failed: false,
            archivist_is_slow: false,
            room_is_a_lie: false,
            acknowledged: vec![(disk_calls, log.seq())],
            notices,
            archive,
            archivist,
            closed: None,
            segment_bytes,
            log,
            in_flight: None,
            start,
            passed_ms,
            clients: HashMap::new(),
            tokens: Tokens::default(),
            tokens_made: 0,
        };
        world.settle();
        Ok(world)
    }

    /// The server stops as an operator stops it. Gives the disk, and what became durable.
    pub fn stop(mut self) -> (MemoryDisk, Vec<(usize, Seq)>) {
        self.disk_is_slow = false;
        self.writes_per_turn = usize::MAX;
        self.sync();
        self.hub.handle_stop(self.now());
        self.settle();
        self.log.close().unwrap();
        (self.disk, self.acknowledged)
    }

    /// How long it has been running, in milliseconds.
    pub fn passed_ms(&self) -> u64 {
        self.passed_ms
    }

    /// The power is cut: what was not durable is gone, and another server starts.
    pub fn crash(self) -> Self {
        self.crash_with(|| false)
    }

    /// The power is cut; `survives` is asked for each sector that was written and not synced.
    pub fn crash_with(self, survives: impl FnMut() -> bool) -> Self {
        self.disk.cut_power(survives);
        Self::on_segments(self.disk, options(), self.passed_ms, self.segment_bytes)
    }

    /// The log: the lines of all events that are durable.
    pub fn log(&self) -> String {
        let segments = eventlog::segments(&self.disk).unwrap();
        let contents = segments.into_iter().map(|first| self.disk.content(&segment_name(first)).unwrap());
        let text = String::from_utf8(contents.collect::<Vec<_>>().concat()).unwrap();
        text.split_inclusive('\n').filter(|line| line.starts_with("{\"seq\":")).collect()
    }

    pub fn now(&self) -> Now {
        now(self.start, self.passed_ms)
    }

    pub fn wait(&mut self, ms: u64) {
        self.passed_ms += ms;
        self.hub.handle_timeout(self.now());
        self.settle();
    }

    pub fn connect(&mut self) -> ConnectionKey {
        self.connect_from("127.0.0.1".parse().unwrap())
    }

    pub fn connect_from(&mut self, ip: IpAddr) -> ConnectionKey {
        let key = self.hub.handle_connected(ip, self.now());
        self.clients.insert(key, Client::default());
        self.settle();
        key
    }

    /// The client sends bytes, as they are.
    pub fn send(&mut self, key: ConnectionKey, bytes: impl AsRef<[u8]>) {
        self.hub.handle_bytes(key, bytes.as_ref(), self.now());
        self.settle();
    }

    /// Has the shell say that what comes from a client was encrypted.
    pub fn encrypt(&mut self, key: ConnectionKey) {
        self.hub.handle_encrypted(key);
    }

    pub fn end_input(&mut self, key: ConnectionKey) {
        self.hub.handle_input_end(key, self.now());
        self.settle();
    }

    pub fn disconnect(&mut self, key: ConnectionKey) {
        self.hub.handle_disconnected(key, self.now());
        self.clients.remove(&key);
        self.settle();
    }

    /// The client stops or goes on reading what it is sent.
    pub fn set_deaf(&mut self, key: ConnectionKey, is_deaf: bool) {
        self.set_room(key, is_deaf.then_some(0));
    }

    /// The client's socket takes so many bytes more, in the middle of a line or of a write, and then none; or all.
    pub fn set_room(&mut self, key: ConnectionKey, room: Option<usize>) {
        self.clients.get_mut(&key).unwrap().room = room;
        if room != Some(0) {
            self.hub.handle_sent(key, 0, self.now());
            self.flush(key);
        }
        self.settle();
    }

    pub fn is_closed(&self, key: ConnectionKey) -> bool {
        let client = &self.clients[&key];
        client.is_dropped || client.is_shut
    }

    /// How many writes its socket has taken.
    pub fn writes(&self, key: ConnectionKey) -> usize {
        self.clients[&key].writes
    }

    /// What the client was sent since the last call, as text; a character whose end its socket did not take is left.
    pub fn text(&mut self, key: ConnectionKey) -> String {
        let received = &mut self.clients.get_mut(&key).unwrap().received;
        let whole = match std::str::from_utf8(received) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => received.len(),
        };
        String::from_utf8(received.drain(..whole).collect()).unwrap()
    }

    /// What the client was sent since the last call, as frames.
    pub fn frames(&mut self, key: ConnectionKey) -> Vec<Value> {
        self.text(key).lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// Sends a frame and gives the one answer to it, events left out.
    pub fn ask(&mut self, key: ConnectionKey, frame: &Value) -> Value {
        self.send(key, format!("{frame}\n"));
        let mut answers: Vec<Value> =
            self.frames(key).into_iter().filter(|frame| frame["type"] == "ok" || frame["type"] == "error").collect();
        assert_eq!(answers.len(), 1, "{frame} was answered by {answers:?}");
        answers.remove(0)
    }

    pub fn command(&mut self, key: ConnectionKey, text: &str) -> Value {
        self.ask(key, &serde_json::json!({"type": "command", "text": text}))
    }

    /// Connects and logs in; what follows the answer waits in [`World::frames`].
    pub fn login(&mut self, name: &str) -> ConnectionKey {
        self.login_with(name, &serde_json::json!({}))
    }

    pub fn login_with(&mut self, name: &str, fields: &Value) -> ConnectionKey {
        let key = self.connect();
        let mut frame = serde_json::json!({"type": "login", "username": name, "password": PASSWORD});
        frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.send(key, format!("{frame}\n"));
        key
    }

    /// Logged in, with the answer, backlog and `live` taken off.
    pub fn logged_in(&mut self, name: &str) -> ConnectionKey {
        let key = self.login(name);
        let frames = self.frames(key);
        assert_eq!(frames[0]["type"], "ok", "{frames:?}");
        key
    }

    /// The disk has made durable what it was given.
    pub fn sync(&mut self) {
        self.commit_in_flight();
        self.settle();
    }

    /// The archivist has done what it was given.
    pub fn archive(&mut self) {
        if let Some(through) = self.closed.take() {
            let mut archived = self.archivist.archive_through(through);
            if archived.is_done {
                self.hub.handle_archived(through);
            }
            // What is owed is tried again by the next call.
            self.closed = archived.is_owing.then_some(through);
            self.notices.append(&mut archived.notices);
        }
    }

    /// What the archive had open is closed, so that it sees what lies there now.
    pub fn reopen_archive(&mut self) {
        self.archive = Archive::new(ArchiveFiles::new(&self.disk, "reader").unwrap());
    }

    /// All events of the log.
    pub fn events(&self) -> Vec<Record> {
        self.log().lines().map(|line| Event::decode(line.as_bytes()).unwrap()).collect()
    }

    fn commit_in_flight(&mut self) {
        let Some(batch) = self.in_flight.take() else { return };
        let now = self.now();
        match self.log.append(batch) {
            Ok(done) => {
                let root = done.root.to_string();
                // Where segments are short there is hardly room before the next one is made ready.
                self.has_failed |= self.log.tend(now.tick).is_err();
                let room_bytes = self.room_bytes();
                self.acknowledged.push((self.disk.recorded(), done.last));
                self.hub.handle_durable(done.lines, done.segment, done.offset, root, room_bytes, now);
            }
            Err(_) => self.has_failed = true,
        }
    }

    fn room_bytes(&self) -> u64 {
        if self.room_is_a_lie { 1 << 40 } else { self.log.room_bytes() }
    }

    fn settle(&mut self) {
        let mut writes_left = self.writes_per_turn;
        loop {
            if self.has_failed {
                return;
            }
            let mut idle = true;
            while let Some(output) = self.hub.poll_output(self.now()) {
                idle = false;
                self.carry_out(output);
            }
            let output_bytes = self.clients.keys().map(|key| self.hub.output_bytes(*key)).sum();
            self.most_output_bytes = self.most_output_bytes.max(output_bytes);
            while writes_left > 0 || self.hub.is_output_full() {
                let Some(key) = self.hub.next_touched(writes_left % 2 == 1) else { break };
                idle = false;
                writes_left = writes_left.saturating_sub(1);
                self.flush(key);
            }
            if idle {
                self.hub.state().assert_invariants();
                return;
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Append { lines, first, last, at } => {
                assert!(self.in_flight.is_none(), "one batch at a time");
                self.in_flight = Some(Batch { lines, first, last, at });
                if !self.disk_is_slow {
                    self.commit_in_flight();
                }
            }
            Output::CheckPassword { connection, password, .. } => {
                self.hub.handle_verdict(connection, password == PASSWORD, self.now());
            }
            Output::CheckToken(connection, holder, text) => {
                let is_right = self.is_token(&holder, &text);
                self.hub.handle_verdict(connection, is_right, self.now());
            }
            Output::MakeToken(connection, holder, shown) => {
                let token = self.make_token(&holder, shown);
                self.hub.handle_token(connection, Some(token), self.now());
            }
            Output::Read { connection, purpose, older, positions } => {
                let lines = self.archive.read(older.as_ref(), &positions);
                self.notices.append(&mut self.archive.take_notices());
                let lines = (!self.reads_fail).then(|| lines.unwrap());
                self.hub.handle_lines(connection, purpose, lines.as_ref(), self.now());
            }
            Output::Archive(through) => {
                self.closed = Some(through);
                if !self.archivist_is_slow {
                    self.archive();
                }
            }
            Output::Drop(key) => {
                if let Some(client) = self.clients.get_mut(&key) {
                    client.is_dropped = true;
                }
                self.hub.handle_disconnected(key, self.now());
            }
            Output::AskForRoom => {
                self.has_failed |= self.log.tend(self.now().tick).is_err();
                self.hub.handle_room(self.room_bytes(), self.now());
            }
            Output::Console(lines) => self.console.push_str(&String::from_utf8(lines).unwrap()),
        }
    }

    /// The server's file of tokens is lost.
    pub fn lose_tokens(&mut self) {
        self.tokens = Tokens::default();
    }

    fn is_token(&mut self, holder: &Holder, text: &str) -> bool {
        let Some(token) = LoginToken::parse(text) else { return false };
        match self.tokens.check(holder, PASSWORD, &token, self.now().at) {
            Shown::Wrong => false,
            Shown::Right => true,
            Shown::First(record) => {
                self.tokens.apply(record);
                true
            }
        }
    }

    fn make_token(&mut self, holder: &Holder, shown: Option<String>) -> String {
        let at = self.now().at;
        let (is_by_token, is_due) = (shown.is_some(), self.tokens.is_due(holder, at));
        if let Some(shown) = shown.filter(|_| !is_due) {
            return shown;
        }
        self.tokens_made = self.tokens_made.wrapping_add(1);
        let token = LoginToken::from_random([self.tokens_made; 32]);
        self.tokens.apply(self.tokens.issue(holder, PASSWORD, &token, is_by_token, at));
        token.to_text()
    }

    /// Has the client's socket take what it is told, two slices in a call, as far as it has room.
    fn flush(&mut self, key: ConnectionKey) {
        loop {
            let now = self.now();
            let Some(client) = self.clients.get_mut(&key) else { return };
            let told = self.hub.output(key).take(2).collect::<Vec<_>>().concat();
            assert!(!client.is_shut || told.is_empty(), "nothing is sent behind the end");
            let unsent = self.hub.output_bytes(key);
            assert_eq!(self.hub.output(key).map(<[u8]>::len).sum::<usize>(), unsent);
            let count = client.room.map_or(told.len(), |room| room.min(told.len()));
            client.received.extend_from_slice(&told[..count]);
            client.writes += usize::from(count > 0);
            client.room = client.room.map(|room| room - count);
            client.is_shut = count == unsent && self.hub.is_closing(key);
            if client.is_shut && self.hub.has_input_ended(key) {
                client.is_dropped = true;
                return self.hub.handle_disconnected(key, now);
            }
            if count == 0 {
                return self.hub.handle_blocked(key);
            }
            self.hub.handle_sent(key, count, now);
        }
    }
}

fn now(start: Instant, passed_ms: u64) -> Now {
    let at = Timestamp::from_ms(1_700_000_000_000 + passed_ms);
    Now { at, tick: start + Duration::from_millis(passed_ms) }
}
