//! What stands between the core and the user: shows things, and hands in what is typed.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::contract::{Prompt, Show};
use crate::names::UserName;

/// Wakes the loop, so that it asks an interface for what is new.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Something that came from the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// A line, without its end.
    Line(String),
    /// A line that cannot be taken, and why.
    Bad(&'static str),
    /// Nothing more comes.
    End,
    /// The key that interrupts.
    Interrupt,
}

/// A way to use the client. It never acts: it shows, and says what was typed.
pub trait Interface {
    /// Shows something.
    fn show(&mut self, show: &Show, now: Instant);

    /// Says what is to be typed next; called again and again while it stays the same.
    fn ask(&mut self, prompt: Prompt);

    /// Takes what was typed, if anything was.
    fn take(&mut self) -> Option<Typed>;

    /// Says who is being logged in, and where lines typed by this user are kept.
    fn set_user(&mut self, user: UserName, history_file: &Path);

    /// Bytes that wait to be printed.
    fn printing_bytes(&self) -> usize;

    /// Whether nobody reads what is shown any more.
    fn is_broken(&self) -> bool;

    /// Shows what is left, and gives the terminal back as it was.
    fn close(&mut self);
}
