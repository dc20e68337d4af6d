//! Frames from a client: read by the server, written by the client.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ID_BYTES_MAX, put_frame};
use crate::chat::straight::Rest;
use crate::chat::{FileOffer, Outcome, Seq, TransferPath};
use crate::names::{DeviceName, TransferId, UserName};

/// The `id` of a frame: comes back in the answer as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// A whole number; what numbers commands of a device.
    Number(u64),
    /// A whole number below zero, only ever echoed.
    Negative(i64),
    /// Text of at most [`ID_BYTES_MAX`] bytes, only ever echoed.
    Text(String),
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;
        impl serde::de::Visitor<'_> for IdVisitor {
            type Value = Id;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a string of at most {ID_BYTES_MAX} bytes or a whole number")
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Id, E> {
                Ok(Id::Number(value))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Id, E> {
                Ok(u64::try_from(value).map_or(Id::Negative(value), Id::Number))
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Id, E> {
                if value.len() > ID_BYTES_MAX {
                    return Err(E::invalid_length(value.len(), &self));
                }
                Ok(Id::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(IdVisitor)
    }
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own, described in docs/protocol.md")]
pub struct LoginFrame {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// As typed: what is no name gets the same refusal as a wrong password.
    pub username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub want_token: Option<bool>,
}

/// A command as a person types it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own, described in docs/protocol.md")]
pub struct CommandFrame<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    pub text: Cow<'a, str>,
}

/// The offer of a transfer: from the sender with `to`, pushed to the receiver with `from` and `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own, described in docs/protocol.md")]
pub struct OfferFrame {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<UserName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<UserName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    pub transfer: TransferId,
    pub files: Vec<FileOffer>,
    pub key: String,
    #[serde(default)]
    pub addrs: Vec<SocketAddr>,
}

/// The answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own, described in docs/protocol.md")]
pub struct VerdictFrame {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    pub transfer: TransferId,
    pub accept: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addrs: Vec<SocketAddr>,
    /// The blocks that the receiver has from before; passed on as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub have: Option<Value>,
    /// A refusal that no person spoke (`--accept none`): it stands for this session alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic: Option<bool>,
}

/// An address learned later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own, described in docs/protocol.md")]
pub struct CandidateFrame {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    pub transfer: TransferId,
    pub addr: SocketAddr,
}

/// How a transfer ended, by the word of one side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own, described in docs/protocol.md")]
pub struct ReportFrame {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    pub transfer: TransferId,
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<TransferPath>,
}

/// Whatever a client can send.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the contract's own, described in docs/protocol.md")]
pub enum ClientFrame<'a> {
    Login(LoginFrame),
    Command(CommandFrame<'a>),
    Offer(OfferFrame),
    Answer(VerdictFrame),
    Candidate(CandidateFrame),
    Transfer(ReportFrame),
    Ping { id: Option<Id> },
    Pong,
}

/// A line that is no frame, with its `id` where that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFrame {
    /// The frame's number, to be echoed.
    pub id: Option<Id>,
    /// What was wrong with it.
    pub why: &'static str,
}

impl<'a> CommandFrame<'a> {
    /// The frame that is by far the most common, as clients write it; all else is for the general reader.
    fn read_straight(line: &'a [u8]) -> Option<Self> {
        let mut rest = Rest::new(line)?;
        rest.literal("{\"type\":\"command\"")?;
        let id = match rest.starts_with(",\"id\":") {
            true => Some(Id::Number(rest.field(",\"id\":")?)),
            false => None,
        };
        let text = rest.word(",\"text\":\"")?;
        rest.is("}").then_some(Self { id, text: text.into() })
    }
}

impl<'a> ClientFrame<'a> {
    /// Reads one line, without its end.
    ///
    /// # Errors
    /// Broken JSON, an unknown type, a field missing or of the wrong type.
    pub fn parse(line: &'a [u8]) -> Result<Self, BadFrame> {
        if let Some(command) = CommandFrame::read_straight(line) {
            return Ok(Self::Command(command));
        }
        let bad = |id: Option<Id>, why: &'static str| BadFrame { id, why };
        if std::str::from_utf8(line).is_err() {
            return Err(bad(None, "the line is not UTF-8"));
        }
        let value: Value = serde_json::from_slice(line).map_err(|_| bad(None, "the line is not JSON"))?;
        let Value::Object(fields) = &value else {
            return Err(bad(None, "the line is no JSON object"));
        };
        let id = match fields.get("id") {
            None | Some(Value::Null) => None,
            Some(value) => match Id::deserialize(value) {
                Ok(id) => Some(id),
                Err(_) => return Err(bad(None, "the id is no string of at most 64 bytes and no whole number")),
            },
        };
        let kind = match fields.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            _ => return Err(bad(id, "the frame has no type")),
        };
        fn read<T: serde::de::DeserializeOwned>(value: Value, id: Option<Id>) -> Result<T, BadFrame> {
            serde_json::from_value(value)
                .map_err(|_| BadFrame { id, why: "a field of the frame is missing or of the wrong type" })
        }
        Ok(match kind.as_str() {
            "login" => Self::Login(read(value, id)?),
            "command" => Self::Command(read::<CommandFrame<'static>>(value, id)?),
            "offer" => Self::Offer(read(value, id)?),
            "answer" => Self::Answer(read(value, id)?),
            "candidate" => Self::Candidate(read(value, id)?),
            "transfer" => Self::Transfer(read(value, id)?),
            "ping" => Self::Ping { id },
            "pong" => Self::Pong,
            _ => return Err(bad(id, "the type of the frame is unknown")),
        })
    }

    /// Appends the frame as a line with its line feed.
    pub fn write(&self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Bare<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<&'a Id>,
        }
        match self {
            Self::Login(frame) => put_frame(out, "login", frame),
            Self::Command(frame) => put_frame(out, "command", frame),
            Self::Offer(frame) => put_frame(out, "offer", frame),
            Self::Answer(frame) => put_frame(out, "answer", frame),
            Self::Candidate(frame) => put_frame(out, "candidate", frame),
            Self::Transfer(frame) => put_frame(out, "transfer", frame),
            Self::Ping { id } => put_frame(out, "ping", &Bare { id: id.as_ref() }),
            Self::Pong => put_frame(out, "pong", &Bare { id: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bad(line: &str) -> BadFrame {
        ClientFrame::parse(line.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_command_is_read_with_its_number() {
        let line = r#"{"type":"command","id":7,"text":"/msgto yoda \"hi\"","mood":1}"#;
        let expected = CommandFrame { id: Some(Id::Number(7)), text: "/msgto yoda \"hi\"".into() };
        assert_eq!(ClientFrame::parse(line.as_bytes()).unwrap(), ClientFrame::Command(expected));
    }

    #[test]
    fn a_bad_frame_keeps_its_id_where_it_could_be_read() {
        let seven = Some(Id::Number(7));
        assert_eq!(bad(r#"{"type":"command","id":7}"#).id, seven);
        assert_eq!(bad(r#"{"type":"command","id":7,"text":5}"#).id, seven);
        assert_eq!(bad(r#"{"type":"dance","id":7}"#).id, seven);
        assert_eq!(bad(r#"{"id":7,"text":"x"}"#).id, seven);
        assert_eq!(bad(r#"{"type":"login","id":"a","username":5}"#).id, Some(Id::Text("a".into())));
        for line in [r#"{"type":"ping","id":1.5}"#, r#"{"type":"ping","id":[]}"#, "{", "[]", "7", r#"{"type":5}"#] {
            assert_eq!(bad(line).id, None, "{line}");
        }
        assert!(ClientFrame::parse(b"{\"type\":\"ping\",\"x\":\"\xff\"}").is_err());
    }

    #[test]
    fn fields_that_the_type_does_not_have_are_ignored_whatever_they_hold() {
        assert_eq!(ClientFrame::parse(br#"{"type":"pong","text":5,"id":"x"}"#).unwrap(), ClientFrame::Pong);
    }

    #[test]
    fn an_id_is_a_whole_number_or_a_short_string() {
        let id = |json: &str| serde_json::from_str::<Id>(json);
        assert_eq!(id("-5").unwrap(), Id::Negative(-5));
        assert_eq!(id("18446744073709551615").unwrap(), Id::Number(u64::MAX));
        assert!(id(&format!("{:?}", "x".repeat(64))).is_ok());
        for wrong in ["1.0", "true", "null", "18446744073709551616", &format!("{:?}", "x".repeat(65))] {
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_frame_reads_back_as_it_was_written() {
        let transfer: TransferId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let frames = [
            ClientFrame::Ping { id: Some(Id::Text("p".into())) },
            ClientFrame::Pong,
            ClientFrame::Command(CommandFrame { id: None, text: "/groups".into() }),
            ClientFrame::Candidate(CandidateFrame { id: None, transfer, addr: "192.0.2.7:6000".parse().unwrap() }),
            ClientFrame::Answer(VerdictFrame {
                id: Some(Id::Number(3)),
                transfer,
                accept: false,
                key: None,
                addrs: vec![],
                have: None,
                automatic: Some(true),
            }),
        ];
        for frame in frames {
            let mut line = Vec::new();
            frame.write(&mut line);
            assert_eq!(line.pop(), Some(b'\n'));
            assert_eq!(ClientFrame::parse(&line).unwrap(), frame);
        }
    }

    #[test]
    fn the_straight_reader_leaves_what_is_written_otherwise_to_the_general_one() {
        let straight = |line: &str| CommandFrame::read_straight(line.as_bytes()).is_some();
        assert!(straight(r#"{"type":"command","id":7,"text":"/groups"}"#));
        assert!(straight(r#"{"type":"command","text":"/msgto yoda ähm"}"#));
        for other in [
            r#"{"type":"command","id":07,"text":"x"}"#,
            r#"{"type":"command","id":-7,"text":"x"}"#,
            r#"{"type":"command","id":7.0,"text":"x"}"#,
            r#"{"type":"command","id":"7","text":"x"}"#,
            r#"{"type":"command","text":"a\nb"}"#,
            r#"{"type":"command","text":"x","id":7}"#,
            r#"{"type":"command","text":"x"} "#,
            "{\"type\":\"command\",\"text\":\"a\tb\"}",
        ] {
            assert!(!straight(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn both_readers_of_commands_agree(
            id in proptest::option::of(any::<u64>()), text in ".*", change in any::<(prop::sample::Index, u8)>(),
        ) {
            let mut line = Vec::new();
            ClientFrame::Command(CommandFrame { id: id.map(Id::Number), text: text.into() }).write(&mut line);
            line.pop();
            let place = change.0.index(line.len());
            for line in [line.clone(), [&line[..place], &[change.1], &line[place..]].concat()] {
                if let Some(command) = CommandFrame::read_straight(&line) {
                    let value: Value = serde_json::from_slice(&line).unwrap();
                    prop_assert_eq!(CommandFrame::deserialize(&value).unwrap(), command);
                }
            }
        }

        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = ClientFrame::parse(&line);
        }
    }
}
