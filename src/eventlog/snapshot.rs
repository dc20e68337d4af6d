//! A snapshot: the state behind the last event of a closed segment, as a file that spares a reader the events before.
//!
//! The log knows nothing of what is in it but the event that it is behind.

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::closed::ClosedSegment;
use super::format::{SegmentLine, checked, is_checked};
use super::segment_files::read_header;
use super::storage::{ReadFile, SNAPSHOTS, list};
use super::tree::Hash;
use crate::chat::{Seq, State};

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

impl Snapshot {
    /// The state, if the segment that `next` begins goes on from it.
    ///
    /// # Errors
    /// Why it is not used, for people.
    pub fn state_before(self, next: &SegmentLine) -> Result<State, &'static str> {
        if next.first != self.state.seq + 1 {
            return Err(NO_END);
        }
        if next.log != self.log || next.tree.root() != self.root {
            return Err("it is that of another log");
        }
        Ok(self.state)
    }
}

/// What was found in a directory of snapshots.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest state that can be used.
    pub state: Option<State>,
    /// Why newer ones are not used, for people.
    pub notices: Vec<String>,
}

/// Looks for the newest snapshot up to an event beside the log in an events directory, whose segments begin with these
/// events. What cannot be used is passed over.
pub(super) fn find(events: &Path, segments: &[Seq], through: Seq) -> Found {
    // The log may be looked at from within its directory, so that its name does not say what is above it.
    let directory = events.join("..").join(SNAPSHOTS);
    let mut found = Found::default();
    let names = list(&directory).unwrap_or_else(|error| {
        // Where there is no such directory there is no snapshot.
        if error.get_ref().is_some() {
            found.notices.push(format!("{SNAPSHOTS} cannot be used: {error}"));
        }
        Vec::new()
    });
    let mut seqs: Vec<Seq> = names.iter().filter_map(|name| seq_of(name)).filter(|seq| *seq <= through).collect();
    seqs.sort_unstable();
    while let Some(seq) = seqs.pop() {
        let read = || {
            let file = ReadFile::open(&directory.join(name(seq))).and_then(|file| file.read());
            let snapshot = parse(&file.map_err(|error| error.to_string())?)?;
            if !segments.contains(&(seq + 1)) {
                return Err(NO_END.to_owned());
            }
            let next = read_header(events, seq + 1).map_err(|error| error.to_string())?;
            Ok(snapshot.state_before(&next)?)
        };
        match read() {
            Ok(state) => {
                found.state = Some(state);
                break;
            }
            Err(why) => found.notices.push(not_used(seq, &why)),
        }
    }
    found
}

/// Says that the snapshot behind an event is not used.
pub fn not_used(seq: Seq, why: &str) -> String {
    format!("{SNAPSHOTS}/{} is not used: {why}", name(seq))
}

/// Why a snapshot of an event in the middle of a segment is not used.
pub const NO_END: &str = "its event is not the last of a closed segment";

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
