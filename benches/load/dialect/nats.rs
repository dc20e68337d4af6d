//! NATS: subjects, kept by nobody; or with JetStream, kept in a stream from which each receiver is sent.

use anyhow::{Context as _, bail};

use super::{Dialect, GROUP, Incoming, Recipient, first_line, shown};

/// A client of a NATS server.
#[derive(Debug)]
pub struct Nats {
    /// Messages go through the stream, and are answered once they are on disk.
    pub is_stream: bool,
}

/// The stream that keeps what goes to anybody.
const STREAM: &str = "LOAD";

fn subject(recipient: Recipient) -> String {
    match recipient {
        Recipient::Client(number) => format!("to.{number}"),
        Recipient::Group => format!("to.{GROUP}"),
    }
}

/// The request that makes the stream, with the subject of its answer.
pub fn make_stream() -> Vec<u8> {
    let stream = format!(
        "{{\"name\":\"{STREAM}\",\"subjects\":[\"to.>\"],\"storage\":\"file\",\"retention\":\"limits\",\
         \"num_replicas\":1,\"max_age\":0,\"duplicate_window\":0}}"
    );
    let length = stream.len();
    format!("{CONNECT}SUB made 1\r\nPUB $JS.API.STREAM.CREATE.{STREAM} made {length}\r\n{stream}\r\n").into_bytes()
}

const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false,\"echo\":false}\r\n";

impl Dialect for Nats {
    fn login(&self, client: usize) -> Vec<u8> {
        let answers = if self.is_stream { format!("SUB answer.{client} 2\r\n") } else { String::new() };
        format!("{CONNECT}{answers}PING\r\n").into_bytes()
    }

    fn subscribe(&self, client: usize, recipient: Recipient) -> Option<Vec<u8>> {
        let subject = subject(recipient);
        if !self.is_stream {
            return Some(format!("SUB {subject} 1\r\nPING\r\n").into_bytes());
        }
        let consumer = format!(
            "{{\"stream_name\":\"{STREAM}\",\"config\":{{\"deliver_subject\":\"push.{client}\",\"deliver_policy\":\"new\",\
             \"ack_policy\":\"none\",\"mem_storage\":true,\"num_replicas\":1,\"filter_subject\":\"{subject}\"}}}}"
        );
        let length = consumer.len();
        let create = format!("PUB $JS.API.CONSUMER.CREATE.{STREAM} answer.{client} {length}\r\n{consumer}\r\n");
        Some(format!("SUB push.{client} 1\r\n{create}").into_bytes())
    }

    fn envelope(&self, from: usize, to: Recipient, text_bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let answer = if self.is_stream { format!("answer.{from} ") } else { String::new() };
        (format!("PUB {} {answer}{text_bytes}\r\n", subject(to)).into_bytes(), b"\r\n".to_vec())
    }

    fn next<'a>(&self, _client: usize, bytes: &'a [u8]) -> anyhow::Result<Option<(usize, Incoming<'a>)>> {
        let Some((line, start)) = first_line(bytes) else { return Ok(None) };
        if !line.starts_with(b"MSG ") {
            let incoming = match line {
                b"PONG" => Incoming::Answer,
                b"PING" => Incoming::Reply(b"PONG\r\n".to_vec()),
                _ if line.starts_with(b"-ERR") => bail!("the server refused: {}", shown(line)),
                _ => Incoming::Other,
            };
            return Ok(Some((start, incoming)));
        }
        let size = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        let size: usize = std::str::from_utf8(size)?.parse().with_context(|| format!("no size: {}", shown(line)))?;
        let length = start + size + 2;
        if bytes.len() < length {
            return Ok(None);
        }
        let content = &bytes[start..start + size];
        if !line.starts_with(b"MSG answer.") {
            return Ok(Some((length, Incoming::Delivery(content))));
        }
        if memchr::memmem::find(content, b"\"error\"").is_some() {
            bail!("the server refused: {}", shown(content));
        }
        Ok(Some((length, Incoming::Answer)))
    }

    fn answers_messages(&self) -> bool {
        self.is_stream
    }

    fn hears_itself(&self) -> bool {
        // The stream's deliveries are not the publisher's own.
        self.is_stream
    }
}
