//! Refusals: why a command was not carried out, as a closed list with stable codes.

use super::Seq;
use crate::clock::Timestamp;
use crate::names::{FormError, GroupName, UserName};

/// Why nothing happened. A refusal leaves no trace in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A line that is no frame; the words say what was wrong with it.
    BadLine(&'static str),
    /// A line over the limit.
    LineTooLong,
    /// Clear text from another machine.
    CleartextRefused,
    /// A command before login.
    NotLoggedIn,
    /// A second login on one connection.
    AlreadyLoggedIn,
    /// Unknown user or wrong password; the two are not told apart.
    BadCredentials {
        /// Wrong passwords left before the name is blocked.
        attempts_left: u32,
    },
    /// The name is blocked.
    Blocked {
        /// How long yet.
        retry_after_ms: u64,
        /// Whether this very attempt blocked it.
        by_this: bool,
    },
    /// The user has as many sessions as one may have.
    TooManySessions,
    /// No such command.
    UnknownCommand,
    /// Wrong arguments.
    Usage {
        /// How the command is written.
        usage: &'static str,
    },
    /// A word is no name, or a text is no text.
    Form(FormError),
    /// Nobody of this name has an account.
    UnknownUser(UserName),
    /// No such group.
    UnknownGroup(GroupName),
    /// The name of a group is taken.
    GroupExists(GroupName),
    /// Joining without an invitation.
    NotInvited(GroupName),
    /// Not a member (or invited, but not joined).
    NotJoined {
        /// The group.
        group: GroupName,
        /// Whether an invitation is waiting.
        invited: bool,
    },
    /// Already a member.
    AlreadyJoined {
        /// The group.
        group: GroupName,
        /// Who is.
        user: UserName,
    },
    /// Already invited.
    AlreadyInvited {
        /// The group.
        group: GroupName,
        /// Who is.
        user: UserName,
    },
    /// A transfer to a user without a session.
    NoSuchPeer(UserName),
    /// A transfer that is not, or no longer, waiting for this.
    UnknownTransfer,
    /// A changing command whose number is not the next.
    OutOfOrder {
        /// The number that is.
        expected: u64,
    },
    /// The command was carried out before: not an error, answered `ok`.
    Duplicate {
        /// The event it made then, where that is still known.
        made: Option<(Seq, Timestamp)>,
    },
    /// A limit of the server.
    LimitReached {
        /// Which.
        limit: &'static str,
    },
    /// The log cannot be written; nothing happened.
    StorageFailed,
    /// The log cannot be read, or is damaged there.
    LogUnreadable,
    /// Another login of the same user and device took this session's place.
    Replaced,
    /// The server stops.
    ShuttingDown,
}

impl Refusal {
    /// The stable word for it on the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadLine(_) => "bad_line",
            Self::LineTooLong => "line_too_long",
            Self::CleartextRefused => "cleartext_refused",
            Self::NotLoggedIn => "not_logged_in",
            Self::AlreadyLoggedIn => "already_logged_in",
            Self::BadCredentials { .. } => "bad_credentials",
            Self::Blocked { .. } => "blocked",
            Self::TooManySessions => "too_many_sessions",
            Self::UnknownCommand => "unknown_command",
            Self::Usage { .. } => "usage",
            Self::Form(FormError::BadName(_)) => "bad_name",
            Self::Form(FormError::TextTooLong) => "text_too_long",
            Self::Form(FormError::EmptyText) => "empty_text",
            Self::UnknownUser(_) => "unknown_user",
            Self::UnknownGroup(_) => "unknown_group",
            Self::GroupExists(_) => "group_exists",
            Self::NotInvited(_) => "not_invited",
            Self::NotJoined { .. } => "not_joined",
            Self::AlreadyJoined { .. } => "already_joined",
            Self::AlreadyInvited { .. } => "already_invited",
            // An answer or end for a transfer nobody is waiting on: there is no such peer for it.
            Self::NoSuchPeer(_) | Self::UnknownTransfer => "no_such_peer",
            Self::OutOfOrder { .. } => "out_of_order",
            Self::Duplicate { .. } => "duplicate",
            Self::LimitReached { .. } => "limit_reached",
            Self::StorageFailed | Self::LogUnreadable => "storage_failed",
            Self::Replaced => "replaced",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

impl From<FormError> for Refusal {
    fn from(error: FormError) -> Self {
        Self::Form(error)
    }
}
