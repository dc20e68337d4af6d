//! `messenger erase`: its arguments, and the text of messages taken out of a log whose server is stopped.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use uuid::Uuid;

use super::exit::{Exit, Failure};
use crate::chat::Seq;
use crate::clock::{self, LogClock};
use crate::derive::{self, Keeper};
use crate::eventlog::storage::{EVENTS, Place};
use crate::eventlog::{
    self, Disk, EraseError, LockError, LogReader, OpenError, Order, ReadError, Storage as _, Visitor,
};

/// The arguments of `messenger erase`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  messenger erase --seq 41 --by admin --reason \"asked for by yoda\"
  messenger erase --seq 41,57 --by admin --reason \"court order 3 of 2026\" /srv/chat

The server must be stopped. Who wrote to whom and when stays, and so does the hash of each line: the log still verifies,
and the erasure itself stands in it with who and why. Copies elsewhere (backups, clients that have read the messages) and
old blocks of the disk are beyond its reach.")]
pub struct EraseArgs {
    /// The messages, as in `--seq 41,57`.
    #[arg(long, value_name = "N", value_delimiter = ',', required = true)]
    seq: Vec<Seq>,

    /// Who erases, as in `--by admin`.
    #[arg(long, value_name = "NAME")]
    by: String,

    /// Why, as in `--reason "asked for by yoda"`; it stands in the log.
    #[arg(long, value_name = "TEXT")]
    reason: String,

    /// The data directory of a stopped server, as in `erase … /srv/chat`.
    #[arg(default_value = "data")]
    log: PathBuf,
}

/// Nothing is to be known of the events before.
struct Nobody;

impl Visitor for Nobody {
    fn event(&mut self, _: eventlog::Replayed<'_>) {}
}

/// Erases the text of messages.
///
/// # Errors
/// A server runs there, the events are none to be erased, the log is not intact, or the disk fails.
pub fn run(arguments: &EraseArgs) -> anyhow::Result<()> {
    let EraseArgs { seq, by, reason, log } = arguments;
    let order = Order { seqs: seq.iter().copied().collect(), by: by.clone(), reason: reason.clone() };
    order.check().map_err(|error| Failure::error(Exit::Usage, error))?;
    let data = data_directory(log)?;
    let disk = Disk::lock(&data).map_err(|error| match error {
        LockError::Held(data) => anyhow::anyhow!(
            "a server is running on {}: stop it first, so that no text stays in what it has in memory",
            data.display()
        ),
        other => Failure::of_lock(other),
    })?;
    // Held until the derived files are made again, too.
    let _lock = disk.beside(EVENTS);
    let (carried_out, erased) = erase(disk, &order, &data)?;
    if !carried_out {
        return erased.map(drop);
    }
    let derived = || Keeper::new(LogReader::open(&data)?, &data)?.catch_up();
    derived().with_context(|| {
        let data = data.display();
        format!(
            "the log has forgotten the text, but the text files in {data} may still hold it: remove what stands in the \
             way and run `messenger replay {data} --derive {data}`"
        )
    })?;
    let root = erased?;
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "erased: the text of {} messages; {root}", order.seqs.len())?)
}

/// Erases in the log, and says what its head is then; before that whether any text is gone, perhaps by an order from
/// before: then the text files have to forget it, even where this order is refused.
fn erase(disk: Disk, order: &Order, data: &Path) -> anyhow::Result<(bool, anyhow::Result<String>)> {
    // Of the events before the newest segment nothing is needed.
    let after = eventlog::segments(&disk).map_err(with_exit)?.last().map_or(0, |newest| newest - 1);
    let found = eventlog::inspect(disk, after, &mut Nobody).map_err(with_exit)?;
    // Before anything is written: what is refused is left as it was.
    found.check(order).map_err(refused)?;
    derive::check_replaceable(data).context("the text files would keep the text, so that nothing is erased")?;
    let opened = found.recover(Uuid::new_v4(), clock::wall()).map_err(with_exit)?;
    for notice in opened.notices {
        eprintln!("messenger: {notice}");
    }
    let mut log = opened.log;
    let at = LogClock::new(log.at()).now();
    let seq = log.seq();
    let erased = log.erase(order, at);
    let (is_ordered, head) = (log.seq() > seq, format!("head {} {}", log.seq(), log.root()));
    let done = match erased {
        Ok(()) => log.close().map(|()| head).map_err(anyhow::Error::from),
        Err(EraseError::Log(error)) if is_ordered => Err(with_exit(error).context(
            "the order stands in the log, and is carried out when the log is opened next: by `messenger serve` or \
             `messenger erase`",
        )),
        Err(error) => Err(refused(error)),
    };
    Ok((!opened.erased.is_empty() || done.is_ok(), done))
}

fn refused(error: EraseError) -> anyhow::Error {
    match error {
        EraseError::Log(error) => with_exit(error),
        error => error.into(),
    }
}

/// The data directory: what derived files and copies are in, and are to forget the text too.
fn data_directory(log: &Path) -> anyhow::Result<PathBuf> {
    let wrong = || {
        let help = "name the data directory of a server, with the log in its directory `events`";
        Failure::error(Exit::Failure, format!("there is no log to erase from at {}; {help}", log.display()))
    };
    match Place::find(log).map_err(|_| wrong())? {
        Place::Events(events) if events.ends_with(EVENTS) && has_log(&events) => {
            let data = events.parent().map(Path::to_owned).unwrap_or_default();
            Ok(if data.as_os_str().is_empty() { PathBuf::from(".") } else { data })
        }
        _ => Err(wrong()),
    }
}

fn has_log(events: &Path) -> bool {
    !matches!(LogReader::open(events), Err(ReadError::NoLog { .. }))
}

fn with_exit(error: OpenError) -> anyhow::Error {
    match error {
        OpenError::Disk { .. } => error.into(),
        _ => Failure::error(Exit::NotIntact, error),
    }
}
