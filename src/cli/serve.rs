//! `messenger serve`: its arguments, and a server put together from its parts.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use rustls::ServerConfig;
use uuid::Uuid;

use super::exit::{Exit, Failure};
use super::progress::ProgressBar;
use crate::chat::Policy;
use crate::clock::{self, LogClock};
use crate::derive::Follower;
use crate::eventlog::{self, Disk, LockError, OpenError, Writer};
use crate::protocol::Fingerprint;
use crate::server::archive_files::ArchiveFiles;
use crate::server::authenticator::Authenticator;
use crate::server::certificate::{CertificateError, CertificateFiles};
use crate::server::credentials::{Credentials, CredentialsError};
use crate::server::event_loop::{self, EventLoop, Parts};
use crate::server::segment::Position;
use crate::server::{self, Archive, Hub, HubOptions, Now, Older, Opened, ReadLines};

/// The arguments of `messenger serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  messenger serve                                  for this machine, on port 5000
  messenger serve 6000 5                           another port, five wrong passwords before a block
  messenger serve --bind 0.0.0.0                   for other machines too, over TLS
  messenger serve --tls-cert chat.pem --tls-key chat.key
  messenger serve --data /srv/chat --credentials /etc/chat/credentials.txt")]
pub struct ServeArgs {
    /// TCP port to listen on; 0 takes a free one.
    #[arg(default_value_t = 5000)]
    port: u16,

    /// Wrong passwords in a row before a user name is blocked for 10 seconds, 1 to 5.
    #[arg(default_value = "3", allow_hyphen_values = true)]
    max_failed: String,

    /// Address to listen on, as in `--bind 0.0.0.0`.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    bind: IpAddr,

    /// Directory of the event log and the files derived from it, as in `--data /srv/chat`.
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,

    /// File with a line `username password` for each user, as in `--credentials team.txt`.
    #[arg(long, value_name = "FILE", default_value = "credentials.txt")]
    credentials: PathBuf,

    /// Certificate for TLS in PEM form, with those it is signed by, as in `--tls-cert chat.pem`; by default one is made at the
    /// first start and kept in the directory `tls` of the data.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of that certificate in PEM form, as in `--tls-key chat.key`.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Serve clear text to other machines too, not only to this one: passwords and messages can be read on the way.
    #[arg(long)]
    allow_cleartext: bool,

    /// Commands a second per connection over which the server reads slower, as in `--rate 50`; 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = 200)]
    rate: u32,

    /// Show the texts of messages on the console, not only who wrote to whom.
    #[arg(long)]
    console_texts: bool,
}

/// Runs a server until it is stopped.
///
/// # Errors
/// It cannot start, or the log or the machine failed.
pub fn run(arguments: &ServeArgs) -> anyhow::Result<()> {
    let failures_max = failures_max(&arguments.max_failed)?;
    let bad_file = |error: CredentialsError| Failure::error(Exit::BadConfiguration, error);
    let credentials = Credentials::read(&arguments.credentials).map_err(bad_file)?;
    let policy = Policy { failures_max, accounts: credentials.accounts() };
    let bad_certificate = |error: CertificateError| Failure::error(Exit::BadConfiguration, error);
    let given = arguments.tls_cert.as_ref().zip(arguments.tls_key.as_ref());
    let given = given.map(|(certificate, key)| CertificateFiles::given(certificate, key));
    if let Some(files) = &given {
        files.load().map_err(bad_certificate)?;
    }

    // Before anything is made: a server that cannot be reached leaves no data. Whoever connects waits in the system's
    // queue until the log is open.
    let address = SocketAddr::new(arguments.bind, arguments.port);
    let listener = event_loop::listen(address).map_err(|error| match Disk::is_in_use(&arguments.data) {
        // Another port would not help.
        true => Failure::of_lock(LockError::Held(arguments.data.clone())),
        false => anyhow::Error::new(error).context(format!(
            "cannot listen on {address}: name another port (`messenger serve PORT`) or another address (--bind)"
        )),
    })?;
    let address = listener.local_addr()?;
    let disk = Disk::lock(&arguments.data).map_err(Failure::of_lock)?;
    let events = disk.directory().to_owned();
    let new_log = Uuid::new_v4();
    // Before anything is written: what is refused is left as it was.
    if let Some(log) = eventlog::log_number(&disk, new_log) {
        eventlog::check_key(&arguments.data, log).map_err(Failure::of_key)?;
    }
    let reader = ArchiveFiles::new(&disk, "reader").map_err(|error| not_opened(disk.directory(), &error))?;
    let Opened { log, state, index, mut archivist, .. } = open(disk, new_log)?;
    eventlog::make_key(&arguments.data, log.id()).map_err(Failure::of_key)?;
    let certificate_files = given.unwrap_or_else(|| CertificateFiles::own(&arguments.data));
    let certificate = certificate_files.load().map_err(bad_certificate)?;

    let options = HubOptions {
        log: log.id(),
        commands_per_second: arguments.rate,
        allow_cleartext: arguments.allow_cleartext,
        connections_max: connections_max(),
        console_texts: arguments.console_texts,
    };
    let mut clock = LogClock::new(log.at());
    let now = Now { at: clock.now(), tick: clock::monotonic() };
    let hub = Hub::new(options, policy, state, index, log.root().to_string(), log.room_bytes(), now);
    let follower = Follower::spawn(&arguments.data, &events, log.seq()).context("the derived files cannot be kept")?;

    let file = arguments.credentials.clone();
    let authenticator = Authenticator::open(&arguments.data, credentials, now.at);
    let parts = Parts {
        hub,
        clock,
        listener,
        authenticator,
        reload: Box::new(move || read_accounts(&file, failures_max)),
        tls: certificate.config,
        reload_tls: Box::new(move || read_certificate(&certificate_files)),
        read_lines: read_lines(Archive::new(reader)),
        archive_through: Box::new(move |through| archivist.archive_through(through)),
        writer: Box::new(move |wake| Writer::spawn(log, wake)),
        on_durable: Box::new(follower.teller()),
    };
    eprintln!("messenger: {}", key_notice(&certificate.fingerprint));
    if arguments.allow_cleartext && !arguments.bind.is_loopback() {
        eprintln!("messenger: passwords and messages of other machines may come in clear text (--allow-cleartext)");
    }
    let event_loop = EventLoop::new(parts)?;
    greet(address)?;
    let served = event_loop.run();
    follower.close();
    Ok(served?)
}

/// What users compare who connect for the first time.
fn key_notice(fingerprint: &Fingerprint) -> String {
    format!("the TLS key's fingerprint is {fingerprint}")
}

fn failures_max(typed: &str) -> anyhow::Result<u32> {
    match typed.parse() {
        Ok(number @ 1..=5) => Ok(number),
        _ => Err(Failure::error(
            Exit::Usage,
            format!(
                "Invalid number of allowed failed consecutive attempt: {typed}. The valid value of argument number is \
                 an integer between 1 and 5"
            ),
        )),
    }
}

/// Opens the log and folds what no snapshot spares it.
fn open(disk: Disk, new_log: Uuid) -> anyhow::Result<Opened<Disk>> {
    let directory = disk.directory().to_owned();
    let mut bar = ProgressBar::new("reading the log");
    let opened = server::open(disk, new_log, clock::wall(), |done, total| bar.show(done, total));
    bar.end();
    let mut opened = opened.map_err(|error| not_opened(&directory, &error))?;
    tell(std::mem::take(&mut opened.notices));
    // Room for the first commands.
    opened.log.tend(clock::monotonic())?;
    Ok(opened)
}

fn not_opened(directory: &Path, error: &OpenError) -> anyhow::Error {
    let exit = if matches!(error, OpenError::Disk { .. }) { Exit::Failure } else { Exit::NotIntact };
    Failure::error(exit, format!("{}: {error}", directory.display()))
}

fn tell(notices: Vec<String>) {
    for notice in notices {
        eprintln!("messenger: {notice}");
    }
}

/// Says that the server is ready. Who started it may already be gone: that is no failure.
fn greet(address: SocketAddr) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let greeting = format!(
        "=== Server is running ===\n=== Waiting for connection request from clients...===\nlistening on {address}\n"
    );
    match out.write_all(greeting.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output cannot be written")
        }
        _ => Ok(()),
    }
}

fn read_accounts(file: &Path, failures_max: u32) -> Result<(Credentials, Policy), CredentialsError> {
    let credentials = Credentials::read(file)?;
    let policy = Policy { failures_max, accounts: credentials.accounts() };
    Ok((credentials, policy))
}

fn read_certificate(files: &CertificateFiles) -> Result<Arc<ServerConfig>, CertificateError> {
    let certificate = files.read()?;
    eprintln!("messenger: the certificate was read again; {}", key_notice(&certificate.fingerprint));
    Ok(certificate.config)
}

fn read_lines(mut archive: Archive<Disk>) -> ReadLines {
    Box::new(move |older: Option<&Older>, positions: &[Position]| {
        let lines = archive.read(older, positions);
        tell(archive.take_notices());
        lines.inspect_err(|error| eprintln!("messenger: the log cannot be read: {error}")).ok()
    })
}

/// As many connections as there are files to be opened, less those that the server itself needs.
fn connections_max() -> usize {
    const OWN_FILES: u64 = 64;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.maximum.is_none_or(|maximum| limit.current.is_some_and(|current| current < maximum)) {
        // The soft limit is for programs that cannot take more; this one can.
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    }
    let current = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(current.saturating_sub(OWN_FILES).max(16)).unwrap_or(usize::MAX)
}
