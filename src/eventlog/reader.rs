//! Reading a log beside whoever writes it: event lines in order, up to HEAD and never beyond.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memchr::memchr_iter;
use memchr::memmem::Finder;

use super::damage::{Damage, Newer, header_error};
use super::format::{EventLine, Head, NO_SLOT_WHOLE, SegmentLine, event_start, is_frame, segment_first, segment_name};
use super::judge::{is_cut_off, walk};
use super::line_buffer::LineBuffer;
use super::opening::HEAD;
use super::search::{find_line, line_near};
use super::segment_files::{
    ReadError, check_names, first_line, is_not_behind, no_segment, parse_header, read_header, segments,
};
use super::snapshot::{self, Found};
use super::storage::{Place, ReadFile};
use crate::chat::{DecodeError, Seq};
use crate::clock::Timestamp;

/// Bytes read from a file at once.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// The longest line, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;

/// Where an event's line stands in the buffer.
struct Cut {
    seq: Seq,
    range: Range<usize>,
    /// What stands behind the time begins here.
    behind_time: usize,
}

impl Cut {
    #[inline]
    fn line(self, buffer: &[u8]) -> EventLine<'_> {
        let Self { seq, range, behind_time } = self;
        let time = buffer[..behind_time].last_chunk().expect("the time of an event stands before what is behind it");
        EventLine { seq, time, behind_time: &buffer[behind_time..range.end], bytes: &buffer[range] }
    }
}

/// How far may be read.
#[derive(Debug)]
enum End {
    /// As far as HEAD says, which grows.
    Head(Option<ReadFile>),
    /// As far as somebody says.
    Told,
}

/// Reads event lines in order.
#[derive(Debug)]
pub struct LogReader {
    directory: PathBuf,
    /// The one segment that is read, if it is not all of them.
    only: Option<Seq>,
    end: End,
    /// The last event that may be read.
    through: Seq,
    /// Whether HEAD was whole at least once.
    is_head_known: bool,
    /// In a copy without HEAD: the segment and its length that `through` was found in.
    judged: Option<(Seq, u64)>,
    next_seq: Seq,
    open: Option<OpenSegment>,
    buffer: LineBuffer,
}

#[derive(Debug)]
struct OpenSegment {
    header: SegmentLine,
    file: ReadFile,
    /// The offset behind what is in the buffer.
    offset: u64,
    /// The time of the last event that was given, at first that of the segment.
    last_time: [u8; 24],
}

impl LogReader {
    /// Opens a log for reading from its first event: a data directory, an events directory or one segment's file.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let no_log = |why: String| ReadError::NoLog { path: path.to_owned(), why };
        let place = Place::find(path).map_err(|error| no_log(error.to_string()))?;
        let (directory, only) = match place {
            Place::Events(directory) => (directory, None),
            Place::Segment(file) => {
                let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let first = segment_first(&name).ok_or_else(|| no_log("its name is that of no segment".into()))?;
                (file.parent().map(Path::to_owned).unwrap_or_default(), Some(first))
            }
        };
        let first = match only {
            Some(first) => first,
            None => {
                let first = *segments(&directory)?.first().ok_or_else(|| no_segment(&directory, path))?;
                check_names(&directory)?;
                if first > 1 {
                    let what = format!("the segments with events 1 to {} are missing", first - 1);
                    return Err(Damage::of_header(first, &what).into());
                }
                first
            }
        };
        let mut reader = Self {
            directory,
            only,
            end: End::Head(None),
            through: 0,
            is_head_known: false,
            judged: None,
            next_seq: first,
            open: None,
            buffer: LineBuffer::default(),
        };
        reader.refresh()?;
        Ok(reader)
    }

    /// Another reader of the same log, at its first event, that reads as far as this one could when it was last asked.
    pub fn beside(&self) -> Self {
        Self {
            directory: self.directory.clone(),
            only: self.only,
            end: End::Told,
            is_head_known: self.is_head_known,
            through: self.through,
            judged: None,
            next_seq: 1,
            open: None,
            buffer: LineBuffer::default(),
        }
    }

    /// From now on the log is read up to `through`, by the word of whoever made that durable, and HEAD is not asked.
    pub fn set_end(&mut self, through: Seq) {
        self.end = End::Told;
        self.through = through;
    }

    /// The last event that could be read when it was last asked for.
    pub fn end(&self) -> Seq {
        self.through
    }

    /// The event that is read next, if it is there.
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// The newest snapshot beside the log, up to an event, that can be used; and why others cannot.
    ///
    /// # Errors
    /// The log's directory cannot be read.
    pub fn snapshot(&self, through: Seq) -> Result<Found, ReadError> {
        match self.only {
            Some(_) => Ok(Found::default()),
            None => Ok(snapshot::find(&self.directory, &segments(&self.directory)?, through)),
        }
    }

    /// Goes to the first event from `seq` on.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn seek(&mut self, seq: Seq) -> Result<(), ReadError> {
        let first = match self.only {
            Some(only) => only,
            None => segments(&self.directory)?.first().copied().unwrap_or(1),
        };
        self.open = None;
        self.next_seq = seq.max(first);
        Ok(())
    }

    /// Goes to the first event at `at` or after.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn seek_time(&mut self, at: Timestamp) -> Result<(), ReadError> {
        let segment = match self.only {
            Some(only) => only,
            None => self.segment_at(at)?,
        };
        let wanted = at.to_rfc3339();
        let is_before = |line: &[u8]| event_start(line).is_some_and(|(_, time)| *time < wanted[..]);
        self.open_segment(segment, is_before)?;
        self.next_seq = segment;
        while let Some(range) = self.cut_line()? {
            if let Some((seq, _)) = event_start(&self.buffer.bytes()[range.clone()]) {
                self.next_seq = seq;
                self.buffer.seek(range.start);
                break;
            }
        }
        while let Some(cut) = self.advance()? {
            if !is_before(&self.buffer.bytes()[cut.range]) {
                return self.seek(cut.seq);
            }
        }
        self.next_seq = self.through + 1;
        Ok(())
    }

    /// The next event line; `None` if there is no more now. May be called again later.
    ///
    /// # Errors
    /// The log cannot be read, or is damaged.
    #[inline]
    pub fn next_line(&mut self) -> Result<Option<EventLine<'_>>, ReadError> {
        let found = self.advance()?;
        Ok(found.map(|cut| cut.line(self.buffer.bytes())))
    }

    /// As [`LogReader::next_line`], and may pass over lines in which `wanted` does not stand, so that looking for what is
    /// rare costs little more than reading the bytes. Such lines are given now and then all the same: whoever asks sees
    /// how far the reading is. What is passed over is not checked.
    ///
    /// # Errors
    /// The log cannot be read, or is damaged.
    pub fn next_line_near(&mut self, wanted: &Finder<'_>) -> Result<Option<EventLine<'_>>, ReadError> {
        self.pass_over_lines_without(wanted);
        self.next_line()
    }

    fn pass_over_lines_without(&mut self, wanted: &Finder<'_>) {
        // What was read before a search for a place is none of what follows it.
        if self.open.is_some()
            && let Some((begin, seq)) = line_near(self.buffer.rest(), wanted, self.next_seq, self.through)
        {
            self.next_seq = seq;
            self.buffer.pass_over(begin);
        }
    }

    // Inlined with what it calls for each line, so that what each gives is not put together and taken apart again.
    #[inline]
    fn advance(&mut self) -> Result<Option<Cut>, ReadError> {
        loop {
            if self.next_seq > self.through {
                self.refresh()?;
                if self.next_seq > self.through {
                    return Ok(None);
                }
                self.forget_read_ahead();
            }
            if self.open.is_none() && !self.find_segment()? {
                return Ok(None);
            }
            let Some(range) = self.cut_line()? else {
                if !self.go_to_next_segment()? {
                    return Ok(None);
                }
                continue;
            };
            let bytes = &self.buffer.bytes()[range.clone()];
            if is_frame(bytes) {
                continue;
            }
            let Some(line) = EventLine::of(bytes) else {
                return Err(self.damage("the line is neither an event nor a commit"));
            };
            let EventLine { seq, time, .. } = line;
            if seq < self.next_seq {
                continue;
            }
            if seq != self.next_seq {
                return Err(self.damage(&format!("event {seq} stands where event {} should", self.next_seq)));
            }
            if let Some(kind) = line.unknown_kind() {
                let unknown = DecodeError::UnknownType(String::from_utf8_lossy(kind).into_owned());
                let (first, line) = self.place();
                return Err(Newer::at(first, line, &unknown).into());
            }
            if let Some(open) = &mut self.open {
                // Under load most are of the same moment.
                if *time != open.last_time {
                    if *time < open.last_time {
                        return Err(self.damage(&format!("the time of event {seq} is before that of the one before")));
                    }
                    open.last_time = *time;
                }
            }
            self.next_seq = seq + 1;
            let behind_time = range.end - line.behind_time.len();
            return Ok(Some(Cut { seq, range, behind_time }));
        }
    }

    /// What was read beyond the acknowledged may have been cut off since, and other events written in its place.
    fn forget_read_ahead(&mut self) {
        if let Some(open) = &mut self.open {
            open.offset -= self.buffer.rest().len() as u64;
        }
        self.buffer.clear();
    }

    /// Cuts a line off the buffer, and fills it where it holds none; `None` at the end of the file.
    #[inline]
    fn cut_line(&mut self) -> Result<Option<Range<usize>>, ReadError> {
        let mut searched = 0;
        loop {
            if let Some(range) = self.buffer.cut_line(searched) {
                return Ok(Some(range));
            }
            searched = self.buffer.rest().len();
            if !self.read_more()? {
                return Ok(None);
            }
        }
    }

    /// Reads on behind what is in the buffer; gives whether there was more.
    #[cold]
    fn read_more(&mut self) -> Result<bool, ReadError> {
        if self.buffer.rest().len() > LINE_BYTES_MAX {
            return Err(self.damage_behind(1, "the line is longer than 1 MiB"));
        }
        let Some(open) = &mut self.open else { return Ok(false) };
        let read = self.buffer.fill(CHUNK_BYTES, |buffer| open.file.read_at(open.offset, buffer));
        let first = open.header.first;
        let count = read.map_err(|source| ReadError::disk(&self.directory.join(segment_name(first)), source))?;
        open.offset += count as u64;
        Ok(count > 0)
    }

    fn find_segment(&mut self) -> Result<bool, ReadError> {
        let segment = match self.only {
            Some(only) => Some(only),
            None => segments(&self.directory)?.into_iter().rfind(|first| *first <= self.next_seq),
        };
        let Some(segment) = segment else { return Ok(false) };
        let wanted = self.next_seq;
        self.open_segment(segment, |line| event_start(line).is_some_and(|(seq, _)| seq < wanted))?;
        Ok(true)
    }

    /// At the end of a segment's file: goes on with the next one, if it is there.
    fn go_to_next_segment(&mut self) -> Result<bool, ReadError> {
        if self.only.is_some() {
            return Ok(false);
        }
        let next = self.next_seq;
        let Some(before) = self.open.take() else { return Ok(false) };
        let segments = segments(&self.directory)?;
        if next > before.header.first && segments.contains(&next) {
            self.open_segment(next, |_| false)?;
            let header = self.open.as_ref().map(|open| &open.header);
            let what = header.and_then(|header| is_not_behind(header, before.header.log, &before.last_time));
            return match what {
                Some(what) => Err(Damage::of_header(next, &what).into()),
                None => Ok(true),
            };
        }
        let segment = before.header.first;
        self.open = Some(before);
        let what = match segments.iter().find(|first| **first > next) {
            Some(later) => format!("the segment with events {next} to {} is missing", later - 1),
            None => format!("event {next} was acknowledged, and the file ends before it"),
        };
        Err(Damage { seq: Some(next), ..Damage::of_segment(segment, &what) }.into())
    }

    /// Opens a segment near the first line that is not before what is wanted.
    fn open_segment(&mut self, first: Seq, is_before: impl Fn(&[u8]) -> bool) -> Result<(), ReadError> {
        let path = self.directory.join(segment_name(first));
        let disk = |source| ReadError::disk(&path, source);
        let file = ReadFile::open(&path).map_err(disk)?;
        let header = parse_header(first, &first_line(&file).map_err(disk)?)?;
        let offset = find_line(&file, is_before).map_err(disk)?;
        let last_time = header.at.to_rfc3339();
        self.open = Some(OpenSegment { header, file, offset, last_time });
        self.buffer.clear();
        Ok(())
    }

    /// The segment that holds the first event at `at` or after, or ends before it.
    fn segment_at(&self, at: Timestamp) -> Result<Seq, ReadError> {
        let segments = segments(&self.directory)?;
        let mut found = segments.first().copied().unwrap_or(1);
        // A segment in which nothing is acknowledged may be one that was cut off while it was made.
        let may_be_read = |first: &Seq| *first <= self.through;
        for segment in segments.into_iter().skip(1).take_while(may_be_read) {
            if read_header(&self.directory, segment)?.at >= at {
                break;
            }
            found = segment;
        }
        Ok(found)
    }

    /// Asks how far may be read now.
    fn refresh(&mut self) -> Result<(), ReadError> {
        let End::Head(head) = &mut self.end else { return Ok(()) };
        let path = self.directory.join(HEAD);
        if head.is_none() {
            match ReadFile::open(&path) {
                Ok(file) => *head = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.through = self.last_committed()?;
                    return Ok(());
                }
                Err(source) => return Err(ReadError::disk(&path, source)),
            }
        }
        let bytes = head.as_ref().map(ReadFile::read).transpose();
        let bytes = bytes.map_err(|source| ReadError::disk(&path, source))?.unwrap_or_default();
        match Head::parse(&bytes) {
            Some(file) => {
                self.through = self.through.max(file.head.seq);
                self.is_head_known = true;
            }
            // What was whole before is being written: nothing beyond what was known is read.
            None if self.is_head_known => {}
            None => {
                return Err(Damage::of_file(HEAD, &NO_SLOT_WHOLE).into());
            }
        }
        Ok(())
    }

    /// In a copy without HEAD: the last event that a commit covers.
    fn last_committed(&mut self) -> Result<Seq, ReadError> {
        let newest = match self.only {
            Some(only) => Some(only),
            None => segments(&self.directory)?.last().copied(),
        };
        let Some(newest) = newest else { return Ok(self.through) };
        let path = self.directory.join(segment_name(newest));
        let disk = |source| ReadError::disk(&path, source);
        let file = ReadFile::open(&path).map_err(disk)?;
        let judged = Some((newest, file.length().map_err(disk)?));
        if self.judged == judged {
            return Ok(self.through);
        }
        let bytes = file.read().map_err(disk)?;
        if is_cut_off(&bytes, newest, None) {
            return Ok(self.through);
        }
        let walk = walk(&bytes).map_err(|error| header_error::<ReadError>(newest, &error))?;
        self.judged = judged;
        Ok(walk.good.seq)
    }

    /// Damage in the line that was cut last.
    fn damage(&self, what: &str) -> ReadError {
        self.damage_behind(0, what)
    }

    /// Damage so many lines behind the one that was cut last.
    fn damage_behind(&self, lines: u64, what: &str) -> ReadError {
        let (first, line) = self.place();
        let seq = Some(self.next_seq);
        Damage { line: Some(line + lines), seq, ..Damage::of_segment(first, &what) }.into()
    }

    /// The segment that is read, and the line of it that was cut last. Counted only when it is asked for.
    fn place(&self) -> (Seq, u64) {
        // Whatever was read was read of a segment that is open.
        let Some(open) = &self.open else { return (self.next_seq, 1) };
        let mut left = open.offset - self.buffer.rest().len() as u64;
        let (mut offset, mut lines) = (0, 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        while left > 0 {
            let wanted = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            // Where it cannot be read, the damage is still to be told.
            let count = open.file.read_at(offset, &mut chunk[..wanted]).unwrap_or(0);
            lines += memchr_iter(b'\n', &chunk[..count]).count() as u64;
            offset += count as u64;
            left = if count < wanted { 0 } else { left - count as u64 };
        }
        (open.header.first, lines)
    }
}
