//! Finding a line in a segment's file by halves: numbers and times rise.

use std::io;
use std::ops::Range;

use memchr::memchr;

use super::format::event_start;
use super::reader::{CHUNK_BYTES, LINE_BYTES_MAX};
use super::storage::ReadFile;

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
