//! The tokens with which devices log in again in place of a password: a table without file, clock and chance.
//!
//! A token is 32 random bytes. Its device is told it, and here it is kept nowhere: what is kept is the HMAC-SHA-256
//! (RFC 2104), keyed by the token, of the user, the device and the user's entry in the credentials file. So a token is
//! for one user and device and ends when the entry changes, and who reads what is kept has neither a token nor anything
//! to try passwords against.
//!
//! What changes the table is a [`Record`], made first, written to the file, and then applied.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use super::limits;
use crate::clock::Timestamp;
use crate::names::{DeviceName, UserName};

/// The bytes of a token, and of what is kept of it.
pub const TOKEN_BYTES: usize = 32;

/// Whose a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The user.
    pub user: UserName,
    /// The user's device.
    pub device: DeviceName,
}

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginToken([u8; TOKEN_BYTES]);

/// What is kept of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    mac: [u8; TOKEN_BYTES],
    /// When it ends.
    until: Timestamp,
}

/// What is kept of a device's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    current: Stored,
    /// A fresh one, told to the device that logged in with the current one. It may not have arrived: until it is used the
    /// current one stays good. A device seldom has both for long, so that there is mostly no room for it.
    offered: Option<Box<Stored>>,
}

/// A change of the table: a line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// These are the device's tokens, and those before have ended.
    Held(Holder, Held),
    /// All tokens of the user have ended.
    Ended(UserName),
}

/// What a token that was shown is.
#[derive(Debug, PartialEq, Eq)]
pub enum Shown {
    /// Unknown, ended, or of another user or device.
    Wrong,
    /// The device's own.
    Right,
    /// The fresh one of the device, used for the first time: the one before has ended, by this record.
    First(Record),
}

/// See the module's description. Users and devices are remembered by hashes, 16 bytes instead of the 98 of their names: of a
/// million users two have the same with a chance of less than 1 in 30 million, and would then only end each other's tokens,
/// for the names are in what is kept of a token.
#[derive(Debug, Default)]
pub struct Tokens {
    held: BTreeMap<(u64, u64), Held>,
    hasher: foldhash::quality::RandomState,
}

impl LoginToken {
    /// The token of these bytes, which must be random.
    pub fn from_random(bytes: [u8; TOKEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads a token as [`LoginToken::to_text`] writes it.
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).map(Self)
    }

    /// The token as clients are told it: 43 characters of base64 for addresses (RFC 4648, section 5).
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// What is kept of it. No name has a zero in it, so that no two holders and entries are the same bytes.
    fn mac(&self, holder: &Holder, entry: &str) -> [u8; TOKEN_BYTES] {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        mac.update(holder.user.as_bytes());
        mac.update(&[0]);
        mac.update(holder.device.as_bytes());
        mac.update(&[0]);
        mac.update(entry.as_bytes());
        mac.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl Stored {
    /// Whether it is kept of the token with this MAC and not over. The comparison may tell by its time where the two
    /// differ: what is kept is no secret, for nobody can find a token to it.
    fn is(&self, mac: &[u8; TOKEN_BYTES], at: Timestamp) -> bool {
        self.mac == *mac && self.until > at
    }
}

impl Held {
    fn last_until(&self) -> Timestamp {
        self.offered.as_ref().map_or(self.current.until, |offered| offered.until.max(self.current.until))
    }
}

impl Record {
    /// Appends the record as a line: user, device, and of each token until when it is good and its MAC; or the user and a
    /// star. No beginning of such a line is one that says something else.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ended(user) => {
                out.extend_from_slice(user.as_bytes());
                out.extend_from_slice(b" *");
            }
            Self::Held(Holder { user, device }, Held { current, offered }) => {
                out.extend_from_slice(user.as_bytes());
                out.push(b' ');
                out.extend_from_slice(device.as_bytes());
                for Stored { mac, until } in std::iter::once(current).chain(offered.as_deref()) {
                    out.push(b' ');
                    out.extend_from_slice(&until.to_rfc3339());
                    out.push(b' ');
                    out.extend_from_slice(URL_SAFE_NO_PAD.encode(mac).as_bytes());
                }
            }
        }
        out.push(b'\n');
    }

    /// Reads a line without its line feed. One by which a token would be good for longer than it is from now is none:
    /// no server wrote it.
    pub fn parse(line: &[u8], now: Timestamp) -> Option<Self> {
        let stored = |until: &str, mac: &str| {
            let until = Timestamp::from_log_form(until.as_bytes()).filter(|until| *until <= end(now))?;
            Some(Stored { mac: decode(mac)?, until })
        };
        let words: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
        let (user, device, current, offered) = match words[..] {
            [user, "*"] => return Some(Self::Ended(user.parse().ok()?)),
            [user, device, until, mac] => (user, device, stored(until, mac)?, None),
            [user, device, until, mac, offered_until, offered_mac] => {
                let offered = stored(offered_until, offered_mac)?;
                (user, device, stored(until, mac)?, Some(Box::new(offered)))
            }
            _ => return None,
        };
        let holder = Holder { user: user.parse().ok()?, device: device.parse().ok()? };
        Some(Self::Held(holder, Held { current, offered }))
    }

    /// Whose tokens it is about.
    pub fn user(&self) -> UserName {
        match self {
            Self::Held(holder, _) => holder.user,
            Self::Ended(user) => *user,
        }
    }
}

impl Tokens {
    /// How many devices have a token.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Looks at a token that was shown by, or for, a device. `entry` is the user's in the credentials file, or nothing for
    /// who has none: that takes as long.
    pub fn check(&self, holder: &Holder, entry: &str, token: &LoginToken, at: Timestamp) -> Shown {
        let mac = token.mac(holder, entry);
        match self.held.get(&self.key(holder)) {
            Some(held) if held.current.is(&mac, at) => Shown::Right,
            Some(Held { offered: Some(offered), .. }) if offered.is(&mac, at) => {
                Shown::First(Record::Held(*holder, Held { current: **offered, offered: None }))
            }
            _ => Shown::Wrong,
        }
    }

    /// Whether the token that a device has just logged in with has been in use for long enough to be followed by a fresh
    /// one.
    pub fn is_due(&self, holder: &Holder, at: Timestamp) -> bool {
        let fresh_until = end(at).as_ms() - limits::TOKEN_FRESH_MS;
        self.held.get(&self.key(holder)).is_none_or(|held| held.current.until.as_ms() < fresh_until)
    }

    /// The record of a new token. After a login by token the one it was done with stays good until the new one is used, for
    /// the answer may be lost; after one by password it has ended.
    pub fn issue(&self, holder: &Holder, entry: &str, token: &LoginToken, is_by_token: bool, at: Timestamp) -> Record {
        let new = Stored { mac: token.mac(holder, entry), until: end(at) };
        let before = self.held.get(&self.key(holder)).filter(|_| is_by_token);
        let held = match before {
            Some(held) => Held { current: held.current, offered: Some(Box::new(new)) },
            None => Held { current: new, offered: None },
        };
        Record::Held(*holder, held)
    }

    /// The record by which a user has no tokens any more; `None` for who has none.
    pub fn end_all(&self, user: UserName) -> Option<Record> {
        self.of_user(user).next().map(|_| Record::Ended(user))
    }

    /// Applies a record. A user has tokens for so many devices; beyond that, the one that ends first has ended.
    pub fn apply(&mut self, record: Record) {
        let user = record.user();
        match record {
            Record::Held(holder, held) => {
                self.held.insert(self.key(&holder), held);
                if self.of_user(user).count() > limits::TOKENS_PER_USER_MAX {
                    let first = self.of_user(user).min_by_key(|(_, held)| held.last_until()).map(|(key, _)| *key);
                    first.and_then(|key| self.held.remove(&key));
                }
            }
            Record::Ended(_) => {
                let keys: Vec<(u64, u64)> = self.of_user(user).map(|(key, _)| *key).collect();
                keys.iter().for_each(|key| drop(self.held.remove(key)));
            }
        }
    }

    /// Forgets what is over.
    pub fn forget_ended(&mut self, at: Timestamp) {
        self.held.retain(|_, held| held.last_until() > at);
    }

    /// Whether a record is how things stand: a file that holds only such says the same.
    pub fn stands(&self, record: &Record) -> bool {
        match record {
            Record::Held(holder, held) => self.held.get(&self.key(holder)) == Some(held),
            Record::Ended(_) => false,
        }
    }

    fn of_user(&self, user: UserName) -> impl Iterator<Item = (&(u64, u64), &Held)> {
        let user = self.hasher.hash_one(user);
        self.held.range((user, u64::MIN)..=(user, u64::MAX))
    }

    fn key(&self, holder: &Holder) -> (u64, u64) {
        (self.hasher.hash_one(holder.user), self.hasher.hash_one(holder.device))
    }
}

/// When a token ends that is made now.
fn end(now: Timestamp) -> Timestamp {
    now.plus_ms(limits::TOKEN_MS)
}

fn decode(text: &str) -> Option<[u8; TOKEN_BYTES]> {
    let mut bytes = [0; TOKEN_BYTES];
    (URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) == Ok(TOKEN_BYTES)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_795_327_800_123);
    const DAY_MS: u64 = 86_400_000;

    fn holder(user: &str, device: &str) -> Holder {
        Holder { user: user.parse().unwrap(), device: device.parse().unwrap() }
    }

    fn token(number: u8) -> LoginToken {
        LoginToken::from_random([number; TOKEN_BYTES])
    }

    /// A table in which a device was given a token after a login by password.
    fn issued(holder: &Holder, entry: &str, number: u8) -> Tokens {
        let mut tokens = Tokens::default();
        tokens.apply(tokens.issue(holder, entry, &token(number), false, NOW));
        tokens
    }

    fn line(record: &Record) -> Vec<u8> {
        let mut line = Vec::new();
        record.write(&mut line);
        assert_eq!(line.pop(), Some(b'\n'));
        line
    }

    #[test]
    fn a_token_is_for_one_user_one_device_and_one_entry() {
        let yoda = holder("yoda", "laptop");
        let tokens = issued(&yoda, "secret", 1);
        assert_eq!(tokens.check(&yoda, "secret", &token(1), NOW), Shown::Right);
        for (other, entry, number) in [
            (holder("yoda", "phone"), "secret", 1),
            (holder("han", "laptop"), "secret", 1),
            (yoda, "changed", 1),
            (yoda, "", 1),
            (yoda, "secret", 2),
        ] {
            assert_eq!(tokens.check(&other, entry, &token(number), NOW), Shown::Wrong);
        }
    }

    #[test]
    fn a_token_ends_after_thirty_days() {
        let yoda = holder("yoda", "laptop");
        let mut tokens = issued(&yoda, "secret", 1);
        let last = NOW.plus_ms(30 * DAY_MS - 1);
        assert_eq!(tokens.check(&yoda, "secret", &token(1), last), Shown::Right);
        assert_eq!(tokens.check(&yoda, "secret", &token(1), last.plus_ms(1)), Shown::Wrong);
        tokens.forget_ended(last);
        assert_eq!(tokens.len(), 1);
        tokens.forget_ended(last.plus_ms(1));
        assert!(tokens.is_empty());
    }

    #[test]
    fn a_token_after_a_password_replaces_the_one_before_at_once() {
        let yoda = holder("yoda", "laptop");
        let mut tokens = issued(&yoda, "secret", 1);
        tokens.apply(tokens.issue(&yoda, "secret", &token(2), false, NOW));
        assert_eq!(tokens.check(&yoda, "secret", &token(1), NOW), Shown::Wrong);
        assert_eq!(tokens.check(&yoda, "secret", &token(2), NOW), Shown::Right);
    }

    #[test]
    fn a_token_after_a_token_replaces_it_when_it_is_used() {
        let yoda = holder("yoda", "laptop");
        let mut tokens = issued(&yoda, "secret", 1);
        assert!(!tokens.is_due(&yoda, NOW.plus_ms(DAY_MS)));
        let later = NOW.plus_ms(DAY_MS + 1);
        assert!(tokens.is_due(&yoda, later));
        tokens.apply(tokens.issue(&yoda, "secret", &token(2), true, later));
        // Its answer was lost: the device comes with the first one again, and gets another.
        assert_eq!(tokens.check(&yoda, "secret", &token(1), later), Shown::Right);
        assert!(tokens.is_due(&yoda, later));
        tokens.apply(tokens.issue(&yoda, "secret", &token(3), true, later));
        assert_eq!(tokens.check(&yoda, "secret", &token(2), later), Shown::Wrong);
        let Shown::First(record) = tokens.check(&yoda, "secret", &token(3), later) else { panic!() };
        assert_eq!(tokens.check(&yoda, "secret", &token(1), later), Shown::Right);
        tokens.apply(record);
        assert_eq!(tokens.check(&yoda, "secret", &token(1), later), Shown::Wrong);
        assert_eq!(tokens.check(&yoda, "secret", &token(3), later), Shown::Right);
        assert!(!tokens.is_due(&yoda, later));
        // Which began when it was made.
        let last = later.plus_ms(30 * DAY_MS - 1);
        assert_eq!(tokens.check(&yoda, "secret", &token(3), last), Shown::Right);
    }

    #[test]
    fn a_user_whose_tokens_have_ended_has_none_and_nobody_else_loses_any() {
        let (yoda, han) = (holder("yoda", "laptop"), holder("han", "laptop"));
        let mut tokens = issued(&yoda, "secret", 1);
        tokens.apply(tokens.issue(&holder("yoda", "phone"), "secret", &token(2), false, NOW));
        tokens.apply(tokens.issue(&han, "secret", &token(3), false, NOW));
        assert_eq!(tokens.end_all("leia".parse().unwrap()), None);
        tokens.apply(tokens.end_all(yoda.user).unwrap());
        assert_eq!(tokens.len(), 1);
        assert_eq!(tokens.check(&han, "secret", &token(3), NOW), Shown::Right);
    }

    #[test]
    fn a_user_with_too_many_devices_loses_the_token_that_ends_first() {
        let mut tokens = issued(&holder("han", "laptop"), "secret", 0);
        let devices = (0..).map(|number: usize| holder("yoda", &number.to_string()));
        for (number, device) in (0..).zip(devices.clone().take(limits::TOKENS_PER_USER_MAX + 1)) {
            tokens.apply(tokens.issue(&device, "secret", &token(1), false, NOW.plus_ms(number)));
        }
        assert_eq!(tokens.len(), limits::TOKENS_PER_USER_MAX + 1);
        let known = |device: &Holder| tokens.check(device, "secret", &token(1), NOW) == Shown::Right;
        assert_eq!(devices.take(3).map(|device| known(&device)).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn the_text_of_a_token_is_43_characters_and_no_other_is_one() {
        let text = token(0xfb).to_text();
        assert_eq!(text, "-_v7".repeat(10) + "-_s");
        assert!(LoginToken::parse(&text) == Some(token(0xfb)));
        for wrong in ["", &text[1..], &format!("{text}A"), &format!("{text}="), &text.replace('-', "+")] {
            assert!(LoginToken::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_line_that_would_make_a_token_good_for_longer_is_none() {
        let tokens = issued(&holder("yoda", "laptop"), "secret", 1);
        let record = tokens.issue(&holder("yoda", "laptop"), "secret", &token(2), true, NOW);
        assert_eq!(Record::parse(&line(&record), NOW), Some(record.clone()));
        let earlier = Timestamp::from_ms(NOW.as_ms() - 1);
        assert_eq!(Record::parse(&line(&record), earlier), None);
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written_and_no_beginning_of_it_says_something_else(
            user in "[A-Za-z0-9._-]{1,32}", device in "[A-Za-z0-9._-]{1,64}", numbers: [u8; 2], is_by_token: bool,
        ) {
            let holder = holder(&user, &device);
            let tokens = issued(&holder, "secret", numbers[0]);
            let record = tokens.issue(&holder, "secret", &token(numbers[1]), is_by_token, NOW);
            for record in [record, Record::Ended(holder.user)] {
                let line = line(&record);
                prop_assert_eq!(Record::parse(&line, NOW), Some(record.clone()));
                for end in 0..line.len() {
                    let Some(cut) = Record::parse(&line[..end], NOW) else { continue };
                    // All that can be cut off without a trace is a token that nobody was told.
                    let Record::Held(_, Held { current, offered: Some(_) }) = &record else {
                        panic!("{cut:?}")
                    };
                    prop_assert_eq!(cut, Record::Held(holder, Held { current: *current, offered: None }));
                }
            }
        }

        #[test]
        fn no_line_makes_the_reader_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::parse(&line, NOW);
        }
    }
}
