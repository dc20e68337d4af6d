//! The bare forwarder's: a line to say who one is, then texts of a known length.

use super::{Dialect, Incoming, Recipient, first_line};

/// What a client says at first: its number, the bytes of its messages, and whether they go to everybody.
#[derive(Debug)]
pub struct Raw {
    pub text_bytes: usize,
    pub is_group: bool,
}

impl Dialect for Raw {
    fn login(&self, client: usize) -> Vec<u8> {
        let whom = if self.is_group { "all" } else { "one" };
        format!("{client} {} {whom}\n", self.text_bytes + 1).into_bytes()
    }

    fn envelope(&self, _from: usize, _to: Recipient, _text_bytes: usize) -> (Vec<u8>, Vec<u8>) {
        (Vec::new(), b"\n".to_vec())
    }

    fn next<'a>(&self, _client: usize, bytes: &'a [u8]) -> anyhow::Result<Option<(usize, Incoming<'a>)>> {
        let Some((line, length)) = first_line(bytes) else { return Ok(None) };
        Ok(Some((length, if line == b"+" { Incoming::Answer } else { Incoming::Delivery(line) })))
    }
}
