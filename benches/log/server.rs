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

/// What the server has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// CPU time of all threads, user and system.
    pub cpu_seconds: f64,
    /// Memory that is its own.
    pub memory_kib: u64,
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

    pub fn usage(&self) -> anyhow::Result<Usage> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let stat = std::fs::read_to_string(process.join("stat"))?;
        // proc_pid_stat(5): fields 14 and 15 are the ticks in user and system mode; the name before may hold spaces.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 =
            fields.get(11..13).context("stat has its fields")?.iter().flat_map(|ticks| ticks.parse::<u64>()).sum();
        let status = std::fs::read_to_string(process.join("status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("status has its fields")?;
        let memory_kib = memory.trim().trim_end_matches(" kB").parse()?;
        const TICKS_PER_SECOND: f64 = 100.0;
        Ok(Usage { cpu_seconds: ticks as f64 / TICKS_PER_SECOND, memory_kib })
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
