//! The hub alone, without sockets and disk: very many sessions, and the instructions of each path that is gone often.
//!
//! `cargo bench --bench hub -- sessions --count 1000000`, `cargo bench --bench hub -- instructions`.

#![allow(clippy::print_stdout, reason = "figures are what it is for")]

mod instructions;
mod paths;
mod sessions;
#[path = "../load/table.rs"]
mod table;
#[path = "../load/usage.rs"]
mod usage;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use paths::Path;

/// Drives a hub in memory.
#[derive(Debug, Parser)]
#[command(name = "hub")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
    /// Given by cargo to every benchmark, and of no meaning here.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Logs many users in, ten of whom are told of the others; then a large group joins and is written to.
    Sessions {
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        count: usize,
        /// How many of them are in the group.
        #[arg(long, default_value_t = 10_000)]
        members: usize,
    },
    /// Counts the instructions of each path, under valgrind.
    Instructions {
        /// Only these paths.
        #[arg(long, value_delimiter = ',')]
        only: Vec<Path>,
    },
    /// Goes one path.
    Path {
        path: Path,
        /// How often.
        #[arg(long, default_value_t = 1_000)]
        times: usize,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Sessions { count, members } => sessions::run(count, members),
        Task::Instructions { only } => instructions::run(&only),
        Task::Path { path, times } => path.run(times),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hub: {error:#}");
            ExitCode::FAILURE
        }
    }
}
