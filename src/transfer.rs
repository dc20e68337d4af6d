//! A stand-in for the transfer engine: real names, sizes and keys, and every transfer "not there yet".
#![expect(missing_docs, clippy::needless_pass_by_value, reason = "replaced as a whole")]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::chat::FileOffer;
use crate::names::{TransferId, UserName};

#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    pub socket: mio::Token,
    pub timer: mio::Token,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub bind: SocketAddr,
    pub download_dir: PathBuf,
    pub key_file: PathBuf,
    pub waker: Arc<mio::Waker>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(#[from] std::io::Error);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(String);

#[derive(Debug)]
pub struct Source {
    name: String,
    size_bytes: u64,
}

impl Source {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cancelled")]
    Cancelled,
    #[error("declined")]
    Declined,
    #[error("the other side took too long")]
    TimedOut,
    #[error("the other side is gone")]
    PeerGone,
    #[error("transfers are not there yet")]
    Limit,
}

#[derive(Debug)]
pub enum TransferEvent {
    Progress { transfer: TransferId, done_bytes: u64, total_bytes: u64 },
    Done { transfer: TransferId, bytes: u64, hash: String, saved_as: Option<PathBuf> },
    Failed { transfer: TransferId, failure: Failure },
}

#[derive(Debug)]
pub struct Engine {
    socket: mio::net::UdpSocket,
    events: VecDeque<TransferEvent>,
}

impl Engine {
    pub fn new(_: &mio::Registry, _: Tokens, options: Options) -> Result<Engine, EngineError> {
        Ok(Self { socket: mio::net::UdpSocket::bind(options.bind)?, events: VecDeque::new() })
    }

    pub fn public_key(&self) -> &str {
        "00"
    }

    pub fn udp_port(&self) -> u16 {
        self.socket.local_addr().map_or(0, |addr| addr.port())
    }

    pub fn addresses(&self, chat_address: IpAddr) -> Vec<SocketAddr> {
        vec![SocketAddr::new(chat_address, self.udp_port())]
    }

    pub fn prepare(path: &Path) -> Result<Source, SourceError> {
        let found = std::fs::metadata(path).map_err(|error| SourceError(format!("{}: {error}", path.display())))?;
        if !found.is_file() {
            return Err(SourceError(format!("{} is no regular file", path.display())));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Source { name, size_bytes: found.len() })
    }

    pub fn start(&mut self, transfer: TransferId, _: Source, _: &str, _: &[SocketAddr], _: Instant) {
        self.events.push_back(TransferEvent::Failed { transfer, failure: Failure::Limit });
    }

    pub fn accept(
        &mut self,
        _: TransferId,
        _: UserName,
        _: &FileOffer,
        _: &str,
        _: &[SocketAddr],
        _: Instant,
    ) -> Result<(), Failure> {
        Err(Failure::Limit)
    }

    pub fn holds_part(&self, _: TransferId, _: UserName, _: &FileOffer) -> bool {
        false
    }

    pub fn add_address(&mut self, _: TransferId, _: SocketAddr, _: Instant) {}

    pub fn cancel(&mut self, transfer: TransferId, _: Instant) {
        self.events.push_back(TransferEvent::Failed { transfer, failure: Failure::Cancelled });
    }

    pub fn handle_ready(&mut self, _: &mio::event::Event, _: Instant) {}

    pub fn handle_woken(&mut self, _: Instant) {}

    pub fn handle_timeout(&mut self, _: Instant) {}

    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    pub fn poll_event(&mut self) -> Option<TransferEvent> {
        self.events.pop_front()
    }

    pub fn is_busy(&self) -> bool {
        !self.events.is_empty()
    }

    pub fn close(self) {}
}
