//! The texts that are sent and checked: who sent it and the how-manieth it is, in ten bytes, and a known filling.

use anyhow::{Context as _, ensure};

/// The shortest text: a mark, three digits for the sender and six for the message, to the base of 64.
pub const TEXT_BYTES_MIN: usize = 10;

/// Nothing that JSON, XML or a line protocol would escape.
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
const NO_DIGIT: u8 = 255;
const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 64_u8 {
        values[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    values
}

/// The first byte of every text; dialects find texts by it.
pub const MARK: u8 = b'~';

/// Makes and checks texts of one length.
#[derive(Debug)]
pub struct Texts {
    filling: Vec<u8>,
}

impl Texts {
    /// # Errors
    /// So short a text has no room for who sent it.
    pub fn new(bytes: usize) -> anyhow::Result<Self> {
        ensure!(bytes >= TEXT_BYTES_MIN, "a text has at least {TEXT_BYTES_MIN} bytes: --bytes {bytes} is too few");
        // Letters in turn, so that a piece that was lost or doubled shows.
        Ok(Self { filling: (b'a'..=b'z').cycle().take(bytes - TEXT_BYTES_MIN).collect() })
    }

    pub fn bytes(&self) -> usize {
        TEXT_BYTES_MIN + self.filling.len()
    }

    /// Appends the text of a sender's message.
    pub fn push(&self, sender: usize, count: u64, out: &mut Vec<u8>) {
        let digit = |value: u64| DIGITS[(value & 63) as usize];
        let sender = sender as u64;
        let mut stamp = [MARK; TEXT_BYTES_MIN];
        for (place, byte) in stamp[1..4].iter_mut().enumerate() {
            *byte = digit(sender >> (6 * place));
        }
        for (place, byte) in stamp[4..].iter_mut().enumerate() {
            *byte = digit(count >> (6 * place));
        }
        out.extend_from_slice(&stamp);
        out.extend_from_slice(&self.filling);
    }

    /// The sender and the number of a text that has arrived.
    ///
    /// # Errors
    /// It is not one that was sent.
    pub fn check(&self, text: &[u8]) -> anyhow::Result<(usize, u64)> {
        let stamp = text.first_chunk::<TEXT_BYTES_MIN>().filter(|stamp| stamp[0] == MARK);
        let stamp = stamp.filter(|_| text[TEXT_BYTES_MIN..] == self.filling);
        let changed = || format!("a text was changed on its way: {}", String::from_utf8_lossy(text));
        let stamp = stamp.with_context(changed)?;
        let read = |digits: &[u8]| {
            digits.iter().rev().try_fold(0, |sum, digit| match VALUES[usize::from(*digit)] {
                NO_DIGIT => None,
                value => Some(sum << 6 | u64::from(value)),
            })
        };
        let sender = read(&stamp[1..4]).with_context(changed)?;
        let count = read(&stamp[4..]).with_context(changed)?;
        Ok((usize::try_from(sender)?, count))
    }
}
