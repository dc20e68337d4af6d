//! The fold of the log into the derived files' lines: pure, the same on every machine.

use super::form::{Counter, LineWriter};
use super::sessions::{Presence, Sessions};
use crate::chat::{Addressee, DecodeError, Event, Record};
use crate::clock::Timestamp;
use crate::eventlog::EventLine;
use crate::names::{GroupName, NameMap, UserName};

/// A derived file that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Journal {
    /// All private messages: number, time, receiver, text.
    Messages,
    /// The messages of one group: number, time, sender, text.
    Group(GroupName),
}

/// Lines of who is logged in that are made at once: with the longest names about 100 KiB.
const USERLOG_PART_LINES: usize = 1_000;

/// What the log so far adds up to for the derived files.
#[derive(Debug, Default)]
pub struct Derived {
    messages: Counter,
    group_messages: NameMap<GroupName, Counter>,
    sessions: Sessions,
    words: TimeWords,
}

/// The lines by which files grow.
#[derive(Debug, Default)]
pub struct Growth {
    messages: LineWriter,
    groups: NameMap<GroupName, LineWriter>,
    /// About how many bytes the lines have.
    bytes: usize,
}

impl Journal {
    /// The name of its file. Names of groups have letters and digits only.
    pub fn file_name(self) -> String {
        match self {
            Self::Messages => "messagelog.txt".into(),
            Self::Group(group) => format!("{group}_messagelog.txt"),
        }
    }
}

impl Derived {
    /// Folds the event of a line, as [`Derived::apply`] does what [`Event::decode`] reads; of a message's line nothing is
    /// copied but what files grow by.
    ///
    /// # Errors
    /// It cannot be read as an event.
    pub fn apply_line(&mut self, line: &EventLine<'_>, growth: &mut Growth) -> Result<bool, DecodeError> {
        match line.message(UserName::split_start) {
            Some(message) if self.words.set_written(line.time) => {
                self.message(message.from, message.to, message.text, LineWriter::put_straight, growth);
                Ok(false)
            }
            _ => Ok(self.apply(&Event::decode(line.bytes)?, growth)),
        }
    }

    /// Folds an event: what it adds to files goes to `growth`. Gives whether it changed who is logged in.
    pub fn apply(&mut self, record: &Record, growth: &mut Growth) -> bool {
        let mut message = |from: &UserName, to: &Addressee, text: &str| {
            self.words.set(record.at);
            let to = match to {
                Addressee::User(to) => Addressee::User(to.as_bytes()),
                Addressee::Group(group) => Addressee::Group(*group),
            };
            let put = |lines: &mut LineWriter, number: &Counter, fields: [&[u8]; 3]| lines.put(number, &fields);
            self.message(from.as_bytes(), to, text.as_bytes(), put, growth);
        };
        match &record.event {
            Event::Message { from, to, text, .. } => message(from, &Addressee::User(*to), text.as_str()),
            Event::GroupMessage { group, from, text, .. } => message(from, &Addressee::Group(*group), text.as_str()),
            // The number stays, and no message has an empty text.
            Event::Erased { from, to, .. } => message(from, to, ""),
            Event::GroupCreated { group, .. } => {
                growth.group(*group);
            }
            Event::Login { user, session, ip, udp_port, .. } => {
                self.sessions.add(Presence {
                    session: *session,
                    since: record.at,
                    user: *user,
                    ip: *ip,
                    udp_port: *udp_port,
                    has_ended: false,
                });
                return true;
            }
            Event::Logout { session, .. } => return self.sessions.end(*session),
            Event::ServerStarted { .. } => return self.sessions.end_all(),
            _ => {}
        }
        false
    }

    /// Adds a message of the moment that the words are set to; `put` writes its line.
    #[inline]
    fn message(
        &mut self,
        from: &[u8],
        to: Addressee<&[u8]>,
        text: &[u8],
        put: impl FnOnce(&mut LineWriter, &Counter, [&[u8]; 3]),
        growth: &mut Growth,
    ) {
        let (lines, count, name) = match to {
            Addressee::User(to) => (&mut growth.messages, &mut self.messages, to),
            Addressee::Group(group) => (growth.group(group), self.group_messages.entry(group).or_default(), from),
        };
        count.count_up();
        let words = self.words.words.as_bytes();
        put(lines, count, [words, name, text]);
        growth.bytes += words.len() + name.len() + text.len();
    }

    /// The whole file of who is logged in: number, time of login, user, address and UDP port (0 for none), in the order
    /// of the logins; in parts, because with very many sessions it is long.
    pub fn userlog(&self) -> impl Iterator<Item = Vec<u8>> {
        let mut sessions = self.sessions.iter().peekable();
        let mut number = Counter::default();
        let mut words = TimeWords::default();
        std::iter::from_fn(move || {
            sessions.peek()?;
            let mut lines = LineWriter::default();
            for presence in sessions.by_ref().take(USERLOG_PART_LINES) {
                let Presence { since, user, ip, udp_port, .. } = presence;
                let port = udp_port.unwrap_or(0).to_string();
                words.set(*since);
                number.count_up();
                lines.put(&number, &[&words.words, user.as_str(), &ip.to_string(), &port]);
            }
            Some(lines.into_bytes())
        })
    }
}

impl Growth {
    /// About how many bytes the lines have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The lines of each file that grew, each with its line feed; none for a group's file that has only been made.
    pub fn into_lines(self) -> Vec<(Journal, Vec<u8>)> {
        let messages = Some((Journal::Messages, self.messages.into_bytes())).filter(|(_, lines)| !lines.is_empty());
        let groups = self.groups.into_iter().map(|(group, lines)| (Journal::Group(group), lines.into_bytes()));
        messages.into_iter().chain(groups).collect()
    }

    /// The lines of a group's file, which is made if there are none.
    fn group(&mut self, group: GroupName) -> &mut LineWriter {
        self.groups.entry(group).or_default()
    }
}

/// The words of a moment, remembered while its second lasts: to make them costs more than the rest of a line.
#[derive(Debug, Default)]
struct TimeWords {
    /// The moment, as the log writes it.
    time: Option<[u8; 24]>,
    words: String,
}

/// The bytes of a moment up to its second: `2026-11-22T06:10:00`.
const SECOND_BYTES: usize = 19;

impl TimeWords {
    fn set(&mut self, at: Timestamp) {
        self.set_to(&at.to_rfc3339(), || Some(at));
    }

    /// Sets them to a moment as the log writes it; `false` if it is none.
    fn set_written(&mut self, time: &[u8; 24]) -> bool {
        self.set_to(time, || Timestamp::from_log_form(time))
    }

    #[inline]
    fn set_to(&mut self, time: &[u8; 24], at: impl FnOnce() -> Option<Timestamp>) -> bool {
        // Under load many are of the same moment.
        if self.time.as_ref() == Some(time) {
            return true;
        }
        let Some((second, [b'.', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'Z'])) = time.split_first_chunk() else {
            return false;
        };
        if self.time.as_ref().and_then(|time| time.first_chunk::<SECOND_BYTES>()) != Some(second) {
            let Some(at) = at() else { return false };
            self.words = at.to_utc_words();
        }
        self.time = Some(*time);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::chat::{LogoutReason, SessionId};

    fn fold(events: Vec<Event>) -> (String, BTreeMap<String, String>) {
        let (mut derived, mut growth) = (Derived::default(), Growth::default());
        for (seq, event) in (1..).zip(events) {
            let at = Timestamp::from_ms(1_685_631_600_000 + seq * 1_000);
            derived.apply(&Record { seq, at, event }, &mut growth);
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let lines = growth.into_lines().into_iter().map(|(journal, lines)| (journal.file_name(), text(lines)));
        (text(derived.userlog().collect::<Vec<_>>().concat()), lines.collect())
    }

    fn message(from: &str, to: &str, text: &str) -> Event {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        Event::Message { from, to, text: text.parse().unwrap(), origin: None }
    }

    fn group_message(group: &str, from: &str, text: &str) -> Event {
        let (group, from) = (group.parse().unwrap(), from.parse().unwrap());
        Event::GroupMessage { group, from, text: text.parse().unwrap(), origin: None }
    }

    fn login(user: &str, session: SessionId, udp_port: Option<u16>) -> Event {
        let ip = "127.0.0.1".parse().unwrap();
        Event::Login { user: user.parse().unwrap(), session, ip, udp_port, device: None }
    }

    #[test]
    fn private_messages_name_the_receiver_and_are_numbered_over_all_users() {
        let (_, files) =
            fold(vec![message("yoda", "han", "a"), message("leia", "luke", "b"), message("han", "yoda", "c")]);
        assert_eq!(
            files["messagelog.txt"],
            "1; 01 Jun 2023 15:00:01; han; a\n2; 01 Jun 2023 15:00:02; luke; b\n3; 01 Jun 2023 15:00:03; yoda; c\n"
        );
    }

    #[test]
    fn group_messages_name_the_sender_and_are_numbered_by_group() {
        let (_, files) = fold(vec![
            group_message("jedi", "yoda", "a"),
            group_message("falcon", "han", "b"),
            group_message("jedi", "luke", "c"),
        ]);
        assert_eq!(
            files["jedi_messagelog.txt"],
            "1; 01 Jun 2023 15:00:01; yoda; a\n2; 01 Jun 2023 15:00:03; luke; c\n"
        );
        assert_eq!(files["falcon_messagelog.txt"], "1; 01 Jun 2023 15:00:02; han; b\n");
    }

    #[test]
    fn a_groups_file_is_there_from_the_groups_creation() {
        let (group, by) = ("jedi".parse().unwrap(), "yoda".parse().unwrap());
        let (_, files) = fold(vec![Event::GroupCreated { group, by, invited: vec![], origin: None }]);
        assert_eq!(files["jedi_messagelog.txt"], "");
    }

    #[test]
    fn lines_of_users_move_up_at_a_logout_and_are_numbered_again() {
        let logout = Event::Logout { user: "yoda".parse().unwrap(), session: 1, reason: LogoutReason::Logout };
        let (userlog, _) =
            fold(vec![login("yoda", 1, None), login("han", 2, Some(6_000)), login("leia", 3, None), logout]);
        assert_eq!(
            userlog,
            "1; 01 Jun 2023 15:00:02; han; 127.0.0.1; 6000\n2; 01 Jun 2023 15:00:03; leia; 127.0.0.1; 0\n"
        );
    }

    #[test]
    fn a_start_of_the_server_ends_all_sessions() {
        let start = Event::ServerStarted { version: "1".into() };
        assert_eq!(fold(vec![login("yoda", 1, None), start]).0, "");
    }
}
