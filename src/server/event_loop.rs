//! The thin shell: one thread that moves bytes between sockets and the hub, and batches between the hub and the log.
//!
//! A turn: wait; read the clock once; accept; read each ready socket once; take what the log and the reader report;
//! carry out what the hub asks for; write to some sockets what they take. Where more are to be written to, they wait for the
//! next turns, and are told then what has become durable meanwhile, too, in the same write: so the log has work while many
//! are written to, whoever has an answer goes on at once, and nobody waits until a large group has been told.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use rustls::ServerConfig;

use crate::chat::{Policy, Seq};
use crate::clock::{self, LogClock};
use crate::eventlog::{self, Report, Writer};

use super::archivist::ArchiveThrough;
use super::authenticator::Authenticator;
use super::background::Background;
use super::certificate::CertificateError;
use super::connection::{ConnectionKey, Now};
use super::console::Console;
use super::credentials::{Credentials, CredentialsError};
use super::hub::{Hub, Output};
use super::limits;
use super::log_reader::{ReadJob, ReadLines};
use super::signals::{Signals, drain};
use super::socket::{Received, Socket};
use super::tls::Sealer;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const STOP: Token = Token(2);
const RELOAD: Token = Token(3);
/// Tokens of connections are their place in the hub's table and this.
const FIRST_CONNECTION: usize = 16;

/// Connections that wait to be accepted, above which the system drops them; it may allow fewer (`net.core.somaxconn`).
const CONNECTIONS_WAITING_MAX: i32 = 4_096;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 256;
/// How long no connection is accepted after the machine refused one, for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Sockets written to in one turn, unless what is to be written takes much memory. A write takes some ten microseconds.
const WRITES_PER_TURN: usize = 32;
/// How many of them are of those who have waited longest, whoever has an answer.
const TOLD_PER_TURN: usize = 8;
/// How long a stop waits for clients to read their last lines.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Why a server ended that was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The log failed: nothing of its last batch was answered.
    #[error("the log cannot be written: {0}; nothing that was answered is lost, start again once the disk is well")]
    Log(#[from] eventlog::AppendError),
    /// The machine refused something the loop cannot do without.
    #[error("the event loop failed: {0}")]
    Loop(#[from] io::Error),
}

/// Reads the file of accounts again when the operator asks for it.
pub type Reload = Box<dyn FnMut() -> Result<(Credentials, Policy), CredentialsError>>;

/// Reads the certificate and its key again when the operator asks for it.
pub type ReloadTls = Box<dyn FnMut() -> Result<Arc<ServerConfig>, CertificateError>>;

/// Makes the log's thread, given what wakes the loop.
pub type MakeWriter = Box<dyn FnOnce(Box<dyn Fn() + Send>) -> io::Result<Writer>>;

/// What the loop is made of.
pub struct Parts {
    /// All that decides.
    pub hub: Hub,
    /// The log's clock, gone on from its last event.
    pub clock: LogClock,
    /// The listening socket.
    pub listener: TcpListener,
    /// Who may log in.
    pub authenticator: Authenticator,
    /// Reads the accounts again.
    pub reload: Reload,
    /// What handshakes are made with.
    pub tls: Arc<ServerConfig>,
    /// Reads that again.
    pub reload_tls: ReloadTls,
    /// Reads lines of the log.
    pub read_lines: ReadLines,
    /// Archives closed segments.
    pub archive_through: ArchiveThrough,
    /// Makes the log's thread, given what wakes the loop.
    pub writer: MakeWriter,
    /// Told how far the log is durable: the derived files follow it.
    pub on_durable: Box<dyn FnMut(Seq)>,
}

/// The loop, ready to serve.
pub struct EventLoop {
    poll: Poll,
    signals: Signals,
    hub: Hub,
    clock: LogClock,
    listener: Option<TcpListener>,
    accept_again: Option<Instant>,
    sockets: Vec<Option<Socket>>,
    /// Sockets that may be readable, in the order in which they became so.
    ready: Vec<ConnectionKey>,
    buffer: Box<[u8]>,
    authenticator: Authenticator,
    reload: Reload,
    tls: Arc<ServerConfig>,
    reload_tls: ReloadTls,
    sealer: Sealer,
    writer: Writer,
    background: Background,
    console: Console,
    on_durable: Box<dyn FnMut(Seq)>,
    stop_by: Option<Instant>,
}

/// A listening socket. Its port may be taken again at once after a restart: mio sets SO_REUSEADDR.
///
/// # Errors
/// The address is not of this machine, or taken.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // mio lets 128 wait, and all clients of a server that was restarted come at once: whoever finds no place is dropped
    // by the system, and tries again after seconds.
    rustix::net::listen(&listener, CONNECTIONS_WAITING_MAX)?;
    Ok(listener)
}

impl EventLoop {
    /// Puts the loop together. From now on connections queue, and signals wait to be heeded.
    ///
    /// # Errors
    /// The machine has no thread, file or memory to give.
    pub fn new(parts: Parts) -> Result<Self, ServerError> {
        let Parts { hub, clock, mut listener, authenticator, reload, tls, reload_tls, .. } = parts;
        let Parts { read_lines, archive_through, writer, on_durable, .. } = parts;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let signals = Signals::register(poll.registry(), STOP, RELOAD)?;
        let log_waker = Arc::clone(&waker);
        let writer = writer(Box::new(move || drop(log_waker.wake())))?;
        let background = Background::spawn(read_lines, archive_through, move || drop(waker.wake()))?;
        Ok(Self {
            poll,
            signals,
            hub,
            clock,
            listener: Some(listener),
            accept_again: None,
            sockets: Vec::new(),
            ready: Vec::new(),
            buffer: vec![0; limits::READ_BYTES_PER_TURN].into_boxed_slice(),
            authenticator,
            reload,
            tls,
            reload_tls,
            sealer: Sealer::default(),
            writer,
            background,
            console: Console::spawn(limits::CONSOLE_BYTES_MAX),
            on_durable,
            stop_by: None,
        })
    }

    /// Serves until a signal stops it.
    ///
    /// # Errors
    /// The log or the machine failed.
    pub fn run(mut self) -> Result<(), ServerError> {
        let served = self.serve();
        // Whatever ended it: what was made durable is told to the operator.
        self.console.close();
        served?;
        self.writer.close()?;
        Ok(())
    }

    fn serve(&mut self) -> Result<(), ServerError> {
        let mut events = Events::with_capacity(1_024);
        self.carry_out();
        loop {
            if let Err(error) = self.poll.poll(&mut events, self.patience()) {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error.into());
            }
            let now = self.now();
            self.hub.set_console_room(self.console.room_bytes());
            for event in &events {
                match event.token() {
                    LISTENER => self.accept_again = Some(now.tick),
                    WAKER => {}
                    STOP => {
                        drain(&mut self.signals.stop);
                        self.signals.expect_second();
                        self.begin_stop(now);
                    }
                    RELOAD => {
                        drain(&mut self.signals.reload);
                        self.read_accounts_again(now);
                        self.read_certificate_again();
                    }
                    Token(token) => self.note_readiness(token - FIRST_CONNECTION, event, now),
                }
            }
            if self.accept_again.is_some_and(|due| due <= now.tick) {
                self.accept(now);
            }
            self.read_ready(now);
            if self.hub.next_timeout().is_some_and(|due| due <= now.tick) {
                self.hub.handle_timeout(now);
            }
            self.take_reports(now)?;
            self.carry_out();
            if self.has_stopped(now) {
                return Ok(());
            }
        }
    }

    fn now(&mut self) -> Now {
        Now { at: self.clock.now(), tick: clock::monotonic() }
    }

    /// How long to wait for something to happen.
    fn patience(&self) -> Option<Duration> {
        if self.hub.has_touched() {
            return Some(Duration::ZERO);
        }
        if (self.background.has_more || !self.ready.is_empty()) && !self.hub.is_overloaded() {
            return Some(Duration::ZERO);
        }
        let due = self.hub.next_timeout().into_iter().chain(self.accept_again).chain(self.stop_by).min()?;
        // Rounded up, or the last millisecond would be waited for in ever smaller pieces.
        let left = due.saturating_duration_since(clock::monotonic());
        Some(if left.is_zero() { left } else { left + Duration::from_millis(1) })
    }

    fn note_readiness(&mut self, place: usize, event: &mio::event::Event, now: Now) {
        let Some(socket) = self.sockets.get_mut(place).and_then(Option::as_mut) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            socket.is_readable = true;
            socket.is_read_closed |= event.is_read_closed() || event.is_error();
            if !socket.is_queued {
                socket.is_queued = true;
                self.ready.push(socket.key);
            }
        }
        if event.is_writable() && !socket.is_writable {
            socket.is_writable = true;
            let key = socket.key;
            self.write(key, now);
        }
    }

    fn accept(&mut self, now: Now) {
        let Some(listener) = &self.listener else { return };
        for _ in 0..ACCEPTS_PER_TURN {
            match listener.accept() {
                Ok((mut stream, peer)) => {
                    // Neither can fail on a socket that is still there; one that is gone shows it when it is read.
                    let _ = stream.set_nodelay(true);
                    let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
                    let key = self.hub.handle_connected(peer.ip(), now);
                    let place = key.place as usize;
                    let token = Token(place + FIRST_CONNECTION);
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if self.poll.registry().register(&mut stream, token, interest).is_err() {
                        self.hub.handle_disconnected(key, now);
                        continue;
                    }
                    if self.sockets.len() <= place {
                        self.sockets.resize_with(place + 1, || None);
                    }
                    self.sockets[place] = Some(Socket::new(stream, key));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accept_again = None;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    eprintln!("messenger: a connection could not be accepted: {error}; trying again");
                    self.accept_again = Some(now.tick + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Reads each socket that may have something, once. When too much waits for the disk those not read yet keep their
    /// places.
    fn read_ready(&mut self, now: Now) {
        let mut ready = std::mem::take(&mut self.ready).into_iter();
        let mut handshakes_left = limits::HANDSHAKES_PER_TURN;
        let mut postponed = Vec::new();
        while !self.hub.is_overloaded() {
            let Some(key) = ready.next() else { break };
            let Some(socket) = self.socket_mut(key) else { continue };
            let may_shake_hands = socket.may_shake_hands();
            if handshakes_left == 0 && may_shake_hands {
                postponed.push(key);
                continue;
            }
            socket.is_queued = false;
            if self.hub.wants_bytes(key) {
                self.read(key, now);
            }
            // Of one that broke off in it, too, the work is done.
            let was_handshake = may_shake_hands && self.socket_mut(key).is_none_or(|socket| socket.is_handshaking());
            handshakes_left = handshakes_left.saturating_sub(usize::from(was_handshake));
        }
        self.ready.splice(..0, postponed.into_iter().chain(ready));
    }

    fn read(&mut self, key: ConnectionKey, now: Now) {
        let Some(socket) = self.sockets.get_mut(key.place as usize).and_then(Option::as_mut) else { return };
        let hub = &mut self.hub;
        let received = socket.read(&mut self.buffer, &self.tls, |bytes| hub.handle_bytes(key, bytes, now));
        if socket.is_readable && !socket.is_queued {
            socket.is_queued = true;
            self.ready.push(key);
        }
        let has_unsent = socket.has_unsent();
        match received {
            Ok(Received::Bytes) => {}
            Ok(Received::Hello) => self.hub.handle_encrypted(key),
            Ok(Received::End) => self.hub.handle_input_end(key, now),
            Err(_) => return self.forget(key, now),
        }
        if has_unsent {
            // The server's part of a handshake.
            self.write(key, now);
        }
    }

    fn take_reports(&mut self, now: Now) -> Result<(), ServerError> {
        while let Some(report) = self.writer.try_report() {
            match report {
                Report::Durable(done) => {
                    let root = done.root.to_string();
                    self.hub.handle_durable(done.lines, done.segment, done.offset, root, done.room_bytes, now);
                    (self.on_durable)(done.last);
                }
                Report::Room { room_bytes } => self.hub.handle_room(room_bytes, now),
                Report::Failed(error) => return Err(error.into()),
            }
        }
        self.background.take_reports(&mut self.hub, now);
        Ok(())
    }

    /// Does what the hub asks for and writes what it has to say, until it asks for nothing more or enough was written.
    fn carry_out(&mut self) {
        let now = self.now();
        let mut writes_left = WRITES_PER_TURN;
        loop {
            let mut idle = true;
            while let Some(output) = self.hub.poll_output(now) {
                idle = false;
                self.carry_out_one(output, now);
            }
            while writes_left > 0 || self.hub.is_output_full() {
                let Some(key) = self.hub.next_touched(writes_left > TOLD_PER_TURN) else { break };
                // What was written may have made room for more to be asked for and told.
                idle = false;
                writes_left = writes_left.saturating_sub(usize::from(self.hub.output_bytes(key) > 0));
                self.write(key, now);
                self.queue_if_readable(key);
            }
            if idle {
                return;
            }
        }
    }

    fn carry_out_one(&mut self, output: Output, now: Now) {
        match output {
            Output::Append { lines, first, last, at } => {
                self.writer.submit(eventlog::Batch { lines, first, last, at });
            }
            Output::CheckPassword { connection, user, password } => {
                let is_right = self.authenticator.is_password(user, &password);
                self.hub.handle_verdict(connection, is_right, now);
            }
            Output::CheckToken(connection, holder, token) => {
                let is_right = self.authenticator.is_token(&holder, &token, now.at);
                self.hub.handle_verdict(connection, is_right, now);
            }
            Output::MakeToken(connection, holder, shown) => {
                let token = self.authenticator.make_token(&holder, shown, now.at);
                self.hub.handle_token(connection, token, now);
            }
            Output::Read { connection, purpose, older, positions } => {
                self.background.read(ReadJob { connection, purpose, older, positions });
            }
            Output::Archive(through) => self.background.archive(through),
            Output::Drop(key) => self.forget(key, now),
            Output::AskForRoom => self.writer.ask_for_room(),
            Output::Console(lines) => self.console.print(lines),
        }
    }

    /// Writes as much as the socket takes of what the hub has for it.
    fn write(&mut self, key: ConnectionKey, now: Now) {
        let Some(socket) = self.sockets.get_mut(key.place as usize).and_then(Option::as_mut) else { return };
        if socket.key != key {
            return;
        }
        while socket.is_writable && (socket.has_unsent() || self.hub.output_bytes(key) > 0) {
            match socket.write(self.hub.output(key), &mut self.sealer) {
                Ok(Some(count)) => self.hub.handle_sent(key, count, now),
                Ok(None) => break,
                Err(_) => return self.forget(key, now),
            }
        }
        if self.hub.output_bytes(key) > 0 {
            self.hub.handle_blocked(key);
        }
        let is_done = self.hub.output_bytes(key) == 0 || socket.is_handshaking();
        if is_done && self.hub.is_closing(key) {
            let ended = socket.end_output();
            if ended.is_err() || (socket.is_shut() && self.hub.has_input_ended(key)) {
                self.forget(key, now);
            }
        }
    }

    /// The hub may want bytes again that the system told of before.
    fn queue_if_readable(&mut self, key: ConnectionKey) {
        let wants = self.hub.wants_bytes(key);
        let Some(socket) = self.socket_mut(key) else { return };
        if wants && socket.is_readable && !socket.is_queued {
            socket.is_queued = true;
            self.ready.push(key);
        }
    }

    fn socket_mut(&mut self, key: ConnectionKey) -> Option<&mut Socket> {
        self.sockets.get_mut(key.place as usize)?.as_mut().filter(|socket| socket.key == key)
    }

    fn forget(&mut self, key: ConnectionKey, now: Now) {
        if self.socket_mut(key).is_some() {
            self.sockets[key.place as usize] = None;
        }
        self.hub.handle_disconnected(key, now);
    }

    fn begin_stop(&mut self, now: Now) {
        if self.stop_by.is_none() {
            self.listener = None;
            self.stop_by = Some(now.tick + STOP_PATIENCE);
            self.hub.handle_stop(now);
        }
    }

    fn has_stopped(&self, now: Now) -> bool {
        let Some(stop_by) = self.stop_by else { return false };
        let is_quiet = self.hub.is_quiet() && !self.sockets.iter().flatten().any(Socket::has_unsent);
        is_quiet || (stop_by <= now.tick && self.hub.durable_seq() == self.hub.state().seq)
    }

    fn read_accounts_again(&mut self, now: Now) {
        match (self.reload)() {
            Ok((credentials, policy)) => {
                self.authenticator.set_credentials(credentials);
                self.hub.handle_policy(policy, now);
                eprintln!("messenger: the credentials were read again");
            }
            Err(error) => eprintln!("messenger: {error}; the old credentials stay in force"),
        }
    }
    fn read_certificate_again(&mut self) {
        match (self.reload_tls)() {
            // Connections that are there go on with what they began with.
            Ok(tls) => self.tls = tls,
            Err(error) => eprintln!("messenger: {error}; the old certificate stays in force"),
        }
    }
}
