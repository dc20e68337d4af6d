//! The clients: one thread, one poll, all sockets; sends at a pace and checks whatever comes.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use messenger::clock;
use messenger::protocol::{CutLine, LineCutter, SERVER_LINE_BYTES_MAX};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::Value;

use crate::report::Outcome;
use crate::server::{PASSWORD, user};

/// How long the server may take for anything before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a sender sends.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As soon as fewer than so many messages are unanswered.
    Window(usize),
    /// So many a second over all senders, whether the server keeps up or not.
    PerSecond(u64),
}

/// What a client says, if it is one that writes.
struct Sender {
    /// The command in front of the text, as it stands in the frame.
    prefix: String,
    number: usize,
    sent: u64,
    answered: u64,
}

struct Client {
    stream: TcpStream,
    cutter: LineCutter,
    out: Vec<u8>,
    out_sent: usize,
    sender: Option<Sender>,
    /// Messages got from each sender, by its number.
    got: Vec<u64>,
}

pub struct Driver {
    poll: Poll,
    clients: Vec<Client>,
    senders: Vec<usize>,
    bytes: usize,
    pace: Pace,
    /// How many clients get each message.
    receivers_each: u64,
    start: Instant,
    is_sending: bool,
    delivered: u64,
    latency_us: Histogram<u64>,
}

impl Driver {
    /// User 2n writes to user 2n + 1.
    pub fn pairs(address: SocketAddr, pairs: usize, bytes: usize, pace: Pace) -> anyhow::Result<Self> {
        let mut driver = Self::connect(address, 2 * pairs, pairs, bytes, pace, 1)?;
        for pair in 0..pairs {
            driver.make_sender(2 * pair, pair, &format!("/msgto {}", user(2 * pair + 1)));
        }
        Ok(driver)
    }

    /// The first `writers` users write to a group of `members`.
    pub fn group(
        address: SocketAddr,
        members: usize,
        writers: usize,
        bytes: usize,
        pace: Pace,
    ) -> anyhow::Result<Self> {
        let mut driver = Self::connect(address, members, writers, bytes, pace, members as u64 - 1)?;
        let others: Vec<String> = (1..members).map(user).collect();
        for some in others.chunks(1_000) {
            let word = if some[0] == user(1) { "/creategroup" } else { "/invite" };
            driver.command(0, &format!("{word} load {}", some.join(" ")))?;
        }
        for member in 1..members {
            driver.command(member, "/joingroup load")?;
        }
        // All have heard of everybody before the clock starts.
        for member in 0..members {
            driver.command(member, "/groups")?;
        }
        for writer in 0..writers {
            driver.make_sender(writer, writer, "/groupmsg load");
        }
        Ok(driver)
    }

    fn connect(
        address: SocketAddr,
        count: usize,
        senders: usize,
        bytes: usize,
        pace: Pace,
        receivers_each: u64,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut clients = Vec::with_capacity(count);
        for number in 0..count {
            let mut stream = std::net::TcpStream::connect(address).context("connecting to the server")?;
            stream.set_nodelay(true)?;
            let name = user(number);
            let login = format!("{{\"type\":\"login\",\"username\":\"{name}\",\"password\":\"{PASSWORD}\"}}\n");
            stream.write_all(login.as_bytes())?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            clients.push(Client {
                stream,
                cutter: LineCutter::new(SERVER_LINE_BYTES_MAX),
                out: Vec::new(),
                out_sent: 0,
                sender: None,
                got: vec![0; senders],
            });
        }
        let latency_us = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        let start = clock::monotonic();
        let mut driver = Self {
            poll,
            clients,
            senders: Vec::new(),
            bytes,
            pace,
            receivers_each,
            start,
            is_sending: false,
            delivered: 0,
            latency_us,
        };
        for number in 0..count {
            driver.wait_for(number, |frame| frame["type"] == "live")?;
        }
        Ok(driver)
    }

    fn make_sender(&mut self, client: usize, number: usize, command: &str) {
        let prefix = format!("{{\"type\":\"command\",\"text\":\"{command} ");
        self.clients[client].sender = Some(Sender { prefix, number, sent: 0, answered: 0 });
        self.senders.push(client);
    }

    /// Sends for as long as `duration`, and waits until all has arrived.
    pub fn run(&mut self, duration: Duration) -> anyhow::Result<Outcome> {
        let mut events = Events::with_capacity(1_024);
        self.start = clock::monotonic();
        let mut last_progress = (self.start, 0);
        loop {
            let now = clock::monotonic();
            self.is_sending = now < self.start + duration;
            if self.is_sending {
                self.send_due(now)?;
            }
            let sent = self.sent();
            if !self.is_sending && self.delivered == sent * self.receivers_each && self.answered() == sent {
                let elapsed = now - self.start;
                return Ok(Outcome { sent, delivered: self.delivered, elapsed, latency_us: self.latency_us.clone() });
            }
            if self.delivered + self.answered() != last_progress.1 {
                last_progress = (now, self.delivered + self.answered());
            }
            ensure!(
                now < last_progress.0 + PATIENCE,
                "{} of {} deliveries and {} of {sent} answers came, and nothing more",
                self.delivered,
                sent * self.receivers_each,
                self.answered()
            );
            let wait = match self.pace {
                Pace::PerSecond(_) if self.is_sending => Duration::ZERO,
                _ => Duration::from_millis(100),
            };
            self.poll.poll(&mut events, Some(wait))?;
            let ready: Vec<Token> = events.iter().map(mio::event::Event::token).collect();
            for Token(client) in ready {
                self.flush(client)?;
                self.read(client)?;
            }
        }
    }

    fn sent(&self) -> u64 {
        self.senders.iter().filter_map(|client| self.clients[*client].sender.as_ref()).map(|sender| sender.sent).sum()
    }

    fn answered(&self) -> u64 {
        let senders = self.senders.iter().filter_map(|client| self.clients[*client].sender.as_ref());
        senders.map(|sender| sender.answered).sum()
    }

    fn send_due(&mut self, now: Instant) -> anyhow::Result<()> {
        match self.pace {
            Pace::Window(window) => {
                for place in 0..self.senders.len() {
                    let client = self.senders[place];
                    self.fill_window(client, window, now)?;
                }
            }
            Pace::PerSecond(per_second) => {
                let due = micros(now - self.start) * per_second / 1_000_000;
                for number in self.sent()..due {
                    let intended = self.start + Duration::from_micros(number * 1_000_000 / per_second);
                    let client = self.senders[usize::try_from(number)? % self.senders.len()];
                    self.queue(client, intended);
                    self.flush(client)?;
                }
            }
        }
        Ok(())
    }

    fn fill_window(&mut self, client: usize, window: usize, now: Instant) -> anyhow::Result<()> {
        loop {
            let Some(sender) = &self.clients[client].sender else { return Ok(()) };
            if sender.sent - sender.answered >= window as u64 {
                return self.flush(client);
            }
            self.queue(client, now);
        }
    }

    /// Puts one message into a client's buffer: who, which, when it was due, and filling up to its length.
    fn queue(&mut self, client: usize, due: Instant) {
        let due_us = micros(due.saturating_duration_since(self.start));
        let client = &mut self.clients[client];
        let Some(sender) = &mut client.sender else { return };
        let start = client.out.len() + sender.prefix.len();
        client.out.extend_from_slice(sender.prefix.as_bytes());
        let _ = write!(client.out, "{} {} {due_us} ", sender.number, sender.sent);
        client.out.resize((start + self.bytes).max(client.out.len()), b'x');
        client.out.extend_from_slice(b"\"}\n");
        sender.sent += 1;
    }

    fn flush(&mut self, client: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[client];
        while client.out_sent < client.out.len() {
            match client.stream.write(&client.out[client.out_sent..]) {
                Ok(count) => client.out_sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("writing to the server"),
            }
        }
        client.out.clear();
        client.out_sent = 0;
        Ok(())
    }

    fn read(&mut self, number: usize) -> anyhow::Result<()> {
        let mut buffer = [0; 64 << 10];
        loop {
            let client = &mut self.clients[number];
            let count = match client.stream.read(&mut buffer) {
                Ok(0) => bail!("the server closed the connection of {}", user(number)),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("reading from the server"),
            };
            client.cutter.push(&buffer[..count]);
            let now = clock::monotonic();
            let elapsed_us = micros(now - self.start);
            while let Some(line) = client.cutter.next_line() {
                let CutLine::Whole(line) = line else { bail!("a line of the server is too long") };
                if line.starts_with(b"{\"type\":\"ok\"") {
                    client.sender.as_mut().context("an answer to somebody who sent nothing")?.answered += 1;
                } else {
                    let due_us = check(line, &mut client.got, self.bytes)?;
                    self.delivered += 1;
                    self.latency_us.saturating_record(elapsed_us.saturating_sub(due_us).max(1));
                }
            }
            if count < buffer.len() {
                break;
            }
        }
        if let Pace::Window(window) = self.pace
            && self.clients[number].sender.is_some()
            && self.is_sending
        {
            self.fill_window(number, window, clock::monotonic())?;
        }
        Ok(())
    }

    /// One command before the run, answered before anything else is done.
    fn command(&mut self, client: usize, text: &str) -> anyhow::Result<()> {
        let frame = serde_json::json!({"type": "command", "id": "setup", "text": text});
        self.clients[client].out.extend_from_slice(format!("{frame}\n").as_bytes());
        self.flush(client)?;
        self.wait_for(client, |frame| frame["id"] == "setup")
    }

    /// Reads a client's frames until one is the one that is waited for; what comes before it is passed over.
    fn wait_for(&mut self, number: usize, is_it: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let give_up = clock::monotonic() + PATIENCE;
        let mut buffer = [0; 64 << 10];
        let mut events = Events::with_capacity(64);
        loop {
            let client = &mut self.clients[number];
            while let Some(line) = client.cutter.next_line() {
                let CutLine::Whole(line) = line else { bail!("a line of the server is too long") };
                let frame: Value = serde_json::from_slice(line)?;
                ensure!(frame["type"] != "error", "the server refused: {frame}");
                if is_it(&frame) {
                    return Ok(());
                }
            }
            match client.stream.read(&mut buffer) {
                Ok(0) => bail!("the server closed the connection of {}", user(number)),
                Ok(count) => client.cutter.push(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ensure!(clock::monotonic() < give_up, "no answer for {}", user(number));
                    self.poll.poll(&mut events, Some(Duration::from_millis(10)))?;
                    self.flush(number)?;
                }
                Err(error) => return Err(error).context("reading from the server"),
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Checks a pushed message against what is due from its sender; gives the moment at which it was due.
fn check(line: &[u8], got: &mut [u64], bytes: usize) -> anyhow::Result<u64> {
    let marker = b"\"text\":\"";
    let start = memchr::memmem::find(line, marker).context("an event without a text")? + marker.len();
    let end = memchr::memchr(b'"', &line[start..]).context("a text without an end")?;
    let text = std::str::from_utf8(&line[start..start + end])?;
    let mut words = text.splitn(4, ' ');
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).context("a text that was not sent");
    let (sender, count, due_us) = (number()?, number()?, number()?);
    let expected = got.get_mut(usize::try_from(sender)?).context("a sender that is none")?;
    ensure!(count == *expected, "message {count} of sender {sender} came where {expected} was due");
    *expected += 1;
    let filling = words.next().unwrap_or_default();
    ensure!(text.len() >= bytes && filling.bytes().all(|byte| byte == b'x'), "the text was changed: {text}");
    Ok(due_us)
}
