//! The events of one segment, in memory: where each stands, and the conversations it belongs to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use crate::chat::{Addressee, Event, Seq, State};
use crate::eventlog::{Replayed, ReplayedEvent};
use crate::names::{GroupName, NameSet, TransferId, UserName};

/// Where an event's line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The event.
    pub seq: Seq,
    /// The first event of the segment it is in, which names the file.
    pub segment: Seq,
    /// Where the line begins, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes to read from there: the line with its line feed, and a commit that may stand behind it.
    pub length: u32,
}

/// A list of events that somebody may ask for as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// What an event belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// Nothing that anybody asks for.
    Nothing,
    /// The private conversation of two users.
    Private(UserName, UserName),
    /// A group, and those it invites.
    Group(GroupName, Box<[UserName]>),
    /// A login or logout.
    Presence,
}

impl Topic {
    /// What a message belongs to.
    pub fn of_message(from: UserName, to: Addressee) -> Self {
        match to {
            Addressee::User(to) => Self::Private(from, to),
            Addressee::Group(group) => Self::Group(group, Box::default()),
        }
    }

    /// What an event belongs to; `peers` knows the two users of a transfer.
    pub fn of(event: &Event, peers: impl FnOnce(&TransferId) -> Option<(UserName, UserName)>) -> Self {
        match event {
            Event::Erased { from, to, .. } => Self::of_message(*from, *to),
            Event::Message { from, to, .. } | Event::TransferOffered { from, to, .. } => Self::Private(*from, *to),
            Event::TransferAnswered { transfer, .. } | Event::TransferEnded { transfer, .. } => {
                peers(transfer).map_or(Self::Nothing, |(from, to)| Self::Private(from, to))
            }
            Event::GroupMessage { group, .. } | Event::GroupJoined { group, .. } | Event::GroupLeft { group, .. } => {
                Self::Group(*group, Box::default())
            }
            Event::GroupCreated { group, invited, .. } | Event::GroupInvited { group, invited, .. } => {
                Self::Group(*group, invited.as_slice().into())
            }
            Event::Login { .. } | Event::Logout { .. } => Self::Presence,
            Event::LoginFailed { .. }
            | Event::UserBlocked { .. }
            | Event::KeyBound { .. }
            | Event::Erasure { .. }
            | Event::ServerStarted { .. }
            | Event::ServerStopped { .. } => Self::Nothing,
        }
    }
}

/// What a user is owed after some event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// Who.
    pub user: UserName,
    /// The groups with the spans of events, both ends included, during which the user was a member.
    pub groups: Vec<(GroupName, Seq, Seq)>,
    /// The last event that is not owed any more.
    pub after: Seq,
    /// Logins and logouts of others are owed after this event.
    pub watch_after: Option<Seq>,
}

impl Owed {
    /// What a user is owed by what the state knows of the groups.
    pub fn new(state: &State, user: UserName, after: Seq, watch_after: Option<Seq>) -> Self {
        let known = state.users.get(&user);
        let names = known.into_iter().flat_map(|known| known.groups.union(&known.past_groups));
        let spans = |group: &GroupName| {
            let group = *group;
            state.membership_spans(user, group).into_iter().map(move |(first, last)| (group, first, last))
        };
        Self { user, groups: names.flat_map(spans).collect(), after, watch_after }
    }
}

/// The events of one segment that are durable.
#[derive(Debug)]
pub struct Segment {
    first: Seq,
    /// Where each line begins, in bytes from the start of the file.
    offsets: Vec<u32>,
    /// Where the last line ends.
    end: u32,
    /// The names that occur, as numbers.
    users: NameSet<UserName>,
    groups: NameSet<GroupName>,
    /// The events of each conversation, counted from the segment's first.
    lists: HashMap<Key, Vec<u32>, foldhash::fast::RandomState>,
    /// With whom each user has a private conversation here, by the numbers of the names.
    peers: Vec<Vec<u32>>,
}

/// A conversation, by the numbers of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Private(u32, u32),
    Group(u32),
    Personal(u32),
    Presence,
}

impl Segment {
    /// The segment that begins with an event, with nothing in it yet.
    pub fn new(first: Seq) -> Self {
        Self {
            first,
            offsets: Vec::new(),
            end: 0,
            users: NameSet::default(),
            groups: NameSet::default(),
            lists: HashMap::default(),
            peers: Vec::new(),
        }
    }

    /// Its first event.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// The event behind its last.
    pub fn next(&self) -> Seq {
        self.first + self.offsets.len() as Seq
    }

    /// Where the lines begin, and the end of the last, in bytes from the start of the file.
    pub fn offsets(&self) -> impl Iterator<Item = u32> {
        self.offsets.iter().copied().chain([self.end])
    }

    /// Adds the next event.
    pub fn push(&mut self, topic: &Topic, offset: u64, length: u32) {
        let relative = u32::try_from(self.offsets.len()).expect("a segment has far fewer events than 2^32");
        let offset = u32::try_from(offset).expect("a segment is closed long before 4 GiB");
        push_sparingly(&mut self.offsets, offset);
        self.end = offset + length;
        match topic {
            Topic::Nothing => {}
            Topic::Private(from, to) => self.push_private(*from, *to, relative),
            Topic::Group(group, invited) => {
                let group = number(self.groups.insert_full(*group).0);
                self.push_to(Key::Group(group), relative);
                for user in invited {
                    let user = self.user(*user);
                    self.push_to(Key::Personal(user), relative);
                }
            }
            Topic::Presence => {
                self.push_to(Key::Presence, relative);
            }
        }
    }

    /// Where an event stands, if it is here.
    pub fn position(&self, seq: Seq) -> Option<Position> {
        let place = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        let offset = *self.offsets.get(place)?;
        let stop = self.offsets.get(place + 1).copied().unwrap_or(self.end);
        Some(Position { seq, segment: self.first, offset: u64::from(offset), length: stop - offset })
    }

    /// The events of a conversation, counted from the first of the segment.
    pub fn list(&self, conversation: Conversation) -> &[u32] {
        self.key(conversation).and_then(|key| self.lists.get(&key)).map(Vec::as_slice).unwrap_or_default()
    }

    /// All conversations with their events.
    pub fn lists(&self) -> impl Iterator<Item = (Conversation, &[u32])> {
        self.lists.iter().filter_map(|(key, events)| Some((self.conversation(*key)?, events.as_slice())))
    }

    /// The next events that a user is owed, in order: at most `events_max`.
    pub fn owed(&self, owed: &Owed, events_max: usize) -> Vec<Seq> {
        let mut chosen: Vec<(&[u32], Seq, Seq)> = vec![(self.list(Conversation::Personal(owed.user)), 0, Seq::MAX)];
        if let Some(user) = self.users.get_index_of(&owed.user) {
            let user = number(user);
            for peer in self.peers.get(user as usize).into_iter().flatten() {
                let events = self.lists.get(&Key::Private(user.min(*peer), user.max(*peer)));
                chosen.push((events.map(Vec::as_slice).unwrap_or_default(), 0, Seq::MAX));
            }
        }
        for (group, first, last) in &owed.groups {
            chosen.push((self.list(Conversation::Group(*group)), *first, *last));
        }
        if let Some(watch_after) = owed.watch_after {
            chosen.push((self.list(Conversation::Presence), watch_after.saturating_add(1), Seq::MAX));
        }
        let mut heads = BinaryHeap::new();
        let mut lists: Vec<&[u32]> = Vec::new();
        let after = owed.after.saturating_add(1);
        for (events, first, last) in chosen {
            let start = events.partition_point(|event| self.first + Seq::from(*event) < first.max(after));
            let end = events.partition_point(|event| self.first + Seq::from(*event) <= last);
            if start < end {
                heads.push(Reverse((events[start], lists.len())));
                lists.push(&events[start + 1..end]);
            }
        }
        let mut found: Vec<Seq> = Vec::new();
        while found.len() < events_max {
            let Some(Reverse((event, list))) = heads.pop() else { break };
            if let Some((next, rest)) = lists[list].split_first() {
                heads.push(Reverse((*next, list)));
                lists[list] = rest;
            }
            let seq = self.first + Seq::from(event);
            if found.last() != Some(&seq) {
                found.push(seq);
            }
        }
        found
    }

    /// The memory it takes, in bytes, by the capacities of its tables.
    pub fn heap_bytes(&self) -> usize {
        let lists: usize = self.lists.values().map(|list| 4 * list.capacity() + 16).sum();
        let peers: usize = self.peers.iter().map(|peers| 4 * peers.capacity() + 16).sum();
        // A table of hashes has a byte beside each entry, and is at most seven eighths full.
        let table = self.lists.capacity() * 8 / 7 * (size_of::<(Key, Vec<u32>)>() + 1);
        let names = self.users.capacity() * (size_of::<UserName>() + 24) + self.groups.capacity() * 64;
        4 * self.offsets.capacity() + lists + peers + table + names + self.peers.capacity() * size_of::<Vec<u32>>()
    }

    fn push_private(&mut self, from: UserName, to: UserName, relative: u32) {
        let (from, to) = (self.user(from), self.user(to));
        if self.push_to(Key::Private(from.min(to), from.max(to)), relative) {
            push_sparingly(&mut self.peers[from as usize], to);
            if from != to {
                push_sparingly(&mut self.peers[to as usize], from);
            }
        }
    }

    /// Adds an event to a list; gives whether it is the first there.
    fn push_to(&mut self, key: Key, relative: u32) -> bool {
        let list = self.lists.entry(key).or_default();
        push_sparingly(list, relative);
        list.len() == 1
    }

    fn user(&mut self, name: UserName) -> u32 {
        let (place, is_new) = self.users.insert_full(name);
        if is_new {
            self.peers.push(Vec::new());
        }
        number(place)
    }

    fn key(&self, conversation: Conversation) -> Option<Key> {
        let user = |name: &UserName| self.users.get_index_of(name).map(number);
        Some(match conversation {
            Conversation::Private(one, other) => {
                let (one, other) = (user(&one)?, user(&other)?);
                Key::Private(one.min(other), one.max(other))
            }
            Conversation::Group(name) => Key::Group(number(self.groups.get_index_of(&name)?)),
            Conversation::Personal(name) => Key::Personal(user(&name)?),
            Conversation::Presence => Key::Presence,
        })
    }

    fn conversation(&self, key: Key) -> Option<Conversation> {
        let user = |number: u32| self.users.get_index(number as usize).copied();
        Some(match key {
            Key::Private(one, other) => Conversation::private(user(one)?, user(other)?),
            Key::Group(group) => Conversation::Group(*self.groups.get_index(group as usize)?),
            Key::Personal(name) => Conversation::Personal(user(name)?),
            Key::Presence => Conversation::Presence,
        })
    }
}

/// Makes a segment from its events, with the transfers that were open before it.
#[derive(Debug)]
pub struct SegmentBuilder {
    /// What has been added so far.
    pub segment: Segment,
    /// The transfers that are open, with who sends and who receives.
    pub transfers: BTreeMap<TransferId, (UserName, UserName)>,
    /// The CRC-32C of each event's line.
    pub checks: Vec<u32>,
}

impl SegmentBuilder {
    /// Begins with nothing.
    pub fn new(first: Seq, transfers: BTreeMap<TransferId, (UserName, UserName)>) -> Self {
        Self { segment: Segment::new(first), transfers, checks: Vec::new() }
    }

    /// Begins with the transfers that are open in a state.
    pub fn from_state(first: Seq, state: &State) -> Self {
        Self::new(first, open_transfers(state))
    }

    /// Adds the next event.
    pub fn add(&mut self, replayed: &Replayed<'_>) {
        let Replayed { event, line, offset, length, .. } = replayed;
        self.checks.push(crc32c::crc32c(line));
        let topic = match event {
            ReplayedEvent::Message { from, to, .. } => Topic::of_message(*from, *to),
            ReplayedEvent::Event(event) => self.topic_of(event),
        };
        self.segment.push(&topic, *offset, *length);
    }

    fn topic_of(&mut self, event: &Event) -> Topic {
        if let Event::TransferOffered { from, to, transfer, .. } = event {
            self.transfers.insert(*transfer, (*from, *to));
        }
        let topic = Topic::of(event, |transfer| self.transfers.get(transfer).copied());
        if let Event::TransferEnded { transfer, .. } = event {
            self.transfers.remove(transfer);
        }
        topic
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("a segment has far fewer names than 2^32")
}

/// The transfers that are open in a state, with who sends and who receives.
pub fn open_transfers(state: &State) -> BTreeMap<TransferId, (UserName, UserName)> {
    let peers = |id: &TransferId| Some((*id, state.transfers.get(id).map(|known| (known.from, known.to))?));
    state.open_transfers.iter().filter_map(peers).collect()
}

/// Grows by a quarter where a vector would double, once it is long: these are many and stay.
fn push_sparingly(list: &mut Vec<u32>, value: u32) {
    if list.len() == list.capacity() {
        list.reserve_exact(if list.len() < 8 { 4 } else { list.len() / 4 + 2 });
    }
    list.push(value);
}
