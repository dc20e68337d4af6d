//! Keeping the derived files of one log: read on, fold, write; after a failure it goes on where it was.

use std::io;
use std::path::{Path, PathBuf};

use super::files::Files;
use super::{Derived, Growth, Journal};
use crate::chat::{DecodeError, Seq};
use crate::eventlog::{LogReader, ReadError};

/// About how many bytes of lines are held before they are written.
const GROWTH_BYTES_MAX: usize = 4 << 20;

/// Why the derived files are behind.
#[derive(Debug, thiserror::Error)]
pub enum DeriveError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event cannot be understood.
    #[error("event {seq} of the log: {source}")]
    Event {
        /// Its number.
        seq: Seq,
        /// Why.
        source: DecodeError,
    },
    /// A file cannot be written.
    #[error("the derived file {path} cannot be written: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else changed or removed a file.
    #[error("the derived file {0} was changed by somebody else")]
    Changed(PathBuf),
}

/// The derived files of one log in one directory.
#[derive(Debug)]
pub struct Keeper {
    reader: LogReader,
    directory: PathBuf,
    derived: Derived,
    files: Files,
    /// The last event folded.
    seq: Seq,
    /// Lines that are still to be written.
    pending: Vec<(Journal, Vec<u8>)>,
    is_userlog_due: bool,
}

impl Keeper {
    /// Files to be made anew in `directory` from the log that `reader` stands at the beginning of.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(reader: LogReader, directory: &Path) -> Result<Self, DeriveError> {
        Ok(Self {
            reader,
            directory: directory.to_owned(),
            derived: Derived::default(),
            files: Files::new(directory)?,
            seq: 0,
            pending: empty(),
            is_userlog_due: true,
        })
    }

    /// From now on the log is read up to `through`, by the word of whoever made that durable.
    pub fn set_end(&mut self, through: Seq) {
        self.reader.set_end(through);
    }

    /// Brings the files to the end of what may be read of the log.
    ///
    /// # Errors
    /// What stands in the way; another call goes on from there.
    pub fn catch_up(&mut self) -> Result<(), DeriveError> {
        loop {
            while let Some((journal, lines)) = self.pending.last() {
                self.files.append(*journal, lines)?;
                self.pending.pop();
            }
            self.read_on()?;
            if self.pending.is_empty() {
                break;
            }
        }
        self.files.show()?;
        if self.is_userlog_due {
            self.files.replace_userlog(self.derived.userlog())?;
            self.is_userlog_due = false;
        }
        Ok(())
    }

    /// Forgets all, so that the files are made anew.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn start_over(&mut self) -> Result<(), DeriveError> {
        self.files = Files::new(&self.directory)?;
        self.derived = Derived::default();
        self.seq = 0;
        self.pending = empty();
        self.is_userlog_due = true;
        Ok(self.reader.seek(1)?)
    }

    /// Reads and folds until there is enough to be written, or no more to be read.
    fn read_on(&mut self) -> Result<(), DeriveError> {
        let mut growth = Growth::default();
        let folded = self.fold(&mut growth);
        self.pending = growth.into_lines();
        if folded.is_err() {
            // The next call reads the event again that this one could not.
            self.reader.seek(self.seq + 1)?;
        }
        folded
    }

    fn fold(&mut self, growth: &mut Growth) -> Result<(), DeriveError> {
        while growth.bytes() < GROWTH_BYTES_MAX {
            let Some(line) = self.reader.next_line()? else { return Ok(()) };
            let folded = self.derived.apply_line(&line, growth);
            self.is_userlog_due |= folded.map_err(|source| DeriveError::Event { seq: line.seq, source })?;
            self.seq = line.seq;
        }
        Ok(())
    }
}

/// What stands in a directory from the start: the file of private messages, while there are none.
fn empty() -> Vec<(Journal, Vec<u8>)> {
    vec![(Journal::Messages, Vec::new())]
}
