//! Finding a line in a segment: in its file by halves, for numbers and times rise; in what was read by what stands in it.

use std::io;
use std::ops::Range;

use memchr::memmem::Finder;
use memchr::{memchr, memmem, memrchr};

use super::format::event_start;
use super::reader::{CHUNK_BYTES, LINE_BYTES_MAX};
use super::storage::ReadFile;
use crate::chat::Seq;

/// Bytes in which a line is looked for one by one once a search by halves has come so near.
const SCAN_BYTES: u64 = 64 << 10;

/// The beginning of a line that is before what is wanted, and near it: what is wanted is found by reading on from it.
pub(super) fn find_line(file: &ReadFile, is_before: impl Fn(&[u8]) -> bool) -> io::Result<u64> {
    let (mut low, mut high) = (0, file.length()?);
    let mut buffer = vec![0; CHUNK_BYTES];
    while high - low > SCAN_BYTES {
        let middle = low + (high - low) / 2;
        match event_from(file, middle, high, &mut buffer)? {
            Some((offset, line)) if is_before(&buffer[line.clone()]) => low = offset,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The first event line that begins behind `from` and before `to`: its offset, and its place in `buffer`.
fn event_from(file: &ReadFile, from: u64, to: u64, buffer: &mut Vec<u8>) -> io::Result<Option<(u64, Range<usize>)>> {
    loop {
        let count = file.read_at(from, buffer)?;
        let mut start = memchr(b'\n', &buffer[..count]).map_or(count, |end| end + 1);
        while let Some(length) = memchr(b'\n', &buffer[start..count]) {
            let line = start..start + length;
            if from + start as u64 >= to {
                return Ok(None);
            }
            if event_start(&buffer[line.clone()]).is_some() {
                return Ok(Some((from + start as u64, line)));
            }
            start = line.end + 1;
        }
        // No line of the log is longer than this; behind it there is none.
        if count < buffer.len() || buffer.len() > 2 * LINE_BYTES_MAX {
            return Ok(None);
        }
        let longer = buffer.len() * 2;
        buffer.resize(longer, 0);
    }
}

/// In lines that follow those before event `next`: where the event line begins in which `wanted` stands, else the last
/// whole one, and its event, at most `through`. It must have the number that follows from how many are passed over: else
/// there is none, and whoever reads them one by one finds what is wrong.
pub(super) fn line_near(lines: &[u8], wanted: &Finder<'_>, next: Seq, through: Seq) -> Option<(usize, Seq)> {
    let mut end = wanted.find(lines).or_else(|| memrchr(b'\n', lines)).unwrap_or(0);
    while end > 0 {
        let begin = memrchr(b'\n', &lines[..end]).map_or(0, |line_feed| line_feed + 1);
        match event_start(&lines[begin..]) {
            Some((seq, _)) if seq > through => return None,
            Some((seq, _)) if seq >= next => {
                return (seq - next == count_events(&lines[..begin])).then_some((begin, seq));
            }
            _ => end = begin.saturating_sub(1),
        }
    }
    None
}

/// How many event lines begin in whole lines. No text holds a line feed, so that none can look like one.
fn count_events(lines: &[u8]) -> u64 {
    let behind_others = memmem::find_iter(lines, b"\n{\"seq\":").count() as u64;
    behind_others + u64::from(lines.starts_with(b"{\"seq\":"))
}
