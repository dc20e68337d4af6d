//! A client of `rustls` and the server's side of its connection, with the bytes between them in memory.

use std::io::{Read, Write};

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// A client and the server's side of its connection, with the bytes between them in memory.
struct Pair {
    client: ClientConnection,
    session: Session,
    sealer: Sealer,
    /// Where records are read into.
    buffer: Vec<u8>,
    heard: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["messenger".to_owned()]).unwrap().self_signed(&key).unwrap();
        let chain = vec![certificate.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        let server = server_config(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
        Self {
            client: ClientConnection::new(config, ServerName::try_from("messenger").unwrap()).unwrap(),
            session: Session::new(&server).unwrap(),
            sealer: Sealer::default(),
            buffer: vec![0; 64 << 10],
            heard: Vec::new(),
        }
    }

    /// What the client has to send.
    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut records).unwrap();
        }
        records
    }

    /// Gives bytes to the server's side, as they would be read.
    fn receive(&mut self, bytes: &[u8]) -> Result<Input, Error> {
        let kept = self.session.put_unread(&mut self.buffer);
        let filled = kept + bytes.len();
        self.buffer[kept..filled].copy_from_slice(bytes);
        let heard = &mut self.heard;
        self.session.receive(&mut self.buffer[..filled], |bytes| heard.extend_from_slice(bytes))
    }

    /// Gives bytes to the client.
    fn answer(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            self.client.process_new_packets().unwrap();
        }
    }

    /// Gives what the server's side has to send to the client, as if the socket took all.
    fn flush(&mut self) {
        let unsent = self.session.unsent().to_vec();
        self.session.handle_sent(unsent.len());
        self.answer(&unsent);
    }

    fn shake_hands(&mut self) {
        while self.client.is_handshaking() || self.session.is_handshaking() {
            let records = self.records();
            self.receive(&records).unwrap();
            self.flush();
        }
        assert_eq!(self.owned_bytes(), 0);
    }

    /// The bytes that are kept beside what `rustls` keeps.
    fn owned_bytes(&self) -> usize {
        self.session.unread.capacity() + self.session.unsent.capacity()
    }

    fn client_says(&mut self, text: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(text).unwrap();
        self.records()
    }

    /// Sends the beginning of an output and gives how much of it that was, with what the client reads.
    fn server_says(&mut self, slices: &[&[u8]]) -> (usize, Vec<u8>) {
        let count = self.session.seal(slices.iter().copied(), &mut self.sealer).unwrap();
        let sealed = self.sealer.sealed().to_vec();
        self.answer(&sealed);
        let mut text = vec![0; count];
        self.client.reader().read_exact(&mut text).unwrap();
        (count, text)
    }
}

#[test]
fn a_hello_may_be_cut_anywhere() {
    let hello_bytes = Pair::new().records().len();
    for cut in 1..hello_bytes {
        let mut pair = Pair::new();
        let hello = pair.records();
        let cut = cut.min(hello.len() - 1);
        pair.receive(&hello[..cut]).unwrap();
        assert_eq!(pair.session.unsent(), b"");
        pair.receive(&hello[cut..]).unwrap();
        pair.flush();
        pair.shake_hands();
    }
}

#[test]
fn records_may_come_byte_by_byte_and_nothing_is_kept_of_them() {
    let mut pair = Pair::new();
    while pair.client.is_handshaking() || pair.session.is_handshaking() {
        for byte in pair.records() {
            assert_eq!(pair.receive(&[byte]), Ok(Input::Open));
        }
        pair.flush();
    }
    let records = pair.client_says(b"/users\n/groups\n");
    for (at, byte) in records.iter().enumerate() {
        assert_eq!(pair.heard, b"", "at {at}");
        pair.receive(&[*byte]).unwrap();
    }
    assert_eq!(pair.heard, b"/users\n/groups\n");
    assert_eq!(pair.owned_bytes(), 0);
}

#[test]
fn many_records_and_a_part_come_at_once() {
    let mut pair = Pair::new();
    pair.shake_hands();
    let text: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    let records: Vec<u8> = text.chunks(60_000).flat_map(|chunk| pair.client_says(chunk)).collect();
    for bytes in records.chunks(40_000) {
        pair.receive(bytes).unwrap();
    }
    assert!(pair.heard == text);
    assert_eq!(pair.owned_bytes(), 0);
}

#[test]
fn an_output_goes_out_in_records_however_its_slices_lie() {
    let mut pair = Pair::new();
    pair.shake_hands();
    let long = vec![7; 3 * TLS_RECORD_BYTES_MAX];
    assert_eq!(pair.server_says(&[b"one"]), (3, b"one".to_vec()));
    assert_eq!(pair.server_says(&[b"one", b"two", b"", b"three"]), (11, b"onetwothree".to_vec()));
    assert_eq!(pair.server_says(&[&long]).0, TLS_RECORD_BYTES_MAX);
    assert_eq!(pair.server_says(&[&long, b"more"]).0, TLS_RECORD_BYTES_MAX);
    let (count, text) = pair.server_says(&[b"head", &long, b"more"]);
    assert_eq!((count, &text[..5]), (TLS_RECORD_BYTES_MAX, b"head\x07".as_slice()));
}

#[test]
fn both_sides_say_goodbye_and_the_other_can_still_be_spoken_to() {
    let mut pair = Pair::new();
    pair.shake_hands();
    pair.client.send_close_notify();
    let mut records = pair.records();
    records.extend_from_slice(b"whatever comes behind the end");
    assert_eq!(pair.receive(&records), Ok(Input::Ended));
    assert_eq!(pair.receive(b"more of it"), Ok(Input::Ended));
    assert_eq!(pair.server_says(&[b"so long"]).1, b"so long");
    pair.session.say_goodbye().unwrap();
    pair.session.say_goodbye().unwrap();
    pair.flush();
    assert_eq!(pair.client.reader().read(&mut [0; 8]).unwrap(), 0, "an end, and no cut");
}

#[test]
fn keys_that_are_changed_take_no_memory() {
    let mut pair = Pair::new();
    pair.shake_hands();
    for _ in 0..20 {
        pair.client.refresh_traffic_keys().unwrap();
        let records = pair.client_says(b"x");
        pair.receive(&records).unwrap();
        assert_eq!(pair.owned_bytes(), 0);
    }
    assert_eq!(pair.heard, [b'x'; 20]);
    assert_eq!(pair.server_says(&[b"one"]).1, b"one");
}

#[test]
fn what_is_no_record_or_was_changed_is_answered_with_an_alert() {
    let mut pair = Pair::new();
    // Not even the beginning of a message: `rustls` has nothing to say to it.
    assert!(pair.receive(b"\x16\x03\x01\x00\x05hello").is_err());
    let mut pair = Pair::new();
    // A hello of one byte.
    assert!(pair.receive(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").is_err());
    assert_eq!(pair.session.unsent()[..3], [0x15, 3, 3], "an alert");
    let mut pair = Pair::new();
    pair.shake_hands();
    let mut records = pair.client_says(b"/users\n");
    *records.last_mut().unwrap() ^= 1;
    assert!(pair.receive(&records).is_err());
    assert_eq!(pair.heard, b"");
    assert!(!pair.session.unsent().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_a_client_sends_is_taken_or_refused(
        at_hello in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
        steps in prop::collection::vec(1..400_usize, 1..20),
    ) {
        let mut pair = Pair::new();
        let mut records = if at_hello {
            pair.records()
        } else {
            let hello = pair.records();
            pair.receive(&hello).unwrap();
            pair.flush();
            let mut records = pair.client_says(b"/users\n");
            pair.client.refresh_traffic_keys().unwrap();
            records.extend(pair.client_says(b"/groups\n"));
            pair.client.send_close_notify();
            records.extend(pair.records());
            records
        };
        for (place, byte, kind) in changes {
            let place = place.index(records.len());
            match kind {
                0 => records[place] = byte,
                1 => records.truncate(place.max(1)),
                _ => records.insert(place, byte),
            }
        }
        let mut sizes = steps.iter().cycle();
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let count = rest.len().min(*sizes.next().unwrap());
            if pair.receive(&rest[..count]).is_err() {
                break;
            }
            rest = &rest[count..];
            if !pair.session.is_handshaking() {
                pair.session.seal([b"told".as_slice()].into_iter(), &mut pair.sealer).unwrap();
            }
        }
        prop_assert!(b"/users\n/groups\n".starts_with(&pair.heard), "only what was said is heard");
    }
}

#[test]
fn a_message_of_a_handshake_that_does_not_end_is_refused() {
    let mut pair = Pair::new();
    // A hello of 65,535 bytes, in records of 1,000.
    let mut begun = pair.receive(&[&[0x16, 3, 1, 3, 232, 1, 0, 0xFF, 0xFF], [0; 996].as_slice()].concat());
    for _ in 0..20 {
        if begun.is_err() {
            return;
        }
        begun = pair.receive(&[&[0x16, 3, 1, 3, 232], [0; 1_000].as_slice()].concat());
    }
    panic!("{} bytes are kept", pair.owned_bytes());
}
