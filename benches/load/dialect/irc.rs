//! IRC (RFC 2812): nicknames and one channel.

use anyhow::bail;

use super::{Dialect, GROUP, Incoming, Recipient, first_line, shown};

/// A client of an IRC server.
#[derive(Debug)]
pub struct Irc;

/// Servers allow nicknames of nine characters at least.
fn nick(number: usize) -> String {
    format!("u{number}")
}

impl Dialect for Irc {
    fn login(&self, client: usize) -> Vec<u8> {
        let nick = nick(client);
        format!("NICK {nick}\r\nUSER {nick} 0 * :{nick}\r\n").into_bytes()
    }

    fn subscribe(&self, _client: usize, recipient: Recipient) -> Option<Vec<u8>> {
        (recipient == Recipient::Group).then(|| format!("JOIN #{GROUP}\r\n").into_bytes())
    }

    fn envelope(&self, _from: usize, to: Recipient, _text_bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let whom = match to {
            Recipient::Client(number) => nick(number),
            Recipient::Group => format!("#{GROUP}"),
        };
        (format!("PRIVMSG {whom} :").into_bytes(), b"\r\n".to_vec())
    }

    fn next<'a>(&self, _client: usize, bytes: &'a [u8]) -> anyhow::Result<Option<(usize, Incoming<'a>)>> {
        let Some((line, length)) = first_line(bytes) else { return Ok(None) };
        // The text's mark behind the colon that begins the last parameter.
        if let Some(at) = memchr::memmem::find(line, b" :~") {
            return Ok(Some((length, Incoming::Delivery(&line[at + 2..]))));
        }
        if let Some(word) = line.strip_prefix(b"PING ") {
            let reply = [b"PONG ", word, b"\r\n"].concat();
            return Ok(Some((length, Incoming::Reply(reply))));
        }
        if line.starts_with(b"ERROR") {
            bail!("the server refused: {}", shown(line));
        }
        let incoming = match line.split(|byte| *byte == b' ').nth(1).unwrap_or_default() {
            // Welcome; the end of a channel's names.
            b"001" | b"366" => Incoming::Answer,
            // There is no message of the day.
            b"422" => Incoming::Other,
            [b'4' | b'5', _, _] => bail!("the server refused: {}", shown(line)),
            _ => Incoming::Other,
        };
        Ok(Some((length, incoming)))
    }
}
