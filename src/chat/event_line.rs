//! The line of an event, to the byte: as it stands in the log and goes over the wire.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::event::{Addressee, Event, FileOffer, Origin, Outcome, Record, SessionId, TransferPath};
use super::json::{label, quoted};
use super::{Seq, json, straight};
use crate::clock::Timestamp;
use crate::names::{DeviceName, GroupName, Name, Text, TransferId, UserName};

/// A line of the log that cannot be read as an event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The line is no JSON object of the right shape.
    #[error("not an event: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A type this program does not know: the log is a newer program's.
    #[error("unknown event type {0:?}: use the newer program that wrote it")]
    UnknownType(String),
    /// A field that its type needs is missing.
    #[error("an event of type {kind:?} without {field:?}")]
    Missing {
        /// The event's type.
        kind: &'static str,
        /// The field that is not there.
        field: &'static str,
    },
}

impl Event {
    /// Appends the event's line, without its line feed: one JSON object, the same bytes in the log and on the wire.
    pub fn encode(&self, seq: Seq, at: Timestamp, out: &mut Vec<u8>) {
        self.encode_at(seq, &at.to_rfc3339(), out);
    }

    /// The same, with the moment as [`Timestamp::to_rfc3339`] has it.
    pub fn encode_at(&self, seq: Seq, at: &[u8; 24], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"seq\":");
        json::number(seq, out);
        out.extend_from_slice(b",\"ts\":\"");
        out.extend_from_slice(at);
        out.extend_from_slice(b"\",\"type\":\"");
        out.extend_from_slice(self.kind().as_bytes());
        out.push(b'"');
        let mut fields = Fields { out };
        match self {
            Self::Message { from, to, text, origin } => {
                fields
                    .word(quoted!("from"), from)
                    .word(quoted!("to"), to)
                    .text(label!("text"), text.as_str())
                    .origin(origin);
            }
            Self::GroupMessage { group, from, text, origin } => {
                fields.word(quoted!("group"), group).word(quoted!("from"), from);
                fields.text(label!("text"), text.as_str()).origin(origin);
            }
            Self::GroupCreated { group, by, invited, origin } | Self::GroupInvited { group, by, invited, origin } => {
                fields.word(quoted!("group"), group).word(quoted!("by"), by);
                fields.users(label!("invited"), invited).origin(origin);
            }
            Self::GroupJoined { group, user, origin } | Self::GroupLeft { group, user, origin } => {
                fields.word(quoted!("group"), group).word(quoted!("user"), user).origin(origin);
            }
            Self::Login { user, session, ip, udp_port, device } => {
                fields
                    .word(quoted!("user"), user)
                    .number(label!("session"), *session)
                    .bytes(quoted!("ip"), ip.to_string().as_bytes());
                if let Some(port) = udp_port {
                    fields.number(label!("udp_port"), u64::from(*port));
                }
                fields.optional_word(quoted!("device"), device.as_ref());
            }
            Self::LoginFailed { user, ip, failures } => {
                fields
                    .word(quoted!("user"), user)
                    .bytes(quoted!("ip"), ip.to_string().as_bytes())
                    .number(label!("failures"), u64::from(*failures));
            }
            Self::UserBlocked { user, until } => {
                fields.word(quoted!("user"), user).bytes(quoted!("until"), until.to_string().as_bytes());
            }
            Self::Logout { user, session, reason } => {
                fields.word(quoted!("user"), user).number(label!("session"), *session).json(label!("reason"), reason);
            }
            Self::TransferOffered { from, to, transfer, files } => {
                fields.word(quoted!("from"), from).word(quoted!("to"), to).word(quoted!("transfer"), transfer);
                fields.files(files);
            }
            Self::TransferAnswered { transfer, user, accept } => {
                fields.word(quoted!("transfer"), transfer).word(quoted!("user"), user).json(label!("accept"), accept);
            }
            Self::TransferEnded { transfer, outcome, bytes, hash, path } => {
                fields.word(quoted!("transfer"), transfer).json(label!("outcome"), outcome);
                if let Some(bytes) = bytes {
                    fields.number(label!("bytes"), *bytes);
                }
                if let Some(hash) = hash {
                    fields.text(label!("hash"), hash);
                }
                if let Some(path) = path {
                    fields.json(label!("path"), path);
                }
            }
            Self::KeyBound { user, device, key } => {
                fields.word(quoted!("user"), user);
                fields.optional_word(quoted!("device"), device.as_ref()).text(label!("key"), key);
            }
            Self::Erasure { by, reason, erased } => {
                fields.text(label!("by"), by).text(label!("reason"), reason).json(label!("erased"), erased);
            }
            Self::Erased { from, to, origin, leaf } => {
                fields.word(quoted!("from"), from);
                match to {
                    Addressee::User(user) => fields.word(quoted!("to"), user),
                    Addressee::Group(group) => fields.word(quoted!("group"), group),
                };
                fields.origin(origin);
                fields.text(label!("leaf"), leaf);
            }
            Self::ServerStarted { version } | Self::ServerStopped { version } => {
                fields.text(label!("version"), version);
            }
        }
        out.push(b'}');
    }

    /// Reads a line of the log, without its line feed. Fields that are not known are passed over.
    ///
    /// # Errors
    /// What is malformed, missing or of a newer program.
    pub fn decode(line: &[u8]) -> Result<Record, DecodeError> {
        match straight::decode(line) {
            Some(record) => Ok(record),
            None => Self::decode_any(line),
        }
    }

    /// Whether the straight reader takes a line. Panics where the general one reads it otherwise: for tests and fuzzing.
    #[doc(hidden)]
    pub fn assert_readers_agree(line: &[u8]) -> bool {
        let Some(record) = straight::decode(line) else { return false };
        let general = Self::decode_any(line).unwrap_or_else(|error| panic!("only one reader takes {line:?}: {error}"));
        assert_eq!(record, general, "the readers differ about {line:?}");
        true
    }

    /// The general reader: fields in any order and form that JSON allows.
    pub(super) fn decode_any(line: &[u8]) -> Result<Record, DecodeError> {
        let raw: RawEvent<'_> = serde_json::from_slice(line)?;
        Ok(Record { seq: raw.seq, at: raw.ts, event: raw.into_event()? })
    }
}

/// Writes the fields of one event, each behind what stands before its value.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
}

impl Fields<'_> {
    // Inlined, so that the length of what is written is known: a store each, not a call.
    #[inline(always)]
    fn word(&mut self, quoted: &[u8], value: &impl Name) -> &mut Self {
        self.out.extend_from_slice(quoted);
        value.append_to(self.out);
        self.out.push(b'"');
        self
    }

    fn optional_word(&mut self, quoted: &[u8], value: Option<&impl Name>) -> &mut Self {
        match value {
            Some(value) => self.word(quoted, value),
            None => self,
        }
    }

    /// A value in which nothing can need escaping.
    fn bytes(&mut self, quoted: &[u8], value: &[u8]) -> &mut Self {
        self.out.extend_from_slice(quoted);
        self.out.extend_from_slice(value);
        self.out.push(b'"');
        self
    }

    fn text(&mut self, label: &[u8], value: &str) -> &mut Self {
        self.out.extend_from_slice(label);
        json::string(value, self.out);
        self
    }

    fn number(&mut self, label: &[u8], value: u64) -> &mut Self {
        self.out.extend_from_slice(label);
        json::number(value, self.out);
        self
    }

    /// A value whose JSON has no strings but plain words.
    fn json(&mut self, label: &[u8], value: &impl Serialize) -> &mut Self {
        self.out.extend_from_slice(label);
        serde_json::to_writer(&mut *self.out, value).expect("writing to memory cannot fail");
        self
    }

    fn users(&mut self, label: &[u8], users: &[UserName]) -> &mut Self {
        self.json(label, &users)
    }

    fn files(&mut self, files: &[FileOffer]) {
        self.out.extend_from_slice(label!("files"));
        for (index, file) in files.iter().enumerate() {
            self.out.extend_from_slice(if index == 0 { b"[{\"name\":" } else { b",{\"name\":" });
            json::string(&file.name, self.out);
            self.number(label!("size"), file.size);
            self.out.push(b'}');
        }
        self.out.extend_from_slice(if files.is_empty() { b"[]" } else { b"]" });
    }

    fn origin(&mut self, origin: &Option<Origin>) {
        if let Some(Origin { device, id }) = origin {
            self.word(quoted!("device"), device).number(label!("id"), *id);
        }
    }
}

/// Every field that any event has. One flat struct is read twice as fast as an enum tagged from inside.
#[derive(Deserialize)]
struct RawEvent<'a> {
    seq: Seq,
    ts: Timestamp,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    from: Option<UserName>,
    to: Option<UserName>,
    text: Option<Text>,
    group: Option<GroupName>,
    by: Option<String>,
    invited: Option<Vec<UserName>>,
    user: Option<UserName>,
    session: Option<SessionId>,
    ip: Option<IpAddr>,
    udp_port: Option<u16>,
    failures: Option<u32>,
    until: Option<Timestamp>,
    reason: Option<String>,
    transfer: Option<TransferId>,
    files: Option<Vec<FileOffer>>,
    accept: Option<bool>,
    outcome: Option<Outcome>,
    bytes: Option<u64>,
    hash: Option<String>,
    path: Option<TransferPath>,
    key: Option<String>,
    erased: Option<Vec<Seq>>,
    leaf: Option<String>,
    version: Option<String>,
    device: Option<DeviceName>,
    id: Option<u64>,
}

impl RawEvent<'_> {
    fn into_event(self) -> Result<Event, DecodeError> {
        let origin = match (self.device, self.id) {
            (Some(device), Some(id)) => Some(Origin { device, id }),
            _ => None,
        };
        macro_rules! need {
            ($kind:literal, $field:ident) => {
                self.$field.ok_or(DecodeError::Missing { kind: $kind, field: stringify!($field) })?
            };
        }
        macro_rules! need_user_by {
            ($kind:literal) => {
                need!($kind, by).parse().map_err(|_| DecodeError::Missing { kind: $kind, field: "by" })?
            };
        }
        Ok(match &*self.kind {
            "message" => Event::Message {
                from: need!("message", from),
                to: need!("message", to),
                text: need!("message", text),
                origin,
            },
            "group_message" => Event::GroupMessage {
                group: need!("group_message", group),
                from: need!("group_message", from),
                text: need!("group_message", text),
                origin,
            },
            "group_created" => Event::GroupCreated {
                group: need!("group_created", group),
                by: need_user_by!("group_created"),
                invited: need!("group_created", invited),
                origin,
            },
            "group_invited" => Event::GroupInvited {
                group: need!("group_invited", group),
                by: need_user_by!("group_invited"),
                invited: need!("group_invited", invited),
                origin,
            },
            "group_joined" => {
                Event::GroupJoined { group: need!("group_joined", group), user: need!("group_joined", user), origin }
            }
            "group_left" => {
                Event::GroupLeft { group: need!("group_left", group), user: need!("group_left", user), origin }
            }
            "login" => Event::Login {
                user: need!("login", user),
                session: need!("login", session),
                ip: need!("login", ip),
                udp_port: self.udp_port,
                device: self.device,
            },
            "login_failed" => Event::LoginFailed {
                user: need!("login_failed", user),
                ip: need!("login_failed", ip),
                failures: need!("login_failed", failures),
            },
            "user_blocked" => {
                Event::UserBlocked { user: need!("user_blocked", user), until: need!("user_blocked", until) }
            }
            "logout" => Event::Logout {
                user: need!("logout", user),
                session: need!("logout", session),
                reason: serde_json::from_value(need!("logout", reason).into())?,
            },
            "transfer_offered" => Event::TransferOffered {
                from: need!("transfer_offered", from),
                to: need!("transfer_offered", to),
                transfer: need!("transfer_offered", transfer),
                files: need!("transfer_offered", files),
            },
            "transfer_answered" => Event::TransferAnswered {
                transfer: need!("transfer_answered", transfer),
                user: need!("transfer_answered", user),
                accept: need!("transfer_answered", accept),
            },
            "transfer_ended" => Event::TransferEnded {
                transfer: need!("transfer_ended", transfer),
                outcome: need!("transfer_ended", outcome),
                bytes: self.bytes,
                hash: self.hash,
                path: self.path,
            },
            "key_bound" => {
                Event::KeyBound { user: need!("key_bound", user), device: self.device, key: need!("key_bound", key) }
            }
            "erasure" => Event::Erasure {
                by: need!("erasure", by),
                reason: need!("erasure", reason),
                erased: need!("erasure", erased),
            },
            "erased" => Event::Erased {
                from: need!("erased", from),
                to: match self.group {
                    Some(group) => Addressee::Group(group),
                    None => Addressee::User(need!("erased", to)),
                },
                origin,
                leaf: need!("erased", leaf),
            },
            "server_started" => Event::ServerStarted { version: need!("server_started", version) },
            "server_stopped" => Event::ServerStopped { version: need!("server_stopped", version) },
            other => return Err(DecodeError::UnknownType(other.to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::samples::event;
    use proptest::prelude::*;

    fn check(event: &Event, expected: &str) {
        let mut line = Vec::new();
        event.encode(41, "2026-11-22T06:10:00.123Z".parse().unwrap(), &mut line);
        assert_eq!(String::from_utf8(line.clone()).unwrap(), expected);
        assert_eq!(&Event::decode(&line).unwrap().event, event);
    }

    #[test]
    fn a_message_is_written_as_the_contract_shows_it() {
        check(
            &Event::Message {
                from: "yoda".parse().unwrap(),
                to: "obiwan".parse().unwrap(),
                text: "hi".parse().unwrap(),
                origin: None,
            },
            r#"{"seq":41,"ts":"2026-11-22T06:10:00.123Z","type":"message","from":"yoda","to":"obiwan","text":"hi"}"#,
        );
    }

    #[test]
    fn a_numbered_event_ends_with_device_and_id() {
        check(
            &Event::GroupMessage {
                group: "g1".parse().unwrap(),
                from: "yoda".parse().unwrap(),
                text: "a\nb".parse().unwrap(),
                origin: Some(Origin { device: "laptop".parse().unwrap(), id: 7 }),
            },
            concat!(
                r#"{"seq":41,"ts":"2026-11-22T06:10:00.123Z","type":"group_message","group":"g1","from":"yoda","#,
                r#""text":"a\nb","device":"laptop","id":7}"#
            ),
        );
    }

    #[test]
    fn an_erased_message_is_written_as_the_contract_shows_it() {
        let leaf = "ab".repeat(32);
        let start = r#"{"seq":41,"ts":"2026-11-22T06:10:00.123Z","type":"erased","from":"yoda","#;
        let origin = Some(Origin { device: "laptop".parse().unwrap(), id: 7 });
        for (to, origin, rest) in [
            (Addressee::User("han".parse().unwrap()), None, r#""to":"han""#),
            (Addressee::Group("jedi".parse().unwrap()), origin, r#""group":"jedi","device":"laptop","id":7"#),
        ] {
            let event = Event::Erased { from: "yoda".parse().unwrap(), to, origin, leaf: leaf.clone() };
            check(&event, &format!("{start}{rest},\"leaf\":\"{leaf}\"}}"));
        }
    }

    #[test]
    fn a_login_leaves_out_what_is_not_set() {
        check(
            &Event::Login {
                user: "yoda".parse().unwrap(),
                session: 3,
                ip: "::1".parse().unwrap(),
                udp_port: None,
                device: None,
            },
            r#"{"seq":41,"ts":"2026-11-22T06:10:00.123Z","type":"login","user":"yoda","session":3,"ip":"::1"}"#,
        );
    }

    #[test]
    fn an_unknown_type_is_named() {
        let line = br#"{"seq":1,"ts":"2026-11-22T06:10:00.123Z","type":"reaction","user":"yoda"}"#;
        assert!(matches!(Event::decode(line), Err(DecodeError::UnknownType(kind)) if kind == "reaction"));
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let line = br#"{"seq":1,"ts":"2026-11-22T06:10:00.123Z","type":"server_started","version":"9","mood":[1]}"#;
        assert_eq!(Event::decode(line).unwrap().event, Event::ServerStarted { version: "9".into() });
    }

    proptest! {
        #[test]
        fn every_event_reads_back_from_its_line(event in event(), seq in 1..1_u64 << 53, ms in any::<u64>()) {
            let record = Record { seq, at: Timestamp::from_ms(ms), event };
            let mut line = Vec::new();
            record.event.encode(seq, record.at, &mut line);
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(Event::decode_any(&line).unwrap(), record.clone());
            prop_assert_eq!(Event::decode(&line).unwrap(), record);
        }
    }
}
