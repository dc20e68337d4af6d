//! A server under load: on a core of its own, watched through `/proc`.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use messenger::clock;

use crate::usage::{self, Usage};

/// Where the server runs.
const SERVER_CORE: u32 = 0;
/// Where the generator runs.
const GENERATOR_CORE: u32 = 1;
/// How long a server may take to listen, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; ended with this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What it writes to its console.
    console: PathBuf,
    pub address: SocketAddr,
}

/// Binds the generator to its core. Without `taskset` (util-linux) the system places both where it likes.
pub fn bind_generator() {
    let own = std::process::id().to_string();
    let core = GENERATOR_CORE.to_string();
    let _ = Command::new("taskset").args(["-cp", &core, &own]).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// A port that is free now.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl Process {
    /// Starts a server bound to its core, with its console (its errors only, unless `is_console_kept`) in a file of `directory`,
    /// and waits until it listens on `port`.
    ///
    /// # Errors
    /// It ended, or does not listen; with what it wrote.
    pub fn start(
        program: &Path,
        arguments: &[String],
        directory: &Path,
        port: u16,
        is_console_kept: bool,
    ) -> anyhow::Result<Self> {
        let console = directory.join("console.txt");
        let out = File::create(&console)?;
        let mut command = match Command::new("taskset").arg("--version").stdout(Stdio::null()).status() {
            Ok(_) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &SERVER_CORE.to_string()]).arg(program);
                command
            }
            Err(_) => Command::new(program),
        };
        let child = command
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(if is_console_kept { Stdio::from(out) } else { Stdio::null() })
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut process = Self { child, console, address };
        let give_up = clock::monotonic() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = process.child.try_wait()? {
                bail!("{} ended at its start with {status}: {}", program.display(), process.last_words());
            }
            let said = || format!("{} does not listen: {}", program.display(), process.last_words());
            ensure!(clock::monotonic() < give_up, said());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(process)
    }

    fn last_words(&self) -> String {
        const SHOWN_LINES: usize = 8;
        let console = std::fs::read(&self.console).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<&str> = console.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    pub fn usage(&self) -> anyhow::Result<Usage> {
        let usage = usage::usage(self.child.id());
        usage.with_context(|| format!("the server is gone: {}", self.last_words()))
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// It did not stop.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let give_up = clock::monotonic() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(clock::monotonic() < give_up, "the server does not stop");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either may find that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
