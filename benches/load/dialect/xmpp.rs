//! XMPP (RFC 6120, 6121; XEP-0045 for the group) in clear text, with the password in the clear.

use anyhow::bail;
use base64::Engine as _;
use memchr::memmem;

use super::messenger::{PASSWORD, user};
use super::{Dialect, GROUP, Incoming, Recipient, shown};

/// A client of an XMPP server for `localhost`.
#[derive(Debug)]
pub struct Xmpp;

/// The part of every client's address behind the slash.
const RESOURCE: &str = "load";

const STREAM: &str = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

fn address(recipient: Recipient) -> String {
    match recipient {
        Recipient::Client(number) => format!("{}@localhost/{RESOURCE}", user(number)),
        Recipient::Group => format!("{GROUP}@conference.localhost"),
    }
}

impl Dialect for Xmpp {
    fn login(&self, _client: usize) -> Vec<u8> {
        STREAM.as_bytes().to_vec()
    }

    fn subscribe(&self, client: usize, recipient: Recipient) -> Option<Vec<u8>> {
        let (room, nick) = (address(Recipient::Group), user(client));
        let presence = format!(
            "<presence to='{room}/{nick}'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>"
        );
        (recipient == Recipient::Group).then(|| presence.into_bytes())
    }

    fn envelope(&self, _from: usize, to: Recipient, _text_bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let kind = if to == Recipient::Group { "groupchat" } else { "chat" };
        let head = format!("<message to='{}' type='{kind}'><body>", address(to));
        (head.into_bytes(), b"</body></message>".to_vec())
    }

    fn next<'a>(&self, client: usize, bytes: &'a [u8]) -> anyhow::Result<Option<(usize, Incoming<'a>)>> {
        let Some(length) = stanza_bytes(bytes) else { return Ok(None) };
        let stanza = &bytes[..length];
        let has = |part: &str| memmem::find(stanza, part.as_bytes()).is_some();
        if has("type='error'") || has("type=\"error\"") || has("<failure") || has("<stream:error") {
            bail!("the server refused: {}", shown(stanza));
        }
        let incoming = if stanza.starts_with(b"<message") {
            memmem::find(stanza, b"<body>~").map_or(Incoming::Other, |at| {
                let text = &stanza[at + b"<body>".len()..];
                Incoming::Delivery(&text[..memchr::memchr(b'<', text).unwrap_or(text.len())])
            })
        } else if stanza.starts_with(b"<stream:features") && has("mechanisms") {
            Incoming::Reply(authentication(client))
        } else if stanza.starts_with(b"<success") {
            Incoming::Reply(STREAM.as_bytes().to_vec())
        } else if stanza.starts_with(b"<stream:features") {
            let bind = "urn:ietf:params:xml:ns:xmpp-bind";
            let request = format!(
                "<iq type='set' id='bind'><bind xmlns='{bind}'><resource>{RESOURCE}</resource></bind></iq><presence/>"
            );
            Incoming::Reply(request.into_bytes())
        } else if (stanza.starts_with(b"<iq") && has("xmpp-bind")) || (has("<status") && has("110")) {
            // The login's last step; the own presence in the group, sent last.
            Incoming::Answer
        } else {
            Incoming::Other
        };
        Ok(Some((length, incoming)))
    }

    fn hears_itself(&self) -> bool {
        true
    }
}

/// SASL PLAIN (RFC 4616).
fn authentication(client: usize) -> Vec<u8> {
    let secret = base64::engine::general_purpose::STANDARD.encode(format!("\0{}\0{PASSWORD}", user(client)));
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>").into_bytes()
}

/// The length of the first element of a stream, which does not hold another of its own name; or of the stream's opening.
fn stanza_bytes(bytes: &[u8]) -> Option<usize> {
    let start_end = memchr::memchr(b'>', bytes)? + 1;
    let start = &bytes[..start_end];
    let is_alone = start.ends_with(b"/>") || start.starts_with(b"<?xml") || start.starts_with(b"</");
    if is_alone || start.starts_with(b"<stream:stream") {
        return Some(start_end);
    }
    let name = start[1..].split(|byte| matches!(byte, b' ' | b'>')).next().unwrap_or_default();
    let end = [b"</", name, b">"].concat();
    Some(start_end + memmem::find(&bytes[start_end..], &end)? + end.len())
}
