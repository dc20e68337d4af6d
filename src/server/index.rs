//! Where events stand in the log and which conversation each belongs to: what history and catching up read by.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::chat::{Event, Seq, State};
use crate::names::{GroupName, UserName};

/// Where an event's line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The event.
    pub seq: Seq,
    /// The first event of the segment it is in, which names the file.
    pub segment: Seq,
    /// Where the line begins, in bytes from the start of the file.
    pub offset: u64,
    /// Its length in bytes with its line feed.
    pub length: u32,
}

/// A list of events that somebody may ask for as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conversation {
    /// Between two users, the smaller name first.
    Private(UserName, UserName),
    /// All that happened in a group.
    Group(GroupName),
    /// Invitations of a user.
    Personal(UserName),
    /// Logins and logouts of everybody.
    Presence,
}

impl Conversation {
    /// The private one of two users, whichever is named first.
    pub fn private(one: UserName, other: UserName) -> Self {
        Self::Private(one.min(other), one.max(other))
    }
}

/// The places and conversations of all events, filled as events are applied and as batches become durable.
#[derive(Debug, Default)]
pub struct Index {
    segments: Vec<Segment>,
    conversations: HashMap<Conversation, Vec<Seq>>,
    /// With whom each user has had a private conversation.
    peers: HashMap<UserName, Vec<UserName>>,
}

#[derive(Debug)]
struct Segment {
    first: Seq,
    /// Offset and length of each line.
    lines: Vec<(u32, u32)>,
}

impl Index {
    /// Adds an event to the conversations it belongs to; `state` has it applied.
    pub fn add(&mut self, state: &State, seq: Seq, event: &Event) {
        match event {
            Event::Message { from, to, .. } | Event::TransferOffered { from, to, .. } => {
                self.add_private(*from, *to, seq);
            }
            Event::TransferAnswered { transfer, .. } | Event::TransferEnded { transfer, .. } => {
                if let Some(known) = state.transfers.get(transfer) {
                    self.add_private(known.from, known.to, seq);
                }
            }
            Event::GroupMessage { group, .. } | Event::GroupJoined { group, .. } | Event::GroupLeft { group, .. } => {
                self.post(Conversation::Group(*group), seq);
            }
            Event::GroupCreated { group, invited, .. } | Event::GroupInvited { group, invited, .. } => {
                self.post(Conversation::Group(*group), seq);
                for user in invited {
                    self.post(Conversation::Personal(*user), seq);
                }
            }
            Event::Login { .. } | Event::Logout { .. } => self.post(Conversation::Presence, seq),
            Event::LoginFailed { .. }
            | Event::UserBlocked { .. }
            | Event::KeyBound { .. }
            | Event::Erasure { .. }
            | Event::ServerStarted { .. }
            | Event::ServerStopped { .. } => {}
        }
    }

    /// Notes where the line of the next event stands.
    pub fn place(&mut self, position: Position) {
        if self.segments.last().is_none_or(|segment| segment.first != position.segment) {
            self.segments.push(Segment { first: position.segment, lines: Vec::new() });
        }
        if let Some(segment) = self.segments.last_mut() {
            let offset = u32::try_from(position.offset).expect("a segment is closed long before 4 GiB");
            segment.lines.push((offset, position.length));
        }
    }

    /// Where an event stands; `None` if it is not durable.
    pub fn position(&self, seq: Seq) -> Option<Position> {
        let place = self.segments.partition_point(|segment| segment.first <= seq).checked_sub(1)?;
        let segment = self.segments.get(place)?;
        let (offset, length) = *segment.lines.get(usize::try_from(seq - segment.first).ok()?)?;
        Some(Position { seq, segment: segment.first, offset: u64::from(offset), length })
    }

    /// The newest events of a conversation below `before` and up to `last`, oldest first: at most `count` of them and
    /// at most `bytes_max` bytes, and whether there are older ones.
    pub fn newest(
        &self,
        conversation: Conversation,
        last: Seq,
        before: Option<Seq>,
        count: usize,
        bytes_max: usize,
    ) -> (Vec<Position>, bool) {
        let events = self.conversations.get(&conversation).map(Vec::as_slice).unwrap_or_default();
        let end = events.partition_point(|seq| *seq <= last && before.is_none_or(|before| *seq < before));
        let mut bytes = 0;
        let mut found: Vec<Position> = events[..end]
            .iter()
            .rev()
            .take(count)
            .map_while(|seq| self.position(*seq))
            .take_while(|position| {
                bytes += position.length as usize;
                bytes <= bytes_max
            })
            .collect();
        found.reverse();
        let more = found.len() < end;
        (found, more)
    }

    /// The next events after `after` that a user is owed, in order: at most `events_max` of them and about `bytes_max`
    /// bytes. Logins and logouts of others are among them only after `watch_after`.
    pub fn owed(
        &self,
        state: &State,
        user: UserName,
        after: Seq,
        watch_after: Option<Seq>,
        events_max: usize,
        bytes_max: usize,
    ) -> Vec<Position> {
        let mut heads = BinaryHeap::new();
        let mut lists: Vec<&[Seq]> = Vec::new();
        let mut offer = |conversation: Conversation, first: Seq, last: Seq| {
            let Some(events) = self.conversations.get(&conversation) else { return };
            let start = events.partition_point(|seq| *seq < first.max(after + 1));
            let end = events.partition_point(|seq| *seq <= last);
            if start < end {
                heads.push(Reverse((events[start], lists.len())));
                lists.push(&events[start + 1..end]);
            }
        };
        offer(Conversation::Personal(user), 0, Seq::MAX);
        for peer in self.peers.get(&user).into_iter().flatten() {
            offer(Conversation::private(user, *peer), 0, Seq::MAX);
        }
        if let Some(known) = state.users.get(&user) {
            for group in known.groups.union(&known.past_groups) {
                for (first, last) in state.membership_spans(user, *group) {
                    offer(Conversation::Group(*group), first, last);
                }
            }
        }
        if let Some(watch_after) = watch_after {
            offer(Conversation::Presence, watch_after + 1, Seq::MAX);
        }

        let mut found: Vec<Position> = Vec::new();
        let mut bytes = 0;
        while found.len() < events_max && bytes < bytes_max {
            let Some(Reverse((seq, list))) = heads.pop() else { break };
            if let Some((next, rest)) = lists[list].split_first() {
                heads.push(Reverse((*next, list)));
                lists[list] = rest;
            }
            // What has no position is not durable yet, and nothing behind it is.
            let Some(position) = self.position(seq) else { break };
            bytes += position.length as usize;
            found.push(position);
        }
        found
    }

    fn add_private(&mut self, from: UserName, to: UserName, seq: Seq) {
        let conversation = Conversation::private(from, to);
        let is_new = !self.conversations.contains_key(&conversation);
        self.post(conversation, seq);
        if is_new {
            self.peers.entry(from).or_default().push(to);
            if from != to {
                self.peers.entry(to).or_default().push(from);
            }
        }
    }

    fn post(&mut self, conversation: Conversation, seq: Seq) {
        self.conversations.entry(conversation).or_default().push(seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    fn message(from: &str, to: &str) -> Event {
        Event::Message { from: user(from), to: user(to), text: "x".parse().unwrap(), origin: None }
    }

    /// An index of these events, each of ten bytes, all durable.
    fn indexed(events: &[Event]) -> (State, Index) {
        let (mut state, mut index) = (State::default(), Index::default());
        for (number, event) in (1..).zip(events) {
            state.apply(number, Timestamp::default(), event);
            index.add(&state, number, event);
            index.place(Position { seq: number, segment: 1, offset: number * 10, length: 10 });
        }
        (state, index)
    }

    fn seqs(positions: &[Position]) -> Vec<Seq> {
        positions.iter().map(|position| position.seq).collect()
    }

    #[test]
    fn history_is_the_newest_of_one_conversation_within_its_limits() {
        let (_, index) = indexed(&[message("a", "b"), message("c", "b"), message("b", "a"), message("a", "b")]);
        let both = Conversation::private(user("b"), user("a"));
        let newest = |before, count, bytes| {
            let (found, more) = index.newest(both, Seq::MAX, before, count, bytes);
            (seqs(&found), more)
        };
        assert_eq!(newest(None, 9, 99), (vec![1, 3, 4], false));
        assert_eq!(newest(None, 2, 99), (vec![3, 4], true));
        assert_eq!(newest(Some(4), 9, 99), (vec![1, 3], false));
        assert_eq!(newest(None, 9, 20), (vec![3, 4], true));
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
        let owed = |after, count| seqs(&index.owed(&state, a, after, None, count, 1_000));
        assert_eq!(owed(0, 99), [1, 3, 4, 5, 7]);
        assert_eq!(owed(3, 2), [4, 5]);
        assert_eq!(owed(7, 99), [] as [Seq; 0]);
    }

    #[test]
    fn what_is_not_durable_is_not_owed_yet() {
        let (mut state, mut index) = indexed(&[message("a", "b")]);
        state.apply(2, Timestamp::default(), &message("a", "b"));
        index.add(&state, 2, &message("a", "b"));
        assert_eq!(seqs(&index.owed(&state, user("b"), 0, None, 99, 99)), [1]);
    }
}
