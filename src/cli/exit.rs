//! Exit codes, by the kind of what went wrong.

use std::process::{ExitCode, Termination};

use crate::eventlog::{KeyError, LockError};

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All done.
    Done = 0,
    /// It failed.
    Failure = 1,
    /// Wrong arguments.
    Usage = 2,
    /// No connection, or none that can be trusted.
    CannotConnect = 3,
    /// The server refused the login.
    LoginRefused = 4,
    /// A transfer failed.
    TransferFailed = 5,
    /// The log is not intact, or the key beside it.
    NotIntact = 7,
    /// A bad configuration or credentials file.
    BadConfiguration = 78,
    /// Interrupted from the keyboard.
    Interrupted = 130,
}

/// A failure with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure that says why, and with which code the process ends.
    pub fn error(exit: Exit, message: impl std::fmt::Display) -> anyhow::Error {
        Self { exit, message: message.to_string() }.into()
    }

    /// A key that cannot be used.
    pub fn of_key(error: KeyError) -> anyhow::Error {
        if error.is_damage() { Self::error(Exit::NotIntact, error) } else { error.into() }
    }

    /// A data directory that cannot be locked.
    pub fn of_lock(error: LockError) -> anyhow::Error {
        match error {
            LockError::NoFile { .. } => Self::error(Exit::NotIntact, error),
            LockError::Held(_) | LockError::Refused { .. } => error.into(),
        }
    }
}

impl Exit {
    /// The code of an error: that of the [`Failure`] in it, else 1.
    pub fn of(error: &anyhow::Error) -> Self {
        error.downcast_ref::<Failure>().map_or(Self::Failure, |failure| failure.exit)
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}
