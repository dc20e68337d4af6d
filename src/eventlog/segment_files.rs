//! The segments of a log as files in a directory, for those who read beside its writer: which there are, and their first
//! lines.

use std::io;
use std::path::Path;

use memchr::memchr;
use uuid::Uuid;

use super::format::{LineError, SegmentLine, segment_first, segment_name};
use super::opening::{Damage, foreign};
use super::reader::ReadError;
use super::storage::{ReadFile, list};
use crate::chat::Seq;

/// The segments of a directory by their first events, rising.
pub(super) fn segments(directory: &Path) -> Result<Vec<Seq>, ReadError> {
    let names = list(directory).map_err(|source| ReadError::Disk { path: directory.to_owned(), source })?;
    let mut segments: Vec<Seq> = names.iter().filter_map(|name| segment_first(name)).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// Refuses a directory that holds what is no file of a log.
pub(super) fn check_names(directory: &Path) -> Result<(), ReadError> {
    let names = list(directory).map_err(|source| ReadError::Disk { path: directory.to_owned(), source })?;
    foreign(&names).map_or(Ok(()), |name| Err(ReadError::Foreign(name.clone())))
}

/// The first line of a segment.
pub(super) fn read_header(directory: &Path, first: Seq) -> Result<SegmentLine, ReadError> {
    let path = directory.join(segment_name(first));
    let line = ReadFile::open(&path).and_then(|file| first_line(&file));
    parse_header(first, &line.map_err(|source| ReadError::Disk { path, source })?)
}

pub(super) fn parse_header(first: Seq, line: &[u8]) -> Result<SegmentLine, ReadError> {
    let header = SegmentLine::parse(line).map_err(|error| header_error(first, &error))?;
    if header.first != first {
        let what = format!("its first line names event {} as its first", header.first);
        return Err(ReadError::Damage(Damage::of_header(first, &what)));
    }
    Ok(header)
}

/// What is wrong with the first line of a segment.
pub(super) fn header_error(first: Seq, error: &LineError) -> ReadError {
    match error {
        LineError::Newer(_) => ReadError::Newer { file: segment_name(first), line: 1, what: error.to_string() },
        LineError::Broken(_) => ReadError::Damage(Damage::of_header(first, error)),
    }
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
