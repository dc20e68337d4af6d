//! The keys of servers that were seen first, as `ssh` keeps those of its hosts: a line `HOST:PORT FINGERPRINT` each.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::state::{make_directory, open_private, write_anew};
use crate::protocol::Fingerprint;

const FILE: &str = "known_servers";
/// More than the keys of all servers that one person knows take, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The file of known keys in the directory for the state of all messengers.
#[derive(Debug)]
pub struct KnownServers {
    directory: PathBuf,
}

impl KnownServers {
    /// That of a directory; nothing is made before the first key is kept.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Where they are kept.
    pub fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// The key known of a server.
    ///
    /// # Errors
    /// The file cannot be read, or has no fingerprint in the server's line: nothing is trusted instead.
    pub fn get(&self, server: &str) -> io::Result<Option<Fingerprint>> {
        let text = self.read()?;
        let server = &canonical(server);
        let Some(line) = text.lines().find(|line| is_of(line, server)) else { return Ok(None) };
        let written = line.split_whitespace().nth(1).unwrap_or_default();
        written.parse().map(Some).map_err(|error| io::Error::other(format!("the line of {server} is wrong: {error}")))
    }

    /// Keeps a server's key, durably. It takes the place of `before`, which was known, or of any other where the user
    /// vouches for it.
    ///
    /// # Errors
    /// The disk fails, or another key has been kept since `before` was read.
    pub fn set(
        &self,
        server: &str,
        key: Fingerprint,
        before: Option<Fingerprint>,
        is_vouched_for: bool,
    ) -> io::Result<()> {
        let server = &canonical(server);
        make_directory(&self.directory)?;
        // Held until the end: another client must not lose a line of ours, nor we one of its.
        let lock =
            open_private().create(true).truncate(false).write(true).open(self.directory.join("known_servers.lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let found = self.get(server);
        if !is_vouched_for && !matches!(&found, Ok(found) if *found == before || *found == Some(key)) {
            return Err(found.err().unwrap_or_else(|| {
                io::Error::other(format!(
                    "another client has kept another key of {server} meanwhile: somebody may be answering in its place"
                ))
            }));
        }
        let mut text: String =
            self.read()?.lines().filter(|line| !is_of(line, server)).flat_map(|line| [line, "\n"]).collect();
        text.push_str(&format!("{server} {key}\n"));
        write_anew(&self.directory, FILE, text.as_bytes()).map(drop)
    }

    fn read(&self) -> io::Result<String> {
        let mut text = String::new();
        let mut read = || match fs::metadata(self.file())? {
            // A pipe would be waited for.
            found if !found.is_file() => Err(io::Error::other("it is no file")),
            _ => File::open(self.file())?.take(FILE_BYTES_MAX).read_to_string(&mut text),
        };
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(text),
            read => read.map(|_| text),
        }
    }
}

/// A server as its line has it: names do not differ by case, or by the dot that ends them.
fn canonical(server: &str) -> String {
    let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
    format!("{}:{port}", host.to_ascii_lowercase().trim_end_matches('.'))
}

fn is_of(line: &str, server: &str) -> bool {
    line.split_whitespace().next() == Some(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_by_host_and_port_and_another_takes_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let known = KnownServers::new(&directory.path().join("new"));
        let (one, other) = (Fingerprint::of(b"one"), Fingerprint::of(b"other"));
        assert_eq!(known.get("chat:5000").unwrap(), None);
        known.set("chat:5000", one, None, false).unwrap();
        known.set("chat:50001", other, None, false).unwrap();
        for name in ["chat:5000", "Chat:5000", "chat.:5000"] {
            assert_eq!(known.get(name).unwrap(), Some(one));
        }
        // Somebody who saw none when this one was not there yet.
        assert!(known.set("CHAT:5000", other, None, false).is_err());
        known.set("chat:5000", one, None, false).unwrap();
        assert_eq!(known.get("chat:5000").unwrap(), Some(one));
        known.set("chat:5000", other, Some(one), false).unwrap();
        assert_eq!(known.get("chat:5000").unwrap(), Some(other));
        known.set("chat:5000", one, None, true).unwrap();
        known.set("chat:5000", other, None, true).unwrap();
        assert_eq!(known.get("chat:5000").unwrap(), Some(other));
        assert_eq!(known.get("chat:50001").unwrap(), Some(other));
        assert_eq!(known.get("chat:500").unwrap(), None);
    }

    #[test]
    fn a_line_that_is_wrong_is_no_leave_to_trust_another_key() {
        let directory = tempfile::tempdir().unwrap();
        let known = KnownServers::new(directory.path());
        fs::write(known.file(), "chat:5000 dead\n").unwrap();
        assert!(known.get("chat:5000").unwrap_err().to_string().contains("the line of chat:5000"));
    }

    #[test]
    fn clients_that_start_at_once_lose_no_line() {
        let directory = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let known = KnownServers::new(directory.path());
                scope.spawn(move || {
                    known.set(&format!("chat:{number}"), Fingerprint::of(&[number]), None, false).unwrap();
                });
            }
        });
        let known = KnownServers::new(directory.path());
        for number in 0..8 {
            assert_eq!(known.get(&format!("chat:{number}")).unwrap(), Some(Fingerprint::of(&[number])));
        }
    }
}
