//! Clients without socket and terminal on a hub in memory: the net between them cuts where the test says.
#![allow(dead_code, reason = "each test uses the parts that it needs")]

use std::path::Path;

use messenger::client::state::State;
use messenger::client::{Accept, App, Ending, Keep, Opened, Options, Output, Prompt, Show, TransferAction};
use messenger::clock::Timestamp;
use messenger::protocol::sentence;
use messenger::server::ConnectionKey;

use crate::world::{PASSWORD, World};

/// A client, its state on a disk, and what its user has seen.
pub struct Client {
    pub app: App,
    pub user: String,
    /// What was shown, as sentences.
    pub shown: Vec<String>,
    /// What the engine of transfers was asked to do.
    pub actions: Vec<TransferAction>,
    pub kept: Vec<Keep>,
    state: Option<State>,
    connection: Option<ConnectionKey>,
    /// Whether the net takes nothing.
    pub is_cut_off: bool,
}

pub fn options(user: &str) -> Options {
    Options {
        user: user.parse().ok(),
        password: Some(PASSWORD.into()),
        is_person: true,
        accept: Accept::Ask,
        echo_frames: false,
        learn_names: false,
        seed: 7,
    }
}

impl Client {
    pub fn new(options: Options, world: &World) -> Self {
        let user = options.user.map(|user| user.to_string()).unwrap_or_default();
        Self {
            app: App::new(options, world.now().tick),
            user,
            shown: Vec::new(),
            actions: Vec::new(),
            kept: Vec::new(),
            state: None,
            connection: None,
            is_cut_off: false,
        }
    }

    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    pub fn ending(&self) -> Option<Ending> {
        self.app.ending()
    }

    /// Takes what was shown since the last call.
    pub fn seen(&mut self) -> Vec<String> {
        std::mem::take(&mut self.shown)
    }

    /// Types a line, and carries out what follows from it here: nothing is sent yet.
    pub fn type_line(&mut self, line: &str, root: &Path, world: &World) {
        assert_ne!(self.app.prompt(), Prompt::None, "nobody asks {} for anything: {:?}", self.user, self.shown);
        self.app.handle_line(line, world.now().tick);
        self.carry_out(root, world);
    }

    /// Does what the core asks for.
    pub fn carry_out(&mut self, root: &Path, world: &World) {
        while let Some(output) = self.app.poll_output() {
            match output {
                Output::Show(show) => self.shown.extend(told(&show, &self.user)),
                Output::Keep(keep) => {
                    self.state.as_mut().expect("it is open").keep(&keep).unwrap();
                    self.kept.push(keep);
                }
                Output::Open(user) => {
                    self.user = user.to_string();
                    let state = State::open(root, "server", user, None).unwrap();
                    let opened = Opened {
                        device: state.device(),
                        outbox: state.outbox(),
                        cursor: state.cursor(),
                        heads: state.heads(),
                        engine: Some((6_000, "ab".repeat(32))),
                    };
                    self.state = Some(state);
                    self.app.set_addresses(vec!["127.0.0.1:6000".parse().unwrap()]);
                    self.app.handle_opened(opened, world.now().tick);
                }
                Output::Transfer(action) => self.actions.push(action),
                Output::Disconnect => self.connection = None,
            }
        }
    }

    /// One step of everything: connects if wanted, and moves up to `bytes_max` bytes each way.
    pub fn step(&mut self, root: &Path, world: &mut World, bytes_max: usize) {
        let now = world.now().tick;
        if self.app.next_timeout().is_some_and(|due| due <= now) {
            self.app.handle_timeout(now);
        }
        self.carry_out(root, world);
        if self.app.wants_connection(now) {
            self.app.handle_connecting();
            if self.is_cut_off {
                self.app.handle_connect_failed("no answer", now);
            } else {
                self.connection = Some(world.connect());
                self.app.handle_connected(now);
            }
            self.carry_out(root, world);
        }
        let Some(key) = self.connection else { return };
        let count = self.app.output().len().min(bytes_max);
        if count > 0 && !world.is_closed(key) {
            world.send(key, &self.app.output()[..count]);
            self.app.handle_sent(count);
        }
        let received = world.text(key);
        self.app.handle_bytes(received.as_bytes(), now);
        self.carry_out(root, world);
        if self.connection.is_none() {
            world.disconnect(key);
            self.app.handle_disconnected(now);
        } else if world.is_closed(key) {
            self.cut(world);
        }
        self.carry_out(root, world);
    }

    /// The connection breaks: what is under way is lost, both ways.
    pub fn cut(&mut self, world: &mut World) {
        if let Some(key) = self.connection.take() {
            world.disconnect(key);
            self.app.handle_disconnected(world.now().tick);
        }
    }

    /// The server is gone, and with it the connection.
    pub fn lose_server(&mut self, world: &World) {
        if self.connection.take().is_some() {
            self.app.handle_disconnected(world.now().tick);
        }
    }

    /// The client is killed, and another starts on the state it left.
    pub fn kill(&mut self, options: Options, world: &mut World) {
        if let Some(key) = self.connection.take() {
            world.disconnect(key);
        }
        self.state = None;
        self.app = App::new(options, world.now().tick);
    }
}

/// What a person would read.
fn told(show: &Show, user: &str) -> Option<String> {
    let time = Timestamp::to_utc_words;
    Some(match show {
        Show::Answer { answer, .. } => sentence::answer(answer, time),
        Show::Refused { error, .. } => sentence::error(error),
        Show::Event(record) => sentence::event(record, user.parse().unwrap(), time),
        Show::Offer { number, from, file } => format!("{from} offers {} as {number}", file.name),
        Show::Progress { .. } | Show::Names { .. } => return None,
        Show::Notice(text) | Show::Trouble(text) | Show::Reply(text) | Show::Frame(text) => text.clone(),
    })
}
