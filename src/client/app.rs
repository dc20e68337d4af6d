//! The client's core: what is typed, received and done comes in, what is to be shown, kept, sent and done comes out.
//!
//! Inputs are the `handle_*` methods; outputs come from [`App::poll_output`] in the order in which they must be carried
//! out, and before any byte of [`App::output`] is sent: so a command is kept before it is under way.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::contract::{Ending, Keep, Options, Output, Prompt, Show};
use super::heads::SeenHeads;
use super::link::Link;
use super::outbox::{Ordinal, Outbox};
use super::requests::{Asked, Query, Request};
use super::transfers::Transfers;
use crate::chat::Seq;
use crate::names::{DeviceName, GroupName, UserName};
use crate::protocol::{CutLine, LineCutter, SERVER_LINE_BYTES_MAX};

/// How the client is leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Once all is answered and no transfer is under way.
    WhenDone,
    /// Once all before it is answered.
    Asked,
    /// At once, at the latest by then.
    Now(Instant),
}

/// Where the dialogue stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// There has been no connection yet.
    Connecting,
    AskName,
    AskPassword,
    Opening,
    LoggingIn,
    Chatting,
}

/// See the module's description.
#[derive(Debug)]
pub struct App {
    pub(super) options: Options,
    pub(super) phase: Phase,
    pub(super) user: Option<UserName>,
    pub(super) password: String,
    /// What the server gave to log in again with in place of the password. It lives as long as the program.
    pub(super) token: Option<String>,
    pub(super) device: Option<DeviceName>,
    pub(super) engine: Option<(u16, String)>,
    /// Where this client may be reached by peers.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) outbox: Outbox,
    /// The server's log.
    pub(super) log: Option<Uuid>,
    /// The log, and the event up to which all has been shown.
    pub(super) cursor: Option<(Uuid, Seq)>,
    /// Events up to this one are no news: the log is another than before.
    pub(super) skip_through: Seq,
    /// Commands that the server had carried out when the connection broke: numbers and texts, until their events come.
    pub(super) unconfirmed: VecDeque<(u64, String)>,
    pub(super) is_catching_up: bool,
    /// The heads of logs that were seen.
    pub(super) heads: SeenHeads,
    /// When the server is asked for the head of its log again.
    pub(super) head_due: Option<Instant>,
    /// Whether it was said since the login that the log is not what it was.
    pub(super) has_told_contradiction: bool,
    pub(super) link: Link,
    /// What the server owes an answer to, in order.
    pub(super) awaiting: VecDeque<Request>,
    /// Queries that wait for the commands before them.
    pub(super) queue: VecDeque<(Ordinal, Query)>,
    /// Frames about transfers, that wait for nothing but a session.
    pub(super) signals: VecDeque<Asked>,
    pub(super) transfers: Transfers,
    pub(super) users: BTreeSet<UserName>,
    pub(super) groups: BTreeSet<GroupName>,
    pub(super) has_new_names: bool,
    pub(super) leaving: Option<Leaving>,
    pub(super) ending: Option<Ending>,
    pub(super) outputs: VecDeque<Output>,
    pub(super) out: Vec<u8>,
    pub(super) out_sent: usize,
    input: LineCutter,
}

impl App {
    /// A client that is about to connect.
    pub fn new(options: Options, now: Instant) -> Self {
        let (user, password) = (options.user, options.password.clone().unwrap_or_default());
        let link = Link::new(options.seed, now);
        Self {
            options,
            phase: Phase::Connecting,
            user,
            password,
            token: None,
            device: None,
            engine: None,
            addresses: Vec::new(),
            outbox: Outbox::default(),
            log: None,
            cursor: None,
            skip_through: 0,
            unconfirmed: VecDeque::new(),
            is_catching_up: false,
            heads: SeenHeads::default(),
            head_due: None,
            has_told_contradiction: false,
            link,
            awaiting: VecDeque::new(),
            queue: VecDeque::new(),
            signals: VecDeque::new(),
            transfers: Transfers::default(),
            users: BTreeSet::new(),
            groups: BTreeSet::new(),
            has_new_names: false,
            leaving: None,
            ending: None,
            outputs: VecDeque::new(),
            out: Vec::new(),
            out_sent: 0,
            input: LineCutter::new(SERVER_LINE_BYTES_MAX),
        }
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Bytes to be sent to the server.
    pub fn output(&self) -> &[u8] {
        self.out.get(self.out_sent..).unwrap_or_default()
    }

    /// What is to be typed next.
    pub fn prompt(&self) -> Prompt {
        if self.ending.is_some() || self.leaving.is_some() {
            return Prompt::None;
        }
        match self.phase {
            Phase::AskName => Prompt::UserName,
            Phase::AskPassword => Prompt::Password,
            Phase::Connecting | Phase::Opening | Phase::LoggingIn => Prompt::None,
            Phase::Chatting => Prompt::Command,
        }
    }

    /// Whether the next line may be handed in.
    pub fn wants_line(&self) -> bool {
        let waiting = self.outbox.len() + self.queue.len() + self.signals.len();
        self.prompt() != Prompt::None && (self.options.is_person || waiting < super::limits::COMMANDS_WAITING_READ)
    }

    /// How the client ends, once it does and has said its last word.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.filter(|_| self.outputs.is_empty())
    }

    /// The user, once the name is known.
    pub fn user(&self) -> Option<UserName> {
        self.user
    }

    /// A line was typed.
    pub fn handle_line(&mut self, line: &str, now: Instant) {
        match self.prompt() {
            Prompt::None => {}
            Prompt::UserName => self.take_name(line),
            Prompt::Password => self.take_password(line, now),
            Prompt::Command => self.take_command(line),
        }
        self.go_on();
    }

    /// A line was typed that is too long, or no text.
    pub fn handle_bad_line(&mut self, why: &str) {
        self.show(Show::Reply(format!("Error. {why}")));
    }

    /// Nothing more will be typed.
    pub fn handle_input_end(&mut self) {
        if self.phase == Phase::Chatting {
            self.leaving.get_or_insert(Leaving::WhenDone);
            if self.options.is_person && self.transfers.is_busy() {
                self.show(Show::Notice("Waiting for the transfers to end; Ctrl-C breaks them off.".into()));
            }
        } else if self.options.is_person {
            self.end(Ending::Done);
        } else {
            self.show(Show::Notice("The input ended before a user name and a password were given.".into()));
            self.end(Ending::LoginRefused);
        }
        self.go_on();
    }

    /// The user or the machine wants the client to end.
    pub fn handle_interrupt(&mut self, now: Instant) {
        if self.ending.is_some() {
            return;
        }
        self.cancel_all_transfers();
        self.leaving = Some(Leaving::Now(now + Duration::from_millis(super::limits::GOODBYE_MS)));
        if self.link.is_logged_in() {
            // What the server is to know of the transfers goes before the goodbye.
            self.pump();
            self.send_command(Request::Logout, None, "/logout");
        } else {
            self.end_by_own_word();
        }
        self.go_on();
    }

    /// Bytes came from the server.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Instant) {
        if self.ending.is_some() {
            return;
        }
        self.link.note_life(now);
        self.input.push(bytes);
        while let Some(line) = self.input.next_line() {
            let line = match line {
                CutLine::Whole(line) => line.to_vec(),
                CutLine::TooLong => {
                    self.outputs.push_back(Output::Disconnect);
                    break;
                }
            };
            self.handle_server_line(&line, now);
            if self.ending.is_some() {
                break;
            }
        }
        self.input.release();
        if std::mem::take(&mut self.has_new_names) {
            self.show(Show::Names { users: self.users.clone(), groups: self.groups.clone() });
        }
        self.go_on();
    }

    /// The socket took `count` bytes of the output.
    pub fn handle_sent(&mut self, count: usize) {
        self.out_sent += count;
        if self.out_sent >= self.out.len() {
            self.out = Vec::new();
            self.out_sent = 0;
        }
        self.go_on();
    }

    /// When [`App::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.ending.is_some() {
            return None;
        }
        let leaving = match self.leaving {
            Some(Leaving::Now(deadline)) => Some(deadline),
            _ => None,
        };
        let dues = [leaving, self.link.next_timeout(), self.transfers.next_timeout(), self.head_due];
        dues.into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.leaving, Some(Leaving::Now(deadline)) if deadline <= now) {
            self.end(Ending::Interrupted);
            return;
        }
        self.watch_link(now);
        self.watch_transfers(now);
        if self.head_due.is_some_and(|due| due <= now) {
            self.watch_head(now);
        }
        self.go_on();
    }

    pub(super) fn show(&mut self, show: Show) {
        self.outputs.push_back(Output::Show(show));
    }

    pub(super) fn keep(&mut self, keep: Keep) {
        self.outputs.push_back(Output::Keep(keep));
    }

    pub(super) fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    /// Forgets what is half read and half sent: the connection is another one now.
    pub(super) fn clear_buffers(&mut self) {
        self.input = LineCutter::new(SERVER_LINE_BYTES_MAX);
        self.out = Vec::new();
        self.out_sent = 0;
    }

    /// Writes what may be written, and leaves when all is done.
    pub(super) fn go_on(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.pump();
        self.leave_if_done();
    }
}
