//! The sender's half of a transfer, on a connection that stands: which block is read, which is sent, and when it is over.
//!
//! Blocks go in ascending order, each on a stream of its own, as fast as buffers come back: a buffer is free again when
//! its block is acknowledged. Blocks that the receiver has are read and hashed in their turn, for the file's hash.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use noq_proto::{Connection, Dir, StreamEvent, StreamId, WriteError};

use super::blocks::{self, Bitmap, Root, Value};
use super::control::Control;
use super::failure::Failure;
use super::file::Source;
use super::limits::{CONTROL_BYTES_MAX, READ_AHEAD_BLOCKS_MAX, SEND_BUFFERS_MAX, TRIES_PER_BLOCK_MAX};
use super::message::{self, Message, Offer};
use super::pool::Pool;
use super::worker::{Outcome, Task, Ticket, Worker};

/// A file that is being sent.
#[derive(Debug)]
pub struct Sending {
    ticket: Ticket,
    source: Arc<Source>,
    offer: Offer,
    pool: Pool,
    control: Option<Control>,
    /// Known once the receiver has told what it has.
    plan: Option<Plan>,
    verified: bool,
}

/// What is to be sent and how far it is.
#[derive(Debug)]
struct Plan {
    /// Blocks that the receiver has, or will have by what was acknowledged.
    arrived: Bitmap,
    /// Blocks that are not sent, as the receiver has them.
    skipped: Bitmap,
    /// The next block to be read for the first time.
    next: u32,
    /// The next block whose value goes into the hash.
    next_hashed: u32,
    /// Blocks to be sent once more.
    again: VecDeque<u32>,
    /// Blocks that may still be asked for once more.
    tries_left: u64,
    /// Blocks at the worker.
    reading: usize,
    /// Blocks that were read and wait for a stream.
    ready: VecDeque<Block>,
    /// The block whose stream takes bytes now.
    current: Option<(StreamId, Block)>,
    /// Blocks on streams that are not yet acknowledged.
    unacknowledged: HashMap<StreamId, u32>,
    /// The hash as far as blocks were read.
    hashed: Root,
    root: RootState,
}

#[derive(Debug)]
struct Block {
    index: u32,
    /// Header and bytes, without what the stream has taken.
    chunks: [Bytes; 2],
}

/// How far the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RootState {
    /// Not all blocks were read.
    Open,
    /// The source is looked at a last time.
    Checking,
    /// The receiver knows the hash.
    Told(Value),
}

impl Sending {
    /// A file that will be sent.
    pub fn new(ticket: Ticket, source: Source, offer: Offer) -> Self {
        let pool = Pool::new(SEND_BUFFERS_MAX);
        Self { ticket, source: Arc::new(source), offer, pool, control: None, plan: None, verified: false }
    }

    /// Length of the file.
    pub fn size_bytes(&self) -> u64 {
        self.offer.size
    }

    /// Bytes that the receiver has, as far as is known.
    pub fn done_bytes(&self) -> u64 {
        self.plan.as_ref().map_or(0, |plan| plan.arrived.set_bytes(self.offer.size))
    }

    /// The file's hash, once the receiver has verified it.
    pub fn verified(&self) -> Option<Value> {
        match self.plan.as_ref()?.root {
            RootState::Told(root) if self.verified => Some(root),
            _ => None,
        }
    }

    /// Takes it that the receiver closed the connection because it is done; false if it cannot be.
    pub fn handle_done(&mut self) -> bool {
        self.verified = matches!(&self.plan, Some(Plan { root: RootState::Told(_), .. }));
        self.verified
    }

    /// Begins on a connection that stands: the receiver is told which file this is.
    pub fn begin(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        let stream = connection.streams().open(Dir::Bi);
        let stream = stream.ok_or_else(|| Failure::Broken("the peer takes no control stream".into()))?;
        let mut control = Control::new(connection, stream);
        control.say(&Message::Offer(self.offer.clone()));
        self.control = Some(control);
        Ok(())
    }

    /// Takes what happened to a stream.
    pub fn handle_stream(&mut self, event: &StreamEvent) -> Result<(), Failure> {
        let Some(plan) = &mut self.plan else { return Ok(()) };
        match event {
            StreamEvent::Finished { id } => {
                if let Some(index) = plan.unacknowledged.remove(id) {
                    plan.arrived.insert(index);
                }
                Ok(())
            }
            StreamEvent::Stopped { .. } => Err(Failure::Broken("the peer takes no more of a block".into())),
            _ => Ok(()),
        }
    }

    /// Takes what the worker did.
    pub fn handle_outcome(&mut self, outcome: Outcome) {
        let (Some(plan), Some(control)) = (&mut self.plan, &mut self.control) else { return };
        match outcome {
            Outcome::Read(index, value, buffer) => {
                plan.reading -= 1;
                if index == plan.next_hashed {
                    plan.hashed.push(value);
                    plan.next_hashed += 1;
                }
                if plan.skipped.has(index) {
                    control.say(&Message::Value { index, value });
                } else {
                    let header = Bytes::copy_from_slice(&message::block_header(index, &value));
                    plan.ready.push_back(Block { index, chunks: [header, Bytes::from_owner(buffer)] });
                }
            }
            Outcome::SourceUnchanged => {
                let root = std::mem::take(&mut plan.hashed).finish();
                plan.root = RootState::Told(root);
                control.say(&Message::Root(root));
            }
            _ => {}
        }
    }

    /// Does all that can be done now.
    ///
    /// # Errors
    /// The transfer has failed.
    pub fn drive(&mut self, connection: &mut Connection, worker: &Worker) -> Result<(), Failure> {
        let Some(control) = &mut self.control else { return Ok(()) };
        while let Some(message) = control.hear(connection)? {
            match (message, &mut self.plan) {
                (Message::Have(bitmap), plan @ None) => {
                    let have = Bitmap::from_bytes(blocks::count(self.offer.size), &bitmap);
                    *plan = Some(Plan::new(have.ok_or(Failure::BadOffer("the peer's list of blocks is wrong"))?));
                }
                (Message::Again { index }, Some(plan)) => plan.ask_again(index)?,
                (Message::Verified(root), Some(plan)) if plan.root == RootState::Told(root) => self.verified = true,
                _ => return Err(Failure::Broken("the peer said what was not due".into())),
            }
        }
        if let Some(plan) = &mut self.plan {
            let has_room = control.unsent_bytes() < CONTROL_BYTES_MAX;
            while has_room && plan.wants_block() {
                let Some(buffer) = self.pool.take() else { break };
                let Some(index) = plan.next_block() else { break };
                plan.reading += 1;
                worker.submit(self.ticket, Task::Read(Arc::clone(&self.source), index, buffer));
            }
            if plan.is_all_hashed() && plan.root == RootState::Open {
                plan.root = RootState::Checking;
                worker.submit(self.ticket, Task::CheckSource(Arc::clone(&self.source)));
            }
            plan.send(connection)?;
        }
        control.flush(connection)
    }
}

impl Plan {
    fn new(have: Bitmap) -> Self {
        let tries = u64::from(have.count()) * u64::from(TRIES_PER_BLOCK_MAX);
        Self {
            skipped: have.clone(),
            arrived: have,
            next: 0,
            next_hashed: 0,
            again: VecDeque::new(),
            tries_left: tries,
            reading: 0,
            ready: VecDeque::new(),
            current: None,
            unacknowledged: HashMap::new(),
            hashed: Root::default(),
            root: RootState::Open,
        }
    }

    fn ask_again(&mut self, index: u32) -> Result<(), Failure> {
        if index >= self.arrived.count() {
            return Err(Failure::BadOffer("the peer asks for a block that does not exist"));
        }
        self.tries_left = self.tries_left.checked_sub(1).ok_or(Failure::VerifyFailed)?;
        self.arrived.remove(index);
        self.skipped.remove(index);
        self.again.push_back(index);
        Ok(())
    }

    fn wants_block(&self) -> bool {
        self.reading + self.ready.len() < READ_AHEAD_BLOCKS_MAX
            && (!self.again.is_empty() || self.next < self.arrived.count())
    }

    fn next_block(&mut self) -> Option<u32> {
        if let Some(index) = self.again.pop_front() {
            return Some(index);
        }
        let index = self.next;
        (index < self.arrived.count()).then(|| {
            self.next += 1;
            index
        })
    }

    fn is_all_hashed(&self) -> bool {
        self.next_hashed == self.arrived.count()
    }

    /// Gives the connection the bytes of blocks that it takes.
    fn send(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        loop {
            let Some((stream, block)) = &mut self.current else {
                let Some(block) = self.ready.pop_front() else { return Ok(()) };
                let Some(stream) = connection.streams().open(Dir::Uni) else {
                    self.ready.push_front(block);
                    return Ok(());
                };
                self.unacknowledged.insert(stream, block.index);
                self.current = Some((stream, block));
                continue;
            };
            let stream = *stream;
            while block.chunks.iter().any(|chunk| !chunk.is_empty()) {
                // What is taken leaves the chunks, so a part of one stays for the next time.
                match connection.send_stream(stream).write_chunks(&mut block.chunks.as_mut_slice()) {
                    Ok(_) => {}
                    Err(WriteError::Blocked) => return Ok(()),
                    Err(error) => return Err(Failure::Broken(error.to_string())),
                }
            }
            let finished = connection.send_stream(stream).finish();
            finished.map_err(|error| Failure::Broken(error.to_string()))?;
            self.current = None;
        }
    }
}
