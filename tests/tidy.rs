//! Conventions of the house that a machine can keep: who may import whom, what touches the machine, how long a file
//! is, and that the documents name files that exist.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules a module may name, beside itself; `ARCHITECTURE.md` shows it as a table.
const MAY_NAME: [(&str, &[&str]); 11] = [
    ("names", &[]),
    ("clock", &[]),
    ("chat", &["names", "clock"]),
    ("protocol", &["names", "clock", "chat"]),
    ("eventlog", &["names", "clock", "chat"]),
    ("derive", &["names", "clock", "chat", "eventlog"]),
    ("transfer", &["names", "clock", "chat", "protocol"]),
    ("replay", &["names", "clock", "chat", "protocol", "eventlog", "derive"]),
    ("server", &["names", "clock", "chat", "protocol", "eventlog", "derive"]),
    ("client", &["names", "clock", "chat", "protocol", "transfer"]),
    ("cli", &["names", "clock", "chat", "protocol", "eventlog", "derive", "transfer", "replay", "server", "client"]),
];

/// What only some files may name: everything else is pure, or goes through them.
const ONLY_IN: [(&[&str], &[&str]); 3] = [
    (
        &["mio::", "std::net::TcpStream", "std::net::TcpListener", "std::net::UdpSocket"],
        &[
            "src/server/event_loop.rs",
            "src/server/signals.rs",
            "src/server/socket.rs",
            "src/client/event_loop.rs",
            "src/client/connection.rs",
            "src/transfer.rs",
            "src/transfer/socket.rs",
        ],
    ),
    (
        &["std::fs"],
        &[
            "src/eventlog/storage.rs",
            "src/eventlog/keyfile.rs",
            "src/server/certificate.rs",
            "src/server/credentials.rs",
            "src/server/token_file.rs",
            "src/client/known_servers.rs",
            "src/client/state.rs",
            "src/transfer/directory.rs",
            "src/transfer/file.rs",
            "src/transfer/keyfile.rs",
            "src/transfer/part.rs",
            "src/derive/files.rs",
            "src/replay/html/file.rs",
        ],
    ),
    (&["Instant::now", "SystemTime", "Utc::now", "Local::now"], &["src/clock.rs"]),
];

const SOURCE_LINES_MAX: usize = 500;
const TEST_LINES_MAX: usize = 650;

fn files(directory: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::from(directory)];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.to_str().unwrap().ends_with(ending) {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.to_str().unwrap().to_owned(), text));
        }
    }
    found.sort();
    found
}

/// The code of a file without its tests, which stand at its end, and without comments.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\n").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The first part of a module's path: `server` for `src/server/hub.rs`.
fn module(path: &str) -> &str {
    path.trim_start_matches("src/").split(['/', '.']).next().unwrap()
}

/// The modules that some code names behind `crate::`.
fn named(code: &str) -> BTreeSet<&str> {
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
        .collect()
}

#[test]
fn modules_name_only_those_they_may() {
    for (path, text) in files("src", ".rs") {
        let (module, code) = (module(&path), code(&text));
        if module == "main" || module == "lib" {
            continue;
        }
        let (_, allowed) = MAY_NAME.iter().find(|(name, _)| *name == module).expect("every module is in the table");
        for name in named(&code) {
            assert!(name == module || allowed.contains(&name), "{path} names {name:?}");
        }
    }
}

#[test]
fn sockets_files_and_clocks_are_touched_where_the_plan_says() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", ".rs") {
        if path.ends_with("/tests.rs") {
            continue;
        }
        for (words, places) in ONLY_IN {
            let found = words.iter().find(|word| code(&text).contains(*word));
            if let Some(word) = found.filter(|_| !places.contains(&&*path)) {
                wrong.push(format!("{path} names {word}"));
            }
        }
    }
    assert_eq!(wrong, [] as [String; 0]);
}

#[test]
fn a_file_has_one_job_says_it_first_and_is_not_long() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", ".rs").into_iter().chain(files("tests", ".rs")).chain(files("benches", ".rs")) {
        let lines_max = if path.starts_with("src") { SOURCE_LINES_MAX } else { TEST_LINES_MAX };
        let lines = text.lines().count();
        if lines > lines_max {
            wrong.push(format!("{path} has {lines} lines"));
        }
        assert!(text.starts_with("//! ") || path == "src/main.rs", "{path} does not say what it is for");
    }
    assert_eq!(wrong, [] as [String; 0]);
}

#[test]
fn the_documents_name_files_that_exist() {
    let mut documents = files("docs", ".md");
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        documents.push((name.to_owned(), fs::read_to_string(name).unwrap()));
    }
    let roots = ["src/", "tests/", "docs/", "benches/", ".ci/"];
    for (document, text) in documents {
        let mut checked = 0;
        for word in text.split(['`', '(', ')', ' ', '\n']) {
            let word = word.trim_end_matches([',', '.', ':', ';']);
            if roots.iter().any(|root| word.starts_with(root)) {
                assert!(Path::new(word).exists(), "{document} names {word}");
                checked += 1;
            }
        }
        assert!(checked > 0 || document == "CHANGELOG.md", "{document} names no file");
    }
}

#[test]
fn the_architecture_shows_the_table_of_imports() {
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    for (module, allowed) in MAY_NAME.iter().filter(|(module, _)| *module != "cli") {
        let row = match allowed {
            [] => format!("| `{module}` | – |"),
            names => format!("| `{module}` | `{}` |", names.join("`, `")),
        };
        assert!(text.contains(&row), "ARCHITECTURE.md lacks: {row}");
    }
}
