//! Events that become durable together, and what is to be done then.

use std::ops::Range;
use std::sync::Arc;

use crate::chat::Seq;
use crate::clock::Timestamp;

use super::connection::ConnectionKey;
use super::limits;
use super::shared::narrow;
use super::spare::{is_large, shrink};

/// One thing to be done when a batch is durable, in order. Events are named by their place in the batch.
#[derive(Debug)]
pub(super) enum Delivery {
    /// An event for a session that is fed live.
    Event { to: ConnectionKey, place: u32 },
    /// A message for the sessions of all members of a group, but not the one that sent it.
    Audience { audience: u32, except: Option<ConnectionKey>, place: u32 },
    /// An answer or signal, already in the receiver's dialect.
    Note { to: ConnectionKey, start: u32, end: u32 },
    /// A login is durable: its backlog begins after this event.
    Backlog { to: ConnectionKey, after: Seq },
    /// Everything that a history may hold is durable.
    History { to: ConnectionKey },
    /// The last word to a connection has been said.
    Close { to: ConnectionKey },
}

/// Events that become durable together, and all that waits for them.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) lines: Vec<u8>,
    /// Where each event's line ends in `lines`.
    pub(super) ends: Vec<u32>,
    pub(super) first: Seq,
    pub(super) at: Timestamp,
    pub(super) notes: Vec<u8>,
    pub(super) deliveries: Vec<Delivery>,
    /// Whom messages to groups go to.
    pub(super) audiences: Vec<Arc<[ConnectionKey]>>,
    /// How many connections those are.
    audience_count: usize,
    pub(super) console: Vec<u8>,
    pub(super) bytes: u64,
    /// Bytes of notes that came when the log had the batch already.
    pub(super) late_bytes: usize,
}

impl Pending {
    /// Whether as much is in it as may be.
    pub(super) fn is_full(&self) -> bool {
        self.lines.len() + self.notes.len() > limits::BATCH_BYTES_MAX
            || self.deliveries.len() + self.audience_count > limits::BATCH_DELIVERIES_MAX
    }

    /// Whether as much came behind it as may, while the log had it.
    pub(super) fn is_full_of_late_notes(&self) -> bool {
        self.late_bytes > limits::BATCH_BYTES_MAX
    }

    /// Whether an event is in it.
    pub(super) fn has_events(&self) -> bool {
        !self.ends.is_empty()
    }

    /// Its last event, where there is one.
    pub(super) fn last(&self) -> Seq {
        self.first + self.ends.len() as Seq - 1
    }

    /// Where an event's line stands in `lines`.
    pub(super) fn line(&self, place: u32) -> Range<usize> {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        start as usize..self.ends[place as usize] as usize
    }

    /// Queues a message for an audience.
    pub(super) fn tell_audience(&mut self, audience: Arc<[ConnectionKey]>, except: Option<ConnectionKey>, place: u32) {
        self.audience_count += audience.len();
        if self.audiences.last().is_none_or(|last| !Arc::ptr_eq(last, &audience)) {
            self.audiences.push(audience);
        }
        let audience = narrow(self.audiences.len() - 1);
        self.deliveries.push(Delivery::Audience { audience, except, place });
    }

    /// The same with nothing in it, for another batch.
    pub(super) fn emptied(mut self) -> Self {
        self.lines.clear();
        self.ends.clear();
        self.notes.clear();
        self.deliveries.clear();
        self.audiences.clear();
        Self { bytes: 0, late_bytes: 0, audience_count: 0, console: Vec::new(), ..self }
    }

    /// Whether its buffers have grown large.
    pub(super) fn is_large(&self) -> bool {
        let has_bytes = is_large(&self.lines) || is_large(&self.notes);
        has_bytes || is_large(&self.ends) || is_large(&self.deliveries) || is_large(&self.audiences)
    }

    /// Gives large buffers back in which nothing is.
    pub(super) fn shrink(&mut self) {
        shrink(&mut self.lines);
        shrink(&mut self.ends);
        shrink(&mut self.notes);
        shrink(&mut self.deliveries);
        shrink(&mut self.audiences);
    }
}
