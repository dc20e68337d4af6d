//! Messages: sends at a pace and checks whatever comes, each sender's in its order and none twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use messenger::clock;
use rustls::ClientConfig;

use crate::connections::{Connections, PATIENCE, ensure_open, only_open};
use crate::dialect::{Dialect, Incoming, Recipient};
use crate::subject::Server;
use crate::text::Texts;

/// Requests before the run that are under way at once.
const REQUESTS_UNDER_WAY: usize = 256;

/// When a sender sends.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As soon as fewer than so many messages are unanswered, or, where messages are not answered, undelivered.
    Window(u64),
    /// So many a second over all senders, whether the server keeps up or not.
    PerSecond(u64),
}

/// Who writes to whom.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Client 2n writes to client 2n + 1; `idle` more are logged in.
    Pairs { pairs: usize, idle: usize },
    /// The first `writers` of the members write to all.
    Group { members: usize, writers: usize },
}

impl Shape {
    pub fn clients(self) -> usize {
        match self {
            Self::Pairs { pairs, idle } => 2 * pairs + idle,
            Self::Group { members, .. } => members,
        }
    }

    fn senders(self) -> usize {
        match self {
            Self::Pairs { pairs, .. } => pairs,
            Self::Group { writers, .. } => writers,
        }
    }

    /// The client that is a sender.
    fn client(self, sender: usize) -> usize {
        match self {
            Self::Pairs { .. } => 2 * sender,
            Self::Group { .. } => sender,
        }
    }

    /// The sender that a client is, if it is one.
    fn sender(self, client: usize) -> Option<usize> {
        match self {
            Self::Pairs { pairs, .. } => (client.is_multiple_of(2) && client < 2 * pairs).then_some(client / 2),
            Self::Group { writers, .. } => (client < writers).then_some(client),
        }
    }

    fn recipient(self, sender: usize) -> Recipient {
        match self {
            Self::Pairs { .. } => Recipient::Client(2 * sender + 1),
            Self::Group { .. } => Recipient::Group,
        }
    }

    /// Where the messages of a sender to a client are counted; `None` if it sends it none.
    fn place(self, client: usize, sender: usize) -> Option<usize> {
        match self {
            Self::Pairs { .. } => (client == 2 * sender + 1).then_some(sender),
            Self::Group { writers, .. } => (sender < writers).then_some(client * writers + sender),
        }
    }

    fn places(self) -> usize {
        match self {
            Self::Pairs { pairs, .. } => pairs,
            Self::Group { members, writers } => members * writers,
        }
    }
}

/// What a run has measured, in the driver's own terms.
#[derive(Debug)]
pub struct Outcome {
    pub sent: u64,
    pub delivered: u64,
    /// From the first send to the last delivery.
    pub elapsed: Duration,
    /// Of each delivery, in microseconds, from when the message was due.
    pub latency_us: Histogram<u64>,
}

struct Sender {
    head: Vec<u8>,
    tail: Vec<u8>,
    sent: u64,
    answered: u64,
    delivered: u64,
    /// When each message was due, in microseconds from the start.
    due_us: Vec<u32>,
    is_ready: bool,
}

/// All that is sent and was got, without the sockets.
struct Traffic {
    shape: Shape,
    texts: Texts,
    senders: Vec<Sender>,
    /// Senders that something was freed for.
    ready: Vec<usize>,
    /// The number of the next message by [`Shape::place`].
    next: Vec<u64>,
    /// How many clients get each message.
    receivers_each: u64,
    are_answered: bool,
    start: Instant,
    sent: u64,
    answered: u64,
    delivered: u64,
    latency_us: Histogram<u64>,
}

impl Traffic {
    fn new(shape: Shape, texts: Texts, dialect: &dyn Dialect) -> anyhow::Result<Self> {
        let senders = (0..shape.senders()).map(|sender| {
            let (head, tail) = dialect.envelope(shape.client(sender), shape.recipient(sender), texts.bytes());
            Sender { head, tail, sent: 0, answered: 0, delivered: 0, due_us: Vec::new(), is_ready: false }
        });
        let senders = senders.collect();
        let receivers_each = match shape {
            Shape::Pairs { .. } => 1,
            Shape::Group { members, .. } => members as u64 - u64::from(!dialect.hears_itself()),
        };
        Ok(Self {
            shape,
            texts,
            senders,
            ready: Vec::new(),
            next: vec![0; shape.places()],
            receivers_each,
            are_answered: dialect.answers_messages(),
            start: clock::monotonic(),
            sent: 0,
            answered: 0,
            delivered: 0,
            latency_us: Histogram::new_with_bounds(1, 60_000_000, 3)?,
        })
    }

    fn is_done(&self) -> bool {
        self.delivered == self.sent * self.receivers_each && (!self.are_answered || self.answered == self.sent)
    }

    fn under_way(&self, sender: &Sender) -> u64 {
        sender.sent - if self.are_answered { sender.answered } else { sender.delivered / self.receivers_each }
    }

    /// Puts one message into a client's buffer.
    fn queue(&mut self, number: usize, due: Instant, out: &mut Vec<u8>) {
        let sender = &mut self.senders[number];
        out.extend_from_slice(&sender.head);
        self.texts.push(number, sender.sent, out);
        out.extend_from_slice(&sender.tail);
        sender.due_us.push(u32::try_from(micros(due.saturating_duration_since(self.start))).unwrap_or(u32::MAX));
        sender.sent += 1;
        self.sent += 1;
    }

    fn free(&mut self, number: usize) {
        let sender = &mut self.senders[number];
        if !sender.is_ready {
            sender.is_ready = true;
            self.ready.push(number);
        }
    }

    fn handle(&mut self, client: usize, at: Instant, incoming: &Incoming<'_>) -> anyhow::Result<()> {
        ensure_open(client, incoming)?;
        match incoming {
            Incoming::Delivery(text) => self.check(client, at, text)?,
            Incoming::Answer => {
                let number = self.shape.sender(client).context("an answer to somebody who sent nothing")?;
                self.senders[number].answered += 1;
                self.answered += 1;
                self.free(number);
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks a message against what is due from its sender, and notes how long it took.
    fn check(&mut self, client: usize, at: Instant, text: &[u8]) -> anyhow::Result<()> {
        let (number, count) = self.texts.check(text)?;
        let place = self.shape.place(client, number);
        let place = place.with_context(|| format!("client {client} was sent a message of sender {number}"))?;
        let expected = self.next[place];
        ensure!(
            count == expected,
            "message {count} of sender {number} came to client {client} where {expected} was due"
        );
        self.next[place] += 1;
        self.delivered += 1;
        let sender = &mut self.senders[number];
        sender.delivered += 1;
        let due_us = sender.due_us.get(usize::try_from(count)?).context("a message that was never sent")?;
        let took_us = micros(at - self.start).saturating_sub(u64::from(*due_us));
        self.latency_us.saturating_record(took_us.max(1));
        if !self.are_answered && sender.delivered.is_multiple_of(self.receivers_each) {
            self.free(number);
        }
        Ok(())
    }
}

pub struct Driver {
    connections: Connections,
    traffic: Traffic,
    pace: Pace,
}

impl Driver {
    /// Logs everybody in, over TLS if that is given, and makes the group, if there is one.
    pub fn new(
        server: &Server,
        shape: Shape,
        bytes: usize,
        pace: Pace,
        tls: Option<Arc<ClientConfig>>,
    ) -> anyhow::Result<Self> {
        let dialect = server.subject.dialect(shape, bytes);
        let traffic = Traffic::new(shape, Texts::new(bytes)?, &*dialect)?;
        let mut connections = Connections::new(dialect)?;
        connections.tls = tls;
        let under_way = server.subject.logins_under_way();
        connections.log_in(server.process.address, 0..shape.clients(), under_way, &mut only_open)?;
        match shape {
            Shape::Pairs { pairs, .. } => {
                let receivers = (0..pairs).map(|pair| 2 * pair + 1);
                let requests = receivers.filter_map(|client| {
                    Some((client, connections.dialect.subscribe(client, Recipient::Client(client))?))
                });
                let requests = requests.collect();
                connections.ask(requests, REQUESTS_UNDER_WAY)?;
            }
            Shape::Group { members, .. } => join(&mut connections, members)?,
        }
        connections.settle()?;
        Ok(Self { connections, traffic, pace })
    }

    /// Sends for as long as `duration`, and waits until all has arrived.
    pub fn run(mut self, duration: Duration) -> anyhow::Result<Outcome> {
        self.traffic.start = clock::monotonic();
        (0..self.traffic.senders.len()).for_each(|sender| self.traffic.free(sender));
        let end = self.traffic.start + duration;
        let mut last_progress = (self.traffic.start, 0);
        loop {
            let now = clock::monotonic();
            let is_sending = now < end;
            if is_sending {
                self.send_due(now)?;
            }
            let traffic = &self.traffic;
            if !is_sending && traffic.is_done() {
                let elapsed = now - traffic.start;
                let (sent, delivered, latency_us) = (traffic.sent, traffic.delivered, self.traffic.latency_us);
                return Ok(Outcome { sent, delivered, elapsed, latency_us });
            }
            if traffic.delivered + traffic.answered != last_progress.1 {
                last_progress = (now, traffic.delivered + traffic.answered);
            }
            ensure!(
                now < last_progress.0 + PATIENCE,
                "of {} messages {} of {} deliveries came and {} answers, and nothing more",
                traffic.sent,
                traffic.delivered,
                traffic.sent * traffic.receivers_each,
                traffic.answered
            );
            let wait = match self.pace {
                // A sleep would be longer than the pause between two messages.
                Pace::PerSecond(_) if is_sending => Duration::ZERO,
                _ => Duration::from_millis(100),
            };
            self.connections.turn(wait, &mut |client, at, incoming| self.traffic.handle(client, at, &incoming))?;
        }
    }

    fn send_due(&mut self, now: Instant) -> anyhow::Result<()> {
        match self.pace {
            Pace::Window(window) => {
                for sender in std::mem::take(&mut self.traffic.ready) {
                    self.traffic.senders[sender].is_ready = false;
                    self.fill_window(sender, window, now)?;
                }
            }
            Pace::PerSecond(per_second) => {
                let senders = self.traffic.senders.len();
                let due = micros(now - self.traffic.start) * per_second / 1_000_000;
                for number in self.traffic.sent..due {
                    let intended = self.traffic.start + Duration::from_micros(number * 1_000_000 / per_second);
                    let sender = usize::try_from(number)? % senders;
                    let client = self.traffic.shape.client(sender);
                    self.traffic.queue(sender, intended, self.connections.out(client));
                    self.connections.flush(client)?;
                }
            }
        }
        Ok(())
    }

    fn fill_window(&mut self, sender: usize, window: u64, now: Instant) -> anyhow::Result<()> {
        let client = self.traffic.shape.client(sender);
        let free = window.saturating_sub(self.traffic.under_way(&self.traffic.senders[sender]));
        for _ in 0..free {
            self.traffic.queue(sender, now, self.connections.out(client));
        }
        self.connections.flush(client)
    }
}

/// Makes the group of the first `members` clients.
///
/// # Errors
/// The server refused something.
pub fn join(connections: &mut Connections, members: usize) -> anyhow::Result<()> {
    let make = connections.dialect.make_group(members);
    connections.ask(make.into_iter().map(|request| (0, request)).collect(), 1)?;
    let join = (0..members)
        .filter_map(|client| Some((client, connections.dialect.subscribe(client, Recipient::Group)?)))
        .collect::<Vec<_>>();
    // The first one to come may be who makes it.
    let mut join = join.into_iter();
    connections.ask(join.by_ref().take(1).collect(), 1)?;
    connections.ask(join.collect(), REQUESTS_UNDER_WAY)
}

pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
