//! What a server wrote and when it was told of, kept outside its disk; and the check of a disk against it.
#![allow(dead_code, reason = "each test uses the parts that it needs")]

use std::collections::BTreeMap;
use std::sync::Arc;

use messenger::chat::{Addressee, Event, Seq, State};
use messenger::clock::Timestamp;
use messenger::eventlog::memory::MemoryDisk;
use messenger::eventlog::{self, Batch, Storage, segment_name};
use messenger::names::UserName;
use messenger::server::archive_files::ArchiveFiles;
use messenger::server::segment::Conversation;
use messenger::server::{self, Archive, Older, Opened};

/// The events of a log as they were written, whatever its disk says later.
#[derive(Clone, Default)]
pub struct History {
    /// The lines, each with its line feed.
    lines: Vec<Arc<[u8]>>,
    /// The state behind each event, and before the first.
    states: Vec<Arc<State>>,
    /// The events of each conversation, rising.
    conversations: BTreeMap<Conversation, Vec<Seq>>,
    /// The two users of each transfer.
    transfers: BTreeMap<String, Conversation>,
}

impl History {
    /// The history of an intact log: its event lines.
    pub fn new(log: &str) -> Self {
        let mut history = Self { states: vec![Arc::default()], ..Self::default() };
        log.split_inclusive('\n').for_each(|line| history.push(line.as_bytes()));
        history
    }

    /// The last event.
    pub fn last(&self) -> Seq {
        self.lines.len() as Seq
    }

    /// The state behind an event.
    pub fn state(&self, seq: Seq) -> &State {
        &self.states[seq as usize]
    }

    pub fn line(&self, seq: Seq) -> &[u8] {
        &self.lines[place(seq)]
    }

    /// How many conversations there are.
    pub fn conversations(&self) -> usize {
        self.conversations.len()
    }

    /// The events up to one, without those behind it.
    pub fn cut(&mut self, last: Seq) {
        self.lines.truncate(last as usize);
        self.states.truncate(last as usize + 1);
        for events in self.conversations.values_mut() {
            events.truncate(events.partition_point(|event| *event <= last));
        }
    }

    /// Another event, in a batch of its own with those that are still to be appended.
    pub fn push(&mut self, line: &[u8]) {
        let record = Event::decode(line.trim_ascii_end()).unwrap();
        let seq = self.last() + 1;
        assert_eq!(record.seq, seq);
        let mut state = State::clone(&self.states[seq as usize - 1]);
        state.apply(seq, record.at, &record.event);
        self.states.push(Arc::new(state));
        self.lines.push(line.into());
        if let Some(conversation) = self.conversation(&record.event) {
            self.conversations.entry(conversation).or_default().push(seq);
        }
    }

    /// A batch of messages that nobody has written yet, and that are now known here.
    pub fn next_batch(&mut self, count: u64, at: Timestamp, text: &str) -> Batch {
        let first = self.last() + 1;
        let last = first + count - 1;
        for seq in first..=last {
            let (from, to) = ("leia".parse().unwrap(), "han".parse().unwrap());
            let event = Event::Message { from, to, text: format!("{text} {seq}").parse().unwrap(), origin: None };
            let mut line = Vec::new();
            event.encode(seq, at, &mut line);
            line.push(b'\n');
            self.push(&line);
        }
        Batch { lines: self.lines[place(first)..].concat(), first, last, at }
    }

    /// Puts another line in the place of one: that of an erased message.
    pub fn replace(&mut self, seq: Seq, line: Vec<u8>) {
        self.lines[place(seq)] = line.into();
    }

    /// Opens the log on a disk as a server does, and checks what it finds: nothing up to `acknowledged` is missing, and
    /// all that is there is what was written, once and in order. Gives what was opened, or what is wrong.
    pub fn open(&self, disk: &MemoryDisk, now: Timestamp, acknowledged: Seq) -> Result<Opened<MemoryDisk>, String> {
        let opened = server::open(disk.clone(), uuid::Uuid::nil(), now, |_, _| {});
        let opened = opened.map_err(|error| format!("the server refuses to start: {error}"))?;
        self.check(disk, &opened, acknowledged)?;
        Ok(opened)
    }

    /// Checks what an opening found.
    pub fn check(&self, disk: &MemoryDisk, opened: &Opened<MemoryDisk>, acknowledged: Seq) -> Result<(), String> {
        let last = opened.log.seq();
        if last < acknowledged || last > self.last() {
            return Err(format!("the log ends with event {last}; {acknowledged} of {} were acknowledged", self.last()));
        }
        self.check_lines(disk, last)?;
        if opened.state != *self.states[last as usize] {
            return Err(format!("the state behind event {last} is another"));
        }
        Ok(())
    }

    /// Checks that the log on a disk is the one that was written, up to an event.
    fn check_lines(&self, disk: &MemoryDisk, last: Seq) -> Result<(), String> {
        let mut next = 1;
        for segment in eventlog::segments(disk).map_err(|error| error.to_string())? {
            if segment != next {
                return Err(format!("event {next} is not in the segment before {segment}"));
            }
            next = self.check_segment(disk, segment)?;
        }
        if next == last + 1 { Ok(()) } else { Err(format!("the log says {last}, and event {next} would be the next")) }
    }

    /// Checks that the events of a segment are those that were written; gives the event behind its last.
    pub fn check_segment(&self, disk: &MemoryDisk, first: Seq) -> Result<Seq, String> {
        let mut next = first;
        let name = segment_name(first);
        let same = disk.with_content(&name, |content| {
            let lines = content.split_inclusive(|byte| *byte == b'\n');
            lines.filter(|line| !line.starts_with(b"{\"type\":")).all(|line| {
                next += 1;
                next <= self.last() + 1 && line == self.line(next - 1)
            })
        });
        match same {
            Some(true) => Ok(next),
            _ => Err(format!("event {} in {name} is not the one that was written", next - 1)),
        }
    }

    /// Reads a conversation from the closed segments, whose last event is the one before `newest`. What is given must be
    /// right; gives an error's text where nothing is.
    pub fn read_closed(&self, disk: &MemoryDisk, newest: Seq, conversation: usize) -> Result<(), String> {
        let Some((conversation, events)) = self.conversations.iter().nth(conversation) else { return Ok(()) };
        let mut archive = Archive::new(ArchiveFiles::new(disk, "reader").unwrap());
        let older = Older::History { conversation: *conversation, below: newest, count: 10_000, bytes_max: 1 << 24 };
        let found = archive.read(Some(&older), &[]).map_err(|error| error.to_string())?;
        let expected: Vec<&[u8]> = events.iter().filter(|seq| **seq < newest).map(|seq| self.line(*seq)).collect();
        assert!(found.bytes == expected.concat(), "{conversation:?} before event {newest} is not what was said");
        Ok(())
    }

    fn conversation(&mut self, event: &Event) -> Option<Conversation> {
        let private = |from: &UserName, to: &UserName| Some(Conversation::private(*from, *to));
        match event {
            Event::Message { from, to, .. } | Event::Erased { from, to: Addressee::User(to), .. } => private(from, to),
            Event::TransferOffered { from, to, transfer, .. } => {
                self.transfers.insert(transfer.to_string(), Conversation::private(*from, *to));
                private(from, to)
            }
            Event::TransferAnswered { transfer, .. } | Event::TransferEnded { transfer, .. } => {
                self.transfers.get(&transfer.to_string()).copied()
            }
            Event::GroupMessage { group, .. }
            | Event::GroupCreated { group, .. }
            | Event::GroupInvited { group, .. }
            | Event::GroupJoined { group, .. }
            | Event::GroupLeft { group, .. }
            | Event::Erased { to: Addressee::Group(group), .. } => Some(Conversation::Group(*group)),
            _ => None,
        }
    }
}

/// Every file with a name on a disk: its directory, its name, and how long it is.
pub fn files(disk: &MemoryDisk) -> Vec<(&'static str, String, usize)> {
    let mut files = Vec::new();
    for directory in ["events", "index", "snapshots", "torn"] {
        let place = disk.beside(directory);
        for name in place.list().unwrap() {
            let length = place.with_content(&name, <[u8]>::len).unwrap();
            files.push((directory, name, length));
        }
    }
    files
}

fn place(seq: Seq) -> usize {
    usize::try_from(seq - 1).unwrap()
}
