//! Opening a log: judge what a crash may have left, by the table of `docs/eventlog.md`, and read every event once.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use uuid::Uuid;

use super::append::Log;
use super::closed::{ClosedSegment, Replay, check_link, parse_header, read_header, read_links, whole_lines};
use super::damage::{Damage, Foreign, HOW_TO_MEND, Newer, header_error};
use super::erasure::{REWRITTEN, carry_out, remove_unfinished};
use super::format::{CommitLine, Head, HeadFile, SegmentLine, segment_first, segment_name};
use super::judge::{Good, TELL_EVERY_BYTES, Tail, Walk, is_cut_off, judge_tail, walk_telling};
use super::replayed::Replayed;
use super::storage::{EVENTS, INDEX, LOCK, NoFile, SNAPSHOTS, Storage, StorageFile, TORN};
use super::tree;
use crate::chat::Seq;
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
    #[error("the log is damaged: {0}; {HOW_TO_MEND}")]
    Damage(#[from] Damage),
    /// Acknowledged events are gone.
    #[error(
        "acknowledged events are changed or lost, from {from} to {to} ({count} of them){place}; restore them from a copy, or \
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
    #[error(transparent)]
    Newer(#[from] Newer),
    /// The directory holds something that is no part of a log.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// Something else stands in the place of a directory of what is made from the log.
    #[error("{directory} cannot be used: {what}; move it elsewhere, and what belongs there is made again")]
    NoDirectory {
        /// In which place.
        directory: &'static str,
        /// What stands there, for people.
        what: String,
    },
}

impl OpenError {
    /// A file that cannot be used: where something else stands in its place, that is damage.
    pub(crate) fn disk(file: impl Into<String>, source: io::Error) -> Self {
        match NoFile::of(&source) {
            Some(what) => Damage::of_file(file, &what).into(),
            None => Self::Disk { file: file.into(), source },
        }
    }

    /// A directory beside the log that cannot be used, of what is made from it and may be moved away.
    pub(crate) fn derived(directory: &'static str, source: io::Error) -> Self {
        match NoFile::of(&source) {
            Some(what) => Self::NoDirectory { directory, what: what.to_string() },
            None => Self::Disk { file: directory.into(), source },
        }
    }
}

/// What an opened log gives.
#[derive(Debug)]
pub struct Opened<S: Storage> {
    /// The log, ready to be appended to.
    pub log: Log<S>,
    /// What the operator should know.
    pub notices: Vec<String>,
    /// The messages that were erased now, by an order from before.
    pub erased: Vec<Seq>,
}

/// Who goes through the events at opening.
pub trait Visitor {
    /// An event, in order.
    fn event(&mut self, replayed: Replayed<'_>);

    /// All events of a closed segment have been given.
    fn closed(&mut self, _segment: &ClosedSegment) {}

    /// What comes now is in the newest segment.
    fn newest(&mut self) {}

    /// So many bytes of all that are to be read have been.
    fn progress(&mut self, _done_bytes: u64, _total_bytes: u64) {}
}

/// A visitor of events alone.
struct Each<F>(F);

impl<F: FnMut(Replayed<'_>)> Visitor for Each<F> {
    fn event(&mut self, replayed: Replayed<'_>) {
        (self.0)(replayed);
    }
}

/// Opens the log, or makes one under the number `new_log` at `now`, and gives each event to `each` in order.
///
/// # Errors
/// What stands against going on. The log is left as it was found.
pub fn open<S: Storage>(
    storage: S,
    new_log: Uuid,
    now: Timestamp,
    each: impl FnMut(Replayed<'_>),
) -> Result<Opened<S>, OpenError> {
    open_after(storage, new_log, now, 0, &mut Each(each))
}

/// Opens the log as [`open`] does, and gives `visitor` the events after `after`, the end of a closed segment. Of the
/// segments up to there only the links are read.
///
/// # Errors
/// What stands against going on. The log is left as it was found.
pub fn open_after<S: Storage>(
    storage: S,
    new_log: Uuid,
    now: Timestamp,
    after: Seq,
    visitor: &mut impl Visitor,
) -> Result<Opened<S>, OpenError> {
    // Now, and not while the first batch waits.
    tree::look_at_processor();
    inspect(storage, after, visitor)?.recover(new_log, now)
}

/// A log that was found good, and of which nothing is changed yet.
#[derive(Debug)]
pub struct Found<S: Storage> {
    pub(super) storage: S,
    head_file: Option<HeadFile>,
    /// Segments that were cut off while they were made.
    cut_off: Vec<Seq>,
    /// The segment to go on with; `None` if there is no log yet.
    newest: Option<Newest<S::File>>,
}

/// Judges the log and changes nothing. `visitor` is given the events after `after`, as for [`open_after`].
///
/// # Errors
/// What stands against going on.
pub fn inspect<S: Storage>(storage: S, after: Seq, visitor: &mut impl Visitor) -> Result<Found<S>, OpenError> {
    // A server that was killed may have left names that the disk does not have yet, and what follows stands on them.
    storage.sync_names().map_err(directory)?;
    let mut segments = segments(&storage)?;
    for name in [NEXT, REWRITTEN] {
        match storage.open(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(OpenError::disk(name, error)),
            _ => {}
        }
    }
    let head_file = read_head(&storage)?;
    let head = head_file.map(|file| file.head);
    let mut cut_off = Vec::new();
    let begun = loop {
        let Some(first) = segments.last().copied() else {
            check_nothing_was_there(&storage, head)?;
            return Ok(Found { storage, head_file, cut_off, newest: None });
        };
        match read_newest(&storage, first, head)? {
            Some(begun) => break begun,
            None => cut_off.extend(segments.pop()),
        }
    };
    let Begun { first, file, bytes, header } = begun;
    segments.pop();

    // The newest segment is judged on a thread of its own, while what it has found good is taken in here; one of which
    // nothing is told before its end is judged first.
    let (good_ends, found_good) = mpsc::channel();
    let tell = move |end| {
        // Whoever met an error in the meantime takes nothing more in.
        let _ = good_ends.send(end);
    };
    let mut taking_in = || take_in(&storage, &segments, &header, after, &bytes, &found_good, visitor);
    let (walk, taken_in) = match bytes.len() as u64 > TELL_EVERY_BYTES {
        true => thread::scope(|scope| {
            let walking = scope.spawn(|| walk_telling(&bytes, tell));
            let taken_in = taking_in();
            (walking.join().expect("the judge does not panic"), taken_in)
        }),
        false => (walk_telling(&bytes, tell), taking_in()),
    };
    let walk = walk.map_err(|error| header_error::<OpenError>(first, &error))?;
    check_head(first, &walk, head)?;
    if let Tail::Damage(broken) = judge_tail(&bytes, &walk) {
        return Err(Damage::at(first, &broken).into());
    }
    if let Some((seq, line)) = walk.erasures.erased.first().copied() {
        let what = "the line is erased, in a segment that is still being written".to_owned();
        return Err(Damage { line: Some(line), seq: Some(seq), ..Damage::of_segment(first, &what) }.into());
    }
    taken_in?;
    let torn = bytes.get(usize::try_from(walk.good.end).unwrap_or(usize::MAX)..).unwrap_or_default().to_vec();
    Ok(Found { storage, head_file, cut_off, newest: Some(Newest { first, file, walk, torn }) })
}

impl<S: Storage> Found<S> {
    /// The last event, and the first one of the segment that it or the next one is in.
    pub(super) fn end(&self) -> (Seq, Seq) {
        self.newest.as_ref().map_or((0, 1), |newest| (newest.walk.good.seq, newest.first))
    }

    /// Puts right what a crash left, or makes the log, under the number `new_log`, where there is none.
    ///
    /// # Errors
    /// The disk failed.
    pub fn recover(self, new_log: Uuid, now: Timestamp) -> Result<Opened<S>, OpenError> {
        let Self { storage, head_file, cut_off, newest } = self;
        let mut notices = Vec::new();
        if head_file.is_some_and(|file| file.is_half_broken) {
            notices.push("one of the two slots of HEAD was torn; the other is whole".to_owned());
        }
        remove_cut_off(&storage, &cut_off, &mut notices)?;
        remove_unfinished(&storage).map_err(|source| OpenError::disk(REWRITTEN, source))?;
        let Some(Newest { first, file, walk, torn }) = newest else {
            return make(storage, new_log, now).map(|log| Opened { log, notices, erased: Vec::new() });
        };
        if !torn.is_empty() {
            let name = format!("{first:020}-{}-{}", walk.good.end, now.as_ms());
            let kept = storage.keep_torn(&name, &torn).map_err(|source| OpenError::disk(TORN, source))?;
            file.cut(walk.good.end).and_then(|()| file.sync()).map_err(disk(first))?;
            let bytes = torn.len();
            notices.push(format!("a batch that was never acknowledged ({bytes} bytes) was cut off and kept in {kept}"));
        }
        let at = walk.good.at;
        if now.ms_since(at) > DAY_MS && walk.good.seq > 0 {
            let days = now.ms_since(at) / DAY_MS;
            notices.push(format!("the clock is {days} days ahead of the log's last event: is it right?"));
        }
        let mut log = Log::resume(storage, file, first, walk.header.log, walk.good, head_file);
        log.acknowledge(head_file).map_err(head_error)?;
        // An order is carried out before anything follows it, so that only the last event can be one that was not.
        let erased = carry_out(&log.storage, &walk.erasures.newest)?;
        if !erased.is_empty() {
            let count = erased.len();
            notices.push(format!("the text of {count} messages was erased, as had been ordered before the last stop"));
        }
        Ok(Opened { log, notices, erased })
    }
}

const DAY_MS: u64 = 86_400_000;
/// How many more bytes of a closed segment are read before it is told how far the reading is.
const PROGRESS_EVERY_BYTES: u64 = 1 << 20;

/// Removes segments that were cut off while they were made.
fn remove_cut_off<S: Storage>(storage: &S, segments: &[Seq], notices: &mut Vec<String>) -> Result<(), OpenError> {
    for first in segments.iter().copied() {
        storage.remove(&segment_name(first)).and_then(|()| storage.sync_names()).map_err(disk(first))?;
        notices.push(format!("{} was cut off while it was made, and removed", segment_name(first)));
    }
    Ok(())
}

/// The newest segment that has a first line, as it was read.
struct Begun<F> {
    first: Seq,
    file: F,
    bytes: Vec<u8>,
    header: SegmentLine,
}

/// The newest segment, found good.
#[derive(Debug)]
struct Newest<F> {
    first: Seq,
    file: F,
    walk: Walk,
    /// What follows its good part, to be cut off.
    torn: Vec<u8>,
}

/// Takes in the closed segments, and the newest one as far as it is found good.
fn take_in<S: Storage>(
    storage: &S,
    closed: &[Seq],
    newest: &SegmentLine,
    after: Seq,
    bytes: &[u8],
    found_good: &Receiver<u64>,
    visitor: &mut impl Visitor,
) -> Result<(), OpenError> {
    let unread = check_links(storage, closed, newest, after)?;
    let mut total_bytes = bytes.len() as u64;
    for (_, segment) in &unread {
        let length = storage.open(&segment_name(segment.first)).and_then(|file| file.length());
        total_bytes += length.map_err(disk(segment.first))?;
    }
    let mut done_bytes = 0;
    for (header, segment) in &unread {
        let mut replay = Replay::new(header);
        let file = storage.open(&segment_name(segment.first)).map_err(disk(segment.first))?;
        let mut told = 0;
        replay.read_file(&file, header, segment, &mut |replayed: Replayed<'_>| {
            let end = replayed.offset + u64::from(replayed.length);
            visitor.event(replayed);
            if end >= told + PROGRESS_EVERY_BYTES {
                told = end;
                visitor.progress(done_bytes + end, total_bytes);
            }
        })?;
        visitor.closed(segment);
        done_bytes += replay.offset;
        visitor.progress(done_bytes, total_bytes);
    }
    let mut replay = Replay::new(newest);
    visitor.newest();
    for end in found_good {
        let from = usize::try_from(replay.offset).unwrap_or(usize::MAX);
        let good = usize::try_from(end).ok().and_then(|end| bytes.get(from..end)).unwrap_or_default();
        replay.read(&whole_lines(good), &mut |replayed: Replayed<'_>| visitor.event(replayed))?;
        visitor.progress(done_bytes + replay.offset, total_bytes);
    }
    Ok(())
}

/// Checks that each segment goes on where the one before it ends. Gives the closed ones that end behind `after`.
fn check_links<S: Storage>(
    storage: &S,
    closed: &[Seq],
    newest: &SegmentLine,
    after: Seq,
) -> Result<Vec<(SegmentLine, ClosedSegment)>, OpenError> {
    let mut unread = Vec::new();
    let mut before: Option<CommitLine> = None;
    for first in closed.iter().copied() {
        let (header, commit) = read_links(storage, first)?;
        check_link(first, &header, newest.log, before.as_ref())?;
        if commit.seq > after {
            let segment = ClosedSegment { log: header.log, first, last: commit.seq, root: commit.root };
            unread.push((header, segment));
        }
        before = Some(commit);
    }
    check_link(newest.first, newest, newest.log, before.as_ref())?;
    Ok(unread)
}

/// The number of the log as the first line of a segment says it, or of the one that would be made, `new_log`; `None` where
/// it cannot be known.
pub fn log_number<S: Storage>(storage: &S, new_log: Uuid) -> Option<Uuid> {
    let segments = segments(storage).ok()?;
    if segments.is_empty() {
        let head = read_head(storage).ok()?.map(|file| file.head);
        return check_nothing_was_there(storage, head).ok().map(|()| new_log);
    }
    segments.iter().rev().find_map(|first| read_header(storage, *first).ok()).map(|header| header.log)
}

/// The segments by their first events, rising.
pub fn segments<S: Storage>(storage: &S) -> Result<Vec<Seq>, OpenError> {
    let mut segments = Vec::new();
    let names = storage.list().map_err(directory)?;
    check_names(&names)?;
    segments.extend(names.iter().filter_map(|name| segment_first(name)));
    segments.sort_unstable();
    Ok(segments)
}

/// Refuses names of a log's directory that are those of no file of a log.
pub(super) fn check_names(names: &[String]) -> Result<(), Foreign> {
    let is_own =
        |name: &&String| segment_first(name).is_some() || [HEAD, NEXT, LOCK, REWRITTEN].contains(&name.as_str());
    names.iter().find(|name| !is_own(name)).map_or(Ok(()), |name| Err(Foreign(name.clone())))
}

fn read_head<S: Storage>(storage: &S) -> Result<Option<HeadFile>, OpenError> {
    match storage.open(HEAD).and_then(|file| file.read()) {
        Ok(bytes) => Ok(Head::parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(head_error(source)),
    }
}

/// Reads the newest segment from the disk itself; `None` if it was cut off while it was made.
fn read_newest<S: Storage>(storage: &S, first: Seq, head: Option<Head>) -> Result<Option<Begun<S::File>>, OpenError> {
    let file = storage.open(&segment_name(first)).map_err(disk(first))?;
    // After a failed write the system's memory may hold what the disk does not.
    file.sync().map_err(disk(first))?;
    file.forget_cached();
    let bytes = file.read().map_err(disk(first))?;
    if is_cut_off(&bytes, first, head) {
        return Ok(None);
    }
    let header = parse_header(first, &bytes)?;
    Ok(Some(Begun { first, file, bytes, header }))
}

/// Compares the newest segment with what has been acknowledged.
fn check_head(first: Seq, walk: &Walk, head: Option<Head>) -> Result<(), OpenError> {
    let Some(head) = head else {
        if walk.good.seq == 0 {
            return Ok(());
        }
        let what = "it is missing or both its slots are broken, so that nobody can say what was acknowledged";
        return Err(Damage::of_file(HEAD, &what).into());
    };
    if walk.good.seq < head.seq {
        let broken = walk.broken.clone().map(|broken| Damage::at(first, &broken));
        return Err(OpenError::Lost { from: walk.good.seq + 1, to: head.seq, broken });
    }
    if head.seq >= first && !walk.commits.contains(&(head.seq, head.end)) {
        let what =
            format!("it names a commit up to event {} that ends at byte {}, and there is none", head.seq, head.end);
        return Err(Damage { seq: Some(head.seq), ..Damage::of_file(HEAD, &what) }.into());
    }
    Ok(())
}

/// Makes a log. HEAD comes first: a log with commits and without HEAD is a damaged one.
fn make<S: Storage>(storage: S, log: Uuid, now: Timestamp) -> Result<Log<S>, OpenError> {
    let head_file = storage.create(HEAD).map_err(head_error)?;
    let slots = [Head::default().to_slot(); 2].concat();
    head_file.write_at(0, &slots).and_then(|()| head_file.sync()).map_err(head_error)?;
    storage.sync_names().map_err(head_error)?;
    let header = SegmentLine { log, first: 1, at: now, tree: super::tree::Tree::default() };
    let mut line = Vec::new();
    header.encode(&mut line);
    let file = super::append::begin_segment(&storage, None, 1, &line).map_err(disk(1))?;
    let good = Good { seq: 0, at: now, end: line.len() as u64, tree: header.tree };
    let mut log = Log::resume(storage, file, 1, log, good, None);
    log.acknowledge(None).map_err(head_error)?;
    Ok(log)
}

/// Refuses to begin a log where one was acknowledged, or beside what was made from another: the events of that one are
/// gone.
fn check_nothing_was_there<S: Storage>(storage: &S, head: Option<Head>) -> Result<(), OpenError> {
    if let Some(head) = head.filter(|head| head.seq > 0) {
        return Err(OpenError::Lost { from: 1, to: head.seq, broken: None });
    }
    for directory in [SNAPSHOTS, INDEX] {
        let names = match storage.beside(directory).list() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            names => names.map_err(|source| OpenError::disk(directory, source))?,
        };
        if let Some(name) = names.iter().find(|name| name.starts_with(|first: char| first.is_ascii_digit())) {
            let what = "it was made from a log of which nothing is there any more";
            return Err(Damage::of_file(format!("{directory}/{name}"), &what).into());
        }
    }
    Ok(())
}

fn directory(source: io::Error) -> OpenError {
    OpenError::disk(EVENTS, source)
}

fn head_error(source: io::Error) -> OpenError {
    OpenError::disk(HEAD, source)
}

pub(super) fn disk(first: Seq) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::disk(segment_name(first), source)
}
