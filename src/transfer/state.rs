//! One transfer under way: who it is with, how far its connection is, and which half this side does.

use std::path::PathBuf;
use std::time::Instant;

use crate::names::TransferId;

use super::blocks::Value;
use super::identity::PeerKey;
use super::progress::Progress;
use super::punch::Punch;
use super::receiving::Receiving;
use super::sending::Sending;
use super::worker::Ticket;

/// A transfer under way.
#[derive(Debug)]
pub struct Transfer {
    /// Its number.
    pub id: TransferId,
    /// What the worker and the links know it by.
    pub ticket: Ticket,
    /// Who must be at the other end.
    pub peer: PeerKey,
    /// The search for an address.
    pub punch: Punch,
    /// How far its connection is.
    pub phase: Phase,
    /// Somebody knew of the transfer and did not hold the peer's key.
    pub met_wrong_key: bool,
    /// What was told of its progress.
    pub progress: Progress,
    /// What it does.
    pub role: Role,
}

/// How far its connection is.
#[derive(Debug, Clone, Copy)]
pub enum Phase {
    /// None yet: a sender looks for an address, a receiver waits for its sender, until a moment.
    Searching {
        /// When it fails.
        until: Instant,
    },
    /// A sender's is tried.
    Connecting {
        /// Which connection.
        link: usize,
        /// When it fails.
        until: Instant,
    },
    /// It stands, and the peer has shown its key.
    Standing {
        /// Which connection.
        link: usize,
    },
    /// It is gone and not needed any more.
    Alone,
}

/// What this side does.
#[derive(Debug)]
pub enum Role {
    /// It sends.
    Sending(Sending),
    /// It receives.
    Receiving(Receiving),
}

impl Transfer {
    /// Whether it has no connection yet.
    pub fn is_searching(&self) -> bool {
        matches!(self.phase, Phase::Searching { .. })
    }

    /// Whether it would let its sender in.
    pub fn awaits_sender(&self) -> bool {
        self.is_searching() && matches!(self.role, Role::Receiving(_))
    }
}

impl Phase {
    /// Its connection, tried or standing.
    pub fn link(self) -> Option<usize> {
        match self {
            Self::Connecting { link, .. } | Self::Standing { link } => Some(link),
            Self::Searching { .. } | Self::Alone => None,
        }
    }

    /// When it fails unless its connection stands.
    pub fn deadline(self) -> Option<Instant> {
        match self {
            Self::Searching { until } | Self::Connecting { until, .. } => Some(until),
            Self::Standing { .. } | Self::Alone => None,
        }
    }
}

impl Role {
    /// Takes the end of the connection, which the peer said is because all is done or not; whether this is no failure.
    pub fn goes_on_alone(&mut self, is_done: bool) -> bool {
        match self {
            Self::Sending(sending) => is_done && sending.handle_done(),
            Self::Receiving(receiving) => receiving.handle_lost(),
        }
    }

    /// Bytes that are done, and all.
    pub fn progress(&self) -> (u64, u64) {
        match self {
            Self::Sending(sending) => (sending.done_bytes(), sending.size_bytes()),
            Self::Receiving(receiving) => (receiving.done_bytes(), receiving.size_bytes()),
        }
    }

    /// The file's hash and its path here, once the transfer is done.
    pub fn result(&self) -> Option<(Value, Option<PathBuf>)> {
        match self {
            Self::Sending(sending) => sending.verified().map(|hash| (hash, None)),
            Self::Receiving(receiving) => receiving.finished().map(|(path, hash)| (hash, Some(path.clone()))),
        }
    }
}
