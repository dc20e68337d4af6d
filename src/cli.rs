//! The command line: one file a subcommand with its arguments, its help and its run.

pub mod connect;
pub mod erase;
pub mod exit;
mod progress;
mod proof;
pub mod replay;
pub mod serve;

use clap::{Parser, Subcommand};

use exit::Exit;

/// A messenger that a team runs itself: one executable, no database, every message durable before anyone sees it.
#[derive(Debug, Parser)]
#[command(name = "messenger", version, about, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Start with `messenger serve`, then `messenger connect 127.0.0.1` in another terminal.")]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Run the server.
    Serve(serve::ServeArgs),
    /// Connect to a server and chat.
    Connect(connect::ConnectArgs),
    /// Look back into a log: search it, check it, derive from it.
    Replay(replay::ReplayArgs),
    /// Take the text of messages out of a log for good.
    Erase(erase::EraseArgs),
}

/// Runs the program with the process's arguments.
pub fn run() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A reader of the help that has gone away is no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let done = match &arguments.command {
        Subcommands::Serve(arguments) => serve::run(arguments).map(|()| Exit::Done),
        Subcommands::Connect(arguments) => connect::run(arguments),
        Subcommands::Replay(arguments) => replay::run(arguments).map(|()| Exit::Done),
        Subcommands::Erase(arguments) => erase::run(arguments).map(|()| Exit::Done),
    };
    match done {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("messenger: {}", told_once(&failure));
            Exit::of(&failure)
        }
    }
}

/// An error with its causes, without those that it has told of itself.
fn told_once(failure: &anyhow::Error) -> String {
    failure.chain().skip(1).fold(failure.to_string(), |told, cause| {
        let cause = cause.to_string();
        if told.contains(&cause) { told } else { format!("{told}: {cause}") }
    })
}
