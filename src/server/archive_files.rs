//! The files that stand for closed segments: an index of each, and snapshots of the state. Made, found and made anew.
//!
//! Nothing here is needed to be right: what is missing, damaged or of another log is made again from the segments.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::archivist::Archived;
use super::index_file::{self, Bytes, IndexError, IndexFile};
use super::limits::SNAPSHOTS_BYTES_MAX;
use super::segment::{self, SegmentBuilder};
use crate::chat::{Seq, State};
use crate::eventlog::snapshot;
use crate::eventlog::storage::{EVENTS, INDEX, SNAPSHOTS};
use crate::eventlog::{self, ClosedSegment, OpenError, Replayed, Storage, StorageFile};

/// How many of the newest snapshots are kept however large they are: the newest, and one in case that is damaged.
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
    /// Snapshots that cannot be used and were named.
    unusable: BTreeSet<Seq>,
    /// Why no index could be written for who asked, as it was said.
    not_written: Option<String>,
    /// Files that are written and have not got their names yet.
    unnamed: Vec<Unnamed>,
    /// Directories that were made for them.
    made: Vec<Kind>,
    /// Whether the segments before a snapshot are known to have their indexes.
    has_old_indexes: bool,
}

/// A file that is written and has not got its name yet.
#[derive(Debug)]
struct Unnamed {
    kind: Kind,
    /// The event that it is named after.
    seq: Seq,
    bytes: u64,
}

impl Unnamed {
    fn name(&self) -> String {
        match self.kind {
            Kind::Index => index_name(self.seq),
            Kind::Snapshot => snapshot::name(self.seq),
        }
    }
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Index,
    Snapshot,
}

impl<S: Storage> ArchiveFiles<S> {
    /// The files beside a log, for the thread `writer`. Their directories are made once something is to be written.
    ///
    /// # Errors
    /// What stands there are no directories.
    pub fn new(log: &S, writer: &'static str) -> Result<Self, OpenError> {
        let (events, index, snapshots) = (log.beside(EVENTS), log.beside(INDEX), log.beside(SNAPSHOTS));
        for (directory, name) in [(&index, INDEX), (&snapshots, SNAPSHOTS)] {
            match directory.list() {
                // It is done without until it is there, and said where things are tidied.
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(OpenError::derived(name, source));
                }
                _ => {}
            }
        }
        Ok(Self {
            writer,
            events,
            index,
            snapshots,
            notices: Vec::new(),
            unusable: BTreeSet::new(),
            not_written: None,
            unnamed: Vec::new(),
            made: Vec::new(),
            has_old_indexes: false,
        })
    }

    /// What the operator should know, since the last call.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    pub(super) fn notice(&mut self, notice: String) {
        self.notices.push(notice);
    }

    /// Says why an index is made anew; one that is not there is no news.
    pub(super) fn notice_index(&mut self, segment: Seq, why: &IndexError) {
        if matches!(why, IndexError::Disk(error) if error.kind() == io::ErrorKind::NotFound) {
            return;
        }
        self.notice(format!("the index of segment {segment} is made anew: {why}"));
    }

    /// Removes what an earlier run left unfinished, and names what is not ours.
    pub fn tidy(&mut self) {
        let segments = self.segments().unwrap_or_default();
        let closed = segments.split_last().map(|(_, closed)| closed).unwrap_or_default();
        for name in self.names(Kind::Index) {
            if name.ends_with(UNFINISHED) {
                let _ = self.index.remove(&name);
            } else if !closed.iter().any(|first| index_name(*first) == name) {
                self.notice(format!("{INDEX}/{name} is the index of no closed segment, and is not used"));
            }
        }
        for name in self.names(Kind::Snapshot) {
            if name.ends_with(UNFINISHED) {
                let _ = self.snapshots.remove(&name);
            } else if snapshot::seq_of(&name).is_none() {
                self.notice(format!("{SNAPSHOTS}/{name} is no snapshot, and is not used"));
            }
        }
    }

    /// The names of the files of a kind; says why they cannot be had.
    fn names(&mut self, kind: Kind) -> Vec<String> {
        let names = self.directory(kind).list();
        names.unwrap_or_else(|error| {
            let directory = if kind == Kind::Index { INDEX } else { SNAPSHOTS };
            self.notice(format!("{directory} cannot be used: {error}"));
            Vec::new()
        })
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

    /// Makes the index of the segment at `place` of `segments` anew. It begins with the transfers that are open behind the
    /// segment before, as the index of that one has them, or the snapshot; where there is neither, that index is made, too.
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
                Err(error) => match self.read_snapshot(before.last) {
                    Ok(state) => {
                        transfers = segment::open_transfers(&state);
                        break;
                    }
                    Err(_) => self.notice_index(before.first, &error),
                },
            }
            begin -= 1;
        }
        loop {
            let segment = self.closed(segments[begin], segments[begin + 1])?;
            let mut builder = SegmentBuilder::new(segment.first, transfers);
            self.read(&segment, |replayed| builder.add(&replayed))?;
            let saved = self.write_index(&segment, &builder).and_then(|()| self.publish());
            if begin < place {
                transfers = builder.transfers;
                begin += 1;
                continue;
            }
            let bytes = match saved.and_then(|()| self.index.open(&index_name(segment.first))) {
                Ok(file) => {
                    self.not_written = None;
                    Bytes::File(file)
                }
                Err(error) => {
                    let why = error.to_string();
                    if self.not_written.as_ref() != Some(&why) {
                        self.notice(format!("{INDEX}/{} cannot be written: {why}", index_name(segment.first)));
                        self.not_written = Some(why);
                    }
                    Bytes::Memory(index_file::encode(&segment, &builder))
                }
            };
            return IndexFile::open(bytes, &segment).map_err(|error| ArchiveError::Index(segment.first, error));
        }
    }

    /// Writes the index of a segment; nobody sees it before [`ArchiveFiles::publish`].
    ///
    /// # Errors
    /// The disk failed or is full.
    pub fn write_index(&mut self, segment: &ClosedSegment, builder: &SegmentBuilder) -> io::Result<()> {
        self.write(Kind::Index, segment.first, &index_file::encode(segment, builder))
    }

    /// Writes the snapshot behind a segment; nobody sees it before [`ArchiveFiles::publish`].
    ///
    /// # Errors
    /// The disk failed or is full.
    pub fn write_snapshot(&mut self, segment: &ClosedSegment, state: &State) -> io::Result<()> {
        self.write(Kind::Snapshot, segment.last, &snapshot::encode(segment, state)?)?;
        // Those that would give way at once need not wait for it.
        let sizes = self.unnamed.iter().filter(|file| file.kind == Kind::Snapshot).map(|file| (file.seq, file.bytes));
        let given = to_give_way(sizes.collect(), SNAPSHOTS_BYTES_MAX);
        self.remove_unnamed(|file| file.kind == Kind::Snapshot && given.contains(&file.seq));
        Ok(())
    }

    /// Writes a file under another name first, so that none is ever seen half written.
    fn write(&mut self, kind: Kind, seq: Seq, bytes: &[u8]) -> io::Result<()> {
        let file = Unnamed { kind, seq, bytes: bytes.len() as u64 };
        if self.directory(kind).make()? {
            self.made.push(kind);
        }
        let (directory, unfinished) = (self.directory(kind), self.unfinished(&file));
        let written = directory.create(&unfinished).and_then(|file| file.write_at(0, bytes).and_then(|()| file.sync()));
        if written.is_err() {
            // The room is better used for something else; what fails here is tidied at the next start.
            let _ = directory.remove(&unfinished);
            return written;
        }
        self.unnamed.push(file);
        Ok(())
    }

    /// Gives their names to the files that were written, in place of any that have them; removes the snapshots that there
    /// is no room for by then.
    ///
    /// # Errors
    /// The disk failed or is full; what has no name yet is removed.
    pub fn publish(&mut self) -> io::Result<()> {
        let mut named = Vec::new();
        while let Some(file) = self.unnamed.first() {
            if let Err(error) = self.directory(file.kind).rename(&self.unfinished(file), &file.name()) {
                self.discard();
                return Err(error);
            }
            named.push(self.unnamed.remove(0).kind);
        }
        self.made.clear();
        for kind in [Kind::Index, Kind::Snapshot] {
            if named.contains(&kind) {
                self.directory(kind).sync_names()?;
            }
        }
        if named.contains(&Kind::Snapshot) { self.thin_snapshots() } else { Ok(()) }
    }

    /// Removes the files that were written and have not got their names, and the directories that were made for them.
    pub fn discard(&mut self) {
        self.remove_unnamed(|_| true);
        for kind in std::mem::take(&mut self.made) {
            // One that by now holds something else stays.
            let _ = self.directory(kind).unmake();
        }
    }

    fn remove_unnamed(&mut self, which: impl Fn(&Unnamed) -> bool) {
        for file in self.unnamed.iter().filter(|file| which(file)) {
            // What fails here is tidied at the next start.
            let _ = self.directory(file.kind).remove(&self.unfinished(file));
        }
        self.unnamed.retain(|file| !which(file));
    }

    fn unfinished(&self, file: &Unnamed) -> String {
        format!("{}.{}{UNFINISHED}", file.name(), self.writer)
    }

    fn directory(&self, kind: Kind) -> &S {
        match kind {
            Kind::Index => &self.index,
            Kind::Snapshot => &self.snapshots,
        }
    }

    /// The state of the newest snapshot that can be used.
    pub fn newest_snapshot(&mut self) -> Option<State> {
        let mut seqs = self.snapshot_seqs();
        while let Some(seq) = seqs.pop() {
            match self.read_snapshot(seq) {
                Ok(state) => return Some(state),
                Err(why) if self.unusable.insert(seq) => self.notice(snapshot::not_used(seq, &why)),
                Err(_) => {}
            }
        }
        None
    }

    fn thin_snapshots(&self) -> io::Result<()> {
        let mut sizes = Vec::new();
        for seq in self.snapshot_seqs() {
            sizes.push((seq, self.snapshots.open(&snapshot::name(seq))?.length()?));
        }
        for seq in to_give_way(sizes, SNAPSHOTS_BYTES_MAX) {
            self.snapshots.remove(&snapshot::name(seq))?;
        }
        Ok(())
    }

    /// Archives the closed segments up to an event, and makes the indexes that older ones lack.
    pub fn archive_through(&mut self, through: Seq) -> Archived {
        let folded = self.fold_through(through);
        if let Err(error) = &folded {
            self.notice(format!("closed segments could not be archived: {error}; trying again"));
        }
        let is_done = folded.is_ok();
        Archived { is_done, is_owing: !is_done || !self.has_old_indexes, notices: self.take_notices() }
    }

    /// Folds the closed segments up to an event on top of the newest snapshot: an index of each and a snapshot behind it.
    /// The first time the segments before that snapshot get the indexes that they lack, too.
    fn fold_through(&mut self, through: Seq) -> Result<(), ArchiveError> {
        let mut state = self.newest_snapshot().unwrap_or_default();
        let segments = self.segments()?;
        if !self.has_old_indexes {
            self.has_old_indexes = self.make_missing_indexes(&segments, state.seq);
        }
        for pair in segments.windows(2) {
            let &[first, next] = pair else { continue };
            if next <= state.seq + 1 || next > through + 1 {
                continue;
            }
            let segment = self.closed(first, next)?;
            let mut builder = self.open_index(&segment).is_err().then(|| SegmentBuilder::from_state(first, &state));
            self.read(&segment, |replayed| {
                replayed.apply_to(&mut state);
                if let Some(builder) = &mut builder {
                    builder.add(&replayed);
                }
            })?;
            if let Some(builder) = builder {
                let saved = self.write_index(&segment, &builder).and_then(|()| self.publish());
                saved.map_err(|error| ArchiveError::Write(format!("{INDEX}/{}", index_name(first)), error))?;
            }
            let saved = self.write_snapshot(&segment, &state).and_then(|()| self.publish());
            saved
                .map_err(|error| ArchiveError::Write(format!("{SNAPSHOTS}/{}", snapshot::name(segment.last)), error))?;
        }
        Ok(())
    }

    /// Makes the indexes that segments up to an event lack; gives whether none lacks one any more. One that is there and
    /// wrong is found by whoever asks it.
    fn make_missing_indexes(&mut self, segments: &[Seq], through: Seq) -> bool {
        let closed = segments.windows(2).take_while(|pair| pair[1] <= through + 1).count();
        let names = self.index.list().unwrap_or_default();
        for place in (0..closed).filter(|place| !names.contains(&index_name(segments[*place]))) {
            match self.make_index(segments, place) {
                // On a disk that takes none the others are not tried either.
                Ok(index) if index.is_in_memory() => break,
                Ok(_) => {}
                Err(error) => self.notice(format!("the index of segment {} cannot be made: {error}", segments[place])),
            }
        }
        let names = self.index.list().unwrap_or_default();
        segments[..closed].iter().all(|first| names.contains(&index_name(*first)))
    }

    /// Gives the events of a segment, which must be the one that the next goes on from.
    fn read(&self, segment: &ClosedSegment, mut each: impl FnMut(Replayed<'_>)) -> Result<(), ArchiveError> {
        let read = eventlog::read_closed(&self.events, segment.first, &mut each)?;
        if read != *segment {
            let what = "it does not end where the next segment begins";
            return Err(OpenError::from(eventlog::Damage::of_segment(segment.first, &what)).into());
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
        let segments = self.segments().map_err(|error| error.to_string())?;
        if !segments.contains(&seq.saturating_add(1)) {
            return Err(snapshot::NO_END.to_owned());
        }
        let next = eventlog::read_header(&self.events, seq + 1).map_err(|error| error.to_string())?;
        Ok(found.state_before(&next)?)
    }
}

/// The name of the index of a segment.
pub fn index_name(first: Seq) -> String {
    format!("{first:020}.idx")
}

/// The snapshots that are removed so that the rest take no more than so many bytes together: one by one the one nearest
/// to those beside it, so that what is left stays evenly spread. Of the newest none.
fn to_give_way(mut snapshots: Vec<(Seq, u64)>, bytes_max: u64) -> Vec<Seq> {
    let mut bytes: u64 = snapshots.iter().map(|(_, bytes)| bytes).sum();
    let mut given = Vec::new();
    while bytes > bytes_max && snapshots.len() > SNAPSHOTS_KEPT {
        let before = |place: usize| if place == 0 { 0 } else { snapshots[place - 1].0 };
        let gap = |place: &usize| snapshots[place + 1].0 - before(*place);
        let Some(place) = (0..snapshots.len() - SNAPSHOTS_KEPT).min_by_key(gap) else { break };
        let (seq, size) = snapshots.remove(place);
        bytes -= size;
        given.push(seq);
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshots_that_stay_fit_are_spread_evenly_and_the_newest_are_among_them() {
        let mut kept: Vec<(Seq, u64)> = Vec::new();
        for number in 1..=1_000 {
            kept.push((number * 100, 10));
            let given = to_give_way(kept.clone(), 200);
            kept.retain(|(seq, _)| !given.contains(seq));
        }
        let seqs: Vec<Seq> = [0].into_iter().chain(kept.iter().map(|(seq, _)| *seq)).collect();
        assert_eq!((kept.len(), seqs[19], seqs[20]), (20, 99_900, 100_000));
        assert!(seqs.windows(2).all(|pair| pair[1] - pair[0] <= 4 * 100_000 / 20), "{seqs:?}");
        assert_eq!(to_give_way(vec![(1, 100), (2, 300), (3, 300)], 200), [1], "the newest two stay");
        assert_eq!(to_give_way(vec![(1, 100), (2, 100)], 200), [0; 0]);
    }
}
