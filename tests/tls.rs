//! TLS on the server's one port, over real sockets: who gets it, and that all holds there that holds in clear text.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;
#[path = "support/tls.rs"]
mod tls;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use server::{PASSWORD, Server, run};
use tls::{TlsClient, handshake, outer_ip, socket};

fn certificate(server: &Server) -> PathBuf {
    server.data().join("tls/cert.pem")
}

fn connect(server: &Server) -> TlsClient {
    TlsClient::connect(server.address, &certificate(server))
}

fn login_frame(user: &str) -> String {
    json!({"type": "login", "username": user, "password": PASSWORD}).to_string()
}

fn login(server: &Server, user: &str) -> TlsClient {
    let mut client = connect(server);
    client.send(&login_frame(user));
    client.frame_of("live");
    client
}

fn message(text: &str) -> String {
    json!({"type": "command", "text": text}).to_string()
}

#[test]
fn both_dialects_are_spoken_over_tls_and_clear_text_on_the_same_port() {
    let server = Server::start();
    let mut yoda = login(&server, "yoda");
    let mut han = connect(&server);
    han.send(&format!("/login han {PASSWORD}"));
    assert_eq!(han.line(), "Welcome to Messenger!");
    let mut leia = server.login("leia");
    for (to, text) in [("han", "to the plain one"), ("leia", "to the clear one")] {
        yoda.send(&message(&format!("/msgto {to} {text}")));
        assert_eq!(yoda.frame_of("ok")["to"], to);
    }
    assert!(han.line().ends_with(", yoda: to the plain one"));
    assert_eq!(leia.frame_of("message")["text"], "to the clear one");
    leia.command("/msgto yoda back");
    assert_eq!(yoda.frame_of("message")["text"], "back");
    han.send("/logout");
    assert_eq!(han.line(), "Bye, han!");
    assert_eq!(han.line(), "", "the connection ends with a goodbye");
    // What would begin TLS is nothing but text within it.
    let mut luke = connect(&server);
    luke.send_bytes(b"\x16\n");
    assert_eq!(luke.line(), "Please login");
}

#[test]
fn a_handshake_and_lines_may_come_byte_by_byte() {
    let server = Server::start();
    let mut stream = socket(server.address);
    let mut tls = handshake(&certificate(&server));
    while tls.is_handshaking() {
        let mut records = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut records).unwrap();
        }
        for byte in records {
            stream.write_all(&[byte]).unwrap();
        }
        if tls.is_handshaking() {
            tls.read_tls(&mut stream).unwrap();
            tls.process_new_packets().unwrap();
        }
    }
    tls.writer().write_all(format!("/login han {PASSWORD}\n").as_bytes()).unwrap();
    let mut records = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut records).unwrap();
    }
    for byte in records {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(TlsClient::new(stream, tls).line(), "Welcome to Messenger!");
}

#[test]
fn what_is_no_handshake_or_was_changed_on_the_way_ends_that_connection_alone() {
    let server = Server::start();
    let mut yoda = login(&server, "yoda");
    for garbage in [b"\x16garbage that is no record".as_slice(), b"\x16\x03\x01\x00\x05hello", b"\x16\xFF\xFF\xFF\xFF"]
    {
        let mut stream = socket(server.address);
        stream.write_all(garbage).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty() || answer[0] == 0x15, "an alert, or nothing: {answer:?}");
    }
    let mut han = login(&server, "han");
    han.raw().write_all(b"\x17\x03\x03\x00\x20................................").unwrap();
    let (rest, has_said_goodbye) = han.rest();
    assert!(rest.is_empty() && !has_said_goodbye);
    yoda.send(&message("/activeuser"));
    assert_eq!(yoda.frame_of("ok")["users"], json!([]), "han is gone, yoda is not");
}

#[test]
fn a_client_of_tls_1_2_is_told_that_its_version_is_not_spoken() {
    let server = Server::start();
    // A ClientHello (RFC 5246, section 7.4.1.2) that offers ECDHE with AES-128-GCM, P-256 and ECDSA with SHA-256.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
    let mut hello = vec![3, 3];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0xC0, 0x2B, 1, 0, 0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend_from_slice(&extensions);
    let length = u8::try_from(hello.len()).unwrap();
    let mut stream = socket(server.address);
    stream.write_all(&[&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length], hello.as_slice()].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70], "a fatal alert: protocol_version");
}

#[test]
fn a_client_that_reads_nothing_for_a_while_gets_all_in_order() {
    const MESSAGES: usize = 1_500;
    let server = Server::start_with(&["--rate", "0"]);
    let mut han = login(&server, "han");
    let mut yoda = login(&server, "yoda");
    let text = "x".repeat(10_000);
    for number in 0..MESSAGES {
        yoda.send(&message(&format!("/msgto han {number} {text}")));
        yoda.frame_of("ok");
    }
    for number in 0..MESSAGES {
        let told = han.frame_of("message")["text"].as_str().unwrap().to_owned();
        assert_eq!(told.split_once(' '), Some((number.to_string().as_str(), text.as_str())));
    }
    // And it is live again.
    yoda.send(&message("/msgto han one more"));
    assert_eq!(han.frame_of("message")["text"], "one more");
}

#[test]
fn all_that_was_said_before_the_end_of_the_input_is_answered() {
    const COMMANDS: usize = 3_000;
    let server = Server::start_with(&["--rate", "0"]);
    let ends: [fn(&mut TlsClient); 3] =
        [|client| client.end_input(true), |client| client.end_input(false), TlsClient::cut_input];
    for end in ends {
        let mut han = login(&server, "han");
        let lines: String = (0..COMMANDS).map(|id| json!({"type": "ping", "id": id}).to_string() + "\n").collect();
        han.send_bytes(lines.as_bytes());
        end(&mut han);
        let (rest, has_said_goodbye) = han.rest();
        assert_eq!(rest.iter().filter(|byte| **byte == b'\n').count(), COMMANDS);
        assert!(has_said_goodbye);
    }
    let mut yoda = server.login("yoda");
    assert_eq!(yoda.command("/activeuser")["users"], json!([]), "the sessions are over");
}

#[test]
fn clear_text_of_another_machine_is_refused_and_tls_is_served() {
    let Some(ip) = outer_ip() else {
        return eprintln!("left out: this machine has no address but those of loopback");
    };
    let server = Server::start_with(&["--bind", "0.0.0.0"]);
    let address = SocketAddr::new(ip, server.address.port());
    let mut clear = socket(address);
    clear.write_all(b"{\"type\":\"ping\"}\n").unwrap();
    let mut answer = String::new();
    clear.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("cleartext_refused"), "{answer}");
    let mut han = TlsClient::connect(address, &certificate(&server));
    han.send(&login_frame("han"));
    han.frame_of("live");
    drop(server);
    let server = Server::start_with(&["--bind", "0.0.0.0", "--allow-cleartext"]);
    let mut clear = socket(SocketAddr::new(ip, server.address.port()));
    clear.write_all(b"{\"type\":\"ping\"}\n").unwrap();
    clear.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    clear.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"ok\""), "{answer}");
}

#[test]
fn a_stop_is_told_over_tls_while_handshakes_are_under_way() {
    let mut server = Server::start();
    let mut han = login(&server, "han");
    // One that has not begun, one in the middle of its hello, and one that never ends the handshake.
    let _silent = socket(server.address);
    let mut begun = socket(server.address);
    begun.write_all(b"\x16\x03\x01").unwrap();
    let mut answered = socket(server.address);
    let mut tls = handshake(&certificate(&server));
    tls.write_tls(&mut answered).unwrap();
    answered.read_exact(&mut [0; 100]).unwrap();
    assert!(server.stop().success());
    assert_eq!(han.frame_of("error")["code"], "shutting_down");
    assert_eq!(han.line(), "");
}

#[test]
fn the_fingerprint_is_that_which_openssl_prints() {
    let server = Server::start();
    let certificate = certificate(&server);
    let command = "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r";
    let Ok(told) = Command::new("sh").args(["-c", command, certificate.to_str().unwrap()]).output() else { return };
    if !told.status.success() {
        return eprintln!("left out: openssl is not there");
    }
    let told = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.split(' ').next(), Some(server.fingerprint().as_str()));
}

/// A certificate and its key, as files of a name.
fn make_certificate(directory: &Path, name: &str) -> [String; 2] {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["messenger".to_owned()]).unwrap().self_signed(&key).unwrap();
    let paths = [directory.join(format!("{name}.pem")), directory.join(format!("{name}.key"))];
    fs::write(&paths[0], certificate.pem()).unwrap();
    fs::write(&paths[1], key.serialize_pem()).unwrap();
    paths.map(|path| path.to_str().unwrap().to_owned())
}

#[test]
fn a_certificate_is_read_again_on_sighup_and_the_old_one_stays_where_the_new_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let [certificate, key] = make_certificate(directory.path(), "chat");
    let [new_certificate, new_key] = make_certificate(directory.path(), "new");
    let server = Server::start_with(&["--tls-cert", &certificate, "--tls-key", &key]);
    let says = |words: &str| {
        for turn in 0.. {
            if server.errors().contains(words) {
                return;
            }
            assert!(turn < 10_000_000, "it does not say {words:?}: {}", server.errors());
            std::thread::yield_now();
        }
    };
    assert!(!server.data().join("tls").exists(), "none is made where one is given");
    let old = directory.path().join("old.pem");
    fs::copy(&certificate, &old).unwrap();
    let mut before = TlsClient::connect(server.address, &old);
    before.send(&login_frame("han"));
    before.frame_of("live");

    fs::copy(&new_certificate, &certificate).unwrap();
    server.signal(Signal::HUP);
    says("is not that of the certificate");
    says("; the old certificate stays in force");
    TlsClient::connect(server.address, &old).send("/users");

    fs::copy(&new_key, &key).unwrap();
    server.signal(Signal::HUP);
    says("the certificate was read again; the TLS key's fingerprint is ");
    let mut after = TlsClient::connect(server.address, Path::new(&new_certificate));
    after.send(&login_frame("yoda"));
    after.frame_of("live");
    after.send(&message("/msgto han still there?"));
    assert_eq!(before.frame_of("message")["text"], "still there?");
}

#[test]
fn handshakes_that_come_at_once_are_all_gone_on_with_and_clear_text_beside_them() {
    let server = Server::start();
    let certificate = certificate(&server);
    // More than one turn's, and none before all are there: the system takes them for a server that is stopped.
    server.signal(Signal::STOP);
    let stopped: Vec<TcpStream> = (0..60).map(|_| socket(server.address)).collect();
    let clients: Vec<_> = stopped
        .into_iter()
        .map(|stream| {
            let mut tls = handshake(&certificate);
            let mut hello = stream.try_clone().unwrap();
            while tls.wants_write() {
                tls.write_tls(&mut hello).unwrap();
            }
            (stream, tls)
        })
        .collect();
    let plain = socket(server.address);
    writeln!(&plain, "/login han {PASSWORD}").unwrap();
    server.signal(Signal::CONT);
    for (number, (stream, tls)) in clients.into_iter().enumerate() {
        let mut client = TlsClient::new(stream, tls);
        client.send(&login_frame(["leia", "luke", "yoda"][number % 3]));
        assert!(!client.line().is_empty(), "client {number} is answered");
    }
    let mut line = String::new();
    BufReader::new(plain).read_line(&mut line).unwrap();
    assert_eq!(line, "Welcome to Messenger!\n");
}

#[test]
fn a_certificate_of_the_server_s_own_that_is_gone_is_not_made_anew_on_sighup() {
    let server = Server::start();
    let kept = server.directory().join("kept.pem");
    fs::copy(certificate(&server), &kept).unwrap();
    fs::remove_dir_all(server.data().join("tls")).unwrap();
    server.signal(Signal::HUP);
    while !server.errors().contains("; the old certificate stays in force") {
        std::thread::yield_now();
    }
    assert!(server.errors().contains("cert.pem"), "{}", server.errors());
    assert!(!server.data().join("tls").exists());
    TlsClient::connect(server.address, &kept).send("/users");
}

#[test]
fn files_that_are_no_pair_of_certificate_and_key_are_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let [certificate, key] = make_certificate(directory.path(), "chat");
    let [_, other] = make_certificate(directory.path(), "other");
    let accounts = directory.path().join("credentials.txt");
    fs::write(&accounts, "yoda jedi\n").unwrap();
    let data = directory.path().join("data");
    let (accounts, data) = (accounts.to_str().unwrap(), data.to_str().unwrap());
    for (certificate, key, named) in [
        (certificate.as_str(), other.as_str(), &other),
        (&key, &key, &key),
        (&certificate, &certificate, &certificate),
        (&certificate, "missing.pem", &"missing.pem".to_owned()),
    ] {
        let done = run(&[
            "serve",
            "0",
            "--credentials",
            accounts,
            "--data",
            data,
            "--tls-cert",
            certificate,
            "--tls-key",
            key,
        ]);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(78), "{said}");
        assert!(said.contains(named), "{said}");
        assert!(!Path::new(data).exists(), "nothing was made");
    }
    let done = run(&["serve", "0", "--credentials", accounts, "--data", data, "--tls-cert", &certificate]);
    assert_eq!(done.status.code(), Some(2), "one without the other");
}

#[test]
fn the_own_certificate_is_kept_over_starts_and_a_broken_one_is_refused() {
    let mut server = Server::start();
    let first = server.fingerprint();
    server.stop();
    server.restart();
    assert_eq!(server.fingerprint(), first);
    assert_eq!(server.login("han").command("/groups")["groups"], json!([]));
    server.stop();
    fs::write(certificate(&server), "nothing").unwrap();
    let refused = server.try_restart().unwrap_err();
    assert!(refused.contains("data/tls/cert.pem holds no certificate in PEM form: there is none in it"), "{refused}");
}
