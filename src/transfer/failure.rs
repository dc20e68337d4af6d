//! Why a transfer, a source or the engine failed, each as a sentence for people, and the codes that tell the peer.

use std::io;
use std::path::PathBuf;

use noq_proto::{ConnectionError, TransportErrorCode, VarInt};

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The UDP socket cannot be had.
    #[error("the UDP port for transfers, {address}, cannot be opened: {source}; choose another")]
    Bind {
        /// Which address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system refused a part of the machinery.
    #[error("transfers cannot be made ready: {0}")]
    System(#[from] io::Error),
    /// The device's key cannot be read or made.
    #[error("the key of this device, {path}, cannot be read or made: {source}")]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} holds no key of this program; move it away, and a new one is made")]
    KeyBroken {
        /// Which file.
        path: PathBuf,
    },
    /// Others could read the key.
    #[error("the key of this device, {path}, can be read by others; change that with `chmod 600`")]
    KeyOpen {
        /// Which file.
        path: PathBuf,
    },
}

/// Why a file cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be opened or read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("{path} is no regular file")]
    NotRegular {
        /// Which file.
        path: PathBuf,
    },
    /// It is larger than a transfer may be.
    #[error("{path} has {size_bytes} bytes; a transfer has at most {}", super::limits::FILE_BYTES_MAX)]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its length.
        size_bytes: u64,
    },
    /// Its name is no text that could be offered.
    #[error("the name of {path} is not UTF-8; rename the file")]
    BadName {
        /// Which file.
        path: PathBuf,
    },
}

/// Why a transfer ended without the file.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// One of the two gave it up.
    #[error("the transfer was cancelled")]
    Cancelled,
    /// The receiver did not want it.
    #[error("the transfer was declined")]
    Declined,
    /// The disk here is full.
    #[error("there is no space for the file: it needs {needed_bytes} more bytes, {free_bytes} are free")]
    NoSpace {
        /// Bytes that must still be written.
        needed_bytes: u64,
        /// Bytes that the disk has.
        free_bytes: u64,
    },
    /// The disk of the receiver is full.
    #[error("there is no space for the file at the receiver")]
    NoSpaceAtPeer,
    /// The file changed while it was sent.
    #[error("the file changed while it was sent; send it again")]
    SourceChanged,
    /// What arrived is not what was sent.
    #[error("the received file did not pass its verification")]
    VerifyFailed,
    /// What the peer offers or asks for is not what was agreed.
    #[error("the offer is not as agreed: {0}")]
    BadOffer(&'static str),
    /// A bound was reached.
    #[error("a limit of transfers was reached: {0}")]
    Limit(&'static str),
    /// Nothing was heard for too long.
    #[error("nothing was heard from the peer for too long")]
    TimedOut,
    /// No address of the peer answered.
    #[error("none of the peer's addresses can be reached directly")]
    Unreachable,
    /// The peer ended its program, or started it anew.
    #[error("the peer has gone")]
    PeerGone,
    /// Who answers does not hold the key that the server introduced.
    #[error("the peer does not hold the key that it was introduced with; nothing was sent")]
    WrongKey,
    /// The key in the introduction is none.
    #[error("the key that the peer was introduced with is no key")]
    BadKey,
    /// The disk or a file of it failed.
    #[error("{path} cannot be {action}: {source}")]
    Disk {
        /// What was tried: `written`, `read`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The peer does not keep to the protocol, or speaks another version of it.
    #[error("the connection to the peer broke: {0}")]
    Broken(String),
}

/// What the closing side says by its code: mostly the failure of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    Done = 0,
    Declined = 1,
    Cancelled = 2,
    NoSpace = 3,
    SourceChanged = 4,
    VerifyFailed = 5,
    BadOffer = 6,
    Limit = 7,
    TimedOut = 8,
    /// The program ends or the disk failed; the transfer can be taken up again.
    Gone = 9,
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code as u32)
    }
}

impl CloseCode {
    fn from_number(number: u64) -> Option<Self> {
        const ALL: [CloseCode; 10] = [
            CloseCode::Done,
            CloseCode::Declined,
            CloseCode::Cancelled,
            CloseCode::NoSpace,
            CloseCode::SourceChanged,
            CloseCode::VerifyFailed,
            CloseCode::BadOffer,
            CloseCode::Limit,
            CloseCode::TimedOut,
            CloseCode::Gone,
        ];
        ALL.get(usize::try_from(number).ok()?).copied()
    }
}

impl Failure {
    /// What the peer is told about this failure.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Cancelled => CloseCode::Cancelled,
            Self::Declined => CloseCode::Declined,
            Self::NoSpace { .. } | Self::NoSpaceAtPeer => CloseCode::NoSpace,
            Self::SourceChanged => CloseCode::SourceChanged,
            Self::VerifyFailed => CloseCode::VerifyFailed,
            Self::BadOffer(_) | Self::Broken(_) | Self::WrongKey | Self::BadKey => CloseCode::BadOffer,
            Self::Limit(_) => CloseCode::Limit,
            Self::TimedOut | Self::Unreachable => CloseCode::TimedOut,
            Self::PeerGone | Self::Disk { .. } => CloseCode::Gone,
        }
    }

    /// What the end of a connection means for its transfer.
    pub fn from_connection(reason: &ConnectionError) -> Self {
        match reason {
            ConnectionError::ApplicationClosed(close) => Self::from_code(close.error_code.into_inner()),
            ConnectionError::TransportError(error) => Self::from_transport(error.code, &error.reason),
            ConnectionError::ConnectionClosed(close) => {
                Self::from_transport(close.error_code, &String::from_utf8_lossy(&close.reason))
            }
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::Reset => Self::PeerGone,
            other => Self::Broken(other.to_string()),
        }
    }

    fn from_code(number: u64) -> Self {
        match CloseCode::from_number(number) {
            Some(CloseCode::Declined) => Self::Declined,
            Some(CloseCode::Cancelled) => Self::Cancelled,
            Some(CloseCode::NoSpace) => Self::NoSpaceAtPeer,
            Some(CloseCode::SourceChanged) => Self::SourceChanged,
            Some(CloseCode::VerifyFailed) => Self::VerifyFailed,
            Some(CloseCode::BadOffer) => Self::BadOffer("the peer refused what it was sent"),
            Some(CloseCode::Limit) => Self::Limit("the peer has no more room"),
            Some(CloseCode::TimedOut) => Self::TimedOut,
            Some(CloseCode::Done | CloseCode::Gone) | None => Self::PeerGone,
        }
    }

    fn from_transport(code: TransportErrorCode, reason: &str) -> Self {
        /// Alerts of TLS that say that the certificate, here the key, was not accepted: bad_certificate to
        /// certificate_unknown, unknown_ca, access_denied, decrypt_error, certificate_required (RFC 8446, section 6).
        const KEY_ALERTS: [u8; 9] = [42, 43, 44, 45, 46, 48, 49, 51, 116];
        /// no_application_protocol (RFC 7301).
        const VERSION_ALERT: u8 = 120;
        if code == TransportErrorCode::crypto(VERSION_ALERT) {
            return Self::Broken("it speaks another version of the protocol".into());
        }
        if KEY_ALERTS.iter().any(|alert| code == TransportErrorCode::crypto(*alert)) {
            return Self::WrongKey;
        }
        // What a peer writes there is its own text: no more than a line of it is shown.
        let reason: String = reason.chars().filter(|character| !character.is_control()).take(200).collect();
        Self::Broken(if reason.is_empty() { code.to_string() } else { format!("{code}: {reason}") })
    }
}

#[cfg(test)]
mod tests {
    use noq_proto::ApplicationClose;

    use super::*;

    #[test]
    fn every_code_of_a_closing_peer_is_a_sentence() {
        let sentence = |number: u32| {
            let close = ApplicationClose { error_code: VarInt::from_u32(number), reason: Default::default() };
            Failure::from_connection(&ConnectionError::ApplicationClosed(close)).to_string()
        };
        let sentences: Vec<String> = (1..=10).map(sentence).collect();
        assert_eq!(
            sentences,
            [
                "the transfer was declined",
                "the transfer was cancelled",
                "there is no space for the file at the receiver",
                "the file changed while it was sent; send it again",
                "the received file did not pass its verification",
                "the offer is not as agreed: the peer refused what it was sent",
                "a limit of transfers was reached: the peer has no more room",
                "nothing was heard from the peer for too long",
                "the peer has gone",
                "the peer has gone",
            ]
        );
    }

    #[test]
    fn a_failure_reaches_the_peer_as_the_same_failure() {
        let failures = [
            Failure::Cancelled,
            Failure::Declined,
            Failure::SourceChanged,
            Failure::VerifyFailed,
            Failure::TimedOut,
            Failure::PeerGone,
        ];
        for failure in failures {
            let told = Failure::from_code(failure.close_code() as u64);
            assert_eq!(told.to_string(), failure.to_string());
        }
    }
}
