//! Whom the client takes for its server: the key it saw first, or the one it was told of, and nobody else.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;
#[path = "support/tls.rs"]
mod tls;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use server::{PASSWORD, Server, messenger};
use tempfile::TempDir;
use tls::outer_ip;

/// A person's home, for the state of the client.
struct Home(TempDir);

/// What a client did that ran to its end.
#[derive(Debug)]
struct Done {
    code: i32,
    out: String,
    errors: String,
}

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn known_servers(&self) -> PathBuf {
        self.0.path().join("messenger/known_servers")
    }

    fn known(&self) -> String {
        fs::read_to_string(self.known_servers()).unwrap_or_default()
    }

    fn start(&self, host: &str, port: u16, options: &[&str]) -> Child {
        let mut command = messenger();
        command
            .args(["connect", host, &port.to_string(), "--user", "han"])
            .args(options)
            .current_dir(self.0.path())
            .env("XDG_STATE_HOME", self.0.path())
            .env("MESSENGER_PASSWORD", PASSWORD);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Logs in as han, asks for the groups, and leaves.
    fn connect(&self, host: &str, port: u16, options: &[&str]) -> Done {
        let mut child = self.start(host, port, options);
        // One that was refused reads nothing.
        let _ = child.stdin.take().unwrap().write_all(b"/groups\n");
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done { code: output.status.code().unwrap(), out: text(output.stdout), errors: text(output.stderr) }
    }
}

#[track_caller]
fn assert_served(done: &Done) {
    assert!(done.code == 0 && done.out.contains("Welcome to Messenger!"), "{done:?}");
}

#[track_caller]
fn assert_refused(done: &Done, words: &[&str]) {
    assert!(done.code == 3 && !done.out.contains("Welcome"), "{done:?}");
    for word in words {
        assert!(done.errors.contains(word), "{word:?} is not in {done:?}");
    }
}

/// A server for other machines, the address of this one by which it counts as another, and that as the client says it.
fn outer_server() -> Option<(Server, String, String)> {
    let Some(ip) = outer_ip() else {
        eprintln!("left out: this machine has no address but those of loopback");
        return None;
    };
    let server = Server::start_with(&["--bind", "0.0.0.0"]);
    let name = format!("{ip}:{}", server.address.port());
    Some((server, ip.to_string(), name))
}

#[test]
fn the_key_that_another_machine_shows_first_is_told_kept_and_the_only_one_from_then_on() {
    let Some((mut server, host, name)) = outer_server() else { return };
    let home = Home::new();
    let port = server.address.port();
    let first = server.fingerprint();
    let done = home.connect(&host, port, &[]);
    assert_served(&done);
    assert!(done.errors.contains(&format!("The key of {name} was not known yet: it is {first}")), "{done:?}");
    assert_eq!(home.known(), format!("{name} {first}\n"));
    let again = home.connect(&host, port, &[]);
    assert_served(&again);
    assert_eq!(again.errors, "", "it is known");

    server.stop();
    fs::remove_dir_all(server.data().join("tls")).unwrap();
    server.restart();
    let said = server.errors();
    assert_eq!(said, "");
    let other = fs::read_to_string(server.directory().join("errors.txt")).unwrap();
    let other = other.lines().last().unwrap().rsplit(' ').next().unwrap();
    assert_ne!(other, first);
    let refused = home.connect(&host, port, &[]);
    assert_refused(&refused, &["HAS CHANGED", &name, &first, other, "--tls-fingerprint"]);
    assert_eq!(home.known(), format!("{name} {first}\n"), "it is not forgotten");
    // Whoever has asked the operator says so once.
    assert_served(&home.connect(&host, port, &["--tls-fingerprint", other]));
    assert_served(&home.connect(&host, port, &[]));
    assert_eq!(home.known(), format!("{name} {other}\n"));
}

#[test]
fn clear_text_goes_to_another_machine_only_if_that_is_asked_for() {
    let Some((server, host, _)) = outer_server() else { return };
    let home = Home::new();
    let done = home.connect(&host, server.address.port(), &["--insecure-cleartext"]);
    assert_eq!(done.code, 3, "the server refuses it: {done:?}");
    assert_eq!(home.known(), "");
}

#[test]
fn a_fingerprint_that_is_asked_for_is_that_of_the_key_or_of_the_certificate() {
    let server = Server::start();
    let home = Home::new();
    let port = server.address.port();
    let fingerprint = server.fingerprint();
    let colons: Vec<String> =
        fingerprint.to_uppercase().as_bytes().chunks(2).map(|pair| String::from_utf8(pair.to_vec()).unwrap()).collect();
    let pem = fs::read(server.data().join("tls/cert.pem")).unwrap();
    let der: rustls::pki_types::CertificateDer = rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, &der);
    let of_certificate: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    for right in [fingerprint.clone(), colons.join(":"), of_certificate] {
        let done = home.connect("127.0.0.1", port, &["--tls-fingerprint", &right]);
        assert_served(&done);
        assert_eq!(done.errors, "");
    }
    assert_eq!(home.known(), format!("127.0.0.1:{port} {fingerprint}\n"), "the key is kept");
    let wrong = "ab".repeat(32);
    let done = home.connect("127.0.0.1", port, &["--tls-fingerprint", &wrong]);
    assert_refused(&done, &[&wrong, &fingerprint, "--tls-fingerprint"]);
    // From now on it is asked for its key, for a name may be led to this machine: clear text is for who knows none.
    assert_served(&home.connect("127.0.0.1", port, &[]));
    fs::write(home.known_servers(), format!("127.0.0.1:{port} {wrong}\n")).unwrap();
    assert_refused(&home.connect("127.0.0.1", port, &[]), &[&wrong, &fingerprint]);
    assert_served(&Home::new().connect("127.0.0.1", port, &[]));
    for options in [["--tls-fingerprint", "abc"].as_slice(), &["--tls-fingerprint", &wrong, "--insecure-cleartext"]] {
        assert_eq!(home.connect("127.0.0.1", port, options).code, 2);
    }
}

#[test]
fn a_key_that_changes_under_a_client_that_is_connected_is_not_taken_when_it_comes_back() {
    let mut server = Server::start();
    let home = Home::new();
    let fingerprint = server.fingerprint();
    let options = ["--tls-fingerprint", &fingerprint, "--ui", "json"];
    let mut client = home.start("127.0.0.1", server.address.port(), &options);
    let mut out = client.stdout.take().unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("\"live\"") {
        let mut buffer = [0; 1_024];
        let count = out.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "it ended");
        heard.extend_from_slice(&buffer[..count]);
    }
    server.kill();
    fs::remove_dir_all(server.data().join("tls")).unwrap();
    server.restart();
    let mut errors = String::new();
    client.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(3), "{errors}");
    assert!(errors.contains(&fingerprint), "{errors}");
}

#[test]
fn what_does_not_speak_tls_is_said_to() {
    let home = Home::new();
    let fingerprint = "ab".repeat(32);
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let done = home.connect("127.0.0.1", port, &["--tls-fingerprint", &fingerprint]);
        assert_refused(&done, &["speak TLS", &format!("127.0.0.1:{port}")]);
        other.join().unwrap();
    }
    assert_eq!(home.known(), "");
}

#[test]
fn keys_that_cannot_be_read_are_no_leave_to_trust_any() {
    let Some((server, host, name)) = outer_server() else { return };
    let home = Home::new();
    fs::create_dir_all(home.known_servers().parent().unwrap()).unwrap();
    fs::write(home.known_servers(), format!("{name} no-fingerprint\n")).unwrap();
    let done = home.connect(&host, server.address.port(), &[]);
    assert_refused(&done, &["known_servers", &name]);
}
