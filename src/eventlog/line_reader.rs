//! Lines of the log by their places in its files, for a server that knows them.

use std::io;
use std::path::{Path, PathBuf};

use super::format::segment_name;
use super::storage::ReadFile;
use crate::chat::Seq;

/// Reads lines of the log by their places, for a server.
#[derive(Debug)]
pub struct LineReader {
    directory: PathBuf,
    open: Option<(Seq, ReadFile)>,
}

impl LineReader {
    /// A reader of the log in an events directory.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), open: None }
    }

    /// Appends `length` bytes at `offset` of the segment that begins with event `segment`.
    ///
    /// # Errors
    /// The disk failed, or the file is shorter.
    pub fn read(&mut self, segment: Seq, offset: u64, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let file = match &mut self.open {
            Some((first, file)) if *first == segment => file,
            other => &other.insert((segment, ReadFile::open(&self.directory.join(segment_name(segment)))?)).1,
        };
        let start = out.len();
        out.resize(start + length, 0);
        if file.read_at(offset, &mut out[start..])? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}
