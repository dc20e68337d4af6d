//! RESP version 3, the protocol of Redis: published messages, which nobody keeps.

use anyhow::bail;

use super::{Dialect, GROUP, Incoming, Recipient, first_line, shown};

/// A client that publishes and subscribes over one connection.
#[derive(Debug)]
pub struct Redis;

fn channel(recipient: Recipient) -> String {
    match recipient {
        Recipient::Client(number) => format!("u{number}"),
        Recipient::Group => GROUP.to_owned(),
    }
}

impl Dialect for Redis {
    fn login(&self, _client: usize) -> Vec<u8> {
        b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n".to_vec()
    }

    fn subscribe(&self, _client: usize, recipient: Recipient) -> Option<Vec<u8>> {
        let channel = channel(recipient);
        Some(format!("*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{channel}\r\n", channel.len()).into_bytes())
    }

    fn envelope(&self, _from: usize, to: Recipient, text_bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let channel = channel(to);
        let head = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${text_bytes}\r\n", channel.len());
        (head.into_bytes(), b"\r\n".to_vec())
    }

    fn next<'a>(&self, _client: usize, bytes: &'a [u8]) -> anyhow::Result<Option<(usize, Incoming<'a>)>> {
        let Some(length) = value_bytes(bytes) else { return Ok(None) };
        let value = &bytes[..length];
        let incoming = match value[0] {
            b'-' | b'!' => bail!("the server refused: {}", shown(value)),
            b'>' if value.starts_with(b">3\r\n$7\r\nmessage\r\n$") => {
                // What is left is the channel and the text, each with its length before it.
                let Some(at) = memchr::memmem::find(value, b"\n~") else {
                    bail!("a message without a text: {}", shown(value))
                };
                Incoming::Delivery(&value[at + 1..length - 2])
            }
            // The number of receivers, the answer to HELLO, and that a subscription begins.
            _ => Incoming::Answer,
        };
        Ok(Some((length, incoming)))
    }

    fn answers_messages(&self) -> bool {
        true
    }

    fn hears_itself(&self) -> bool {
        true
    }
}

/// The length of the first value, with all that is in it.
fn value_bytes(bytes: &[u8]) -> Option<usize> {
    let (line, mut length) = first_line(bytes)?;
    let number = || std::str::from_utf8(line.get(1..)?).ok()?.parse::<usize>().ok();
    let values = match line.first()? {
        b'$' | b'=' | b'!' => {
            length += number().map_or(0, |content| content + 2);
            return (bytes.len() >= length).then_some(length);
        }
        b'*' | b'>' | b'~' => number()?,
        b'%' => 2 * number()?,
        _ => 0,
    };
    for _ in 0..values {
        length += value_bytes(&bytes[length..])?;
    }
    Some(length)
}
