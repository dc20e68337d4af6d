//! The segments of a log as files in a directory, for those who read beside its writer: which there are, their first
//! lines, and why they cannot be read.

use std::io;
use std::path::{Path, PathBuf};

use memchr::memchr;
use uuid::Uuid;

use super::damage::{Damage, Foreign, HOW_TO_MEND, Newer, header_error};
use super::format::{Head, SegmentLine, segment_first, segment_name};
use super::opening::{self, HEAD};
use super::storage::{NoFile, ReadFile, list};
use crate::chat::Seq;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error("there is no log at {path}: {why}")]
    NoLog {
        /// Where it was looked for.
        path: PathBuf,
        /// What is there instead.
        why: String,
    },
    /// The disk failed.
    #[error("{path} cannot be read: {source}")]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("the log is damaged: {0}; {HOW_TO_MEND}")]
    Damage(#[from] Damage),
    /// A later program wrote it.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// The directory holds something that is no part of a log.
    #[error(transparent)]
    Foreign(#[from] Foreign),
}

impl ReadError {
    /// A file that cannot be read: where something else stands in its place, that is damage.
    pub(super) fn disk(path: &Path, source: io::Error) -> Self {
        match NoFile::of(&source) {
            Some(what) => Damage::of_file(path.display().to_string(), &what).into(),
            None => Self::Disk { path: path.to_owned(), source },
        }
    }
}

/// The segments of a directory by their first events, rising.
pub(super) fn segments(directory: &Path) -> Result<Vec<Seq>, ReadError> {
    let names = list(directory).map_err(|source| ReadError::disk(directory, source))?;
    let mut segments: Vec<Seq> = names.iter().filter_map(|name| segment_first(name)).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// Refuses a directory that holds what is no file of a log.
pub(super) fn check_names(directory: &Path) -> Result<(), ReadError> {
    let names = list(directory).map_err(|source| ReadError::disk(directory, source))?;
    Ok(opening::check_names(&names)?)
}

/// Why a directory without segments is no log that can be read: all of it may be gone.
pub(super) fn no_segment(directory: &Path, path: &Path) -> ReadError {
    if let Err(foreign) = check_names(directory) {
        return foreign;
    }
    let head = ReadFile::open(&directory.join(HEAD)).and_then(|file| file.read());
    match head.ok().and_then(|bytes| Head::parse(&bytes)).map_or(0, |file| file.head.seq) {
        0 => ReadError::NoLog { path: path.to_owned(), why: "no segment is there".to_owned() },
        last => Damage::of_file(HEAD, &format!("it speaks of events 1 to {last}, and no segment is there")).into(),
    }
}

/// The first line of a segment.
pub(super) fn read_header(directory: &Path, first: Seq) -> Result<SegmentLine, ReadError> {
    let path = directory.join(segment_name(first));
    let line = ReadFile::open(&path).and_then(|file| first_line(&file));
    parse_header(first, &line.map_err(|source| ReadError::disk(&path, source))?)
}

pub(super) fn parse_header(first: Seq, line: &[u8]) -> Result<SegmentLine, ReadError> {
    let header = SegmentLine::parse(line).map_err(|error| header_error::<ReadError>(first, &error))?;
    if header.first != first {
        let what = format!("its first line names event {} as its first", header.first);
        return Err(Damage::of_header(first, &what).into());
    }
    Ok(header)
}

/// The first line of a segment's file, without its line feed.
pub(super) fn first_line(file: &ReadFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 8 << 10];
    let count = file.read_at(0, &mut bytes)?;
    bytes.truncate(memchr(b'\n', &bytes[..count]).unwrap_or(count));
    Ok(bytes)
}

/// Why a segment does not go on from one of the log `log` whose last event was at `time`.
pub(super) fn is_not_behind(header: &SegmentLine, log: Uuid, time: &[u8; 24]) -> Option<String> {
    if header.log != log {
        return Some(format!("it belongs to log {}, and the segment before to log {log}", header.log));
    }
    (header.at.to_rfc3339() < *time).then(|| "its time is before that of the last event before it".to_owned())
}
