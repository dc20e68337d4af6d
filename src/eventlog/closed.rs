//! Segments that are never appended to again: their links, and their events.

use std::io;
use std::thread;

use memchr::{memchr, memchr_iter, memrchr};
use uuid::Uuid;

use super::damage::{Damage, Newer, header_error};
use super::erasure::Line;
use super::format::{CommitLine, EventLine, LineError, SegmentLine, event_start, is_frame, segment_name};
use super::judge::walk;
use super::opening::{OpenError, disk};
use super::replayed::{Replayed, ReplayedEvent};
use super::storage::{Storage, StorageFile};
use super::tree::{Hash, LEAVES_AT_ONCE, Tree};
use crate::chat::straight::Message;
use crate::chat::{DecodeError, Event, Record, Seq};
use crate::clock::Timestamp;
use crate::names::UserName;

/// The most bytes of a segment's first line, and more than those of a commit.
const LINK_BYTES_MAX: usize = 8 << 10;

/// Bytes read from a segment at once: more than the longest line.
const CHUNK_BYTES: usize = 2 << 20;
/// Bytes of lines from which on a thread of its own makes their leaves: to start one takes as long as some of them.
const BESIDE_BYTES_MIN: usize = 256 << 10;

/// What is wrong with a segment that is cut at its end.
pub(super) const NO_COMMIT_AT_END: &str = "the segment does not end with a commit";

/// What a closed segment ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedSegment {
    /// The number of the log.
    pub log: Uuid,
    /// Its first event.
    pub first: Seq,
    /// Its last event.
    pub last: Seq,
    /// The root of the tree over all events up to its last.
    pub root: Hash,
}

/// Reads the first line of a segment.
///
/// # Errors
/// It is not there, or not as it was written.
pub fn read_header<S: Storage>(storage: &S, first: Seq) -> Result<SegmentLine, OpenError> {
    let file = storage.open(&segment_name(first)).map_err(disk(first))?;
    let mut bytes = vec![0; LINK_BYTES_MAX];
    let count = file.read_at(0, &mut bytes).map_err(disk(first))?;
    parse_header(first, &bytes[..count])
}

/// Gives each event of a closed segment to `each`.
///
/// # Errors
/// The disk failed, or it is not what was written.
pub fn read_closed<S: Storage>(
    storage: &S,
    first: Seq,
    each: &mut impl FnMut(Replayed<'_>),
) -> Result<ClosedSegment, OpenError> {
    let (header, commit) = read_links(storage, first)?;
    let file = storage.open(&segment_name(first)).map_err(disk(first))?;
    let segment = ClosedSegment { log: header.log, first, last: commit.seq, root: commit.root };
    Replay::new(&header).read_file(&file, &header, &segment, each)?;
    Ok(segment)
}

/// Reads the first line and the last of a closed segment, and nothing between.
pub(super) fn read_links<S: Storage>(storage: &S, first: Seq) -> Result<(SegmentLine, CommitLine), OpenError> {
    let header = read_header(storage, first)?;
    let file = storage.open(&segment_name(first)).map_err(disk(first))?;
    let mut bytes = vec![0; LINK_BYTES_MAX];
    let from = file.length().map_err(disk(first))?.saturating_sub(LINK_BYTES_MAX as u64);
    let count = file.read_at(from, &mut bytes).map_err(disk(first))?;
    Ok((header, parse_end(first, &bytes[..count])?))
}

/// The line of an event of a segment, without its line feed; `None` if it is not there.
pub(super) fn find_event(file: &impl StorageFile, seq: Seq) -> io::Result<Option<Vec<u8>>> {
    let (mut low, mut high) = (0, file.length()?);
    let mut buffer = vec![0; CHUNK_BYTES];
    // Numbers rise, so that halving finds a chunk that the line begins in, and is wholly in with what follows.
    while high - low > CHUNK_BYTES as u64 / 2 {
        let middle = low + (high - low) / 2;
        let count = file.read_at(middle, &mut buffer)?;
        let begun = memchr(b'\n', &buffer[..count]).map_or(count, |end| end + 1);
        match first_event(&buffer[begun..count]) {
            Some(found) if found <= seq => low = middle + begun as u64,
            _ => high = middle,
        }
    }
    let count = file.read_at(low, &mut buffer)?;
    let lines = buffer[..count].split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    let found = lines.filter_map(|line| Some((event_start(line)?.0, line))).find(|(found, _)| *found == seq);
    Ok(found.map(|(_, line)| line.to_vec()))
}

/// The whole lines of these bytes, without their line feeds.
pub(super) fn whole_lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut start = 0;
    memchr_iter(b'\n', bytes).map(|end| &bytes[std::mem::replace(&mut start, end + 1)..end]).collect()
}

/// The number of the first event in these lines.
fn first_event(lines: &[u8]) -> Option<Seq> {
    lines.split(|byte| *byte == b'\n').find_map(|line| event_start(line).map(|(seq, _)| seq))
}

/// The first line of a segment that begins with these bytes.
pub(super) fn parse_header(first: Seq, bytes: &[u8]) -> Result<SegmentLine, OpenError> {
    let end = memchr(b'\n', bytes).ok_or(LineError::Broken("its first line has no end"));
    let header = end.and_then(|end| SegmentLine::parse(&bytes[..end]));
    let header = header.map_err(|error| header_error::<OpenError>(first, &error))?;
    if header.first != first {
        let what = format!("its first line names event {} as its first", header.first);
        return Err(Damage::of_header(first, &what).into());
    }
    Ok(header)
}

/// The commit that a segment ends with, from its last bytes.
pub(super) fn parse_end(first: Seq, bytes: &[u8]) -> Result<CommitLine, OpenError> {
    let last_line = bytes.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|byte| *byte == b'\n').next());
    let commit = last_line.and_then(CommitLine::parse);
    commit.ok_or_else(|| Damage::of_segment(first, &NO_COMMIT_AT_END).into())
}

/// Checks that a segment goes on where the one before it ended.
pub(super) fn check_link(
    first: Seq,
    header: &SegmentLine,
    log: Uuid,
    before: Option<&CommitLine>,
) -> Result<(), OpenError> {
    let damage = |what: String| Err(Damage::of_header(first, &what).into());
    if header.log != log {
        return damage(format!("it belongs to log {}, and the newest segment to log {log}", header.log));
    }
    match before {
        None if first != 1 => damage(format!("the log begins with event {first}: the segments before are missing")),
        Some(commit) if commit.seq + 1 < first => {
            damage(format!("the segment with events {} to {} is missing", commit.seq + 1, first - 1))
        }
        Some(commit) if commit.seq + 1 != first => damage(format!("the segment before ends with event {}", commit.seq)),
        Some(commit) if commit.root != header.tree.root() => {
            damage("its root is not the one that the segment before ends with".into())
        }
        Some(commit) if commit.at > header.at => damage("its time is before that of the last event before it".into()),
        _ => Ok(()),
    }
}

/// The tree over the lines of a closed segment.
struct Leaves {
    tree: Tree,
    /// Whether a line claims to be erased, and is not as it was written.
    has_unlike: bool,
}

impl Leaves {
    /// Adds the events of these lines.
    fn add(&mut self, lines: &[&[u8]]) {
        for lines in lines.chunks(LEAVES_AT_ONCE) {
            let mut usual = Vec::with_capacity(lines.len());
            for line in lines.iter().filter(|line| !is_frame(line)) {
                match Line::of(line) {
                    Line::Usual | Line::Erasure(_) => usual.push(*line),
                    Line::Erased(leaf) => {
                        self.tree.extend(&Hash::of_leaves(&usual));
                        usual.clear();
                        self.tree.push(leaf);
                    }
                    Line::Broken => self.has_unlike = true,
                }
            }
            self.tree.extend(&Hash::of_leaves(&usual));
        }
    }
}

/// Reads the events of a segment, piece by piece.
#[derive(Debug)]
pub(super) struct Replay {
    segment: Seq,
    /// The number of the next event.
    next: Seq,
    /// The time of the one before, at first that of the segment.
    last_at: Timestamp,
    /// Lines read so far.
    lines: u64,
    /// Bytes read so far.
    pub(super) offset: u64,
}

impl Replay {
    pub(super) fn new(header: &SegmentLine) -> Self {
        Self { segment: header.first, next: header.first, last_at: header.at, lines: 0, offset: 0 }
    }

    /// Gives the events of the next lines to `each`.
    pub(super) fn read(&mut self, lines: &[&[u8]], each: &mut impl FnMut(Replayed<'_>)) -> Result<(), OpenError> {
        for line in lines {
            self.lines += 1;
            if !is_frame(line) {
                match read_message(line) {
                    Some((seq, at, event)) => self.give(seq, at, event, line, each)?,
                    None => {
                        let Record { seq, at, event } = self.decode(line)?;
                        self.give(seq, at, ReplayedEvent::Event(&event), line, each)?;
                    }
                }
            }
            self.offset += line.len() as u64 + 1;
        }
        Ok(())
    }

    /// Gives the events of a closed segment's file from its start to its end. That they are those that were committed
    /// is known at the end: an error takes back what was given.
    pub(super) fn read_file(
        &mut self,
        file: &impl StorageFile,
        header: &SegmentLine,
        segment: &ClosedSegment,
        each: &mut impl FnMut(Replayed<'_>),
    ) -> Result<(), OpenError> {
        let mut leaves = Leaves { tree: header.tree.clone(), has_unlike: false };
        self.read_chunks(file, &mut leaves, each)?;
        let is_right = (leaves.tree.leaves(), leaves.tree.root()) == (segment.last, segment.root);
        if leaves.has_unlike || !is_right {
            return Err(changed(file, segment)?.into());
        }
        Ok(())
    }

    fn read_chunks(
        &mut self,
        file: &impl StorageFile,
        leaves: &mut Leaves,
        each: &mut impl FnMut(Replayed<'_>),
    ) -> Result<(), OpenError> {
        // A byte more than there are to be read shows the end.
        let length = usize::try_from(file.length().map_err(disk(self.segment))?).unwrap_or(usize::MAX);
        let mut buffer = vec![0; length.saturating_add(1).min(CHUNK_BYTES)];
        let mut filled = 0;
        loop {
            let count = file.read_at(self.offset + filled as u64, &mut buffer[filled..]).map_err(disk(self.segment))?;
            filled += count;
            let whole = memrchr(b'\n', &buffer[..filled]).map_or(0, |end| end + 1);
            let lines = whole_lines(&buffer[..whole]);
            // The tree takes a third of the time; the events are folded on another core meanwhile.
            if whole < BESIDE_BYTES_MIN {
                leaves.add(&lines);
                self.read(&lines, each)?;
            } else {
                thread::scope(|scope| {
                    scope.spawn(|| leaves.add(&lines));
                    self.read(&lines, each)
                })?;
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
            if count == 0 {
                return if filled == 0 { Ok(()) } else { Err(self.damage_behind(1, "the last line has no end")) };
            }
            if filled == buffer.len() {
                return Err(self.damage_behind(1, "the line is too long"));
            }
        }
    }

    /// Gives an event to `each`, if it follows the one before.
    #[inline]
    fn give(
        &mut self,
        seq: Seq,
        at: Timestamp,
        event: ReplayedEvent<'_>,
        line: &[u8],
        each: &mut impl FnMut(Replayed<'_>),
    ) -> Result<(), OpenError> {
        if seq != self.next {
            return Err(self.damage(&format!("event {seq} stands where event {} should", self.next)));
        }
        if at < self.last_at {
            return Err(self.damage(&format!("the time of event {seq} is before that of the one before")));
        }
        let length = u32::try_from(line.len() + 1).map_err(|_| self.damage("the line is too long"))?;
        each(Replayed { seq, at, event, line, segment: self.segment, offset: self.offset, length });
        self.next += 1;
        self.last_at = at;
        Ok(())
    }

    fn decode(&self, line: &[u8]) -> Result<Record, OpenError> {
        Event::decode(line).map_err(|error| match error {
            DecodeError::UnknownType(_) => Newer::at(self.segment, self.lines, &error).into(),
            other => self.damage(&other.to_string()),
        })
    }

    /// Damage of the line that was read last.
    fn damage(&self, what: &str) -> OpenError {
        self.damage_behind(0, what)
    }

    /// Damage so many lines behind it.
    fn damage_behind(&self, lines: u64, what: &str) -> OpenError {
        let (line, seq) = (Some(self.lines + lines), Some(self.next));
        Damage { line, seq, ..Damage::of_segment(self.segment, &what) }.into()
    }
}

/// A message's number, time and what folds of it, if its line stands as this program writes it.
#[inline]
fn read_message<'a>(line: &[u8]) -> Option<(Seq, Timestamp, ReplayedEvent<'a>)> {
    let line = EventLine::of(line)?;
    let Message { from, to, origin, .. } = line.message(UserName::from_start)?;
    let at = Timestamp::from_log_form(line.time)?;
    Some((line.seq, at, ReplayedEvent::Message { from, to, origin }))
}

/// Where a closed segment's events are not those that were committed.
fn changed(file: &impl StorageFile, segment: &ClosedSegment) -> Result<Damage, OpenError> {
    let ClosedSegment { first, last, .. } = *segment;
    let bytes = file.read().map_err(disk(first))?;
    // Its own commits say where, unless they were changed too.
    let broken = walk(&bytes).ok().and_then(|walk| walk.broken);
    Ok(broken.map_or_else(
        || Damage::of_segment(first, &format!("events {first} to {last} are not those that were committed")),
        |broken| Damage::at(first, &broken),
    ))
}
