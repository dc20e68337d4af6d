//! The server: a pure hub between bytes and events, and a thin shell of sockets, threads and files around it.

pub mod archive;
pub mod archive_files;
mod archivist;
mod background;
pub mod certificate;
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
mod index_file;
mod introductions;
pub mod limits;
mod log_reader;
mod login;
pub mod opening;
mod pending;
mod present;
pub mod segment;
mod shared;
mod signal;
mod signals;
mod socket;
mod spare;
mod tls;

pub use archive::{Archive, Lines, Older};
pub use archivist::{ArchiveThrough, Archived};
pub use connection::{ConnectionKey, Now};
pub use hub::{Hub, HubOptions, Output, Purpose};
pub use log_reader::ReadLines;
pub use opening::{Opened, open};
