//! Judging a segment by its bytes: how far it is good, and whether what follows is a torn write or damage.
//!
//! Pure: the same for opening and for verifying. It rests on one rule of the writer: at most one batch is written and
//! not yet synced.

use memchr::memchr;

use super::erasure::Line;
use super::format::{CommitLine, EventLine, Head, LineError, SECTOR_BYTES, SegmentLine, event_start, is_commit};
use super::tree::{Hash, Tree};
use crate::chat::Seq;
use crate::clock::Timestamp;

/// The end of the last commit of a segment whose root is right, or, where it has none, of its first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    /// The last event up to there.
    pub seq: Seq,
    /// Its time, or that of the segment line.
    pub at: Timestamp,
    /// The offset behind it in the file, in bytes.
    pub end: u64,
    /// The tree over all events up to there.
    pub tree: Tree,
}

/// The first place that is not as a writer leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The line, from 1.
    pub line: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// The first event that may be concerned.
    pub seq: Seq,
    /// What is wrong.
    pub what: String,
}

/// A segment read through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// Its first line.
    pub header: SegmentLine,
    /// How far it is good.
    pub good: Good,
    /// What ended the reading, if it was not the end of the file.
    pub broken: Option<Broken>,
    /// The ends of the commits, for comparing with HEAD: each event number with the offset behind its commit.
    pub commits: Vec<(Seq, u64)>,
    /// What was erased in the good part, and what it says is to be.
    pub erasures: Erasures,
    /// The first event of a type that this program does not know.
    pub unknown: Option<UnknownKind>,
}

/// An event of a type that this program does not know: whole, and of no meaning here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKind {
    /// The line, from 1.
    pub line: u64,
    /// The event.
    pub seq: Seq,
    /// Its type.
    pub kind: String,
}

/// Erased lines, and the events that erasures name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erasures {
    /// The events whose lines are erased, each with its line in the file, from 1.
    pub erased: Vec<(Seq, u64)>,
    /// The events that are named by erasures.
    pub named: Vec<Seq>,
    /// What an erasure names that no other event stands behind.
    pub newest: Vec<Seq>,
}

impl Erasures {
    /// Adds those of what follows.
    pub fn append(&mut self, mut other: Self) {
        self.erased.append(&mut other.erased);
        self.named.append(&mut other.named);
        self.newest = other.newest;
    }
}

/// What follows the good part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// A batch that was never acknowledged, from the end of the good part on.
    Torn,
    /// What no torn write looks like.
    Damage(Broken),
}

/// How much more has to be good before it is told of, in bytes.
pub(super) const TELL_EVERY_BYTES: u64 = 256 << 10;

/// Reads a segment line by line as long as all is right.
///
/// # Errors
/// The first line is not right.
pub fn walk(bytes: &[u8]) -> Result<Walk, LineError> {
    walk_telling(bytes, |_| {})
}

/// As [`walk`], and tells on the way up to which offset all is good.
///
/// # Errors
/// The first line is not right.
pub fn walk_telling(bytes: &[u8], mut tell: impl FnMut(u64)) -> Result<Walk, LineError> {
    let length = memchr(b'\n', bytes).ok_or(LineError::Broken("its first line has no end"))?;
    let header = SegmentLine::parse(&bytes[..length])?;
    let good = Good { seq: header.first - 1, at: header.at, end: length as u64 + 1, tree: header.tree.clone() };
    let mut walker = Walker {
        tree: good.tree.clone(),
        last_time: header.at.to_rfc3339(),
        good,
        commits: Vec::new(),
        erasures: Erasures::default(),
        pending: Erasures::default(),
        unknown: None,
    };
    let mut broken = None;
    let mut start = length + 1;
    let mut number = 2;
    let mut told = 0;
    while start < bytes.len() {
        let found = memchr(b'\n', &bytes[start..]);
        let line = &bytes[start..found.map_or(bytes.len(), |length| start + length)];
        let step = match found {
            Some(length) => walker.step(line, number, (start + length) as u64 + 1),
            None => Err("the last line has no end".to_owned()),
        };
        if let Err(what) = step {
            let seq = if is_commit(line) { walker.good.seq + 1 } else { walker.tree.leaves() + 1 };
            broken = Some(Broken { line: number, offset: start as u64, seq, what });
            break;
        }
        start += line.len() + 1;
        number += 1;
        if walker.good.end >= told + TELL_EVERY_BYTES {
            told = walker.good.end;
            tell(told);
        }
    }
    tell(walker.good.end);
    Ok(Walk {
        header,
        good: walker.good,
        broken,
        commits: walker.commits,
        erasures: walker.erasures,
        unknown: walker.unknown,
    })
}

struct Walker {
    tree: Tree,
    last_time: [u8; 24],
    good: Good,
    commits: Vec<(Seq, u64)>,
    erasures: Erasures,
    /// Those that no commit covers yet.
    pending: Erasures,
    unknown: Option<UnknownKind>,
}

impl Walker {
    fn step(&mut self, line: &[u8], number: u64, end: u64) -> Result<(), String> {
        if is_commit(line) {
            return self.commit(line, end);
        }
        let expected = self.tree.leaves() + 1;
        let Some(event) = EventLine::of(line).filter(|_| line.ends_with(b"}")) else {
            return Err("the line is neither an event nor a commit".into());
        };
        let EventLine { seq, time, .. } = event;
        if seq != expected {
            return Err(format!("event {seq} stands where event {expected} should"));
        }
        if *time < self.last_time {
            return Err(format!("the time of event {seq} is before that of the one before"));
        }
        self.last_time = *time;
        if let Some(kind) = event.unknown_kind().filter(|_| self.unknown.is_none()) {
            let kind = String::from_utf8_lossy(kind).into_owned();
            self.unknown = Some(UnknownKind { line: number, seq, kind });
        }
        self.pending.newest.clear();
        let leaf = match Line::of(line) {
            Line::Usual => Hash::of_leaf(line),
            Line::Erasure(mut named) => {
                // What did not stand there yet cannot have been ordered.
                named.retain(|named| *named < seq);
                self.pending.named.extend(&named);
                self.pending.newest = named;
                Hash::of_leaf(line)
            }
            Line::Erased(leaf) => {
                self.pending.erased.push((seq, number));
                leaf
            }
            Line::Broken => return Err(format!("the erased line of event {seq} is not as it was written")),
        };
        self.tree.push(leaf);
        Ok(())
    }

    fn commit(&mut self, line: &[u8], end: u64) -> Result<(), String> {
        let commit = CommitLine::parse(line).ok_or("the commit is not as it was written")?;
        if commit.seq != self.tree.leaves() || commit.seq == self.good.seq {
            return Err(format!("a commit up to event {} stands behind event {}", commit.seq, self.tree.leaves()));
        }
        if commit.root != self.tree.root() {
            let (first, last) = (self.good.seq + 1, commit.seq);
            return Err(match first == last {
                true => format!("event {last} is not the one that was committed"),
                false => format!("events {first} to {last} are not those that were committed"),
            });
        }
        self.good = Good { seq: commit.seq, at: commit.at, end, tree: self.tree.clone() };
        self.commits.push((commit.seq, end));
        self.erasures.append(std::mem::take(&mut self.pending));
        Ok(())
    }
}

/// Whether the newest segment was cut off while it was made: empty or with a torn first line, in it no commit, and
/// nothing of it acknowledged. HEAD is older than every segment but that which began the log.
pub fn is_cut_off(bytes: &[u8], first: Seq, head: Option<Head>) -> bool {
    let end = memchr(b'\n', bytes);
    let is_torn = end.is_none_or(|end| matches!(SegmentLine::parse(&bytes[..end]), Err(LineError::Broken(_))));
    let has_commit = || bytes.split(|byte| *byte == b'\n').any(|line| CommitLine::parse(line).is_some());
    is_torn && head.map_or(first == 1, |head| head.seq < first) && !has_commit()
}

/// Judges what follows the good part of a segment, by the shape of a write that a power cut tears: its sectors of 512
/// bytes reach the disk or not, each for itself, and what did not reads as zeros or not at all.
pub fn judge_tail(bytes: &[u8], walk: &Walk) -> Tail {
    let good_end = usize::try_from(walk.good.end).unwrap_or(usize::MAX).min(bytes.len());
    let tail = &bytes[good_end..];
    if tail.is_empty() {
        return Tail::Clean;
    }
    let Some(broken) = &walk.broken else { return Tail::Torn };
    let from_broken = usize::try_from(broken.offset).map_or(&[][..], |offset| &bytes[offset.min(bytes.len())..]);
    let is_whole_write = tail.ends_with(b"\n") && !has_empty_sector(tail, good_end);
    if goes_on_behind_a_commit(from_broken) || is_whole_write {
        return Tail::Damage(broken.clone());
    }
    Tail::Torn
}

/// Whether another batch was begun behind a commit: then the one before was synced, and is no torn write.
fn goes_on_behind_a_commit(from_broken: &[u8]) -> bool {
    let whole_lines = from_broken.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    let mut seen_commit = false;
    for line in whole_lines {
        let is_whole_commit = CommitLine::parse(line).is_some();
        let is_right = is_whole_commit || (event_start(line).is_some() && line.ends_with(b"}"));
        if seen_commit && is_right {
            return true;
        }
        seen_commit |= is_whole_commit;
    }
    false
}

/// Whether of some sector of the file the part in `tail`, which begins at `offset`, is all zero.
fn has_empty_sector(tail: &[u8], offset: usize) -> bool {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES).min(tail.len());
    let (first, rest) = tail.split_at(first);
    std::iter::once(first).chain(rest.chunks(SECTOR_BYTES)).any(|part| part.iter().all(|byte| *byte == 0))
}
