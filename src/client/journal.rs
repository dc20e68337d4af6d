//! The journal of a device: its outbox and cursor as JSON lines, one for each change.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::contract::Keep;
use crate::chat::Seq;

/// A change, as a line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    Base(u64),
    Added(String),
    Settled(u64),
    Refused(u64),
    Cursor { log: Uuid, seq: Seq },
}

/// What the journal amounts to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) settled: u64,
    pub(super) left: VecDeque<String>,
    pub(super) cursor: Option<(Uuid, Seq)>,
}

impl Line {
    /// The line for a change; a good login changes nothing of a journal, and heads have a file of their own.
    pub(super) fn of(keep: &Keep) -> Option<Self> {
        Some(match keep {
            Keep::LoggedIn | Keep::Head(_) => return None,
            Keep::Added(text) => Self::Added(text.clone()),
            Keep::Settled(count) => Self::Settled(*count),
            Keep::Refused(number) => Self::Refused(*number),
            Keep::Base(number) => Self::Base(*number),
            Keep::Cursor(log, seq) => Self::Cursor { log: *log, seq: *seq },
        })
    }
}

impl Contents {
    /// Folds the lines of a journal. A line that a crash has cut ends it.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut contents = Self::default();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let whole = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok());
            let Some(line) = whole else { break };
            contents.apply(line);
        }
        contents
    }

    pub(super) fn apply(&mut self, line: Line) {
        match line {
            Line::Base(number) => self.settled = number,
            Line::Added(text) => self.left.push_back(text),
            Line::Settled(count) => {
                for _ in 0..count {
                    self.left.pop_front();
                }
                self.settled += count;
            }
            Line::Refused(number) => {
                let place = number.checked_sub(self.settled + 1).and_then(|place| usize::try_from(place).ok());
                if let Some(place) = place {
                    self.left.remove(place);
                }
            }
            Line::Cursor { log, seq } => self.cursor = Some((log, seq)),
        }
    }

    /// The shortest journal that amounts to this.
    pub(super) fn write(&self) -> Vec<u8> {
        let cursor = self.cursor.map(|(log, seq)| Line::Cursor { log, seq });
        let left = self.left.iter().map(|text| Line::Added(text.clone()));
        [Line::Base(self.settled)].into_iter().chain(cursor).chain(left).flat_map(|line| encode(&line)).collect()
    }

    /// About how many bytes that journal has.
    pub(super) fn bytes(&self) -> u64 {
        self.left.iter().map(|text| text.len() as u64 + 16).sum()
    }
}

pub(super) fn encode(line: &Line) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_a_crash_cut_is_as_if_it_had_not_been_written() {
        let whole = b"{\"base\":3}\n{\"added\":\"a\"}\n{\"added\":\"b\"}\n";
        let contents = Contents::read(&whole[..whole.len() - 3]);
        assert_eq!((contents.settled, contents.left), (3, VecDeque::from(["a".to_owned()])));
    }
}
