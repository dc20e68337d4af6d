//! The socket of a client: what the system said of it, and bytes moved through it, in clear text or in TLS.
//!
//! The first byte decides which. The hub sees clear text only.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::ServerConfig;

use super::connection::ConnectionKey;
use super::tls::{HANDSHAKE_RECORD, Input, Sealer, Session};

/// Slices given to the system in one call: of a message to a group, many lines are one slice.
const SLICES_PER_WRITE: usize = 64;

/// What a socket gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// The beginning of a handshake: whatever follows is encrypted.
    Hello,
    /// Bytes, if any; the clear text in them was given on.
    Bytes,
    /// The client will send nothing more.
    End,
}

/// One socket.
pub(super) struct Socket {
    stream: TcpStream,
    pub(super) key: ConnectionKey,
    /// The system may have bytes for us: it tells only once.
    pub(super) is_readable: bool,
    /// The client has ended its side: reading goes on to the end, however little comes at once.
    pub(super) is_read_closed: bool,
    pub(super) is_writable: bool,
    pub(super) is_queued: bool,
    is_shut: bool,
    /// The first byte was read.
    has_begun: bool,
    /// Only where that began a handshake: clear text takes no memory for it.
    tls: Option<Box<Session>>,
}

impl Socket {
    /// A socket that was just accepted.
    pub(super) fn new(stream: TcpStream, key: ConnectionKey) -> Self {
        Self {
            stream,
            key,
            is_readable: false,
            is_read_closed: false,
            is_writable: true,
            is_queued: false,
            is_shut: false,
            has_begun: false,
            tls: None,
        }
    }

    /// Reads once, into a buffer that is shared, and gives clear text on; `config` is for a handshake that begins.
    ///
    /// # Errors
    /// The connection is broken, or its TLS: nothing more can be said on it.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        config: &Arc<ServerConfig>,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<Received> {
        let kept = self.tls.as_ref().map_or(0, |session| session.put_unread(buffer));
        let filled = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => {
                self.is_readable = false;
                return if self.is_handshaking() {
                    Err(io::ErrorKind::UnexpectedEof.into())
                } else {
                    Ok(Received::End)
                };
            }
            Ok(count) => kept + count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                return Ok(Received::Bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Received::Bytes),
            Err(error) => return Err(error),
        };
        // A read that does not fill the buffer has emptied the socket, unless its end is behind it.
        self.is_readable = filled == buffer.len() || self.is_read_closed;
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let is_hello = is_first && buffer.first() == Some(&HANDSHAKE_RECORD);
        if is_hello {
            self.tls = Some(Box::new(Session::new(config).map_err(io::Error::other)?));
        }
        match &mut self.tls {
            None => take(&buffer[..filled]),
            // Drained, so that the last records arrive in spite of it.
            Some(_) if self.is_shut => {}
            Some(session) => match session.receive(&mut buffer[..filled], take) {
                Ok(Input::Open) => {}
                Ok(Input::Ended) => return Ok(Received::End),
                Err(error) => {
                    // The alert says why; whether it arrives matters to nobody here.
                    let _ = self.send_unsent();
                    return Err(io::Error::other(error));
                }
            },
        }
        Ok(if is_hello { Received::Hello } else { Received::Bytes })
    }

    /// Whether a handshake has begun and not ended.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.is_handshaking())
    }

    /// Whether what comes next may be a part of a handshake.
    pub(super) fn may_shake_hands(&self) -> bool {
        !self.has_begun || self.is_handshaking()
    }

    /// Whether our side has ended.
    pub(super) fn is_shut(&self) -> bool {
        self.is_shut
    }

    /// Whether there are bytes that were taken from an output, or belong to a handshake, and that the system has not
    /// taken.
    pub(super) fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| !session.unsent().is_empty())
    }

    /// Writes what is unsent, or as much as the system takes of an output; gives how many bytes of the output are done
    /// with, and nothing where it can take none now.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn write<'a>(
        &mut self,
        output: impl Iterator<Item = &'a [u8]>,
        sealer: &mut Sealer,
    ) -> io::Result<Option<usize>> {
        if self.has_unsent() {
            return Ok(self.send_unsent()?.then_some(0));
        }
        let Some(session) = &mut self.tls else {
            let (taken, offered) = write_slices(&mut self.stream, output)?;
            self.is_writable = taken == Some(offered);
            return Ok(taken);
        };
        if session.is_handshaking() {
            return Ok(None);
        }
        let count = session.seal(output, sealer).map_err(io::Error::other)?;
        let sealed = sealer.sealed();
        let sent = taken(|| self.stream.write(sealed))?.unwrap_or(0);
        self.is_writable = sent == sealed.len();
        session.keep_unsent(&sealed[sent..]);
        Ok(Some(count))
    }

    /// Ends our side, once all is written. From here the client's bytes are drained, so that the last line arrives in
    /// spite of them.
    ///
    /// # Errors
    /// The connection is broken, or is no connection yet: nothing more can be said on it.
    pub(super) fn end_output(&mut self) -> io::Result<()> {
        if self.is_shut {
            return Ok(());
        }
        if let Some(session) = &mut self.tls {
            session.say_goodbye().map_err(io::Error::other)?;
            while self.is_writable && self.has_unsent() {
                self.send_unsent()?;
            }
            if self.has_unsent() {
                return Ok(());
            }
        }
        self.is_shut = true;
        self.stream.shutdown(Shutdown::Write)
    }

    /// Writes what is unsent as far as the system takes it; gives whether it took anything.
    fn send_unsent(&mut self) -> io::Result<bool> {
        let Some(session) = &mut self.tls else { return Ok(false) };
        let unsent = session.unsent();
        let sent = taken(|| self.stream.write(unsent))?.unwrap_or(0);
        self.is_writable = sent == unsent.len();
        session.handle_sent(sent);
        Ok(sent > 0)
    }
}

/// How many bytes a call took, or nothing where the system takes none now.
fn taken(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes slices, as far as the stream takes them and as many as one call is given; gives how many bytes it took, and of how
/// many.
fn write_slices<'a>(
    stream: &mut TcpStream,
    slices: impl Iterator<Item = &'a [u8]>,
) -> io::Result<(Option<usize>, usize)> {
    let mut call = [IoSlice::new(&[]); SLICES_PER_WRITE];
    let (mut count, mut bytes) = (0, 0);
    for (place, slice) in call.iter_mut().zip(slices) {
        *place = IoSlice::new(slice);
        count += 1;
        bytes += slice.len();
    }
    let call = &call[..count];
    let taken = taken(|| if let [only] = call { stream.write(only) } else { stream.write_vectored(call) })?;
    Ok((taken, bytes))
}
