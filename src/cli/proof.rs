//! The ways of `messenger replay` that prove: heads that were seen, one event for a third party, the head signed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::exit::{Exit, Failure};
use crate::chat::Seq;
use crate::eventlog::{self, LogTree, NotedHead, Proof, ProofError, ProveError, TreeHead, VerifyError, read_bounded};

/// The longest file of heads that is read, in bytes.
const HEADS_BYTES_MAX: u64 = 64 << 20;
/// The longest proof that is read, in bytes: a line of 1 MiB, escaped, and its paths.
const PROOF_BYTES_MAX: u64 = 8 << 20;

/// What is to be proven, and to whom.
#[derive(Debug, Args)]
pub(super) struct ProofArgs {
    /// A head seen earlier, as in `--expect 41:b708…`, from the answer to a ping or from --verify: with --verify, the
    /// log must still hold it (may be given several times); with --prove, for those who know it; with --check-proof,
    /// the head that is trusted.
    #[arg(long, value_name = "SEQ:ROOT")]
    pub(super) expect: Vec<TreeHead>,

    /// File of heads seen earlier, one a line, as a client keeps them, as in `--verify --heads heads`.
    #[arg(long, value_name = "FILE", requires = "verify")]
    heads: Option<PathBuf>,

    /// Write the proof of one event, as in `--prove 41`: a small JSON file, on standard output.
    #[arg(long, value_name = "SEQ", conflicts_with_all = ["which", "format"])]
    pub(super) prove: Option<Seq>,

    /// Check a proof without the log, as in `--check-proof proof.json --expect 530:b708…`. Exit 7 if it proves nothing.
    #[arg(long, value_name = "FILE", requires = "expect", conflicts_with_all = ["which", "format"])]
    pub(super) check_proof: Option<PathBuf>,

    /// Show the newest head as a signed note (tlog-checkpoint); the key that verifies it is told on standard error.
    #[arg(long, conflicts_with_all = ["which", "format"])]
    pub(super) checkpoint: bool,
}

/// Checks that an intact log holds all heads that were seen of it.
pub(super) fn check_heads(log: &Path, arguments: &ProofArgs) -> anyhow::Result<()> {
    let given = arguments.expect.iter().map(|head| NotedHead { log: None, head: *head });
    let read = arguments.heads.as_deref().map(read_heads).transpose()?.unwrap_or_default();
    let mut noted: Vec<NotedHead> = given.chain(read).collect();
    if noted.is_empty() {
        return Ok(());
    }
    let mut tree = LogTree::open(log).map_err(with_exit)?;
    let all = noted.len();
    noted.retain(|noted| noted.log.is_none_or(|log| log == tree.log()));
    let others = all - noted.len();
    if noted.is_empty() {
        let what = format!("not intact: all {all} heads are of other logs than this one, {}", tree.log());
        return Err(Failure::error(Exit::NotIntact, what));
    }
    if others > 0 {
        eprintln!("messenger: {others} heads are of other logs, and were passed over");
    }
    noted.sort_by_key(|noted| noted.head.seq);
    let mut held: Option<TreeHead> = None;
    for NotedHead { head, .. } in &noted {
        if !tree.holds(*head).map_err(with_exit)? {
            return Err(Failure::error(Exit::NotIntact, not_held(*head, held, tree.head())));
        }
        held = Some(*head);
    }
    eprintln!("messenger: the log holds all {} heads that were seen of it", noted.len());
    Ok(())
}

/// Which head fails, and since when.
fn not_held(seen: TreeHead, held: Option<TreeHead>, end: TreeHead) -> String {
    let (seq, from) = (seen.seq, held.map_or(1, |held| held.seq + 1));
    let until_then = match held {
        Some(held) => format!("up to event {} it is what was seen (head {held} holds)", held.seq),
        None => "no earlier head was given".to_owned(),
    };
    if seq > end.seq {
        let gone = end.seq + 1;
        return format!(
            "not intact: the log was cut: head {seen} was seen, and the log ends with event {}; events {gone} to {seq} \
             are gone; {until_then}",
            end.seq
        );
    }
    format!(
        "not intact: the log was rewritten: it does not hold head {seen}; what was changed is among the events {from} to \
         {seq}; {until_then}"
    )
}

/// The proof of one event, as a file.
pub(super) fn prove(log: &Path, seq: Seq, expect: &[TreeHead]) -> anyhow::Result<String> {
    let seen = at_most_one(expect)?;
    let proof = LogTree::open(log).and_then(|mut tree| tree.prove(seq, seen)).map_err(with_exit)?;
    if let Some(seen) = seen.filter(|seen| seen.seq < seq) {
        eprintln!(
            "messenger: event {seq} came after head {seen}: whoever knows only that head learns that the log went on \
             from it, not that the event is in it; they need a head from event {seq} on, as {}",
            proof.head
        );
    }
    Ok(format!("{}\n", serde_json::to_string_pretty(&proof)?))
}

/// Checks a proof, and says what it proves.
pub(super) fn check(file: &Path, expect: &[TreeHead]) -> anyhow::Result<String> {
    let expected = at_most_one(expect)?.context("a proof is checked against a head: name it with --expect")?;
    let bytes = read_bounded(file, PROOF_BYTES_MAX).with_context(|| file.display().to_string())?;
    let failed = |error: ProofError| {
        let exit = if matches!(error, ProofError::Newer(_)) { Exit::Failure } else { Exit::NotIntact };
        Failure::error(exit, format!("not proven: {}: {error}", file.display()))
    };
    let proof = Proof::parse(&bytes).map_err(failed)?;
    proof.check(expected).map_err(failed)?;
    let Proof { seq, line, .. } = proof;
    Ok(format!("proven: event {seq} is in the log with head {} {}\n{line}\n", expected.seq, expected.root))
}

/// The newest head as a signed note. The key that verifies it is said to people.
pub(super) fn checkpoint(log: &Path) -> anyhow::Result<String> {
    let tree = LogTree::open(log).map_err(with_exit)?;
    let key = eventlog::read_key(log, tree.log()).map_err(Failure::of_key)?;
    eprintln!("messenger: whoever knows the key can check it: {}", key.verifier());
    Ok(key.sign(tree.head()))
}

fn at_most_one(expect: &[TreeHead]) -> anyhow::Result<Option<TreeHead>> {
    match expect {
        [] => Ok(None),
        [head] => Ok(Some(*head)),
        _ => Err(Failure::error(Exit::Usage, "one proof is for one head: give --expect once")),
    }
}

fn read_heads(file: &Path) -> anyhow::Result<Vec<NotedHead>> {
    let bytes = read_bounded(file, HEADS_BYTES_MAX).with_context(|| file.display().to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let heads: Vec<NotedHead> = lines
        .map(|(number, line)| line.parse().with_context(|| format!("{}, line {number}", file.display())))
        .collect::<Result<_, _>>()?;
    if heads.is_empty() {
        return Err(Failure::error(Exit::Failure, format!("{} holds no head", file.display())));
    }
    Ok(heads)
}

fn with_exit(error: ProveError) -> anyhow::Error {
    match error {
        ProveError::Verify(error) => error.into(),
        ProveError::Read(error) => VerifyError::Read(error).into(),
        ProveError::NotHeld(_) | ProveError::NotIntact => Failure::error(Exit::NotIntact, error),
        ProveError::NoSuchEvent { .. } | ProveError::Before(_) | ProveError::Erased(_) => error.into(),
    }
}
