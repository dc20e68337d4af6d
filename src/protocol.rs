//! The wire protocol, version 1: lines, frames, answers and the sentences that people read.

pub mod answer;
mod fingerprint;
pub mod frame;
pub mod line;
pub mod sentence;

pub use answer::{Answer, ErrorAnswer, GroupEntry, HelpEntry, ServerFrame, ShortAnswer, UserEntry};
pub use fingerprint::{Fingerprint, NoFingerprint};
pub use frame::{
    BadFrame, CandidateFrame, ClientFrame, CommandFrame, Id, LoginFrame, OfferFrame, ReportFrame, VerdictFrame,
};
pub use line::{CutLine, LineCutter};

/// The longest line of a client, in bytes with its line feed.
pub const CLIENT_LINE_BYTES_MAX: usize = 65_536;
/// The longest line of the server, in bytes with its line feed.
pub const SERVER_LINE_BYTES_MAX: usize = 1 << 20;
/// The longest `id` that is text, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// Appends `{"type":KIND,` and the fields of `frame` as a line with its line feed.
fn put_frame<T: serde::Serialize>(out: &mut Vec<u8>, kind: &str, frame: &T) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
    let brace = out.len();
    serde_json::to_writer(&mut *out, frame).expect("writing to memory cannot fail");
    // The object that was written goes on from the field `type`: its brace gives way to a comma.
    if out.get(brace + 1) == Some(&b'}') {
        out.remove(brace);
    } else if let Some(first) = out.get_mut(brace) {
        *first = b',';
    }
    out.push(b'\n');
}
