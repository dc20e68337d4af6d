//! An event as it is read back from the log by whoever folds it.

use crate::chat::{Addressee, Event, Origin, Seq, State};
use crate::clock::Timestamp;
use crate::names::UserName;

/// An event of the log, with where it stands.
#[derive(Debug)]
pub struct Replayed<'a> {
    /// Its number.
    pub seq: Seq,
    /// When it was.
    pub at: Timestamp,
    /// What happened.
    pub event: ReplayedEvent<'a>,
    /// Its line, without its line feed.
    pub line: &'a [u8],
    /// The first event of the segment it is in.
    pub segment: Seq,
    /// Where its line begins in the file, in bytes.
    pub offset: u64,
    /// The length of its line with the line feed, in bytes.
    pub length: u32,
}

/// What happened: of a message without its text, which is most of it, and which no fold looks at.
#[derive(Debug)]
pub enum ReplayedEvent<'a> {
    /// A message, private or to a group.
    Message {
        /// Who wrote it.
        from: UserName,
        /// To whom.
        to: Addressee,
        /// Its number, if a device numbered it.
        origin: Option<Origin>,
    },
    /// Any event.
    Event(&'a Event),
}

impl Replayed<'_> {
    /// Folds it into a state.
    pub fn apply_to(&self, state: &mut State) {
        match &self.event {
            ReplayedEvent::Message { from, origin, .. } => state.apply_message(self.seq, self.at, *from, *origin),
            ReplayedEvent::Event(event) => state.apply(self.seq, self.at, event),
        }
    }
}
