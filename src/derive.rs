//! The text files that follow the log: who is there now, every private message, and the messages of every group.
//!
//! A pure fold of the log ([`Derived`]), written by one piece of code for the server and for `replay --derive`, so that
//! both give the same bytes. Nothing reads such a file back as truth: a server makes them anew from the log at its
//! start, and one that was deleted or damaged comes back.

mod files;
mod fold;
mod follower;
mod form;
mod keeper;
mod sessions;
#[cfg(test)]
mod tests;

pub use files::check_replaceable;
pub use fold::{Derived, Growth, Journal};
pub use follower::Follower;
pub use form::{FieldError, read};
pub use keeper::{DeriveError, Keeper};

/// The file of who is logged in now.
pub const USERLOG: &str = "userlog.txt";
