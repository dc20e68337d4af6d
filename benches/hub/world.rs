//! The hub alone: clients are keys, the log is a buffer that is durable at once, and time stands still unless it is moved.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use messenger::chat::{Policy, Seq, State};
use messenger::clock::{self, Timestamp};
use messenger::eventlog::SEGMENT_BYTES_MAX;
use messenger::names::{NameSet, UserName};
use messenger::server::index::Index;
use messenger::server::segment::{Position, Segment};
use messenger::server::{ConnectionKey, Hub, HubOptions, Lines, Now, Older, Output};

/// When it all happens.
const START_MS: u64 = 1_767_225_600_000;
/// The root that the log tells: as long as a real one.
const ROOT: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A hub, and what is around it.
pub struct World {
    hub: Hub,
    start: Instant,
    passed_ms: u64,
    /// The first event of the segment, and where its next line will stand.
    segment: Seq,
    offset: u64,
    /// The lines of the segment, where they are to be read back.
    lines: Option<Vec<u8>>,
    /// A line of a client, made here again and again.
    line: String,
    /// Bytes that were told, over all connections.
    pub told_bytes: u64,
    /// Connections that were told something, summed over the turns.
    pub told_connections: u64,
}

/// The name of a user by number.
pub fn user(number: usize) -> String {
    format!("user{number}")
}

impl World {
    /// A hub in which so many users have accounts.
    ///
    /// # Errors
    /// A name is none.
    pub fn new(users: usize, keeps_lines: bool) -> anyhow::Result<Self> {
        let accounts = (0..users).map(|number| user(number).parse());
        let mut accounts = accounts.collect::<Result<NameSet<UserName>, _>>()?;
        accounts.sort_unstable();
        let options = HubOptions {
            log: uuid::Uuid::nil(),
            commands_per_second: 0,
            allow_cleartext: false,
            connections_max: usize::MAX,
            console_texts: false,
        };
        let policy = Policy { failures_max: 3, accounts };
        let start = clock::monotonic();
        let now = Now { at: Timestamp::from_ms(START_MS), tick: start };
        let index = Index::new(Segment::new(1));
        let hub = Hub::new(options, policy, State::default(), index, ROOT.to_owned(), u64::MAX, now);
        let lines = keeps_lines.then(Vec::new);
        let line = String::new();
        let (told_bytes, told_connections) = (0, 0);
        Ok(Self { hub, start, passed_ms: 0, segment: 1, offset: 0, lines, line, told_bytes, told_connections })
    }

    fn now(&self) -> Now {
        let at = Timestamp::from_ms(START_MS + self.passed_ms);
        Now { at, tick: self.start + Duration::from_millis(self.passed_ms) }
    }

    /// A user connects and says who it is.
    pub fn log_in(&mut self, number: usize, watch: bool) -> ConnectionKey {
        let now = self.now();
        let key = self.hub.handle_connected([127, 0, 0, 1].into(), now);
        let watch = if watch { ",\"watch\":true" } else { "" };
        self.say(
            key,
            format_args!("{{\"type\":\"login\",\"username\":\"user{number}\",\"password\":\"secret\"{watch}}}"),
        );
        key
    }

    /// A user's connection is cut.
    pub fn disconnect(&mut self, key: ConnectionKey) {
        let now = self.now();
        self.hub.handle_disconnected(key, now);
    }

    /// A client gives a command.
    pub fn command(&mut self, key: ConnectionKey, text: &str) {
        self.say(key, format_args!("{{\"type\":\"command\",\"text\":\"{text}\"}}"));
    }

    fn say(&mut self, key: ConnectionKey, line: std::fmt::Arguments<'_>) {
        self.line.clear();
        // Writing into a string cannot fail.
        let _ = writeln!(self.line, "{line}");
        let now = self.now();
        self.hub.handle_bytes(key, self.line.as_bytes(), now);
    }

    /// Does all that the hub asks for, until it asks for nothing more; a millisecond passes.
    ///
    /// # Errors
    /// What is to be read is not there.
    pub fn turn(&mut self) -> anyhow::Result<()> {
        self.passed_ms += 1;
        let now = self.now();
        loop {
            let mut idle = true;
            while let Some(output) = self.hub.poll_output(now) {
                idle = false;
                self.carry_out(output, now)?;
            }
            while let Some(key) = self.hub.next_touched(true) {
                idle = false;
                let bytes = self.hub.output(key).map(<[u8]>::len).sum::<usize>();
                if bytes > 0 {
                    self.told_bytes += bytes as u64;
                    self.told_connections += 1;
                    self.hub.handle_sent(key, bytes, now);
                }
            }
            if idle {
                return Ok(());
            }
        }
    }

    fn carry_out(&mut self, output: Output, now: Now) -> anyhow::Result<()> {
        match output {
            Output::Append { lines, first, .. } => {
                if self.offset >= SEGMENT_BYTES_MAX {
                    (self.segment, self.offset) = (first, 0);
                    self.lines.iter_mut().for_each(Vec::clear);
                }
                if let Some(kept) = &mut self.lines {
                    kept.extend_from_slice(&lines);
                }
                let offset = self.offset;
                self.offset += lines.len() as u64;
                self.hub.handle_durable(lines, self.segment, offset, ROOT.to_owned(), u64::MAX, now);
            }
            Output::CheckPassword { connection, .. } => self.hub.handle_verdict(connection, true, now),
            Output::CheckToken(connection, ..) => self.hub.handle_verdict(connection, true, now),
            Output::MakeToken(connection, ..) => self.hub.handle_token(connection, None, now),
            Output::Read { connection, purpose, older, positions } => {
                let lines = self.read(older.as_ref(), &positions)?;
                self.hub.handle_lines(connection, purpose, Some(&lines), now);
            }
            Output::Archive(through) => self.hub.handle_archived(through),
            Output::Drop(key) => self.hub.handle_disconnected(key, now),
            Output::AskForRoom => self.hub.handle_room(u64::MAX, now),
            Output::Console(_) => {}
        }
        Ok(())
    }

    /// Lines of the newest segment; in those before it nobody is owed anything here.
    fn read(&self, older: Option<&Older>, positions: &[Position]) -> anyhow::Result<Lines> {
        let mut read = Lines::default();
        if let Some(Older::Owed { through, .. }) = older {
            read.last = *through;
        }
        for position in positions {
            ensure!(position.segment == self.segment, "event {} is not in the newest segment", position.seq);
            let kept = self.lines.as_ref().context("lines are to be read back, and none are kept")?;
            let start = usize::try_from(position.offset)?;
            let line = kept.get(start..start + position.length as usize).context("a line that is not there")?;
            read.bytes.extend_from_slice(line);
            read.last = position.seq;
        }
        Ok(read)
    }
}
