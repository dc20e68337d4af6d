//! The log by size: makes one of as many events as wanted, and measures opening, reading and checking it.
//!
//! `cargo bench --bench log -- generate --events 1000000 --data DIR`, then `… -- open --data DIR`, `history`, `catch-up`,
//! `state`, `compare`; `follow` makes a log of its own.

#![allow(clippy::print_stdout, reason = "figures are what it is for")]

mod appending;
mod generate;
mod looking;
mod reading;
mod server;

use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::ensure;
use clap::{Parser, Subcommand};
use messenger::chat::Event;
use messenger::clock;
use messenger::eventlog::{self, Disk, LogReader};
use messenger::server::open as open_server;

/// Makes a large log, and measures what is done with it.
#[derive(Debug, Parser)]
#[command(name = "log")]
struct Arguments {
    #[command(subcommand)]
    work: Work,
    /// The data directory.
    #[arg(long, global = true, default_value = "target/large-log")]
    data: PathBuf,
    /// Given by cargo to every benchmark, and of no meaning here.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Appends events: private and group messages of 200 users in 50 groups, and now and then a login.
    Generate {
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
    },
    /// Has events made durable by the log alone, in a directory of their own.
    Append {
        /// For how long.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Events a second; as many as it takes without.
        #[arg(long)]
        rate: Option<u64>,
    },
    /// Opens it as `serve` does, from the first event.
    Open,
    /// Reads pages of history at random depths.
    History {
        /// How many.
        #[arg(long, default_value_t = 20_000)]
        pages: u64,
    },
    /// Has many sessions catch up at once; appends their logins.
    CatchUp {
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        sessions: u64,
        /// By how many events they are behind.
        #[arg(long, default_value_t = 1_000_000)]
        behind: u64,
    },
    /// Asks the program for the state at random moments.
    State {
        /// How many.
        #[arg(long, default_value_t = 20)]
        moments: u64,
    },
    /// Runs the ways of `replay` beside `sha256sum`, `grep` and `jq` on the same files.
    Compare,
    /// Follows the log of a running server that users write to.
    Follow {
        /// For how long they write.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Messages a second.
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
        /// The bytes of each message.
        #[arg(long, default_value_t = 14_000)]
        bytes: usize,
    },
    /// Decodes every event.
    Decode,
    /// Checks every byte, as `replay --verify` does.
    Verify,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let start = Instant::now();
    let done = match arguments.work {
        Work::Generate { events } => generate::generate(&arguments.data, events),
        Work::Append { seconds, rate } => appending::append(&arguments.data, seconds, rate),
        Work::Open => open(&arguments.data),
        Work::History { pages } => reading::history(&arguments.data, pages),
        Work::CatchUp { sessions, behind } => reading::catch_up(&arguments.data, sessions, behind),
        Work::State { moments } => looking::state(&arguments.data, moments),
        Work::Compare => looking::compare(&arguments.data),
        Work::Follow { seconds, rate, bytes } => looking::follow(&arguments.data, seconds, rate, bytes),
        Work::Decode => decode(&arguments.data),
        Work::Verify => verify(&arguments.data),
    };
    let told = done.and_then(|events| {
        let seconds = start.elapsed().as_secs_f64();
        let per_second = events as f64 / seconds;
        Ok(writeln!(std::io::stdout(), "{events} events in {seconds:.3} s: {per_second:.0} a second")?)
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("log: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn open(data: &Path) -> anyhow::Result<u64> {
    let opened = open_server(Disk::lock(data)?, uuid::Uuid::nil(), clock::wall(), |_, _| {})?;
    let events = opened.log.seq();
    ensure!(opened.state.seq == events, "the state is not that of the log's end");
    Ok(events)
}

fn decode(data: &Path) -> anyhow::Result<u64> {
    let mut reader = LogReader::open(data)?;
    let mut events = 0;
    while let Some(line) = reader.next_line()? {
        black_box(Event::decode(line.bytes)?);
        events += 1;
    }
    Ok(events)
}

fn verify(data: &Path) -> anyhow::Result<u64> {
    Ok(eventlog::verify(data)?.events)
}
