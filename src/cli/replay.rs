//! `messenger replay`: its arguments, and one way to look into a log for each of them.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::exit::{Exit, Failure};
use super::proof::{self, ProofArgs};
use super::told_once;
use crate::chat::{Event, Seq};
use crate::clock::{TimeError, Timestamp};
use crate::derive::{DeriveError, Keeper};
use crate::eventlog::storage::{LOCK, Place};
use crate::eventlog::{self, Disk, LogReader, ReadError, VerifyError};
use crate::names::{GroupName, UserName};
use crate::protocol::sentence;
use crate::replay::{self, Filter, Format, Page, PageError, PageFile, Point, Printer, ReplayError, Scan};

/// How often it is looked whether the log has grown: often enough to show an event within a tenth of a second of its commit
/// on a busy machine too, and seldom enough to cost nothing.
const FOLLOW_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// Bytes of output that are written at once.
const OUTPUT_BYTES: usize = 64 << 10;

/// The arguments of `messenger replay`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("way")
    .args(["follow", "verify", "state", "derive", "stats", "html", "prove", "check_proof", "checkpoint"])
    .multiple(false))]
#[command(after_help = "Examples:
  messenger replay                                   the log in `data`, from its beginning
  messenger replay --user yoda --since 2026-11-22    what yoda did, and what was done to yoda, from that day on
  messenger replay --group jedi --grep \"the plan\"    who said it there
  messenger replay --type login,logout --follow      who comes and goes, as it happens
  messenger replay /srv/chat --verify                is every byte as it was written?
  messenger replay --verify --heads ~/heads          does it still hold what a client saw of it?
  messenger replay --prove 41 > proof.json           an event with its proof, for somebody without the log
  messenger replay --check-proof proof.json --expect 530:b708…
  messenger replay --state --at 2026-11-22T06:10:00Z who was there at that moment
  messenger replay --stats --since 2026-11-01        how much was said, by whom, on which day
  messenger replay --html page.html --group jedi     a page for the browser: figures, and a timeline to search in
  messenger replay --format csv --type message > messages.csv")]
pub struct ReplayArgs {
    /// A data directory, an events directory or one segment's file, as in `replay /srv/chat`.
    #[arg(default_value = "data")]
    log: PathBuf,

    #[command(flatten)]
    which: WhichArgs,

    /// How events are shown, as in `--format csv`; text on a terminal and for --stats, else json.
    #[arg(long, value_name = "FORM", conflicts_with_all = ["verify", "derive"])]
    format: Option<Format>,

    /// Go on as the log grows, until interrupted.
    #[arg(long)]
    follow: bool,

    /// Check every byte: framing, order, Merkle tree. Exit 7 if something is wrong.
    #[arg(long, conflicts_with = "which")]
    verify: bool,

    #[command(flatten)]
    proof: ProofArgs,

    /// Show who was logged in, blocked and in which group, as JSON.
    #[arg(long, conflicts_with = "which")]
    state: bool,

    /// The point for --state, as in `--at 41` or `--at "2026-11-22 06:10:00"`; the end of the log without it.
    #[arg(long, value_name = "SEQ|TIME", requires = "state", value_parser = point)]
    at: Option<Point>,

    /// Write the derived files from the log into a directory, as in `--derive /tmp/files`.
    #[arg(long, value_name = "DIR", conflicts_with = "which")]
    derive: Option<PathBuf>,

    /// Show how many events there are, of which type, by whom and on which day, how large and how fast.
    #[arg(long)]
    stats: bool,

    /// Write one page for a browser, as in `--html page.html`: activity over time, by user and group, and the timeline
    /// with search and filters. It needs no network; an older file of that name is replaced.
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    html: Option<PathBuf>,
}

/// Which events: all conditions must hold.
#[derive(Debug, Args)]
#[group(id = "which", multiple = true)]
struct WhichArgs {
    /// The first event, as in `--from 41`.
    #[arg(long, value_name = "SEQ")]
    from: Option<Seq>,

    /// The last event, as in `--to 50`.
    #[arg(long, value_name = "SEQ")]
    to: Option<Seq>,

    /// The first moment, as in `--since 2026-11-22`, `--since "2026-11-22 06:10"` or `--since 2026-11-22T06:10:00Z`.
    #[arg(long, value_name = "TIME", value_parser = |text: &str| Timestamp::parse_typed(text, false))]
    since: Option<Timestamp>,

    /// The last moment, as in `--until 2026-11-22`, which includes that day.
    #[arg(long, value_name = "TIME", value_parser = |text: &str| Timestamp::parse_typed(text, true))]
    until: Option<Timestamp>,

    /// Events that name a user, as in `--user yoda`.
    #[arg(long, value_name = "USER")]
    user: Option<UserName>,

    /// Events of a group, as in `--group jedi`.
    #[arg(long, value_name = "GROUP")]
    group: Option<GroupName>,

    /// Events of some types, as in `--type message,group_message`.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = Event::KINDS)]
    kinds: Vec<String>,

    /// Events whose text or file names hold this, as in `--grep "the plan"`.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
}

impl WhichArgs {
    fn filter(&self) -> Filter {
        let Self { from, to, since, until, user, group, kinds, grep } = self;
        let (kinds, grep) = (kinds.clone(), grep.clone());
        Filter { from: *from, to: *to, since: *since, until: *until, user: *user, group: *group, kinds, grep }
    }
}

/// Looks into a log.
///
/// # Errors
/// There is none, it is not intact, or it cannot be read. A reader of the output that has gone away is no failure.
pub fn run(arguments: &ReplayArgs) -> anyhow::Result<()> {
    // At once and quietly: there is nothing that an interruption could leave undone.
    let always = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_shutdown(signal_hook::consts::SIGINT, Exit::Interrupted as i32, always)?;
    let ProofArgs { prove, check_proof, checkpoint, expect, .. } = &arguments.proof;
    if !expect.is_empty() && !arguments.verify && prove.is_none() && check_proof.is_none() {
        return Err(Failure::error(Exit::Usage, "--expect needs --verify, --prove or --check-proof"));
    }
    let done = if arguments.verify {
        verify(arguments)
    } else if let Some(seq) = prove {
        proof::prove(&arguments.log, *seq, expect).and_then(|file| say(&file))
    } else if let Some(file) = check_proof {
        proof::check(file, expect).and_then(|told| say(&told))
    } else if *checkpoint {
        proof::checkpoint(&arguments.log).and_then(|note| say(&note))
    } else if arguments.state {
        state(arguments)
    } else if let Some(directory) = &arguments.derive {
        derive(&arguments.log, directory)
    } else if let Some(file) = &arguments.html {
        html(arguments, file)
    } else if arguments.stats {
        stats(arguments)
    } else {
        events(arguments)
    };
    match done {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        done => done.map_err(with_exit),
    }
}

fn events(arguments: &ReplayArgs) -> anyhow::Result<()> {
    let mut scan = Scan::open(&arguments.log, arguments.which.filter())?;
    let is_terminal = io::stdout().is_terminal();
    let usual = if is_terminal { Format::Text } else { Format::Json };
    let printer = Printer { format: arguments.format.unwrap_or(usual), is_terminal };
    let mut out = output();
    let mut lines = Vec::new();
    printer.begin(&mut lines);
    out.write_all(&lines)?;
    loop {
        scan.for_each(|event| {
            lines.clear();
            printer.put(event, &mut lines)?;
            anyhow::Ok(out.write_all(&lines)?)
        })?;
        out.flush()?;
        if !arguments.follow || scan.is_over() || has_no_reader(out.get_ref())? {
            return Ok(());
        }
    }
}

fn verify(arguments: &ReplayArgs) -> anyhow::Result<()> {
    let verified = eventlog::verify(&arguments.log)?;
    proof::check_heads(&arguments.log, &arguments.proof)?;
    if verified.erasures_left > 0 {
        eprintln!(
            "messenger: {} messages were ordered to be erased and still have their text: the next start erases it",
            verified.erasures_left
        );
    }
    if verified.erased_unproven > 0 {
        eprintln!(
            "messenger: of {} erased lines the order is not in this segment: only the whole log shows whether anybody \
             gave it",
            verified.erased_unproven
        );
    }
    for first in &verified.cut_off {
        eprintln!(
            "messenger: {} was cut off while it was made, and nothing in it was acknowledged: the next start removes it",
            eventlog::segment_name(*first)
        );
    }
    if verified.is_head_half_broken {
        eprintln!(
            "messenger: one of the two slots of HEAD is not whole: torn by a power cut, damaged, or being written now; the \
             next start of the server writes it again"
        );
    }
    if verified.unfinished_bytes > 0 {
        eprintln!(
            "messenger: behind that are {} bytes that were never acknowledged, or are being written now",
            verified.unfinished_bytes
        );
    }
    say(&format!("intact: {} events, head {} {}\n", verified.events, verified.seq, verified.root))
}

fn state(arguments: &ReplayArgs) -> anyhow::Result<()> {
    if !matches!(arguments.format, None | Some(Format::Json)) {
        return Err(Failure::error(Exit::Usage, "--state is shown as JSON only: leave --format out"));
    }
    let reader = LogReader::open(&arguments.log).map_err(ReplayError::from)?;
    let (state, notices) = replay::state_at(reader, arguments.at.unwrap_or(Point::End))?;
    for notice in notices {
        eprintln!("messenger: {notice}");
    }
    say(&format!("{}\n", serde_json::to_string_pretty(&state)?))
}

fn derive(log: &Path, directory: &Path) -> anyhow::Result<()> {
    // Where a server keeps its data, no server may run meanwhile: it writes these files itself.
    let _lock = match directory.join("events").join(LOCK).is_file() {
        true => Some(Disk::lock(directory).context("the derived files are kept by a server there")?),
        false => None,
    };
    let reader = LogReader::open(log).map_err(ReplayError::from)?;
    replay::check_beginning(&reader)?;
    Ok(Keeper::new(reader, directory)?.catch_up()?)
}

fn stats(arguments: &ReplayArgs) -> anyhow::Result<()> {
    if arguments.format == Some(Format::Csv) {
        return Err(Failure::error(Exit::Usage, "--stats is shown as text or JSON: use --format json"));
    }
    let stats = replay::stats(&mut Scan::open(&arguments.log, arguments.which.filter())?)?;
    match arguments.format {
        Some(Format::Json) => say(&format!("{}\n", serde_json::to_string_pretty(&stats)?)),
        _ => say(&stats.to_string()),
    }
}

fn html(arguments: &ReplayArgs, file: &Path) -> anyhow::Result<()> {
    if is_in_log(&arguments.log, file) {
        let what = format!("{} would stand among the files of the log: name another place", file.display());
        return Err(Failure::error(Exit::Usage, what));
    }
    let mut scan = Scan::open(&arguments.log, arguments.which.filter())?;
    let page = Page::of(&mut scan, arguments.log.display().to_string())?;
    let written = || -> Result<u64, PageError> {
        let mut out = PageFile::create(file)?;
        page.put(&mut out)?;
        Ok(out.show()?)
    };
    let bytes = match written() {
        Err(PageError::Replay(error)) => return Err(error.into()),
        written => written.with_context(|| file.display().to_string())?,
    };
    let (events, held) = (page.events(), page.held());
    let which = match held as u64 == events {
        true => format!("{events} events"),
        false => format!("the newest {held} of {events} events, and figures of all"),
    };
    eprintln!("messenger: {}: {which}, {}", file.display(), sentence::byte_count(bytes));
    Ok(())
}

/// Whether a file would stand in the directory that holds the log.
fn is_in_log(log: &Path, file: &Path) -> bool {
    let directory = match Place::find(log) {
        Ok(Place::Events(directory)) => Some(directory),
        Ok(Place::Segment(segment)) => segment.parent().map(Path::to_owned),
        Err(_) => None,
    };
    // What a link leads to counts, as where the file is written.
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let beside = file.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    let real = |path: &Path| path.canonicalize().ok();
    directory.is_some_and(|directory| real(&directory).is_some() && real(&directory) == beside.and_then(real))
}

fn point(text: &str) -> Result<Point, TimeError> {
    match text.parse() {
        Ok(seq) => Ok(Point::Event(seq)),
        Err(_) => Timestamp::parse_typed(text, true).map(Point::Moment),
    }
}

fn output() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(OUTPUT_BYTES, io::stdout().lock())
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = output();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

/// Waits for a moment, unless whoever reads the output has gone away.
fn has_no_reader(out: &StdoutLock<'_>) -> io::Result<bool> {
    match rustix::event::poll(&mut [PollFd::new(out, PollFlags::empty())], Some(&FOLLOW_EVERY)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Gives a failure its exit code, by what stood against reading the log; and what helps.
fn with_exit(error: anyhow::Error) -> anyhow::Error {
    let read = match (error.downcast_ref(), error.downcast_ref(), error.downcast_ref()) {
        (Some(VerifyError::Read(error)), ..)
        | (_, Some(ReplayError::Read(error)), _)
        | (.., Some(DeriveError::Read(error))) => Some(error),
        (Some(_), ..) | (_, Some(ReplayError::Event { .. }), _) | (.., Some(DeriveError::Event { .. })) => {
            return Failure::error(Exit::NotIntact, told_once(&error));
        }
        _ => None,
    };
    match read {
        Some(ReadError::Damage(_) | ReadError::Newer(_) | ReadError::Foreign(_)) => {
            Failure::error(Exit::NotIntact, told_once(&error))
        }
        Some(ReadError::NoLog { .. }) => {
            let help = "name a data directory, an events directory or a segment's file";
            Failure::error(Exit::Failure, format!("{}; {help}", told_once(&error)))
        }
        _ => error,
    }
}
