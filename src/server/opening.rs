//! A server's opening: the state from the newest snapshot and the events behind it, and the newest segment's index.

use uuid::Uuid;

use super::archive_files::ArchiveFiles;
use super::index::Index;
use super::segment::SegmentBuilder;
use crate::chat::State;
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
    /// The files of the closed segments, for who archives the next ones: what was said of them here is not said again.
    pub archivist: ArchiveFiles<S>,
    /// What the operator should know.
    pub notices: Vec<String>,
}

/// Opens the log, or makes one under the number `new_log` at `now`. Missing snapshots behind closed segments are
/// written on the way; where the log is refused, none of them stays. Missing indexes are left to the archivist, who makes
/// them beside the running server. `progress` is told how many bytes of how many have been read.
///
/// # Errors
/// What stands against going on, as for [`eventlog::open`].
pub fn open<S: Storage>(
    storage: S,
    new_log: Uuid,
    now: Timestamp,
    progress: impl FnMut(u64, u64),
) -> Result<Opened<S>, OpenError> {
    let mut files = ArchiveFiles::new(&storage, "archivist")?;
    let state = files.newest_snapshot().unwrap_or_default();
    let after = state.seq;
    let mut fold = Fold { newest: None, state, files, has_failed: false, progress };
    let opened = eventlog::open_after(storage, new_log, now, after, &mut fold);
    if opened.is_err() {
        fold.files.discard();
    }
    let opened = opened?;
    if let Err(error) = fold.files.publish() {
        fold.files.notice(format!("snapshots cannot be written: {error}"));
    }
    fold.files.tidy();
    let mut notices = fold.files.take_notices();
    notices.extend(opened.notices);
    let newest = fold.newest.unwrap_or_else(|| SegmentBuilder::from_state(fold.state.seq + 1, &fold.state));
    let index = Index::new(newest.segment);
    Ok(Opened { log: opened.log, state: fold.state, index, archivist: fold.files, notices })
}

/// Folds the events, segment by segment.
struct Fold<S: Storage, P> {
    state: State,
    /// Makes the index of the newest segment, once that is read.
    newest: Option<SegmentBuilder>,
    files: ArchiveFiles<S>,
    /// Whether a snapshot could not be written.
    has_failed: bool,
    progress: P,
}

impl<S: Storage, P: FnMut(u64, u64)> Visitor for Fold<S, P> {
    fn event(&mut self, replayed: Replayed<'_>) {
        replayed.apply_to(&mut self.state);
        if let Some(newest) = &mut self.newest {
            newest.add(&replayed);
        }
    }

    fn closed(&mut self, segment: &ClosedSegment) {
        if let Err(error) = self.files.write_snapshot(segment, &self.state) {
            // One that cannot be written is done without; that it cannot is to be known, once.
            if !self.has_failed {
                self.files.notice(format!("the snapshot behind segment {} cannot be written: {error}", segment.first));
            }
            self.has_failed = true;
        }
    }

    fn newest(&mut self) {
        self.newest = Some(SegmentBuilder::from_state(self.state.seq + 1, &self.state));
    }

    fn progress(&mut self, done_bytes: u64, total_bytes: u64) {
        (self.progress)(done_bytes, total_bytes);
    }
}
