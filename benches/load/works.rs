//! The works: what the clients do, and what is measured of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Subcommand;

use crate::catchup;
use crate::driver::{Driver, Pace, Shape};
use crate::report::Figures;
use crate::sessions;
use crate::subject::{Beginning, Server, Subject};
use crate::usage::own_usage;

/// What is the same for all works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long messages are sent, or idle connections looked at.
    pub duration: Duration,
    /// The bytes of each text.
    pub bytes: usize,
    /// Where servers keep their files: a directory on a real disk.
    pub data: Option<PathBuf>,
    /// How many events our own server's log holds at the start.
    pub log_events: u64,
    /// Whether clients speak TLS.
    pub tls: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Work {
    /// Pairs of users, each sender with a window of messages under way: throughput.
    Direct {
        /// How many pairs.
        #[arg(long, default_value_t = 50)]
        pairs: usize,
        /// Messages of each sender under way.
        #[arg(long, default_value_t = 64)]
        window: u64,
        /// So many more are logged in and say nothing.
        #[arg(long, default_value_t = 0)]
        idle: usize,
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
        /// Messages of each writer under way.
        #[arg(long, default_value_t = 16)]
        window: u64,
    },
    /// Connections that are logged in and say nothing: memory, and what they cost all the same.
    Idle {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// How many of them, the first, are told of logins and logouts; our own server only.
        #[arg(long, default_value_t = 0)]
        watchers: usize,
    },
    /// The server is stopped and started again, and all come back at once; our own server only.
    Storm {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
    /// Users who were away come back at once and are sent what they missed; our own server only.
    Catchup {
        /// How many were away.
        #[arg(long, default_value_t = 1_000)]
        users: usize,
        /// Messages that each has missed.
        #[arg(long, default_value_t = 1_000)]
        messages: u64,
    },
    /// A group is made and everybody joins, which all members are told.
    Join {
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        members: usize,
    },
}

impl Work {
    /// Whether a subject can do this work.
    pub fn is_for(&self, subject: Subject) -> bool {
        match self {
            Self::Storm { .. } | Self::Catchup { .. } => subject == Subject::Messenger,
            Self::Idle { watchers, .. } => *watchers == 0 || subject == Subject::Messenger,
            Self::Join { .. } => matches!(subject, Subject::Messenger | Subject::Ngircd | Subject::Inspircd),
            _ => true,
        }
    }

    /// How many users have to have accounts.
    fn users(&self) -> usize {
        match *self {
            Self::Direct { pairs, idle, .. } => 2 * pairs + idle,
            Self::Rate { pairs, .. } => 2 * pairs,
            Self::Fanout { members, .. } | Self::Join { members } => members,
            Self::Idle { connections, .. } | Self::Storm { connections } => connections,
            Self::Catchup { users, .. } => 2 * users,
        }
    }

    /// Starts a server, does the work and stops the server.
    ///
    /// # Errors
    /// Something was lost, came twice, was changed or refused; or the machine does not allow it.
    pub fn run(&self, subject: Subject, settings: &Settings) -> anyhow::Result<Figures> {
        if !self.is_for(subject) {
            bail!("this work is not for {subject}");
        }
        ensure!(
            subject == Subject::Messenger || settings.log_events == 0,
            "only our own server has a log to begin with"
        );
        let can_tls = matches!(self, Self::Direct { .. } | Self::Rate { .. } | Self::Fanout { .. } | Self::Idle { .. });
        ensure!(!settings.tls || (can_tls && subject == Subject::Messenger), "this is not done over TLS");
        let beginning =
            Beginning { users: self.users(), parent: settings.data.as_deref(), log_events: settings.log_events };
        let server = subject.start(&beginning)?;
        match *self {
            Self::Direct { pairs, window, idle } => {
                messages(&server, Shape::Pairs { pairs, idle }, Pace::Window(window), settings)
            }
            Self::Rate { pairs, per_second } => {
                messages(&server, Shape::Pairs { pairs, idle: 0 }, Pace::PerSecond(per_second), settings)
            }
            Self::Fanout { members, writers, window } => {
                messages(&server, Shape::Group { members, writers }, Pace::Window(window), settings)
            }
            Self::Idle { connections, watchers } => sessions::idle(&server, connections, watchers, settings),
            Self::Storm { connections } => sessions::storm(server, connections),
            Self::Catchup { users, messages } => catchup::catch_up(&server, users, messages, settings.bytes),
            Self::Join { members } => sessions::join(&server, members),
        }
    }
}

fn messages(server: &Server, shape: Shape, pace: Pace, settings: &Settings) -> anyhow::Result<Figures> {
    let tls = settings.tls.then(|| server.client_config()).transpose()?;
    let driver = Driver::new(server, shape, settings.bytes, pace, tls)?;
    let before = (server.process.usage()?, own_usage()?);
    let outcome = driver.run(settings.duration)?;
    let after = (server.process.usage()?, own_usage()?);
    Ok(Figures::of_messages(&outcome, [before.0, after.0], [before.1, after.1]))
}
