//! Writing: which sockets the shell is to look at, in which order, and what it is to write to each.

use std::collections::VecDeque;

use super::connection::{ConnectionKey, Now, Touched};
use super::hub::Hub;
use super::limits::ANSWERS_FIRST_MAX;

impl Hub {
    /// A connection with bytes to be written or with a changed wish to read: one with an answer or one without, whichever is
    /// to come first, that has waited longest. What its socket does not take is owed to [`Hub::handle_blocked`].
    pub fn next_touched(&mut self, answers_first: bool) -> Option<ConnectionKey> {
        loop {
            let queues = [(&mut self.answered, Touched::Answered), (&mut self.touched, Touched::Told)];
            let [first, second] = if answers_first {
                queues
            } else {
                let [answered, told] = queues;
                [told, answered]
            };
            let take = |(queue, touched): (&mut VecDeque<ConnectionKey>, Touched)| Some((queue.pop_front()?, touched));
            let (key, touched) = take(first).or_else(|| take(second))?;
            if let Some(connection) = self.connection_mut(key).filter(|connection| connection.touched == touched) {
                connection.touched = Touched::Not;
                return Some(key);
            }
        }
    }

    /// Whether connections wait to be looked at.
    pub fn has_touched(&self) -> bool {
        !self.answered.is_empty() || !self.touched.is_empty()
    }

    /// Whether so much waits to be written that all connections should be looked at now.
    pub fn is_output_full(&self) -> bool {
        self.outgoing.shared.is_full()
    }

    /// What is to be written to a connection's socket, in order.
    pub fn output(&self, key: ConnectionKey) -> impl Iterator<Item = &[u8]> {
        self.connection(key).into_iter().flat_map(|connection| connection.output(&self.outgoing.shared))
    }

    /// How many bytes that is.
    pub fn output_bytes(&self, key: ConnectionKey) -> usize {
        self.connection(key).map_or(0, |connection| connection.output_bytes(&self.outgoing.shared))
    }

    /// The socket took `count` bytes.
    pub fn handle_sent(&mut self, key: ConnectionKey, count: usize, now: Now) {
        let Some((connection, _, outgoing)) = self.connection_beside(key) else { return };
        let was_full = connection.is_full(&outgoing.shared);
        connection.sent(count, now.tick, outgoing);
        self.catch_up(key, now);
        if was_full && !self.is_full(key) {
            self.process(key, now);
        }
    }

    /// The socket takes nothing more for now of what there is for it.
    pub fn handle_blocked(&mut self, key: ConnectionKey) {
        if let Some((connection, _, outgoing)) = self.connection_beside(key) {
            connection.keep(outgoing);
        }
    }

    /// Has the shell look at a connection.
    pub(super) fn touch(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection_mut(key).filter(|connection| connection.touched == Touched::Not) {
            connection.touched = Touched::Told;
            self.touched.push_back(key);
        }
    }

    /// Has the shell look at a connection with an answer: before others, unless too many wait. Those who write would be
    /// ever further ahead of those who are told.
    pub(super) fn touch_answered(&mut self, key: ConnectionKey) {
        if self.touched.len() > ANSWERS_FIRST_MAX {
            return self.touch(key);
        }
        if let Some(connection) = self.connection_mut(key).filter(|connection| connection.touched != Touched::Answered)
        {
            connection.touched = Touched::Answered;
            self.answered.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::deliver::tests::hub;
    use super::*;
    use crate::clock::{Timestamp, monotonic};

    #[test]
    fn who_has_an_answer_comes_first_unless_many_wait_and_each_connection_once() {
        for waiting in [0, 1, ANSWERS_FIRST_MAX, ANSWERS_FIRST_MAX + 1, ANSWERS_FIRST_MAX + 50] {
            let now = Now { at: Timestamp::from_ms(1), tick: monotonic() };
            let mut hub = hub(now);
            let keys: Vec<ConnectionKey> =
                (0..=waiting).map(|_| hub.handle_connected([127, 0, 0, 1].into(), now)).collect();
            let (last, others) = keys.split_last().unwrap();
            others.iter().for_each(|key| hub.touch(*key));
            // Told and answered, in either order.
            hub.touch_answered(*last);
            hub.touch(*last);
            if let Some(first) = others.first() {
                hub.touch_answered(*first);
            }
            let mut order: Vec<ConnectionKey> = std::iter::from_fn(|| hub.next_touched(true)).collect();
            assert!(!hub.has_touched());
            let place = order.iter().position(|key| key == last).unwrap();
            assert_eq!(place, if waiting <= ANSWERS_FIRST_MAX { 0 } else { waiting }, "{waiting} wait");
            order.sort_unstable();
            assert_eq!(order, keys);
        }
    }
}
