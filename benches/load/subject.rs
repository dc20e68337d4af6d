//! Which server is driven: our own, the bare forwarder, and others that are used for the same.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use messenger::clock;
use messenger::eventlog::Disk;
use messenger::server::archive_files::ArchiveFiles;
use rustls::ClientConfig;
use tempfile::TempDir;

use crate::configuration;
use crate::connections::PATIENCE;
use crate::dialect::messenger::{Messenger, PASSWORD, user};
use crate::dialect::{Dialect, irc::Irc, mqtt::Mqtt, nats, nats::Nats, raw::Raw, redis::Redis, xmpp::Xmpp};
use crate::driver::Shape;
use crate::generate;
use crate::process::{Process, free_port};
use crate::stream;

/// A server that can be driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// Our own.
    Messenger,
    /// A process that only reads and writes: what the machine itself allows.
    Raw,
    /// An IRC server.
    Ngircd,
    /// Another IRC server.
    Inspircd,
    /// Redis: publish and subscribe.
    Redis,
    /// An MQTT broker, at most once.
    Mosquitto,
    /// NATS: subjects.
    Nats,
    /// NATS with a stream on disk, each message synced before it is answered.
    Jetstream,
    /// An XMPP server.
    Prosody,
}

pub const SUBJECTS: [Subject; 9] = [
    Subject::Messenger,
    Subject::Raw,
    Subject::Ngircd,
    Subject::Inspircd,
    Subject::Redis,
    Subject::Mosquitto,
    Subject::Nats,
    Subject::Jetstream,
    Subject::Prosody,
];

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Messenger => "messenger",
            Self::Raw => "raw",
            Self::Ngircd => "ngircd",
            Self::Inspircd => "inspircd",
            Self::Redis => "redis",
            Self::Mosquitto => "mosquitto",
            Self::Nats => "nats",
            Self::Jetstream => "jetstream",
            Self::Prosody => "prosody",
        })
    }
}

/// A running server with its files in a directory that goes with it.
#[derive(Debug)]
pub struct Server {
    pub process: Process,
    pub subject: Subject,
    program: PathBuf,
    arguments: Vec<String>,
    directory: TempDir,
}

/// How a server is to begin.
#[derive(Debug, Clone, Copy)]
pub struct Beginning<'a> {
    /// How many users have accounts.
    pub users: usize,
    /// Where its directory is made; the system's for temporary files otherwise.
    pub parent: Option<&'a Path>,
    /// How many events its log holds already; of our own server only.
    pub log_events: u64,
}

impl Subject {
    /// Where the server is; `None` if it is not installed.
    pub fn program(self) -> Option<PathBuf> {
        let name = match self {
            Self::Messenger => return Some(env!("CARGO_BIN_EXE_messenger").into()),
            Self::Raw => return std::env::current_exe().ok(),
            Self::Redis => "redis-server",
            Self::Nats | Self::Jetstream => "nats-server",
            _ => &self.to_string(),
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let known = ["/usr/sbin", "/usr/local/sbin", concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/bin")];
        // Our own folder first: the system's may be older than what the script beside this installs.
        let folders = known.iter().rev().map(PathBuf::from).chain(std::env::split_paths(&path));
        folders.map(|folder| folder.join(name)).find(|program| program.is_file())
    }

    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(self, beginning: &Beginning<'_>) -> anyhow::Result<Server> {
        let program = self.program();
        let program = program.with_context(|| format!("{self} is not installed: see benches/load/install_peers"))?;
        let parent = beginning.parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let directory = tempfile::Builder::new().prefix("messenger-load").tempdir_in(parent)?;
        let port = free_port()?;
        let arguments = self.prepare(beginning, directory.path(), port)?;
        let process = self.run(&program, &arguments, directory.path(), port)?;
        let server = Server { process, subject: self, program, arguments, directory };
        if self == Self::Jetstream {
            server.make_stream()?;
        }
        Ok(server)
    }

    fn run(self, program: &Path, arguments: &[String], directory: &Path, port: u16) -> anyhow::Result<Process> {
        // Our own says a line for each event, which nobody reads here; its errors are kept.
        Process::start(program, arguments, directory, port, self != Self::Messenger)
    }

    /// Writes what the server needs, and gives its arguments.
    fn prepare(self, beginning: &Beginning<'_>, directory: &Path, port: u16) -> anyhow::Result<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        // Prosody takes no other name.
        let file = directory.join("configuration.cfg.lua");
        let path = file.to_str().context("the directory's name is not UTF-8")?;
        let write = |text: String| fs::write(&file, text);
        let port_word = port.to_string();
        Ok(match self {
            Self::Messenger => {
                let lines: String =
                    (0..beginning.users).map(|number| format!("{} {PASSWORD}\n", user(number))).collect();
                write(lines)?;
                if beginning.log_events > 0 {
                    let data = directory.join("data");
                    generate::generate(&data, beginning.log_events)?;
                    // As a server leaves a log that it wrote: with its indexes and snapshots.
                    let archived =
                        ArchiveFiles::new(&Disk::lock(&data)?, "archivist")?.archive_through(beginning.log_events);
                    ensure!(archived.is_done, "the log could not be archived: {}", archived.notices.join("; "));
                }
                words(&["serve", &port_word, "--rate", "0", "--credentials", path, "--data", "data"])
            }
            Self::Raw => words(&["forward", &port_word]),
            Self::Ngircd => {
                write(configuration::ngircd(port))?;
                words(&["-n", "-f", path])
            }
            Self::Inspircd => {
                write(configuration::inspircd(port, directory))?;
                words(&["--runasroot", "--nofork", "--config", path])
            }
            Self::Redis => {
                write(configuration::redis(port))?;
                words(&[path])
            }
            Self::Mosquitto => {
                write(configuration::mosquitto(port))?;
                words(&["-c", path])
            }
            Self::Nats | Self::Jetstream => {
                write(configuration::nats(port, (self == Self::Jetstream).then_some(directory)))?;
                words(&["-c", path])
            }
            Self::Prosody => {
                write(configuration::prosody(port, directory))?;
                configuration::prosody_accounts(directory, beginning.users)?;
                words(&["--config", path, "-F"])
            }
        })
    }

    /// How many clients may log in at once without being dropped by a short queue of the listening socket: it costs
    /// seconds until their system tries again.
    pub fn logins_under_way(self) -> usize {
        match self {
            Self::Ngircd => 8,
            _ => 256,
        }
    }

    /// What its clients speak.
    pub fn dialect(self, shape: Shape, text_bytes: usize) -> Box<dyn Dialect> {
        match self {
            Self::Messenger => Box::new(Messenger::default()),
            Self::Raw => Box::new(Raw { text_bytes, is_group: matches!(shape, Shape::Group { .. }) }),
            Self::Ngircd | Self::Inspircd => Box::new(Irc),
            Self::Redis => Box::new(Redis),
            Self::Mosquitto => Box::new(Mqtt),
            Self::Nats | Self::Jetstream => Box::new(Nats { is_stream: self == Self::Jetstream }),
            Self::Prosody => Box::new(Xmpp),
        }
    }
}

impl Server {
    /// Stops the server and starts it again, on the same port and files.
    ///
    /// # Errors
    /// It does not stop, or does not start.
    pub fn restart(self) -> anyhow::Result<Self> {
        let Self { process, subject, program, arguments, directory } = self;
        let port = process.address.port();
        process.stop()?;
        let process = subject.run(&program, &arguments, directory.path(), port)?;
        Ok(Self { process, subject, program, arguments, directory })
    }

    /// What clients of our own server begin TLS with, once it has made its certificate: it listens before that.
    ///
    /// # Errors
    /// It makes none.
    pub fn client_config(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let certificate = self.directory.path().join("data/tls/cert.pem");
        let give_up = clock::monotonic() + PATIENCE;
        while !certificate.exists() && clock::monotonic() < give_up {
            std::thread::sleep(Duration::from_millis(2));
        }
        stream::client_config(&certificate)
    }

    /// Asks a NATS server to keep what is sent.
    fn make_stream(&self) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(self.process.address)?;
        stream.write_all(&nats::make_stream())?;
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = lines.next().transpose()? {
            if line.starts_with("MSG ") {
                let answer = lines.next().transpose()?.unwrap_or_default();
                ensure!(!answer.contains("\"error\""), "no stream could be made: {answer}");
                return Ok(());
            }
        }
        anyhow::bail!("no stream could be made: the server closed the connection")
    }
}
