//! The real program: a server in a directory of its own, clients that talk to it line by line, and other subcommands.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Everybody who has an account, with the password that all of them have.
pub const USERS: [&str; 5] = ["yoda", "obiwan", "han", "leia", "luke"];
pub const PASSWORD: &str = "secret";

/// How the line of its key begins that a server says at each start.
const KEY_NOTICE: &str = "messenger: the TLS key's fingerprint is ";

/// After this long without a line a test has failed: nothing is ever waited for by it.
const HANG: Duration = Duration::from_secs(20);

/// The program, as a person in UTC without settings of their own starts it.
pub fn messenger() -> Command {
    as_a_person(Command::new(env!("CARGO_BIN_EXE_messenger")))
}

/// The same, run by another program that takes a command as its arguments.
fn messenger_under(program: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(env!("CARGO_BIN_EXE_messenger"));
    as_a_person(command)
}

fn as_a_person(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESSENGER_")) {
        command.env_remove(name);
    }
    command.env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    messenger().args(arguments).output().unwrap()
}

/// A server, its accounts and its data in a directory that goes with it.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    console: Receiver<String>,
    options: Vec<String>,
    /// A program that runs it, if it is not to run alone.
    under: Option<&'static str>,
    /// Whether nothing takes what it says on standard error.
    is_mute: bool,
    directory: TempDir,
}

impl Server {
    /// Starts one with its defaults on a free port; returns once it listens.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with options of `messenger serve`.
    pub fn start_with(options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), options)
    }

    /// Starts one in a directory in which a test has prepared something.
    pub fn start_in(directory: TempDir, options: &[&str]) -> Self {
        let accounts: String = USERS.iter().map(|user| format!("{user} {PASSWORD}\n")).collect();
        std::fs::write(directory.path().join("credentials.txt"), accounts).unwrap();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let (child, console, address) = spawn(directory.path(), 0, &options, None, false).unwrap();
        Self { address, child, console, options, under: None, is_mute: false, directory }
    }

    /// Has another program run it from its next start on, as `nice` would, or none.
    pub fn run_under(&mut self, program: Option<&'static str>) {
        self.under = program;
    }

    /// From its next start on its standard error takes nothing more, as a file on a full disk.
    pub fn mute(&mut self) {
        self.is_mute = true;
    }

    /// Starts it again on the same data and the same port, once it has ended.
    pub fn restart(&mut self) {
        self.try_restart().unwrap();
    }

    /// Starts it again as [`Server::restart`] does; an error is what it said when it refused to start.
    pub fn try_restart(&mut self) -> Result<(), String> {
        let _ = self.child.wait();
        (self.child, self.console, self.address) =
            spawn(self.directory.path(), self.address.port(), &self.options, self.under, self.is_mute)?;
        Ok(())
    }

    /// The directory in which it runs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The data directory as an argument.
    pub fn data_argument(&self) -> String {
        self.data().to_str().unwrap().to_owned()
    }

    /// The text of a file in the data directory.
    pub fn data_file(&self, name: &str) -> String {
        std::fs::read_to_string(self.data().join(name)).unwrap()
    }

    /// What the server has said on standard error so far, over all its starts; that it has a key is no news.
    pub fn errors(&self) -> String {
        self.said().split_inclusive('\n').filter(|line| !line.starts_with(KEY_NOTICE)).collect()
    }

    /// The fingerprint of its key, as it said at its start.
    pub fn fingerprint(&self) -> String {
        self.said().lines().find_map(|line| line.strip_prefix(KEY_NOTICE)).unwrap().to_owned()
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("errors.txt")).unwrap()
    }

    /// The next line of the console.
    pub fn console_line(&self) -> String {
        self.console.recv_timeout(HANG).expect("the server says another line")
    }

    /// The next line of the console of a server that has ended, if there is one more.
    pub fn console_rest(&self) -> Option<String> {
        self.console.recv().ok()
    }

    /// Closes the reading end of the console: from the next line on its pipe is broken.
    pub fn close_console(&mut self) {
        self.console = mpsc::channel().1;
    }

    /// A connection on which nothing was said yet.
    pub fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).unwrap())
    }

    /// A user of the plain dialect.
    pub fn login_plain(&self, user: &str) -> Client {
        let mut client = self.connect();
        client.send(&format!("/login {user} {PASSWORD}"));
        assert_eq!(client.line(), "Welcome to Messenger!");
        client
    }

    /// A user of the JSON dialect without a device; everything owed from before has been read.
    pub fn login(&self, user: &str) -> Client {
        let mut client = self.connect();
        client.send(&format!(r#"{{"type":"login","username":"{user}","password":"{PASSWORD}"}}"#));
        client.frame_of("live");
        client
    }

    /// A user of the JSON dialect who has processed all up to an event; nothing has been read yet.
    pub fn login_after(&self, user: &str, after: u64) -> Client {
        let mut client = self.connect();
        client.send(&format!(r#"{{"type":"login","username":"{user}","password":"{PASSWORD}","after":{after}}}"#));
        client
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it by SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Started = (Child, Receiver<String>, SocketAddr);

fn spawn(
    directory: &Path,
    port: u16,
    options: &[String],
    under: Option<&str>,
    is_mute: bool,
) -> Result<Started, String> {
    let errors = if is_mute { Path::new("/dev/full").to_owned() } else { directory.join("errors.txt") };
    let errors = std::fs::OpenOptions::new().create(true).append(true).open(errors).unwrap();
    let mut child = under
        .map_or_else(messenger, messenger_under)
        .current_dir(directory)
        .args(["serve", &port.to_string(), "--data", "data", "--credentials", "credentials.txt"])
        .args(options)
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (lines, console) = mpsc::channel();
    // Ends with the server's console.
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
    let listening = std::iter::from_fn(|| console.recv_timeout(HANG).ok())
        .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
    let Some(address) = listening else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("no server: {}", std::fs::read_to_string(directory.join("errors.txt")).unwrap()));
    };
    Ok((child, console, address.parse().unwrap()))
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    /// Sends a line; its line feed is added.
    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next line, without its line feed; empty at the end of the connection.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the server says another line");
        line.trim_end_matches('\n').to_owned()
    }

    /// The next line of a server that was killed, if it is whole; a reset may have come before it.
    pub fn last_line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok()?;
        line.strip_suffix('\n').map(str::to_owned)
    }

    /// The next frame.
    pub fn frame(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?} is no frame: {error}"))
    }

    /// The next frame of a type; those before it are passed over.
    pub fn frame_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.frame();
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Carries out a command of the JSON dialect; gives its answer, which must be `ok`. Events before it are passed over.
    pub fn command(&mut self, text: &str) -> Value {
        self.send(&serde_json::json!({"type": "command", "text": text}).to_string());
        loop {
            let frame = self.frame();
            match frame["type"].as_str() {
                Some("ok") => return frame,
                Some("error") => panic!("{text}: {frame}"),
                _ => {}
            }
        }
    }

    /// Logs out and waits for the end of the connection.
    pub fn logout(mut self) {
        self.command("/logout");
        assert_eq!(self.line(), "");
    }
}
