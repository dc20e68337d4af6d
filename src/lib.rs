//! `messenger`: a chat server, its client and the tools for its log, in one executable.
//!
//! The modules in reading order; `ARCHITECTURE.md` has the map and who may import whom.

/// Says something to the operator, as the macro of the standard library does, but never panics: a standard error on a full
/// disk, or that nobody reads, must stop neither the server nor one of its threads.
macro_rules! eprintln {
    ($($said:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($said)*);
    }};
}

pub mod names;

pub mod clock;

pub mod chat;

pub mod protocol;

pub mod eventlog;

pub mod derive;

pub mod transfer;

pub mod replay;

pub mod server;

pub mod client;

pub mod cli;
