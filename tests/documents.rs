//! The documents say what the program does: options, commands, codes and examples are read out of them and tried.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/server.rs"]
mod server;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use messenger::chat::command::USAGES;
use server::{Server, run};

fn document(name: &str) -> String {
    fs::read_to_string(name).unwrap()
}

fn text_of(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

/// The code blocks of a document that are written in a language.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    document.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The words of a text that look like a long option.
fn options(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| word.len() > 3 && word.starts_with("--") && !word.starts_with("---"))
        .map(|word| word.trim_end_matches('-'))
        .collect()
}

#[test]
fn the_two_commands_of_the_readme_are_all_that_is_needed() {
    let readme = document("README.md");
    let commands = blocks(&readme, "sh");
    assert_eq!(commands[..2], ["cargo run --release -- serve\n", "cargo test\n"]);
    assert!(document(".ci/run").contains("cargo test"), "what has to pass runs the tests by the same command");
}

#[test]
fn every_option_that_a_document_names_is_there() {
    let mut known: BTreeSet<String> =
        ["--release", "--lib", "--test", "--bench", "--check", "--tool", "--all-targets"].map(str::to_owned).into();
    for subcommand in ["serve", "connect", "replay", "erase"] {
        let help = text_of(&run(&[subcommand, "--help"]).stdout);
        known.extend(options(&help).into_iter().map(str::to_owned));
    }
    for name in ["README.md", "docs/protocol.md", "docs/eventlog.md", "ARCHITECTURE.md"] {
        for option in options(&document(name)) {
            assert!(known.contains(option), "{name} names {option}");
        }
    }
}

#[test]
fn every_option_has_its_help() {
    for subcommand in ["serve", "connect", "replay", "erase"] {
        let help = text_of(&run(&[subcommand, "--help"]).stdout);
        let lines: Vec<&str> = help.lines().collect();
        for (place, line) in lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("--")) {
            let is_short = line.trim_start().split("  ").nth(1).is_some();
            let next = lines.get(place + 1).unwrap_or(&"");
            assert!(is_short || !next.trim().is_empty(), "{subcommand}: {line} says nothing");
        }
        assert!(help.contains("Examples:"), "{subcommand} shows no example");
    }
}

#[test]
fn the_protocol_lists_every_command_error_and_event() {
    let protocol = document("docs/protocol.md");
    for usage in &USAGES {
        let shown = usage.usage.replace("USER|#GROUP", "WHERE");
        assert!(protocol.contains(&format!("`{shown}`")), "{shown}");
    }
    let codes =
        include_str!("../src/chat/refusal.rs").split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let kinds = include_str!("../src/chat/event.rs").split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap());
    for word in codes.chain(kinds).filter(|word| *word != "duplicate") {
        assert!(protocol.contains(&format!("`{word}`")), "{word}");
    }
}

/// A server's log with a few messages in it, the server stopped.
fn small_log() -> Server {
    let mut server = Server::start();
    let mut han = server.login("han");
    for text in ["one", "two \u{e9} \"quoted\"", "three\nlines\n"] {
        han.command(&format!("/msgto leia {text}"));
    }
    assert!(server.stop().success());
    server
}

fn run_verifier(server: &Server) -> std::process::Output {
    let eventlog = document("docs/eventlog.md");
    let [program, _] = blocks(&eventlog, "python")[..] else { panic!("two verifiers are shown") };
    Command::new("python3").args(["-c", program]).current_dir(server.directory()).output().unwrap()
}

#[test]
fn the_verifier_in_the_document_agrees_with_the_program() {
    let server = small_log();
    let theirs = run_verifier(&server);
    let ours = run(&["replay", &server.data_argument(), "--verify"]);
    assert!(theirs.status.success(), "{}", text_of(&theirs.stderr));
    assert_eq!(text_of(&theirs.stdout), text_of(&ours.stdout));
}

#[test]
fn the_verifier_in_the_document_notices_a_change() {
    let server = small_log();
    let file = server.data().join("events/00000000000000000001.jsonl");
    let log = fs::read_to_string(&file).unwrap();
    fs::write(&file, log.replacen("one", "own", 1)).unwrap();
    assert!(!run_verifier(&server).status.success());
    assert_eq!(run(&["replay", &server.data_argument(), "--verify"]).status.code(), Some(7));
}

#[test]
fn the_verifier_in_the_document_takes_what_was_erased_by_order_only() {
    let server = small_log();
    let erase = ["erase", "--seq", "3", "--by", "admin", "--reason", "asked for", &server.data_argument()];
    assert!(run(&erase).status.success());
    let theirs = run_verifier(&server);
    let ours = run(&["replay", &server.data_argument(), "--verify"]);
    assert!(theirs.status.success(), "{}", text_of(&theirs.stderr));
    assert_eq!(text_of(&theirs.stdout), text_of(&ours.stdout));
    let first = server.data().join("events/00000000000000000001.jsonl");
    assert!(fs::read_to_string(&first).unwrap().contains("\"type\":\"erased\""));
    for path in fs::read_dir(server.data().join("events")).unwrap().map(|entry| entry.unwrap().path()) {
        if path != first {
            fs::remove_file(path).unwrap();
        }
    }
    let theirs = run_verifier(&server);
    assert!(!theirs.status.success() && text_of(&theirs.stderr).contains("erased by nobody: {3}"), "{theirs:?}");
    assert_eq!(run(&["replay", &server.data_argument(), "--verify"]).status.code(), Some(7));
}

fn run_proof_verifier(directory: &std::path::Path, head: &str) -> std::process::Output {
    let eventlog = document("docs/eventlog.md");
    let [_, program] = blocks(&eventlog, "python")[..] else { panic!("two verifiers are shown") };
    Command::new("python3").args(["-c", program, head]).current_dir(directory).output().unwrap()
}

#[test]
fn the_verifier_of_proofs_in_the_document_agrees_with_the_program() {
    let server = small_log();
    let verified = text_of(&run(&["replay", &server.data_argument(), "--verify"]).stdout);
    let [root, last, ..] = verified.split_whitespace().rev().collect::<Vec<_>>()[..] else { panic!("{verified}") };
    let newest = format!("{last}:{root}");
    let heads: Vec<String> = server
        .data_file("events/00000000000000000001.jsonl")
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok().filter(|line| line["type"] == "commit"))
        .map(|commit| format!("{}:{}", commit["seq"], commit["root"].as_str().unwrap()))
        .collect();
    let file = server.directory().join("proof.json");
    let check = |head: &str| {
        let theirs = run_proof_verifier(server.directory(), head);
        let ours = run(&["replay", "--check-proof", file.to_str().unwrap(), "--expect", head]);
        assert_eq!(theirs.status.success(), ours.status.success(), "{head}: {theirs:?} {ours:?}");
        assert_eq!(text_of(&theirs.stdout), text_of(&ours.stdout));
        theirs.status.success()
    };
    for event in [1, 3, last.parse::<u64>().unwrap()] {
        for since in heads.iter().step_by(2) {
            let done = run(&["replay", &server.data_argument(), "--prove", &event.to_string(), "--expect", since]);
            fs::write(&file, &done.stdout).unwrap();
            let is_behind = event <= since.split_once(':').unwrap().0.parse().unwrap();
            assert!(check(&newest));
            assert_eq!(check(since), is_behind, "event {event}, head {since}");
        }
    }
    let root = "00".repeat(32);
    let longer = format!("\"inclusion\": [\"{root}\",");
    for change in [("one", "own"), ("\"seq\": 3", "\"seq\": 4"), ("\"inclusion\": [", &longer)] {
        let text = text_of(&run(&["replay", &server.data_argument(), "--prove", "3", "--expect", &newest]).stdout);
        assert!(text.contains(change.0), "{text}");
        fs::write(&file, text.replacen(change.0, change.1, 1)).unwrap();
        assert!(!check(&newest), "{change:?}");
    }
}
