//! The file of who has an account, and the check of a password against it.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::eventlog::storage::open_file;
use crate::names::{NameSet, UserName};

/// Why a credentials file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error(
        "the credentials file {path} cannot be read: {source}; make it, with a line `username password` for each user, or name another with --credentials"
    )]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{path}, line {line}: {what}")]
    BadLine {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// Nobody could ever log in.
    #[error("the credentials file {path} names no user; it takes a line `username password` for each")]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

/// Names and passwords.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    passwords: HashMap<UserName, String>,
}

impl Credentials {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong, on which line.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let mut bytes = Vec::new();
        open_file(OpenOptions::new().read(true), path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|source| CredentialsError::Unreadable { path: path.to_owned(), source })?;
        let text = String::from_utf8(bytes).map_err(|error| CredentialsError::BadLine {
            path: path.to_owned(),
            line: error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n').count(),
            what: "the text is not UTF-8".into(),
        })?;
        Self::parse(path, &text)
    }

    /// `username password` a line: the password is the rest of the line after the spaces. Empty lines are passed over,
    /// a last line feed may be missing, and a byte order mark or CR LF from elsewhere does no harm.
    fn parse(path: &Path, text: &str) -> Result<Self, CredentialsError> {
        let bad = |line: usize, what: String| CredentialsError::BadLine { path: path.to_owned(), line, what };
        let mut passwords = HashMap::new();
        for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let (user, password) = line
                .split_once([' ', '\t'])
                .map(|(user, password)| (user, password.trim_start()))
                .filter(|(_, password)| !password.is_empty())
                .ok_or_else(|| bad(number, "a line is a user name, one space and a password".into()))?;
            let user: UserName = user.parse().map_err(|error| bad(number, format!("{user:?}: {error}")))?;
            if passwords.insert(user, password.to_owned()).is_some() {
                return Err(bad(number, format!("the user {user} is there twice")));
            }
        }
        if passwords.is_empty() {
            return Err(CredentialsError::Empty { path: path.to_owned() });
        }
        Ok(Self { passwords })
    }

    /// All names, sorted.
    pub fn accounts(&self) -> NameSet<UserName> {
        let mut names: NameSet<UserName> = self.passwords.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// What the file has for a user behind the name.
    pub fn entry(&self, user: UserName) -> Option<&str> {
        self.passwords.get(&user).map(String::as_str)
    }

    /// What it has for each user.
    pub fn entries(&self) -> impl Iterator<Item = (UserName, &str)> {
        self.passwords.iter().map(|(user, entry)| (*user, entry.as_str()))
    }

    /// Whether a password is the user's. Takes as long for a name that does not exist.
    pub fn verify(&self, user: UserName, password: &str) -> bool {
        let known = self.passwords.get(&user);
        let right = is_equal_in_constant_time(known.map_or("", String::as_str), password);
        known.is_some() && right
    }
}

/// Compares without telling, by the time it takes, where two texts differ: their hashes are compared.
fn is_equal_in_constant_time(one: &str, other: &str) -> bool {
    // The hash type's own comparison is constant in time, by its documentation.
    blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Credentials, String> {
        Credentials::parse(Path::new("credentials.txt"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_is_the_rest_of_the_line_and_the_last_line_feed_may_be_missing() {
        let known = parse("yoda jedi master\r\n\nhan falcon").unwrap();
        let user = |name: &str| name.parse::<UserName>().unwrap();
        assert!(known.verify(user("yoda"), "jedi master"));
        assert!(known.verify(user("han"), "falcon"));
        for (name, password) in [("han", "Falcon"), ("Han", "falcon"), ("leia", ""), ("han", "")] {
            assert!(!known.verify(user(name), password), "{name} {password}");
        }
        assert_eq!(known.accounts().iter().map(UserName::as_str).collect::<Vec<_>>(), ["han", "yoda"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert_eq!(
            parse("yoda a\nhan\n").unwrap_err(),
            "credentials.txt, line 2: a line is a user name, one space and a password"
        );
        assert!(parse("yoda a\nyoda b\n").unwrap_err().contains("line 2: the user yoda is there twice"));
        assert!(parse("y/da a\n").unwrap_err().contains("line 1: \"y/da\": a user name is"));
        assert!(parse("\n").unwrap_err().contains("names no user"));
    }
}
