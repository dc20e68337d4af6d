//! MQTT 3.1.1 with the service level 0: at most once, which costs a broker least.

use anyhow::{bail, ensure};

use super::{Dialect, GROUP, Incoming, Recipient};

/// A client of an MQTT broker.
#[derive(Debug)]
pub struct Mqtt;

const CONNECT: u8 = 0x10;
const CONNECT_ANSWER: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBSCRIBE_ANSWER: u8 = 0x90;
const PING_ANSWER: u8 = 0xd0;

fn topic(recipient: Recipient) -> String {
    match recipient {
        Recipient::Client(number) => format!("u{number}"),
        Recipient::Group => GROUP.to_owned(),
    }
}

/// A string with its length before it.
fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// The first byte of a packet and the length of what follows, seven bits a byte, lowest first.
fn header(kind: u8, mut length: usize) -> Vec<u8> {
    let mut header = vec![kind];
    loop {
        let [lowest, ..] = (length & 127).to_le_bytes();
        length >>= 7;
        header.push(if length > 0 { lowest | 128 } else { lowest });
        if length == 0 {
            return header;
        }
    }
}

impl Dialect for Mqtt {
    fn login(&self, client: usize) -> Vec<u8> {
        // The protocol's name, its level, a clean session, no keep-alive.
        let mut content = [&string("MQTT")[..], &[4, 2, 0, 0]].concat();
        content.extend(string(&format!("u{client}")));
        [header(CONNECT, content.len()), content].concat()
    }

    fn subscribe(&self, _client: usize, recipient: Recipient) -> Option<Vec<u8>> {
        // The packet's number, the topic, the service level.
        let content = [&[0, 1][..], &string(&topic(recipient)), &[0]].concat();
        Some([header(SUBSCRIBE, content.len()), content].concat())
    }

    fn envelope(&self, _from: usize, to: Recipient, text_bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let topic = string(&topic(to));
        ([header(PUBLISH, topic.len() + text_bytes), topic].concat(), Vec::new())
    }

    fn next<'a>(&self, _client: usize, bytes: &'a [u8]) -> anyhow::Result<Option<(usize, Incoming<'a>)>> {
        let Some((start, content_bytes)) = read_header(bytes)? else { return Ok(None) };
        let Some(content) = bytes.get(start..start + content_bytes) else { return Ok(None) };
        let incoming = match (bytes[0], content) {
            (PUBLISH, [high, low, rest @ ..]) => {
                let topic_bytes = usize::from(u16::from_be_bytes([*high, *low]));
                Incoming::Delivery(rest.get(topic_bytes..).unwrap_or_default())
            }
            (CONNECT_ANSWER, [_, 0]) | (SUBSCRIBE_ANSWER, [_, _, 0]) => Incoming::Answer,
            (PING_ANSWER, _) => Incoming::Other,
            _ => bail!("the server refused: packet {:#x} {content:?}", bytes[0]),
        };
        Ok(Some((start + content_bytes, incoming)))
    }

    fn hears_itself(&self) -> bool {
        true
    }
}

/// Where the content begins, and its length.
fn read_header(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let mut length = 0;
    for (place, byte) in bytes.iter().skip(1).enumerate() {
        ensure!(place < 4, "a length of more than four bytes");
        length |= usize::from(byte & 127) << (7 * place);
        if byte & 128 == 0 {
            return Ok(Some((place + 2, length)));
        }
    }
    Ok(None)
}
