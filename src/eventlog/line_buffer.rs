//! Bytes read from a file one after the other, and cut into lines.

use std::io;
use std::ops::Range;

use memchr::memchr;

/// What was read and not taken yet. Places in it hold until more is read.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    /// What stands behind `end` is none of the file, and is kept so that it need not be cleared for each reading.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl LineBuffer {
    /// Forgets all.
    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// All up to the end of what was read.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    /// What was not taken yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Goes to a place.
    pub(super) fn seek(&mut self, place: usize) {
        self.start = place;
    }

    /// Passes over so many bytes.
    pub(super) fn pass_over(&mut self, count: usize) {
        self.start += count;
    }

    /// Takes the next line, if it is there as a whole: its place, without its line feed. So many bytes are known to have none.
    #[inline]
    pub(super) fn cut_line(&mut self, searched: usize) -> Option<Range<usize>> {
        let length = memchr(b'\n', &self.rest()[searched..])?;
        let line = self.start..self.start + searched + length;
        self.start = line.end + 1;
        Some(line)
    }

    /// Has up to `count` bytes read behind the others; gives how many there were.
    pub(super) fn fill(
        &mut self,
        count: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let room = self.end + count;
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        let read = read(&mut self.bytes[self.end..room])?;
        self.end += read;
        Ok(read)
    }
}
