//! Erasure: the text of a message taken out of the log for good, while its hash stays and the tree stays whole.
//!
//! The event that orders it is committed first. Then each closed segment with such a line is written anew beside the old
//! one and put in its place. A crash in between is made good at the next opening.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::append::{AppendError, Batch, Log};
use super::closed::{NO_COMMIT_AT_END, find_event};
use super::damage::{Damage, header_error};
use super::format::{event_kind, event_start, is_kind_like, put_check, segment_name};
use super::judge::walk;
use super::opening::{Found, OpenError, disk, segments};
use super::storage::{INDEX, SNAPSHOTS, Storage, StorageFile, TORN, link_keeps_text};
use super::tree::Hash;
use crate::chat::{Addressee, Event, Record, Seq};
use crate::clock::Timestamp;

#[cfg(test)]
mod tests;

/// A segment that is being written anew: never of any worth at an opening.
pub const REWRITTEN: &str = "erased.tmp";
/// Events that one erasure may name.
pub const ERASED_MAX: usize = 1_000;
/// The longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 16_384;

/// What is to be erased, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The messages.
    pub seqs: BTreeSet<Seq>,
    /// Who wants it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Why an order is none, whatever the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nobody gives it, or for no reason.
    #[error("an erasure stands in the log with who and why: neither may be empty")]
    Empty,
    /// It names too many events.
    #[error("{0} events are named, and one erasure names at most {ERASED_MAX}: give several, one after the other")]
    TooMany(usize),
    /// What is to stand in the log is too long.
    #[error("the {what} has {bytes} bytes, and in the log it may have at most {REASON_BYTES_MAX}")]
    TooLong {
        /// The name or the reason.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
}

impl Order {
    /// Checks what needs no log.
    ///
    /// # Errors
    /// It is empty, or larger than an order may be.
    pub fn check(&self) -> Result<(), OrderError> {
        let Self { seqs, by, reason } = self;
        if by.trim().is_empty() || reason.trim().is_empty() {
            return Err(OrderError::Empty);
        }
        if seqs.len() > ERASED_MAX {
            return Err(OrderError::TooMany(seqs.len()));
        }
        match [("name", by), ("reason", reason)].into_iter().find(|(_, text)| text.len() > REASON_BYTES_MAX) {
            Some((what, text)) => Err(OrderError::TooLong { what, bytes: text.len() }),
            None => Ok(()),
        }
    }
}

/// Why nothing was erased, or not all.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// There is no such event.
    #[error("there is no event {asked} in the log, which ends with event {last}")]
    NoSuchEvent {
        /// The event that was asked for.
        asked: Seq,
        /// The last there is.
        last: Seq,
    },
    /// It has no text that could be erased.
    #[error("event {seq} is no message but of type {kind:?}, and has no text to be erased")]
    NoMessage {
        /// The event.
        seq: Seq,
        /// Its type.
        kind: &'static str,
    },
    /// It is done.
    #[error("the text of event {0} was erased before")]
    Before(Seq),
    /// The order itself is none.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The log is damaged, or the disk fails. Where the order is in the log already, the next opening carries it out.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The order cannot be written.
    #[error("the erasure cannot be recorded: {0}")]
    Append(#[from] AppendError),
}

/// What an event line is to the tree.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Its own leaf.
    Usual,
    /// Its own leaf, and the order to erase these events.
    Erasure(Vec<Seq>),
    /// What is left of a message, whose leaf this is.
    Erased(Hash),
    /// It claims to be one of these, and is not as it was written.
    Broken,
}

impl Line {
    /// Looks at an event line, without its line feed.
    pub fn of(line: &[u8]) -> Self {
        // Few lines come to the second question.
        if !is_kind_like(line, b"eras") || !matches!(event_kind(line), Some(b"erased" | b"erasure")) {
            return Self::Usual;
        }
        let Ok(Record { seq, at, event }) = Event::decode(line) else { return Self::Broken };
        match &event {
            // An order is somebody's.
            Event::Erasure { by, .. } if by.trim().is_empty() => Self::Erasure(Vec::new()),
            Event::Erasure { erased, .. } => Self::Erasure(erased.clone()),
            // No leaf covers its bytes: nothing may hide in them. Logs of other programs have no check there.
            Event::Erased { leaf, .. }
                if encoded_erased(&event, seq, at) == line || encoded(&event, seq, at) == line =>
            {
                leaf.parse().map_or(Self::Broken, Self::Erased)
            }
            _ => Self::Broken,
        }
    }

    /// The leaf of an event line; `None` if it is not as it was written.
    pub fn leaf_of(line: &[u8]) -> Option<Hash> {
        match Self::of(line) {
            Self::Usual | Self::Erasure(_) => Some(Hash::of_leaf(line)),
            Self::Erased(leaf) => Some(leaf),
            Self::Broken => None,
        }
    }
}

impl<S: Storage> Log<S> {
    /// Records an erasure, and carries it out. What was derived from the log in files of its own stays to be made again.
    ///
    /// # Errors
    /// Nothing was done; or, for [`EraseError::Log`] and [`EraseError::Append`], perhaps a part, and the next opening does
    /// the rest.
    pub fn erase(&mut self, order: &Order, at: Timestamp) -> Result<(), EraseError> {
        let Order { seqs, by, reason } = order;
        order.check()?;
        check_messages(&self.storage, seqs, self.seq())?;
        // What is erased in the newest segment ends it; what is in it is good.
        for (segment, seqs) in by_segment(&self.storage, seqs)? {
            check_reach(&self.storage, segment, rewritten(&self.storage, segment, &seqs)?.len() as u64)?;
        }
        if seqs.last().is_some_and(|last| *last >= self.segment()) {
            self.end_segment()?;
        }
        let seqs: Vec<Seq> = seqs.iter().copied().collect();
        let event = Event::Erasure { by: by.clone(), reason: reason.clone(), erased: seqs.clone() };
        let (seq, at) = (self.seq() + 1, at.max(self.at()));
        let mut lines = encoded(&event, seq, at);
        lines.push(b'\n');
        self.append(Batch { lines, first: seq, last: seq, at })?;
        carry_out(&self.storage, &seqs)?;
        Ok(())
    }
}

impl<S: Storage> Found<S> {
    /// Checks that the log has the messages of an order, with their texts, and that their segments are intact. Nothing
    /// is changed.
    ///
    /// # Errors
    /// Why [`Log::erase`] would refuse the order.
    pub fn check(&self, order: &Order) -> Result<(), EraseError> {
        order.check()?;
        let (last, newest) = self.end();
        check_messages(&self.storage, &order.seqs, last)?;
        // The newest one was judged when it was found.
        for (segment, seqs) in by_segment(&self.storage, &order.seqs)?.range(..newest) {
            rewritten(&self.storage, *segment, seqs)?;
        }
        Ok(())
    }
}

/// Checks that each of the events is a message in a log that ends with event `last`.
fn check_messages<S: Storage>(storage: &S, seqs: &BTreeSet<Seq>, last: Seq) -> Result<(), EraseError> {
    if let Some(asked) = seqs.iter().copied().find(|asked| *asked == 0 || *asked > last) {
        return Err(EraseError::NoSuchEvent { asked, last });
    }
    for (segment, seqs) in by_segment(storage, seqs)? {
        let file = storage.open(&segment_name(segment)).map_err(disk(segment))?;
        for asked in seqs {
            let damage = |what: &str| Damage { seq: Some(asked), ..Damage::of_segment(segment, &what) };
            let line = find_event(&file, asked).map_err(disk(segment))?;
            let line = line.ok_or_else(|| OpenError::from(damage("it is not there")))?;
            match Event::decode(&line).map(|record| record.event) {
                Ok(Event::Message { .. } | Event::GroupMessage { .. }) => {}
                Ok(Event::Erased { .. }) => return Err(EraseError::Before(asked)),
                Ok(event) => return Err(EraseError::NoMessage { seq: asked, kind: event.kind() }),
                Err(error) => return Err(OpenError::from(damage(&error.to_string())).into()),
            }
        }
    }
    Ok(())
}

/// Erases the events of closed segments that are named and still have their text. Gives them.
pub(super) fn carry_out<S: Storage>(storage: &S, named: &[Seq]) -> Result<Vec<Seq>, OpenError> {
    let mut done = Vec::new();
    for (segment, seqs) in by_segment(storage, &named.iter().copied().collect())? {
        let file = storage.open(&segment_name(segment)).map_err(disk(segment))?;
        let mut left = Vec::new();
        for seq in seqs {
            let line = find_event(&file, seq).map_err(disk(segment))?;
            if line.is_some_and(|line| erased(&line).is_some()) {
                left.push(seq);
            }
        }
        if left.is_empty() {
            continue;
        }
        let bytes = rewritten(storage, segment, &left)?;
        // What else may hold the text, or leads to places that are about to move, goes first: what is left undone is
        // seen by the line that still has its text.
        forget(storage, segment)?;
        replace(storage, segment, &bytes).map_err(disk(segment))?;
        done.append(&mut left);
    }
    Ok(done)
}

/// Removes a segment that was being written anew when the machine stopped.
pub(super) fn remove_unfinished<S: Storage>(storage: &S) -> io::Result<()> {
    if !storage.list()?.iter().any(|name| name == REWRITTEN) {
        return Ok(());
    }
    storage.remove(REWRITTEN)?;
    storage.sync_names()
}

/// The segments that hold events, with those.
fn by_segment<S: Storage>(storage: &S, seqs: &BTreeSet<Seq>) -> Result<BTreeMap<Seq, Vec<Seq>>, OpenError> {
    let segments = segments(storage)?;
    let mut found: BTreeMap<Seq, Vec<Seq>> = BTreeMap::new();
    for seq in seqs {
        let segment = segments.iter().rfind(|first| *first <= seq).or(segments.first());
        found.entry(segment.copied().unwrap_or(1)).or_default().push(*seq);
    }
    Ok(found)
}

/// The bytes of a closed segment without the text of some messages; it must be intact, and stay so.
fn rewritten<S: Storage>(storage: &S, segment: Seq, seqs: &[Seq]) -> Result<Vec<u8>, OpenError> {
    let old = storage.open(&segment_name(segment)).and_then(|file| file.read()).map_err(disk(segment))?;
    let mut new = Vec::with_capacity(old.len());
    for line in old.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let is_named = event_start(text).is_some_and(|(seq, _)| seqs.contains(&seq));
        match is_named.then(|| erased(text)).flatten() {
            Some(left) => {
                new.extend_from_slice(&left);
                new.push(b'\n');
            }
            None => new.extend_from_slice(line),
        }
    }
    let walk = walk(&new).map_err(|error| header_error::<OpenError>(segment, &error))?;
    match walk.broken {
        Some(broken) => Err(Damage::at(segment, &broken).into()),
        None if walk.good.end < new.len() as u64 => Err(Damage::of_segment(segment, &NO_COMMIT_AT_END).into()),
        None => Ok(new),
    }
}

/// What is left of a message's line; `None` if it is not one.
fn erased(line: &[u8]) -> Option<Vec<u8>> {
    let Record { seq, at, event } = Event::decode(line).ok()?;
    let (from, to, origin) = match event {
        Event::Message { from, to, origin, .. } => (from, Addressee::User(to), origin),
        Event::GroupMessage { from, group, origin, .. } => (from, Addressee::Group(group), origin),
        _ => return None,
    };
    Some(encoded_erased(&Event::Erased { from, to, origin, leaf: Hash::of_leaf(line).to_string() }, seq, at))
}

/// Takes away what beside the log may hold a text, or says where the lines of a segment stand: the copies of tails that
/// nobody was told of, and the index.
fn forget<S: Storage>(storage: &S, segment: Seq) -> Result<(), OpenError> {
    for (directory, begin) in [(TORN, ""), (INDEX, segment_number(segment).as_str())] {
        let removed = remove_files(&storage.beside(directory), begin);
        removed.map_err(|source| OpenError::disk(directory, source))?;
    }
    Ok(())
}

/// What the names of a segment's files begin with.
fn segment_number(segment: Seq) -> String {
    format!("{segment:020}")
}

/// Removes the files whose names begin so, for good.
fn remove_files<S: Storage>(directory: &S, begin: &str) -> io::Result<()> {
    for name in directory.list()?.iter().filter(|name| name.starts_with(begin)) {
        directory.remove(name)?;
    }
    directory.sync_names()
}

/// Tries, before anything is ordered, what could stand in the way of [`forget`] and [`replace`].
fn check_reach<S: Storage>(storage: &S, segment: Seq, bytes: u64) -> Result<(), OpenError> {
    let failed = |file: String| |source| OpenError::Disk { file, source };
    let name = segment_name(segment);
    if storage.is_link(&name) {
        return Err(failed(name)(link_keeps_text()));
    }
    // What cannot be looked into may hold anything.
    storage.beside(SNAPSHOTS).list().map_err(failed(SNAPSHOTS.to_owned()))?;
    for (directory, begin) in [(TORN, ""), (INDEX, segment_number(segment).as_str())] {
        let files = storage.beside(directory);
        let names = files.list().map_err(failed(directory.to_owned()))?;
        for name in names.iter().filter(|name| name.starts_with(begin)) {
            let failed = failed(format!("{directory}/{name}"));
            if files.is_link(name) {
                return Err(failed(link_keeps_text()));
            }
            files.open(name).map_err(failed)?;
        }
    }
    let room = storage.create(REWRITTEN).and_then(|file| file.reserve(bytes));
    room.and_then(|()| remove_unfinished(storage)).map_err(|source| {
        // The room that was got goes back; at the latest when the log is opened next.
        let _ = storage.remove(REWRITTEN);
        OpenError::Disk { file: REWRITTEN.to_owned(), source }
    })
}

/// Puts a segment in the place of the old one, whole or not at all.
fn replace<S: Storage>(storage: &S, segment: Seq, bytes: &[u8]) -> io::Result<()> {
    let written = storage.create(REWRITTEN).and_then(|file| file.write_at(0, bytes).and_then(|()| file.sync()));
    if let Err(error) = written {
        // On a full disk it would keep it full; at the latest the next opening removes it.
        let _ = storage.remove(REWRITTEN);
        return Err(error);
    }
    storage.rename(REWRITTEN, &segment_name(segment))?;
    storage.sync_names()
}

fn encoded(event: &Event, seq: Seq, at: Timestamp) -> Vec<u8> {
    let mut line = Vec::new();
    event.encode(seq, at, &mut line);
    line
}

/// An erased line: no leaf covers it, so that it has a check like the other lines that none covers.
fn encoded_erased(event: &Event, seq: Seq, at: Timestamp) -> Vec<u8> {
    let mut line = encoded(event, seq, at);
    line.pop();
    put_check(&mut line, 0);
    line
}
