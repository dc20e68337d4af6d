//! Where the newest events stand in the log and which conversation each belongs to, in memory; of older ones the
//! archive knows.

use std::collections::VecDeque;

use crate::chat::{Event, Seq, State};

use super::segment::{Conversation, Owed, Position, Segment, Topic};

/// The places and conversations of the events of the newest segments, filled as events are applied and as batches
/// become durable.
#[derive(Debug)]
pub struct Index {
    /// Rising; the last is the one being written.
    segments: VecDeque<Segment>,
    /// What the events belong to that are decided and not durable yet, in order: their segment is not known before.
    waiting: VecDeque<Topic>,
}

impl Index {
    /// An index of what is in the newest segment.
    pub fn new(newest: Segment) -> Self {
        Self { segments: VecDeque::from([newest]), waiting: VecDeque::new() }
    }

    /// The first event it knows of: those before are the archive's.
    pub fn first(&self) -> Seq {
        self.segments.front().map_or(0, Segment::first)
    }

    /// Notes what the next decided event belongs to; `state` has it applied.
    pub fn add(&mut self, state: &State, event: &Event) {
        let peers = |id: &_| state.transfers.get(id).map(|known| (known.from, known.to));
        self.waiting.push_back(Topic::of(event, peers));
    }

    /// The next event is durable, and stands here. Gives the last event of the segment that it closed, if it is the
    /// first of another.
    pub fn place(&mut self, position: Position) -> Option<Seq> {
        let mut closed = None;
        if self.segments.back().is_none_or(|segment| segment.first() != position.segment) {
            closed = Some(position.segment - 1);
            self.segments.push_back(Segment::new(position.segment));
        }
        let topic = self.waiting.pop_front().unwrap_or(Topic::Nothing);
        if let Some(segment) = self.segments.back_mut() {
            debug_assert_eq!(segment.next(), position.seq, "events become durable in order");
            segment.push(&topic, position.offset, position.length);
        }
        closed
    }

    /// Lets go of the closed segments up to an event: the archive has them.
    pub fn forget(&mut self, through: Seq) {
        while self.segments.len() > 1 && self.segments.front().is_some_and(|segment| segment.next() <= through + 1) {
            self.segments.pop_front();
        }
    }

    /// The newest events of a conversation below `below`, oldest first: at most `count` of them and at most
    /// `bytes_max` bytes, and whether there are older ones here.
    pub fn newest(
        &self,
        conversation: Conversation,
        below: Seq,
        count: usize,
        bytes_max: usize,
    ) -> (Vec<Position>, bool) {
        let mut found = Vec::new();
        let mut bytes = 0;
        for segment in self.segments.iter().rev() {
            let events = segment.list(conversation);
            let end = events.partition_point(|event| segment.first() + Seq::from(*event) < below);
            for event in events[..end].iter().rev() {
                let Some(position) = segment.position(segment.first() + Seq::from(*event)) else { continue };
                bytes += position.length as usize;
                if found.len() == count || bytes > bytes_max {
                    found.reverse();
                    return (found, true);
                }
                found.push(position);
            }
        }
        found.reverse();
        (found, false)
    }

    /// The next events that a user is owed, of those known here, in order: at most `events_max` of them and about
    /// `bytes_max` bytes.
    pub fn owed(&self, owed: &Owed, events_max: usize, bytes_max: usize) -> Vec<Position> {
        let mut found: Vec<Position> = Vec::new();
        let mut bytes = 0;
        let newer = self.segments.iter().filter(|segment| segment.next() > owed.after.saturating_add(1));
        for segment in newer {
            for seq in segment.owed(owed, events_max - found.len()) {
                if found.len() == events_max || bytes >= bytes_max {
                    return found;
                }
                found.extend(segment.position(seq));
                bytes += found.last().map_or(0, |position| position.length as usize);
            }
            if found.len() == events_max || bytes >= bytes_max {
                return found;
            }
        }
        found
    }

    /// The memory it takes, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.segments.iter().map(Segment::heap_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::names::UserName;

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    fn message(from: &str, to: &str) -> Event {
        Event::Message { from: user(from), to: user(to), text: "x".parse().unwrap(), origin: None }
    }

    fn add(state: &mut State, index: &mut Index, event: &Event) {
        state.apply(state.seq + 1, Timestamp::default(), event);
        index.add(state, event);
    }

    /// An index of these events, each of ten bytes, all durable, in segments of two.
    fn indexed(events: &[Event]) -> (State, Index) {
        let (mut state, mut index) = (State::default(), Index::new(Segment::new(1)));
        for (seq, event) in (1..).zip(events) {
            add(&mut state, &mut index, event);
            let segment = (seq - 1) / 2 * 2 + 1;
            let closed = index.place(Position { seq, segment, offset: (seq - segment) * 10, length: 10 });
            assert_eq!(closed, (seq == segment && seq > 1).then_some(seq - 1));
        }
        (state, index)
    }

    fn seqs(positions: &[Position]) -> Vec<Seq> {
        positions.iter().map(|position| position.seq).collect()
    }

    #[test]
    fn history_is_the_newest_of_one_conversation_within_its_limits() {
        let (_, mut index) = indexed(&[message("a", "b"), message("c", "b"), message("b", "a"), message("a", "b")]);
        let both = Conversation::private(user("b"), user("a"));
        let newest = |index: &Index, below, count, bytes| {
            let (found, more) = index.newest(both, below, count, bytes);
            (seqs(&found), more)
        };
        assert_eq!(newest(&index, Seq::MAX, 9, 99), (vec![1, 3, 4], false));
        assert_eq!(newest(&index, Seq::MAX, 2, 99), (vec![3, 4], true));
        assert_eq!(newest(&index, 4, 9, 99), (vec![1, 3], false));
        assert_eq!(newest(&index, Seq::MAX, 9, 20), (vec![3, 4], true));
        index.forget(2);
        assert_eq!(index.first(), 3);
        assert_eq!(newest(&index, Seq::MAX, 9, 99), (vec![3, 4], false), "what is forgotten is the archive's");
        index.forget(4);
        assert_eq!(index.first(), 3, "the newest segment stays");
    }

    #[test]
    fn a_user_is_owed_the_own_conversations_and_the_groups_while_a_member() {
        let group = "g".parse().unwrap();
        let (a, b) = (user("a"), user("b"));
        let said = Event::GroupMessage { group, from: b, text: "x".parse().unwrap(), origin: None };
        let (state, index) = indexed(&[
            Event::GroupCreated { group, by: b, invited: vec![a], origin: None },
            said.clone(),
            Event::GroupJoined { group, user: a, origin: None },
            said.clone(),
            message("b", "a"),
            message("b", "c"),
            Event::GroupLeft { group, user: a, origin: None },
            said,
        ]);
        let owed = |after, count| seqs(&index.owed(&Owed::new(&state, a, after, None), count, 1_000));
        assert_eq!(owed(0, 99), [1, 3, 4, 5, 7]);
        assert_eq!(owed(3, 2), [4, 5]);
        assert_eq!(owed(7, 99), [] as [Seq; 0]);
        assert_eq!(owed(Seq::MAX, 99), [] as [Seq; 0]);
    }

    #[test]
    fn what_is_not_durable_is_not_owed_yet() {
        let (mut state, mut index) = indexed(&[message("a", "b")]);
        add(&mut state, &mut index, &message("a", "b"));
        assert_eq!(seqs(&index.owed(&Owed::new(&state, user("b"), 0, None), 99, 99)), [1]);
    }

    #[test]
    fn a_message_takes_at_most_sixteen_bytes_of_memory() {
        let mut index = Index::new(Segment::new(1));
        let names: Vec<UserName> = (0..200).map(|number| user(&format!("user{number}"))).collect();
        let mut random = 1_u64;
        let count = 400_000;
        for seq in 1..=count {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let name = |shift: u64| names[usize::try_from((random >> shift) % 200).unwrap()];
            index.waiting.push_back(Topic::Private(name(33), name(43)));
            index.place(Position { seq, segment: 1, offset: seq * 170, length: 170 });
        }
        let each = index.heap_bytes() / usize::try_from(count).unwrap();
        assert!(each <= 16, "{each} bytes a message, in 20,000 conversations");
    }
}
