//! `messenger`: a chat server, its client and the tools for its log, in one executable.
//!
//! The modules in reading order; `ARCHITECTURE.md` has the map and who may import whom.

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
