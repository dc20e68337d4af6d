//! The hub: all of the server that decides, as a machine of inputs and outputs without socket, thread, file or clock.
//!
//! Inputs are the `handle_*` methods: connections and their bytes, verdicts of passwords and tokens, lines read back from the
//! log, batches that became durable, time. Outputs come from [`Hub::poll_output`], and what is to be written to each
//! socket from [`Hub::next_touched`] and [`Hub::output`]. The state runs ahead of the disk, the world never does:
//! everything a client is told waits until all that it was decided on is durable.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use slab::Slab;
use uuid::Uuid;

use crate::chat::{Event, LogoutReason, Policy, Refusal, Seq, Session, State};
use crate::clock::{LocalWords, LogForm, Timestamp};
use crate::names::{TransferId, UserName};
use crate::protocol::LineCutter;

use super::archive::Older;
use super::connection::{Connection, ConnectionKey, Feed, LoggedIn, Now, Outgoing, Phase};
use super::feed::HistoryQuery;
use super::index::Index;
use super::introductions::Introductions;
use super::limits;
use super::login::Attempt;
use super::pending::Pending;
use super::present::Present;
use super::segment::Position;
use super::tokens::Holder;

/// What a server is run with, beside the chat's own rules.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// The log's number, told at login.
    pub log: Uuid,
    /// Commands a second for each connection; 0 is no limit.
    pub commands_per_second: u32,
    /// Whether clear text from other machines is served.
    pub allow_cleartext: bool,
    /// Connections at a time, by what the machine allows.
    pub connections_max: usize,
    /// Whether the console tells the texts of private messages.
    pub console_texts: bool,
}

/// What lines of the log are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The answer to `/history`.
    History,
    /// A session that is behind.
    CatchUp,
}

/// What the shell is to do.
#[derive(Debug)]
pub enum Output {
    /// Make these lines durable: events `first` to `last`. [`Hub::handle_durable`] is owed.
    Append {
        /// Event lines, each with its line feed.
        lines: Vec<u8>,
        /// The first event.
        first: Seq,
        /// The last event.
        last: Seq,
        /// The time of the last event.
        at: Timestamp,
    },
    /// Check a password. [`Hub::handle_verdict`] is owed.
    CheckPassword {
        /// Who waits.
        connection: ConnectionKey,
        /// The user.
        user: UserName,
        /// What was typed.
        password: String,
    },
    /// Check the token that a device shows. [`Hub::handle_verdict`] is owed.
    CheckToken(ConnectionKey, Holder, String),
    /// Make a token for a device that logs in, by the one here if by a token. [`Hub::handle_token`] is owed.
    MakeToken(ConnectionKey, Holder, Option<String>),
    /// Read lines of the log. [`Hub::handle_lines`] is owed.
    Read {
        /// Who waits.
        connection: ConnectionKey,
        /// What for.
        purpose: Purpose,
        /// What is asked of closed segments; its lines come first.
        older: Option<Older>,
        /// Which lines of newer ones, in order.
        positions: Vec<Position>,
    },
    /// Segments are closed, or may lack what stands for them: archive all events up to this one. [`Hub::handle_archived`] is
    /// owed, unless that fails.
    Archive(Seq),
    /// Close the socket without another word.
    Drop(ConnectionKey),
    /// The log has no room: try to get more. [`Hub::handle_room`] is owed.
    AskForRoom,
    /// Lines for the operator, each with its line feed.
    Console(Vec<u8>),
}

/// The newest commit.
#[derive(Debug, Clone, Default)]
pub(super) struct Durable {
    pub(super) seq: Seq,
    /// The root of the log's tree, in hexadecimal.
    pub(super) root: String,
    pub(super) at: Timestamp,
}

/// See the module's description.
#[derive(Debug)]
pub struct Hub {
    pub(super) options: HubOptions,
    pub(super) policy: Policy,
    pub(super) state: State,
    pub(super) index: Index,
    pub(super) connections: Slab<Connection>,
    /// An empty buffer for what comes next.
    pub(super) spare_input: Option<Box<LineCutter>>,
    next_generation: u32,
    /// The connections of each user that is logged in.
    pub(super) present: Present,
    /// How many connections are logged in.
    pub(super) session_count: u64,
    /// Those that get logins and logouts of others.
    pub(super) watchers: BTreeSet<ConnectionKey>,
    pub(super) attempts: HashMap<ConnectionKey, Attempt>,
    pub(super) histories: HashMap<ConnectionKey, HistoryQuery>,
    pub(super) introductions: Introductions,
    /// When to look after transfers that nobody may say anything more about.
    pub(super) lapsing: BinaryHeap<Reverse<(Instant, TransferId)>>,
    /// What has been decided and is not with the log yet.
    pub(super) open: Pending,
    /// What the log is making durable.
    pub(super) in_flight: Option<Pending>,
    /// An empty batch, with room from before.
    pub(super) spare_batch: Pending,
    /// What connections are told.
    pub(super) outgoing: Outgoing,
    /// When to give back what batches have grown to.
    pub(super) shrink_at: Option<Instant>,
    pub(super) durable: Durable,
    /// Bytes the log surely takes, as it last said, and those given to it since.
    pub(super) room_bytes: u64,
    pub(super) asked_for_room: bool,
    /// The log has said that it gets no more room.
    pub(super) is_disk_full: bool,
    /// Connections whose lines wait until the disk has caught up.
    pub(super) held: Vec<ConnectionKey>,
    pub(super) outputs: VecDeque<Output>,
    /// Connections that have got an answer, to be looked at first: who wrote may go on.
    pub(super) answered: VecDeque<ConnectionKey>,
    pub(super) touched: VecDeque<ConnectionKey>,
    pub(super) timers: BinaryHeap<Reverse<(Instant, ConnectionKey)>>,
    /// How many bytes of console lines the shell would take.
    pub(super) console_room_bytes: usize,
    /// Lines that were not made because it would take none.
    pub(super) console_skipped_lines: u64,
    pub(super) console_words: LocalWords,
    pub(super) log_form: LogForm,
    pub(super) stopping: bool,
}

impl Hub {
    /// A hub that stands on `state`, the fold of the log up to its newest commit.
    pub fn new(
        options: HubOptions,
        policy: Policy,
        state: State,
        index: Index,
        root: String,
        room_bytes: u64,
        now: Now,
    ) -> Self {
        let durable = Durable { seq: state.seq, root, at: state.at };
        let mut hub = Self {
            options,
            policy,
            state,
            index,
            connections: Slab::new(),
            spare_input: None,
            next_generation: 0,
            present: Present::default(),
            session_count: 0,
            watchers: BTreeSet::new(),
            attempts: HashMap::new(),
            histories: HashMap::new(),
            introductions: Introductions::default(),
            lapsing: BinaryHeap::new(),
            open: Pending::default(),
            in_flight: None,
            spare_batch: Pending::default(),
            outgoing: Outgoing::default(),
            shrink_at: None,
            durable,
            room_bytes,
            asked_for_room: false,
            is_disk_full: false,
            held: Vec::new(),
            outputs: VecDeque::new(),
            answered: VecDeque::new(),
            touched: VecDeque::new(),
            timers: BinaryHeap::new(),
            console_room_bytes: usize::MAX,
            console_skipped_lines: 0,
            console_words: LocalWords::default(),
            log_form: LogForm::default(),
            stopping: false,
        };
        hub.outputs.push_back(Output::Archive(hub.durable.seq));
        let started = hub.state.decide_start(env!("CARGO_PKG_VERSION"));
        hub.commit(&started, None, now);
        hub.await_receivers(now);
        hub
    }

    /// The fold of everything decided so far; what of it is durable is told by [`Hub::durable_seq`].
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The index of the newest events.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The newest event that is on stable storage.
    pub fn durable_seq(&self) -> Seq {
        self.durable.seq
    }

    /// A connection was accepted. The key is for the shell to keep its socket under.
    pub fn handle_connected(&mut self, ip: IpAddr, now: Now) -> ConnectionKey {
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let deadline = now.tick + Duration::from_millis(limits::LOGIN_MS);
        let place = self.connections.insert(Connection::new(generation, ip, deadline, now.tick));
        let place = u32::try_from(place).expect("connections are limited to far below 2^32");
        let key = ConnectionKey { place, generation };
        self.schedule(key, deadline);
        if self.connections.len() > self.options.connections_max {
            self.close_with(key, &Refusal::LimitReached { limit: "connections" });
        } else if self.stopping {
            self.close_with(key, &Refusal::ShuttingDown);
        }
        key
    }

    /// A connection has begun a TLS handshake: whatever comes from it was encrypted.
    pub fn handle_encrypted(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection_mut(key) {
            connection.is_encrypted = true;
        }
    }

    /// Bytes came from a client.
    pub fn handle_bytes(&mut self, key: ConnectionKey, bytes: &[u8], now: Now) {
        let Some(connection) = self.connection_mut(key) else { return };
        connection.last_life = now.tick;
        connection.pinged = false;
        if connection.is_over() {
            return;
        }
        let Some(mut input) = self.take_input(key) else { return };
        input.push(bytes);
        self.process_input(key, input, now);
    }

    /// The client will send nothing more; what it sent is still answered.
    pub fn handle_input_end(&mut self, key: ConnectionKey, now: Now) {
        let Some(connection) = self.connection_mut(key) else { return };
        connection.input_ended = true;
        if connection.is_closing() {
            self.touch(key);
        } else {
            self.process(key, now);
        }
    }

    /// The socket is gone.
    pub fn handle_disconnected(&mut self, key: ConnectionKey, now: Now) {
        self.end_session(key, LogoutReason::Disconnected, now);
        self.forget(key);
    }

    /// The rules changed: another file of accounts.
    pub fn handle_policy(&mut self, policy: Policy, now: Now) {
        self.policy = policy;
        let gone: Vec<ConnectionKey> = self
            .connections_logged_in()
            .filter(|(_, session)| !self.policy.accounts.contains(&session.user))
            .map(|(key, _)| key)
            .collect();
        for key in gone {
            self.end_session(key, LogoutReason::Disconnected, now);
            self.close_with(key, &Refusal::NotLoggedIn);
        }
    }

    /// The server stops: every session is told and ended, and the log closed with `server_stopped`.
    pub fn handle_stop(&mut self, now: Now) {
        self.stopping = true;
        let told: Vec<ConnectionKey> = self.keys().into_iter().filter(|key| !self.is_over(*key)).collect();
        let mut sessions: Vec<(Session, ConnectionKey)> =
            self.connections_logged_in().map(|(key, session)| (session, key)).collect();
        // Newest first: the last session of a user to end is the oldest, so that nothing it was owed is passed over.
        sessions.sort_by_key(|(session, _)| Reverse(session.id));
        for (_, key) in sessions {
            self.end_session(key, LogoutReason::Shutdown, now);
        }
        self.commit(&[Event::ServerStopped { version: env!("CARGO_PKG_VERSION").to_owned() }], None, now);
        for key in told {
            self.close_with(key, &Refusal::ShuttingDown);
        }
    }

    /// Whether nothing is left to write, to a socket or to the log.
    pub fn is_quiet(&self) -> bool {
        self.durable.seq == self.state.seq && self.keys().into_iter().all(|key| self.output_bytes(key) == 0)
    }

    /// How many bytes of console lines the shell takes until the next turn; more are not made.
    pub fn set_console_room(&mut self, bytes: usize) {
        self.console_room_bytes = bytes;
    }

    /// What is to be done next, until there is nothing. To be called at the end of a turn.
    pub fn poll_output(&mut self, now: Now) -> Option<Output> {
        if self.outputs.is_empty() {
            self.finish_turn(now);
        }
        self.outputs.pop_front()
    }

    /// Whether a connection has to read, or to catch up, before more is taken from it. One that is gone is not.
    pub(super) fn is_full(&self, key: ConnectionKey) -> bool {
        self.connection(key).is_some_and(|connection| connection.is_full(&self.outgoing.shared))
    }

    /// Whether the client has ended its side. Once ours is ended, too, the socket is of no more use.
    pub fn has_input_ended(&self, key: ConnectionKey) -> bool {
        self.connection(key).is_none_or(|connection| connection.input_ended)
    }

    /// Whether a connection is at its end: once its output is written, its socket is shut down for writing.
    pub fn is_closing(&self, key: ConnectionKey) -> bool {
        self.connection(key).is_none_or(Connection::is_closing)
    }

    /// Whether bytes of a connection are welcome, once the hub is not overloaded. Where not, it is touched again when they
    /// are.
    pub fn wants_bytes(&self, key: ConnectionKey) -> bool {
        let Some(connection) = self.connection(key) else { return false };
        if connection.is_closing() {
            return true;
        }
        !connection.busy
            && connection.throttled_until.is_none()
            && !connection.input_ended
            && !connection.is_full(&self.outgoing.shared)
    }

    /// Whether as much waits for the disk as may.
    pub fn is_overloaded(&self) -> bool {
        self.open.is_full() || self.in_flight.as_ref().is_some_and(Pending::is_full_of_late_notes)
    }

    pub(super) fn connection(&self, key: ConnectionKey) -> Option<&Connection> {
        self.connections.get(key.place as usize).filter(|connection| connection.generation == key.generation)
    }

    pub(super) fn connection_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.connection_beside(key).map(|(connection, ..)| connection)
    }

    /// A connection, with what is needed to tell it something.
    pub(super) fn connection_beside(&mut self, key: ConnectionKey) -> Option<(&mut Connection, &State, &mut Outgoing)> {
        let connection = self.connections.get_mut(key.place as usize)?;
        (connection.generation == key.generation).then_some((connection, &self.state, &mut self.outgoing))
    }

    /// Whether nothing a client says matters any more.
    pub(super) fn is_over(&self, key: ConnectionKey) -> bool {
        self.connection(key).is_none_or(Connection::is_over)
    }

    fn keys(&self) -> Vec<ConnectionKey> {
        self.connections.iter().map(|(place, connection)| key_of(place, connection)).collect()
    }

    fn connections_logged_in(&self) -> impl Iterator<Item = (ConnectionKey, Session)> {
        self.connections
            .iter()
            .filter_map(|(place, connection)| Some((key_of(place, connection), self.session_of(connection)?)))
    }

    /// Ends a session, if the connection has one, and records why.
    pub(super) fn end_session(&mut self, key: ConnectionKey, reason: LogoutReason, now: Now) {
        let Some(session) = self.session(key) else { return };
        let logout = self.state.logout_event(&session, reason);
        self.leave(key);
        self.commit(&[logout], Some(key), now);
        self.end_introductions(key, session.user, now);
    }

    /// Takes a connection out of everything that speaks to a session, without a record.
    pub(super) fn leave(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connection_mut(key) else { return };
        let Some(LoggedIn { user, feed, .. }) = connection.logged_in() else { return };
        let user = *user;
        connection.phase = Phase::Ended { live: (*feed == Feed::Live).then_some(user) };
        connection.busy = true;
        self.session_count -= 1;
        self.watchers.remove(&key);
        self.present.remove(user as usize, key);
    }

    /// Says why, and closes. A session is ended before.
    pub(super) fn close_with(&mut self, key: ConnectionKey, refusal: &Refusal) {
        self.tell_refusal(key, None, refusal, None);
        self.close(key);
    }

    /// Closes once everything said before has been durable and written.
    pub(super) fn close(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection_mut(key) {
            if !matches!(connection.phase, Phase::Ended { .. }) {
                connection.phase = Phase::Ended { live: None };
            }
            connection.busy = true;
            self.then_close(key);
        }
    }

    fn forget(&mut self, key: ConnectionKey) {
        if let Some((connection, _, outgoing)) = self.connection_beside(key) {
            connection.forget_told(&mut outgoing.shared);
            self.connections.remove(key.place as usize);
            self.attempts.remove(&key);
            self.histories.remove(&key);
        }
    }

    /// The session of a connection.
    pub(super) fn session(&self, key: ConnectionKey) -> Option<Session> {
        self.session_of(self.connection(key)?)
    }

    fn session_of(&self, connection: &Connection) -> Option<Session> {
        let logged_in = connection.logged_in()?;
        let (user, known) = self.state.users.get_index(logged_in.user as usize)?;
        let open = known.sessions.iter().find(|open| open.id == logged_in.session)?;
        Some(Session { id: open.id, user: *user, device: open.device })
    }

    pub(super) fn feed_mut(&mut self, key: ConnectionKey) -> Option<&mut Feed> {
        Some(&mut self.connection_mut(key)?.logged_in_mut()?.feed)
    }
}

fn key_of(place: usize, connection: &Connection) -> ConnectionKey {
    ConnectionKey { place: u32::try_from(place).unwrap_or(u32::MAX), generation: connection.generation }
}
