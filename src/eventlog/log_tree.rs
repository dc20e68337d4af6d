//! The tree of a log as its files give it: the root at any event, and the paths of a proof, reading little.
//!
//! The first line of each segment has the roots of the complete subtrees before it. So of a node that reaches over many
//! segments only the lines behind the last first line within it have to be read.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use uuid::Uuid;

use super::erasure::Line;
use super::format::{SegmentLine, segment_first};
use super::proof::{consistency_nodes, inclusion_nodes};
use super::proof_file::{Proof, TreeHead};
use super::reader::LogReader;
use super::segment_files::{ReadError, read_header, segments};
use super::storage::Place;
use super::tree::{Hash, Tree};
use super::verify::{VerifyError, verify_newest};
use crate::chat::Seq;

/// Why nothing is proven.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The log's newest segment is not intact, or cannot be read.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no such event.
    #[error("there is no event {asked} in the log, which ends with event {last}")]
    NoSuchEvent {
        /// The event that was asked for.
        asked: Seq,
        /// The last there is.
        last: Seq,
    },
    /// Its text is gone.
    #[error("the text of event {0} was erased, so that nothing is left to be proven")]
    Erased(Seq),
    /// The log is not the one that had this head.
    #[error("the log does not go on from head {0}: it was changed or cut since")]
    NotHeld(TreeHead),
    /// One segment's file was given, and the head is older.
    #[error("head {0} is from before the segment that was given: name the whole log's directory")]
    Before(TreeHead),
    /// The lines do not add up.
    #[error("not intact: the lines of the log do not add up to its head; --verify says where")]
    NotIntact,
}

/// The tree of a log.
#[derive(Debug)]
pub struct LogTree {
    reader: LogReader,
    log: Uuid,
    head: TreeHead,
    /// The trees before each segment, rising.
    before: Vec<Tree>,
    /// The roots of their complete subtrees, by first leaf and number of leaves.
    known: HashMap<(u64, u64), Hash>,
    /// The tree that was asked for last: the next one may go on from it.
    last: Tree,
}

impl LogTree {
    /// Opens the tree of a log (a data directory, an events directory or one segment's file); what its newest segment
    /// has acknowledged is checked.
    ///
    /// # Errors
    /// It cannot be read, or is not intact.
    pub fn open(path: &Path) -> Result<Self, ProveError> {
        let verified = verify_newest(path)?;
        let head = TreeHead { seq: verified.seq, root: verified.root };
        let mut reader = LogReader::open(path)?;
        reader.set_end(head.seq);
        let headers = headers(path, &verified.cut_off)?;
        let log = headers.first().map_or(Uuid::nil(), |header| header.log);
        let before: Vec<Tree> = headers.into_iter().map(|header| header.tree).collect();
        let known = before.iter().flat_map(complete_subtrees).collect();
        let last = before.first().cloned().unwrap_or_default();
        Ok(Self { reader, log, head, before, known, last })
    }

    /// The number of the log.
    pub fn log(&self) -> Uuid {
        self.log
    }

    /// The newest acknowledged head.
    pub fn head(&self) -> TreeHead {
        self.head
    }

    /// Whether the log holds a head that was seen of it. Cheap for heads in rising order: no line is read twice.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn holds(&mut self, seen: TreeHead) -> Result<bool, ProveError> {
        if seen.seq > self.head.seq {
            return Ok(false);
        }
        let mut tree = match self.before.iter().rfind(|tree| tree.leaves() <= seen.seq) {
            Some(before) if before.leaves() >= self.last.leaves() || self.last.leaves() > seen.seq => before.clone(),
            Some(_) => std::mem::take(&mut self.last),
            None => return Err(ProveError::Before(seen)),
        };
        self.read_leaves(tree.leaves()..seen.seq, &mut tree)?;
        let is_held = tree.root() == seen.root;
        self.last = tree;
        Ok(is_held)
    }

    /// The proof that an event is in the log, for those who know its head, or one that was seen of it.
    ///
    /// # Errors
    /// There is no such event, the log does not hold what was seen, or is not intact.
    pub fn prove(&mut self, seq: Seq, seen: Option<TreeHead>) -> Result<Proof, ProveError> {
        let head = self.head;
        if seq == 0 || seq > head.seq {
            return Err(ProveError::NoSuchEvent { asked: seq, last: head.seq });
        }
        if let Some(seen) = seen
            && !self.holds(seen)?
        {
            return Err(ProveError::NotHeld(seen));
        }
        let line = self.line(seq)?;
        let inclusion = self.hashes(inclusion_nodes(seq - 1, head.seq))?;
        let mut proof = Proof::new(self.log, seq, line, head, inclusion);
        if let Some(seen) = seen {
            proof = proof.since(seen, self.hashes(consistency_nodes(seen.seq, head.seq))?);
        }
        // Of old segments only what was needed has been read: that it is right is seen by the proof.
        proof.check_paths().map_err(|_| ProveError::NotIntact)?;
        Ok(proof)
    }

    fn line(&mut self, seq: Seq) -> Result<String, ProveError> {
        self.reader.seek(seq)?;
        match self.reader.next_line()? {
            Some(line) if line.seq == seq && matches!(Line::of(line.bytes), Line::Erased(_)) => {
                Err(ProveError::Erased(seq))
            }
            Some(line) if line.seq == seq => String::from_utf8(line.bytes.to_vec()).map_err(|_| ProveError::NotIntact),
            _ => Err(ProveError::NoSuchEvent { asked: seq, last: self.head.seq }),
        }
    }

    fn hashes(&mut self, nodes: Vec<Range<u64>>) -> Result<Vec<Hash>, ProveError> {
        nodes.into_iter().map(|node| self.hash(node)).collect()
    }

    /// The hash of a node of the tree, which begins where a complete subtree of its size may begin.
    fn hash(&mut self, node: Range<u64>) -> Result<Hash, ProveError> {
        if let Some(known) = self.known.get(&(node.start, node.end - node.start)) {
            return Ok(*known);
        }
        let mut tree = self.beginning(&node);
        self.read_leaves(node.start + tree.leaves()..node.end, &mut tree)?;
        Ok(tree.root())
    }

    /// As much of a node as is known: the complete subtrees from its first leaf to the last segment that begins in it.
    fn beginning(&self, node: &Range<u64>) -> Tree {
        let inside = self.before.iter().rfind(|tree| node.start < tree.leaves() && tree.leaves() < node.end);
        let known = inside.and_then(|tree| {
            let subtrees = complete_subtrees(tree).filter(|((first, _), _)| *first >= node.start);
            Tree::from_subtrees(tree.leaves() - node.start, subtrees.map(|(_, hash)| hash).collect())
        });
        known.unwrap_or_default()
    }

    fn read_leaves(&mut self, leaves: Range<u64>, tree: &mut Tree) -> Result<(), ProveError> {
        if leaves.is_empty() {
            return Ok(());
        }
        self.reader.seek(leaves.start + 1)?;
        for leaf in leaves {
            match self.reader.next_line()? {
                Some(line) if line.seq == leaf + 1 => {
                    tree.push(Line::leaf_of(line.bytes).ok_or(ProveError::NotIntact)?);
                }
                _ => return Err(ProveError::NoSuchEvent { asked: leaf + 1, last: self.head.seq }),
            }
        }
        Ok(())
    }
}

/// The complete subtrees of a tree, each by its first leaf and its number of leaves.
fn complete_subtrees(tree: &Tree) -> impl Iterator<Item = ((u64, u64), Hash)> {
    let leaves = tree.leaves();
    let sizes = (0..u64::BITS).rev().map(|digit| 1_u64 << digit).filter(move |size| leaves & size != 0);
    let first = move |size: u64| leaves & !(size | (size - 1));
    sizes.zip(tree.subtrees().to_vec()).map(move |(size, hash)| ((first(size), size), hash))
}

/// The first lines of the segments, rising, but for those that were cut off while they were made.
fn headers(path: &Path, cut_off: &[Seq]) -> Result<Vec<SegmentLine>, ReadError> {
    let no_log = |why: String| ReadError::NoLog { path: path.to_owned(), why };
    match Place::find(path).map_err(|error| no_log(error.to_string()))? {
        Place::Events(directory) => {
            let whole = segments(&directory)?.into_iter().filter(|first| !cut_off.contains(first));
            whole.map(|first| read_header(&directory, first)).collect()
        }
        Place::Segment(file) => {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let first = segment_first(&name).ok_or_else(|| no_log("its name is that of no segment".into()))?;
            Ok(vec![read_header(&file.parent().map(Path::to_owned).unwrap_or_default(), first)?])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::format::{CommitLine, Head};
    use super::*;
    use crate::chat::Event;
    use crate::clock::Timestamp;
    use crate::eventlog::segment_name;

    fn at(seq: Seq) -> Timestamp {
        Timestamp::from_ms(1_700_000_000_000 + seq)
    }

    fn line(seq: Seq) -> Vec<u8> {
        let mut line = Vec::new();
        Event::ServerStarted { version: format!("\u{e9}{seq}") }.encode(seq, at(seq), &mut line);
        line
    }

    fn head(seq: Seq) -> TreeHead {
        let mut tree = Tree::default();
        (1..=seq).for_each(|seq| tree.push(Hash::of_leaf(&line(seq))));
        TreeHead { seq, root: tree.root() }
    }

    /// A log with a segment of each of these lengths, every event committed alone.
    fn log(lengths: &[u64]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        let mut end = 0;
        for length in lengths {
            let first = tree.leaves() + 1;
            let mut bytes = Vec::new();
            SegmentLine { log: Uuid::from_u128(7), first, at: at(first - 1), tree: tree.clone() }.encode(&mut bytes);
            for seq in first..first + length {
                let line = line(seq);
                tree.push(Hash::of_leaf(&line));
                bytes.extend([&line[..], b"\n"].concat());
                CommitLine { seq, at: at(seq), root: tree.root() }.encode(&mut bytes);
            }
            fs::write(directory.path().join(segment_name(first)), &bytes).unwrap();
            end = bytes.len() as u64;
        }
        let slot = Head { seq: tree.leaves(), end }.to_slot();
        fs::write(directory.path().join("HEAD"), [slot, slot].concat()).unwrap();
        directory
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_event_of_a_log_in_segments_is_proven_for_every_head_behind_it(
            lengths in proptest::collection::vec(1_u64..20, 1..9),
        ) {
            let directory = log(&lengths);
            let mut tree = LogTree::open(directory.path()).unwrap();
            let last = lengths.iter().sum();
            prop_assert_eq!(tree.head(), head(last));
            for seq in 1..=last {
                let seen = head((seq + seq % 5).min(last));
                let proof = tree.prove(seq, Some(seen)).unwrap();
                prop_assert_eq!(proof.line.as_bytes(), line(seq));
                prop_assert_eq!(proof.check(head(last)), Ok(()));
                prop_assert_eq!(proof.check(seen), Ok(()));
            }
        }

        #[test]
        fn the_heads_that_a_log_had_are_held_and_no_others(
            lengths in proptest::collection::vec(1_u64..20, 1..9), asked in proptest::collection::vec(0_u64..160, 1..9),
        ) {
            let directory = log(&lengths);
            let mut tree = LogTree::open(directory.path()).unwrap();
            let last = lengths.iter().sum();
            for seq in asked {
                prop_assert_eq!(tree.holds(head(seq)).unwrap(), seq <= last);
                let forged = TreeHead { seq, root: head(seq + 1).root };
                prop_assert!(!tree.holds(forged).unwrap());
            }
        }
    }

    #[test]
    fn of_old_segments_only_what_a_proof_needs_is_read() {
        let directory = log(&[8, 8, 8, 3]);
        for old in [1, 9] {
            let file = directory.path().join(segment_name(old));
            let mut header = fs::read(&file).unwrap();
            header.truncate(header.iter().position(|byte| *byte == b'\n').unwrap() + 1);
            fs::write(file, header).unwrap();
        }
        let mut tree = LogTree::open(directory.path()).unwrap();
        for seq in [17, 24, 25, 27] {
            assert_eq!(tree.prove(seq, Some(head(24))).map(|proof| proof.check(head(27))).unwrap(), Ok(()));
        }
        assert!(tree.prove(9, None).is_err());
    }

    #[test]
    fn one_segment_is_enough_for_its_own_events() {
        let directory = log(&[5, 6, 3]);
        let mut tree = LogTree::open(&directory.path().join(segment_name(6))).unwrap();
        assert_eq!(tree.head(), head(11));
        for seq in 6..=11 {
            assert_eq!(tree.prove(seq, Some(head(11))).unwrap().check(head(11)), Ok(()));
        }
        assert!(tree.holds(head(5)).unwrap());
        assert!(matches!(tree.holds(head(4)), Err(ProveError::Before(_))));
        assert!(matches!(tree.prove(12, None), Err(ProveError::NoSuchEvent { asked: 12, last: 11 })));
    }

    #[test]
    fn nothing_is_proven_of_a_log_that_was_changed() {
        let directory = log(&[8, 3]);
        let file = directory.path().join(segment_name(1));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen("\u{e9}3\"", "\u{e9}4\"", 1)).unwrap();
        let mut tree = LogTree::open(directory.path()).unwrap();
        assert!(matches!(tree.prove(3, None), Err(ProveError::NotIntact)));
        assert!(matches!(tree.prove(4, None), Err(ProveError::NotIntact)));
        assert!(matches!(tree.prove(5, Some(head(6))), Err(ProveError::NotHeld(_))));
    }
}
