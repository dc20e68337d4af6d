//! Looking back into a log, beside a running server or without one: which events, how they are shown, what they add
//! up to. It only reads, and never beyond what was acknowledged.

mod filter;
mod html;
mod line;
mod print;
mod state;
mod stats;

use std::path::Path;

use memchr::memmem::Finder;

use crate::chat::DecodeError;
use crate::chat::Seq;
use crate::eventlog::{EventLine, LogReader, ReadError};

pub use filter::Filter;
pub use html::{Page, PageError, PageFile};
pub use print::{Format, Printer};
pub use state::{Point, StateAt, state_at};
pub use stats::{Stats, stats};

use filter::Verdict;

/// Why a log cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event cannot be understood.
    #[error("event {seq}: {source}")]
    Event {
        /// Its number.
        seq: Seq,
        /// Why.
        source: DecodeError,
    },
    /// What is asked for needs all events from the first on.
    #[error("the log given begins with event {0}, and this needs all from the first: name the whole log's directory")]
    NoBeginning(Seq),
    /// The log does not go as far.
    #[error("there is no event {asked} yet: the log ends with event {last}")]
    NoSuchEvent {
        /// The event asked for.
        asked: Seq,
        /// The last there is.
        last: Seq,
    },
}

/// The events of a log that a filter lets through, in order.
#[derive(Debug)]
pub struct Scan {
    reader: LogReader,
    filter: Filter,
    /// What stands in every line that is meant.
    wanted: Option<Finder<'static>>,
    is_over: bool,
}

impl Scan {
    /// Opens a log (a data directory, an events directory or one segment's file) at the first event that can match.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(log: &Path, filter: Filter) -> Result<Self, ReplayError> {
        let mut reader = LogReader::open(log)?;
        match (filter.since, filter.from) {
            (Some(since), _) => reader.seek_time(since)?,
            (None, Some(from)) => reader.seek(from)?,
            (None, None) => {}
        }
        let wanted = filter.bytes_in_all().map(|bytes| Finder::new(&bytes).into_owned());
        Ok(Self { reader, filter, wanted, is_over: false })
    }

    /// Gives each event that matches to `each`, up to the end of what may be read now. May be called again later.
    ///
    /// # Errors
    /// The log cannot be read, an event not be understood, or what `each` says.
    pub fn for_each<E: From<ReplayError>>(
        &mut self,
        mut each: impl FnMut(&EventLine<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !self.is_over {
            let line = match &self.wanted {
                Some(wanted) => self.reader.next_line_near(wanted),
                None => self.reader.next_line(),
            };
            let Some(event) = line.map_err(ReplayError::from)? else { break };
            match self.filter.judge(&event)? {
                Verdict::Matches => each(&event)?,
                Verdict::Passes => {}
                Verdict::IsOver => self.is_over = true,
            }
            self.is_over |= self.filter.to.is_some_and(|to| event.seq >= to);
        }
        Ok(())
    }

    /// Whether no event can match any more, however the log grows.
    pub fn is_over(&self) -> bool {
        self.is_over
    }
}

/// Refuses a log without its beginning, for what needs all of it.
///
/// # Errors
/// [`ReplayError::NoBeginning`].
pub fn check_beginning(reader: &LogReader) -> Result<(), ReplayError> {
    match reader.next_seq() {
        0 | 1 => Ok(()),
        first => Err(ReplayError::NoBeginning(first)),
    }
}
