//! The physical limit: a process that only reads and writes. It takes each connection's bytes in whole messages of a
//! known length, looks at none, keeps none, and gives them to one other connection or to all others.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 256 << 10;

struct Connection {
    stream: TcpStream,
    /// Its number, once it has said so.
    number: Option<usize>,
    /// The beginning of a message.
    rest: Vec<u8>,
    out: Vec<u8>,
    is_touched: bool,
}

struct Forwarder {
    connections: Vec<Connection>,
    /// Which connection a client has, by its number.
    by_number: Vec<Option<usize>>,
    message_bytes: usize,
    is_group: bool,
    touched: Vec<usize>,
    buffer: Vec<u8>,
}

/// Forwards until it is killed.
///
/// # Errors
/// The machine refused something.
pub fn run(port: u16) -> anyhow::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1_024);
    let mut forwarder = Forwarder {
        connections: Vec::new(),
        by_number: Vec::new(),
        message_bytes: 1,
        is_group: false,
        touched: Vec::new(),
        buffer: vec![0; READ_BYTES],
    };
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &poll, &mut forwarder.connections)?,
                Token(place) => {
                    if event.is_readable() {
                        forwarder.read(place)?;
                    }
                    forwarder.write(place)?;
                }
            }
        }
        for place in std::mem::take(&mut forwarder.touched) {
            forwarder.connections[place].is_touched = false;
            forwarder.write(place)?;
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, connections: &mut Vec<Connection>) -> anyhow::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nodelay(true)?;
                let token = Token(connections.len());
                poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                let (rest, out) = (Vec::new(), Vec::new());
                connections.push(Connection { stream, number: None, rest, out, is_touched: false });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Forwarder {
    fn read(&mut self, place: usize) -> anyhow::Result<()> {
        loop {
            let connection = &mut self.connections[place];
            let kept = connection.rest.len();
            let count = match connection.stream.read(&mut self.buffer[kept..]) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset) => {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            self.buffer[..kept].copy_from_slice(&connection.rest);
            let length = kept + count;
            let mut start = 0;
            if connection.number.is_none() {
                let Some(end) = memchr::memchr(b'\n', &self.buffer[..length]) else { continue };
                start = end + 1;
                self.greet(place, end)?;
            }
            let end = length - (length - start) % self.message_bytes;
            self.forward(place, start, end);
            let rest = &mut self.connections[place].rest;
            rest.clear();
            rest.extend_from_slice(&self.buffer[end..length]);
            if length < self.buffer.len() {
                return Ok(());
            }
        }
    }

    /// A client's first line: its number, the bytes of a message, and `all` or `one`.
    fn greet(&mut self, place: usize, end: usize) -> anyhow::Result<()> {
        let line = std::str::from_utf8(&self.buffer[..end])?;
        let mut words = line.split(' ');
        let number: usize = words.next().unwrap_or_default().parse().with_context(|| format!("no number: {line}"))?;
        self.message_bytes = words.next().unwrap_or_default().parse().with_context(|| format!("no length: {line}"))?;
        self.is_group = words.next() == Some("all");
        if self.by_number.len() <= number {
            self.by_number.resize(number + 1, None);
        }
        self.by_number[number] = Some(place);
        self.connections[place].number = Some(number);
        self.push(place, b"+\n");
        Ok(())
    }

    fn forward(&mut self, place: usize, start: usize, end: usize) {
        if start == end {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let bytes = &buffer[start..end];
        if self.is_group {
            for other in (0..self.connections.len()).filter(|other| *other != place) {
                if self.connections[other].number.is_some() {
                    self.push(other, bytes);
                }
            }
        } else if let Some(number) = self.connections[place].number {
            // Client 2n writes to client 2n + 1.
            if let Some(Some(other)) = self.by_number.get(number ^ 1).copied() {
                self.push(other, bytes);
            }
        }
        self.buffer = buffer;
    }

    fn push(&mut self, place: usize, bytes: &[u8]) {
        let connection = &mut self.connections[place];
        connection.out.extend_from_slice(bytes);
        if !connection.is_touched {
            connection.is_touched = true;
            self.touched.push(place);
        }
    }

    fn write(&mut self, place: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[place];
        let mut sent = 0;
        while sent < connection.out.len() {
            match connection.stream.write(&connection.out[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Who is gone is told nothing more.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    sent = connection.out.len();
                }
                Err(error) => return Err(error.into()),
            }
        }
        connection.out.drain(..sent);
        Ok(())
    }
}
