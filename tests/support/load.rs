//! Clients that talk to each other as fast as a server lets them, over real sockets; each remembers what it was told.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{PASSWORD, Server, USERS};

/// The group in which all of them are.
pub const GROUP: &str = "all";
/// How many commands a client sends ahead of their answers.
const WINDOW: u64 = 32;
/// How many commands a client sends before it asks for the head of the log.
const HEAD_EVERY: u64 = 16;
/// After this long without a word a test has failed: nothing is ever waited for by it.
const HANG: Duration = Duration::from_secs(60);

/// How clients send what was not answered again, once they are connected again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// With the numbers of a device, by which the server knows what it carried out.
    Numbered,
    /// Without: only for showing that this doubles commands, and that it is seen.
    Unnumbered,
}

/// What a client has been told, in the order in which it was.
#[derive(Debug, Default)]
pub struct Told {
    /// The event that each command became; `None` where the answer says no more than that it is there.
    pub answers: Vec<Option<u64>>,
    /// The messages of others: the number of the event, and its line.
    pub events: Vec<(u64, String)>,
    /// Heads of the log, as `SEQ:ROOT`.
    pub heads: Vec<String>,
    /// What no server may say, if it was said.
    pub wrong: Option<String>,
    /// The last event that it knows to have.
    cursor: u64,
    /// The last command that it sent, answered or not.
    sent: u64,
}

/// How much a client had been told at a moment.
#[derive(Debug)]
pub struct Mark {
    answers: usize,
    events: usize,
    heads: usize,
    cursor: u64,
}

enum Report {
    Answered,
    /// Connected, all is answered, and all that was owed has come; nothing more is sent.
    Settled,
    /// The connection is gone, or could not be made.
    Disconnected,
}

struct Client {
    user: &'static str,
    resend: Resend,
    told: Mutex<Told>,
    /// Whether it sends nothing new.
    is_settling: AtomicBool,
    reports: Sender<Report>,
}

/// The clients, one for each user, each on a thread of its own.
pub struct Load {
    clients: Vec<Arc<Client>>,
    /// Where each is told that there is a server.
    servers: Vec<Sender<SocketAddr>>,
    reports: Receiver<Report>,
}

/// How often something is to be done: as often as a variable of the environment says, or else as usual.
pub fn times(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |count| count.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// A command of a user: the same number is always the same command.
pub fn command(user: &str, number: u64) -> (String, String) {
    let text = format!("{number} {user} {}", "x".repeat(usize::try_from(number * 37 % 100).unwrap()));
    let place = USERS.iter().position(|each| *each == user).unwrap() as u64;
    // The distance to the receiver is never a whole turn.
    let to = (place + 1 + number % (USERS.len() as u64 - 1)) % USERS.len() as u64;
    let to =
        if number.is_multiple_of(4) { format!("#{GROUP}") } else { USERS[usize::try_from(to).unwrap()].to_owned() };
    (to, text)
}

impl Load {
    /// Makes the clients, and on this server the group in which they all are. Nobody is connected yet.
    pub fn new(server: &Server, resend: Resend) -> Self {
        let (first, others) = USERS.split_first().unwrap();
        server.login(first).command(&format!("/creategroup {GROUP} {}", others.join(" ")));
        for user in others {
            server.login(user).command(&format!("/joingroup {GROUP}"));
        }
        let (reports, heard) = mpsc::channel();
        let mut load = Self { clients: Vec::new(), servers: Vec::new(), reports: heard };
        for user in USERS {
            let (told, is_settling, reports) = (Mutex::default(), AtomicBool::new(false), reports.clone());
            let client = Arc::new(Client { user, resend, told, is_settling, reports });
            let (server, addresses) = mpsc::channel();
            load.clients.push(Arc::clone(&client));
            load.servers.push(server);
            // Ends with the load, or else with the connection that it then has.
            std::thread::spawn(move || addresses.iter().try_for_each(|address| client.serve(address)));
        }
        load
    }

    /// Lets them all connect to a server that was started, send what was not answered, and go on.
    pub fn connect(&self, server: &Server) {
        for each in &self.servers {
            each.send(server.address).unwrap();
        }
    }

    /// Ends the talk: all is answered, and all that anybody is owed has come, over two more starts of the server.
    pub fn end(&self, server: &mut Server) {
        // What the last one sends again may come to the others behind what they were owed: they get that the next time.
        for _ in 0..2 {
            self.settle(server);
            server.kill();
            self.wait_for_the_end();
            server.restart();
        }
    }

    /// Lets them all connect, send what was not answered, and nothing new; returns once all that is owed has come.
    fn settle(&self, server: &Server) {
        for client in &self.clients {
            client.is_settling.store(true, Ordering::SeqCst);
        }
        self.connect(server);
        let mut settled = 0;
        while settled < self.clients.len() {
            match self.report() {
                Report::Answered => {}
                Report::Settled => settled += 1,
                Report::Disconnected => panic!("a connection broke while the server ran: {:?}", self.wrong()),
            }
        }
    }

    /// Returns with the answer that makes it so many since the clients were connected.
    pub fn wait_for_answers(&self, count: usize) {
        for _ in 0..count {
            match self.report() {
                Report::Answered => {}
                _ => panic!("a connection broke while the server ran: {:?}", self.wrong()),
            }
        }
    }

    /// Returns once all have heard the last of a server that has ended.
    pub fn wait_for_the_end(&self) {
        let mut disconnected = 0;
        while disconnected < self.clients.len() {
            disconnected += usize::from(matches!(self.report(), Report::Disconnected));
        }
    }

    /// How much each has been told by now.
    pub fn mark(&self) -> Vec<Mark> {
        let mark = |told: &Told| Mark {
            answers: told.answers.len(),
            events: told.events.len(),
            heads: told.heads.len(),
            cursor: told.cursor,
        };
        self.clients.iter().map(|client| mark(&client.told.lock().unwrap())).collect()
    }

    /// Makes all forget what they were told behind a mark. Nobody may be connected.
    pub fn forget_behind(&self, marks: &[Mark]) {
        for (client, mark) in self.clients.iter().zip(marks) {
            let mut told = client.told.lock().unwrap();
            told.answers.truncate(mark.answers);
            told.events.truncate(mark.events);
            told.heads.truncate(mark.heads);
            told.cursor = mark.cursor;
        }
    }

    /// Looks at what each user was told, until somebody finds something wrong.
    pub fn try_for_each<E>(&self, mut look: impl FnMut(&str, &Told) -> Result<(), E>) -> Result<(), E> {
        self.clients.iter().try_for_each(|client| look(client.user, &client.told.lock().unwrap()))
    }

    fn report(&self) -> Report {
        self.reports.recv_timeout(HANG).expect("the clients go on")
    }

    fn wrong(&self) -> Vec<String> {
        self.clients.iter().filter_map(|client| client.told.lock().unwrap().wrong.clone()).collect()
    }
}

impl Client {
    /// Talks to one server, until one of the two ends.
    fn serve(&self, address: SocketAddr) -> Result<(), mpsc::SendError<Report>> {
        // However the connection breaks, what matters is what was heard before.
        let _ = self.talk(address);
        self.reports.send(Report::Disconnected)
    }

    fn talk(&self, address: SocketAddr) -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let (cursor, mut next) = {
            let told = self.told.lock().unwrap();
            (told.cursor, told.answers.len() as u64 + 1)
        };
        let mut login = json!({"type": "login", "username": self.user, "password": PASSWORD, "after": cursor});
        if self.resend == Resend::Numbered {
            login["device"] = json!("phone");
        }
        writeln!(stream, "{login}")?;
        let (mut is_live, mut is_settled) = (false, false);
        let mut line = String::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            // Half a line was never said.
            let Some(line) = line.strip_suffix('\n') else { return Ok(()) };
            let mut told = self.told.lock().unwrap();
            match told.hear(self.user, line) {
                Ok(Heard::Answer) => self.reports.send(Report::Answered).map_err(io::Error::other)?,
                Ok(Heard::Live) => is_live = true,
                Ok(Heard::Other) => {}
                Err(wrong) => {
                    told.wrong = Some(format!("{}: {wrong}: {line}", self.user));
                    return Ok(());
                }
            }
            let is_settling = self.is_settling.load(Ordering::SeqCst);
            let answered = told.answers.len() as u64;
            let mut lines = String::new();
            while next <= answered + WINDOW && (next <= told.sent || !is_settling) {
                put_command(self.user, next, &mut lines);
                told.sent = told.sent.max(next);
                next += 1;
            }
            drop(told);
            stream.write_all(lines.as_bytes())?;
            if is_settling && is_live && next == answered + 1 && !is_settled {
                is_settled = true;
                self.reports.send(Report::Settled).map_err(io::Error::other)?;
            }
        }
    }
}

enum Heard {
    Answer,
    Live,
    Other,
}

impl Told {
    fn hear(&mut self, user: &str, line: &str) -> Result<Heard, String> {
        let frame: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        match frame["type"].as_str() {
            Some("ok") if frame["command"] == "login" => {
                let answered = self.answers.len() as u64;
                if frame["sent"].as_u64().is_some_and(|sent| sent < answered) {
                    return Err(format!("{answered} commands were answered, and the server knows fewer"));
                }
            }
            Some("ok") if frame["id"] == "head" => {
                self.heads.push(format!("{}:{}", frame["seq"], frame["root"].as_str().unwrap_or_default()));
            }
            Some("ok") if frame["id"] == self.answers.len() as u64 + 1 => {
                self.answers.push(frame["seq"].as_u64());
                return Ok(Heard::Answer);
            }
            Some("ok") => return Err(format!("the answer to {} was due", self.answers.len() + 1)),
            // The end of a server that is stopped.
            Some("error") if frame["code"] == "shutting_down" => {}
            Some("error") => return Err("nothing that was asked for is wrong".to_owned()),
            Some("live") => {
                self.cursor = frame["seq"].as_u64().unwrap_or_default();
                return Ok(Heard::Live);
            }
            _ => {
                let seq = frame["seq"].as_u64().unwrap_or_default();
                if seq <= self.cursor {
                    return Err(format!("events up to {} had come", self.cursor));
                }
                self.cursor = seq;
                if is_message(&frame) && frame["from"] != user {
                    self.events.push((seq, line.to_owned()));
                }
            }
        }
        Ok(Heard::Other)
    }
}

/// Whether an event is one of those that the clients' commands become.
pub fn is_message(event: &Value) -> bool {
    event["type"] == "message" || event["type"] == "group_message"
}

fn put_command(user: &str, number: u64, lines: &mut String) {
    let (to, text) = command(user, number);
    let text = match to.strip_prefix('#') {
        Some(group) => format!("/groupmsg {group} {text}"),
        None => format!("/msgto {to} {text}"),
    };
    let mut put = |frame: Value| {
        lines.push_str(&frame.to_string());
        lines.push('\n');
    };
    put(json!({"type": "command", "id": number, "text": text}));
    if number.is_multiple_of(HEAD_EVERY) {
        put(json!({"type": "ping", "id": "head"}));
    }
}
