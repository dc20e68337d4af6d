//! `messenger connect`: its arguments, and a client put together from its parts.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::exit::{Exit, Failure};
use crate::client::event_loop::{self, MakeInterface, Parts};
use crate::client::json::JsonInterface;
use crate::client::known_servers::KnownServers;
use crate::client::line::LineInterface;
use crate::client::trust::Trust;
use crate::client::{self, App, Ending, Interface, Options, state};
use crate::clock;
use crate::names::{DeviceName, UserName};
use crate::protocol::Fingerprint;

/// The longest file that holds a password, in bytes.
const PASSWORD_BYTES_MAX: usize = 4_096;

/// The arguments of `messenger connect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  messenger connect 127.0.0.1                        the server on this machine, port 5000
  messenger connect chat.example 6000                over TLS; the key that is seen first is trusted from then on
  messenger connect 127.0.0.1 5000 8001              transfers over UDP port 8001
  messenger connect 127.0.0.1 --user yoda --password-file ~/.chat --accept all --download-dir ~/in
  printf '/msgto han hi\\n' | MESSENGER_PASSWORD=jedi messenger connect 127.0.0.1 --user yoda

From a pipe, the first line is the user name and the second the password, unless --user is given; then every line is a
command. At the end of the input all is waited for that is outstanding.

With --ui json every frame received is a line on standard output. A line of the input is a command as it is typed, or a
frame {\"type\":\"command\",\"id\":…,\"text\":…}; a command that is numbered gets its number from the client. What the client
itself has to say is on standard error.")]
pub struct ConnectArgs {
    /// The server's name or address.
    host: String,

    /// The server's TCP port.
    #[arg(default_value_t = 5000)]
    port: u16,

    /// The UDP port for transfers; 0 takes a free one.
    #[arg(default_value_t = 0)]
    udp_port: u16,

    /// Who logs in, as in `--user yoda`; asked for otherwise.
    #[arg(long, value_name = "NAME")]
    user: Option<UserName>,

    /// File whose first line is the password, as in `--password-file ~/.chat`; the variable MESSENGER_PASSWORD may hold
    /// it, too.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// How it looks, as in `--ui json`; by default `line`.
    #[arg(long, value_enum)]
    ui: Option<Ui>,

    /// Where received files go, as in `--download-dir ~/in`.
    #[arg(long, value_name = "DIR", default_value = ".")]
    download_dir: PathBuf,

    /// What becomes of files that are offered, as in `--accept all`; by default `ask` in a terminal, else `none`.
    #[arg(long, value_enum)]
    accept: Option<Accept>,

    /// A name for this device, as in `--device laptop`; one is made and kept otherwise.
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceName>,

    /// The fingerprint of the server's key, as in `--tls-fingerprint 3f:9a:…`: the SHA-256 of its public key, as the server
    /// says it, or of its certificate. No other key is taken, and TLS is spoken to this machine, too. By default the key
    /// that another machine shows first is trusted and kept.
    #[arg(long, value_name = "HEX", conflicts_with = "insecure_cleartext")]
    tls_fingerprint: Option<Fingerprint>,

    /// Speak clear text with another machine: passwords and messages can be read on the way.
    #[arg(long)]
    insecure_cleartext: bool,
}

/// How the client looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ui {
    /// The full screen.
    #[value(hide = true)]
    Tui,
    /// Prompts and sentences, one after another.
    Line,
    /// Frames, for scripts.
    Json,
}

/// What becomes of incoming offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Accept {
    /// You are asked.
    Ask,
    /// They are taken.
    All,
    /// They are declined.
    None,
}

/// Runs a client until its user leaves.
///
/// # Errors
/// No connection, no login, a transfer that failed, or the machine's own trouble.
pub fn run(arguments: &ConnectArgs) -> anyhow::Result<Exit> {
    let ui = arguments.ui.unwrap_or(Ui::Line);
    if ui == Ui::Tui {
        return Err(Failure::error(Exit::Usage, "the full screen (--ui tui) is not there yet: use --ui line"));
    }
    if arguments.accept != Some(Accept::None) && !arguments.download_dir.is_dir() {
        let directory = arguments.download_dir.display();
        let why = format!("received files cannot go to {directory}: it is no directory; make it, or name another");
        return Err(Failure::error(Exit::Failure, why));
    }
    let server = format!("{}:{}", arguments.host, arguments.port);
    let addresses = resolve(&arguments.host, arguments.port)?;
    let state_root = state::default_root()?;
    let trust = trust(arguments, &server, &addresses, &state_root)?;
    let is_person = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let accept = arguments.accept.unwrap_or(if is_person { Accept::Ask } else { Accept::None });
    let options = Options {
        user: arguments.user,
        password: password(arguments, is_person)?,
        is_person,
        accept: match accept {
            Accept::Ask => client::Accept::Ask,
            Accept::All => client::Accept::All,
            Accept::None => client::Accept::None,
        },
        echo_frames: ui == Ui::Json,
        learn_names: is_person && ui == Ui::Line,
        seed: getrandom::u64().context("the system gives no random numbers")?,
    };
    let make_interface: MakeInterface = Box::new(move |wake| {
        Ok(match ui {
            Ui::Json => Box::new(JsonInterface::new(wake)?) as Box<dyn Interface>,
            Ui::Line | Ui::Tui => Box::new(LineInterface::new(wake)?),
        })
    });
    let parts = Parts {
        app: App::new(options, clock::monotonic()),
        server,
        addresses,
        trust,
        make_interface,
        state_root,
        device: arguments.device,
        udp_port: arguments.udp_port,
        download_dir: arguments.download_dir.clone(),
    };
    Ok(match event_loop::run(parts)? {
        Ending::Done => Exit::Done,
        Ending::Failed => Exit::Failure,
        Ending::CannotConnect => Exit::CannotConnect,
        Ending::LoginRefused => Exit::LoginRefused,
        Ending::TransferFailed => Exit::TransferFailed,
        Ending::Interrupted => Exit::Interrupted,
    })
}

/// The server's addresses.
fn resolve(host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let found = (host, port).to_socket_addrs();
    Ok(found.map_err(|error| Failure::error(Exit::CannotConnect, format!("cannot find {host}: {error}")))?.collect())
}

/// Whom to take for the server. Clear text goes to this machine only, and where no key is known, unless that is wanted
/// otherwise.
fn trust(
    arguments: &ConnectArgs,
    server: &str,
    addresses: &[SocketAddr],
    state_root: &Path,
) -> anyhow::Result<Option<Trust>> {
    let is_local = addresses.iter().all(|address| address.ip().to_canonical().is_loopback());
    let known = KnownServers::new(state_root);
    let file = known.file();
    let unusable = |error| {
        let why = format!("the known keys of servers in {} cannot be used: {error}", file.display());
        Failure::error(Exit::CannotConnect, why)
    };
    if arguments.tls_fingerprint.is_none() {
        // Whoever says that a server with a known key is on this machine may be lying.
        let is_local = is_local && known.get(server).map_err(unusable)?.is_none();
        if is_local || arguments.insecure_cleartext {
            return Ok(None);
        }
    }
    let trust = Trust::new(server, known, arguments.tls_fingerprint);
    Ok(Some(trust.map_err(unusable)?))
}

/// The password from its file or variable, where one is given. A script that gives the user on its first line gives
/// the password on its second.
fn password(arguments: &ConnectArgs, is_person: bool) -> anyhow::Result<Option<String>> {
    let is_typed = arguments.user.is_none() && !is_person;
    let Some(file) = &arguments.password_file else {
        return Ok(std::env::var("MESSENGER_PASSWORD").ok().filter(|_| !is_typed));
    };
    if is_typed {
        return Err(Failure::error(Exit::Usage, "--password-file needs --user where the input is no terminal"));
    }
    let unusable = |why: String| Failure::error(Exit::BadConfiguration, format!("{}: {why}", file.display()));
    let text = client::state::read_secret(file, PASSWORD_BYTES_MAX).map_err(|error| unusable(error.to_string()))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(unusable("there is no password on the first line".into()));
    }
    Ok(Some(line.to_owned()))
}
