//! Reading what is no longer in memory: history and what is owed from closed segments, by their indexes.
//!
//! Each reading is bounded, in events, bytes and segments, so that one thread serves many connections in turn.

use std::collections::VecDeque;

use memchr::memchr;

use super::archive_files::{ArchiveError, ArchiveFiles};
use super::index_file::{IndexError, IndexFile, List, Place, Places};
use super::limits;
use super::segment::{Conversation, Owed, Position};
use crate::chat::Seq;
use crate::eventlog::{Storage, StorageFile, segment_name};

/// Segments whose files are kept open.
const OPEN_SEGMENTS_MAX: usize = 32;
/// Segments looked into in one reading of what is owed.
const SEGMENTS_PER_READ_MAX: usize = 16;
/// The longest line with a commit behind it, in bytes.
const LINE_BYTES_MAX: usize = (1 << 20) + 1_024;

/// A question about closed segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Older {
    /// The newest events of a conversation below `below`, at most `count` and `bytes_max` bytes of them.
    History {
        /// Which.
        conversation: Conversation,
        /// The event before which they are.
        below: Seq,
        /// How many events are wanted yet.
        count: usize,
        /// How many bytes there is room for.
        bytes_max: usize,
    },
    /// The next events that a user is owed, up to `through`.
    Owed {
        /// To whom, and what.
        owed: Owed,
        /// The last event that may be among them.
        through: Seq,
    },
}

/// What a reading brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Event lines in order, each with its line feed.
    pub bytes: Vec<u8>,
    /// Where the next reading of what is owed begins: all up to this event is done.
    pub last: Seq,
    /// Whether a history has older events.
    pub more: bool,
}

/// The closed segments, as a reader has them.
#[derive(Debug)]
pub struct Archive<S: Storage> {
    files: ArchiveFiles<S>,
    /// The first events of all segments, rising.
    segments: Vec<Seq>,
    /// What was used last stands last.
    open: VecDeque<OpenSegment<S::File>>,
    newest: Option<(Seq, S::File)>,
}

#[derive(Debug)]
struct OpenSegment<F> {
    first: Seq,
    index: IndexFile<F>,
    events: F,
}

impl<S: Storage> Archive<S> {
    /// The archive of a log.
    pub fn new(files: ArchiveFiles<S>) -> Self {
        Self { files, segments: Vec::new(), open: VecDeque::new(), newest: None }
    }

    /// What the operator should know, since the last call.
    pub fn take_notices(&mut self) -> Vec<String> {
        self.files.take_notices()
    }

    /// Answers a question about closed segments, if there is one, and reads lines whose places are known behind it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn read(&mut self, older: Option<&Older>, positions: &[Position]) -> Result<Lines, ArchiveError> {
        let mut lines = match older {
            None => Lines::default(),
            Some(Older::History { conversation, below, count, bytes_max }) => {
                self.newest(*conversation, *below, *count, *bytes_max)?
            }
            Some(Older::Owed { owed, through }) => self.owed(owed, *through)?,
        };
        for position in positions {
            self.read_position(position, &mut lines.bytes)?;
            lines.last = position.seq;
        }
        Ok(lines)
    }

    fn newest(
        &mut self,
        conversation: Conversation,
        below: Seq,
        count: usize,
        bytes_max: usize,
    ) -> Result<Lines, ArchiveError> {
        self.know_segments(below.saturating_sub(1))?;
        let mut found: Vec<Vec<u8>> = Vec::new();
        let (mut bytes, mut more) = (0, false);
        let places = self.segments.partition_point(|first| *first < below);
        for place in (0..places).rev() {
            let (count, bytes_max) = (count - found.len(), bytes_max - bytes);
            let (lines, is_full) = self.with(place, |open| open.newest(conversation, below, count, bytes_max))?;
            bytes += lines.iter().map(Vec::len).sum::<usize>();
            found.extend(lines);
            if is_full {
                more = true;
                break;
            }
        }
        found.reverse();
        Ok(Lines { bytes: found.concat(), last: 0, more })
    }

    fn owed(&mut self, owed: &Owed, through: Seq) -> Result<Lines, ArchiveError> {
        self.know_segments(through)?;
        let mut lines = Lines { last: owed.after, ..Lines::default() };
        let mut events = 0;
        let after = owed.after.saturating_add(1);
        let begin = self.segments.partition_point(|first| *first <= after).saturating_sub(1);
        for place in (begin..self.segments.len()).take(SEGMENTS_PER_READ_MAX) {
            if lines.last >= through {
                break;
            }
            let events_max = limits::CATCH_UP_EVENTS_MAX - events;
            let bytes_max = limits::CATCH_UP_BYTES_MAX - lines.bytes.len();
            let part = self.with(place, |open| open.owed(owed, events_max, bytes_max))?;
            events += part.events;
            lines.bytes.extend_from_slice(&part.bytes);
            lines.last = part.last;
            if part.is_full || events >= limits::CATCH_UP_EVENTS_MAX || lines.bytes.len() >= limits::CATCH_UP_BYTES_MAX
            {
                break;
            }
        }
        Ok(lines)
    }

    /// Has the segments listed up to the one behind the one with an event.
    fn know_segments(&mut self, through: Seq) -> Result<(), ArchiveError> {
        if self.segments.last().is_none_or(|last| *last <= through) {
            self.segments = self.files.segments()?;
        }
        Ok(())
    }

    /// Asks an open segment; where its index is wrong it is made anew, and asked again.
    fn with<R>(
        &mut self,
        place: usize,
        ask: impl Fn(&OpenSegment<S::File>) -> Result<R, IndexError>,
    ) -> Result<R, ArchiveError> {
        let first = self.segments[place];
        let segment = match self.open.iter().position(|open| open.first == first) {
            Some(known) => self.open.remove(known),
            None => None,
        };
        let segment = match segment {
            Some(segment) => segment,
            None => self.open(place)?,
        };
        match ask(&segment) {
            Ok(answer) => {
                self.keep(segment);
                Ok(answer)
            }
            Err(error) => {
                self.files.notice_index(first, &error);
                let index = self.files.make_index(&self.segments, place)?;
                let segment = OpenSegment { index, ..segment };
                let answer = ask(&segment).map_err(|error| ArchiveError::Index(first, error))?;
                self.keep(segment);
                Ok(answer)
            }
        }
    }

    fn open(&mut self, place: usize) -> Result<OpenSegment<S::File>, ArchiveError> {
        let first = self.segments[place];
        let next = self.segments.get(place + 1).copied().ok_or(ArchiveError::Line(first))?;
        let closed = self.files.closed(first, next)?;
        let index = match self.files.open_index(&closed) {
            Ok(index) => index,
            Err(error) => {
                self.files.notice_index(first, &error);
                self.files.make_index(&self.segments, place)?
            }
        };
        let events = self.files.events.open(&segment_name(first)).map_err(|_| ArchiveError::Line(first))?;
        Ok(OpenSegment { first, index, events })
    }

    fn keep(&mut self, segment: OpenSegment<S::File>) {
        if segment.index.is_in_memory() {
            self.open.retain(|open| !open.index.is_in_memory());
        }
        if self.open.len() == OPEN_SEGMENTS_MAX {
            self.open.pop_front();
        }
        self.open.push_back(segment);
    }

    /// Appends a line whose place the loop knows.
    fn read_position(&mut self, position: &Position, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let failed = |_| ArchiveError::Line(position.seq);
        if self.newest.as_ref().is_none_or(|(first, _)| *first != position.segment) {
            let file = self.files.events.open(&segment_name(position.segment)).map_err(failed)?;
            self.newest = Some((position.segment, file));
        }
        let Some((_, file)) = &self.newest else { return Ok(()) };
        read_line(file, position.offset, position.length, position.seq, out)
            .map_err(|_| ArchiveError::Line(position.seq))
    }
}

/// What one segment has of what is owed.
#[derive(Debug)]
struct Part {
    bytes: Vec<u8>,
    events: usize,
    last: Seq,
    /// Whether a limit ended it.
    is_full: bool,
}

impl<F: StorageFile> OpenSegment<F> {
    /// The newest lines of a conversation, newest first, and whether there are more than the limits allow.
    fn newest(
        &self,
        conversation: Conversation,
        below: Seq,
        count: usize,
        bytes_max: usize,
    ) -> Result<(Vec<Vec<u8>>, bool), IndexError> {
        let mut events = self.index.find(List::Of(conversation))?;
        let mut places = self.index.places();
        let mut lines = Vec::new();
        let mut bytes = 0;
        for place in (0..events.below(below - self.first)?).rev() {
            if lines.len() == count {
                return Ok((lines, true));
            }
            let mut line = Vec::new();
            self.read(&mut places, events.get(place)?, &mut line)?;
            bytes += line.len();
            if bytes > bytes_max {
                return Ok((lines, true));
            }
            lines.push(line);
        }
        Ok((lines, false))
    }

    fn owed(&self, owed: &Owed, events_max: usize, bytes_max: usize) -> Result<Part, IndexError> {
        let mut chosen = Vec::new();
        let mut choose = |list: List, first: Seq, last: Seq| -> Result<(), IndexError> {
            let begin = first.max(owed.after.saturating_add(1));
            if last < self.first || begin > self.index.last() {
                return Ok(());
            }
            let mut events = self.index.find(list)?;
            let begin = events.below(begin.saturating_sub(self.first))?;
            for place in (begin..events.count()).take(events_max) {
                let event = events.get(place)?;
                if self.first + Seq::from(event) > last {
                    break;
                }
                chosen.push(event);
            }
            Ok(())
        };
        choose(List::Owed(owed.user), 0, Seq::MAX)?;
        for (group, first, last) in &owed.groups {
            choose(List::Of(Conversation::Group(*group)), *first, *last)?;
        }
        if let Some(watch_after) = owed.watch_after {
            choose(List::Of(Conversation::Presence), watch_after.saturating_add(1), Seq::MAX)?;
        }
        chosen.sort_unstable();
        chosen.dedup();
        let is_cut = chosen.len() >= events_max;
        let mut part = Part { bytes: Vec::new(), events: 0, last: self.index.last(), is_full: false };
        let mut places = self.index.places();
        for event in chosen.into_iter().take(events_max) {
            self.read(&mut places, event, &mut part.bytes)?;
            part.events += 1;
            if part.bytes.len() >= bytes_max || (is_cut && part.events == events_max) {
                part.is_full = true;
                part.last = self.first + Seq::from(event);
                break;
            }
        }
        Ok(part)
    }

    /// Appends the line of an event, counted from the segment's first.
    fn read(&self, places: &mut Places<'_, F>, event: u32, out: &mut Vec<u8>) -> Result<(), IndexError> {
        let Place { offset, length, check } = places.get(event)?;
        let start = out.len();
        read_line(&self.events, offset, length, self.first + Seq::from(event), out)?;
        if crc32c::crc32c(&out[start..out.len() - 1]) == check {
            return Ok(());
        }
        // The index or the log is wrong: whoever makes the index anew finds out which.
        out.truncate(start);
        Err(IndexError::Damaged("the line of an event is not the one that it was made from"))
    }
}

/// Appends the line of an event, with its line feed, from the place where it should stand.
fn read_line<F: StorageFile>(
    file: &F,
    offset: u64,
    length: u32,
    seq: Seq,
    out: &mut Vec<u8>,
) -> Result<(), IndexError> {
    let elsewhere = IndexError::Damaged("an event is not where it says");
    let start = out.len();
    if length as usize > LINE_BYTES_MAX {
        return Err(elsewhere);
    }
    out.resize(start + length as usize, 0);
    let read = file.read_at(offset, &mut out[start..]);
    let line = &out[start..];
    let end = memchr(b'\n', line).filter(|_| line.starts_with(format!("{{\"seq\":{seq},").as_bytes()));
    out.truncate(end.map_or(start, |end| start + end + 1));
    read?;
    if end.is_some() { Ok(()) } else { Err(elsewhere) }
}
