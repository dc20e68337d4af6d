//! A server's opening: the state from the newest snapshot and the events behind it, and the newest segment's index.

use std::io;

use uuid::Uuid;

use super::archive_files::ArchiveFiles;
use super::index::Index;
use super::segment::SegmentBuilder;
use crate::chat::{Seq, State};
use crate::clock::Timestamp;
use crate::eventlog::{self, ClosedSegment, Log, OpenError, Replayed, Storage, Visitor};

/// What a server begins with.
#[derive(Debug)]
pub struct Opened<S: Storage> {
    /// The log, ready to be appended to.
    pub log: Log<S>,
    /// The fold of all events.
    pub state: State,
    /// The index of the newest segment.
    pub index: Index,
    /// What the operator should know.
    pub notices: Vec<String>,
}

/// Opens the log, or makes one under the number `new_log` at `now`. Missing indexes and snapshots of the closed segments
/// are written on the way; where the log is refused, none of them stays. `progress` is told how many bytes of how many
/// have been read.
///
/// # Errors
/// What stands against going on, as for [`eventlog::open`].
pub fn open<S: Storage>(
    storage: S,
    new_log: Uuid,
    now: Timestamp,
    progress: impl FnMut(u64, u64),
) -> Result<Opened<S>, OpenError> {
    let mut files = ArchiveFiles::new(&storage, "opening")?;
    let state = files.newest_snapshot().unwrap_or_default();
    let after = state.seq;
    let mut fold = Fold { builder: SegmentBuilder::from_state(after + 1, &state), state, files, progress };
    let opened = eventlog::open_after(storage, new_log, now, after, &mut fold);
    if opened.is_err() {
        fold.files.discard();
    }
    let opened = opened?;
    fold.files.forget_indexes_of(&opened.erased);
    if let Err(error) = fold.files.publish() {
        fold.files.notice(format!("indexes and snapshots cannot be written: {error}"));
    }
    fold.files.tidy();
    let mut notices = fold.files.take_notices();
    notices.extend(opened.notices);
    Ok(Opened { log: opened.log, state: fold.state, index: Index::new(fold.builder.segment), notices })
}

/// Folds the events, segment by segment.
struct Fold<S: Storage, P> {
    state: State,
    builder: SegmentBuilder,
    files: ArchiveFiles<S>,
    progress: P,
}

impl<S: Storage, P: FnMut(u64, u64)> Visitor for Fold<S, P> {
    fn event(&mut self, replayed: Replayed<'_>) {
        let record = replayed.record;
        self.state.apply(record.seq, record.at, &record.event);
        self.builder.add(&replayed);
    }

    fn closed(&mut self, segment: &ClosedSegment) {
        let builder = std::mem::replace(&mut self.builder, SegmentBuilder::from_state(segment.last + 1, &self.state));
        if self.files.open_index(segment).is_err() {
            let written = self.files.write_index(segment, &builder);
            self.tell(segment.first, "index", written);
        }
        let written = self.files.write_snapshot(segment, &self.state);
        self.tell(segment.first, "snapshot", written);
    }

    fn progress(&mut self, done_bytes: u64, total_bytes: u64) {
        (self.progress)(done_bytes, total_bytes);
    }
}

impl<S: Storage, P> Fold<S, P> {
    /// What cannot be written is made when it is needed; that it cannot is to be known.
    fn tell(&mut self, segment: Seq, what: &str, written: io::Result<()>) {
        if let Err(error) = written {
            self.files.notice(format!("the {what} of segment {segment} cannot be written: {error}"));
        }
    }
}
