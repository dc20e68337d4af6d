//! The socket to the server: addresses tried in order, bytes read and written as far as the system takes them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::limits;

/// The connection to the server.
pub(super) enum Connection {
    Down,
    Connecting {
        stream: TcpStream,
        deadline: Instant,
        /// Addresses to be tried after this one.
        rest: Vec<SocketAddr>,
    },
    Up {
        stream: TcpStream,
        /// The system may have bytes for us: it tells only once.
        is_readable: bool,
        is_writable: bool,
    },
}

/// What became of an attempt to connect.
pub(super) enum Attempt {
    /// It goes on.
    Pending,
    /// The connection is there.
    Connected,
    /// No address takes it; this is what the last one said.
    Failed(io::Error),
}

/// What a socket gave.
pub(super) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

impl Connection {
    /// Begins to connect to the first of the addresses that the system takes.
    pub(super) fn begin(
        &mut self,
        addresses: Vec<SocketAddr>,
        registry: &Registry,
        token: Token,
        now: Instant,
    ) -> Attempt {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let mut addresses = addresses.into_iter();
        while let Some(address) = addresses.next() {
            let begun = TcpStream::connect(address).and_then(|mut stream| {
                registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                Ok(stream)
            });
            match begun {
                Ok(stream) => {
                    let deadline = now + Duration::from_millis(limits::CONNECT_MS);
                    *self = Self::Connecting { stream, deadline, rest: addresses.collect() };
                    return Attempt::Pending;
                }
                Err(error) => last = error,
            }
        }
        *self = Self::Down;
        Attempt::Failed(last)
    }

    /// When the address being tried has had its time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Connecting { deadline, .. } => Some(*deadline),
            _ => None,
        }
    }

    /// Goes on to the next address where one has had its time.
    pub(super) fn handle_timeout(&mut self, registry: &Registry, token: Token, now: Instant) -> Attempt {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Attempt::Pending;
        }
        self.try_next(io::ErrorKind::TimedOut.into(), registry, token, now)
    }

    /// Takes what the system says of the socket.
    pub(super) fn handle_ready(&mut self, event: &mio::event::Event, registry: &Registry, now: Instant) -> Attempt {
        match self {
            Self::Down => Attempt::Pending,
            Self::Connecting { stream, .. } => match stream.take_error() {
                Ok(Some(error)) | Err(error) => self.try_next(error, registry, event.token(), now),
                Ok(None) if stream.peer_addr().is_err() => Attempt::Pending,
                Ok(None) => self.settle(event.is_readable()),
            },
            Self::Up { is_readable, is_writable, .. } => {
                *is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                *is_writable |= event.is_writable();
                Attempt::Pending
            }
        }
    }

    /// Whether there may be something to read.
    pub(super) fn is_readable(&self) -> bool {
        matches!(self, Self::Up { is_readable: true, .. })
    }

    /// Our own address, once connected.
    pub(super) fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Up { stream, .. } => stream.local_addr().ok().map(|address| address.ip()),
            _ => None,
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Received {
        let Self::Up { stream, is_readable: is_readable @ true, .. } = self else { return Received::Nothing };
        loop {
            match stream.read(buffer) {
                Ok(0) => return Received::End,
                Ok(count) => return Received::Bytes(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *is_readable = false;
                    return Received::Nothing;
                }
                Err(_) => return Received::End,
            }
        }
    }

    /// Writes what the system takes; `None` where it takes nothing now.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let Self::Up { stream, is_writable: is_writable @ true, .. } = self else { return Ok(None) };
        match stream.write(bytes) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                *is_writable = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn try_next(&mut self, why: io::Error, registry: &Registry, token: Token, now: Instant) -> Attempt {
        match std::mem::replace(self, Self::Down) {
            Self::Connecting { rest, .. } if !rest.is_empty() => self.begin(rest, registry, token, now),
            _ => Attempt::Failed(why),
        }
    }

    fn settle(&mut self, is_readable: bool) -> Attempt {
        if let Self::Connecting { stream, .. } = std::mem::replace(self, Self::Down) {
            // A command and the next in two small packets must not wait for each other.
            let _ = stream.set_nodelay(true);
            let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
            *self = Self::Up { stream, is_readable, is_writable: true };
        }
        Attempt::Connected
    }
}
