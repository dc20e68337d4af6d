//! Users who were away come back all at once, and are sent what they missed.

use std::time::{Duration, Instant};

use anyhow::ensure;
use messenger::clock;

use crate::connections::{Connections, PATIENCE, ensure_open};
use crate::dialect::messenger::Messenger;
use crate::dialect::{Incoming, Recipient};
use crate::report::Figures;
use crate::sessions::{cpu_seconds, note_live};
use crate::subject::Server;
use crate::text::Texts;

/// Messages that each sender has under way.
const WINDOW: u64 = 64;

/// Every second client is away while it is written to, and then all of those come back at once.
///
/// # Errors
/// A message was lost, came twice or was changed.
pub fn catch_up(server: &Server, users: usize, messages: u64, bytes: usize) -> anyhow::Result<Figures> {
    let address = server.process.address;
    let texts = Texts::new(bytes)?;
    let mut seen = vec![None; 2 * users];
    let mut clients = Connections::new(Box::new(Messenger::default()))?;
    clients.log_in(address, 0..2 * users, server.subject.logins_under_way(), &mut note_live(&mut seen))?;
    clients.settle()?;
    (0..users).for_each(|user| clients.close(2 * user + 1));
    write_to_absent(&mut clients, users, messages, &texts)?;
    clients.settle()?;

    let mut returned = Connections::new(Box::new(Messenger { after: seen, ..Messenger::default() }))?;
    let mut missed = Missed { texts, next: vec![0; users], delivered: 0, live: 0, last: clock::monotonic() };
    let before = server.process.usage()?;
    let start = clock::monotonic();
    let absent = (0..users).map(|user| 2 * user + 1);
    returned.log_in(address, absent, users, &mut |client, at, incoming| missed.handle(client, at, &incoming))?;
    let all = users as u64 * messages;
    while missed.delivered < all || missed.live < users {
        returned.turn(Duration::from_millis(100), &mut |client, at, incoming| missed.handle(client, at, &incoming))?;
        let (delivered, last) = (missed.delivered, missed.last);
        ensure!(clock::monotonic() < last + PATIENCE, "{delivered} of {all} missed messages came, and nothing more");
    }
    let seconds = (missed.last - start).as_secs_f64();
    // Whatever comes too much comes now.
    returned.settle()?;
    let after = server.process.usage()?;
    let cpu = cpu_seconds(before, after);
    let mut figures = Figures::default();
    figures.push("users", users as f64);
    figures.push("delivered", all as f64);
    figures.push("seconds", seconds);
    figures.push("delivered_per_second", all as f64 / seconds);
    figures.push("server_cpu_us_per_delivery", cpu / all as f64 * 1e6);
    figures.push("server_memory_before_mib", before.memory_kib as f64 / 1024.0);
    figures.push("server_memory_mib", after.memory_kib as f64 / 1024.0);
    Ok(figures)
}

/// What those who came back have been sent.
struct Missed {
    texts: Texts,
    /// The number of the next message by user.
    next: Vec<u64>,
    delivered: u64,
    /// How many have been told that nothing is missing any more.
    live: usize,
    last: Instant,
}

impl Missed {
    fn handle(&mut self, client: usize, at: Instant, incoming: &Incoming<'_>) -> anyhow::Result<()> {
        ensure_open(client, incoming)?;
        self.last = at;
        match incoming {
            Incoming::Delivery(text) => {
                let (sender, number) = self.texts.check(text)?;
                ensure!(sender == client / 2, "client {client} was sent a message of sender {sender}");
                let due = &mut self.next[sender];
                ensure!(number == *due, "message {number} of sender {sender} came where {due} was due");
                *due += 1;
                self.delivered += 1;
            }
            Incoming::Live(_) => self.live += 1,
            _ => {}
        }
        Ok(())
    }
}

/// Client 2n writes so many messages to client 2n + 1.
fn write_to_absent(clients: &mut Connections, users: usize, messages: u64, texts: &Texts) -> anyhow::Result<()> {
    let mut count = 0;
    while count < messages {
        let until = messages.min(count + WINDOW);
        for user in 0..users {
            let to = Recipient::Client(2 * user + 1);
            let (head, tail) = clients.dialect.envelope(2 * user, to, texts.bytes());
            let out = clients.out(2 * user);
            for number in count..until {
                out.extend_from_slice(&head);
                texts.push(user, number, out);
                out.extend_from_slice(&tail);
            }
            clients.flush(2 * user)?;
        }
        let (mut answered, all) = (0, users as u64 * (until - count));
        let give_up = clock::monotonic() + PATIENCE;
        while answered < all {
            ensure!(clock::monotonic() < give_up, "{answered} of {all} messages to the absent are answered");
            clients.turn(Duration::from_millis(100), &mut |client, _, incoming| {
                ensure_open(client, &incoming)?;
                answered += u64::from(incoming == Incoming::Answer);
                Ok(())
            })?;
        }
        count = until;
    }
    Ok(())
}
