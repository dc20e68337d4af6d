//! The server under load: started with its defaults but for the rate, pinned to one core, watched through `/proc`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

/// A running server, its log and its accounts in a directory that goes with it.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    directory: TempDir,
}

pub const PASSWORD: &str = "secret";

/// The name of a user by number.
pub fn user(number: usize) -> String {
    format!("user{number}")
}

impl Server {
    pub fn start(users: usize, data: Option<&Path>) -> anyhow::Result<Self> {
        let parent = data.map_or_else(std::env::temp_dir, Path::to_owned);
        let directory = tempfile::Builder::new().prefix("messenger-load").tempdir_in(parent)?;
        let credentials = directory.path().join("credentials.txt");
        let lines: String = (0..users).map(|number| format!("{} {PASSWORD}\n", user(number))).collect();
        std::fs::write(&credentials, lines)?;
        let data: PathBuf = directory.path().join("data");
        // Without `taskset` (util-linux) the system places the server where it likes.
        let mut command = match Command::new("taskset").arg("--version").output() {
            Ok(_) => {
                let mut command = Command::new("taskset");
                command.args(["-c", "0", env!("CARGO_BIN_EXE_messenger")]);
                command
            }
            Err(_) => Command::new(env!("CARGO_BIN_EXE_messenger")),
        };
        let mut child = command
            .args(["serve", "0", "--rate", "0", "--credentials"])
            .arg(&credentials)
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("the server cannot be started")?;
        let mut console = BufReader::new(child.stdout.take().context("the server has a console")?);
        let address = loop {
            let mut line = String::new();
            if console.read_line(&mut line)? == 0 {
                bail!("the server ended at its start");
            }
            if let Some(address) = line.trim_end().strip_prefix("listening on ") {
                break address.parse()?;
            }
        };
        // Somebody reads the console, as an operator would.
        std::thread::spawn(move || std::io::copy(&mut console, &mut std::io::sink()));
        Ok(Self { child, address, directory })
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the server ended with {status}");
        }
        Ok(())
    }
}
