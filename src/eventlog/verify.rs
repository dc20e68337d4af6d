//! Verifying: every byte of a log checked, framing, order and tree, beside a running server too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use memchr::memchr;
use uuid::Uuid;

use super::closed::NO_COMMIT_AT_END;
use super::damage::{Damage, HOW_TO_MEND, Newer, header_error};
use super::format::{Head, HeadFile, NO_SLOT_WHOLE, SegmentLine, segment_first, segment_name};
use super::judge::{Good, Tail, UnknownKind, Walk, is_cut_off, judge_tail, walk};
use super::opening::HEAD;
use super::segment_files::{ReadError, check_names, no_segment, segments};
use super::storage::{Place, ReadFile};
use super::tree::{Hash, Tree};
use crate::chat::{DecodeError, Seq};

/// Segments that are read at once at most: each of them is in memory whole.
const READ_AT_ONCE_MAX: usize = 4;

/// What an intact log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many events were checked.
    pub events: u64,
    /// The last of them.
    pub seq: Seq,
    /// The root of the tree over all events up to it.
    pub root: Hash,
    /// Messages whose erasure was ordered and not carried out yet: the next opening does.
    pub erasures_left: u64,
    /// Erased lines of which it is not known whether anybody ordered that: of one segment alone, whose orders may stand in
    /// another.
    pub erased_unproven: u64,
    /// Bytes of a batch behind it that was never acknowledged, or is being written now.
    pub unfinished_bytes: u64,
    /// Segments that were cut off while they were made, by their first events: the next opening removes them.
    pub cut_off: Vec<Seq>,
    /// Whether one of the two slots of HEAD is not whole: torn by a power cut, damaged, or being written now.
    pub is_head_half_broken: bool,
}

impl Default for Verified {
    /// An empty log.
    fn default() -> Self {
        Self {
            events: 0,
            seq: 0,
            root: Tree::default().root(),
            erasures_left: 0,
            erased_unproven: 0,
            unfinished_bytes: 0,
            cut_off: Vec::new(),
            is_head_half_broken: false,
        }
    }
}

/// Why a log is not intact, or could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not what was written.
    #[error("not intact: {0}; {HOW_TO_MEND}")]
    Damage(#[from] Damage),
    /// Acknowledged events are gone.
    #[error("not intact: events {from} to {to} were acknowledged and are not there; {HOW_TO_MEND}")]
    Lost {
        /// The first that is missing.
        from: Seq,
        /// The last that was acknowledged.
        to: Seq,
    },
    /// A later program wrote it.
    #[error(transparent)]
    Newer(#[from] Newer),
}

/// Checks a log: a data directory, an events directory or one segment's file. Segments are read side by side, as many
/// as the machine has cores, and judged in their order.
///
/// # Errors
/// The first place that is wrong.
pub fn verify(path: &Path) -> Result<Verified, VerifyError> {
    match place(path)? {
        Place::Segment(file) => {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let first = segment_first(&name).ok_or_else(|| no_log(path, "its name is that of no segment"))?;
            let chain = verify_segments(&file.parent().map(Path::to_owned).unwrap_or_default(), &[first], None)?;
            let erased_unproven = chain.unnamed().count() as u64;
            Ok(Verified { erased_unproven, ..chain.verified() })
        }
        Place::Events(directory) => {
            // HEAD first: what it speaks of is in the segments that are read afterwards.
            let head_file = read_head(&directory)?;
            let head = head_file.map(|file| file.head);
            let mut segments = segments(&directory)?;
            let first = *segments.first().ok_or_else(|| no_segment(&directory, path))?;
            check_names(&directory)?;
            if first > 1 {
                return Err(damage(first, &format!("the segments with events 1 to {} are missing", first - 1)));
            }
            let cut_off = take_cut_off(&directory, &mut segments, head)?;
            let chain = verify_segments(&directory, &segments, head)?;
            let erasures_left = chain.check_erasures(&directory)?;
            let verified = chain.verified();
            if head.is_none() && verified.seq > 0 {
                let what = "it is missing, so that nobody can say what was acknowledged";
                return Err(Damage::of_file(HEAD, &what).into());
            }
            let is_head_half_broken = head_file.is_some_and(|file| file.is_half_broken);
            Ok(Verified { erasures_left, cut_off, is_head_half_broken, ..verified })
        }
    }
}

/// Checks the newest segment of a log alone, by the tree that its first line says was before it.
///
/// # Errors
/// The first place that is wrong there.
pub(super) fn verify_newest(path: &Path) -> Result<Verified, VerifyError> {
    match place(path)? {
        Place::Segment(_) => verify(path),
        Place::Events(directory) => {
            let head = read_head(&directory)?.map(|file| file.head);
            let mut segments = segments(&directory)?;
            if segments.is_empty() {
                return Err(no_segment(&directory, path).into());
            }
            let cut_off = take_cut_off(&directory, &mut segments, head)?;
            let newest = segments.last().map(std::slice::from_ref).unwrap_or_default();
            Ok(Verified { cut_off, ..verify_segments(&directory, newest, head)?.verified() })
        }
    }
}

/// Takes away the newest segments as far as they were cut off while they were made, as an opening does, and gives them.
fn take_cut_off(directory: &Path, segments: &mut Vec<Seq>, head: Option<Head>) -> Result<Vec<Seq>, ReadError> {
    let mut cut_off = Vec::new();
    while let Some(first) = segments.last().copied().filter(|first| head.is_none_or(|head| head.seq < *first)) {
        let path = directory.join(segment_name(first));
        let bytes = ReadFile::open(&path).and_then(|file| file.read());
        if !is_cut_off(&bytes.map_err(|source| ReadError::disk(&path, source))?, first, head) {
            break;
        }
        cut_off.extend(segments.pop());
    }
    Ok(cut_off)
}

fn verify_segments(directory: &Path, segments: &[Seq], head: Option<Head>) -> Result<Chain, VerifyError> {
    let newest = segments.last().copied();
    let read = |first: Seq| ReadSegment::of(directory, first, Some(first) == newest, head);
    let mut chain = Chain::default();
    side_by_side(segments, read, |segment| chain.push(segment?))?;
    Ok(chain)
}

/// Does `work` on all items, as many at once as the machine has cores, and gives what comes of it to `take` in the order
/// of the items, up to its first error. Few results wait at a time, however many items there are.
fn side_by_side<T: Copy + Send + Sync, R: Send, E>(
    items: &[T],
    work: impl Fn(T) -> R + Sync,
    take: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(READ_AT_ONCE_MAX).min(items.len());
    let work = &work;
    thread::scope(|scope| {
        // Each thread has every item whose place leaves its number.
        let results: Vec<_> = (0..threads)
            .map(|thread| {
                let (done, results) = mpsc::sync_channel(1);
                scope.spawn(move || {
                    // An error ends the taking, and with it the work.
                    let _ = items.iter().skip(thread).step_by(threads).try_for_each(|item| done.send(work(*item)));
                });
                results
            })
            .collect();
        let mut in_order = (0..items.len()).map_while(|place| results.get(place % threads)?.recv().ok());
        in_order.try_for_each(take)
    })
}

/// What was read of one segment, before it is known what stands before it.
struct ReadSegment {
    first: Seq,
    header: SegmentLine,
    /// What it is, with what was read of it, if all in it is right.
    own: Result<(Verified, Walk), VerifyError>,
}

impl ReadSegment {
    fn of(directory: &Path, first: Seq, is_newest: bool, head: Option<Head>) -> Result<Self, VerifyError> {
        let path = directory.join(segment_name(first));
        let bytes = ReadFile::open(&path).and_then(|file| file.read());
        let bytes = bytes.map_err(|source| ReadError::disk(&path, source))?;
        let walk = walk(&bytes).map_err(|error| header_error::<VerifyError>(first, &error))?;
        let header = walk.header.clone();
        Ok(Self { first, header, own: check(first, &bytes, walk, is_newest, head) })
    }
}

/// Checks what follows the good part of a segment, and that the newest one holds what HEAD has acknowledged.
fn check(
    first: Seq,
    bytes: &[u8],
    walk: Walk,
    is_newest: bool,
    head: Option<Head>,
) -> Result<(Verified, Walk), VerifyError> {
    if let Tail::Damage(broken) = judge_tail(bytes, &walk) {
        return Err(Damage::at(first, &broken).into());
    }
    if !is_newest && bytes.len() as u64 > walk.good.end {
        let at_end = || Damage::of_segment(first, &NO_COMMIT_AT_END);
        return Err(walk.broken.map_or_else(at_end, |broken| Damage::at(first, &broken)).into());
    }
    if let Some(head) = head.filter(|head| is_newest && walk.good.seq < head.seq) {
        return Err(match walk.broken {
            Some(broken) => Damage::at(first, &broken).into(),
            None => VerifyError::Lost { from: walk.good.seq + 1, to: head.seq },
        });
    }
    let walk = match head.filter(|head| is_newest && walk.good.seq > head.seq) {
        Some(head) => acknowledged(bytes, &walk, head).unwrap_or(walk),
        None => walk,
    };
    if let Some(UnknownKind { line, kind, .. }) = walk.unknown.as_ref().filter(|unknown| unknown.seq <= walk.good.seq) {
        return Err(Newer::at(first, *line, &DecodeError::UnknownType(kind.clone())).into());
    }
    let verified = Verified {
        // The first line may name another event than the file does, which is found when the segments are put together.
        events: walk.good.seq + 1 - walk.header.first,
        seq: walk.good.seq,
        root: walk.good.tree.root(),
        unfinished_bytes: bytes.len() as u64 - walk.good.end,
        ..Verified::default()
    };
    Ok((verified, walk))
}

/// Segments, each of which must go on where the one before ends.
#[derive(Default)]
struct Chain {
    log: Option<Uuid>,
    /// The end of the segment before.
    before: Option<Good>,
    events: u64,
    last: Option<Verified>,
    /// Lines that are erased, by their events: the segment and the line in its file.
    erased: BTreeMap<Seq, (Seq, u64)>,
    /// The events that erasures name.
    named: BTreeSet<Seq>,
}

impl Chain {
    fn push(&mut self, segment: ReadSegment) -> Result<(), VerifyError> {
        let ReadSegment { first, header, own } = segment;
        if header.first != first {
            return Err(damage(first, &format!("its first line names event {} as its first", header.first)));
        }
        if self.log.replace(header.log).is_some_and(|log| log != header.log) {
            return Err(damage(first, "it belongs to another log"));
        }
        match &self.before {
            Some(before) if before.seq + 1 < first => {
                let what = format!("the segment with events {} to {} is missing", before.seq + 1, first - 1);
                return Err(damage(first, &what));
            }
            Some(before) if before.seq + 1 != first => {
                return Err(damage(first, &format!("the segment before ends with event {}", before.seq)));
            }
            Some(before) if before.tree != header.tree => {
                return Err(damage(first, "its tree is not the one that the segment before ends with"));
            }
            Some(before) if before.at > header.at => {
                return Err(damage(first, "its time is before that of the last event before it"));
            }
            _ => {}
        }
        let (verified, walk) = own?;
        self.events += verified.events;
        self.last = Some(verified);
        self.erased.extend(walk.erasures.erased.iter().map(|(seq, line)| (*seq, (first, *line))));
        self.named.extend(walk.erasures.named);
        self.before = Some(walk.good);
        Ok(())
    }

    /// The erased lines that no erasure names, by their events.
    fn unnamed(&self) -> impl Iterator<Item = (&Seq, &(Seq, u64))> {
        self.erased.iter().filter(|(seq, _)| !self.named.contains(seq))
    }

    /// Checks that whatever is erased was ordered to be, and that it is in a closed segment. Gives how many orders are not
    /// carried out.
    fn check_erasures(&self, directory: &Path) -> Result<u64, VerifyError> {
        let erased = |seq: &Seq, (first, line): &(Seq, u64), what: &str| {
            let place = Damage { line: Some(*line), seq: Some(*seq), ..Damage::of_segment(*first, &what) };
            Err(place.into())
        };
        if let Some((seq, place)) = self.unnamed().next() {
            return erased(seq, place, "the line is erased, and no erasure names it");
        }
        // A segment may have been closed and erased in since its directory was read.
        if let Some((seq, place)) = self.erased.last_key_value()
            && segments(directory)?.last() == Some(&place.0)
        {
            return erased(seq, place, "the line is erased, in a segment that is still being written");
        }
        Ok(self.named.iter().filter(|seq| !self.erased.contains_key(seq)).count() as u64)
    }

    /// What they are together; none are an empty log.
    fn verified(self) -> Verified {
        Verified { events: self.events, ..self.last.unwrap_or_default() }
    }
}

fn place(path: &Path) -> Result<Place, ReadError> {
    Place::find(path).map_err(|error| no_log(path, &error.to_string()))
}

fn no_log(path: &Path, why: &str) -> ReadError {
    ReadError::NoLog { path: path.to_owned(), why: why.to_owned() }
}

fn damage(first: Seq, what: &str) -> VerifyError {
    Damage::of_header(first, &what).into()
}

/// What HEAD has acknowledged of a segment that holds more: the rest may yet be lost, and nobody should rely on it.
fn acknowledged(bytes: &[u8], whole: &Walk, head: Head) -> Option<Walk> {
    let end = match whole.commits.iter().find(|(seq, _)| *seq == head.seq) {
        Some((_, end)) => usize::try_from(*end).ok()?,
        // The segment was begun, and nothing in it is acknowledged yet.
        None if head.seq < whole.header.first => memchr(b'\n', bytes)? + 1,
        None => return None,
    };
    walk(bytes.get(..end)?).ok()
}

fn read_head(directory: &Path) -> Result<Option<HeadFile>, VerifyError> {
    let path = directory.join(HEAD);
    match ReadFile::open(&path).and_then(|file| file.read()) {
        Ok(bytes) => match Head::parse(&bytes) {
            Some(file) => Ok(Some(file)),
            None => Err(Damage::of_file(HEAD, &NO_SLOT_WHOLE).into()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReadError::disk(&path, source).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_side_by_side_is_taken_in_order_up_to_the_first_error() {
        let items: Vec<u32> = (0..50).collect();
        let mut taken = Vec::new();
        let all = side_by_side(
            &items,
            |item| item * 2,
            |done| {
                taken.push(done);
                Ok::<_, ()>(())
            },
        );
        assert_eq!((all, taken), (Ok(()), (0..50).map(|item| item * 2).collect()));
        let mut taken = Vec::new();
        let stopped = side_by_side(
            &items,
            |item| item,
            |done| {
                taken.push(done);
                if done == 7 { Err(done) } else { Ok(()) }
            },
        );
        assert_eq!((stopped, taken), (Err(7), (0..=7).collect()));
        assert_eq!(side_by_side(&[], |item: u32| item, Err), Ok(()));
    }
}
