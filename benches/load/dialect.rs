//! What the generator has to know of a protocol: how to log in, the bytes around a text, and what comes in.
//!
//! Incoming bytes are looked at where they lie, by searching for known bytes: the generator must cost less than what it
//! measures.

pub mod irc;
pub mod messenger;
pub mod mqtt;
pub mod nats;
pub mod raw;
pub mod redis;
pub mod xmpp;

/// To whom a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// The client of this number.
    Client(usize),
    /// The one group there is.
    Group,
}

/// The name of the one group.
pub const GROUP: &str = "load";

/// What an incoming message is to its client.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Somebody's message: its text.
    Delivery(&'a [u8]),
    /// The answer to one request, or to one message where the dialect answers them.
    Answer,
    /// The answer to a login, with a token for the next one.
    Token(&'a [u8]),
    /// All that was missed has come; the newest event of the log.
    Live(u64),
    /// To be sent back at once: signs of life, and the next step of a login.
    Reply(Vec<u8>),
    /// Anything else.
    Other,
    /// The server has closed the connection.
    Closed,
}

/// One protocol.
pub trait Dialect {
    /// What a client says first; all of it together is answered once.
    fn login(&self, client: usize) -> Vec<u8>;

    /// Requests with which the first client makes the group, each answered once.
    fn make_group(&self, _members: usize) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// The request to be sent what goes to a recipient, answered once; `None` where nobody has to ask.
    fn subscribe(&self, _client: usize, _recipient: Recipient) -> Option<Vec<u8>> {
        None
    }

    /// The bytes before and behind a text of `text_bytes`.
    fn envelope(&self, from: usize, to: Recipient, text_bytes: usize) -> (Vec<u8>, Vec<u8>);

    /// The first message in `bytes`, with its length; `None` if it is not all there yet.
    ///
    /// # Errors
    /// The server refused something.
    fn next<'a>(&self, client: usize, bytes: &'a [u8]) -> anyhow::Result<Option<(usize, Incoming<'a>)>>;

    /// Whether each message is answered to its sender. Otherwise one counts as done when it is delivered.
    fn answers_messages(&self) -> bool {
        false
    }

    /// Whether a member of the group is sent the own messages too.
    fn hears_itself(&self) -> bool {
        false
    }
}

/// The first line of `bytes` without its end (LF, or CR LF), and its length with it.
fn first_line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', bytes)?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

/// What a server said, for people.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 300;
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]).trim_end().to_owned()
}
