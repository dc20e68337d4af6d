//! The load generator: real sockets, every delivery checked for count, order and content; throughput, latency and the
//! server's CPU time, as a table and as JSON.
//!
//! `cargo bench --bench load -- direct --seconds 10` starts a server of its own on a free port with a log in a fresh
//! directory, on one core, and drives it from another. `--help` lists the works.

mod driver;
mod report;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use driver::{Driver, Pace};

/// Drives a messenger server and checks every delivery.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    #[command(subcommand)]
    work: Work,
    /// How long messages are sent, in seconds.
    #[arg(long, default_value_t = 10, global = true)]
    seconds: u64,
    /// The bytes of each message's text.
    #[arg(long, default_value_t = 100, global = true)]
    bytes: usize,
    /// Where the server keeps its log: a directory on a real disk.
    #[arg(long, global = true)]
    data: Option<std::path::PathBuf>,
    /// Print the result as JSON too.
    #[arg(long, global = true)]
    json: bool,
    /// Given by cargo to every benchmark, and of no meaning here.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Pairs of users, each sender with a window of unanswered messages: throughput.
    Direct {
        /// How many pairs.
        #[arg(long, default_value_t = 50)]
        pairs: usize,
        /// Unanswered messages of each sender.
        #[arg(long, default_value_t = 64)]
        window: usize,
    },
    /// Pairs of users at a fixed rate, each message timed from the moment at which it was due: latency.
    Rate {
        /// How many pairs.
        #[arg(long, default_value_t = 50)]
        pairs: usize,
        /// Messages a second, over all pairs.
        #[arg(long, default_value_t = 5_000)]
        per_second: u64,
    },
    /// One group, in which a few members write and all others receive.
    Fanout {
        /// Members of the group, the writers among them.
        #[arg(long, default_value_t = 100)]
        members: usize,
        /// How many of them write.
        #[arg(long, default_value_t = 4)]
        writers: usize,
        /// Unanswered messages of each writer.
        #[arg(long, default_value_t = 16)]
        window: usize,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let users = match arguments.work {
        Work::Direct { pairs, .. } | Work::Rate { pairs, .. } => 2 * pairs,
        Work::Fanout { members, .. } => members,
    };
    let server = server::Server::start(users, arguments.data.as_deref())?;
    let pace = match arguments.work {
        Work::Direct { window, .. } | Work::Fanout { window, .. } => Pace::Window(window),
        Work::Rate { per_second, .. } => Pace::PerSecond(per_second),
    };
    let mut driver = match arguments.work {
        Work::Direct { pairs, .. } | Work::Rate { pairs, .. } => {
            Driver::pairs(server.address, pairs, arguments.bytes, pace)?
        }
        Work::Fanout { members, writers, .. } => {
            Driver::group(server.address, members, writers, arguments.bytes, pace)?
        }
    };
    let before = server.usage()?;
    let outcome = driver.run(Duration::from_secs(arguments.seconds))?;
    let after = server.usage()?;
    let report = report::Report::new(&outcome, &before, &after);
    report.print(&mut std::io::stdout().lock(), arguments.json)?;
    server.stop()
}
