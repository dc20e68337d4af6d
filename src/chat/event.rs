//! Events: the facts of the chat.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Seq;
use crate::clock::Timestamp;
use crate::names::{DeviceName, GroupName, Text, TransferId, UserName};

/// The number of a session, from 1, unique over the life of a log.
pub type SessionId = u64;

/// Who numbered the command that made an event: what makes sending it again harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The device of the event's user.
    pub device: DeviceName,
    /// The command's number, counted by that device from 1.
    pub id: u64,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogoutReason {
    /// The user said `/logout`.
    Logout,
    /// The connection broke or was closed.
    Disconnected,
    /// The client was silent for too long.
    Timeout,
    /// The same device logged in again.
    Replaced,
    /// The server stopped.
    Shutdown,
}

/// To whom a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressee<U = UserName> {
    /// One user.
    User(U),
    /// A group.
    Group(GroupName),
}

/// One file of an offered transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOffer {
    /// The name as its sender gives it: to be made safe before it touches a disk.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The receiver has the whole file and its hash is right.
    Done,
    /// The receiver did not want it.
    Declined,
    /// One side gave it up.
    Cancelled,
    /// It broke.
    Failed,
}

/// Which way the bytes of a transfer went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferPath {
    /// From client to client.
    Direct,
    /// Over the server, which sees ciphertext only.
    Relay,
}

/// A fact of the chat. The fields are those of the contract of the log, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants and fields are the contract's own, described in docs/protocol.md")]
pub enum Event {
    Message {
        from: UserName,
        to: UserName,
        text: Text,
        origin: Option<Origin>,
    },
    GroupMessage {
        group: GroupName,
        from: UserName,
        text: Text,
        origin: Option<Origin>,
    },
    GroupCreated {
        group: GroupName,
        by: UserName,
        invited: Vec<UserName>,
        origin: Option<Origin>,
    },
    GroupInvited {
        group: GroupName,
        by: UserName,
        invited: Vec<UserName>,
        origin: Option<Origin>,
    },
    GroupJoined {
        group: GroupName,
        user: UserName,
        origin: Option<Origin>,
    },
    GroupLeft {
        group: GroupName,
        user: UserName,
        origin: Option<Origin>,
    },
    Login {
        user: UserName,
        session: SessionId,
        ip: IpAddr,
        udp_port: Option<u16>,
        device: Option<DeviceName>,
    },
    LoginFailed {
        user: UserName,
        ip: IpAddr,
        failures: u32,
    },
    UserBlocked {
        user: UserName,
        until: Timestamp,
    },
    Logout {
        user: UserName,
        session: SessionId,
        reason: LogoutReason,
    },
    TransferOffered {
        from: UserName,
        to: UserName,
        transfer: TransferId,
        files: Vec<FileOffer>,
    },
    TransferAnswered {
        transfer: TransferId,
        user: UserName,
        accept: bool,
    },
    TransferEnded {
        transfer: TransferId,
        outcome: Outcome,
        bytes: Option<u64>,
        hash: Option<String>,
        path: Option<TransferPath>,
    },
    KeyBound {
        user: UserName,
        device: Option<DeviceName>,
        key: String,
    },
    Erasure {
        by: String,
        reason: String,
        erased: Vec<Seq>,
    },
    /// Stands where the line of a message stood, once an `erasure` has taken its text out of the log.
    Erased {
        from: UserName,
        to: Addressee,
        origin: Option<Origin>,
        /// The hash of the message's own line in the log's tree, in hexadecimal.
        leaf: String,
    },
    ServerStarted {
        version: String,
    },
    ServerStopped {
        version: String,
    },
}

/// An event with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub seq: Seq,
    /// When it was decided.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

impl Event {
    /// Who numbered it, and how, if it was made by a numbered command.
    pub fn numbering(&self) -> Option<(UserName, Origin)> {
        let (user, origin) = match self {
            Self::Message { from, origin, .. }
            | Self::GroupMessage { from, origin, .. }
            | Self::Erased { from, origin, .. } => (from, origin),
            Self::GroupCreated { by, origin, .. } | Self::GroupInvited { by, origin, .. } => (by, origin),
            Self::GroupJoined { user, origin, .. } | Self::GroupLeft { user, origin, .. } => (user, origin),
            _ => return None,
        };
        origin.map(|origin| (*user, origin))
    }

    /// Every value that the field `type` may have.
    pub const KINDS: [&str; 18] = [
        "message",
        "group_message",
        "group_created",
        "group_invited",
        "group_joined",
        "group_left",
        "login",
        "login_failed",
        "user_blocked",
        "logout",
        "transfer_offered",
        "transfer_answered",
        "transfer_ended",
        "key_bound",
        "erasure",
        "erased",
        "server_started",
        "server_stopped",
    ];

    /// Whether this program knows a value of the field `type`.
    pub fn is_kind(kind: &[u8]) -> bool {
        Self::KINDS.iter().any(|known| known.as_bytes() == kind)
    }

    /// The value of the field `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Message { .. } => "message",
            Self::GroupMessage { .. } => "group_message",
            Self::GroupCreated { .. } => "group_created",
            Self::GroupInvited { .. } => "group_invited",
            Self::GroupJoined { .. } => "group_joined",
            Self::GroupLeft { .. } => "group_left",
            Self::Login { .. } => "login",
            Self::LoginFailed { .. } => "login_failed",
            Self::UserBlocked { .. } => "user_blocked",
            Self::Logout { .. } => "logout",
            Self::TransferOffered { .. } => "transfer_offered",
            Self::TransferAnswered { .. } => "transfer_answered",
            Self::TransferEnded { .. } => "transfer_ended",
            Self::KeyBound { .. } => "key_bound",
            Self::Erasure { .. } => "erasure",
            Self::Erased { .. } => "erased",
            Self::ServerStarted { .. } => "server_started",
            Self::ServerStopped { .. } => "server_stopped",
        }
    }
}
