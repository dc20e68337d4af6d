//! What is wrong with the files of a log, and where: said alike by all who open, read and verify it.

use std::fmt;

use super::format::{LineError, segment_name};
use super::judge::Broken;
use crate::chat::Seq;

/// What to do about damage.
pub(super) const HOW_TO_MEND: &str = "restore the log from a copy";

/// Where a log is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub file: String,
    /// Which line, from 1, where that is known.
    pub line: Option<u64>,
    /// The first event that may be concerned, where that is known.
    pub seq: Option<Seq>,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    /// Damage at a place in a segment.
    pub fn at(first: Seq, broken: &Broken) -> Self {
        Self { line: Some(broken.line), seq: Some(broken.seq), ..Self::of_segment(first, &broken.what) }
    }

    /// Damage of a segment's first line.
    pub fn of_header(first: Seq, what: &impl ToString) -> Self {
        Self { line: Some(1), seq: Some(first), ..Self::of_segment(first, what) }
    }

    /// Damage somewhere in a segment.
    pub fn of_segment(first: Seq, what: &impl ToString) -> Self {
        Self::of_file(segment_name(first), what)
    }

    /// Damage of a whole file, or somewhere in it.
    pub fn of_file(file: impl Into<String>, what: &impl ToString) -> Self {
        Self { file: file.into(), line: None, seq: None, what: what.to_string() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(seq) = self.seq {
            write!(f, ", event {seq}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for Damage {}

/// A later program wrote the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log is a newer program's: {file}, line {line}: {what}")]
pub struct Newer {
    /// Which file.
    pub file: String,
    /// Which line, from 1.
    pub line: u64,
    /// What this program does not know.
    pub what: String,
}

impl Newer {
    /// What a later program wrote in a line of a segment.
    pub fn at(first: Seq, line: u64, what: &impl ToString) -> Self {
        Self { file: segment_name(first), line, what: what.to_string() }
    }
}

/// The log's directory holds something that is no part of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log's directory holds {0:?}, which is no file of a log; move it elsewhere")]
pub struct Foreign(pub String);

/// What is wrong with the first line of a segment.
pub(super) fn header_error<E: From<Damage> + From<Newer>>(first: Seq, error: &LineError) -> E {
    match error {
        LineError::Newer(_) => Newer::at(first, 1, error).into(),
        LineError::Broken(_) => Damage::of_header(first, error).into(),
    }
}
