//! Which events are meant: all conditions must hold, and most are judged by the bytes of a line.

use memchr::memmem;

use super::{ReplayError, line};
use crate::chat::{Event, Seq, json};
use crate::clock::Timestamp;
use crate::eventlog::EventLine;
use crate::names::{GroupName, UserName};

/// Conditions on events; one that is not set holds for all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The first event.
    pub from: Option<Seq>,
    /// The last event.
    pub to: Option<Seq>,
    /// The first moment.
    pub since: Option<Timestamp>,
    /// The last moment.
    pub until: Option<Timestamp>,
    /// A user whom the event names: who did it, to whom it was done, or who was invited.
    pub user: Option<UserName>,
    /// The group it happened in.
    pub group: Option<GroupName>,
    /// Its type is one of these.
    pub kinds: Vec<String>,
    /// Its text, the name of a file in it or its reason holds this, case and all.
    pub grep: Option<String>,
}

/// What a filter says of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is meant.
    Matches,
    /// It is not.
    Passes,
    /// Neither it nor any after it.
    IsOver,
}

impl Filter {
    /// The conditions that are set, each in words.
    pub fn conditions(&self) -> Vec<String> {
        let Self { from, to, since, until, user, group, kinds, grep } = self;
        let kinds = (!kinds.is_empty()).then(|| format!("type {}", kinds.join(", ")));
        [
            from.map(|seq| format!("from event {seq}")),
            to.map(|seq| format!("to event {seq}")),
            since.map(|moment| format!("since {moment}")),
            until.map(|moment| format!("until {moment}")),
            user.map(|user| format!("user {user}")),
            group.map(|group| format!("group {group}")),
            kinds,
            grep.as_ref().map(|text| format!("text \u{201c}{text}\u{201d}")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Bytes that stand in every line that is meant, if there are such, the rarest first thought of.
    pub(super) fn bytes_in_all(&self) -> Option<Vec<u8>> {
        let quoted = |name: &str| format!("\"{name}\"").into_bytes();
        let text = self.grep.as_ref().map(|text| escaped(text)).filter(|text| !text.is_empty());
        let user = || self.user.map(|user| quoted(user.as_str()));
        let group = || self.group.map(|group| quoted(group.as_str()));
        text.or_else(user).or_else(group)
    }

    pub(super) fn judge(&self, event: &EventLine<'_>) -> Result<Verdict, ReplayError> {
        let at = line::time(event.bytes).unwrap_or_default();
        let is_behind = self.to.is_some_and(|to| event.seq > to);
        if is_behind || self.until.is_some_and(|until| *at > until.to_rfc3339()[..]) {
            return Ok(Verdict::IsOver);
        }
        let is_before = self.from.is_some_and(|from| event.seq < from);
        if is_before || self.since.is_some_and(|since| *at < since.to_rfc3339()[..]) {
            return Ok(Verdict::Passes);
        }
        let matches = self.is_kind(event.bytes) && self.is_group(event.bytes) && self.is_user(event.bytes);
        Ok(if matches && self.holds_text(event)? { Verdict::Matches } else { Verdict::Passes })
    }

    fn is_kind(&self, bytes: &[u8]) -> bool {
        self.kinds.is_empty() || line::kind(bytes).is_some_and(|kind| self.kinds.iter().any(|wanted| wanted == kind))
    }

    fn is_group(&self, bytes: &[u8]) -> bool {
        self.group.is_none_or(|group| line::name(bytes, line::GROUP) == Some(group.as_str()))
    }

    fn is_user(&self, bytes: &[u8]) -> bool {
        let Some(user) = self.user.as_ref().map(UserName::as_str) else { return true };
        let is_named = |key: &&[u8]| line::name(bytes, key) == Some(user);
        // Most lines do not hold the name at all.
        memmem::find(bytes, user.as_bytes()).is_some()
            && ([line::FROM, line::TO, line::USER, line::BY].iter().any(is_named) || line::invites(bytes, user))
    }

    fn holds_text(&self, event: &EventLine<'_>) -> Result<bool, ReplayError> {
        let Some(wanted) = &self.grep else { return Ok(true) };
        if memmem::find(event.bytes, &escaped(wanted)).is_none() {
            return Ok(false);
        }
        let record = Event::decode(event.bytes).map_err(|source| ReplayError::Event { seq: event.seq, source })?;
        Ok(match &record.event {
            Event::Message { text, .. } | Event::GroupMessage { text, .. } => text.as_str().contains(wanted),
            Event::TransferOffered { files, .. } => files.iter().any(|file| file.name.contains(wanted)),
            Event::Erasure { reason, .. } => reason.contains(wanted),
            _ => false,
        })
    }
}

/// How a text stands inside a string of the log. A text that holds another holds it in this form too; the other way
/// round it has to be looked at.
fn escaped(text: &str) -> Vec<u8> {
    let mut escaped = Vec::new();
    json::string(text, &mut escaped);
    escaped.get(1..escaped.len() - 1).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Addressee;
    use crate::chat::samples::event;
    use proptest::prelude::*;

    /// Whether an event names a user, by its fields.
    fn names(event: &Event, user: UserName) -> bool {
        match event {
            Event::Message { from, to, .. } | Event::TransferOffered { from, to, .. } => *from == user || *to == user,
            Event::GroupMessage { from, .. } => *from == user,
            Event::Erased { from, to, .. } => *from == user || *to == Addressee::User(user),
            Event::GroupCreated { by, invited, .. } | Event::GroupInvited { by, invited, .. } => {
                *by == user || invited.contains(&user)
            }
            Event::GroupJoined { user: named, .. }
            | Event::GroupLeft { user: named, .. }
            | Event::Login { user: named, .. }
            | Event::LoginFailed { user: named, .. }
            | Event::UserBlocked { user: named, .. }
            | Event::Logout { user: named, .. }
            | Event::TransferAnswered { user: named, .. }
            | Event::KeyBound { user: named, .. } => *named == user,
            Event::Erasure { by, .. } => by == user.as_str(),
            Event::TransferEnded { .. } | Event::ServerStarted { .. } | Event::ServerStopped { .. } => false,
        }
    }

    fn matches(filter: &Filter, event: &Event) -> bool {
        let mut bytes = Vec::new();
        event.encode(41, Timestamp::from_ms(1_000_000), &mut bytes);
        filter.judge(&EventLine::of(&bytes).unwrap()).unwrap() == Verdict::Matches
    }

    #[test]
    fn a_text_is_searched_as_it_was_typed_and_not_as_it_is_escaped() {
        let (from, to) = ("yoda".parse().unwrap(), "han".parse().unwrap());
        let event = Event::Message { from, to, text: "line\nwith \"quotes\"".parse().unwrap(), origin: None };
        let grep = |text: &str| Filter { grep: Some(text.into()), ..Filter::default() };
        assert!(matches(&grep("\nwith \"q"), &event));
        assert!(!matches(&grep("nwith"), &event) && !matches(&grep("yoda"), &event));
    }

    #[test]
    fn limits_are_inclusive_and_end_the_reading() {
        let event = Event::ServerStarted { version: "1".into() };
        let mut bytes = Vec::new();
        event.encode(41, Timestamp::from_ms(5_000), &mut bytes);
        let judge = |filter: Filter| filter.judge(&EventLine::of(&bytes).unwrap()).unwrap();
        let time = |ms| Some(Timestamp::from_ms(ms));
        let inside =
            Filter { from: Some(41), to: Some(41), since: time(5_000), until: time(5_000), ..Filter::default() };
        assert_eq!(judge(inside), Verdict::Matches);
        assert_eq!(judge(Filter { from: Some(42), ..Filter::default() }), Verdict::Passes);
        assert_eq!(judge(Filter { since: time(5_001), ..Filter::default() }), Verdict::Passes);
        assert_eq!(judge(Filter { to: Some(40), ..Filter::default() }), Verdict::IsOver);
        assert_eq!(judge(Filter { until: time(4_999), ..Filter::default() }), Verdict::IsOver);
    }

    proptest! {
        #[test]
        fn the_bytes_of_a_line_say_of_every_event_what_its_fields_say(event in event(), other in "[a-z]{1,3}") {
            prop_assert!(Event::KINDS.contains(&event.kind()));
            let kind = Filter { kinds: vec![event.kind().into()], ..Filter::default() };
            prop_assert!(matches(&kind, &event));
            let mut line = Vec::new();
            event.encode(1, Timestamp::default(), &mut line);
            let mut users: Vec<UserName> = vec![other.parse().unwrap()];
            users.extend(line::actor(&line).and_then(|actor| actor.parse::<UserName>().ok()));
            if let Event::GroupCreated { invited, .. } = &event {
                users.extend(invited);
            }
            for user in users {
                let filter = Filter { user: Some(user), ..Filter::default() };
                prop_assert_eq!(matches(&filter, &event), names(&event, user), "{}", user);
            }
        }
    }
}
