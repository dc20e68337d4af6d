//! The client: a machine that decides without socket, file, terminal or clock, and the thin shell around it.
//!
//! [`App`] takes in typed lines, bytes of the server, news of transfers and the time; it puts out what is to be shown,
//! kept, sent and done. [`event_loop`] moves these between the sockets, the files of [`state`] and an [`Interface`].

pub mod app;
mod connection;
pub mod contract;
mod editor;
mod engine;
pub mod event_loop;
pub mod heads;
mod incoming;
mod input;
pub mod interface;
mod journal;
pub mod json;
pub mod known_servers;
pub mod limits;
pub mod line;
mod link;
mod login;
mod offers;
pub mod outbox;
mod printer;
mod requests;
mod sentences;
mod sharing;
pub mod state;
mod transfers;
pub mod trust;
mod witness;

pub use app::App;
pub use contract::{Accept, Ending, Keep, Opened, Options, Output, Prompt, Show, TransferAction};
pub use interface::{Interface, Typed};
