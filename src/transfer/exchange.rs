//! All transfers and their connections, between datagrams and events: it knows no socket and no clock.
//!
//! Datagrams, reports of the worker and the time come in; datagrams and events are asked for. A transfer looks for an
//! address, then has a connection, then ends; its connection lives on until the peer knows of the end.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use noq_proto::{ServerConfig, Transmit};

use crate::chat::FileOffer;
use crate::names::{TransferId, UserName};

use super::TransferEvent;
use super::failure::{CloseCode, Failure};
use super::file::Source;
use super::identity::{Identity, PeerKey};
use super::limits::{AWAIT_SENDER, FILE_BYTES_MAX, HANDSHAKE, LINGER, TRANSFERS_MAX};
use super::links::{Happening, Links};
use super::message::Offer;
use super::part::{Part, PartKey};
use super::progress::Progress;
use super::punch::{self, Packet, Punch};
use super::receiving::Receiving;
use super::sending::Sending;
use super::socket::Datagram;
use super::state::{Phase, Role, Transfer};
use super::transport::{self, Path};
use super::worker::{Report, Task, Ticket, Worker};

/// Answers to punch packets that wait to be sent; who asks more often is not answered.
const ANSWERS_MAX: usize = 64;
/// The largest datagram of a receiver: it only acknowledges.
const RECEIVER_MTU: u16 = 1_452;

/// All transfers.
#[derive(Debug)]
pub struct Exchange {
    identity: Identity,
    links: Links,
    /// At most [`TRANSFERS_MAX`] in each direction.
    transfers: Vec<Transfer>,
    worker: Worker,
    directory: PathBuf,
    /// Bytes that a peer may send at first.
    window_bytes: u32,
    events: VecDeque<TransferEvent>,
    /// Answers to punch packets that came in this turn.
    answers: VecDeque<(SocketAddr, Packet)>,
    next_ticket: Ticket,
    /// Random; makes what peers must not be able to guess.
    secret: [u8; 32],
    /// Reads the first packets of connections, before it is known whose they are.
    first_packets: Arc<ServerConfig>,
}

impl Exchange {
    /// No transfers yet. Files go to `directory`; a peer may send `window_bytes` at first; `secret` is random.
    ///
    /// # Errors
    /// The library for TLS refuses what it was built with.
    pub fn new(
        identity: Identity,
        worker: Worker,
        directory: PathBuf,
        window_bytes: u32,
        secret: [u8; 32],
    ) -> Result<Self, rustls::Error> {
        let path = Path { round_trip: None, mtu: RECEIVER_MTU, window_bytes };
        let first_packets = transport::server(identity.server_config(PeerKey::NOBODY)?, path);
        Ok(Self {
            identity,
            links: Links::new(),
            transfers: Vec::new(),
            worker,
            directory,
            window_bytes,
            events: VecDeque::new(),
            answers: VecDeque::new(),
            next_ticket: 0,
            secret,
            first_packets,
        })
    }

    /// This device's public key, in hexadecimal.
    pub fn public_key(&self) -> &str {
        self.identity.public_hex()
    }

    /// Whether transfers or connections that close are under way.
    pub fn is_busy(&self) -> bool {
        !self.transfers.is_empty() || !self.links.is_empty()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TransferEvent> {
        self.events.pop_front()
    }

    /// Begins to send.
    pub fn start(&mut self, id: TransferId, source: Source, peer: &str, addresses: &[SocketAddr], now: Instant) {
        if let Err(failure) = self.try_start(id, source, peer, addresses, now) {
            self.events.push_back(TransferEvent::Failed { transfer: id, failure });
        }
    }

    fn try_start(
        &mut self,
        id: TransferId,
        source: Source,
        peer: &str,
        addresses: &[SocketAddr],
        now: Instant,
    ) -> Result<(), Failure> {
        let peer = PeerKey::from_hex(peer).ok_or(Failure::BadKey)?;
        self.supersede(id, now);
        self.check_room(|role| matches!(role, Role::Sending(_)))?;
        let offer = Offer { transfer: id, name: source.name().to_owned(), size: source.size_bytes() };
        let ticket = self.new_ticket();
        let role = Role::Sending(Sending::new(ticket, source, offer));
        self.insert(id, ticket, peer, addresses, now + HANDSHAKE, role);
        Ok(())
    }

    /// Makes ready to receive.
    pub fn accept(
        &mut self,
        id: TransferId,
        from: UserName,
        file: &FileOffer,
        peer: &str,
        addresses: &[SocketAddr],
        now: Instant,
    ) -> Result<(), Failure> {
        let peer = PeerKey::from_hex(peer).ok_or(Failure::BadKey)?;
        if file.size > FILE_BYTES_MAX {
            return Err(Failure::Limit("the file is too large"));
        }
        self.supersede(id, now);
        self.check_room(|role| matches!(role, Role::Receiving(_)))?;
        let part = Part::open(&self.directory, part_key(id, from, file))?;
        let ticket = self.new_ticket();
        let mut receiving = Receiving::new(ticket, part, self.window_bytes);
        receiving.check_part(&self.worker);
        self.insert(id, ticket, peer, addresses, now + AWAIT_SENDER, Role::Receiving(receiving));
        Ok(())
    }

    /// Whether a part that this transfer brought is here.
    pub fn holds_part(&self, id: TransferId, from: UserName, file: &FileOffer) -> bool {
        Part::exists(&self.directory, &part_key(id, from, file))
    }

    /// One more address of the peer.
    pub fn add_address(&mut self, id: TransferId, address: SocketAddr) {
        if let Some(transfer) = self.transfers.iter_mut().find(|transfer| transfer.id == id) {
            transfer.punch.add(address);
        }
    }

    /// Gives a transfer up.
    pub fn cancel(&mut self, id: TransferId, now: Instant) {
        if let Some(transfer) = self.transfers.iter().find(|transfer| transfer.id == id) {
            self.fail(transfer.ticket, Failure::Cancelled, now);
        }
    }

    /// Tells all peers that this program ends.
    pub fn leave(&mut self, now: Instant) {
        for transfer in std::mem::take(&mut self.transfers) {
            self.links.close(transfer.ticket, CloseCode::Gone, now);
        }
        self.links.close_all(CloseCode::Done, now);
    }

    /// Takes a datagram.
    pub fn handle_datagram(&mut self, datagram: &Datagram<'_>, now: Instant) {
        if let Some(tag) = punch::tag_of(datagram.bytes) {
            let transfer = self.transfers.iter_mut().find(|transfer| transfer.punch.tag() == tag);
            let answer = transfer.and_then(|transfer| transfer.punch.handle(datagram.from, datagram.bytes, now));
            if self.answers.len() < ANSWERS_MAX {
                self.answers.extend(answer.map(|answer| (datagram.from, answer)));
            }
            return;
        }
        let Some(incoming) = self.links.handle_datagram(datagram, now) else { return };
        let is_for = |transfer: &&Transfer| incoming.orig_dst_cid().starts_with(&transfer.punch.tag());
        let transfer = self.transfers.iter().filter(|transfer| transfer.awaits_sender()).find(is_for);
        let Some(transfer) = transfer else { return self.links.ignore(incoming) };
        let round_trip = transfer.punch.round_trip();
        let path = Path { round_trip, mtu: RECEIVER_MTU, window_bytes: self.window_bytes };
        match self.identity.server_config(transfer.peer) {
            Ok(crypto) => self.links.accept(incoming, transfer.ticket, transport::server(crypto, path), now),
            Err(_) => self.links.ignore(incoming),
        }
    }

    /// Takes what the worker has done.
    pub fn take_reports(&mut self, now: Instant) {
        while let Some(Report { ticket, outcome }) = self.worker.try_report() {
            let Some(transfer) = self.transfers.iter_mut().find(|transfer| transfer.ticket == ticket) else { continue };
            let taken = outcome.and_then(|outcome| match &mut transfer.role {
                Role::Sending(sending) => {
                    sending.handle_outcome(outcome);
                    Ok(())
                }
                Role::Receiving(receiving) => {
                    let taken = receiving.handle_outcome(outcome);
                    receiving.check_part(&self.worker);
                    taken
                }
            });
            if let Some(link) = transfer.phase.link() {
                self.links.touch(link);
            }
            match taken {
                Ok(()) => self.conclude(ticket, now),
                Err(failure) => self.fail(ticket, failure, now),
            }
        }
    }

    /// Does what is due, and all that the datagrams and reports of this turn made possible.
    ///
    /// `mtu_towards` tells the largest datagram that can be sent to an address.
    pub fn advance(&mut self, now: Instant, mtu_towards: impl Fn(SocketAddr) -> u16) {
        self.links.handle_timeout(now);
        self.connect(now, mtu_towards);
        while let Some((link, ticket, happening)) = self.links.poll() {
            self.handle_happening(link, ticket, happening, now);
        }
        for link in self.links.take_touched() {
            self.drive(link, now);
        }
        let is_late = |transfer: &&Transfer| transfer.phase.deadline().is_some_and(|deadline| deadline <= now);
        while let Some(late) = self.transfers.iter().find(is_late) {
            let failure = match (&late.role, late.phase) {
                _ if late.met_wrong_key => Failure::WrongKey,
                (Role::Sending(_), Phase::Searching { .. }) => Failure::Unreachable,
                _ => Failure::TimedOut,
            };
            self.fail(late.ticket, failure, now);
        }
        self.links.settle();
    }

    /// When [`Exchange::advance`] or [`Exchange::poll_transmit`] is due.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let transfers = self.transfers.iter().flat_map(|transfer| {
            let search = transfer.punch.next_timeout(now).filter(|_| transfer.is_searching());
            search.into_iter().chain(transfer.phase.deadline())
        });
        transfers.chain(self.links.next_timeout()).min()
    }

    /// The next transmission. `segments_max` tells how many datagrams of a size one can hold.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        segments_max: impl Fn(u16) -> usize,
        buffer: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let answer = self.answers.pop_front();
        let searching = self.transfers.iter_mut().filter(|transfer| transfer.is_searching());
        let punch = answer.or_else(|| searching.filter_map(|transfer| transfer.punch.poll_transmit(now)).next());
        if let Some((destination, packet)) = punch {
            buffer.clear();
            buffer.extend_from_slice(&packet);
            let size = packet.len();
            return Some(Transmit { destination, ecn: None, size, segment_size: None, src_ip: None });
        }
        self.links.poll_transmit(now, segments_max, buffer)
    }

    /// Connects each sender whose peer has answered.
    fn connect(&mut self, now: Instant, mtu_towards: impl Fn(SocketAddr) -> u16) {
        for transfer in &mut self.transfers {
            let (Role::Sending(_), Phase::Searching { until }) = (&transfer.role, transfer.phase) else { continue };
            let Some((address, round_trip)) = transfer.punch.chosen(now) else { continue };
            let path =
                Path { round_trip: Some(round_trip), mtu: mtu_towards(address), window_bytes: self.window_bytes };
            let Ok(crypto) = self.identity.client_config(transfer.peer) else { continue };
            let random = derive(&self.secret, "first number", transfer.ticket);
            let config = transport::client(crypto, transfer.punch.tag(), random, path);
            // What fails here shows as a peer that cannot be reached.
            if let Some(link) = self.links.connect(config, address, transfer.ticket, now) {
                transfer.phase = Phase::Connecting { link, until };
            }
        }
    }

    fn handle_happening(&mut self, link: usize, ticket: Ticket, happening: Happening, now: Instant) {
        let Some(transfer) = self.transfers.iter_mut().find(|transfer| transfer.ticket == ticket) else { return };
        let is_own = transfer.phase.link() == Some(link);
        let handled = match (happening, &mut transfer.role) {
            (Happening::Connected, _) if !is_own && transfer.phase.link().is_some() => {
                return self.links.close_one(link, CloseCode::Limit, now);
            }
            (Happening::Connected, role) => {
                transfer.phase = Phase::Standing { link };
                match (role, self.links.connection(link)) {
                    (Role::Sending(sending), Some(connection)) => sending.begin(connection),
                    _ => Ok(()),
                }
            }
            (Happening::Ended(failure), _) if !is_own => {
                // One that tried and was not the peer: the peer may still come.
                transfer.met_wrong_key |= matches!(failure, Some(Failure::WrongKey));
                Ok(())
            }
            (Happening::Ended(failure), role) => {
                transfer.phase = Phase::Alone;
                if role.goes_on_alone(failure.is_none()) { Ok(()) } else { Err(failure.unwrap_or(Failure::PeerGone)) }
            }
            (Happening::Stream(event), Role::Sending(sending)) if is_own => sending.handle_stream(&event),
            (Happening::Stream(event), Role::Receiving(receiving)) if is_own => {
                receiving.handle_stream(&event);
                Ok(())
            }
            (Happening::Stream(_), _) => Ok(()),
        };
        match handled {
            Ok(()) => self.conclude(ticket, now),
            Err(failure) => self.fail(ticket, failure, now),
        }
        self.listen_if_awaiting();
    }

    /// Lets a transfer do all that its connection allows.
    fn drive(&mut self, link: usize, now: Instant) {
        let stands = |transfer: &&mut Transfer| matches!(transfer.phase, Phase::Standing { link: own } if own == link);
        let Some(transfer) = self.transfers.iter_mut().find(stands) else { return };
        let ticket = transfer.ticket;
        let Some(connection) = self.links.connection(link) else { return };
        let driven = match &mut transfer.role {
            Role::Sending(sending) => sending.drive(connection, &self.worker),
            Role::Receiving(receiving) => receiving.drive(connection, &self.worker, now),
        };
        if let Err(failure) = driven {
            return self.fail(ticket, failure, now);
        }
        let (done_bytes, total_bytes) = transfer.role.progress();
        if let Some(done_bytes) = transfer.progress.report(done_bytes, now) {
            self.events.push_back(TransferEvent::Progress { transfer: transfer.id, done_bytes, total_bytes });
        }
        self.conclude(ticket, now);
    }

    /// Ends a transfer that is done.
    fn conclude(&mut self, ticket: Ticket, now: Instant) {
        let Some(transfer) = self.transfers.iter().find(|transfer| transfer.ticket == ticket) else { return };
        let Some((hash, saved_as)) = transfer.role.result() else { return };
        let (_, bytes) = transfer.role.progress();
        let hash = blake3::Hash::from_bytes(hash).to_hex().to_string();
        self.events.push_back(TransferEvent::Done { transfer: transfer.id, bytes, hash, saved_as });
        match transfer.role {
            Role::Sending(_) => self.links.close(ticket, CloseCode::Done, now),
            // The sender closes, once it knows.
            Role::Receiving(_) => self.links.linger(ticket, now + LINGER),
        }
        self.transfers.retain(|transfer| transfer.ticket != ticket);
    }

    /// Ends a transfer that failed, and says so to both sides.
    fn fail(&mut self, ticket: Ticket, failure: Failure, now: Instant) {
        let Some(place) = self.transfers.iter().position(|transfer| transfer.ticket == ticket) else { return };
        let transfer = self.transfers.remove(place);
        self.links.close(ticket, failure.close_code(), now);
        if let Role::Receiving(receiving) = &transfer.role {
            if matches!(failure, Failure::Cancelled) {
                // A person gave it up: nobody will come back for the part.
                self.worker.submit(ticket, Task::Discard(Arc::clone(receiving.part())));
            } else {
                receiving.part().release();
            }
        }
        self.events.push_back(TransferEvent::Failed { transfer: transfer.id, failure });
        self.listen_if_awaiting();
    }

    /// Drops a transfer silently that the same number takes the place of.
    fn supersede(&mut self, id: TransferId, now: Instant) {
        let Some(place) = self.transfers.iter().position(|transfer| transfer.id == id) else { return };
        let transfer = self.transfers.remove(place);
        self.links.close(transfer.ticket, CloseCode::Gone, now);
        if let Role::Receiving(receiving) = &transfer.role {
            receiving.part().release();
        }
    }

    fn insert(
        &mut self,
        id: TransferId,
        ticket: Ticket,
        peer: PeerKey,
        addresses: &[SocketAddr],
        deadline: Instant,
        role: Role,
    ) {
        let punch = Punch::new(id, derive(&self.secret, "punch", ticket), addresses);
        self.transfers.push(Transfer {
            id,
            ticket,
            peer,
            punch,
            phase: Phase::Searching { until: deadline },
            met_wrong_key: false,
            progress: Progress::default(),
            role,
        });
        self.listen_if_awaiting();
    }

    /// Reads first packets only while a sender is awaited.
    fn listen_if_awaiting(&mut self) {
        let is_awaiting = self.transfers.iter().any(Transfer::awaits_sender);
        self.links.listen(is_awaiting.then(|| Arc::clone(&self.first_packets)));
    }

    fn check_room(&self, is_same_direction: impl Fn(&Role) -> bool) -> Result<(), Failure> {
        let count = self.transfers.iter().filter(|transfer| is_same_direction(&transfer.role)).count();
        if count < TRANSFERS_MAX { Ok(()) } else { Err(Failure::Limit("too many transfers are under way")) }
    }

    fn new_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }
}

fn part_key(transfer: TransferId, from: UserName, file: &FileOffer) -> PartKey {
    PartKey { transfer, from, name: file.name.clone(), size: file.size }
}

/// Bytes that only this process can know, for one use and one transfer.
fn derive<const N: usize>(secret: &[u8; 32], purpose: &str, ticket: Ticket) -> [u8; N] {
    let mut bytes = [0; N];
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(purpose.as_bytes()).update(&ticket.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
