//! The thin shell: one loop that moves bytes, lines and files between the system and the core.
//!
//! A turn: wait; read the clock; take what is typed, received and reported; carry out what the core asks for, keep it
//! durably, and only then send.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Token, Waker};
use uuid::Uuid;

use super::app::App;
use super::connection::{Attempt, Connection, Received};
use super::contract::{Ending, Keep, Opened, Output, Prompt};
use super::engine::Sharing;
use super::interface::{Interface, Typed, Wake};
use super::limits;
use super::state::{State, StateError};
use super::trust::Trust;
use crate::chat::Seq;
use crate::clock;
use crate::names::{DeviceName, UserName};
use crate::transfer::{self, Engine};

const CHAT: Token = Token(0);
const WAKER: Token = Token(1);
const STOP: Token = Token(2);
const ENGINE: transfer::Tokens = transfer::Tokens { socket: Token(3), timer: Token(4) };

/// How often a socket is read in one turn.
const READS_PER_TURN: usize = 16;
/// How long the end waits for the goodbyes of transfers.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// Why a client ended that should not have.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What must outlive the program cannot be kept.
    #[error("the client's state cannot be written: {0}; what was not sent yet may be lost")]
    State(io::Error),
    /// The machine refused something the loop cannot do without.
    #[error("the event loop failed: {0}")]
    Loop(#[from] io::Error),
}

/// Makes the interface, given what wakes the loop.
pub type MakeInterface = Box<dyn FnOnce(Wake) -> io::Result<Box<dyn Interface>>>;

/// What the loop is made of.
pub struct Parts {
    /// All that decides.
    pub app: App,
    /// The server, as the state is kept under its name.
    pub server: String,
    /// Where the server may be reached, to be tried in order.
    pub addresses: Vec<SocketAddr>,
    /// Whom to take for the server, over TLS; without it, clear text is spoken.
    pub trust: Option<Trust>,
    /// Makes the interface.
    pub make_interface: MakeInterface,
    /// The directory for the state of all messengers.
    pub state_root: PathBuf,
    /// The device's name, where it is not the machine's own.
    pub device: Option<DeviceName>,
    /// The UDP port for transfers; 0 takes a free one.
    pub udp_port: u16,
    /// Where received files go.
    pub download_dir: PathBuf,
}

struct Shell {
    poll: Poll,
    waker: Arc<Waker>,
    app: App,
    interface: Box<dyn Interface>,
    chat: Connection,
    sharing: Option<Sharing>,
    state: Option<State>,
    /// How far all has been shown: kept once it is printed.
    cursor: Option<(Uuid, Seq)>,
    /// What was asked for last.
    asked: Prompt,
    /// Whether more may have been typed than was taken.
    has_typed_more: bool,
    buffer: Box<[u8]>,
    server: String,
    addresses: Vec<SocketAddr>,
    trust: Option<Trust>,
    state_root: PathBuf,
    device: Option<DeviceName>,
    udp_port: u16,
    download_dir: PathBuf,
}

/// Runs a client to its end.
///
/// # Errors
/// The disk or the machine failed.
pub fn run(parts: Parts) -> Result<Ending, ClientError> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let (mut stop, stopping) = stop_signals(&poll)?;
    let for_interface = Arc::clone(&waker);
    // A loop that cannot be woken is gone.
    let interface = (parts.make_interface)(Arc::new(move || drop(for_interface.wake())))?;
    let mut shell = Shell {
        poll,
        waker,
        app: parts.app,
        interface,
        chat: Connection::Down,
        sharing: None,
        state: None,
        cursor: None,
        asked: Prompt::None,
        has_typed_more: false,
        buffer: vec![0; limits::READ_BYTES_PER_TURN].into_boxed_slice(),
        server: parts.server,
        addresses: parts.addresses,
        trust: parts.trust,
        state_root: parts.state_root,
        device: parts.device,
        udp_port: parts.udp_port,
        download_dir: parts.download_dir,
    };
    let ended = shell.work(&mut stop, &stopping);
    shell.interface.close();
    let kept = shell.keep_cursor();
    if let Some(state) = shell.state.take() {
        state.close();
    }
    let ending = ended?;
    kept?;
    Ok(ending)
}

/// A pipe that says when the process is to end; a second signal ends it at once.
fn stop_signals(poll: &Poll) -> io::Result<(UnixStream, Arc<AtomicBool>)> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stopping = Arc::new(AtomicBool::new(false));
    let (receiver, sender) = StdUnixStream::pair()?;
    receiver.set_nonblocking(true)?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stopping))?;
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    let mut stop = UnixStream::from_std(receiver);
    poll.registry().register(&mut stop, STOP, Interest::READABLE)?;
    Ok((stop, stopping))
}

impl Shell {
    fn work(&mut self, stop: &mut UnixStream, stopping: &AtomicBool) -> Result<Ending, ClientError> {
        let mut events = Events::with_capacity(64);
        let mut close_by = None;
        loop {
            let now = clock::monotonic();
            self.carry_out(now)?;
            if self.interface.is_broken() {
                // Nobody reads any more: that is no failure.
                return Ok(Ending::Done);
            }
            if let Some(ending) = self.app.ending() {
                let close_by = *close_by.get_or_insert(now + CLOSE_PATIENCE);
                if close_by <= now || !self.sharing.as_ref().is_some_and(Sharing::is_busy) {
                    self.say_goodbye();
                    return Ok(ending);
                }
            }
            self.asked = self.app.prompt();
            self.interface.ask(self.asked);
            if let Err(error) = self.poll.poll(&mut events, self.patience(close_by)) {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error.into());
            }
            let now = clock::monotonic();
            for event in &events {
                match event.token() {
                    CHAT => {
                        let attempt = self.chat.handle_ready(event, self.poll.registry(), self.trust.as_ref(), now);
                        self.take_attempt(attempt, now);
                    }
                    WAKER => {
                        if let Some(sharing) = &mut self.sharing {
                            sharing.engine.handle_woken(now);
                        }
                    }
                    STOP => {
                        let _ = stop.read(&mut [0; 64]);
                        stopping.store(true, Ordering::Relaxed);
                        self.app.handle_interrupt(now);
                    }
                    _ => {
                        if let Some(sharing) = &mut self.sharing {
                            sharing.engine.handle_ready(event, now);
                        }
                    }
                }
            }
            self.take_typed(now);
            self.read(now);
            self.handle_timeouts(now);
        }
    }

    /// How long to wait for something to happen.
    fn patience(&self, close_by: Option<Instant>) -> Option<Duration> {
        let has_bytes = self.chat.is_readable() && self.may_read();
        if has_bytes || (self.has_typed_more && self.app.wants_line()) {
            return Some(Duration::ZERO);
        }
        let engine = self.sharing.as_ref().and_then(|sharing| sharing.engine.next_timeout());
        let due =
            self.app.next_timeout().into_iter().chain(self.chat.deadline()).chain(engine).chain(close_by).min()?;
        // Rounded up, or the last millisecond would be waited for in ever smaller pieces.
        let left = due.saturating_duration_since(clock::monotonic());
        Some(if left.is_zero() { left } else { left + Duration::from_millis(1) })
    }

    /// Takes what is typed as the answer to what was asked: when something else is asked for, the rest waits a turn.
    fn take_typed(&mut self, now: Instant) {
        self.has_typed_more = true;
        while self.app.wants_line() && self.app.prompt() == self.asked {
            match self.interface.take() {
                Some(Typed::Line(line)) => self.app.handle_line(&line, now),
                Some(Typed::Bad(why)) => self.app.handle_bad_line(why),
                Some(Typed::End) => self.app.handle_input_end(),
                Some(Typed::Interrupt) => self.app.handle_interrupt(now),
                None => {
                    self.has_typed_more = false;
                    return;
                }
            }
        }
    }

    fn handle_timeouts(&mut self, now: Instant) {
        if self.app.next_timeout().is_some_and(|due| due <= now) {
            self.app.handle_timeout(now);
        }
        let attempt = self.chat.handle_timeout(self.poll.registry(), CHAT, now);
        self.take_attempt(attempt, now);
        if let Some(sharing) = &mut self.sharing
            && sharing.engine.next_timeout().is_some_and(|due| due <= now)
        {
            sharing.engine.handle_timeout(now);
        }
    }

    /// Does what the core asks for until it asks for nothing more, and sends.
    fn carry_out(&mut self, now: Instant) -> Result<(), ClientError> {
        if self.app.prompt() == Prompt::None {
            self.interface.ask(Prompt::None);
        }
        loop {
            if self.app.wants_connection(now) {
                self.connect(now);
            }
            let mut is_idle = true;
            while let Some(event) = self.sharing.as_mut().and_then(|sharing| sharing.engine.poll_event()) {
                is_idle = false;
                self.app.handle_transfer_event(event, now);
            }
            while let Some(output) = self.app.poll_output() {
                is_idle = false;
                self.carry_out_one(output, now)?;
            }
            is_idle &= !self.send(now)?;
            if is_idle {
                break;
            }
        }
        self.keep_cursor_if_printed()
    }

    fn carry_out_one(&mut self, output: Output, now: Instant) -> Result<(), ClientError> {
        match output {
            Output::Show(show) => self.interface.show(&show, now),
            Output::Keep(Keep::Cursor(log, seq)) => self.cursor = Some((log, seq)),
            Output::Keep(keep) => {
                if let Some(state) = &mut self.state {
                    state.keep(&keep).map_err(ClientError::State)?;
                }
            }
            Output::Open(user) => match self.open(user) {
                Ok(opened) => self.app.handle_opened(opened, now),
                Err(error) => self.app.handle_not_opened(&error.to_string()),
            },
            Output::Transfer(action) => {
                if let Some(sharing) = &mut self.sharing {
                    sharing.act(action, &mut self.app, now);
                }
            }
            Output::Disconnect => self.hang_up(now),
        }
        Ok(())
    }

    /// Opens the state of a user, and the engine of transfers, without which the chat goes on.
    fn open(&mut self, user: UserName) -> Result<Opened, StateError> {
        let state = State::open(&self.state_root, &self.server, user, self.device)?;
        self.interface.set_user(user, &state.history_file());
        let is_local = self.addresses.iter().all(|address| address.ip().is_loopback());
        let ip: IpAddr = match (self.addresses.first().is_some_and(SocketAddr::is_ipv6), is_local) {
            (false, true) => Ipv4Addr::LOCALHOST.into(),
            (false, false) => Ipv4Addr::UNSPECIFIED.into(),
            (true, true) => Ipv6Addr::LOCALHOST.into(),
            (true, false) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let options = transfer::Options {
            bind: SocketAddr::new(ip, self.udp_port),
            download_dir: self.download_dir.clone(),
            key_file: state.key_file(),
            waker: Arc::clone(&self.waker),
        };
        let engine = match Engine::new(self.poll.registry(), ENGINE, options) {
            Ok(engine) => Some(engine),
            Err(error) => {
                let why = format!("Transfers are off: {error}");
                self.interface.show(&super::Show::Notice(why), clock::monotonic());
                None
            }
        };
        let opened = Opened {
            device: state.device(),
            outbox: state.outbox(),
            cursor: state.cursor(),
            heads: state.heads(),
            engine: engine.as_ref().map(|engine| (engine.udp_port(), engine.public_key().to_owned())),
        };
        self.sharing = engine.map(Sharing::new);
        self.state = Some(state);
        self.tell_addresses();
        Ok(opened)
    }

    /// Tells the core where peers may reach this client.
    fn tell_addresses(&mut self) {
        if let (Some(sharing), Some(ip)) = (&self.sharing, self.chat.local_ip()) {
            self.app.set_addresses(sharing.engine.addresses(ip));
        }
    }

    fn connect(&mut self, now: Instant) {
        self.app.handle_connecting();
        let attempt = self.chat.begin(self.addresses.clone(), self.poll.registry(), CHAT, now);
        self.take_attempt(attempt, now);
    }

    /// Tells the core what became of an attempt to connect.
    fn take_attempt(&mut self, attempt: Attempt, now: Instant) {
        match attempt {
            Attempt::Pending => {}
            Attempt::Connected => match self.keep_key() {
                Ok(()) => {
                    self.tell_addresses();
                    self.app.handle_connected(now);
                }
                Err(error) => {
                    self.chat.close();
                    self.app.handle_untrusted(&format!("The key of {} cannot be kept: {error}.", self.server));
                }
            },
            Attempt::Untrusted(wrong) => {
                let why = self.trust.as_ref().map(|trust| trust.refusal(wrong));
                self.app.handle_untrusted(&why.unwrap_or_else(|| wrong.to_string()));
            }
            Attempt::Failed(error) => {
                let why = format!("Cannot connect to {}: {error}. Is the server running?", self.server);
                self.app.handle_connect_failed(&why, now);
            }
        }
    }

    /// Keeps the server's key where it was not known, before anything is said.
    fn keep_key(&mut self) -> io::Result<()> {
        if let (Some(trust), Some(certificate)) = (&mut self.trust, self.chat.certificate())
            && let Some(news) = trust.handle_connected(certificate)?
        {
            self.app.handle_notice(news);
        }
        Ok(())
    }

    fn may_read(&self) -> bool {
        self.interface.printing_bytes() < limits::PRINTING_BYTES_MAX
    }

    fn read(&mut self, now: Instant) {
        for _ in 0..READS_PER_TURN {
            if !self.may_read() {
                return;
            }
            match self.chat.read(&mut self.buffer) {
                Received::Bytes(count) => self.app.handle_bytes(self.buffer.get(..count).unwrap_or_default(), now),
                Received::Nothing => return,
                Received::End => return self.hang_up(now),
            }
        }
    }

    /// Sends what the socket takes, once all that must be kept is durable. Gives whether anything went out.
    fn send(&mut self, now: Instant) -> Result<bool, ClientError> {
        let mut has_sent = false;
        while !self.app.output().is_empty() {
            if let Some(state) = &mut self.state {
                state.sync().map_err(ClientError::State)?;
            }
            match self.chat.write(self.app.output()) {
                Ok(Some(count)) => {
                    has_sent = true;
                    self.app.handle_sent(count);
                }
                Ok(None) => break,
                Err(_) => {
                    // What the server said last may still be there to be read.
                    self.read(now);
                    self.hang_up(now);
                    return Ok(true);
                }
            }
        }
        Ok(has_sent)
    }

    fn hang_up(&mut self, now: Instant) {
        if !matches!(self.chat, Connection::Down) {
            self.chat.close();
            self.app.handle_disconnected(now);
        }
    }

    fn keep_cursor_if_printed(&mut self) -> Result<(), ClientError> {
        if self.interface.printing_bytes() == 0 { self.keep_cursor() } else { Ok(()) }
    }

    fn keep_cursor(&mut self) -> Result<(), ClientError> {
        match (self.cursor.take(), &mut self.state) {
            (Some((log, seq)), Some(state)) => state.keep(&Keep::Cursor(log, seq)).map_err(ClientError::State),
            _ => Ok(()),
        }
    }

    /// Tells the peers of transfers, and ends the sending side of the connection.
    fn say_goodbye(&mut self) {
        if let Some(sharing) = self.sharing.take() {
            sharing.engine.close();
        }
        self.chat.close();
    }
}
