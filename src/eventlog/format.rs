//! The lines of the log that are no events, and HEAD: how each is written and read.
//!
//! ```text
//! {"type":"segment","format":1,"log":"UUID","first":1,"ts":TS,"root":"HEX","tree":["HEX",…],"check":"HEX8"}
//! {"type":"commit","seq":41,"ts":TS,"root":"HEX","check":"HEX8"}
//! {"seq":41,"end":68537,"check":"HEX8"}                                one slot of HEAD, padded with spaces
//! ```
//! `check` is the CRC-32C of the line's bytes before `,"check"`, which guards what no leaf of the tree covers.

use memchr::memchr;
use serde::Deserialize;
use uuid::Uuid;

use super::tree::{Hash, Tree};
use crate::chat::straight::{self, Message, leading_number};
use crate::chat::{Event, Seq};
use crate::clock::Timestamp;

/// The format that this program writes.
pub const FORMAT: u64 = 1;
/// The bytes of one of HEAD's two slots, with its line feed.
pub const SLOT_BYTES: usize = 128;

/// What is wrong with HEAD if nothing of it is whole.
pub const NO_SLOT_WHOLE: &str = "both its slots are broken, so that nobody can say what was acknowledged";

/// What a disk writes or loses as one, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// The first line of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentLine {
    /// The number of the log, the same in all its segments.
    pub log: Uuid,
    /// The first event of the segment.
    pub first: Seq,
    /// When the segment was begun.
    pub at: Timestamp,
    /// The tree over all events before `first`.
    pub tree: Tree,
}

/// The line behind each batch of events that became durable together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct CommitLine {
    /// The last event of the batch.
    pub seq: Seq,
    /// The time of that event.
    #[serde(rename = "ts")]
    pub at: Timestamp,
    /// The root of the tree over the events up to `seq`.
    pub root: Hash,
}

/// What HEAD says: how far the log has been acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Head {
    /// The last event of the newest commit.
    pub seq: Seq,
    /// The length of the segment's file behind that commit, in bytes.
    pub end: u64,
}

/// Why a line is none of the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Its bytes are not those that were written.
    #[error("{0}")]
    Broken(&'static str),
    /// A later program wrote it.
    #[error("it has format {0}, and this program knows format {FORMAT} only: use the newer program that wrote it")]
    Newer(u64),
}

impl SegmentLine {
    /// Appends the line with its line feed.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let tree: Vec<String> = self.tree.subtrees().iter().map(|hash| format!("\"{hash}\"")).collect();
        put_checked(
            out,
            &format!(
                r#"{{"type":"segment","format":{FORMAT},"log":"{}","first":{},"ts":"{}","root":"{}","tree":[{}]"#,
                self.log,
                self.first,
                self.at,
                self.tree.root(),
                tree.join(",")
            ),
        );
        out.push(b'\n');
    }

    /// Reads the line, without its line feed.
    ///
    /// # Errors
    /// It is no segment line, not whole, or of a later format.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        #[derive(Deserialize)]
        struct Fields {
            log: Uuid,
            first: Seq,
            ts: Timestamp,
            root: Hash,
            tree: Vec<Hash>,
        }
        #[derive(Deserialize)]
        struct Format {
            r#type: String,
            format: u64,
        }
        let broken = LineError::Broken("its first line is no segment line");
        if !is_checked(line) {
            return Err(LineError::Broken("its first line is not as it was written"));
        }
        let Format { r#type, format } = serde_json::from_slice(line).map_err(|_| broken.clone())?;
        if r#type != "segment" {
            return Err(broken);
        }
        if format > FORMAT {
            return Err(LineError::Newer(format));
        }
        let Fields { log, first, ts, root, tree } = serde_json::from_slice(line).map_err(|_| broken.clone())?;
        let tree = first.checked_sub(1).and_then(|before| Tree::from_subtrees(before, tree));
        match tree {
            Some(tree) if tree.root() == root => Ok(Self { log, first, at: ts, tree }),
            _ => Err(LineError::Broken("the tree of its first line does not add up to its root")),
        }
    }
}

impl CommitLine {
    /// Appends the line with its line feed.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self { seq, at, root } = self;
        put_checked(out, &format!(r#"{{"type":"commit","seq":{seq},"ts":"{at}","root":"{root}""#));
        out.push(b'\n');
    }

    /// Reads the line, without its line feed; `None` if it is not whole.
    pub fn parse(line: &[u8]) -> Option<Self> {
        if !is_commit(line) || !is_checked(line) {
            return None;
        }
        serde_json::from_slice(line).ok()
    }
}

impl Head {
    /// One slot of HEAD.
    pub fn to_slot(self) -> [u8; SLOT_BYTES] {
        let mut line = Vec::with_capacity(SLOT_BYTES);
        put_checked(&mut line, &format!(r#"{{"seq":{},"end":{}"#, self.seq, self.end));
        let mut slot = [b' '; SLOT_BYTES];
        // Two numbers of at most 20 digits and the check take at most 80 bytes.
        slot[..line.len()].copy_from_slice(&line);
        slot[SLOT_BYTES - 1] = b'\n';
        slot
    }

    /// Reads one slot; `None` if it is not whole.
    pub fn from_slot(slot: &[u8]) -> Option<Self> {
        let line = slot.strip_suffix(b"\n")?.trim_ascii_end();
        if slot.len() != SLOT_BYTES || !is_checked(line) {
            return None;
        }
        serde_json::from_slice(line).ok()
    }

    /// Reads the file: what it says, in which of its two slots, and whether the other is broken. `None` if neither is
    /// whole.
    pub fn parse(file: &[u8]) -> Option<HeadFile> {
        let slot = |place: usize| file.get(place * SLOT_BYTES..(place + 1) * SLOT_BYTES).and_then(Self::from_slot);
        match (slot(0), slot(1)) {
            (Some(first), Some(second)) if second.seq > first.seq => Some(HeadFile::new(second, 1, false)),
            (Some(first), second) => Some(HeadFile::new(first, 0, second.is_none())),
            (None, Some(second)) => Some(HeadFile::new(second, 1, true)),
            (None, None) => None,
        }
    }
}

/// The file HEAD, as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadFile {
    /// What it says.
    pub head: Head,
    /// The slot that says it.
    pub slot: usize,
    /// Whether the other slot is not whole.
    pub is_half_broken: bool,
}

impl HeadFile {
    fn new(head: Head, slot: usize, is_half_broken: bool) -> Self {
        Self { head, slot, is_half_broken }
    }
}

/// Whether a line claims to be a commit.
pub fn is_commit(line: &[u8]) -> bool {
    line.starts_with(br#"{"type":"commit","#)
}

/// Whether a line is no event, and so no leaf of the tree.
pub fn is_frame(line: &[u8]) -> bool {
    line.starts_with(br#"{"type":"#)
}

/// The number and the time, as its 24 bytes, at the start of an event line.
pub fn event_start(line: &[u8]) -> Option<(Seq, &[u8])> {
    let (seq, time, _) = split_start(line)?;
    Some((seq, time))
}

/// One event's line, and what is looked at first in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLine<'a> {
    /// The event.
    pub seq: Seq,
    /// The time, as it stands there: it may be no moment.
    pub time: &'a [u8; TIME_BYTES],
    /// The line, without its line feed.
    pub bytes: &'a [u8],
    /// What of it stands behind the time.
    pub behind_time: &'a [u8],
}

impl<'a> EventLine<'a> {
    /// Looks at a line, without its line feed; `None` if it does not begin as that of an event.
    #[inline]
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let (seq, time, behind_time) = split_start(bytes)?;
        Some(Self { seq, time, bytes, behind_time })
    }

    /// The message that it is, if it stands there as this program writes it, with users read by `user`. Whether its time is a
    /// moment is to be looked at.
    #[inline]
    pub(crate) fn message<U>(&self, user: impl Fn(&'a [u8]) -> Option<(U, &'a [u8])>) -> Option<Message<'a, U>> {
        // No number of JSON begins with a zero: what is wrong there is for the general reader to say.
        if self.bytes.starts_with(b"{\"seq\":0") {
            return None;
        }
        straight::message(self.behind_time, user)
    }

    /// The type, if it is one that this program does not know.
    #[inline]
    pub(super) fn unknown_kind(&self) -> Option<&'a [u8]> {
        // Most events are messages.
        let from_kind = from_kind(self.behind_time).filter(|from_kind| !from_kind.starts_with(b"message\""))?;
        kind(from_kind).filter(|kind| !Event::is_kind(kind))
    }
}

/// The type at the start of an event line.
pub fn event_kind(line: &[u8]) -> Option<&[u8]> {
    kind(from_kind(split_start(line)?.2)?)
}

/// Whether the line's type begins so; it costs less than to take the type out.
pub fn is_kind_like(line: &[u8], start: &[u8]) -> bool {
    split_start(line).and_then(|(_, _, rest)| from_kind(rest)).is_some_and(|kind| kind.starts_with(start))
}

/// What stands from the type on, behind the time.
fn from_kind(rest: &[u8]) -> Option<&[u8]> {
    rest.strip_prefix(br#"","type":""#)
}

/// The type, of what stands from it on.
fn kind(from_kind: &[u8]) -> Option<&[u8]> {
    from_kind.get(..memchr(b'"', from_kind)?)
}

/// The bytes of a time.
const TIME_BYTES: usize = 24;

/// The number of an event line, its time, and what stands behind that. Read for every line of a log: no more is done than
/// must be.
// Inlined, so that what it gives is not put together and taken apart again.
#[inline(always)]
fn split_start(line: &[u8]) -> Option<(Seq, &[u8; TIME_BYTES], &[u8])> {
    let (seq, digits, rest) = leading_number(line.strip_prefix(br#"{"seq":"#)?)?;
    let (time, rest) = rest.strip_prefix(br#","ts":""#)?.split_first_chunk()?;
    (digits > 0).then_some((seq, time, rest))
}

/// The name of the segment's file that begins with an event.
pub fn segment_name(first: Seq) -> String {
    format!("{first:020}.jsonl")
}

/// The first event of the segment in a file; `None` if the name is that of no segment.
pub fn segment_first(name: &str) -> Option<Seq> {
    let digits = name.strip_suffix(".jsonl").filter(|digits| digits.len() == 20)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|first| *first > 0)
}

const CHECK_BYTES: usize = r#","check":"01234567"}"#.len();

/// A line of one JSON object with its check, ended by a line feed; `fields` is the object without its last brace.
pub fn checked(fields: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(fields.len() + CHECK_BYTES + 1);
    put_checked(&mut line, fields);
    line.push(b'\n');
    line
}

fn put_checked(out: &mut Vec<u8>, fields: &str) {
    let start = out.len();
    out.extend_from_slice(fields.as_bytes());
    put_check(out, start);
}

/// Ends the object that begins at `start`, all of it but its last brace, with the check.
pub fn put_check(out: &mut Vec<u8>, start: usize) {
    let check = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(format!(r#","check":"{check:08x}"}}"#).as_bytes());
}

/// Whether a line, without its line feed, is as it was written by its check.
pub fn is_checked(line: &[u8]) -> bool {
    let Some((fields, check)) = line.len().checked_sub(CHECK_BYTES).map(|at| line.split_at(at)) else { return false };
    check == format!(r#","check":"{:08x}"}}"#, crc32c::crc32c(fields)).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at() -> Timestamp {
        "2026-11-22T06:10:00.123Z".parse().unwrap()
    }

    fn segment(leaves: u32) -> SegmentLine {
        let mut tree = Tree::default();
        (0..leaves).for_each(|number| tree.push(Hash::of_leaf(&number.to_le_bytes())));
        SegmentLine { log: Uuid::from_u128(7), first: u64::from(leaves) + 1, at: at(), tree }
    }

    #[test]
    fn lines_are_written_as_the_format_says() {
        let mut line = Vec::new();
        segment(0).encode(&mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            concat!(
                r#"{"type":"segment","format":1,"log":"00000000-0000-0000-0000-000000000007","first":1,"#,
                r#""ts":"2026-11-22T06:10:00.123Z","#,
                r#""root":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","tree":[],"#,
                "\"check\":\"0fa07189\"}\n"
            )
        );
        let mut line = Vec::new();
        CommitLine { seq: 41, at: at(), root: Tree::default().root() }.encode(&mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            concat!(
                r#"{"type":"commit","seq":41,"ts":"2026-11-22T06:10:00.123Z","#,
                r#""root":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","#,
                "\"check\":\"576c0e66\"}\n"
            )
        );
        let slot = Head { seq: 41, end: 68_537 }.to_slot();
        assert_eq!(slot[..43], *br#"{"seq":41,"end":68537,"check":"5b9090a4"}  "#);
        assert!(slot[43..127].iter().all(|byte| *byte == b' ') && slot[127] == b'\n');
    }

    #[test]
    fn a_later_format_is_named_and_not_read() {
        let mut line = Vec::new();
        put_checked(&mut line, r#"{"type":"segment","format":2,"news":true"#);
        assert_eq!(SegmentLine::parse(&line), Err(LineError::Newer(2)));
    }

    #[test]
    fn head_is_the_newer_of_its_whole_slots() {
        let (old, new) = (Head { seq: 4, end: 10 }, Head { seq: 5, end: 20 });
        let file = [new.to_slot(), old.to_slot()].concat();
        assert_eq!(Head::parse(&file), Some(HeadFile::new(new, 0, false)));
        let mut torn = file.clone();
        torn[9] ^= 1;
        assert_eq!(Head::parse(&torn), Some(HeadFile::new(old, 1, true)));
        assert_eq!(Head::parse(&file[..200]), Some(HeadFile::new(new, 0, true)));
        torn[140] ^= 1;
        assert_eq!(Head::parse(&torn), None);
    }

    #[test]
    fn a_segments_file_is_named_after_its_first_event() {
        assert_eq!(segment_name(481_624), "00000000000000481624.jsonl");
        assert_eq!(segment_first("00000000000000481624.jsonl"), Some(481_624));
        for other in ["481624.jsonl", "0000000000000048162x.jsonl", "HEAD", "00000000000000000000.jsonl"] {
            assert_eq!(segment_first(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_line_reads_back_and_no_changed_one_does(leaves in 0_u32..40, flip in 0_usize..2_000, bit in 0..8) {
            let segment = segment(leaves);
            let commit = CommitLine { seq: u64::from(leaves), at: at(), root: segment.tree.root() };
            let (mut segment_line, mut commit_line) = (Vec::new(), Vec::new());
            segment.encode(&mut segment_line);
            commit.encode(&mut commit_line);
            segment_line.pop();
            commit_line.pop();
            prop_assert_eq!(SegmentLine::parse(&segment_line), Ok(segment));
            prop_assert_eq!(CommitLine::parse(&commit_line), Some(commit));
            let place = flip % segment_line.len();
            segment_line[place] ^= 1_u8 << bit;
            prop_assert!(SegmentLine::parse(&segment_line).is_err());
            let place = flip % commit_line.len();
            commit_line[place] ^= 1_u8 << bit;
            prop_assert_eq!(CommitLine::parse(&commit_line), None);
        }
    }
}
