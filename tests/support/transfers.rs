//! Engines of several clients in one loop on the loopback network, and relays between them that do damage by a seed.
#![allow(dead_code, reason = "each test uses the parts that it needs")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use messenger::chat::FileOffer;
use messenger::clock;
use messenger::names::{TransferId, UserName};
use messenger::transfer::{Engine, Options, Tokens, TransferEvent};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use tempfile::TempDir;

use super::random::Random;

const WAKER: Token = Token(0);
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A test that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// One client: its engine, its directories, and what the engine told.
pub struct Peer {
    pub engine: Option<Engine>,
    pub directory: TempDir,
    pub events: Vec<TransferEvent>,
}

/// All clients and relays, and the clock they share.
pub struct World {
    poll: Poll,
    waker: Arc<Waker>,
    pub peers: Vec<Peer>,
    relays: Vec<Relay>,
    /// How far the clock of the clients is ahead of the machine's.
    ahead: Duration,
    pub random: Random,
}

impl World {
    pub fn new(peers: usize, seed: u64) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let random = Random::new(seed);
        let mut world = Self { poll, waker, peers: Vec::new(), relays: Vec::new(), ahead: Duration::ZERO, random };
        for place in 0..peers {
            let directory = tempfile::tempdir().unwrap();
            for name in ["out", "in"] {
                std::fs::create_dir(directory.path().join(name)).unwrap();
            }
            world.peers.push(Peer { engine: None, directory, events: Vec::new() });
            world.start_program(place);
        }
        world
    }

    /// Starts a client's engine, anew if it was killed.
    pub fn start_program(&mut self, place: usize) {
        self.start_program_at(place, SocketAddr::new(LOCALHOST, 0));
    }

    /// The same, with its socket at an address.
    pub fn start_program_at(&mut self, place: usize, bind: SocketAddr) {
        self.peers[place].engine = None;
        let path = self.peers[place].directory.path();
        let options =
            Options { bind, download_dir: path.join("in"), key_file: path.join("key"), waker: Arc::clone(&self.waker) };
        let tokens = Tokens { socket: Token(100 + 2 * place), timer: Token(101 + 2 * place) };
        self.peers[place].engine = Some(Engine::new(self.poll.registry(), tokens, options).unwrap());
    }

    pub fn now(&self) -> Instant {
        clock::monotonic() + self.ahead
    }

    /// Lets time pass at once.
    pub fn skip(&mut self, duration: Duration) {
        self.ahead += duration;
    }

    pub fn engine(&mut self, place: usize) -> &mut Engine {
        self.peers[place].engine.as_mut().expect("the program runs")
    }

    pub fn address(&mut self, place: usize) -> SocketAddr {
        SocketAddr::new(LOCALHOST, self.engine(place).udp_port())
    }

    pub fn key(&mut self, place: usize) -> String {
        self.engine(place).public_key().to_owned()
    }

    pub fn in_dir(&self, place: usize) -> PathBuf {
        self.peers[place].directory.path().join("in")
    }

    /// Names in a client's download directory, sorted.
    pub fn received_names(&self, place: usize) -> Vec<String> {
        let entries = std::fs::read_dir(self.in_dir(place)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Writes a file of random bytes that a client can send.
    pub fn file(&mut self, place: usize, name: &str, size: usize) -> PathBuf {
        let path = self.peers[place].directory.path().join("out").join(name);
        let bytes: Vec<u8> =
            std::iter::repeat_with(|| self.random.next().to_le_bytes()).take(size / 8 + 1).flatten().collect();
        std::fs::write(&path, &bytes[..size]).unwrap();
        path
    }

    pub fn transfer_id(&mut self) -> TransferId {
        format!("{:016x}{:016x}", self.random.next(), self.random.next()).parse().unwrap()
    }

    /// Introduces two clients to each other directly, for a file that the first sends.
    pub fn introduce(&mut self, from: usize, to: usize, path: &Path) -> TransferId {
        let transfer = self.transfer_id();
        let addresses = [self.address(from), self.address(to)];
        self.introduce_by(transfer, from, to, path, addresses);
        transfer
    }

    /// The same by a relay that stands between them.
    pub fn introduce_through(&mut self, from: usize, to: usize, path: &Path, damage: Damage) -> TransferId {
        let transfer = self.transfer_id();
        let addresses = self.relay(from, to, damage);
        self.introduce_by(transfer, from, to, path, addresses);
        transfer
    }

    /// The introduction of a transfer, with the addresses of the sender and of the receiver as the other knows them.
    pub fn introduce_by(
        &mut self,
        transfer: TransferId,
        from: usize,
        to: usize,
        path: &Path,
        addresses: [SocketAddr; 2],
    ) {
        let (sender_key, receiver_key) = (self.key(from), self.key(to));
        let offer = self.offer(path);
        let now = self.now();
        let user = user(from);
        self.engine(to).accept(transfer, user, &offer, &sender_key, &addresses[..1], now).unwrap();
        let source = Engine::prepare(path).unwrap();
        self.engine(from).start(transfer, source, &receiver_key, &addresses[1..], now);
    }

    pub fn offer(&self, path: &Path) -> FileOffer {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        FileOffer { name, size: std::fs::metadata(path).unwrap().len() }
    }

    /// Puts a relay between two clients; gives the address of the first as the second sees it, and the reverse.
    pub fn relay(&mut self, first: usize, second: usize, damage: Damage) -> [SocketAddr; 2] {
        let place = self.relays.len();
        let ends = [self.address(first), self.address(second)];
        let mut sockets = [(); 2].map(|()| UdpSocket::bind(SocketAddr::new(LOCALHOST, 0)).unwrap());
        for (side, socket) in sockets.iter_mut().enumerate() {
            let token = Token(1_000 + 2 * place + side);
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 20).unwrap();
            self.poll.registry().register(socket, token, Interest::READABLE).unwrap();
        }
        let known_to_second = sockets[1].local_addr().unwrap();
        let known_to_first = sockets[0].local_addr().unwrap();
        let random = Random::new(self.random.next());
        self.relays.push(Relay { ends, sockets, damage, random, held: None, passed_bytes: 0 });
        [known_to_second, known_to_first]
    }

    /// Begins a transfer through a relay that breaks after so many bytes, and runs until it has.
    pub fn break_after(&mut self, transfer: TransferId, from: usize, to: usize, path: &Path, bytes: usize) {
        let damage = Damage { breaks_after_bytes: bytes as u64, ..Damage::default() };
        let addresses = self.relay(from, to, damage);
        self.introduce_by(transfer, from, to, path, addresses);
        self.run_until("the relay breaks", |world| world.relays.last().is_some_and(Relay::is_broken));
    }

    /// Begins a transfer through a relay, which breaks once a condition holds.
    pub fn break_once(
        &mut self,
        transfer: TransferId,
        [from, to]: [usize; 2],
        path: &Path,
        what: &str,
        mut holds: impl FnMut() -> bool,
    ) {
        let addresses = self.relay(from, to, Damage::default());
        self.introduce_by(transfer, from, to, path, addresses);
        self.run_until(what, |_| holds());
        if let Some(relay) = self.relays.last_mut() {
            relay.damage.breaks_after_bytes = 1;
        }
    }

    /// Lets everything pass the last relay again.
    pub fn mend(&mut self) {
        if let Some(relay) = self.relays.last_mut() {
            relay.damage.breaks_after_bytes = 0;
        }
    }

    /// Bytes that passed the last relay.
    pub fn passed_bytes(&self) -> u64 {
        self.relays.last().map_or(0, |relay| relay.passed_bytes)
    }

    /// Runs until a condition holds.
    pub fn run_until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let give_up = clock::monotonic() + PATIENCE;
        while !holds(self) {
            assert!(clock::monotonic() < give_up, "waited in vain until {what}; events: {:?}", self.all_events());
            self.turn();
        }
    }

    /// Lets everything happen that is due or came, once.
    pub fn turn(&mut self) {
        let now = self.now();
        let engines = self.peers.iter().filter_map(|peer| peer.engine.as_ref());
        let due = engines.filter_map(Engine::next_timeout).min();
        let timeout = due.map_or(Duration::from_millis(100), |due| due.saturating_duration_since(now));
        let mut events = Events::with_capacity(64);
        match self.poll.poll(&mut events, Some(timeout.min(Duration::from_millis(100)))) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return,
            other => other.unwrap(),
        }
        let now = self.now();
        for event in &events {
            match event.token() {
                WAKER => {}
                Token(token) if token >= 1_000 => self.relays[(token - 1_000) / 2].pass((token - 1_000) % 2),
                Token(token) => {
                    if let Some(engine) = &mut self.peers[(token - 100) / 2].engine {
                        engine.handle_ready(event, now);
                    }
                }
            }
        }
        for peer in &mut self.peers {
            let Some(engine) = &mut peer.engine else { continue };
            engine.handle_woken(now);
            if engine.next_timeout().is_some_and(|due| due <= now) {
                engine.handle_timeout(now);
            }
            peer.events.extend(std::iter::from_fn(|| engine.poll_event()));
        }
    }

    /// How a transfer ended at a client, once it has.
    pub fn ending(&self, place: usize, transfer: TransferId) -> Option<Result<(String, Option<PathBuf>), String>> {
        self.peers[place].events.iter().find_map(|event| match event {
            TransferEvent::Done { transfer: id, hash, saved_as, .. } if *id == transfer => {
                Some(Ok((hash.clone(), saved_as.clone())))
            }
            TransferEvent::Failed { transfer: id, failure } if *id == transfer => Some(Err(failure.to_string())),
            _ => None,
        })
    }

    /// Lets time pass in steps until a condition holds, for what only the clock brings about.
    pub fn wait_until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        self.run_until(what, |world| {
            world.skip(Duration::from_secs(1));
            holds(world)
        });
    }

    /// Runs until a transfer has ended at some clients, and gives how.
    pub fn endings<const N: usize>(
        &mut self,
        places: [usize; N],
        transfer: TransferId,
    ) -> [Result<(String, Option<PathBuf>), String>; N] {
        self.run_until("the transfer ends", |world| {
            places.iter().all(|place| world.ending(*place, transfer).is_some())
        });
        places.map(|place| self.ending(place, transfer).expect("it has ended"))
    }

    /// Runs until a transfer is done at both, and checks that the file arrived; gives its path.
    pub fn arrives(&mut self, from: usize, to: usize, transfer: TransferId, path: &Path) -> PathBuf {
        let [sent, received] = self.endings([from, to], transfer);
        let bytes = std::fs::read(path).unwrap();
        let hash = blake3::hash(&bytes).to_hex().to_string();
        assert_eq!(sent, Ok((hash.clone(), None)));
        let (received_hash, saved_as) = received.expect("the receiver is done");
        let saved_as = saved_as.expect("the receiver has a path");
        assert_eq!(received_hash, hash);
        assert!(std::fs::read(&saved_as).unwrap() == bytes, "the file is another");
        saved_as
    }

    fn all_events(&self) -> Vec<&TransferEvent> {
        let last = |peer: &'_ Peer| peer.events.len().saturating_sub(3);
        self.peers.iter().flat_map(|peer| &peer.events[last(peer)..]).collect()
    }
}

/// The name of the client at a place.
pub fn user(place: usize) -> UserName {
    ["yoda", "han", "leia"][place].parse().unwrap()
}

/// What a relay does to datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub struct Damage {
    /// Of a thousand datagrams.
    pub lost: usize,
    pub doubled: usize,
    pub late: usize,
    pub flipped: usize,
    /// Bytes after which nothing passes until the relay is mended; 0 is never.
    pub breaks_after_bytes: u64,
}

/// Two sockets between two clients: what one hears, the other says to the other client.
struct Relay {
    ends: [SocketAddr; 2],
    sockets: [UdpSocket; 2],
    damage: Damage,
    random: Random,
    held: Option<(usize, Vec<u8>)>,
    passed_bytes: u64,
}

impl Relay {
    fn is_broken(&self) -> bool {
        let after = self.damage.breaks_after_bytes;
        after != 0 && self.passed_bytes >= after
    }

    fn pass(&mut self, side: usize) {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, _)) = self.sockets[side].recv_from(&mut buffer) {
            if self.is_broken() {
                continue;
            }
            self.passed_bytes += length as u64;
            let damage = self.damage;
            let mut bytes = buffer[..length].to_vec();
            let mut happens = |per_thousand: usize| self.random.below(1_000) < per_thousand;
            let (is_lost, is_doubled) = (happens(damage.lost), happens(damage.doubled));
            let (is_late, is_flipped) = (happens(damage.late), happens(damage.flipped));
            if is_lost {
                continue;
            }
            if is_flipped {
                let bit = self.random.below(length * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            if is_doubled {
                self.send(side, &bytes);
            }
            if is_late && self.held.is_none() {
                self.held = Some((side, bytes));
                continue;
            }
            self.send(side, &bytes);
            if let Some((side, bytes)) = self.held.take() {
                self.send(side, &bytes);
            }
        }
    }

    fn send(&self, heard_on: usize, bytes: &[u8]) {
        let other = 1 - heard_on;
        // A full buffer is one more lost datagram.
        let _ = self.sockets[other].send_to(bytes, self.ends[other]);
    }
}
