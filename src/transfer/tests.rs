//! Peers that do not keep to the rules: each half of a transfer against hand-made streams, on connections in memory.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use noq_proto::{Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, FourTuple, StreamEvent, Transmit};

use super::blocks::{self, BLOCK_BYTES, Bitmap};
use super::control::Control;
use super::failure::Failure;
use super::file::Source;
use super::identity::{self, Identity, PeerKey};
use super::message::{Message, Offer, block_header};
use super::part::{Part, PartKey};
use super::receiving::Receiving;
use super::sending::Sending;
use super::transport::{self, Path};
use super::worker::Worker;

const SIZE: u64 = 3 * BLOCK_BYTES as u64;
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// Two connected ends in memory, the client's and the server's; the clock stands unless it is moved.
struct Pair {
    endpoints: [Endpoint; 2],
    connections: [Option<(ConnectionHandle, Connection)>; 2],
    now: Instant,
    events: [Vec<StreamEvent>; 2],
}

impl Pair {
    fn new() -> Self {
        let now = crate::clock::monotonic();
        let path = Path { round_trip: Some(Duration::from_millis(1)), mtu: 1_452, window_bytes: 8 << 20 };
        let identities = [1, 2].map(|seed| Identity::from_private_key(&identity::private_key([seed; 32])).unwrap());
        let keys = [0, 1].map(|side: usize| PeerKey::from_hex(identities[side].public_hex()).unwrap());
        let server = transport::server(identities[SERVER].server_config(keys[CLIENT]).unwrap(), path);
        let client = transport::client(identities[CLIENT].client_config(keys[SERVER]).unwrap(), [1; 8], [2; 12], path);
        let mut endpoints = [None, Some(server)].map(|server| Endpoint::new(transport::endpoint(), server, true));
        let connection = endpoints[CLIENT].connect(now, client, address(SERVER), "peer.invalid").unwrap();
        let mut pair = Self { endpoints, connections: [Some(connection), None], now, events: [Vec::new(), Vec::new()] };
        pair.settle();
        assert!(pair.connections.iter().flatten().all(|(_, connection)| !connection.is_handshaking()));
        pair
    }

    fn connection(&mut self, side: usize) -> &mut Connection {
        &mut self.connections[side].as_mut().unwrap().1
    }

    /// Carries datagrams until neither side has one to send.
    fn settle(&mut self) {
        let mut under_way = VecDeque::new();
        for _ in 0..10_000 {
            for side in [CLIENT, SERVER] {
                self.transmit(side, &mut under_way);
            }
            let Some((to, bytes)) = under_way.pop_front() else {
                // Acknowledgements and pacing wait for the clock.
                let due =
                    self.connections.iter().flatten().filter_map(|(_, connection)| connection.poll_timeout()).min();
                match due.filter(|due| *due < self.now + Duration::from_millis(500)) {
                    Some(due) => self.now = self.now.max(due),
                    None => return,
                }
                for (_, connection) in self.connections.iter_mut().flatten() {
                    connection.handle_timeout(self.now);
                }
                continue;
            };
            self.receive(to, &bytes);
        }
        panic!("the two never come to rest");
    }

    fn transmit(&mut self, side: usize, under_way: &mut VecDeque<(usize, Vec<u8>)>) {
        let Some((handle, connection)) = &mut self.connections[side] else { return };
        let mut buffer = Vec::new();
        while let Some(Transmit { size, .. }) = connection.poll_transmit(self.now, NonZeroUsize::MIN, &mut buffer) {
            under_way.push_back((1 - side, buffer[..size].to_vec()));
            buffer.clear();
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoints[side].handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            if let Event::Stream(event) = event {
                self.events[side].push(event);
            }
        }
    }

    fn receive(&mut self, side: usize, bytes: &[u8]) {
        let path = FourTuple::from_remote(address(1 - side));
        let bytes = BytesMut::from(bytes);
        match self.endpoints[side].handle(self.now, path, None, bytes, &mut Vec::new()) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => self.connection(side).handle_event(event),
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoints[side].accept(incoming, self.now, &mut Vec::new(), None);
                self.connections[side] = Some(accepted.unwrap());
            }
            _ => {}
        }
    }

    /// Sends a whole stream.
    fn send(&mut self, side: usize, bytes: &[&[u8]]) {
        let connection = self.connection(side);
        let id = connection.streams().open(Dir::Uni).unwrap();
        for bytes in bytes {
            let mut chunks = [Bytes::copy_from_slice(bytes)];
            connection.send_stream(id).write_chunks(&mut chunks.as_mut_slice()).unwrap();
            assert!(chunks[0].is_empty());
        }
        connection.send_stream(id).finish().unwrap();
    }
}

fn address(side: usize) -> std::net::SocketAddr {
    ([127, 0, 0, 1], if side == CLIENT { 1 } else { 2 }).into()
}

fn worker() -> (Worker, std::sync::mpsc::Receiver<()>) {
    let (wake, woken) = std::sync::mpsc::channel();
    let wake = move || {
        let _ = wake.send(());
    };
    (Worker::spawn(wake).unwrap(), woken)
}

fn offer() -> Offer {
    Offer { transfer: "0123456789abcdef0123456789abcdef".parse().unwrap(), name: "a".into(), size: SIZE }
}

fn block(index: u32) -> Vec<u8> {
    vec![u8::try_from(index).unwrap() + 1; BLOCK_BYTES]
}

fn header(index: u32) -> [u8; 36] {
    block_header(index, &blocks::value(SIZE, index, &block(index)))
}

fn root() -> [u8; 32] {
    *blake3::hash(&(0..3).flat_map(block).collect::<Vec<u8>>()).as_bytes()
}

/// A receiver, with a sender in our hands.
struct Receiver {
    pair: Pair,
    receiving: Receiving,
    control: Control,
    worker: Worker,
    woken: std::sync::mpsc::Receiver<()>,
    directory: tempfile::TempDir,
}

impl Receiver {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let Offer { transfer, name, size } = offer();
        let key = PartKey { transfer, from: "yoda".parse().unwrap(), name, size };
        let receiving = Receiving::new(1, Part::open(directory.path(), key).unwrap(), 8 << 20);
        let mut pair = Pair::new();
        let stream = pair.connection(CLIENT).streams().open(Dir::Bi).unwrap();
        let control = Control::new(pair.connection(CLIENT), stream);
        let (worker, woken) = worker();
        Self { pair, receiving, control, worker, woken, directory }
    }

    fn say(&mut self, message: &Message) -> Result<(), Failure> {
        self.control.say(message);
        self.control.flush(self.pair.connection(CLIENT)).unwrap();
        self.drive()
    }

    fn send(&mut self, bytes: &[&[u8]]) -> Result<(), Failure> {
        self.pair.send(CLIENT, bytes);
        self.drive()
    }

    fn drive(&mut self) -> Result<(), Failure> {
        // As often as it takes for the window to be filled and emptied.
        for _ in 0..4 {
            self.pair.settle();
            for event in std::mem::take(&mut self.pair.events[SERVER]) {
                self.receiving.handle_stream(&event);
            }
            let now = self.pair.now;
            self.receiving.drive(self.pair.connection(SERVER), &self.worker, now)?;
        }
        self.pair.settle();
        Ok(())
    }

    /// Takes one report of the worker.
    fn work(&mut self) -> Result<(), Failure> {
        self.woken.recv().unwrap();
        let report = self.worker.try_report().unwrap();
        self.receiving.handle_outcome(report.outcome?)?;
        self.drive()
    }

    fn hear(&mut self) -> Option<Message> {
        self.control.hear(self.pair.connection(CLIENT)).unwrap()
    }

    /// The receiver has taken the offer.
    fn ready() -> Self {
        let mut this = Self::new();
        this.say(&Message::Offer(offer())).unwrap();
        assert_eq!(this.hear(), Some(Message::Have(vec![0])));
        this
    }
}

#[test]
fn a_receiver_takes_blocks_in_any_order_and_says_when_all_is_right() {
    let mut receiver = Receiver::ready();
    for index in [2, 0, 1] {
        receiver.send(&[&header(index), &block(index)]).unwrap();
        receiver.work().unwrap();
    }
    assert_eq!(receiver.receiving.done_bytes(), SIZE);
    receiver.say(&Message::Root(root())).unwrap();
    receiver.work().unwrap();
    assert_eq!(receiver.hear(), Some(Message::Verified(root())));
    assert!(receiver.receiving.finished().is_some_and(|(path, hash)| path.ends_with("yoda_a") && hash == root()));
}

#[test]
fn a_block_that_is_not_what_it_claims_is_not_written_and_asked_for_again_but_not_for_ever() {
    let mut receiver = Receiver::ready();
    let part = receiver.directory.path().join(".yoda_a.part");
    // Every block may be wrong three times.
    for _ in 0..9 {
        receiver.send(&[&header(1), &block(2)]).unwrap();
        receiver.work().unwrap();
        assert_eq!(receiver.hear(), Some(Message::Again { index: 1 }));
        assert_eq!(std::fs::metadata(&part).unwrap().len(), 0, "nothing is written");
        assert_eq!(receiver.receiving.done_bytes(), 0);
    }
    receiver.send(&[&header(1), &block(2)]).unwrap();
    assert!(matches!(receiver.work(), Err(Failure::VerifyFailed)));
}

#[test]
fn a_hash_of_the_whole_that_is_not_that_of_its_blocks_fails_the_transfer() {
    let mut receiver = Receiver::ready();
    for index in 0..3 {
        receiver.send(&[&header(index), &block(index)]).unwrap();
        receiver.work().unwrap();
    }
    receiver.say(&Message::Root([7; 32])).unwrap();
    assert!(matches!(receiver.work(), Err(Failure::VerifyFailed)));
    assert!(!receiver.directory.path().join("yoda_a").exists());
}

#[test]
fn blocks_that_were_not_asked_for_or_have_a_wrong_length_end_the_transfer() {
    let long = [block(0), vec![0]].concat();
    let cases: [&[&[u8]]; 5] = [
        &[&header(3)],
        &[&block_header(u32::MAX, &[0; 32]), b"x"],
        &[&header(0), &long],
        &[&header(0), b"short"],
        &[b"no header"],
    ];
    for (case, bytes) in cases.into_iter().enumerate() {
        let mut receiver = Receiver::ready();
        assert!(matches!(receiver.send(bytes), Err(Failure::BadOffer(_))), "{case}");
    }
    // The same block twice, under way or there.
    for is_stored in [false, true] {
        let mut receiver = Receiver::ready();
        receiver.send(&[&header(0), &block(0)]).unwrap();
        if is_stored {
            receiver.work().unwrap();
        }
        assert!(matches!(receiver.send(&[&header(0), &block(0)]), Err(Failure::BadOffer(_))));
    }
}

#[test]
fn messages_that_are_not_due_end_the_transfer() {
    let before_the_offer = [Message::Root(root()), Message::Value { index: 0, value: [0; 32] }];
    for message in before_the_offer {
        assert!(matches!(Receiver::new().say(&message), Err(Failure::Broken(_))), "{message:?}");
    }
    let after_it = [
        Message::Offer(offer()),
        Message::Have(vec![0]),
        Message::Again { index: 0 },
        Message::Verified(root()),
        Message::Value { index: 0, value: [0; 32] },
    ];
    for message in after_it {
        assert!(matches!(Receiver::ready().say(&message), Err(Failure::Broken(_))), "{message:?}");
    }
    let mut receiver = Receiver::ready();
    receiver.say(&Message::Root(root())).unwrap();
    assert!(matches!(receiver.say(&Message::Root(root())), Err(Failure::Broken(_))));
}

#[test]
fn another_file_than_the_accepted_one_is_refused() {
    let accepted = offer();
    let others = [
        Offer { name: "b".into(), ..accepted.clone() },
        Offer { size: SIZE + 1, ..accepted.clone() },
        Offer { transfer: "f".repeat(32).parse().unwrap(), ..accepted },
    ];
    for other in others {
        assert!(matches!(Receiver::new().say(&Message::Offer(other)), Err(Failure::BadOffer(_))));
    }
}

#[test]
fn a_receiver_that_asks_for_what_is_not_there_or_confirms_what_was_not_sent_is_given_up() {
    let full = Bitmap::from_bytes(3, &[0b111]).unwrap();
    let cases: [&[Message]; 6] = [
        &[Message::Have(vec![0, 0])],
        &[Message::Have(vec![0b1000])],
        &[Message::Again { index: 0 }],
        &[Message::Have(full.as_bytes().to_vec()), Message::Again { index: 3 }],
        &[Message::Have(full.as_bytes().to_vec()), Message::Verified([7; 32])],
        &[Message::Offer(offer())],
    ];
    for messages in cases {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, (0..3).flat_map(block).collect::<Vec<u8>>()).unwrap();
        let mut pair = Pair::new();
        let (worker, _woken) = worker();
        let mut sending = Sending::new(1, Source::open(&path).unwrap(), offer());
        sending.begin(pair.connection(CLIENT)).unwrap();
        sending.drive(pair.connection(CLIENT), &worker).unwrap();
        pair.settle();
        let stream = pair.connection(SERVER).streams().accept(Dir::Bi).unwrap();
        let mut control = Control::new(pair.connection(SERVER), stream);
        assert_eq!(control.hear(pair.connection(SERVER)).unwrap(), Some(Message::Offer(offer())));
        messages.iter().for_each(|message| control.say(message));
        control.flush(pair.connection(SERVER)).unwrap();
        pair.settle();
        assert!(sending.drive(pair.connection(CLIENT), &worker).is_err(), "{messages:?}");
        assert_eq!(sending.verified(), None);
    }
}
