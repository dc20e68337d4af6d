//! Appending: one batch is one write, one sync and one slot of HEAD, in this order; then it may be told of.

use std::io;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::closed::whole_lines;
use super::format::{CommitLine, Head, HeadFile, SLOT_BYTES, SegmentLine, segment_name};
use super::judge::Good;
use super::opening::{HEAD, NEXT};
use super::storage::{Storage, StorageFile};
use super::tree::{Hash, LEAVES_AT_ONCE};
use crate::chat::Seq;
use crate::clock::Timestamp;

/// The length at which a segment ends, at the commit that reaches it.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// The most bytes that one batch takes a segment beyond its length.
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// How far ahead of the writing room is reserved, where the disk has it.
const RESERVE_STEP_BYTES: u64 = 32 << 20;
/// Room below which more is reserved: more than what is decided while one batch is written and another fills.
const RESERVE_BELOW_BYTES: u64 = 24 << 20;
/// The least that is tried, on a disk that is nearly full.
const RESERVE_BYTES_MIN: u64 = 256 << 10;
/// How long HEAD may be ahead of the disk.
const HEAD_SYNC_EVERY: Duration = Duration::from_secs(1);

/// Events that become durable together.
#[derive(Debug)]
pub struct Batch {
    /// Their lines, each with its line feed.
    pub lines: Vec<u8>,
    /// The first event.
    pub first: Seq,
    /// The last event.
    pub last: Seq,
    /// The time of the last event.
    pub at: Timestamp,
}

/// A batch that is on stable storage.
#[derive(Debug)]
pub struct Durable {
    /// The lines as they were given.
    pub lines: Vec<u8>,
    /// The last event.
    pub last: Seq,
    /// The first event of the segment they are in.
    pub segment: Seq,
    /// Where the first line begins in the file, in bytes.
    pub offset: u64,
    /// The root of the tree behind them.
    pub root: Hash,
    /// How many bytes of events the log surely takes yet.
    pub room_bytes: u64,
}

/// A write or a sync failed. What is on the disk is unknown, so that nothing may be appended any more.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {source}")]
pub struct AppendError {
    file: String,
    source: io::Error,
}

/// A log that is open for appending.
#[derive(Debug)]
pub struct Log<S: Storage> {
    pub(super) storage: S,
    file: S::File,
    segment: Seq,
    log: Uuid,
    good: Good,
    segment_bytes_max: u64,
    head_file: Option<S::File>,
    /// The slot of HEAD to be written next.
    head_slot: usize,
    head_synced: Option<Instant>,
    head_is_dirty: bool,
    reserved_end: u64,
    /// The file of the next segment, and how much of it is reserved.
    next: Option<(S::File, u64)>,
}

impl<S: Storage> Log<S> {
    pub(super) fn resume(
        storage: S,
        file: S::File,
        segment: Seq,
        log: Uuid,
        good: Good,
        head: Option<HeadFile>,
    ) -> Self {
        let head_slot = head.map_or(0, |head| 1 - head.slot);
        let reserved_end = good.end;
        Self {
            storage,
            file,
            segment,
            log,
            good,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            head_file: None,
            head_slot,
            head_synced: None,
            head_is_dirty: false,
            reserved_end,
            next: None,
        }
    }

    /// Ends segments at another length than [`SEGMENT_BYTES_MAX`]: for tests that want many.
    pub fn set_segment_bytes_max(&mut self, bytes: u64) {
        self.segment_bytes_max = bytes;
    }

    /// The first event of the segment that is written, or the one that it will begin with.
    pub(super) fn segment(&self) -> Seq {
        self.segment
    }

    /// Ends the segment, so that nothing in it is appended to any more; an empty one goes on.
    ///
    /// # Errors
    /// The disk failed; the log must not be used any more.
    pub(super) fn end_segment(&mut self) -> Result<(), AppendError> {
        if self.good.seq < self.segment {
            return Ok(());
        }
        let file = segment_name(self.good.seq + 1);
        self.begin_next_segment().map_err(|source| AppendError { file, source })
    }

    /// The number of the log.
    pub fn id(&self) -> Uuid {
        self.log
    }

    /// The last durable event, 0 in a new log.
    pub fn seq(&self) -> Seq {
        self.good.seq
    }

    /// The time of the last event, or when the log was made.
    pub fn at(&self) -> Timestamp {
        self.good.at
    }

    /// The root of the tree over all events.
    pub fn root(&self) -> Hash {
        self.good.tree.root()
    }

    /// Has HEAD say what is durable, and that made durable too. Where it says so already, as it was `found`, nothing is
    /// written.
    pub(super) fn acknowledge(&mut self, found: Option<HeadFile>) -> io::Result<()> {
        let head = Head { seq: self.good.seq, end: self.good.end };
        if found.is_none_or(|found| found.is_half_broken || found.head != head) {
            self.write_head()?;
        }
        self.head_is_dirty = true;
        self.sync_head()
    }

    /// Makes a batch durable.
    ///
    /// # Errors
    /// The disk failed; the log must not be used any more.
    pub fn append(&mut self, batch: Batch) -> Result<Durable, AppendError> {
        let Batch { mut lines, first, last, at } = batch;
        assert!(first == self.good.seq + 1 && last >= first, "events are appended in order, without gaps");
        let failed = |file: String| move |source| AppendError { file, source };
        if self.good.end >= self.segment_bytes_max {
            self.begin_next_segment().map_err(failed(segment_name(first)))?;
        }
        let event_bytes = lines.len();
        for lines in whole_lines(&lines).chunks(LEAVES_AT_ONCE) {
            self.good.tree.extend(&Hash::of_leaves(lines));
        }
        assert!(self.good.tree.leaves() == last, "a batch has a line for each of its events");
        let root = self.good.tree.root();
        CommitLine { seq: last, at, root }.encode(&mut lines);

        let offset = self.good.end;
        let written = self.file.write_at(offset, &lines).and_then(|()| self.file.sync());
        written.map_err(failed(segment_name(self.segment)))?;
        self.good.seq = last;
        self.good.at = at;
        self.good.end += lines.len() as u64;
        self.write_head().map_err(failed(HEAD.to_owned()))?;
        lines.truncate(event_bytes);
        let room_bytes = self.room_bytes();
        Ok(Durable { lines, last, segment: self.segment, offset, root, room_bytes })
    }

    /// How many bytes of events the log surely takes, by what is reserved.
    pub fn room_bytes(&self) -> u64 {
        let here = self.reserved_end.min(self.segment_bytes_max).saturating_sub(self.good.end);
        // A batch that begins before the segment's length may end beyond it.
        let whole = self.reserved_end >= self.segment_bytes_max + BATCH_BYTES_MAX;
        match &self.next {
            Some((_, reserved)) if whole => here + reserved,
            _ => here,
        }
    }

    /// Reserves room ahead of the writing, as much as there is up to a bound, and syncs HEAD where that is due. To be
    /// called when nothing waits; a disk that has no room is no error here.
    ///
    /// # Errors
    /// HEAD cannot be synced.
    pub fn tend(&mut self, now: Instant) -> Result<(), AppendError> {
        self.reserve();
        if self.head_is_dirty && self.head_synced.is_none_or(|synced| now >= synced + HEAD_SYNC_EVERY) {
            self.sync_head().map_err(|source| AppendError { file: HEAD.to_owned(), source })?;
            self.head_synced = Some(now);
        }
        Ok(())
    }

    /// When [`Log::tend`] has something to do even if nothing is appended.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        self.head_is_dirty.then(|| self.head_synced.map_or(now, |synced| synced + HEAD_SYNC_EVERY))
    }

    /// Ends the writing: HEAD is durable, and what was reserved is given back.
    ///
    /// # Errors
    /// The disk failed.
    pub fn close(mut self) -> Result<(), AppendError> {
        self.sync_head().map_err(|source| AppendError { file: HEAD.to_owned(), source })?;
        let failed = |source| AppendError { file: segment_name(self.segment), source };
        self.file.cut(self.good.end).and_then(|()| self.file.sync()).map_err(failed)?;
        if self.next.take().is_some() {
            self.storage.remove(NEXT).map_err(failed)?;
        }
        Ok(())
    }

    fn reserve(&mut self) {
        let limit = self.segment_bytes_max + BATCH_BYTES_MAX;
        let ahead = self.reserved_end.saturating_sub(self.good.end);
        if self.reserved_end < limit && ahead < RESERVE_BELOW_BYTES {
            let mut step = RESERVE_STEP_BYTES.max(self.good.end.saturating_sub(self.reserved_end));
            while step >= RESERVE_BYTES_MIN {
                let end = (self.good.end + step).min(limit).max(self.reserved_end);
                if self.file.reserve(end).is_ok() {
                    self.reserved_end = end;
                    break;
                }
                step /= 2;
            }
        }
        let is_nearly_full = self.good.end + RESERVE_STEP_BYTES >= self.segment_bytes_max;
        // Past the length of a segment, what is reserved is for the end of its last batch.
        if is_nearly_full && self.reserved_end < limit && self.file.reserve(limit).is_ok() {
            self.reserved_end = limit;
        }
        if is_nearly_full && self.next.is_none() {
            self.next = self.prepare_next().ok();
        }
    }

    fn prepare_next(&self) -> io::Result<(S::File, u64)> {
        let file = self.storage.create(NEXT)?;
        let mut step = RESERVE_STEP_BYTES;
        loop {
            match file.reserve(step) {
                Ok(()) => return Ok((file, step - HEADER_BYTES_MAX)),
                Err(_) if step / 2 >= RESERVE_BYTES_MIN => step /= 2,
                Err(error) => return Err(error),
            }
        }
    }

    fn begin_next_segment(&mut self) -> io::Result<()> {
        let first = self.good.seq + 1;
        // Its time is that of the event before: those of the batch may all be later.
        let header = SegmentLine { log: self.log, first, at: self.good.at, tree: self.good.tree.clone() };
        let mut line = Vec::new();
        header.encode(&mut line);
        // The old segment is never appended to again, and gives back what it had reserved.
        self.file.cut(self.good.end)?;
        let (next, reserved) = self.next.take().map_or((None, 0), |(file, reserved)| (Some(file), reserved));
        self.file = begin_segment(&self.storage, next, first, &line)?;
        self.segment = first;
        self.good.end = line.len() as u64;
        self.reserved_end = self.good.end + reserved;
        Ok(())
    }

    fn write_head(&mut self) -> io::Result<()> {
        let slot = Head { seq: self.good.seq, end: self.good.end }.to_slot();
        let offset = (self.head_slot * SLOT_BYTES) as u64;
        self.head()?.write_at(offset, &slot)?;
        self.head_slot = 1 - self.head_slot;
        self.head_is_dirty = true;
        Ok(())
    }

    fn sync_head(&mut self) -> io::Result<()> {
        if self.head_is_dirty {
            self.head()?.sync()?;
            self.head_is_dirty = false;
        }
        Ok(())
    }

    fn head(&mut self) -> io::Result<&S::File> {
        match &mut self.head_file {
            Some(file) => Ok(file),
            empty => Ok(empty.insert(self.storage.open(HEAD)?)),
        }
    }
}

/// The most bytes of a segment's first line: a tree of 2^53 leaves has 53 subtrees.
const HEADER_BYTES_MAX: u64 = 4 << 10;

/// Writes the first line of a segment, durably, under a name that opening ignores; then gives it its own.
pub(super) fn begin_segment<S: Storage>(
    storage: &S,
    prepared: Option<S::File>,
    first: Seq,
    header: &[u8],
) -> io::Result<S::File> {
    let file = match prepared {
        Some(file) => file,
        None => storage.create(NEXT)?,
    };
    file.write_at(0, header)?;
    file.sync()?;
    storage.rename(NEXT, &segment_name(first))?;
    storage.sync_names()?;
    Ok(file)
}
