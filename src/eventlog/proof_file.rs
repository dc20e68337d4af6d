//! What is noted of a log and what is shown of it: a tree head as `SEQ:ROOT`, lists of them, and the proof of one event
//! as a small file that needs no log to be checked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::format::event_start;
use super::proof::{is_consistent, root_of_inclusion};
use super::tree::Hash;
use crate::chat::Seq;

/// What a proof file says of itself in `proof`.
const FORMAT: u64 = 1;

/// The root of a log's tree over the events up to one: what a witness keeps of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeHead {
    /// The last event.
    pub seq: Seq,
    /// The root over all up to it.
    pub root: Hash,
}

/// A text is no tree head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a head is SEQ:ROOT, the number of an event and 64 lower-case hexadecimal digits")]
pub struct TreeHeadError;

impl fmt::Display for TreeHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.root)
    }
}

impl FromStr for TreeHead {
    type Err = TreeHeadError;

    fn from_str(text: &str) -> Result<Self, TreeHeadError> {
        let (seq, root) = text.split_once(':').ok_or(TreeHeadError)?;
        // A sign is no digit.
        let seq = seq.bytes().all(|byte| byte.is_ascii_digit()).then(|| seq.parse().ok()).flatten();
        Ok(Self { seq: seq.ok_or(TreeHeadError)?, root: root.parse().map_err(|_| TreeHeadError)? })
    }
}

/// A head that was noted, and of which log if that was noted too: a line `SEQ:ROOT` or `LOG SEQ:ROOT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotedHead {
    /// The log.
    pub log: Option<Uuid>,
    /// Its head.
    pub head: TreeHead,
}

impl FromStr for NotedHead {
    type Err = TreeHeadError;

    fn from_str(line: &str) -> Result<Self, TreeHeadError> {
        match line.trim().split_once(' ') {
            Some((log, head)) => {
                let log = Some(log.parse().map_err(|_| TreeHeadError)?);
                Ok(Self { log, head: head.trim_start().parse()? })
            }
            None => Ok(Self { log: None, head: line.trim().parse()? }),
        }
    }
}

/// The proof that an event is in a log, as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The version of the form, 1.
    proof: u64,
    /// The log.
    pub log: Uuid,
    /// The event.
    pub seq: Seq,
    /// Its line, without its line feed.
    pub line: String,
    /// The head of the log when the proof was made.
    pub head: TreeHead,
    /// The path from the line to the root of `head`, from the leaf up (RFC 6962, section 2.1.1).
    inclusion: Vec<Hash>,
    /// An older head that `head` goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
}

/// An older head, and the path that shows that the newer one goes on from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// The older head.
    pub head: TreeHead,
    /// From it to the newer (RFC 6962, section 2.1.2).
    consistency: Vec<Hash>,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is no proof file.
    #[error("it is no proof of an event: {0}")]
    Malformed(String),
    /// A later program wrote it.
    #[error("it has form {0}, and this program knows form {FORMAT} only: use the newer program that wrote it")]
    Newer(u64),
    /// The line is that of another event.
    #[error("its line is not that of event {0}")]
    WrongLine(Seq),
    /// The path does not lead to the root.
    #[error("the line of event {seq} is not in the log with head {head}: the line or the path was changed")]
    NotIncluded {
        /// The event.
        seq: Seq,
        /// The head in the file.
        head: TreeHead,
    },
    /// It is about another head.
    #[error("it says nothing of the head {expected}: it is for {head}{}", since.as_ref().map(|head| format!(" and {head}")).unwrap_or_default())]
    OtherHead {
        /// The head that was asked for.
        expected: TreeHead,
        /// The newest in the file.
        head: TreeHead,
        /// The older one in the file.
        since: Option<Box<TreeHead>>,
    },
    /// The older head does not lead to the newer.
    #[error("the log with head {head} does not go on from head {since}")]
    NotConsistent {
        /// The older head.
        since: TreeHead,
        /// The newer one.
        head: TreeHead,
    },
    /// The head that was asked for is older than the event.
    #[error("event {seq} came after the head {expected}, and so is not under it: expect a head from event {seq} on")]
    TooEarly {
        /// The event.
        seq: Seq,
        /// The head that was asked for.
        expected: TreeHead,
    },
}

impl Proof {
    /// The proof of an event by its line and paths.
    pub(super) fn new(log: Uuid, seq: Seq, line: String, head: TreeHead, inclusion: Vec<Hash>) -> Self {
        Self { proof: FORMAT, log, seq, line, head, inclusion, since: None }
    }

    /// The same proof for those who know an older head.
    pub(super) fn since(self, head: TreeHead, consistency: Vec<Hash>) -> Self {
        Self { since: Some(Since { head, consistency }), ..self }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It is no proof, or a newer program's.
    pub fn parse(file: &[u8]) -> Result<Self, ProofError> {
        #[derive(Deserialize)]
        struct Form {
            proof: u64,
        }
        let malformed = |error: serde_json::Error| ProofError::Malformed(error.to_string());
        let Form { proof } = serde_json::from_slice(file).map_err(malformed)?;
        if proof != FORMAT {
            return Err(ProofError::Newer(proof));
        }
        serde_json::from_slice(file).map_err(malformed)
    }

    /// Checks that the event is in the log that has, or once had, the head `expected`.
    ///
    /// # Errors
    /// What is not proven.
    pub fn check(&self, expected: TreeHead) -> Result<(), ProofError> {
        let Self { seq, head, .. } = *self;
        self.check_paths()?;
        let since = self.since.as_ref().map(|since| since.head);
        if expected != head && Some(expected) != since {
            return Err(ProofError::OtherHead { expected, head, since: since.map(Box::new) });
        }
        // A log can go on from an old head in any way: only what is under that head is vouched for by it.
        if expected.seq < seq {
            return Err(ProofError::TooEarly { seq, expected });
        }
        Ok(())
    }

    /// Checks what the file says by itself.
    pub(super) fn check_paths(&self) -> Result<(), ProofError> {
        let Self { seq, ref line, head, ref inclusion, ref since, .. } = *self;
        let line = line.as_bytes();
        if event_start(line).is_none_or(|(own, _)| own != seq) || line.contains(&b'\n') {
            return Err(ProofError::WrongLine(seq));
        }
        let leaf = seq.checked_sub(1).ok_or(ProofError::WrongLine(seq))?;
        if root_of_inclusion(leaf, head.seq, Hash::of_leaf(line), inclusion) != Some(head.root) {
            return Err(ProofError::NotIncluded { seq, head });
        }
        match since {
            Some(Since { head: since, consistency })
                if !is_consistent(since.seq, since.root, head.seq, head.root, consistency) =>
            {
                Err(ProofError::NotConsistent { since: *since, head })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::proof::{consistency_nodes, inclusion_nodes};
    use super::super::tree::Tree;
    use super::*;

    fn line(seq: Seq) -> String {
        format!(r#"{{"seq":{seq},"ts":"2026-11-22T06:10:00.123Z","type":"server_started","version":"{seq}"}}"#)
    }

    fn hash(node: &std::ops::Range<u64>) -> Hash {
        let mut tree = Tree::default();
        node.clone().for_each(|leaf| tree.push(Hash::of_leaf(line(leaf + 1).as_bytes())));
        tree.root()
    }

    fn head(seq: Seq) -> TreeHead {
        TreeHead { seq, root: hash(&(0..seq)) }
    }

    /// The proof of event 5 in a log of 11 for those who know head 7.
    fn proof() -> Proof {
        let inclusion = inclusion_nodes(4, 11).iter().map(hash).collect();
        let consistency = consistency_nodes(7, 11).iter().map(hash).collect();
        Proof::new(Uuid::from_u128(7), 5, line(5), head(11), inclusion).since(head(7), consistency)
    }

    #[test]
    fn a_proof_is_good_for_the_heads_it_is_for_and_for_no_other() {
        let proof = proof();
        assert_eq!(proof.check(head(11)), Ok(()));
        assert_eq!(proof.check(head(7)), Ok(()));
        assert!(matches!(proof.check(head(10)), Err(ProofError::OtherHead { .. })));
        let forged = TreeHead { seq: 11, root: head(10).root };
        assert!(matches!(proof.check(forged), Err(ProofError::OtherHead { .. })));
    }

    #[test]
    fn a_head_from_before_the_event_vouches_for_nothing() {
        let inclusion = inclusion_nodes(4, 11).iter().map(hash).collect();
        let consistency = consistency_nodes(3, 11).iter().map(hash).collect();
        let proof = Proof::new(Uuid::nil(), 5, line(5), head(11), inclusion).since(head(3), consistency);
        assert_eq!(proof.check(head(11)), Ok(()));
        assert_eq!(proof.check(head(3)), Err(ProofError::TooEarly { seq: 5, expected: head(3) }));
    }

    #[test]
    fn whatever_is_changed_in_a_proof_is_noticed() {
        let good = proof();
        let changed = |change: &dyn Fn(&mut Proof)| {
            let mut proof = good.clone();
            change(&mut proof);
            proof.check(head(11)).and(proof.check(head(7)))
        };
        let not_included = Err(ProofError::NotIncluded { seq: 5, head: head(11) });
        assert_eq!(changed(&|proof| proof.line = line(5).replace("started", "stopped")), not_included);
        assert_eq!(changed(&|proof| proof.inclusion.swap(0, 1)), not_included);
        assert_eq!(changed(&|proof| proof.inclusion.truncate(1)), not_included);
        assert_eq!(changed(&|proof| proof.seq = 4), Err(ProofError::WrongLine(4)));
        assert_eq!(changed(&|proof| proof.line.push('\n')), Err(ProofError::WrongLine(5)));
        assert!(matches!(changed(&|proof| proof.head = head(10)), Err(ProofError::NotIncluded { .. })));
        let swap = |proof: &mut Proof| proof.since.as_mut().unwrap().consistency.swap(0, 1);
        assert!(matches!(changed(&swap), Err(ProofError::NotConsistent { .. })));
    }

    #[test]
    fn a_file_reads_back_and_what_is_none_is_named() {
        let file = serde_json::to_vec_pretty(&proof()).unwrap();
        assert_eq!(Proof::parse(&file), Ok(proof()));
        assert_eq!(Proof::parse(br#"{"proof":2,"more":[]}"#), Err(ProofError::Newer(2)));
        for other in ["", "{}", r#"{"proof":1}"#, "[1]"] {
            assert!(matches!(Proof::parse(other.as_bytes()), Err(ProofError::Malformed(_))), "{other}");
        }
    }

    #[test]
    fn heads_are_read_as_they_are_written() {
        let head = head(7);
        assert_eq!(head.to_string().parse(), Ok(head));
        let log = Uuid::from_u128(7);
        assert_eq!(format!("{log} {head}").parse(), Ok(NotedHead { log: Some(log), head }));
        assert_eq!(format!("{head}\r").parse(), Ok(NotedHead { log: None, head }));
        for wrong in ["", "7", "7:", ":00", "+7:00", &format!("x {head}"), &head.to_string().to_uppercase()] {
            assert_eq!(wrong.parse::<NotedHead>(), Err(TreeHeadError), "{wrong}");
        }
    }
}
