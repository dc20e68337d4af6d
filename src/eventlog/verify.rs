//! Verifying: every byte of a log checked, framing, order and tree, beside a running server too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use memchr::memchr;
use uuid::Uuid;

use super::format::{Head, LineError, segment_first, segment_name};
use super::judge::{Tail, Walk, judge_tail, walk};
use super::opening::{Damage, HEAD};
use super::reader::{ReadError, segments};
use super::storage::{Place, ReadFile};
use super::tree::{Hash, Tree};
use crate::chat::Seq;

/// What an intact log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many events were checked.
    pub events: u64,
    /// The last of them.
    pub seq: Seq,
    /// The root of the tree over all events up to it.
    pub root: Hash,
    /// Messages whose erasure was ordered and not carried out yet: the next opening does.
    pub erasures_left: u64,
    /// Bytes of a batch behind it that was never acknowledged, or is being written now.
    pub unfinished_bytes: u64,
}

/// Why a log is not intact, or could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not what was written.
    #[error("not intact: {0}")]
    Damage(Damage),
    /// Acknowledged events are gone.
    #[error("not intact: events {from} to {to} were acknowledged and are not there")]
    Lost {
        /// The first that is missing.
        from: Seq,
        /// The last that was acknowledged.
        to: Seq,
    },
    /// A later program wrote it.
    #[error("{file}: {what}")]
    Newer {
        /// Which file.
        file: String,
        /// What this program does not know.
        what: String,
    },
}

/// Checks a log: a data directory, an events directory or one segment's file.
///
/// # Errors
/// The first place that is wrong.
pub fn verify(path: &Path) -> Result<Verified, VerifyError> {
    let no_log = |why: String| ReadError::NoLog { path: path.to_owned(), why };
    let place = Place::find(path).map_err(|error| no_log(error.to_string()))?;
    match place {
        Place::Segment(file) => {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let first = segment_first(&name).ok_or_else(|| no_log("its name is that of no segment".into()))?;
            let directory = file.parent().map(Path::to_owned).unwrap_or_default();
            Verifier::new(directory).segment(first, true, None)
        }
        Place::Events(directory) => {
            // HEAD first: what it speaks of is in the segments that are read afterwards.
            let head = read_head(&directory)?;
            let segments = segments(&directory)?;
            let newest = *segments.last().ok_or_else(|| no_log("no segment is there".into()))?;
            let mut verifier = Verifier::new(directory);
            let mut events = 0;
            for first in segments {
                let verified = verifier.segment(first, first == newest, head)?;
                events += verified.events;
                if first == newest {
                    let erasures_left = verifier.check_erasures()?;
                    if head.is_none() && verified.seq > 0 {
                        let what = "it is missing, so that nobody can say what was acknowledged".to_owned();
                        let damage = Damage { file: HEAD.to_owned(), line: 1, seq: verified.seq, what };
                        return Err(VerifyError::Damage(damage));
                    }
                    return Ok(Verified { events, erasures_left, ..verified });
                }
            }
            Err(no_log("no segment is there".into()).into())
        }
    }
}

/// Checks the newest segment of a log alone, by the tree that its first line says was before it.
///
/// # Errors
/// The first place that is wrong there.
pub(super) fn verify_newest(path: &Path) -> Result<Verified, VerifyError> {
    let no_log = |why: String| ReadError::NoLog { path: path.to_owned(), why };
    match Place::find(path).map_err(|error| no_log(error.to_string()))? {
        Place::Segment(_) => verify(path),
        Place::Events(directory) => {
            let head = read_head(&directory)?;
            let newest = *segments(&directory)?.last().ok_or_else(|| no_log("no segment is there".into()))?;
            Verifier::new(directory).segment(newest, true, head)
        }
    }
}

struct Verifier {
    directory: PathBuf,
    log: Option<Uuid>,
    /// The tree at the end of the segment before.
    before: Option<Tree>,
    /// Lines that are erased, by their events: the segment and the line in its file.
    erased: BTreeMap<Seq, (Seq, u64)>,
    /// The events that erasures name.
    named: BTreeSet<Seq>,
}

impl Verifier {
    fn new(directory: PathBuf) -> Self {
        Self { directory, log: None, before: None, erased: BTreeMap::new(), named: BTreeSet::new() }
    }

    /// Checks that whatever is erased was ordered to be. Gives how many orders are not carried out.
    fn check_erasures(&self) -> Result<u64, VerifyError> {
        if let Some((seq, (first, line))) = self.erased.iter().find(|(seq, _)| !self.named.contains(seq)) {
            let what = "the line is erased, and no erasure names it".to_owned();
            return Err(VerifyError::Damage(Damage { file: segment_name(*first), line: *line, seq: *seq, what }));
        }
        Ok(self.named.iter().filter(|seq| !self.erased.contains_key(seq)).count() as u64)
    }

    fn segment(&mut self, first: Seq, is_newest: bool, head: Option<Head>) -> Result<Verified, VerifyError> {
        let path = self.directory.join(segment_name(first));
        let bytes = ReadFile::open(&path).and_then(|file| file.read());
        let bytes = bytes.map_err(|source| ReadError::Disk { path, source })?;
        let damage = |what: String| VerifyError::Damage(Damage::of_header(first, &what));
        let walk = walk(&bytes).map_err(|error| match error {
            LineError::Newer(_) => VerifyError::Newer { file: segment_name(first), what: error.to_string() },
            LineError::Broken(what) => damage(what.to_owned()),
        })?;
        if walk.header.first != first {
            return Err(damage(format!("its first line names event {} as its first", walk.header.first)));
        }
        if self.log.replace(walk.header.log).is_some_and(|log| log != walk.header.log) {
            return Err(damage("it belongs to another log".into()));
        }
        match &self.before {
            Some(before) if before.leaves() + 1 != first => {
                return Err(damage(format!("the segment before ends with event {}", before.leaves())));
            }
            Some(before) if *before != walk.header.tree => {
                return Err(damage("its tree is not the one that the segment before ends with".into()));
            }
            _ => {}
        }
        let tail = judge_tail(&bytes, &walk);
        if let Tail::Damage(broken) = tail {
            return Err(VerifyError::Damage(Damage::at(first, broken)));
        }
        let unfinished_bytes = bytes.len() as u64 - walk.good.end;
        if !is_newest && unfinished_bytes > 0 {
            let what = walk.broken.map_or("the segment does not end with a commit".to_owned(), |broken| broken.what);
            return Err(damage(what));
        }
        if let Some(head) = head.filter(|head| is_newest && walk.good.seq < head.seq) {
            return Err(match walk.broken {
                Some(broken) => VerifyError::Damage(Damage::at(first, broken)),
                None => VerifyError::Lost { from: walk.good.seq + 1, to: head.seq },
            });
        }
        let walk = match head.filter(|head| is_newest && walk.good.seq > head.seq) {
            Some(head) => acknowledged(&bytes, &walk, head).unwrap_or(walk),
            None => walk,
        };
        let unfinished_bytes = bytes.len() as u64 - walk.good.end;
        let verified = Verified {
            events: walk.good.seq + 1 - first,
            seq: walk.good.seq,
            root: walk.good.tree.root(),
            erasures_left: 0,
            unfinished_bytes,
        };
        self.erased.extend(walk.erasures.erased.iter().map(|(seq, line)| (*seq, (first, *line))));
        self.named.extend(walk.erasures.named);
        self.before = Some(walk.good.tree);
        Ok(verified)
    }
}

/// What HEAD has acknowledged of a segment that holds more: the rest may yet be lost, and nobody should rely on it.
fn acknowledged(bytes: &[u8], whole: &Walk, head: Head) -> Option<Walk> {
    let end = match whole.commits.iter().find(|(seq, _)| *seq == head.seq) {
        Some((_, end)) => usize::try_from(*end).ok()?,
        // The segment was begun, and nothing in it is acknowledged yet.
        None if head.seq < whole.header.first => memchr(b'\n', bytes)? + 1,
        None => return None,
    };
    walk(bytes.get(..end)?).ok()
}

fn read_head(directory: &Path) -> Result<Option<Head>, VerifyError> {
    let path = directory.join(HEAD);
    match ReadFile::open(&path).and_then(|file| file.read()) {
        Ok(bytes) => match Head::parse(&bytes) {
            Some(file) => Ok(Some(file.head)),
            None => {
                let what = "both its slots are broken, so that nobody can say what was acknowledged".to_owned();
                Err(VerifyError::Damage(Damage { file: HEAD.to_owned(), line: 1, seq: 0, what }))
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReadError::Disk { path, source }.into()),
    }
}
