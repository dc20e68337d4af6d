//! Frames from the server: answers, pushed events and signals; written by the server, read by the client.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::frame::{CandidateFrame, Id, OfferFrame, VerdictFrame};
use super::put_frame;
use crate::chat::json::{self, label, quoted};
use crate::chat::{Event, Record, Seq, SessionId};
use crate::clock::Timestamp;
use crate::names::{DeviceName, GroupName, Name, UserName};

/// One user in an answer to `/activeuser` (with `since`) or `/users` (with `online`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own, described in docs/protocol.md")]
pub struct UserEntry {
    pub user: UserName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
}

/// One group in an answer to `/groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own, described in docs/protocol.md")]
pub struct GroupEntry {
    pub group: GroupName,
    pub creator: UserName,
    pub joined: Vec<UserName>,
    pub invited: Vec<UserName>,
}

/// One command in an answer to `/help`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own, described in docs/protocol.md")]
pub struct HelpEntry {
    pub usage: String,
    pub help: String,
}

/// An `ok`; which of its fields are set depends on the command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are the contract's own, described in docs/protocol.md")]
pub struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// The word of the command without its slash, or the type of the frame that is answered.
    pub command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<uuid::Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<UserName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<Vec<UserEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joined: Option<Vec<UserName>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invited: Option<Vec<UserName>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<HelpEntry>>,
    /// Event lines, to the byte as they stand in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<bool>,
}

/// The `ok` of which there is one for each message: an [`Answer`] that holds no more, in the same bytes.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the fields are those of an answer")]
pub struct ShortAnswer<'a> {
    pub id: Option<&'a Id>,
    pub command: &'a str,
    pub duplicate: Option<bool>,
    pub seq: Option<Seq>,
    /// As [`Timestamp::to_rfc3339`] has it.
    pub ts: Option<[u8; 24]>,
    pub sent: Option<u64>,
    pub to: Option<UserName>,
    pub online: Option<bool>,
    pub group: Option<GroupName>,
}

impl Answer {
    /// The same answer, if it says no more than how a command of the many was carried out.
    fn as_short(&self) -> Option<ShortAnswer<'_>> {
        let has_session = self.session.is_some() || self.device.is_some() || self.log.is_some() || self.token.is_some();
        let has_members = self.users.is_some() || self.joined.is_some() || self.invited.is_some();
        let has_lists = has_members || self.groups.is_some() || self.commands.is_some() || self.events.is_some();
        if has_session || has_lists || self.user.is_some() || self.root.is_some() || self.more.is_some() {
            return None;
        }
        let Self { id, command, duplicate, seq, ts, sent, to, online, group, .. } = self;
        let (duplicate, seq, ts, sent) = (*duplicate, *seq, ts.map(Timestamp::to_rfc3339), *sent);
        Some(ShortAnswer {
            id: id.as_ref(),
            command,
            duplicate,
            seq,
            ts,
            sent,
            to: *to,
            online: *online,
            group: *group,
        })
    }
}

impl ShortAnswer<'_> {
    /// Appends the frame as a line with its line feed.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"ok\"");
        match self.id {
            None => {}
            Some(Id::Number(id)) => put_number(out, label!("id"), *id),
            Some(id) => put_field(out, label!("id"), id),
        }
        put_bytes(out, quoted!("command"), self.command.as_bytes());
        if let Some(duplicate) = self.duplicate {
            put_field(out, label!("duplicate"), &duplicate);
        }
        if let Some(seq) = self.seq {
            put_number(out, label!("seq"), seq);
        }
        if let Some(ts) = self.ts {
            out.extend_from_slice(quoted!("ts"));
            out.extend_from_slice(&ts);
            out.push(b'"');
        }
        if let Some(sent) = self.sent {
            put_number(out, label!("sent"), sent);
        }
        if let Some(to) = &self.to {
            put_word(out, quoted!("to"), to);
        }
        if let Some(online) = self.online {
            out.extend_from_slice(if online { b",\"online\":true" } else { b",\"online\":false" });
        }
        if let Some(group) = &self.group {
            put_word(out, quoted!("group"), group);
        }
        out.extend_from_slice(b"}\n");
    }
}

fn put_number(out: &mut Vec<u8>, label: &[u8], value: u64) {
    out.extend_from_slice(label);
    json::number(value, out);
}

// Inlined, so that the length of what is written is known: a store each, not a call.
#[inline(always)]
fn put_word(out: &mut Vec<u8>, quoted: &[u8], value: &impl Name) {
    out.extend_from_slice(quoted);
    value.append_to(out);
    out.push(b'"');
}

/// A value in which nothing can need escaping.
fn put_bytes(out: &mut Vec<u8>, quoted: &[u8], value: &[u8]) {
    out.extend_from_slice(quoted);
    out.extend_from_slice(value);
    out.push(b'"');
}

fn put_field(out: &mut Vec<u8>, label: &[u8], value: &impl Serialize) {
    out.extend_from_slice(label);
    serde_json::to_writer(&mut *out, value).expect("writing to memory cannot fail");
}

/// An `error`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are the contract's own, described in docs/protocol.md")]
pub struct ErrorAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    pub code: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_left: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}

/// Whatever the server can send.
#[derive(Debug, Clone)]
pub enum ServerFrame {
    /// A command was carried out.
    Ok(Answer),
    /// It was not.
    Error(ErrorAnswer),
    /// Something happened.
    Event(Record),
    /// All events up to this one have been sent.
    Live {
        /// The number of the last.
        seq: Seq,
    },
    /// A sign of life is asked for.
    Ping,
    /// Another user offers a transfer.
    Offer(OfferFrame),
    /// An offer was answered.
    Answer(VerdictFrame),
    /// The peer of a transfer has another address.
    Candidate(CandidateFrame),
}

/// A line that no server of this version sends.
#[derive(Debug, thiserror::Error)]
#[error("the server sent what is no frame: {0}")]
pub struct BadServerFrame(String);

impl ServerFrame {
    /// Appends the frame as a line with its line feed.
    pub fn write(&self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct LiveFields {
            seq: Seq,
        }
        #[derive(Serialize)]
        struct Nothing {}
        match self {
            Self::Ok(answer) => match answer.as_short() {
                Some(short) => short.write(out),
                None => put_frame(out, "ok", answer),
            },
            Self::Error(error) => put_frame(out, "error", error),
            Self::Event(record) => {
                record.event.encode(record.seq, record.at, out);
                out.push(b'\n');
            }
            Self::Live { seq } => put_frame(out, "live", &LiveFields { seq: *seq }),
            Self::Ping => put_frame(out, "ping", &Nothing {}),
            Self::Offer(frame) => put_frame(out, "offer", frame),
            Self::Answer(frame) => put_frame(out, "answer", frame),
            Self::Candidate(frame) => put_frame(out, "candidate", frame),
        }
    }

    /// Reads one line, without its end.
    ///
    /// # Errors
    /// The line is no frame of this version.
    pub fn parse(line: &[u8]) -> Result<Self, BadServerFrame> {
        #[derive(Deserialize)]
        struct Kind {
            r#type: String,
            #[serde(default)]
            seq: Option<Seq>,
        }
        fn read<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, BadServerFrame> {
            serde_json::from_slice(line).map_err(|error| BadServerFrame(error.to_string()))
        }
        let kind: Kind = read(line)?;
        Ok(match kind.r#type.as_str() {
            "ok" => Self::Ok(read(line)?),
            "error" => Self::Error(read(line)?),
            "live" => Self::Live { seq: kind.seq.ok_or_else(|| BadServerFrame("live without seq".into()))? },
            "ping" => Self::Ping,
            "offer" => Self::Offer(read(line)?),
            "answer" => Self::Answer(read(line)?),
            "candidate" => Self::Candidate(read(line)?),
            _ => Self::Event(Event::decode(line).map_err(|error| BadServerFrame(error.to_string()))?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ok_holds_only_the_fields_that_are_set() {
        let mut line = Vec::new();
        let answer = Answer {
            id: Some(Id::Number(1)),
            command: "msgto".into(),
            seq: Some(5),
            to: "yoda".parse().ok(),
            online: Some(true),
            ..Answer::default()
        };
        ServerFrame::Ok(answer).write(&mut line);
        let expected = r#"{"type":"ok","id":1,"command":"msgto","seq":5,"to":"yoda","online":true}"#;
        assert_eq!(String::from_utf8(line).unwrap().trim_end(), expected);
        let ServerFrame::Ok(answer) = ServerFrame::parse(expected.as_bytes()).unwrap() else { panic!() };
        assert_eq!((answer.command.as_str(), answer.seq), ("msgto", Some(5)));
    }

    #[test]
    fn a_short_answer_has_the_bytes_that_serde_gives_it() {
        let ids = [None, Some(Id::Number(7)), Some(Id::Negative(-7)), Some(Id::Text("a\"\u{1b}\u{7f}".into()))];
        for id in ids {
            let sent = Answer { id: id.clone(), command: "groupmsg".into(), ..Answer::default() };
            let full = Answer {
                id,
                command: "msgto".into(),
                duplicate: Some(true),
                seq: Some(1 << 53),
                ts: Some(Timestamp::from_ms(1_795_327_800_123)),
                sent: Some(0),
                to: "yoda".parse().ok(),
                online: Some(false),
                group: "rebels".parse().ok(),
                ..Answer::default()
            };
            for answer in [sent, full] {
                let (mut short, mut general) = (Vec::new(), Vec::new());
                answer.as_short().unwrap().write(&mut short);
                put_frame(&mut general, "ok", &answer);
                assert_eq!(String::from_utf8(short).unwrap(), String::from_utf8(general).unwrap());
            }
        }
    }

    #[test]
    fn history_carries_event_lines_to_the_byte() {
        let line = r#"{"type":"ok","command":"history","events":[{"seq":1, "x" :"\u001b"}],"more":false}"#;
        let ServerFrame::Ok(answer) = ServerFrame::parse(line.as_bytes()).unwrap() else { panic!() };
        assert_eq!(answer.events.unwrap()[0].get(), r#"{"seq":1, "x" :"\u001b"}"#);
    }

    #[test]
    fn an_event_is_told_from_an_answer_by_its_type() {
        let line = br#"{"seq":1,"ts":"2026-11-22T06:10:00.123Z","type":"server_started","version":"9"}"#;
        assert!(matches!(ServerFrame::parse(line).unwrap(), ServerFrame::Event(record) if record.seq == 1));
        assert!(ServerFrame::parse(br#"{"type":"dance"}"#).is_err());
    }
}
