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
use crate::eventlog::{Storage, StorageFile, event_start, segment_name};

/// Segments whose files are kept open.
const OPEN_SEGMENTS_MAX: usize = 32;
/// Of those, the most whose index is in memory, for it could not be written: some megabytes each.
const INDEXES_IN_MEMORY_MAX: usize = 4;
/// Segments looked into in one reading of what is owed.
const SEGMENTS_PER_READ_MAX: usize = 16;
/// The longest line with a commit behind it, in bytes.
const LINE_BYTES_MAX: usize = (1 << 20) + 1_024;
/// The most bytes that are read at once for several lines that stand near each other.
const RUN_BYTES_MAX: u64 = 64 << 10;
/// The most bytes between two such lines: to read them takes less than another call.
const RUN_GAP_BYTES_MAX: u64 = 2 << 10;

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
        for positions in positions.chunk_by(|position, next| position.segment == next.segment) {
            self.read_positions(positions, &mut lines.bytes)?;
        }
        lines.last = positions.last().map_or(lines.last, |position| position.seq);
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
        let is_in_memory = |open: &OpenSegment<S::File>| open.index.is_in_memory();
        if is_in_memory(&segment)
            && self.open.iter().filter(|open| is_in_memory(open)).count() == INDEXES_IN_MEMORY_MAX
            && let Some(oldest) = self.open.iter().position(is_in_memory)
        {
            self.open.remove(oldest);
        }
        if self.open.len() == OPEN_SEGMENTS_MAX {
            self.open.pop_front();
        }
        self.open.push_back(segment);
    }

    /// Appends lines of one segment whose places the loop knows.
    fn read_positions(&mut self, positions: &[Position], out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let Some(Position { seq, segment, .. }) = positions.first().copied() else { return Ok(()) };
        if self.newest.as_ref().is_none_or(|(first, _)| *first != segment) {
            let file = self.files.events.open(&segment_name(segment)).map_err(|_| ArchiveError::Line(seq))?;
            self.newest = Some((segment, file));
        }
        let Some((_, file)) = &self.newest else { return Ok(()) };
        let stands = |position: &Position| Standing {
            seq: position.seq,
            offset: position.offset,
            length: position.length,
            check: None,
        };
        read_lines(file, &positions.iter().map(stands).collect::<Vec<_>>(), out)
            .map_err(|(seq, _)| ArchiveError::Line(seq))
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
            self.read(&[self.standing(&mut places, events.get(place)?)?], &mut line)?;
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
        let mut lines = Vec::new();
        let mut bytes = 0;
        for event in chosen.into_iter().take(events_max) {
            let line = self.standing(&mut places, event)?;
            lines.push(line);
            bytes += line.length as usize;
            if bytes >= bytes_max || (is_cut && lines.len() == events_max) {
                part.is_full = true;
                part.last = line.seq;
                break;
            }
        }
        self.read(&lines, &mut part.bytes)?;
        part.events = lines.len();
        Ok(part)
    }

    /// Where the line of an event stands, counted from the segment's first.
    fn standing(&self, places: &mut Places<'_, F>, event: u32) -> Result<Standing, IndexError> {
        let Place { offset, length, check } = places.get(event)?;
        Ok(Standing { seq: self.first + Seq::from(event), offset, length, check: Some(check) })
    }

    fn read(&self, lines: &[Standing], out: &mut Vec<u8>) -> Result<(), IndexError> {
        read_lines(&self.events, lines, out).map_err(|(_, error)| error)
    }
}

/// Where the line of an event should stand.
#[derive(Debug, Clone, Copy)]
struct Standing {
    seq: Seq,
    offset: u64,
    /// As [`Position::length`] has it.
    length: u32,
    /// The CRC-32C of the line, where that is known.
    check: Option<u32>,
}

impl Standing {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }

    /// Appends the line, with its line feed, from the bytes that begin where it should stand.
    fn cut(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), IndexError> {
        let end =
            memchr(b'\n', bytes).filter(|end| event_start(&bytes[..*end]).is_some_and(|(seq, _)| seq == self.seq));
        let end = end.ok_or(IndexError::Damaged("an event is not where it says"))?;
        if self.check.is_some_and(|check| crc32c::crc32c(&bytes[..end]) != check) {
            // The index or the log is wrong: whoever makes the index anew finds out which.
            return Err(IndexError::Damaged("the line of an event is not the one that it was made from"));
        }
        out.extend_from_slice(&bytes[..=end]);
        Ok(())
    }
}

/// Appends lines, each with its line feed. Those that stand near each other are read at once. An error names the event
/// that it is about.
fn read_lines<F: StorageFile>(file: &F, lines: &[Standing], out: &mut Vec<u8>) -> Result<(), (Seq, IndexError)> {
    let mut bytes = Vec::new();
    let mut rest = lines;
    while let Some(first) = rest.first() {
        let is_near = |line: &Standing, next: &Standing| {
            let gap = next.offset.checked_sub(line.end());
            gap.is_some_and(|gap| gap <= RUN_GAP_BYTES_MAX) && next.end() - first.offset <= RUN_BYTES_MAX
        };
        let count = 1 + rest.windows(2).take_while(|pair| is_near(&pair[0], &pair[1])).count();
        let (run, others) = rest.split_at(count);
        rest = others;
        let failed = |error| (first.seq, error);
        let length = run.last().map_or(0, |last| last.end() - first.offset);
        let length = usize::try_from(length).ok().filter(|length| *length <= LINE_BYTES_MAX);
        bytes.resize(length.ok_or(failed(IndexError::Damaged("an event is not where it says")))?, 0);
        let count = file.read_at(first.offset, &mut bytes).map_err(|error| failed(error.into()))?;
        for line in run {
            let at = usize::try_from(line.offset - first.offset).unwrap_or(usize::MAX);
            let end = at.saturating_add(line.length as usize).min(count);
            line.cut(bytes.get(at..end).unwrap_or_default(), out).map_err(|error| (line.seq, error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventlog::memory::MemoryDisk;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn line(seq: Seq, length: usize) -> Vec<u8> {
        let start = format!("{{\"seq\":{seq},\"ts\":\"2026-11-22T06:10:00.123Z\",\"type\":\"message\",\"text\":\"");
        let mut line = start.into_bytes();
        line.resize(line.len().max(length - 3), b'x');
        line.extend_from_slice(b"\"}\n");
        line
    }

    /// Lines of these lengths, so many bytes of something else behind each: a commit may be there, or others' lines.
    fn written(shapes: &[(usize, usize)]) -> (Vec<u8>, Vec<Standing>, Vec<Vec<u8>>) {
        let (mut bytes, mut standing, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for (seq, (length, gap)) in (10..).zip(shapes) {
            let line = line(seq, *length);
            let check = Some(crc32c::crc32c(&line[..line.len() - 1]));
            standing.push(Standing {
                seq,
                offset: bytes.len() as u64,
                length: u32::try_from(line.len()).unwrap(),
                check,
            });
            bytes.extend_from_slice(&line);
            bytes.resize(bytes.len() + gap, b'-');
            lines.push(line);
        }
        (bytes, standing, lines)
    }

    fn read(bytes: Vec<u8>, standing: &[Standing]) -> Result<Vec<u8>, Seq> {
        let disk = MemoryDisk::default();
        disk.put("segment", bytes);
        let mut out = b"before".to_vec();
        read_lines(&disk.open("segment").unwrap(), standing, &mut out).map_err(|(seq, _)| seq)?;
        Ok(out.split_off(6))
    }

    proptest! {
        #[test]
        fn lines_are_read_whole_and_in_order_however_they_lie(
            shapes in proptest::collection::vec(
                (
                    select(vec![100_usize, 1_000, 30_000, 65_535, 65_536, 65_537, 1 << 20]),
                    select(vec![0_usize, 1, 200, 2_047, 2_048, 2_049, 70_000]),
                ),
                1..12,
            ),
            chosen in any::<u16>(),
        ) {
            let (bytes, standing, lines) = written(&shapes);
            let is_chosen = |place: &usize| chosen >> place & 1 == 1;
            let asked: Vec<Standing> = (0..standing.len()).filter(is_chosen).map(|place| standing[place]).collect();
            let expected: Vec<u8> = (0..lines.len()).filter(is_chosen).flat_map(|place| lines[place].clone()).collect();
            prop_assert_eq!(read(bytes, &asked), Ok(expected));
        }
    }

    #[test]
    fn a_place_that_is_wrong_is_found_wherever_in_a_run_it_is_and_named() {
        let (bytes, standing, _) = written(&[(100, 0), (100, 50), (100, 0), (200, 0), (100, 0)]);
        let tampers: [fn(&mut Standing); 6] = [
            |line| line.offset += 1,
            |line| line.offset = u64::MAX / 2,
            |line| line.length -= 1,
            |line| line.length = u32::MAX,
            |line| line.check = Some(line.check.unwrap() ^ 1),
            |line| line.seq += 100,
        ];
        for place in 0..standing.len() {
            for tamper in tampers {
                let mut asked = standing.clone();
                tamper(&mut asked[place]);
                assert_eq!(read(bytes.clone(), &asked), Err(asked[place].seq), "{:?}", asked[place]);
            }
            let mut changed = bytes.clone();
            changed[usize::try_from(standing[place].offset).unwrap() + 80] ^= 1;
            assert_eq!(read(changed, &standing), Err(standing[place].seq));
            let cut = usize::try_from(standing[place].end()).unwrap() - 1;
            assert_eq!(read(bytes[..cut].to_vec(), &standing), Err(standing[place].seq), "the file ends in a line");
        }
    }
}
