//! The event log, format 1: the one truth of a server, described in `docs/eventlog.md`.
//!
//! Segments of JSON lines with a commit behind each batch, a Merkle tree over the events (RFC 6962), and HEAD, which
//! says how far the log has been acknowledged.

mod append;
mod checkpoint;
mod closed;
mod damage;
mod erasure;
mod format;
mod judge;
mod keyfile;
mod line_buffer;
mod line_reader;
mod log_tree;
pub mod memory;
mod opening;
mod proof;
mod proof_file;
mod reader;
mod replayed;
mod search;
mod segment_files;
pub mod snapshot;
pub mod storage;
#[cfg(test)]
mod tests;
mod tree;
mod verify;
mod writer;

pub use append::{AppendError, Batch, Durable, Log, SEGMENT_BYTES_MAX};
pub use checkpoint::NoteKey;
pub use closed::{ClosedSegment, read_closed, read_header};
pub use damage::{Damage, Foreign, Newer};
pub use erasure::{EraseError, Order, OrderError};
pub use format::{
    CommitLine, EventLine, Head, SegmentLine, checked, event_kind, event_start, is_checked, segment_name,
};
pub use keyfile::{KeyError, check_key, make_key, read_bounded, read_key};
pub use line_reader::LineReader;
pub use log_tree::{LogTree, ProveError};
pub use opening::{Found, OpenError, Opened, Visitor, inspect, log_number, open, open_after, segments};
pub use proof_file::{NotedHead, Proof, ProofError, TreeHead, TreeHeadError};
pub use reader::LogReader;
pub use replayed::{Replayed, ReplayedEvent};
pub use segment_files::ReadError;
pub use storage::{Disk, LockError, Storage, StorageFile};
pub use tree::{Hash, HashError, Tree};
pub use verify::{Verified, VerifyError, verify};
pub use writer::{Report, Writer};
