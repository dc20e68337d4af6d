//! The socket to the server: addresses tried in order, bytes read and written as far as the system takes them, in clear
//! text or through TLS.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ClientConnection;
use rustls::pki_types::CertificateDer;

use super::limits;
use super::trust::{Trust, WrongKey};

/// The connection to the server.
pub(super) enum Connection {
    Down,
    Connecting {
        stream: TcpStream,
        deadline: Instant,
        /// Addresses to be tried after this one.
        rest: Vec<SocketAddr>,
    },
    /// Connected, and not sure of the server yet.
    Handshaking {
        stream: TcpStream,
        tls: Box<ClientConnection>,
        deadline: Instant,
    },
    Up {
        stream: TcpStream,
        tls: Option<Box<ClientConnection>>,
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
    /// Whoever answers is not the server that is wanted.
    Untrusted(WrongKey),
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
            Self::Connecting { deadline, .. } | Self::Handshaking { deadline, .. } => Some(*deadline),
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

    /// Takes what the system says of the socket; with `trust` TLS is spoken on it.
    pub(super) fn handle_ready(
        &mut self,
        event: &mio::event::Event,
        registry: &Registry,
        trust: Option<&Trust>,
        now: Instant,
    ) -> Attempt {
        match self {
            Self::Down => Attempt::Pending,
            Self::Connecting { stream, .. } => match stream.take_error() {
                Ok(Some(error)) | Err(error) => self.try_next(error, registry, event.token(), now),
                Ok(None) if stream.peer_addr().is_err() => Attempt::Pending,
                Ok(None) => self.settle(event.is_readable(), trust),
            },
            Self::Handshaking { .. } => self.shake_hands(),
            Self::Up { stream, tls, is_readable, is_writable } => {
                *is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                *is_writable |= event.is_writable();
                if let Some(tls) = tls {
                    // What is broken shows when it is read.
                    let _ = send_records(stream, tls, is_writable);
                }
                Attempt::Pending
            }
        }
    }

    /// The certificate of a server on the other end of TLS.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Up { tls: Some(tls), .. } => tls.peer_certificates()?.first(),
            _ => None,
        }
    }

    /// Ends it; the server is told that this was all, if it takes that at once.
    pub(super) fn close(&mut self) {
        if let Self::Up { stream, tls: Some(tls), is_writable, .. } = self {
            tls.send_close_notify();
            let _ = send_records(stream, tls, is_writable);
        }
        *self = Self::Down;
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
        let Self::Up { stream, tls, is_readable: is_readable @ true, is_writable } = self else {
            return Received::Nothing;
        };
        loop {
            let read = match tls {
                None => stream.read(buffer),
                Some(tls) => read_records(stream, tls, buffer),
            };
            if let Some(tls) = tls {
                // TLS itself may have had something to say to what it read; what is broken was read, too.
                let _ = send_records(stream, tls, is_writable);
            }
            match read {
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
        let Self::Up { stream, tls, is_writable: is_writable @ true, .. } = self else { return Ok(None) };
        let written = match tls {
            None => stream.write(bytes),
            Some(tls) => tls.writer().write(bytes).and_then(|count| {
                send_records(stream, tls, is_writable)?;
                Ok(count)
            }),
        };
        match written {
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

    fn settle(&mut self, is_readable: bool, trust: Option<&Trust>) -> Attempt {
        let Self::Connecting { stream, deadline, .. } = std::mem::replace(self, Self::Down) else {
            return Attempt::Pending;
        };
        // A command and the next in two small packets must not wait for each other.
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
        let Some(trust) = trust else {
            *self = Self::Up { stream, tls: None, is_readable, is_writable: true };
            return Attempt::Connected;
        };
        match trust.connection() {
            Ok(tls) => *self = Self::Handshaking { stream, tls: Box::new(tls), deadline },
            Err(error) => return Attempt::Failed(io::Error::other(error)),
        }
        self.shake_hands()
    }

    /// Takes the handshake as far as it goes now.
    fn shake_hands(&mut self) -> Attempt {
        let Self::Handshaking { stream, tls, .. } = self else { return Attempt::Pending };
        loop {
            match tls.complete_io(stream) {
                Ok(_) if tls.is_handshaking() => {}
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Attempt::Pending,
                Err(error) => {
                    *self = Self::Down;
                    return not_shaken(error);
                }
            }
        }
        if let Self::Handshaking { stream, tls, .. } = std::mem::replace(self, Self::Down) {
            // Something may have come with the end of the handshake.
            *self = Self::Up { stream, tls: Some(tls), is_readable: true, is_writable: true };
        }
        Attempt::Connected
    }
}

/// Why a handshake failed, in words for who does not know TLS.
fn not_shaken(error: io::Error) -> Attempt {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let why = match of_tls {
        Some(of_tls) => {
            if let Some(wrong) = WrongKey::of(of_tls) {
                return Attempt::Untrusted(wrong);
            }
            match of_tls {
                rustls::Error::InvalidMessage(_) => "what answers does not speak TLS".to_owned(),
                rustls::Error::AlertReceived(alert) => format!("the server refuses the TLS handshake ({alert:?})"),
                other => format!("the TLS handshake failed: {other}"),
            }
        }
        None if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            "the connection was closed in the TLS handshake: what answers may not speak TLS".to_owned()
        }
        None => return Attempt::Failed(error),
    };
    Attempt::Failed(io::Error::other(why))
}

/// Reads clear text, and as many records as that takes.
fn read_records(stream: &mut TcpStream, tls: &mut ClientConnection, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // An end without a goodbye is an error: a line was cut, perhaps.
            other => return other,
        }
        tls.read_tls(stream)?;
        tls.process_new_packets().map_err(io::Error::other)?;
    }
}

/// Writes the records that are waiting, as far as the system takes them.
fn send_records(stream: &mut TcpStream, tls: &mut ClientConnection, is_writable: &mut bool) -> io::Result<()> {
    while *is_writable && tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => *is_writable = false,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
