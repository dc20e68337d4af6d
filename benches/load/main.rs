//! The load generator: real sockets, every delivery checked for count, order and content; throughput, latency, CPU time
//! and memory of the server, as a table and as JSON; of our own server and, for comparison, of others.
//!
//! `cargo bench --bench load -- direct --seconds 10` starts a server on a free port with its files in a fresh directory,
//! on one core, and drives it from another. `--help` lists the works.

mod catchup;
mod compare;
mod configuration;
mod connections;
mod dialect;
mod driver;
mod forwarder;
#[path = "../log/generate.rs"]
mod generate;
mod growth;
mod plan;
mod process;
mod report;
mod sessions;
mod stream;
mod subject;
mod table;
mod text;
mod usage;
mod works;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use plan::Section;
use subject::Subject;
use works::{Settings, Work};

/// Drives a server and checks every delivery.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
    /// Which server.
    #[arg(long, value_enum, default_value = "messenger", global = true)]
    server: Subject,
    /// How long messages are sent, or idle connections looked at, in seconds.
    #[arg(long, default_value_t = 10, global = true)]
    seconds: u64,
    /// The bytes of each message's text.
    #[arg(long, default_value_t = 100, global = true)]
    bytes: usize,
    /// Where servers keep their files: a directory on a real disk.
    #[arg(long, global = true)]
    data: Option<PathBuf>,
    /// How many events our own server's log holds already.
    #[arg(long, default_value_t = 0, global = true)]
    log_events: u64,
    /// Over TLS; our own server, and the works `direct`, `rate`, `fanout` and `idle` only.
    #[arg(long, global = true)]
    tls: bool,
    /// Print the result as JSON too.
    #[arg(long, global = true)]
    json: bool,
    /// Given by cargo to every benchmark, and of no meaning here.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Task {
    #[command(flatten)]
    Work(Work),
    /// All works for all servers, in turn; medians, as tables in Markdown.
    All {
        /// How often all is done.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Only these works.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Only these servers; ratios are to the first.
        #[arg(long, value_delimiter = ',')]
        servers: Vec<Subject>,
    },
    /// Series that show how the cost of our own server grows: connections, groups, logs, texts.
    Growth {
        /// How often all is done.
        #[arg(long, default_value_t = 1)]
        rounds: usize,
        /// Only these series.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// The bare forwarder, as the server `raw`.
    #[command(hide = true)]
    Forward {
        /// Where it listens.
        port: u16,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Task::Forward { port } = arguments.task {
        return forwarder::run(port);
    }
    process::bind_generator();
    let settings = Settings {
        duration: Duration::from_secs(arguments.seconds),
        bytes: arguments.bytes,
        data: arguments.data.clone(),
        log_events: arguments.log_events,
        tls: arguments.tls,
    };
    let mut out = std::io::stdout().lock();
    match &arguments.task {
        Task::Work(work) => {
            let figures = work.run(arguments.server, &settings)?;
            figures.print(&mut out)?;
            if arguments.json {
                writeln!(out, "{}", figures.to_json())?;
            }
        }
        Task::All { rounds, only, servers } => {
            let sections = wanted(compare::sections(servers, &settings), only)?;
            plan::run(&sections, *rounds, arguments.json, &mut out)?;
        }
        Task::Growth { rounds, only } => {
            let sections = wanted(growth::sections(&settings), only)?;
            plan::run(&sections, *rounds, arguments.json, &mut out)?;
        }
        Task::Forward { .. } => {}
    }
    Ok(())
}

/// The sections that were asked for by name; all, if none was.
fn wanted(sections: Vec<Section>, only: &[String]) -> anyhow::Result<Vec<Section>> {
    let names: Vec<&str> = sections.iter().map(|section| section.name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        anyhow::bail!("there is no work {unknown:?} here: --only takes {}", names.join(", "));
    }
    Ok(sections.into_iter().filter(|section| only.is_empty() || only.iter().any(|name| name == section.name)).collect())
}
