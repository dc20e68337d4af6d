//! A snapshot: the state behind the last event of a closed segment, as a file that spares an opening the events before.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::chat::{Seq, State};
use crate::eventlog::{ClosedSegment, Hash, checked, is_checked};

/// The form that this program writes; it changes with the state's.
const FORMAT: u64 = 1;

/// A snapshot as it was read.
#[derive(Debug)]
pub struct Snapshot {
    /// The log it belongs to.
    pub log: Uuid,
    /// The root of the log's tree up to the state's last event.
    pub root: Hash,
    /// The state.
    pub state: State,
}

/// The bytes of the snapshot behind a segment.
///
/// # Errors
/// The state cannot be written as JSON.
pub fn encode(segment: &ClosedSegment, state: &State) -> Result<Vec<u8>, serde_json::Error> {
    let mut body = serde_json::to_vec(state)?;
    body.push(b'\n');
    let ClosedSegment { log, last, root, .. } = segment;
    let sha256 = hex(&Sha256::digest(&body));
    let mut file = checked(&format!(
        r#"{{"type":"snapshot","format":{FORMAT},"log":"{log}","seq":{last},"root":"{root}","sha256":"{sha256}""#
    ));
    file.append(&mut body);
    Ok(file)
}

/// Reads a snapshot.
///
/// # Errors
/// Why it is not used, for people.
pub fn parse(file: &[u8]) -> Result<Snapshot, &'static str> {
    #[derive(Deserialize)]
    struct Header {
        r#type: String,
        format: u64,
        log: Uuid,
        seq: Seq,
        root: Hash,
        sha256: String,
    }
    let end = memchr::memchr(b'\n', file).ok_or("its first line has no end")?;
    let (line, body) = (&file[..end], &file[end + 1..]);
    if !is_checked(line) {
        return Err("its first line is not as it was written");
    }
    let Header { r#type, format, log, seq, root, sha256 } =
        serde_json::from_slice(line).map_err(|_| "its first line is that of no snapshot")?;
    if r#type != "snapshot" || format != FORMAT {
        return Err("it has another format");
    }
    if hex(&Sha256::digest(body)) != sha256 {
        return Err("its state is not as it was written");
    }
    let state: State = serde_json::from_slice(body).map_err(|_| "its state is of another form")?;
    if state.seq != seq {
        return Err("its state is that of another event");
    }
    Ok(Snapshot { log, root, state })
}

/// The name of the snapshot's file behind an event.
pub fn name(seq: Seq) -> String {
    format!("{seq:020}.json")
}

/// The event behind which the snapshot in a file is; `None` if the name is that of none.
pub fn seq_of(name: &str) -> Option<Seq> {
    let digits = name.strip_suffix(".json").filter(|digits| digits.len() == 20)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
