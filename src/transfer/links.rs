//! The connections, each for one transfer, and what becomes of them after it: they stay until the peer knows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use noq_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Endpoint, Event, FourTuple, Incoming,
    ServerConfig, StreamEvent, Transmit,
};

use super::failure::{CloseCode, Failure};
use super::socket::Datagram;
use super::transport;
use super::worker::Ticket;

/// The first byte of a QUIC packet is this or more, because its fixed bit is set.
const QUIC_FIRST_BYTE: u8 = 0x40;
/// The name in a handshake that must be one and is not looked at.
const PEER_NAME: &str = "peer.invalid";
/// Connections that may try at once to be the sender of one transfer.
const CANDIDATES_MAX: usize = 4;

/// A connection.
#[derive(Debug)]
struct Link {
    connection: Connection,
    /// The transfer that it is for, until one of the two ends.
    ticket: Option<Ticket>,
    /// Something came, or became possible, that was not looked at yet.
    is_touched: bool,
    /// When it is closed unless the peer does; for one whose transfer is done.
    close_at: Option<Instant>,
}

/// Something that a transfer must know of its connection.
#[derive(Debug)]
pub enum Happening {
    /// It stands, and the peer has shown that it holds its key.
    Connected,
    /// It ended; without a failure if the peer closed it because the transfer is done.
    Ended(Option<Failure>),
    /// Something about a stream.
    Stream(StreamEvent),
}

/// All connections.
#[derive(Debug)]
pub struct Links {
    endpoint: Endpoint,
    links: BTreeMap<usize, Link>,
    /// The link that transmitted last: each gets its turn.
    last: usize,
}

impl Links {
    /// No connections.
    pub fn new() -> Self {
        Self { endpoint: Endpoint::new(transport::endpoint(), None, true), links: BTreeMap::new(), last: 0 }
    }

    /// Whether there is no connection, not even one that closes.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Looks at the first packets of connections, or with `None` at none.
    pub fn listen(&mut self, config: Option<Arc<ServerConfig>>) {
        self.endpoint.set_server_config(config);
    }

    /// Takes a datagram; gives what may be a new connection, to be accepted or ignored.
    ///
    /// The endpoint would answer strangers: that they speak another version, or that it does not know their connection.
    /// Those answers are dropped; to a stranger the port is silent.
    pub fn handle_datagram(&mut self, datagram: &Datagram<'_>, now: Instant) -> Option<Incoming> {
        if datagram.bytes.first().is_none_or(|first| *first < QUIC_FIRST_BYTE) {
            return None;
        }
        let path = FourTuple::new(datagram.from, datagram.to);
        let mut answer = Vec::new();
        match self.endpoint.handle(now, path, datagram.ecn, BytesMut::from(datagram.bytes), &mut answer)? {
            DatagramEvent::ConnectionEvent(handle, event) => {
                if let Some(link) = self.links.get_mut(&handle.0) {
                    link.connection.handle_event(event);
                    link.is_touched = true;
                }
                None
            }
            DatagramEvent::NewConnection(incoming) => Some(incoming),
            DatagramEvent::Response(_) => None,
        }
    }

    /// Forgets a new connection without a word.
    pub fn ignore(&mut self, incoming: Incoming) {
        self.endpoint.ignore(incoming);
    }

    /// Lets a new connection show that it is the peer of a transfer.
    pub fn accept(&mut self, incoming: Incoming, ticket: Ticket, config: Arc<ServerConfig>, now: Instant) {
        if self.links.values().filter(|link| link.ticket == Some(ticket)).count() >= CANDIDATES_MAX {
            return self.endpoint.ignore(incoming);
        }
        if let Ok((handle, connection)) = self.endpoint.accept(incoming, now, &mut Vec::new(), Some(config)) {
            self.insert(handle, connection, ticket);
        }
    }

    /// Opens a connection; gives its number.
    pub fn connect(&mut self, config: ClientConfig, to: SocketAddr, ticket: Ticket, now: Instant) -> Option<usize> {
        let (handle, connection) = self.endpoint.connect(now, config, to, PEER_NAME).ok()?;
        self.insert(handle, connection, ticket);
        Some(handle.0)
    }

    fn insert(&mut self, handle: ConnectionHandle, connection: Connection, ticket: Ticket) {
        let link = Link { connection, ticket: Some(ticket), is_touched: true, close_at: None };
        self.links.insert(handle.0, link);
    }

    /// Lets each connection do what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for link in self.links.values_mut() {
            if link.connection.poll_timeout().is_some_and(|due| due <= now) {
                link.connection.handle_timeout(now);
                link.is_touched = true;
            }
            if link.close_at.is_some_and(|due| due <= now) {
                link.close(CloseCode::Done, now);
            }
        }
    }

    /// When [`Links::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.links.values().flat_map(|link| link.connection.poll_timeout().into_iter().chain(link.close_at)).min()
    }

    /// The next thing that happened to a connection of a transfer.
    pub fn poll(&mut self) -> Option<(usize, Ticket, Happening)> {
        for (number, link) in self.links.iter_mut().filter(|(_, link)| link.is_touched) {
            while let Some(event) = link.connection.poll() {
                let ticket = link.ticket;
                let happening = match event {
                    Event::Connected => Happening::Connected,
                    Event::ConnectionLost { reason } => {
                        (link.ticket, link.close_at) = (None, None);
                        match reason {
                            ConnectionError::ApplicationClosed(close) if close.error_code == CloseCode::Done.into() => {
                                Happening::Ended(None)
                            }
                            reason => Happening::Ended(Some(Failure::from_connection(&reason))),
                        }
                    }
                    Event::Stream(event) => Happening::Stream(event),
                    _ => continue,
                };
                if let Some(ticket) = ticket {
                    return Some((*number, ticket, happening));
                }
            }
        }
        None
    }

    /// A connection by its number.
    pub fn connection(&mut self, number: usize) -> Option<&mut Connection> {
        self.links.get_mut(&number).map(|link| &mut link.connection)
    }

    /// Notes that something became possible for a connection's transfer.
    pub fn touch(&mut self, number: usize) {
        if let Some(link) = self.links.get_mut(&number) {
            link.is_touched = true;
        }
    }

    /// The connections for which something came or became possible since the last call.
    pub fn take_touched(&mut self) -> Vec<usize> {
        let take = |(number, link): (&usize, &mut Link)| std::mem::take(&mut link.is_touched).then_some(*number);
        self.links.iter_mut().filter_map(take).collect()
    }

    /// Closes the connections of a transfer; they stay until the peer knows.
    pub fn close(&mut self, ticket: Ticket, code: CloseCode, now: Instant) {
        for link in self.links.values_mut().filter(|link| link.ticket == Some(ticket)) {
            link.close(code, now);
        }
    }

    /// Closes one connection.
    pub fn close_one(&mut self, number: usize, code: CloseCode, now: Instant) {
        if let Some(link) = self.links.get_mut(&number) {
            link.close(code, now);
        }
    }

    /// Closes whatever is still open.
    pub fn close_all(&mut self, code: CloseCode, now: Instant) {
        for link in self.links.values_mut() {
            link.close(code, now);
        }
    }

    /// Leaves it to the peer to close the connections of a transfer that is done, until a moment.
    pub fn linger(&mut self, ticket: Ticket, until: Instant) {
        for link in self.links.values_mut().filter(|link| link.ticket == Some(ticket)) {
            (link.ticket, link.close_at) = (None, Some(until));
        }
    }

    /// Settles between the connections and the endpoint what they have to, and drops those that are over.
    pub fn settle(&mut self) {
        let endpoint = &mut self.endpoint;
        self.links.retain(|number, link| {
            while let Some(event) = link.connection.poll_endpoint_events() {
                if let Some(event) = endpoint.handle_event(ConnectionHandle(*number), event) {
                    link.connection.handle_event(event);
                }
            }
            !link.connection.is_drained()
        });
    }

    /// The next transmission of any connection, each in its turn.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        segments_max: impl Fn(u16) -> usize,
        buffer: &mut Vec<u8>,
    ) -> Option<Transmit> {
        for _ in 0..self.links.len() {
            let next = self.links.range(self.last + 1..).next().or_else(|| self.links.first_key_value());
            self.last = *next?.0;
            let link = self.links.get_mut(&self.last)?;
            buffer.clear();
            let segments = segments_max(link.connection.current_mtu());
            let segments = NonZeroUsize::new(segments).unwrap_or(NonZeroUsize::MIN);
            if let Some(transmit) = link.connection.poll_transmit(now, segments, buffer) {
                return Some(transmit);
            }
        }
        None
    }
}

impl Link {
    fn close(&mut self, code: CloseCode, now: Instant) {
        (self.ticket, self.close_at) = (None, None);
        self.connection.close(now, code.into(), Bytes::new());
    }
}
