//! The rules of the chat, as a deterministic state machine that knows no socket, file or clock.
//!
//! [`State::decide`] turns a command into events or a [`Refusal`] and changes nothing; [`State::apply`] folds an event
//! and never fails. Whatever depends on the time or on a flag is decided once and stands in the event, so the fold of
//! a log is the same state on every machine in every year.

pub mod command;
mod device;
pub mod event;
mod event_line;
mod group;
pub mod json;
pub mod login;
pub mod policy;
pub mod refusal;
pub mod state;
pub(crate) mod straight;
pub mod transfer;

pub use command::{Command, Place};
pub use event::{Addressee, Event, FileOffer, LogoutReason, Origin, Outcome, Record, SessionId, TransferPath};
pub use event_line::DecodeError;
pub use login::LoginRequest;
pub use policy::Policy;
pub use refusal::Refusal;
pub use state::{Session, State};
pub use transfer::Ending;

/// The number of an event in the log, from 1, without gaps; below 2^53, so that it is exact in every JSON reader.
pub type Seq = u64;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
