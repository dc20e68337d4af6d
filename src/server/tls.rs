//! TLS 1.3 on one connection, without its socket: records in, clear text out, and the reverse.
//!
//! `rustls` keeps no bytes here: records are decrypted where they were read, in a buffer that all connections share, and
//! encrypted into another. A connection owns bytes only while a record is half read or half written.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{Error, ServerConfig};

use super::limits::{TLS_RECORD_BYTES_MAX, TLS_UNREAD_BYTES_MAX};

/// The first byte of a TLS ClientHello: a handshake record (RFC 8446, section 5.1).
pub(super) const HANDSHAKE_RECORD: u8 = 0x16;

/// What a server needs for handshakes: TLS 1.3 only, and neither tickets nor anything else by which a session could be
/// taken up again, for every connection is to prove that the key is there.
///
/// # Errors
/// The key is not that of the certificate, or of a kind that is not known.
pub(super) fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Whether more may come from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// It may.
    Open,
    /// The peer has said that this was all.
    Ended,
}

/// One connection's TLS.
pub(super) struct Session {
    connection: UnbufferedServerConnection,
    /// The beginning of a record that is not all there.
    unread: Vec<u8>,
    /// Records that the socket has not taken, from `unsent_start` on.
    unsent: Vec<u8>,
    unsent_start: usize,
    has_input_ended: bool,
    has_said_goodbye: bool,
}

impl Session {
    /// # Errors
    /// The configuration is of no use.
    pub(super) fn new(config: &Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(Arc::clone(config))?,
            unread: Vec::new(),
            unsent: Vec::new(),
            unsent_start: 0,
            has_input_ended: false,
            has_said_goodbye: false,
        })
    }

    /// Whether nothing can be said to the client yet.
    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Copies what is kept of a record to the beginning of `buffer`, for the rest to be read behind it; gives its length.
    pub(super) fn put_unread(&self, buffer: &mut [u8]) -> usize {
        buffer[..self.unread.len()].copy_from_slice(&self.unread);
        self.unread.len()
    }

    /// Takes records, which began with what [`Session::put_unread`] gave, and gives their clear text on. There may be
    /// something to be sent afterwards, also behind an error: an alert.
    ///
    /// # Errors
    /// The peer does not keep to TLS 1.3, or somebody has changed what it said.
    pub(super) fn receive(&mut self, records: &mut [u8], mut take: impl FnMut(&[u8])) -> Result<Input, Error> {
        let mut start = 0;
        let received = loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(records.get_mut(start..).unwrap_or_default());
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        take(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.unsent, |room| data.encode(room).map_err(|error| bytes_wanted(&error)))?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.has_input_ended = true,
                Ok(_) => {
                    start += discard;
                    break Ok(());
                }
                Err(error) => {
                    start += discard;
                    break Err(error);
                }
            }
            start += discard;
        };
        if let Err(error) = received {
            self.put_alert(records.get_mut(start..).unwrap_or_default());
            return Err(error);
        }
        if self.has_input_ended {
            // Whatever comes behind the end means nothing (RFC 8446, section 6.1).
            self.unread = Vec::new();
            return Ok(Input::Ended);
        }
        let rest = records.get(start..).unwrap_or_default();
        if rest.len() > TLS_UNREAD_BYTES_MAX {
            return Err(Error::General("a message of the handshake is longer than is taken".into()));
        }
        if rest.is_empty() {
            self.unread = Vec::new();
        } else {
            self.unread.clear();
            self.unread.extend_from_slice(rest);
        }
        Ok(Input::Open)
    }

    /// Encrypts the beginning of an output, at most one record of it, into the sealer's buffer; gives how many bytes of
    /// the output that were.
    ///
    /// # Errors
    /// The connection is no longer good for it.
    pub(super) fn seal<'a>(
        &mut self,
        output: impl Iterator<Item = &'a [u8]>,
        sealer: &mut Sealer,
    ) -> Result<usize, Error> {
        let Sealer { gathered, sealed } = sealer;
        let text = first_bytes(output, gathered);
        sealed.clear();
        self.write_traffic(sealed, text)?;
        Ok(text.len())
    }

    /// Says that nothing more will come, once.
    ///
    /// # Errors
    /// The connection is no longer good for it.
    pub(super) fn say_goodbye(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.has_said_goodbye, true) {
            return Ok(());
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        let said = self.write_traffic(&mut unsent, &[]);
        self.unsent = unsent;
        said
    }

    /// Records that are to be sent before any others.
    pub(super) fn unsent(&self) -> &[u8] {
        self.unsent.get(self.unsent_start..).unwrap_or_default()
    }

    /// The socket took so many bytes of them.
    pub(super) fn handle_sent(&mut self, count: usize) {
        self.unsent_start += count;
        if self.unsent().is_empty() {
            self.unsent = Vec::new();
            self.unsent_start = 0;
        }
    }

    /// Keeps what the socket did not take of a sealed record.
    pub(super) fn keep_unsent(&mut self, rest: &[u8]) {
        self.unsent.extend_from_slice(rest);
    }

    /// Appends the records of some clear text; of none, those that say goodbye.
    fn write_traffic(&mut self, out: &mut Vec<u8>, text: &[u8]) -> Result<(), Error> {
        // The records kept are those that were looked at already: nothing new can be in them.
        match self.connection.process_tls_records(&mut self.unread).state? {
            ConnectionState::WriteTraffic(mut traffic) if text.is_empty() => {
                append(out, |room| traffic.queue_close_notify(room).map_err(|error| bytes_missing(&error)))
            }
            ConnectionState::WriteTraffic(mut traffic) => {
                append(out, |room| traffic.encrypt(text, room).map_err(|error| bytes_missing(&error)))
            }
            _ => Err(Error::General("nothing can be said on this connection now".into())),
        }
    }

    /// Takes what `rustls` has to say of an error: one alert. It gets the records behind those that are done with, for it
    /// may know of places in them, and says the alert before it looks at them again.
    fn put_alert(&mut self, rest: &mut [u8]) {
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = self.connection.process_tls_records(rest).state {
            // Without an alert the connection ends all the same.
            let _ = append(&mut self.unsent, |room| data.encode(room).map_err(|error| bytes_wanted(&error)));
        }
    }
}

/// Buffers in which records are made, for all connections.
#[derive(Default)]
pub(super) struct Sealer {
    gathered: Vec<u8>,
    sealed: Vec<u8>,
}

impl Sealer {
    /// The record that was made last.
    pub(super) fn sealed(&self) -> &[u8] {
        &self.sealed
    }
}

/// The first bytes of an output, as many as fit into a record: where they lie, if that is one place.
fn first_bytes<'a, 'b: 'a>(mut output: impl Iterator<Item = &'b [u8]>, gathered: &'a mut Vec<u8>) -> &'a [u8] {
    let first = output.next().unwrap_or_default();
    let second = output.next();
    if second.is_none() || first.len() >= TLS_RECORD_BYTES_MAX {
        return &first[..first.len().min(TLS_RECORD_BYTES_MAX)];
    }
    gathered.clear();
    for slice in std::iter::once(first).chain(second).chain(output) {
        let room = TLS_RECORD_BYTES_MAX - gathered.len();
        if room == 0 {
            break;
        }
        gathered.extend_from_slice(&slice[..slice.len().min(room)]);
    }
    gathered
}

/// Lets `write` append to `out`: it gives how many bytes it wrote into the room it got, or wants so many first.
fn append(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Result<usize, Error>>,
) -> Result<(), Error> {
    let start = out.len();
    let mut wanted = 0;
    loop {
        out.resize(start + wanted, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Ok(more)) if more > wanted => wanted = more,
            Err(why) => {
                out.truncate(start);
                return Err(why.err().unwrap_or_else(|| Error::General("a record does not fit".into())));
            }
        }
    }
}

fn bytes_wanted(error: &EncodeError) -> Result<usize, Error> {
    match error {
        EncodeError::InsufficientSize(size) => Ok(size.required_size),
        EncodeError::AlreadyEncoded => Err(Error::General(error.to_string())),
    }
}

fn bytes_missing(error: &EncryptError) -> Result<usize, Error> {
    match error {
        EncryptError::InsufficientSize(size) => Ok(size.required_size),
        EncryptError::EncryptExhausted => Err(Error::EncryptError),
    }
}

#[cfg(test)]
mod tests;
