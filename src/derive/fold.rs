//! The fold of the log into the derived files' lines: pure, the same on every machine.

use indexmap::IndexMap;

use super::form::LineWriter;
use super::sessions::{Presence, Sessions};
use crate::chat::{Addressee, DecodeError, Event, Record, straight};
use crate::clock::Timestamp;
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
    messages: u64,
    group_messages: NameMap<GroupName, u64>,
    sessions: Sessions,
    words: TimeWords,
}

/// The lines by which files grow.
#[derive(Debug, Default)]
pub struct Growth {
    lines: IndexMap<Journal, LineWriter, foldhash::quality::RandomState>,
    /// The place of the file that grew last: most often it is the one that grows next.
    last: usize,
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
    /// Folds the event of a line of the log, as [`Derived::apply`] does what [`Event::decode`] reads; of a message's line
    /// nothing is copied but what files grow by.
    ///
    /// # Errors
    /// It cannot be read as an event.
    pub fn apply_line(&mut self, line: &[u8], growth: &mut Growth) -> Result<bool, DecodeError> {
        match straight::message(line) {
            Some((time, message)) if self.words.set_written(time) => {
                self.message(message.from, message.to, message.text, LineWriter::put_straight, growth);
                Ok(false)
            }
            _ => Ok(self.apply(&Event::decode(line)?, growth)),
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
            let put = |lines: &mut LineWriter, number, fields: [&[u8]; 3]| lines.put(number, &fields);
            self.message(from.as_bytes(), to, text.as_bytes(), put, growth);
        };
        match &record.event {
            Event::Message { from, to, text, .. } => message(from, &Addressee::User(*to), text.as_str()),
            Event::GroupMessage { group, from, text, .. } => message(from, &Addressee::Group(*group), text.as_str()),
            // The number stays, and no message has an empty text.
            Event::Erased { from, to, .. } => message(from, to, ""),
            Event::GroupCreated { group, .. } => drop(growth.lines(Journal::Group(*group))),
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
        put: impl FnOnce(&mut LineWriter, u64, [&[u8]; 3]),
        growth: &mut Growth,
    ) {
        let (journal, count, name) = match to {
            Addressee::User(to) => (Journal::Messages, &mut self.messages, to),
            Addressee::Group(group) => (Journal::Group(group), self.group_messages.entry(group).or_default(), from),
        };
        *count += 1;
        let words = self.words.words.as_bytes();
        growth.bytes += words.len() + name.len() + text.len();
        put(growth.lines(journal), *count, [words, name, text]);
    }

    /// The whole file of who is logged in: number, time of login, user, address and UDP port (0 for none), in the order
    /// of the logins; in parts, because with very many sessions it is long.
    pub fn userlog(&self) -> impl Iterator<Item = Vec<u8>> {
        let mut sessions = (1..).zip(self.sessions.iter()).peekable();
        let mut words = TimeWords::default();
        std::iter::from_fn(move || {
            sessions.peek()?;
            let mut lines = LineWriter::default();
            for (number, presence) in sessions.by_ref().take(USERLOG_PART_LINES) {
                let Presence { since, user, ip, udp_port, .. } = presence;
                let port = udp_port.unwrap_or(0).to_string();
                words.set(*since);
                lines.put(number, &[&words.words, user.as_str(), &ip.to_string(), &port]);
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

    /// The lines of each file, each with its line feed; none for a file that has only been made.
    pub fn into_lines(self) -> Vec<(Journal, Vec<u8>)> {
        self.lines.into_iter().map(|(journal, lines)| (journal, lines.into_bytes())).collect()
    }

    /// The lines of a file, which is made if there are none.
    fn lines(&mut self, journal: Journal) -> &mut LineWriter {
        if self.lines.get_index(self.last).is_none_or(|(last, _)| *last != journal) {
            let entry = self.lines.entry(journal);
            self.last = entry.index();
            entry.or_default();
        }
        &mut self.lines[self.last]
    }
}

/// The words of a moment, remembered while its second lasts: to make them costs more than the rest of a line.
#[derive(Debug, Default)]
struct TimeWords {
    /// The second, as the log writes it.
    second: [u8; SECOND_BYTES],
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
        let Some((second, [b'.', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'Z'])) = time.split_first_chunk() else {
            return false;
        };
        if *second != self.second {
            let Some(at) = at() else { return false };
            self.second = *second;
            self.words = at.to_utc_words();
        }
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
