//! The control stream of a connection: whole messages out of and into its bytes.

use bytes::BytesMut;
use noq_proto::{Connection, ReadError, StreamId, WriteError};

use super::failure::Failure;
use super::message::Message;

/// Bytes taken from the stream at once.
const READ_BYTES: usize = 64 << 10;

/// One end of the control stream.
#[derive(Debug)]
pub struct Control {
    stream: StreamId,
    input: BytesMut,
    output: BytesMut,
}

impl Control {
    /// The end of an open stream.
    pub fn new(connection: &mut Connection, stream: StreamId) -> Self {
        // What it says is short and waited for.
        let _ = connection.send_stream(stream).set_priority(1);
        Self { stream, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Says something; [`Control::flush`] is due.
    pub fn say(&mut self, message: &Message) {
        message.encode(&mut self.output);
    }

    /// Bytes that the connection has not taken yet.
    pub fn unsent_bytes(&self) -> usize {
        self.output.len()
    }

    /// Gives the connection what it takes.
    ///
    /// # Errors
    /// The peer closed the stream.
    pub fn flush(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        while !self.output.is_empty() {
            match connection.send_stream(self.stream).write(&self.output) {
                Ok(count) => drop(self.output.split_to(count)),
                Err(WriteError::Blocked) => return Ok(()),
                Err(error) => return Err(Failure::Broken(error.to_string())),
            }
        }
        Ok(())
    }

    /// The next message, if it has come.
    ///
    /// # Errors
    /// The peer closed the stream or does not keep to the protocol.
    pub fn hear(&mut self, connection: &mut Connection) -> Result<Option<Message>, Failure> {
        loop {
            match Message::take(&mut self.input) {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(error) => return Err(Failure::Broken(error.to_string())),
            }
            if !self.read(connection)? {
                return Ok(None);
            }
        }
    }

    /// Reads some bytes; false if there are none now.
    fn read(&mut self, connection: &mut Connection) -> Result<bool, Failure> {
        let ended = || Failure::Broken("the peer ended the control stream".into());
        let mut stream = connection.recv_stream(self.stream);
        let mut chunks = stream.read(true).map_err(|_| ended())?;
        let read = chunks.next(READ_BYTES);
        // The loop sends whatever is due after this.
        let _ = chunks.finalize();
        match read {
            Ok(Some(chunk)) => {
                self.input.extend_from_slice(&chunk.bytes);
                Ok(true)
            }
            Err(ReadError::Blocked) => Ok(false),
            Ok(None) | Err(ReadError::Reset(_)) => Err(ended()),
        }
    }
}
