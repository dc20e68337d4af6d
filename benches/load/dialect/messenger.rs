//! The JSON frames of `docs/protocol.md`.

use anyhow::{Context as _, bail};

use super::{Dialect, GROUP, Incoming, Recipient, first_line, shown};

/// Everybody's password.
pub const PASSWORD: &str = "secret";

/// The name of a user by number.
pub fn user(number: usize) -> String {
    format!("user{number}")
}

/// Clients that may ask for more than to be logged in.
#[derive(Debug, Default)]
pub struct Messenger {
    /// So many clients, the first, want to be told of logins and logouts.
    pub watchers: usize,
    /// The last event that each client has seen, where it is known.
    pub after: Vec<Option<u64>>,
    /// Whether clients name a device and ask for tokens.
    pub want_tokens: bool,
    /// The token that each client logs in by, where it is known.
    pub tokens: Vec<Option<String>>,
}

/// The device of each client that names one.
const DEVICE: &str = "load";

impl Dialect for Messenger {
    fn login(&self, client: usize) -> Vec<u8> {
        let after =
            self.after.get(client).copied().flatten().map_or_else(String::new, |seq| format!(",\"after\":{seq}"));
        let watch = if client < self.watchers { ",\"watch\":true" } else { "" };
        let name = user(client);
        let proof = match self.tokens.get(client) {
            Some(Some(token)) => format!("\"token\":\"{token}\""),
            _ => format!("\"password\":\"{PASSWORD}\""),
        };
        let wish = match self.want_tokens {
            true => format!(",\"device\":\"{DEVICE}\",\"want_token\":true"),
            false => String::new(),
        };
        format!("{{\"type\":\"login\",\"username\":\"{name}\",{proof}{after}{watch}{wish}}}\n").into_bytes()
    }

    fn make_group(&self, members: usize) -> Vec<Vec<u8>> {
        // A line of a client has at most 64 KiB.
        const NAMES_A_LINE: usize = 2_000;
        let others: Vec<String> = (1..members).map(user).collect();
        let words = std::iter::once("/creategroup").chain(std::iter::repeat("/invite"));
        let commands = words.zip(others.chunks(NAMES_A_LINE));
        commands.map(|(word, some)| command(&format!("{word} {GROUP} {}", some.join(" ")))).collect()
    }

    fn subscribe(&self, client: usize, recipient: Recipient) -> Option<Vec<u8>> {
        // Who makes the group is in it.
        (recipient == Recipient::Group && client > 0).then(|| command(&format!("/joingroup {GROUP}")))
    }

    fn envelope(&self, _from: usize, to: Recipient, _text_bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let words = match to {
            Recipient::Client(number) => format!("/msgto {}", user(number)),
            Recipient::Group => format!("/groupmsg {GROUP}"),
        };
        (format!("{{\"type\":\"command\",\"text\":\"{words} ").into_bytes(), b"\"}\n".to_vec())
    }

    fn next<'a>(&self, _client: usize, bytes: &'a [u8]) -> anyhow::Result<Option<(usize, Incoming<'a>)>> {
        let Some((line, length)) = first_line(bytes) else { return Ok(None) };
        let incoming = if line.starts_with(b"{\"seq\":") {
            event(line)?
        } else if line.starts_with(b"{\"type\":\"ok\"") {
            token(line).map_or(Incoming::Answer, Incoming::Token)
        } else if let Some(seq) = line.strip_prefix(b"{\"type\":\"live\",\"seq\":") {
            let seq = std::str::from_utf8(seq)?.trim_end_matches('}');
            Incoming::Live(seq.parse().with_context(|| format!("no number of an event: {}", shown(line)))?)
        } else if line.starts_with(b"{\"type\":\"ping\"") {
            Incoming::Reply(b"{\"type\":\"pong\"}\n".to_vec())
        } else if line.starts_with(b"{\"type\":\"error\",\"code\":\"shutting_down\"") {
            Incoming::Other
        } else {
            bail!("the server refused: {}", shown(line));
        };
        Ok(Some((length, incoming)))
    }

    fn answers_messages(&self) -> bool {
        true
    }
}

fn command(text: &str) -> Vec<u8> {
    format!("{{\"type\":\"command\",\"text\":\"{text}\"}}\n").into_bytes()
}

/// The token in the answer to a login; texts of others stand in no answer that is asked for here.
fn token(line: &[u8]) -> Option<&[u8]> {
    let start = b",\"token\":\"";
    let rest = line.strip_prefix(b"{\"type\":\"ok\",\"command\":\"login\"")?;
    let value = &rest[memchr::memmem::find(rest, start)? + start.len()..];
    Some(&value[..memchr::memchr(b'"', value)?])
}

fn event(line: &[u8]) -> anyhow::Result<Incoming<'_>> {
    let start = b"\"text\":\"";
    let Some(at) = memchr::memmem::find(line, start) else { return Ok(Incoming::Other) };
    let text = &line[at + start.len()..];
    let end = memchr::memchr(b'"', text).with_context(|| format!("a text without an end: {}", shown(line)))?;
    Ok(Incoming::Delivery(&text[..end]))
}
