//! Who may log in: passwords against the credentials file, and the tokens that stand in for them.

use std::path::Path;

use super::credentials::Credentials;
use super::token_file::TokenFile;
use super::tokens::{Holder, LoginToken, Record, Shown, TOKEN_BYTES, Tokens};
use crate::clock::Timestamp;
use crate::names::UserName;

/// See the module's description.
#[derive(Debug)]
pub struct Authenticator {
    credentials: Credentials,
    tokens: Tokens,
    file: TokenFile,
    /// Whether the operator has been told that no tokens can be given, and nothing has changed since.
    is_failing: bool,
}

impl Authenticator {
    /// Takes up the tokens of a data directory. What is wrong with them is said on standard error and costs logins by
    /// password, no more.
    pub fn open(data: &Path, credentials: Credentials, now: Timestamp) -> Self {
        let mut tokens = Tokens::default();
        let has_account = |user| credentials.entry(user).is_some();
        let (file, notices) = TokenFile::open(data, &mut tokens, has_account, now);
        notices.iter().for_each(|notice| eprintln!("messenger: {notice}"));
        let is_failing = !file.is_open();
        Self { credentials, tokens, file, is_failing }
    }

    /// Whether a password is the user's.
    pub fn is_password(&self, user: UserName, password: &str) -> bool {
        self.credentials.verify(user, password)
    }

    /// Whether a text is a token of the device.
    pub fn is_token(&mut self, holder: &Holder, text: &str, now: Timestamp) -> bool {
        let Some(token) = LoginToken::parse(text) else { return false };
        let entry = self.credentials.entry(holder.user).unwrap_or_default();
        match self.tokens.check(holder, entry, &token, now) {
            Shown::Wrong => false,
            Shown::Right => true,
            Shown::First(record) => {
                // Without it the older token would be good again after a restart: a login that can go on.
                self.keep(vec![record]);
                true
            }
        }
    }

    /// A token for a device that has just logged in, by `shown` if by a token: that one, while it is fresh. `None` if there
    /// is none to be had now; then those from before stay as they are.
    pub fn make_token(&mut self, holder: &Holder, shown: Option<String>, now: Timestamp) -> Option<String> {
        if shown.is_some() && !self.tokens.is_due(holder, now) {
            return shown;
        }
        let entry = self.credentials.entry(holder.user)?;
        let mut random = [0; TOKEN_BYTES];
        if let Err(error) = getrandom::fill(&mut random) {
            self.tell_failure(&format!("the system gives no random numbers: {error}"));
            return None;
        }
        let token = LoginToken::from_random(random);
        let record = self.tokens.issue(holder, entry, &token, shown.is_some(), now);
        if let Err(error) = self.file.append(std::slice::from_ref(&record)) {
            self.tell_failure(&format!("{} cannot be written: {error}", self.file.path().display()));
            return None;
        }
        self.is_failing = false;
        self.tokens.apply(record);
        Some(token.to_text())
    }

    /// Takes another file of accounts. Who is no longer in it, or has another entry, has no tokens any more, even should
    /// the old entry come back.
    pub fn set_credentials(&mut self, credentials: Credentials) {
        let old = std::mem::replace(&mut self.credentials, credentials);
        let changed = old.entries().filter(|(user, entry)| self.credentials.entry(*user) != Some(entry));
        let ended = changed.filter_map(|(user, _)| self.tokens.end_all(user)).collect();
        self.keep(ended);
    }

    /// Applies records that hold whether or not they can be written.
    fn keep(&mut self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        if let Err(error) = self.file.append(&records) {
            self.tell_failure(&format!("{} cannot be written: {error}", self.file.path().display()));
        }
        records.into_iter().for_each(|record| self.tokens.apply(record));
    }

    /// Tells the operator once, until it is well again.
    fn tell_failure(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            eprintln!("messenger: {why}; no login tokens are given meanwhile, clients log in by password");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_795_327_800_123);

    fn authenticator(data: &Path, accounts: &str) -> Authenticator {
        Authenticator::open(data, credentials(data, accounts), NOW)
    }

    fn credentials(data: &Path, accounts: &str) -> Credentials {
        std::fs::write(data.join("credentials.txt"), accounts).unwrap();
        Credentials::read(&data.join("credentials.txt")).unwrap()
    }

    fn holder(device: &str) -> Holder {
        Holder { user: "yoda".parse().unwrap(), device: device.parse().unwrap() }
    }

    #[test]
    fn where_the_file_takes_nothing_there_is_no_token_and_the_old_one_stays_good() {
        let data = tempfile::tempdir().unwrap();
        let mut doors = authenticator(data.path(), "yoda jedi\n");
        let token = doors.make_token(&holder("laptop"), None, NOW).unwrap();
        doors.file.set_failing(true);
        assert_eq!(doors.make_token(&holder("laptop"), None, NOW), None);
        assert!(doors.is_failing && doors.is_token(&holder("laptop"), &token, NOW));
        doors.file.set_failing(false);
        let other = doors.make_token(&holder("laptop"), None, NOW).unwrap();
        let mut doors = authenticator(data.path(), "yoda jedi\n");
        assert!(doors.is_token(&holder("laptop"), &other, NOW) && !doors.is_token(&holder("laptop"), &token, NOW));
    }

    #[test]
    fn who_loses_an_account_loses_the_tokens_though_the_file_takes_nothing() {
        let data = tempfile::tempdir().unwrap();
        let mut doors = authenticator(data.path(), "yoda jedi\nhan falcon\n");
        let token = doors.make_token(&holder("laptop"), None, NOW).unwrap();
        doors.file.set_failing(true);
        doors.set_credentials(credentials(data.path(), "han falcon\n"));
        assert_eq!(doors.make_token(&holder("laptop"), None, NOW), None, "nobody without an account gets one");
        doors.set_credentials(credentials(data.path(), "yoda jedi\n"));
        assert!(!doors.is_token(&holder("laptop"), &token, NOW));
    }

    #[test]
    fn a_login_by_a_fresh_token_writes_nothing_and_the_first_by_a_new_one_is_kept() {
        let data = tempfile::tempdir().unwrap();
        let lines = || std::fs::read_to_string(data.path().join("tokens")).unwrap().lines().count();
        let mut doors = authenticator(data.path(), "yoda jedi\n");
        let first = doors.make_token(&holder("laptop"), None, NOW).unwrap();
        let day = NOW.plus_ms(crate::server::limits::TOKEN_FRESH_MS);
        assert!(doors.is_token(&holder("laptop"), &first, day));
        assert_eq!(doors.make_token(&holder("laptop"), Some(first.clone()), day), Some(first.clone()));
        assert_eq!(lines(), 1);
        let second = doors.make_token(&holder("laptop"), Some(first.clone()), day.plus_ms(1)).unwrap();
        assert_eq!(lines(), 2);
        assert!((0..3).all(|_| doors.is_token(&holder("laptop"), &second, day)));
        assert_eq!(lines(), 3);
        let mut doors = Authenticator::open(data.path(), credentials(data.path(), "yoda jedi\n"), day.plus_ms(1));
        assert!(doors.is_token(&holder("laptop"), &second, day.plus_ms(1)));
        assert!(!doors.is_token(&holder("laptop"), &first, day.plus_ms(1)));
    }
}
