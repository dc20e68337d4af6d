//! The receiver's half of a transfer, on a connection that stands: which block is taken, and when the file is whole.
//!
//! A block is read into a buffer of its own, checked against its value by the worker, and only then written. Without a
//! free buffer no stream is read, and the connection's window makes the sender wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use noq_proto::{Connection, Dir, PathId, ReadError, StreamEvent, StreamId, VarInt};

use super::blocks::{self, Bitmap, Value};
use super::control::Control;
use super::failure::Failure;
use super::limits::{COMPARES_MAX, RECEIVE_BUFFERS_MAX, TRIES_PER_BLOCK_MAX};
use super::message::{self, BLOCK_HEADER_BYTES, Message, Offer};
use super::part::Part;
use super::pool::{Buffer, Pool};
use super::window::Window;
use super::worker::{Outcome, Task, Ticket, Worker};

/// A file that is being received.
#[derive(Debug)]
pub struct Receiving {
    ticket: Ticket,
    part: Arc<Part>,
    /// What the sender must offer.
    expected: Offer,
    pool: Pool,
    window: Window,
    control: Option<Control>,
    /// Blocks that are written and right.
    have: Bitmap,
    /// Blocks that are arriving or being written.
    taken: Bitmap,
    /// Bytes at the worker.
    storing_bytes: u64,
    streams: Vec<BlockStream>,
    /// The next block of a part from before that is to be checked; `None` once all were.
    unchecked: Option<u32>,
    is_checking: bool,
    is_offered: bool,
    has_told: bool,
    comparing: usize,
    wrong_count: u64,
    root: Option<Value>,
    is_finishing: bool,
    finished: Option<PathBuf>,
}

/// A stream that brings a block.
#[derive(Debug)]
struct BlockStream {
    id: StreamId,
    header: [u8; BLOCK_HEADER_BYTES],
    header_length: usize,
    buffer: Option<Buffer>,
    is_readable: bool,
}

/// What came of reading a stream.
enum Progress {
    /// No more bytes now.
    Waits,
    /// No buffer is free.
    NeedsBuffer,
    /// The block is whole.
    Ended,
}

impl Receiving {
    /// A file that will be received into its part, through a window that begins with so many bytes.
    pub fn new(ticket: Ticket, part: Part, window_bytes: u32) -> Self {
        let key = part.key();
        let count = blocks::count(key.size);
        Self {
            ticket,
            expected: Offer { transfer: key.transfer, name: key.name.clone(), size: key.size },
            pool: Pool::new(RECEIVE_BUFFERS_MAX),
            window: Window::new(window_bytes),
            control: None,
            have: Bitmap::new(count),
            taken: Bitmap::new(count),
            storing_bytes: 0,
            streams: Vec::new(),
            unchecked: (!part.is_new()).then_some(0),
            is_checking: false,
            is_offered: false,
            has_told: false,
            comparing: 0,
            wrong_count: 0,
            root: None,
            is_finishing: false,
            finished: None,
            part: Arc::new(part),
        }
    }

    /// Where the bytes go.
    pub fn part(&self) -> &Arc<Part> {
        &self.part
    }

    /// Length of the file.
    pub fn size_bytes(&self) -> u64 {
        self.expected.size
    }

    /// Bytes that have arrived.
    pub fn done_bytes(&self) -> u64 {
        let buffers = self.streams.iter().filter_map(|stream| stream.buffer.as_ref());
        let arriving: usize = buffers.map(|buffer| buffer.as_ref().len()).sum();
        self.have.set_bytes(self.expected.size) + self.storing_bytes + arriving as u64
    }

    /// The file's name and hash, once it is whole and the sender has been told.
    pub fn finished(&self) -> Option<(&PathBuf, Value)> {
        let is_told = self.control.as_ref().is_none_or(|control| control.unsent_bytes() == 0);
        self.finished.as_ref().zip(self.root).filter(|_| is_told)
    }

    /// Takes it that the connection is gone; true if the file is whole and only its name is missing, so that no
    /// connection is needed any more.
    pub fn handle_lost(&mut self) -> bool {
        self.control = None;
        self.is_finishing
    }

    /// Goes on with checking a part from before; this needs no connection.
    pub fn check_part(&mut self, worker: &Worker) {
        let (false, Some(first)) = (self.is_checking, self.unchecked) else { return };
        if let Some(buffer) = self.pool.take() {
            self.is_checking = true;
            worker.submit(self.ticket, Task::CheckPart(Arc::clone(&self.part), first, buffer));
        }
    }

    /// Takes what happened to a stream.
    pub fn handle_stream(&mut self, event: &StreamEvent) {
        if let StreamEvent::Readable { id } = event
            && let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == *id)
        {
            stream.is_readable = true;
        }
    }

    /// Takes what the worker did.
    ///
    /// # Errors
    /// A block was wrong too often.
    pub fn handle_outcome(&mut self, outcome: Outcome) -> Result<(), Failure> {
        match outcome {
            Outcome::PartChecked(right, next) => {
                self.is_checking = false;
                for index in right {
                    self.have.insert(index);
                }
                self.unchecked = (next < self.have.count()).then_some(next);
            }
            Outcome::Stored(index) => {
                self.let_go(index);
                self.have.insert(index);
            }
            Outcome::Wrong(index) => {
                self.let_go(index);
                self.ask_again(index)?;
            }
            Outcome::Compared(index, is_same) => {
                self.comparing -= 1;
                if !is_same {
                    self.have.remove(index);
                    self.ask_again(index)?;
                }
            }
            Outcome::Finished(path) => {
                self.finished = Some(path);
                if let (Some(control), Some(root)) = (&mut self.control, self.root) {
                    control.say(&Message::Verified(root));
                }
            }
            Outcome::Read(..) | Outcome::SourceUnchanged => {}
        }
        Ok(())
    }

    /// Does all that can be done now.
    ///
    /// # Errors
    /// The transfer has failed.
    pub fn drive(&mut self, connection: &mut Connection, worker: &Worker, now: Instant) -> Result<(), Failure> {
        self.check_part(worker);
        if self.control.is_none() {
            let Some(stream) = connection.streams().accept(Dir::Bi) else { return Ok(()) };
            self.control = Some(Control::new(connection, stream));
        }
        self.hear(connection, worker)?;
        if self.is_offered && self.unchecked.is_none() && !self.has_told {
            self.has_told = true;
            let have = Message::Have(self.have.as_bytes().to_vec());
            self.control.iter_mut().for_each(|control| control.say(&have));
        }
        if self.has_told {
            let read_bytes = self.read_blocks(connection, worker)?;
            if let Some(round_trip) = connection.rtt(PathId::ZERO)
                && let Some(bytes) = self.window.note_read(read_bytes, round_trip, now)
            {
                connection.set_receive_window(VarInt::from_u32(bytes));
            }
        }
        if let Some(root) = self.root
            && self.have.is_full()
            && self.comparing == 0
            && !self.is_finishing
        {
            self.is_finishing = true;
            worker.submit(self.ticket, Task::Finish(Arc::clone(&self.part), root));
        }
        self.control.as_mut().map_or(Ok(()), |control| control.flush(connection))
    }

    fn hear(&mut self, connection: &mut Connection, worker: &Worker) -> Result<(), Failure> {
        while self.comparing < COMPARES_MAX {
            let Some(control) = &mut self.control else { return Ok(()) };
            let Some(message) = control.hear(connection)? else { return Ok(()) };
            match message {
                Message::Offer(offer) if !self.is_offered => {
                    if offer != self.expected {
                        return Err(Failure::BadOffer("the peer sends another file than the one that was accepted"));
                    }
                    self.is_offered = true;
                }
                Message::Value { index, value } if self.has_told && self.have.has(index) => {
                    self.comparing += 1;
                    worker.submit(self.ticket, Task::Compare(Arc::clone(&self.part), index, value));
                }
                Message::Root(root) if self.has_told && self.root.is_none() => self.root = Some(root),
                _ => return Err(Failure::Broken("the peer said what was not due".into())),
            }
        }
        Ok(())
    }

    /// Reads the streams of blocks; gives the number of bytes.
    fn read_blocks(&mut self, connection: &mut Connection, worker: &Worker) -> Result<u64, Failure> {
        while let Some(id) = connection.streams().accept(Dir::Uni) {
            let header = [0; BLOCK_HEADER_BYTES];
            self.streams.push(BlockStream { id, header, header_length: 0, buffer: None, is_readable: true });
        }
        let mut read_bytes = 0;
        for mut stream in std::mem::take(&mut self.streams) {
            let progress = if stream.is_readable {
                self.read_block(connection, &mut stream, &mut read_bytes)?
            } else {
                Progress::Waits
            };
            match progress {
                Progress::Waits => stream.is_readable = false,
                Progress::NeedsBuffer => {}
                Progress::Ended => {
                    self.store(&mut stream, worker)?;
                    continue;
                }
            }
            self.streams.push(stream);
        }
        Ok(read_bytes)
    }

    fn read_block(
        &mut self,
        connection: &mut Connection,
        stream: &mut BlockStream,
        read_bytes: &mut u64,
    ) -> Result<Progress, Failure> {
        const TOO_LONG: Failure = Failure::BadOffer("a block is longer than it may be");
        let mut recv_stream = connection.recv_stream(stream.id);
        let mut chunks = recv_stream.read(true).map_err(|error| Failure::Broken(error.to_string()))?;
        loop {
            let header_left = BLOCK_HEADER_BYTES - stream.header_length;
            let wanted = if header_left > 0 {
                header_left
            } else {
                if stream.buffer.is_none() {
                    let Some(buffer) = self.pool.take() else { return Ok(Progress::NeedsBuffer) };
                    self.take(stream.index())?;
                    stream.buffer = Some(buffer);
                }
                blocks::BLOCK_BYTES
            };
            let chunk = match chunks.next(wanted) {
                Ok(Some(chunk)) => chunk.bytes,
                Ok(None) => return Ok(Progress::Ended),
                Err(ReadError::Blocked) => return Ok(Progress::Waits),
                Err(ReadError::Reset(_)) => return Err(Failure::Broken("the peer broke off a block".into())),
            };
            *read_bytes += chunk.len() as u64;
            let length = blocks::length(self.expected.size, stream.index());
            let Some(buffer) = &mut stream.buffer else {
                let end = stream.header_length + chunk.len();
                stream.header.get_mut(stream.header_length..end).ok_or(TOO_LONG)?.copy_from_slice(&chunk);
                stream.header_length = end;
                continue;
            };
            if buffer.as_ref().len() + chunk.len() > length {
                return Err(TOO_LONG);
            }
            buffer.bytes_mut().extend_from_slice(&chunk);
        }
    }

    /// Notes that a block arrives: it must be one that is missing, and once.
    fn take(&mut self, index: u32) -> Result<(), Failure> {
        if self.have.has(index) || !self.taken.insert(index) {
            return Err(Failure::BadOffer("the peer sends a block that was not asked for"));
        }
        Ok(())
    }

    fn store(&mut self, stream: &mut BlockStream, worker: &Worker) -> Result<(), Failure> {
        let (index, value) = message::read_block_header(&stream.header);
        let length = blocks::length(self.expected.size, index);
        let buffer = stream.buffer.take().filter(|buffer| buffer.as_ref().len() == length);
        let buffer = buffer.ok_or(Failure::BadOffer("a block is shorter than it must be"))?;
        self.storing_bytes += length as u64;
        worker.submit(self.ticket, Task::Store(Arc::clone(&self.part), index, value, buffer));
        Ok(())
    }

    fn let_go(&mut self, index: u32) {
        self.taken.remove(index);
        self.storing_bytes -= blocks::length(self.expected.size, index) as u64;
    }

    fn ask_again(&mut self, index: u32) -> Result<(), Failure> {
        self.wrong_count += 1;
        if self.wrong_count > u64::from(self.have.count()) * u64::from(TRIES_PER_BLOCK_MAX) {
            return Err(Failure::VerifyFailed);
        }
        self.control.iter_mut().for_each(|control| control.say(&Message::Again { index }));
        Ok(())
    }
}

impl BlockStream {
    fn index(&self) -> u32 {
        message::read_block_header(&self.header).0
    }
}
