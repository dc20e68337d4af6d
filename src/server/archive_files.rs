//! The files that stand for closed segments: an index of each, and snapshots of the state. Made, found and made anew.
//!
//! Nothing here is needed to be right: what is missing, damaged or of another log is made again from the segments.

use std::collections::BTreeMap;
use std::io;

use super::index_file::{self, Bytes, IndexError, IndexFile};
use super::segment::SegmentBuilder;
use super::snapshot;
use crate::chat::{Seq, State};
use crate::eventlog::storage::INDEX;
use crate::eventlog::{self, ClosedSegment, OpenError, Replayed, Storage, StorageFile};

/// The directory of the snapshots, in the data directory.
const SNAPSHOTS: &str = "snapshots";
/// How many snapshots are kept: the newest, and one in case that is damaged.
const SNAPSHOTS_KEPT: usize = 2;
/// The ending of a file that is being written.
const UNFINISHED: &str = ".tmp";

/// Why something cannot be had from the closed segments.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// A file beside the log cannot be written.
    #[error("{0} cannot be written: {1}")]
    Write(String, io::Error),
    /// The index of a segment is wrong however often it is made.
    #[error("the index of segment {0} cannot be used: {1}")]
    Index(Seq, IndexError),
    /// A line of the log is not where it was written.
    #[error("event {0} is not where it was written in the log")]
    Line(Seq),
}

/// The files, as one of the threads that use them has them.
#[derive(Debug)]
pub struct ArchiveFiles<S: Storage> {
    /// Who writes: names the files that are being written.
    writer: &'static str,
    pub(super) events: S,
    index: S,
    snapshots: S,
    notices: Vec<String>,
}

impl<S: Storage> ArchiveFiles<S> {
    /// The files beside a log, for the thread `writer`.
    ///
    /// # Errors
    /// Their directories cannot be made.
    pub fn new(log: &S, writer: &'static str) -> io::Result<Self> {
        Ok(Self {
            writer,
            events: log.beside(eventlog::storage::EVENTS)?,
            index: log.beside(INDEX)?,
            snapshots: log.beside(SNAPSHOTS)?,
            notices: Vec::new(),
        })
    }

    /// What the operator should know, since the last call.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    pub(super) fn notice(&mut self, notice: String) {
        self.notices.push(notice);
    }

    /// Says why an index is made anew.
    pub(super) fn notice_index(&mut self, segment: Seq, why: &IndexError) {
        self.notice(format!("the index of segment {segment} is made anew: {why}"));
    }

    /// Removes what an earlier run left unfinished, and names what is not ours.
    pub fn tidy(&mut self) {
        let segments = self.segments().unwrap_or_default();
        let closed = segments.split_last().map(|(_, closed)| closed).unwrap_or_default();
        for name in self.index.list().unwrap_or_default() {
            if name.ends_with(UNFINISHED) {
                let _ = self.index.remove(&name);
            } else if !closed.iter().any(|first| index_name(*first) == name) {
                self.notice(format!("{INDEX}/{name} is the index of no closed segment, and is not used"));
            }
        }
        for name in self.snapshots.list().unwrap_or_default() {
            if name.ends_with(UNFINISHED) {
                let _ = self.snapshots.remove(&name);
            } else if snapshot::seq_of(&name).is_none() {
                self.notice(format!("{SNAPSHOTS}/{name} is no snapshot, and is not used"));
            }
        }
    }

    /// The first events of all segments, rising; the last segment is the one being written.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn segments(&self) -> Result<Vec<Seq>, OpenError> {
        eventlog::segments(&self.events)
    }

    /// What a closed segment ends with, by the first line of the next one.
    ///
    /// # Errors
    /// That cannot be read.
    pub fn closed(&self, first: Seq, next: Seq) -> Result<ClosedSegment, OpenError> {
        let header = eventlog::read_header(&self.events, next)?;
        Ok(ClosedSegment { log: header.log, first, last: next - 1, root: header.tree.root() })
    }

    /// The index of a closed segment.
    ///
    /// # Errors
    /// Why there is none that can be used.
    pub fn open_index(&self, segment: &ClosedSegment) -> Result<IndexFile<S::File>, IndexError> {
        IndexFile::open(Bytes::File(self.index.open(&index_name(segment.first))?), segment)
    }

    /// Makes the index of the segment at `place` of `segments` anew, and those before it that it needs: a segment's
    /// index begins with the transfers that are open behind the one before.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn make_index(&mut self, segments: &[Seq], place: usize) -> Result<IndexFile<S::File>, ArchiveError> {
        let mut begin = place;
        let mut transfers = BTreeMap::new();
        while begin > 0 {
            let before = self.closed(segments[begin - 1], segments[begin])?;
            match self.open_index(&before) {
                Ok(index) => {
                    transfers = index.transfers();
                    break;
                }
                Err(error) => self.notice_index(before.first, &error),
            }
            begin -= 1;
        }
        loop {
            let segment = self.closed(segments[begin], segments[begin + 1])?;
            let mut builder = SegmentBuilder::new(segment.first, transfers);
            self.read(&segment, |replayed| builder.add(&replayed))?;
            let saved = self.save_index(&segment, &builder);
            if begin < place {
                transfers = builder.transfers;
                begin += 1;
                continue;
            }
            let bytes = match saved.and_then(|()| self.index.open(&index_name(segment.first))) {
                Ok(file) => Bytes::File(file),
                Err(error) => {
                    self.notice(format!("{INDEX}/{} cannot be written: {error}", index_name(segment.first)));
                    Bytes::Memory(index_file::encode(&segment, &builder))
                }
            };
            return IndexFile::open(bytes, &segment).map_err(|error| ArchiveError::Index(segment.first, error));
        }
    }

    /// Writes the index of a segment.
    ///
    /// # Errors
    /// The disk failed or is full.
    pub fn save_index(&self, segment: &ClosedSegment, builder: &SegmentBuilder) -> io::Result<()> {
        save(&self.index, self.writer, &index_name(segment.first), &index_file::encode(segment, builder))
    }

    /// The state of the newest snapshot that can be used.
    pub fn newest_snapshot(&mut self) -> Option<State> {
        let mut seqs = self.snapshot_seqs();
        while let Some(seq) = seqs.pop() {
            match self.read_snapshot(seq) {
                Ok(state) => return Some(state),
                Err(why) => self.notice(format!("{SNAPSHOTS}/{} is not used: {why}", snapshot::name(seq))),
            }
        }
        None
    }

    /// Writes the snapshot behind a segment, and removes those that are too old by then.
    ///
    /// # Errors
    /// The disk failed or is full.
    pub fn save_snapshot(&self, segment: &ClosedSegment, state: &State) -> io::Result<()> {
        let bytes = snapshot::encode(segment, state)?;
        save(&self.snapshots, self.writer, &snapshot::name(segment.last), &bytes)?;
        let older = self.snapshot_seqs().into_iter().rev().filter(|seq| *seq <= segment.last);
        for seq in older.skip(SNAPSHOTS_KEPT) {
            self.snapshots.remove(&snapshot::name(seq))?;
        }
        Ok(())
    }

    /// Folds the closed segments up to an event on top of the newest snapshot: an index of each and a new snapshot.
    ///
    /// # Errors
    /// The log cannot be read or the files not be written.
    pub fn fold_through(&mut self, through: Seq) -> Result<(), ArchiveError> {
        let mut state = self.newest_snapshot().unwrap_or_default();
        let segments = self.segments()?;
        let mut last = None;
        for pair in segments.windows(2) {
            let &[first, next] = pair else { continue };
            if next <= state.seq + 1 || next > through + 1 {
                continue;
            }
            let segment = self.closed(first, next)?;
            let mut builder = self.open_index(&segment).is_err().then(|| SegmentBuilder::from_state(first, &state));
            self.read(&segment, |replayed| {
                let record = replayed.record;
                state.apply(record.seq, record.at, &record.event);
                if let Some(builder) = &mut builder {
                    builder.add(&replayed);
                }
            })?;
            if let Some(builder) = builder {
                let saved = self.save_index(&segment, &builder);
                saved.map_err(|error| ArchiveError::Write(format!("{INDEX}/{}", index_name(first)), error))?;
            }
            last = Some(segment);
        }
        if let Some(segment) = last {
            let saved = self.save_snapshot(&segment, &state);
            saved
                .map_err(|error| ArchiveError::Write(format!("{SNAPSHOTS}/{}", snapshot::name(segment.last)), error))?;
        }
        Ok(())
    }

    /// Gives the events of a segment, which must be the one that the next goes on from.
    fn read(&self, segment: &ClosedSegment, mut each: impl FnMut(Replayed<'_>)) -> Result<(), ArchiveError> {
        let read = eventlog::read_closed(&self.events, segment.first, &mut each)?;
        if read != *segment {
            let what = "it does not end where the next segment begins";
            return Err(OpenError::Damage(eventlog::Damage::of_header(segment.first, &what)).into());
        }
        Ok(())
    }

    fn snapshot_seqs(&self) -> Vec<Seq> {
        let names = self.snapshots.list().unwrap_or_default();
        let mut seqs: Vec<Seq> = names.iter().filter_map(|name| snapshot::seq_of(name)).collect();
        seqs.sort_unstable();
        seqs
    }

    fn read_snapshot(&self, seq: Seq) -> Result<State, String> {
        let file = self.snapshots.open(&snapshot::name(seq)).and_then(|file| file.read());
        let found = snapshot::parse(&file.map_err(|error| error.to_string())?)?;
        let no_end = "its event is not the last of a closed segment";
        let segments = self.segments().map_err(|error| error.to_string())?;
        if found.state.seq != seq || !segments.contains(&(seq + 1)) {
            return Err(no_end.to_owned());
        }
        let header = eventlog::read_header(&self.events, seq + 1).map_err(|error| error.to_string())?;
        if header.log != found.log || header.tree.root() != found.root {
            return Err("it is that of another log".to_owned());
        }
        Ok(found.state)
    }
}

/// The name of the index of a segment.
pub fn index_name(first: Seq) -> String {
    format!("{first:020}.idx")
}

/// Writes a file under another name first, so that none is ever seen half written.
fn save<S: Storage>(storage: &S, writer: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = format!("{name}.{writer}{UNFINISHED}");
    let file = storage.create(&unfinished)?;
    let saved = file.write_at(0, bytes).and_then(|()| file.sync());
    let saved = saved.and_then(|()| storage.rename(&unfinished, name)).and_then(|()| storage.sync_names());
    if saved.is_err() {
        // The room is better used for something else; what fails here is tidied at the next start.
        let _ = storage.remove(&unfinished);
    }
    saved
}
