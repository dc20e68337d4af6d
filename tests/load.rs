//! The load generator's own rules: it takes no message for another, and none that was changed on its way.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]
#![allow(dead_code, reason = "the generator uses the rest")]

#[path = "../benches/load"]
mod load {
    pub mod dialect;
    pub mod text;
}

use load::dialect::{Dialect, Incoming, Recipient};
use load::dialect::{irc::Irc, messenger::Messenger, mqtt::Mqtt, nats::Nats, raw::Raw, redis::Redis, xmpp::Xmpp};
use load::text::{TEXT_BYTES_MIN, Texts};

const TEXT: &str = "~0000000001abcdefg";

/// Reads `bytes` as they come at once, and checks that no shorter beginning is taken for a message.
fn read(dialect: &dyn Dialect, bytes: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut start = 0;
    let bytes = bytes.as_bytes();
    while start < bytes.len() {
        let (length, incoming) = dialect.next(0, &bytes[start..]).unwrap().expect("a whole message");
        for end in start..start + length {
            assert_eq!(dialect.next(0, &bytes[start..end]).unwrap(), None, "{} bytes of {length}", end - start);
        }
        found.push(match incoming {
            Incoming::Delivery(text) => format!("text {}", String::from_utf8_lossy(text)),
            Incoming::Token(token) => format!("token {}", String::from_utf8_lossy(token)),
            Incoming::Reply(reply) => format!("reply {}", String::from_utf8_lossy(&reply).trim_end()),
            other => format!("{other:?}"),
        });
        start += length;
    }
    found
}

#[test]
fn each_dialect_finds_texts_answers_and_what_is_neither() {
    let text = format!("text {TEXT}");
    let messenger = format!(
        "{{\"type\":\"ok\",\"command\":\"login\",\"user\":\"user0\"}}\n{{\"type\":\"live\",\"seq\":41}}\n\
         {{\"seq\":42,\"ts\":\"…\",\"type\":\"message\",\"from\":\"user1\",\"to\":\"user0\",\"text\":\"{TEXT}\"}}\n\
         {{\"seq\":43,\"ts\":\"…\",\"type\":\"group_joined\",\"group\":\"load\",\"user\":\"user1\"}}\n{{\"type\":\"ping\"}}\n"
    );
    let pong = "reply {\"type\":\"pong\"}";
    assert_eq!(read(&Messenger::default(), &messenger), ["Answer", "Live(41)", &text, "Other", pong]);
    let login = "{\"type\":\"ok\",\"command\":\"login\",\"user\":\"user0\",\"token\":\"abc\"}\n";
    assert_eq!(read(&Messenger::default(), login), ["token abc"]);

    let raw = Raw { text_bytes: TEXT.len(), is_group: false };
    assert_eq!(read(&raw, &format!("+\n{TEXT}\n")), ["Answer", &text]);

    let irc = format!(
        ":irc 001 u0 :Welcome\r\n:irc 422 u0 :No MOTD\r\nPING :irc\r\n:u1!~u1@127.0.0.1 PRIVMSG u0 :{TEXT}\r\n\
         :u1!~u1@127.0.0.1 JOIN :#load\r\n:irc 366 u0 #load :End of NAMES list\r\n"
    );
    assert_eq!(read(&Irc, &irc), ["Answer", "Other", "reply PONG :irc", &text, "Other", "Answer"]);

    let length = TEXT.len();
    let redis = format!(
        "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*0\r\n>3\r\n$9\r\nsubscribe\r\n$2\r\nu0\r\n:1\r\n:1\r\n\
         >3\r\n$7\r\nmessage\r\n$2\r\nu0\r\n${length}\r\n{TEXT}\r\n"
    );
    assert_eq!(read(&Redis, &redis), ["Answer", "Answer", "Answer", &text]);

    let nats = format!(
        "INFO {{\"version\":\"2\"}}\r\nPONG\r\nPING\r\nMSG to.0 1 {length}\r\n{TEXT}\r\n\
         MSG answer.0 2 27\r\n{{\"stream\":\"LOAD\", \"seq\":41}}\r\n"
    );
    assert_eq!(read(&Nats { is_stream: true }, &nats), ["Other", "Answer", "reply PONG", &text, "Answer"]);

    let mqtt = format!("\x20\x02\0\0\x30{}\0\x02u0{TEXT}", char::from(u8::try_from(length + 4).unwrap()));
    assert_eq!(read(&Mqtt, &mqtt), ["Answer", &text]);

    let xmpp = format!(
        "<?xml version='1.0'?><stream:stream id='1' version='1.0'><stream:features><bind xmlns='bind'/></stream:features>\
         <iq id='bind' type='result'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>a</jid></bind></iq>\
         <message from='user1@localhost/load' type='chat'><body>{TEXT}</body></message><presence from='a'/>"
    );
    let found = read(&Xmpp, &xmpp);
    assert!(found[2].starts_with("reply <iq type='set' id='bind'>"), "{found:?}");
    assert_eq!(found[3..], ["Answer".to_owned(), text, "Other".to_owned()]);
}

#[test]
fn a_refusal_is_no_message() {
    let refused = |dialect: &dyn Dialect, bytes: &str| dialect.next(0, bytes.as_bytes()).unwrap_err().to_string();
    let messenger = refused(&Messenger::default(), "{\"type\":\"error\",\"code\":\"usage\",\"message\":\"…\"}\n");
    assert!(messenger.contains("the server refused: {\"type\":\"error\",\"code\":\"usage\""), "{messenger}");
    refused(&Irc, ":irc 433 * u0 :Nickname already in use\r\n");
    refused(&Irc, "ERROR :Closing connection\r\n");
    refused(&Redis, "-ERR unknown command\r\n");
    refused(&Nats { is_stream: false }, "-ERR 'Authorization Violation'\r\n");
    refused(&Nats { is_stream: true }, "MSG answer.0 2 26\r\n{\"error\":{\"code\":503}     }\r\n");
    refused(&Mqtt, "\x20\x02\0\x05");
    refused(&Xmpp, "<message type='error'><body>no</body></message>");
}

#[test]
fn an_envelope_says_how_long_its_text_is() {
    let whole = |dialect: &dyn Dialect, to| {
        let (head, tail) = dialect.envelope(0, to, TEXT.len());
        String::from_utf8([&head, TEXT.as_bytes(), &tail].concat()).unwrap()
    };
    let one = Recipient::Client(1);
    assert_eq!(
        whole(&Messenger::default(), one),
        format!("{{\"type\":\"command\",\"text\":\"/msgto user1 {TEXT}\"}}\n")
    );
    assert_eq!(whole(&Redis, one), format!("*3\r\n$7\r\nPUBLISH\r\n$2\r\nu1\r\n$18\r\n{TEXT}\r\n"));
    assert_eq!(whole(&Nats { is_stream: false }, one), format!("PUB to.1 18\r\n{TEXT}\r\n"));
    assert_eq!(whole(&Nats { is_stream: true }, Recipient::Group), format!("PUB to.load answer.0 18\r\n{TEXT}\r\n"));
    // A broker sends a message as it came.
    assert_eq!(read(&Mqtt, &whole(&Mqtt, one)), [format!("text {TEXT}")]);
}

#[test]
fn a_text_that_was_changed_or_cut_is_noticed() {
    let texts = Texts::new(30).unwrap();
    for (sender, count) in [(0, 0), (63, 64), (262_143, 1 << 35), (1, (1 << 36) - 1)] {
        let mut text = Vec::new();
        texts.push(sender, count, &mut text);
        assert_eq!(text.len(), texts.bytes());
        assert_eq!(texts.check(&text).unwrap(), (sender, count));
        for place in 0..text.len() {
            let mut changed = text.clone();
            changed[place] ^= 1;
            let seen = texts.check(&changed).ok();
            assert!(seen != Some((sender, count)), "byte {place}");
            assert!(seen.is_none() || (1..TEXT_BYTES_MIN).contains(&place), "byte {place}");
            assert!(texts.check(&text[..place]).is_err(), "{place} bytes");
        }
    }
    assert!(Texts::new(TEXT_BYTES_MIN - 1).is_err());
}
