//! The executable as a user or script starts it: `connect` against `serve`, over sockets, pipes and kills.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use messenger::client::line::COMMAND_PROMPT;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything takes: who waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, its data, and the state of the clients that talk to it.
struct Server {
    child: Child,
    console: BufReader<ChildStdout>,
    port: u16,
    directory: TempDir,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("credentials.txt"), "han falcon\nleia alderaan\nyoda jedi\n").unwrap();
        let (child, console, port) = serve(directory.path(), 0);
        Self { child, console, port, directory }
    }

    /// Kills the server as it stands, and starts another on its log and port.
    fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.console, _) = serve(self.directory.path(), self.port);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_messenger"));
        command
            .args(["connect", "127.0.0.1", &self.port.to_string()])
            .args(arguments)
            .current_dir(self.directory.path())
            .env("XDG_STATE_HOME", self.directory.path().join("state"))
            .env("TZ", "UTC")
            .env_remove("MESSENGER_PASSWORD")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn connect(&self, arguments: &[&str]) -> Client {
        Client::new(self.command(arguments).spawn().unwrap())
    }

    /// A user who has logged in.
    fn login(&self, user: &str, arguments: &[&str]) -> Client {
        let mut client = self.connect(arguments);
        let passwords = [("han", "falcon"), ("leia", "alderaan"), ("yoda", "jedi")];
        let password = passwords.iter().find(|(name, _)| *name == user).unwrap().1;
        client.type_lines(&format!("{user}\n{password}\n"));
        client.expect("Welcome to Messenger!");
        client
    }

    /// Runs a client on this input to its end.
    fn run(&self, arguments: &[&str], input: &str) -> (ExitStatus, Vec<String>) {
        let mut client = self.connect(arguments);
        client.type_lines(input);
        client.finish()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(directory: &Path, port: u16) -> (Child, BufReader<ChildStdout>, u16) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_messenger"))
        .args(["serve", &port.to_string()])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut console = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("listening on ") {
        line.clear();
        assert_ne!(console.read_line(&mut line).unwrap(), 0, "the server does not start");
    }
    let port = line.trim_end().rsplit(':').next().unwrap().parse().unwrap();
    (child, console, port)
}

/// A client that runs, and the lines it prints.
struct Client {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Client {
    fn new(mut child: Child) -> Self {
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Self { input: child.stdin.take(), child, lines }
    }

    fn type_lines(&mut self, text: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// The next line that is no prompt.
    fn next(&self) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("a line is printed");
            if line != COMMAND_PROMPT {
                return line;
            }
        }
    }

    /// Reads on to a line that ends so; gives it.
    fn expect(&self, end: &str) -> String {
        loop {
            let line = self.next();
            if line.ends_with(end) {
                return line;
            }
        }
    }

    /// Ends the input, and reads to the end.
    fn finish(mut self) -> (ExitStatus, Vec<String>) {
        self.input = None;
        let rest = self.lines.iter().collect();
        (self.child.wait().unwrap(), rest)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn without_moment(line: &str) -> &str {
    // `01 Jun 2023 15:00:01, ` is 22 bytes.
    line.get(22..).unwrap_or_else(|| panic!("{line:?} begins with a moment"))
}

#[test]
fn the_dialogue_is_that_of_the_ancestor() {
    let server = Server::start();
    let (status, lines) = server.run(&[], "yoda\njedi\n/msgto han hello\n/dance\n");
    let expected = ["Please login", "Username: ", "Password: ", "Welcome to Messenger!", COMMAND_PROMPT];
    assert_eq!(lines[..5], expected);
    let rest: Vec<&str> = lines[5..].iter().map(String::as_str).filter(|line| *line != COMMAND_PROMPT).collect();
    assert!(rest[0].starts_with("message sent at ") && rest[0].ends_with('.'), "{rest:?}");
    assert_eq!(rest[1..], ["Error. Invalid command!", "Bye, yoda!"]);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn two_people_chat_alone_and_in_a_group() {
    let server = Server::start();
    let (mut han, mut leia) = (server.login("han", &[]), server.login("leia", &[]));
    han.type_lines("/creategroup hoth leia\n");
    han.expect("Group chat room has been created, room name: hoth, users in this room: han, leia");
    leia.expect("han created the group chat hoth and invited you: /joingroup hoth");
    leia.type_lines("/joingroup hoth\n");
    leia.expect("Joined the group chat: hoth successfully.");
    han.expect("hoth: leia joined");
    han.type_lines("/groupmsg hoth are you there\n");
    han.expect("Group chat message sent.");
    assert_eq!(without_moment(&leia.next()), "hoth, han: are you there");
    leia.type_lines("/msgto han I know \u{1b}[2J\n");
    let sent = leia.expect(".");
    let received = han.next();
    assert_eq!(without_moment(&received), "leia: I know \\u001b[2J");
    assert_eq!(sent, format!("message sent at {}.", &received[..20]), "one moment for both");
    leia.type_lines("/logout\n");
    leia.expect("Bye, leia!");
    assert_eq!(leia.finish().0.code(), Some(0));
}

#[test]
fn the_exit_code_says_what_went_wrong() {
    let server = Server::start();
    let (status, lines) = server.run(&[], "yoda\nwrong\n/msgto han hi\n");
    assert_eq!(
        (status.code(), lines.last().map(String::as_str)),
        (Some(4), Some("Invalid Password. Please try again"))
    );
    let (status, _) = server.run(&["--ui", "tui"], "");
    assert_eq!(status.code(), Some(2));
    let (status, _) = server.run(&["--user", "yoda", "--password-file", "missing"], "");
    assert_eq!(status.code(), Some(78));
    let (status, _) = server.run(&["--password-file", "secret"], "");
    assert_eq!(status.code(), Some(2), "a script without --user gives the password on its second line");
    let (status, lines) = server.run(&[], "yoda\njedi\n/p2pvideo han credentials.txt\n");
    assert!(lines.contains(&"han is offline".to_owned()), "{lines:?}");
    assert_eq!(status.code(), Some(5));
    let messenger = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_messenger"));
        command.arg("connect").args(arguments).stdin(Stdio::null()).output().unwrap().status.code()
    };
    // A port that was free a moment ago: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(messenger(&["127.0.0.1", &free.to_string()]), Some(3));
    assert_eq!(messenger(&[]), Some(2));
}

#[test]
fn three_wrong_passwords_block_and_the_block_is_said() {
    let server = Server::start();
    for _ in 0..2 {
        server.run(&["--user", "yoda"], "wrong\n");
    }
    let (status, lines) = server.run(&["--user", "yoda"], "wrong\n");
    let blocked = "Invalid Password. Your account has been blocked. Please try again later";
    assert_eq!((status.code(), lines.last().map(String::as_str)), (Some(4), Some(blocked)));
    let (status, lines) = server.run(&["--user", "yoda"], "jedi\n");
    let still = "Your account is blocked due to multiple login failures. Please try again later";
    assert_eq!((status.code(), lines.last().map(String::as_str)), (Some(4), Some(still)));
}

#[test]
fn the_password_may_come_from_a_file_or_a_variable() {
    let server = Server::start();
    std::fs::write(server.directory.path().join("secret"), "jedi\nsecond line\n").unwrap();
    let (status, lines) = server.run(&["--user", "yoda", "--password-file", "secret"], "");
    assert_eq!((status.code(), lines.last().map(String::as_str)), (Some(0), Some("Bye, yoda!")));
    let mut command = server.command(&["--user", "yoda"]);
    let client = Client::new(command.env("MESSENGER_PASSWORD", "jedi").spawn().unwrap());
    assert_eq!(client.finish().0.code(), Some(0));
}

#[test]
fn a_server_that_is_killed_in_mid_conversation_loses_and_doubles_nothing() {
    const MESSAGES: usize = 300;
    let mut server = Server::start();
    let (mut han, leia) = (server.login("han", &[]), server.login("leia", &[]));
    let (mut confirmed, mut received) = (0, Vec::new());
    for round in 0..3 {
        let lines: String = (0..MESSAGES / 3).map(|number| format!("/msgto leia {round} {number}\n")).collect();
        han.type_lines(&lines);
        // Some are through, some under way, some not yet read.
        for _ in 0..10 {
            han.expect(".");
            confirmed += 1;
        }
        server.kill_and_restart();
    }
    while received.len() < MESSAGES {
        let line = leia.next();
        if let Some((_, text)) = line.split_once("han: ") {
            received.push(text.to_owned());
        }
    }
    let expected: Vec<String> =
        (0..3).flat_map(|round| (0..MESSAGES / 3).map(move |number| format!("{round} {number}"))).collect();
    assert_eq!(received, expected);
    let (status, rest) = han.finish();
    confirmed += rest.iter().filter(|line| line.starts_with("message sent at ")).count();
    // Three times the loss of the connection was said among the first ten lines of a round, at most.
    assert!((MESSAGES..=MESSAGES + 6).contains(&confirmed), "{confirmed}");
    assert_eq!(status.code(), Some(0));
    assert_eq!(leia.finish().1.iter().filter(|line| line.contains("han: ")).count(), 0);
}

#[test]
fn a_client_that_is_killed_sends_what_it_had_taken_once_it_is_back() {
    let server = Server::start();
    let leia = server.login("leia", &[]);
    let mut han = server.login("han", &[]);
    let lines: String = (0..500).map(|number| format!("/msgto leia {number}\n")).collect();
    han.type_lines(&lines);
    let sent = han.expect(".");
    assert!(sent.starts_with("message sent at "), "{sent}");
    drop(han);
    let (status, _) = server.run(&[], "han\nfalcon\n/msgto leia end\n");
    assert_eq!(status.code(), Some(0));
    let mut received = Vec::new();
    while received.last().is_none_or(|text| text != "end") {
        let line = leia.next();
        received.push(line.split_once("han: ").unwrap().1.to_owned());
    }
    received.pop();
    // Whatever the client had taken in before it was killed, in order, each once.
    let expected: Vec<String> = (0..received.len()).map(|number| number.to_string()).collect();
    assert_eq!(received, expected);
}

#[test]
fn what_was_seen_is_not_shown_again_at_the_next_login() {
    let server = Server::start();
    server.run(&[], "han\nfalcon\n/msgto leia one\n");
    let (_, lines) = server.run(&[], "leia\nalderaan\n");
    assert_eq!(lines.iter().filter(|line| line.ends_with("han: one")).count(), 1);
    let (_, lines) = server.run(&[], "leia\nalderaan\n");
    assert_eq!(lines.iter().filter(|line| line.ends_with("han: one")).count(), 0);
}

#[test]
fn a_second_terminal_is_a_device_of_its_own() {
    let server = Server::start();
    let (mut han, first, second) = (server.login("han", &[]), server.login("leia", &[]), server.login("leia", &[]));
    han.type_lines("/msgto leia both of you\n");
    first.expect("han: both of you");
    second.expect("han: both of you");
    let users = server.directory.path().join("state/messenger").read_dir().unwrap().next().unwrap().unwrap().path();
    let device = std::fs::read_to_string(users.join("@leia/device")).unwrap();
    assert!(users.join(format!("@leia/@{device}/lock")).exists());
    assert!(users.join(format!("@leia/@{device}-2/lock")).exists());
    let (status, _) = server.run(&["--device", &device], "leia\nalderaan\n");
    assert_eq!(status.code(), Some(1), "a device that is in use is not shared");
}

#[test]
fn an_interrupted_client_logs_out() {
    let server = Server::start();
    let leia = server.login("leia", &[]);
    kill_process(Pid::from_child(&leia.child), Signal::INT).unwrap();
    leia.expect("Bye, leia!");
    assert_eq!(leia.finish().0.code(), Some(130));
    let (_, lines) = server.run(&[], "han\nfalcon\n/activeuser\n");
    assert!(lines.contains(&"no other active user".to_owned()), "{lines:?}");
}

#[test]
fn a_reader_of_the_output_who_goes_away_is_no_failure() {
    let server = Server::start();
    let mut child = server.command(&["--user", "leia"]).env("MESSENGER_PASSWORD", "alderaan").spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn json_prints_every_frame_as_it_came_and_nothing_else() {
    let server = Server::start();
    let mut child = server.command(&["--ui", "json", "--user", "leia"]);
    let mut child = child.env("MESSENGER_PASSWORD", "alderaan").spawn().unwrap();
    let input = "/msgto han hi\n{\"type\":\"command\",\"id\":\"q\",\"text\":\"/users\"}\n{\"type\":\"offer\"}\n";
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let frames: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    let told: Vec<(&str, &str)> = frames
        .iter()
        .map(|frame| (frame["type"].as_str().unwrap(), frame["command"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(told, [("ok", "login"), ("live", ""), ("ok", "msgto"), ("ok", "users"), ("ok", "logout")]);
    assert_eq!((&frames[2]["id"], &frames[3]["id"]), (&1.into(), &"q".into()));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Error. "), "{said}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_end_of_the_input_before_a_login_is_said() {
    let server = Server::start();
    let (status, lines) = server.run(&[], "yoda\n");
    assert_eq!(lines.last().unwrap(), "The input ended before a user name and a password were given.");
    assert_eq!(status.code(), Some(4));
}

#[test]
fn a_file_goes_from_one_client_to_the_other_and_both_say_so() {
    let server = Server::start();
    let (sent, directory) = (server.directory.path().join("a b.bin"), server.directory.path().join("in"));
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&sent, &content).unwrap();
    std::fs::create_dir(&directory).unwrap();
    let mut han = server.login("han", &["--accept", "ask", "--download-dir", "in"]);
    let mut leia = server.login("leia", &[]);
    leia.type_lines(&format!("/p2pvideo han {}\n", sent.display()));
    han.expect("leia offers you a b.bin (11.4 MiB): /accept 1 or /decline 1");
    han.type_lines("/accept 1\n");
    han.expect("Received a b.bin from leia");
    assert_eq!(han.next(), "Saved as in/leia_a b.bin");
    let (status, lines) = leia.finish();
    assert!(lines.contains(&"a b.bin has been uploaded".to_owned()), "{lines:?}");
    assert_eq!(status.code(), Some(0));
    assert!(std::fs::read(directory.join("leia_a b.bin")).unwrap() == content);

    let mut leia = server.login("leia", &[]);
    leia.type_lines(&format!("/p2pvideo han {}\n", sent.display()));
    han.expect("/accept 2 or /decline 2");
    han.type_lines("/decline 2\n");
    leia.expect("han declined a b.bin.");
    assert_eq!(leia.finish().0.code(), Some(5));
}
