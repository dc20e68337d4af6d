//! Peer transfers: a file goes from one client straight to another, over QUIC, on the client's own poll.
//!
//! [`Engine`] is the thin shell: it moves datagrams between the socket and the exchange of all transfers, which knows
//! neither socket nor clock. Hashing and the disk are left to one thread. The server introduces the two clients and
//! vouches for their keys; whoever is not introduced hears nothing from the socket.
//!
//! Reading order: `blocks`, `message` and `path` are the rules; `sending` and `receiving` the two halves of a transfer;
//! `exchange` all of them, with their `links`; `worker`, `file`, `part` and `directory` the disk; `socket` the network.

mod blocks;
mod congestion;
mod control;
mod directory;
mod exchange;
mod failure;
mod file;
mod identity;
mod keyfile;
pub mod limits;
mod links;
mod message;
mod part;
mod path;
mod pool;
mod progress;
mod punch;
mod receiving;
mod sending;
mod socket;
mod state;
mod transport;
mod window;
mod worker;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::chat::FileOffer;
use crate::clock;
use crate::names::{TransferId, UserName};

use exchange::Exchange;
pub use failure::{EngineError, Failure, SourceError};
pub use file::Source;
use socket::Socket;
use worker::Worker;

/// The tokens of the engine on the client's poll.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    /// Of the UDP socket.
    pub socket: mio::Token,
    /// Of the timer.
    pub timer: mio::Token,
}

/// How an engine is made.
#[derive(Debug)]
pub struct Options {
    /// The address of the UDP socket; port 0 is any.
    pub bind: SocketAddr,
    /// Where received files go.
    pub download_dir: PathBuf,
    /// The key of this device; made if it is missing.
    pub key_file: PathBuf,
    /// Wakes the poll when the worker has done something; then [`Engine::handle_woken`] is due.
    pub waker: Arc<mio::Waker>,
}

/// Something that the client should know.
#[derive(Debug)]
pub enum TransferEvent {
    /// How far a transfer is; at most ten times a second.
    Progress {
        /// Which transfer.
        transfer: TransferId,
        /// Bytes that the receiver has.
        done_bytes: u64,
        /// Length of the file.
        total_bytes: u64,
    },
    /// The receiver has the whole file, and its hash is right.
    Done {
        /// Which transfer.
        transfer: TransferId,
        /// Length of the file.
        bytes: u64,
        /// The BLAKE3 hash of the file, in hexadecimal.
        hash: String,
        /// Where the file is; the receiver's only.
        saved_as: Option<PathBuf>,
    },
    /// The transfer ended without the file.
    Failed {
        /// Which transfer.
        transfer: TransferId,
        /// Why.
        failure: Failure,
    },
}

/// All peer transfers of a client.
#[derive(Debug)]
pub struct Engine {
    tokens: Tokens,
    socket: Socket,
    exchange: Exchange,
    /// A buffer for the next transmission.
    buffer: Vec<u8>,
    /// There is more to be done at once than one turn may do.
    has_more: bool,
    /// When something is due, as of the last turn.
    due: Option<Instant>,
}

impl Engine {
    /// Opens the socket and starts the worker.
    ///
    /// # Errors
    /// The port is taken, the key cannot be had, or the system refuses.
    pub fn new(registry: &mio::Registry, tokens: Tokens, options: Options) -> Result<Self, EngineError> {
        let Options { bind, download_dir, key_file, waker } = options;
        let identity = keyfile::load_or_make(&key_file)?;
        let socket =
            Socket::new(registry, tokens, bind).map_err(|source| EngineError::Bind { address: bind, source })?;
        // A poll that cannot be woken is gone, and the engine with it.
        let worker = Worker::spawn(move || drop(waker.wake()))?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(std::io::Error::from)?;
        let window_bytes = socket.first_window_bytes();
        let exchange =
            Exchange::new(identity, worker, download_dir, window_bytes, secret).map_err(std::io::Error::other)?;
        Ok(Self { tokens, socket, exchange, buffer: Vec::new(), has_more: false, due: None })
    }

    /// This device's public key, in hexadecimal.
    pub fn public_key(&self) -> &str {
        self.exchange.public_key()
    }

    /// The port of the socket.
    pub fn udp_port(&self) -> u16 {
        self.socket.port()
    }

    /// The addresses to give to a peer: those of this machine's interfaces, and if the chat is on this machine,
    /// `chat_address` being our own address of its connection, first those that only this machine has.
    pub fn addresses(&self, chat_address: IpAddr) -> Vec<SocketAddr> {
        self.socket.addresses(chat_address)
    }

    /// Opens a file to be sent and checks it; reads nothing of it.
    ///
    /// # Errors
    /// It cannot be opened, is no regular file or is too large.
    pub fn prepare(path: &Path) -> Result<Source, SourceError> {
        Source::open(path)
    }

    /// Begins to send a file whose offer was accepted.
    pub fn start(
        &mut self,
        transfer: TransferId,
        source: Source,
        peer_key: &str,
        addresses: &[SocketAddr],
        now: Instant,
    ) {
        self.exchange.start(transfer, source, peer_key, addresses, now);
        self.turn(now);
    }

    /// Makes ready to receive a file, before the offer is answered: reserves its space, and lets its sender in.
    ///
    /// # Errors
    /// Why the offer must be refused: there is no space, the name is none, or a limit is reached.
    pub fn accept(
        &mut self,
        transfer: TransferId,
        from: UserName,
        file: &FileOffer,
        peer_key: &str,
        addresses: &[SocketAddr],
        now: Instant,
    ) -> Result<(), Failure> {
        let accepted = self.exchange.accept(transfer, from, file, peer_key, addresses, now);
        self.turn(now);
        accepted
    }

    /// Whether a part that this very transfer brought is here from before.
    pub fn holds_part(&self, transfer: TransferId, from: UserName, file: &FileOffer) -> bool {
        self.exchange.holds_part(transfer, from, file)
    }

    /// One more address of a transfer's peer.
    pub fn add_address(&mut self, transfer: TransferId, address: SocketAddr, now: Instant) {
        self.exchange.add_address(transfer, address);
        self.turn(now);
    }

    /// Gives a transfer up: it ends in [`Failure::Cancelled`], here and at the peer, and a part of it is removed.
    pub fn cancel(&mut self, transfer: TransferId, now: Instant) {
        self.exchange.cancel(transfer, now);
        self.turn(now);
    }

    /// Takes an event of the socket or the timer.
    pub fn handle_ready(&mut self, event: &mio::event::Event, now: Instant) {
        if event.token() == self.tokens.timer {
            self.socket.note_timer();
        } else {
            self.socket.note_ready(event);
        }
        self.turn(now);
    }

    /// Takes what the worker has done.
    pub fn handle_woken(&mut self, now: Instant) {
        self.turn(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.turn(now);
    }

    /// When [`Engine::handle_timeout`] is due; a moment that has passed if there is more to be done at once.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TransferEvent> {
        self.exchange.poll_event()
    }

    /// Whether transfers or connections that close are under way.
    pub fn is_busy(&self) -> bool {
        self.exchange.is_busy()
    }

    /// Tells the peers that this program ends. Parts stay, and can be taken up again.
    pub fn close(mut self) {
        let now = clock::monotonic();
        self.exchange.leave(now);
        self.transmit(now);
    }

    /// One turn of bounded length: takes what came, does what is possible and due, sends what may be sent.
    fn turn(&mut self, now: Instant) {
        self.has_more = false;
        let exchange = &mut self.exchange;
        for _ in 0..limits::RECEIVE_BATCHES_PER_TURN {
            if self.socket.is_readable() {
                self.socket.receive(|datagram| exchange.handle_datagram(&datagram, now));
            }
        }
        exchange.take_reports(now);
        exchange.advance(now, |address| self.socket.mtu_towards(address));
        self.transmit(now);
        let due = self.exchange.next_timeout(now);
        let is_more = self.has_more || self.socket.is_readable();
        self.due = if is_more { Some(now) } else { due };
        self.socket.arm(due, now);
    }

    /// Sends as much as a turn may and the system takes.
    fn transmit(&mut self, now: Instant) {
        if !self.socket.is_writable() || !self.socket.flush() {
            return;
        }
        for _ in 0..limits::SENDS_PER_TURN {
            let socket = &self.socket;
            let segments_max = |mtu| socket.segments_max(mtu);
            let mut buffer = std::mem::take(&mut self.buffer);
            let transmit = self.exchange.poll_transmit(now, segments_max, &mut buffer);
            let Some(transmit) = transmit else {
                self.buffer = buffer;
                return;
            };
            match self.socket.send(transmit, buffer) {
                Some(buffer) => self.buffer = buffer,
                None => return,
            }
        }
        self.has_more = true;
    }
}
