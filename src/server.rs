//! The server: a pure hub between bytes and events, and a thin shell of sockets, threads and files around it.

pub mod connection;
mod console;
pub mod credentials;
mod deadlines;
mod deliver;
mod dispatch;
pub mod event_loop;
mod feed;
pub mod hub;
pub mod index;
pub mod limits;
mod log_reader;
mod login;
mod signal;

pub use connection::{ConnectionKey, Now};
pub use hub::{Hub, HubOptions, Output, Purpose};
pub use log_reader::ReadLines;
