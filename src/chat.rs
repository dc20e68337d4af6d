//! The rules of the chat, as a deterministic state machine that knows no socket, file or clock.

/// The number of an event in the log, from 1, without gaps; below 2^53, so that it is exact in every JSON reader.
pub type Seq = u64;
