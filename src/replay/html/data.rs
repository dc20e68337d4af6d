//! The data of a page: JSON in blocks, escaped so that no text can end a block, begin a comment or turn the reading
//! order of the source.

use std::io::{self, Write};

use indexmap::IndexMap;
use serde::ser::SerializeTuple as _;
use serde::{Serialize, Serializer};

use super::{Page, Record};
use crate::chat::{Addressee, Event, Seq};
use crate::clock::Timestamp;
use crate::names::UserName;
use crate::protocol::sentence;
use crate::replay::stats::{Edge, largest_first};

/// How many names the figures show.
const NAMES_SHOWN_MAX: usize = 10;

/// What the page says of the log, and the figures of all chosen events.
#[derive(Debug, Serialize)]
pub(super) struct About<'a> {
    version: &'static str,
    source: &'a str,
    conditions: &'a [String],
    kinds: [&'static str; Event::KINDS.len()],
    events: u64,
    held: usize,
    bytes: u64,
    first: Option<Place>,
    last: Option<Place>,
    types: Vec<(&'a String, &'a u64)>,
    users: Ranking<'a>,
    groups: Ranking<'a>,
    /// How long each moment of `activity` is, in milliseconds.
    width_ms: u64,
    /// A moment in units of that, and how many events of each lane happened in it.
    activity: Vec<(u64, &'a [u64])>,
}

/// Those with the most events, and how many there are.
#[derive(Debug, Serialize)]
struct Ranking<'a> {
    most: Vec<(&'a String, &'a u64)>,
    names: usize,
    /// Whether there are more names than were counted one by one.
    is_cut: bool,
}

/// An event's number and its moment in milliseconds since the epoch.
#[derive(Debug, Serialize)]
struct Place(Seq, u64);

impl<'a> About<'a> {
    pub(super) fn of(page: &'a Page) -> Self {
        let totals = &page.totals;
        let place = |edge: &Option<Edge>| edge.as_ref().map(|edge| Place(edge.seq, edge.ts.as_ms()));
        let ranking = |counts, is_cut| {
            let mut most = largest_first(counts);
            let names = most.len();
            most.truncate(NAMES_SHOWN_MAX);
            Ranking { most, names, is_cut }
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            source: &page.source,
            conditions: &page.conditions,
            kinds: Event::KINDS,
            events: page.events(),
            held: page.held(),
            bytes: totals.stats.bytes,
            first: place(&totals.stats.first),
            last: place(&totals.stats.last),
            types: largest_first(&totals.stats.by_type),
            users: ranking(&totals.stats.by_user, totals.stats.by_other_users > 0),
            groups: ranking(&totals.by_group, totals.by_other_groups > 0),
            width_ms: totals.width_ms(),
            activity: totals.activity().collect(),
        }
    }
}

/// Events that stand in one block, with the names that they share.
#[derive(Debug, Default, Serialize)]
pub(super) struct Block {
    #[serde(serialize_with = "keys")]
    names: IndexMap<String, ()>,
    events: Vec<Row>,
    #[serde(skip)]
    last: Option<(Seq, Timestamp)>,
}

/// An event; its number and moment are told by how far they are behind those of the one before.
#[derive(Debug)]
struct Row {
    seq: Seq,
    ms: u64,
    kind: usize,
    /// Those whom it names, who did it first.
    users: Vec<usize>,
    group: Option<usize>,
    /// The text as it was written, of messages; of others, what happened in words.
    text: String,
}

impl Block {
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn push(&mut self, record: &Record) {
        let (seq, at) = self.last.unwrap_or_default();
        self.last = Some((record.seq, record.at));
        let users = users(&record.event).into_iter().map(|user| self.name(user)).collect();
        let group = group(&record.event).map(|group| self.name(group));
        let text = match &record.event {
            Event::Message { text, .. } | Event::GroupMessage { text, .. } => text.as_str().to_owned(),
            event => sentence::happening(event, |moment| format!("{} UTC", moment.to_utc_words())),
        };
        let kind = Event::KINDS.iter().position(|kind| *kind == record.event.kind()).unwrap_or(Event::KINDS.len());
        self.events.push(Row { seq: record.seq - seq, ms: record.at.ms_since(at), kind, users, group, text });
    }

    fn name(&mut self, name: &str) -> usize {
        match self.names.get_index_of(name) {
            Some(place) => place,
            None => self.names.insert_full(name.to_owned(), ()).0,
        }
    }
}

/// Those whom an event names, who did it first.
fn users(event: &Event) -> Vec<&str> {
    match event {
        Event::Message { from, to, .. } | Event::TransferOffered { from, to, .. } => vec![from.as_str(), to.as_str()],
        Event::GroupMessage { from, .. } | Event::Erased { from, to: Addressee::Group(_), .. } => vec![from.as_str()],
        Event::Erased { from, to: Addressee::User(to), .. } => vec![from.as_str(), to.as_str()],
        Event::GroupCreated { by, invited, .. } | Event::GroupInvited { by, invited, .. } => {
            std::iter::once(by).chain(invited).map(UserName::as_str).collect()
        }
        Event::GroupJoined { user, .. }
        | Event::GroupLeft { user, .. }
        | Event::Login { user, .. }
        | Event::LoginFailed { user, .. }
        | Event::UserBlocked { user, .. }
        | Event::Logout { user, .. }
        | Event::TransferAnswered { user, .. }
        | Event::KeyBound { user, .. } => vec![user.as_str()],
        Event::Erasure { by, .. } => vec![by],
        Event::TransferEnded { .. } | Event::ServerStarted { .. } | Event::ServerStopped { .. } => Vec::new(),
    }
}

fn group(event: &Event) -> Option<&str> {
    match event {
        Event::GroupMessage { group, .. }
        | Event::Erased { to: Addressee::Group(group), .. }
        | Event::GroupCreated { group, .. }
        | Event::GroupInvited { group, .. }
        | Event::GroupJoined { group, .. }
        | Event::GroupLeft { group, .. } => Some(group.as_str()),
        _ => None,
    }
}

/// Writes a block of data that the page's script reads.
pub(super) fn put_block(class: &str, data: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    let json = serde_json::to_string(data)?;
    writeln!(out, "<script type=\"application/json\" class=\"{class}\">{}</script>", escaped(&json))
}

/// JSON of which nothing means anything to HTML, and no character hides or turns others. All of these stand only in
/// strings, where JSON allows the escape.
pub(super) fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + json.len() / 16);
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{feff}' => escape(character, &mut out),
            c if c.is_control() || sentence::is_bidi_control(c) => escape(c, &mut out),
            c => out.push(c),
        }
    }
    out
}

fn escape(character: char, out: &mut String) {
    use std::fmt::Write as _;
    // Writing to memory cannot fail; each of these characters is one unit of UTF-16.
    let _ = write!(out, "\\u{:04x}", u32::from(character));
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(6)?;
        tuple.serialize_element(&self.seq)?;
        tuple.serialize_element(&self.ms)?;
        tuple.serialize_element(&self.kind)?;
        tuple.serialize_element(&self.users)?;
        tuple.serialize_element(&self.group.map_or(-1, |group| i64::try_from(group).unwrap_or(-1)))?;
        tuple.serialize_element(&self.text)?;
        tuple.end()
    }
}

fn keys<S: Serializer>(names: &IndexMap<String, ()>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.keys())
}
