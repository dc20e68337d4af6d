//! The clients' sockets: one thread, one poll; bytes are read into one buffer and looked at where they lie.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use messenger::clock;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::ClientConfig;

use crate::dialect::{Dialect, Incoming};
use crate::stream::Stream;

/// How long a server may be silent while something is due before that counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Silence after which nothing more is on its way.
const SETTLED: Duration = Duration::from_millis(300);
/// Requests that are sent before what has come is looked at.
const REQUESTS_A_TURN: usize = 64;
/// Bytes asked of a socket at once.
const READ_BYTES: usize = 256 << 10;
/// Clients that have one source address, with a port each.
const CLIENTS_AN_ADDRESS: usize = 10_000;
/// The first of their ports.
const FIRST_PORT: u16 = 10_000;

/// What is done with each incoming message: of which client, when it was read, what it is.
pub type Handler<'a> = dyn FnMut(usize, Instant, Incoming<'_>) -> anyhow::Result<()> + 'a;

#[derive(Default)]
struct Connection {
    stream: Option<Stream>,
    /// The beginning of a message that is not all there.
    rest: Vec<u8>,
    out: Vec<u8>,
    out_sent: usize,
}

pub struct Connections {
    poll: Poll,
    events: Events,
    list: Vec<Connection>,
    pub dialect: Box<dyn Dialect>,
    /// How many addresses of 127.0.0.0/8 are passed over, because earlier connections have used up their ports.
    pub addresses_passed: u32,
    /// What connections begin TLS with; without it they speak clear text.
    pub tls: Option<Arc<ClientConfig>>,
    buffer: Vec<u8>,
}

impl Connections {
    pub fn new(dialect: Box<dyn Dialect>) -> anyhow::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            list: Vec::new(),
            dialect,
            addresses_passed: 0,
            tls: None,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Logs clients in, at most `under_way` at once; gives how long that took.
    ///
    /// # Errors
    /// One could not be logged in.
    pub fn log_in(
        &mut self,
        address: SocketAddr,
        clients: impl ExactSizeIterator<Item = usize>,
        under_way: usize,
        told: &mut Handler<'_>,
    ) -> anyhow::Result<Duration> {
        let start = clock::monotonic();
        let all = clients.len();
        self.each_answered(clients, all, under_way, told, |connections, client| {
            connections.connect(address, client)?;
            let login = connections.dialect.login(client);
            connections.out(client).extend_from_slice(&login);
            // Over loopback it is often connected already; if not, the poll tells when.
            connections.flush(client)?;
            Ok(())
        })?;
        Ok(clock::monotonic() - start)
    }

    /// Sends each request and waits until each is answered, at most `under_way` at once.
    ///
    /// # Errors
    /// The server refused one, or does not answer.
    pub fn ask(&mut self, requests: Vec<(usize, Vec<u8>)>, under_way: usize) -> anyhow::Result<()> {
        let all = requests.len();
        self.each_answered(requests, all, under_way, &mut |_, _, _| Ok(()), |connections, (client, request)| {
            connections.out(client).extend_from_slice(&request);
            connections.flush(client)
        })
    }

    fn each_answered<T>(
        &mut self,
        requests: impl IntoIterator<Item = T>,
        all: usize,
        under_way: usize,
        told: &mut Handler<'_>,
        mut send: impl FnMut(&mut Self, T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut requests = requests.into_iter();
        let (mut sent, mut answered) = (0, 0);
        let mut last_progress = clock::monotonic();
        while answered < all {
            for _ in 0..(under_way - (sent - answered)).min(REQUESTS_A_TURN) {
                let Some(request) = requests.next() else { break };
                send(self, request)?;
                sent += 1;
            }
            let mut something = false;
            let can_send_more = sent < all && sent - answered < under_way;
            let patience = if can_send_more { Duration::ZERO } else { Duration::from_millis(100) };
            self.turn(patience, &mut |client, at, incoming| {
                something = true;
                if matches!(incoming, Incoming::Answer | Incoming::Token(_)) {
                    answered += 1;
                }
                told(client, at, incoming)
            })?;
            let now = clock::monotonic();
            if something {
                last_progress = now;
            }
            ensure!(
                now < last_progress + PATIENCE,
                "{answered} of {all} requests are answered, and nothing more comes"
            );
        }
        Ok(())
    }

    /// Waits until nothing more comes, as after many have joined and all are told so.
    ///
    /// # Errors
    /// It does not become quiet.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        let give_up = clock::monotonic() + 10 * PATIENCE;
        let mut last = clock::monotonic();
        while clock::monotonic() < last + SETTLED {
            self.turn(SETTLED, &mut |_, at, _| {
                last = at;
                Ok(())
            })?;
            ensure!(clock::monotonic() < give_up, "the server goes on telling things that nobody asked for");
        }
        Ok(())
    }

    fn connect(&mut self, address: SocketAddr, client: usize) -> anyhow::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
            .context("no socket can be made: the limit of open files (ulimit -n)?")?;
        // Linux gives out 28,232 ports and searches long for the last ones. So each gets its own, of an address in
        // 127.0.0.0/8 that is this process's own.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &source(self.addresses_passed, client)?).context("binding a client's address")?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error).context("connecting to the server"),
        }
        let mut stream = TcpStream::from_std(std::net::TcpStream::from(socket));
        stream.set_nodelay(true)?;
        self.poll.registry().register(&mut stream, Token(client), Interest::READABLE | Interest::WRITABLE)?;
        if self.list.len() <= client {
            self.list.resize_with(client + 1, Connection::default);
        }
        let stream = Stream::new(stream, self.tls.as_ref())?;
        self.list[client] = Connection { stream: Some(stream), ..Connection::default() };
        Ok(())
    }

    /// Closes a client's connection, as if its line were cut.
    pub fn close(&mut self, client: usize) {
        self.list[client].stream = None;
    }

    /// Where to put what a client is to say; [`Connections::flush`] sends it.
    pub fn out(&mut self, client: usize) -> &mut Vec<u8> {
        &mut self.list[client].out
    }

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self, client: usize) -> anyhow::Result<()> {
        let connection = &mut self.list[client];
        let Some(stream) = &mut connection.stream else { return Ok(()) };
        stream.flush().with_context(|| format!("writing for client {client}"))?;
        while connection.out_sent < connection.out.len() {
            match stream.write(&connection.out[connection.out_sent..]) {
                Ok(count) => connection.out_sent += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) => return Err(error).with_context(|| format!("writing for client {client}")),
            }
        }
        // Ten thousand clients that have nothing more to say need no buffers.
        connection.out.clear();
        connection.out.shrink_to(4 << 10);
        connection.out_sent = 0;
        Ok(())
    }

    /// Waits for sockets, at most as long as `patience`; writes what waits and gives on what has come.
    ///
    /// # Errors
    /// A connection broke, the server refused something, or the handler's.
    pub fn turn(&mut self, patience: Duration, handle: &mut Handler<'_>) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let Token(client) = event.token();
            if event.is_writable() && !event.is_error() {
                self.flush(client)?;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                let is_ended = event.is_read_closed() || event.is_error();
                self.read(client, is_ended, handle)?;
            }
        }
        std::mem::swap(&mut self.events, &mut events);
        Ok(())
    }

    /// Reads a socket until it is empty: the poll tells only once.
    fn read(&mut self, client: usize, is_ended: bool, handle: &mut Handler<'_>) -> anyhow::Result<()> {
        loop {
            let connection = &mut self.list[client];
            let Some(stream) = &mut connection.stream else { return Ok(()) };
            let kept = connection.rest.len();
            if self.buffer.len() < kept + READ_BYTES {
                self.buffer.resize(kept + READ_BYTES, 0);
            }
            let count = match stream.read(&mut self.buffer[kept..]) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error).with_context(|| format!("reading for client {client}")),
            };
            let at = clock::monotonic();
            if count == 0 {
                connection.stream = None;
                return handle(client, at, Incoming::Closed);
            }
            self.buffer[..kept].copy_from_slice(&connection.rest);
            let may_have_more = count == self.buffer.len() - kept || !stream.is_read_at_once();
            self.take(client, kept + count, at, handle)?;
            if !may_have_more && !is_ended {
                return Ok(());
            }
        }
    }

    /// Gives on the messages in the first bytes of the buffer, and keeps what is left.
    fn take(&mut self, client: usize, length: usize, at: Instant, handle: &mut Handler<'_>) -> anyhow::Result<()> {
        let mut start = 0;
        while start < length {
            let next = self.dialect.next(client, &self.buffer[start..length])?;
            let Some((message_bytes, incoming)) = next else { break };
            start += message_bytes;
            if let Incoming::Reply(reply) = incoming {
                self.list[client].out.extend_from_slice(&reply);
                self.flush(client)?;
            } else {
                handle(client, at, incoming)?;
            }
        }
        let rest = &mut self.list[client].rest;
        rest.clear();
        rest.extend_from_slice(&self.buffer[start..length]);
        if rest.is_empty() {
            rest.shrink_to(0);
        }
        Ok(())
    }
}

/// The address of a client of this process.
fn source(addresses_passed: u32, client: usize) -> anyhow::Result<SocketAddrV4> {
    const ADDRESSES_A_PROCESS: u32 = 256;
    let process = 1 + std::process::id() % 60_000;
    let block = 1 + addresses_passed + u32::try_from(client / CLIENTS_AN_ADDRESS)?;
    ensure!(block < ADDRESSES_A_PROCESS, "so many clients have no addresses");
    let address = Ipv4Addr::new(127, 0, 0, 0).to_bits() + process * ADDRESSES_A_PROCESS + block;
    let port = FIRST_PORT + u16::try_from(client % CLIENTS_AN_ADDRESS)?;
    Ok(SocketAddrV4::new(Ipv4Addr::from_bits(address), port))
}

/// A handler for works in which nothing counts but that no connection ends.
///
/// # Errors
/// One has ended.
#[expect(clippy::needless_pass_by_value, reason = "it is a `Handler`")]
pub fn only_open(client: usize, _: Instant, incoming: Incoming<'_>) -> anyhow::Result<()> {
    ensure_open(client, &incoming)
}

/// For works in which no connection may end.
///
/// # Errors
/// It has ended.
pub fn ensure_open(client: usize, incoming: &Incoming<'_>) -> anyhow::Result<()> {
    if *incoming == Incoming::Closed {
        bail!("the server closed the connection of client {client}");
    }
    Ok(())
}
