//! Opening a log: judge what a crash may have left, by the table of `docs/eventlog.md`, and read every event once.

use std::io;

use uuid::Uuid;

use super::append::Log;
use super::format::{CommitLine, Head, HeadFile, LineError, SegmentLine, event_start, segment_first, segment_name};
use super::judge::{Broken, Good, Tail, Walk, judge_tail, walk};
use super::storage::{LOCK, Storage, StorageFile};
use crate::chat::{DecodeError, Event, Record, Seq};
use crate::clock::Timestamp;

/// The file that says how far the log has been acknowledged.
pub const HEAD: &str = "HEAD";
/// The file that is being made ready to become the next segment.
pub const NEXT: &str = "next.tmp";

/// Why a log is not opened. Nothing of it was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("the log's file {file} cannot be used: {source}")]
    Disk {
        /// Which file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("the log is damaged: {0}")]
    Damage(Damage),
    /// Acknowledged events are gone.
    #[error(
        "the log has lost acknowledged events {from} to {to} ({count} of them){place}; restore them from a copy, or \
         keep what is left by hand",
        count = to - from + 1,
        place = .broken.as_ref().map(|damage| format!(": {damage}")).unwrap_or_default()
    )]
    Lost {
        /// The first event that is missing.
        from: Seq,
        /// The last that was acknowledged.
        to: Seq,
        /// Where the log breaks off, if it does so in the middle of a file.
        broken: Option<Damage>,
    },
    /// A later program wrote it.
    #[error("the log is a newer program's: {file}, line {line}: {what}")]
    Newer {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: u64,
        /// What this program does not know.
        what: String,
    },
    /// The directory holds something that is no part of a log.
    #[error("the log's directory holds {0:?}, which is no file of a log; move it elsewhere")]
    Foreign(String),
}

/// Where a log is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}, event {seq}: {what}")]
pub struct Damage {
    /// Which file.
    pub file: String,
    /// Which line, from 1.
    pub line: u64,
    /// The first event that may be concerned.
    pub seq: Seq,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    /// Damage at a place in a segment.
    pub fn at(first: Seq, broken: Broken) -> Self {
        Self { file: segment_name(first), line: broken.line, seq: broken.seq, what: broken.what }
    }

    /// Damage of a segment's first line.
    pub fn of_header(first: Seq, what: &impl ToString) -> Self {
        Self { file: segment_name(first), line: 1, seq: first, what: what.to_string() }
    }
}

/// An event as it was read at opening.
#[derive(Debug)]
pub struct Replayed<'a> {
    /// The event.
    pub record: &'a Record,
    /// The first event of the segment it is in.
    pub segment: Seq,
    /// Where its line begins in the file, in bytes.
    pub offset: u64,
    /// The length of its line with the line feed, in bytes.
    pub length: u32,
}

/// What an opened log gives.
#[derive(Debug)]
pub struct Opened<S: Storage> {
    /// The log, ready to be appended to.
    pub log: Log<S>,
    /// What the operator should know.
    pub notices: Vec<String>,
}

/// Opens the log, or makes one under the number `new_log` at `now`, and gives each event to `each` in order.
///
/// # Errors
/// What stands against going on. The log is left as it was found.
pub fn open<S: Storage>(
    storage: S,
    new_log: Uuid,
    now: Timestamp,
    mut each: impl FnMut(Replayed<'_>),
) -> Result<Opened<S>, OpenError> {
    let mut notices = Vec::new();
    let mut segments = segments(&storage)?;
    let head_file = read_head(&storage)?;
    let head = head_file.map(|file| file.head);
    if head_file.is_some_and(|file| file.is_half_broken) {
        notices.push("one of the two slots of HEAD was torn; the other is whole".to_owned());
    }
    let newest = loop {
        let Some(first) = segments.last().copied() else {
            return make(storage, head, new_log, now).map(|log| Opened { log, notices });
        };
        match read_newest(&storage, first, head)? {
            Some(newest) => break newest,
            None => {
                storage.remove(&segment_name(first)).and_then(|()| storage.sync_names()).map_err(disk(first))?;
                notices.push(format!("{} was cut off while it was made, and removed", segment_name(first)));
                segments.pop();
            }
        }
    };
    let Newest { first, file, bytes, walk } = newest;
    segments.pop();

    check_head(first, &walk, head)?;
    let tail = judge_tail(&bytes, &walk);
    if let Tail::Damage(broken) = tail {
        return Err(OpenError::Damage(Damage::at(first, broken)));
    }

    let mut end_of_last = None;
    for segment in segments {
        end_of_last = Some(read_closed(&storage, segment, walk.header.log, end_of_last.as_ref(), &mut each)?);
    }
    check_link(first, &walk.header, walk.header.log, end_of_last.as_ref())?;
    let good_end = usize::try_from(walk.good.end).unwrap_or(usize::MAX);
    replay(first, &bytes[..good_end.min(bytes.len())], &mut each)?;

    if tail == Tail::Torn {
        let rest = &bytes[good_end..];
        let name = format!("{first:020}-{}-{}", walk.good.end, now.as_ms());
        let kept = storage.keep_torn(&name, rest).map_err(disk(first))?;
        file.cut(walk.good.end).and_then(|()| file.sync()).map_err(disk(first))?;
        notices
            .push(format!("a batch that was never acknowledged ({} bytes) was cut off and kept in {kept}", rest.len()));
    }
    let at = walk.good.at;
    if now.ms_since(at) > DAY_MS && walk.good.seq > 0 {
        let days = now.ms_since(at) / DAY_MS;
        notices.push(format!("the clock is {days} days ahead of the log's last event: is it right?"));
    }
    let mut log = Log::resume(storage, file, first, walk.header.log, walk.good, head_file);
    log.acknowledge().map_err(|source| OpenError::Disk { file: HEAD.to_owned(), source })?;
    Ok(Opened { log, notices })
}

const DAY_MS: u64 = 86_400_000;

struct Newest<F> {
    first: Seq,
    file: F,
    bytes: Vec<u8>,
    walk: Walk,
}

/// The segments by their first events, rising.
fn segments<S: Storage>(storage: &S) -> Result<Vec<Seq>, OpenError> {
    let mut segments = Vec::new();
    for name in storage.list().map_err(|source| OpenError::Disk { file: "directory".to_owned(), source })? {
        match segment_first(&name) {
            Some(first) => segments.push(first),
            None if [HEAD, NEXT, LOCK].contains(&name.as_str()) => {}
            None => return Err(OpenError::Foreign(name)),
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

fn read_head<S: Storage>(storage: &S) -> Result<Option<HeadFile>, OpenError> {
    match storage.open(HEAD).and_then(|file| file.read()) {
        Ok(bytes) => Ok(Head::parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Disk { file: HEAD.to_owned(), source }),
    }
}

/// Reads the newest segment from the disk itself; `None` if it was cut off while it was made.
fn read_newest<S: Storage>(storage: &S, first: Seq, head: Option<Head>) -> Result<Option<Newest<S::File>>, OpenError> {
    let file = storage.open(&segment_name(first)).map_err(disk(first))?;
    // After a failed write the system's memory may hold what the disk does not.
    file.sync().map_err(disk(first))?;
    file.forget_cached();
    let bytes = file.read().map_err(disk(first))?;
    match walk(&bytes) {
        Ok(walk) if walk.header.first == first => Ok(Some(Newest { first, file, bytes, walk })),
        Ok(walk) => {
            let what = format!("its first line names event {} as its first", walk.header.first);
            Err(OpenError::Damage(Damage::of_header(first, &what)))
        }
        Err(LineError::Newer(format)) => {
            Err(OpenError::Newer { file: segment_name(first), line: 1, what: LineError::Newer(format).to_string() })
        }
        Err(error) => {
            let has_commit = bytes.split(|byte| *byte == b'\n').any(|line| CommitLine::parse(line).is_some());
            if has_commit || head.map_or(0, |head| head.seq) >= first {
                return Err(OpenError::Damage(Damage::of_header(first, &error)));
            }
            Ok(None)
        }
    }
}

/// Compares the newest segment with what has been acknowledged.
fn check_head(first: Seq, walk: &Walk, head: Option<Head>) -> Result<(), OpenError> {
    let Some(head) = head else {
        if walk.good.seq == 0 {
            return Ok(());
        }
        let what = "it is missing or both its slots are broken, so that nobody can say what was acknowledged";
        return Err(OpenError::Damage(Damage {
            file: HEAD.to_owned(),
            line: 1,
            seq: walk.good.seq,
            what: what.into(),
        }));
    };
    if walk.good.seq < head.seq {
        let broken = walk.broken.clone().map(|broken| Damage::at(first, broken));
        return Err(OpenError::Lost { from: walk.good.seq + 1, to: head.seq, broken });
    }
    if head.seq >= first && !walk.commits.contains(&(head.seq, head.end)) {
        let what =
            format!("it names a commit up to event {} that ends at byte {}, and there is none", head.seq, head.end);
        return Err(OpenError::Damage(Damage { file: HEAD.to_owned(), line: 1, seq: head.seq, what }));
    }
    Ok(())
}

/// Reads a closed segment to its last commit: only its links are checked here; its bytes are `replay --verify`'s.
fn read_closed<S: Storage>(
    storage: &S,
    first: Seq,
    log: Uuid,
    before: Option<&CommitLine>,
    each: &mut impl FnMut(Replayed<'_>),
) -> Result<CommitLine, OpenError> {
    let bytes = storage.open(&segment_name(first)).and_then(|file| file.read()).map_err(disk(first))?;
    let header = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header = SegmentLine::parse(header).map_err(|error| match error {
        LineError::Newer(_) => OpenError::Newer { file: segment_name(first), line: 1, what: error.to_string() },
        LineError::Broken(what) => OpenError::Damage(Damage::of_header(first, &what)),
    })?;
    if header.first != first {
        let what = format!("its first line names event {} as its first", header.first);
        return Err(OpenError::Damage(Damage::of_header(first, &what)));
    }
    check_link(first, &header, log, before)?;
    replay(first, &bytes, each)?;
    let last_line = bytes.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|byte| *byte == b'\n').next());
    last_line.and_then(CommitLine::parse).ok_or_else(|| {
        let line = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let what = "the segment does not end with a commit".to_owned();
        OpenError::Damage(Damage { file: segment_name(first), line, seq: first, what })
    })
}

/// Checks that a segment goes on where the one before it ended.
fn check_link(first: Seq, header: &SegmentLine, log: Uuid, before: Option<&CommitLine>) -> Result<(), OpenError> {
    let damage = |what: String| Err(OpenError::Damage(Damage::of_header(first, &what)));
    if header.log != log {
        return damage(format!("it belongs to log {}, and the newest segment to log {log}", header.log));
    }
    match before {
        None if first != 1 => damage(format!("the log begins with event {first}: the segments before are missing")),
        Some(commit) if commit.seq + 1 != first => {
            damage(format!("the segment before ends with event {}: one is missing between", commit.seq))
        }
        Some(commit) if commit.root != header.tree.root() => {
            damage("its root is not the one that the segment before ends with".into())
        }
        _ => Ok(()),
    }
}

/// Gives the events of a segment to `each`.
fn replay(first: Seq, bytes: &[u8], each: &mut impl FnMut(Replayed<'_>)) -> Result<(), OpenError> {
    let mut offset = 0;
    let mut expected = first;
    for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if event_start(text).is_some() {
            let damage = |what: String| {
                OpenError::Damage(Damage { file: segment_name(first), line: number, seq: expected, what })
            };
            let record = Event::decode(text).map_err(|error| match error {
                DecodeError::UnknownType(_) => {
                    OpenError::Newer { file: segment_name(first), line: number, what: error.to_string() }
                }
                other => damage(other.to_string()),
            })?;
            if record.seq != expected {
                return Err(damage(format!("event {} stands where event {expected} should", record.seq)));
            }
            let length = u32::try_from(line.len()).map_err(|_| damage("the line is too long".into()))?;
            each(Replayed { record: &record, segment: first, offset, length });
            expected += 1;
        }
        offset += line.len() as u64;
    }
    Ok(())
}

/// Makes a log. HEAD comes first: a log with commits and without HEAD is a damaged one.
fn make<S: Storage>(storage: S, head: Option<Head>, log: Uuid, now: Timestamp) -> Result<Log<S>, OpenError> {
    if let Some(head) = head.filter(|head| head.seq > 0) {
        return Err(OpenError::Lost { from: 1, to: head.seq, broken: None });
    }
    let head_error = |source| OpenError::Disk { file: HEAD.to_owned(), source };
    let head_file = storage.create(HEAD).map_err(head_error)?;
    let slots = [Head::default().to_slot(); 2].concat();
    head_file.write_at(0, &slots).and_then(|()| head_file.sync()).map_err(head_error)?;
    storage.sync_names().map_err(head_error)?;
    let header = SegmentLine { log, first: 1, at: now, tree: super::tree::Tree::default() };
    let mut line = Vec::new();
    header.encode(&mut line);
    let file = super::append::begin_segment(&storage, None, 1, &line).map_err(disk(1))?;
    let good = Good { seq: 0, at: now, end: line.len() as u64, tree: header.tree };
    Ok(Log::resume(storage, file, 1, log, good, None))
}

fn disk(first: Seq) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Disk { file: segment_name(first), source }
}
