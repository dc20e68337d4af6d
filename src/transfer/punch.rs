//! Finding an address that works: both sides send small packets to all of the other's addresses and answer them.
//!
//! ```text
//! first byte (1) | kind (1): 1 ask, 2 answer | tag of the transfer (8) | nonce (8) | number (1)
//! ```
//!
//! The tag is drawn from the transfer's number, which only the two and the server know; packets without it are silently
//! dropped. An answer repeats the ask, so only who receives at an address can answer for it: nothing larger than a
//! punch packet ever goes to an address that did not. An address gets at most [`PUNCHES_PER_ADDRESS_MAX`] of them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::names::TransferId;

use super::limits::{ADDRESSES_MAX, PUNCH_GRACE, PUNCH_INTERVAL, PUNCHES_PER_ADDRESS_MAX};

/// The first byte of a punch packet. STUN has 0 to 3 and QUIC 64 and above (RFC 9443); 5 is kept for a relay's frames.
pub const FIRST_BYTE: u8 = 4;
/// Bytes of a punch packet.
pub const PACKET_BYTES: usize = 19;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 8;

const ASK: u8 = 1;
const ANSWER: u8 = 2;

/// A punch packet.
pub type Packet = [u8; PACKET_BYTES];
/// What the packets of one transfer are known by.
pub type Tag = [u8; TAG_BYTES];

/// The tag of a transfer.
pub fn tag(transfer: TransferId) -> Tag {
    let key = blake3::derive_key("messenger 2026 tag of a peer transfer", transfer.as_str().as_bytes());
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&key[..TAG_BYTES]);
    tag
}

/// The tag of a punch packet; `None` if it is none.
pub fn tag_of(packet: &[u8]) -> Option<Tag> {
    let packet: &Packet = packet.try_into().ok()?;
    let [FIRST_BYTE, ASK | ANSWER, tag @ .., _, _, _, _, _, _, _, _, _] = *packet else { return None };
    Some(tag)
}

/// The search for a peer's address.
#[derive(Debug)]
pub struct Punch {
    tag: Tag,
    secret: [u8; 32],
    candidates: Vec<Candidate>,
    /// When the first address answered.
    answered_at: Option<Instant>,
}

#[derive(Debug)]
struct Candidate {
    address: SocketAddr,
    sent_at: Vec<Instant>,
    round_trip: Option<Duration>,
}

impl Candidate {
    fn next_at(&self) -> Option<Instant> {
        if self.sent_at.len() >= PUNCHES_PER_ADDRESS_MAX {
            return None;
        }
        self.sent_at.last().map(|last| *last + PUNCH_INTERVAL)
    }
}

impl Punch {
    /// A search for the peer of a transfer; `secret` is random and makes the nonces.
    pub fn new(transfer: TransferId, secret: [u8; 32], addresses: &[SocketAddr]) -> Self {
        let mut this = Self { tag: tag(transfer), secret, candidates: Vec::new(), answered_at: None };
        for address in addresses {
            this.add(*address);
        }
        this
    }

    /// Takes one more address, if it can be one and there is room for it.
    pub fn add(&mut self, address: SocketAddr) {
        let is_known = self.candidates.iter().any(|candidate| candidate.address == address);
        if !is_known && is_possible(address) && self.candidates.len() < ADDRESSES_MAX {
            self.candidates.push(Candidate { address, sent_at: Vec::new(), round_trip: None });
        }
    }

    /// The tag of the transfer.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// The shortest round trip to any address that has answered.
    pub fn round_trip(&self) -> Option<Duration> {
        self.candidates.iter().filter_map(|candidate| candidate.round_trip).min()
    }

    /// The next packet that is due, and its address.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Packet)> {
        let due = |candidate: &Candidate| {
            candidate.sent_at.is_empty() || candidate.next_at().is_some_and(|next_at| next_at <= now)
        };
        let candidate = self.candidates.iter_mut().find(|candidate| due(candidate))?;
        let number = u8::try_from(candidate.sent_at.len()).unwrap_or(u8::MAX);
        candidate.sent_at.push(now);
        let address = candidate.address;
        Some((address, self.packet(ASK, self.nonce(address), number)))
    }

    /// When [`Punch::poll_transmit`] or [`Punch::chosen`] have something next.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let sends = self
            .candidates
            .iter()
            .filter_map(|candidate| if candidate.sent_at.is_empty() { Some(now) } else { candidate.next_at() });
        sends.chain(self.answered_at.map(|at| at + PUNCH_GRACE).filter(|over| *over > now)).min()
    }

    /// Takes a packet with this transfer's tag; gives the answer that goes back to where it came from, if one does.
    pub fn handle(&mut self, from: SocketAddr, packet: &[u8], now: Instant) -> Option<Packet> {
        let packet: &Packet = packet.try_into().ok()?;
        let [_, kind, _, _, _, _, _, _, _, _, nonce @ .., number] = *packet;
        match kind {
            ASK => {
                // An address that nobody told us of, but that the peer does send from.
                self.add(from);
                Some(self.packet(ANSWER, nonce, number))
            }
            _ => {
                self.note_answer(from, nonce, number, now);
                None
            }
        }
    }

    /// The best address that has answered, with its round trip: at once if no other could be better, else after a
    /// short grace.
    pub fn chosen(&self, now: Instant) -> Option<(SocketAddr, Duration)> {
        let grace_is_over = self.answered_at? + PUNCH_GRACE <= now;
        let answered = |candidate: &&Candidate| candidate.round_trip.is_some();
        let best = self
            .candidates
            .iter()
            .filter(answered)
            .min_by_key(|candidate| (rank(candidate.address.ip()), candidate.round_trip))?;
        let better_may_come = self
            .candidates
            .iter()
            .any(|candidate| candidate.round_trip.is_none() && rank(candidate.address.ip()) < rank(best.address.ip()));
        if better_may_come && !grace_is_over {
            return None;
        }
        Some((best.address, best.round_trip?))
    }

    fn note_answer(&mut self, from: SocketAddr, nonce: [u8; 8], number: u8, now: Instant) {
        if nonce != self.nonce(from) {
            return;
        }
        let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.address == from) else { return };
        let Some(sent_at) = candidate.sent_at.get(usize::from(number)) else { return };
        let round_trip = now.saturating_duration_since(*sent_at);
        candidate.round_trip = Some(candidate.round_trip.map_or(round_trip, |known| known.min(round_trip)));
        self.answered_at.get_or_insert(now);
    }

    fn packet(&self, kind: u8, nonce: [u8; 8], number: u8) -> Packet {
        let mut packet = [0; PACKET_BYTES];
        packet[0] = FIRST_BYTE;
        packet[1] = kind;
        packet[2..10].copy_from_slice(&self.tag);
        packet[10..18].copy_from_slice(&nonce);
        packet[18] = number;
        packet
    }

    fn nonce(&self, address: SocketAddr) -> [u8; 8] {
        let hash = blake3::keyed_hash(&self.secret, address.to_string().as_bytes());
        let mut nonce = [0; 8];
        nonce.copy_from_slice(&hash.as_bytes()[..8]);
        nonce
    }
}

/// Whether one peer can be there: no broadcast, no group of hosts, no port 0.
fn is_possible(address: SocketAddr) -> bool {
    let ip = address.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

/// Which address is preferred: this machine, the local network, IPv6, anything else.
fn rank(ip: IpAddr) -> u8 {
    match ip {
        ip if ip.is_loopback() => 0,
        IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => 1,
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => 1,
        IpAddr::V6(_) => 2,
        IpAddr::V4(_) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer() -> TransferId {
        "0123456789abcdef0123456789abcdef".parse().unwrap()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn sent(punch: &mut Punch, now: Instant) -> Vec<(SocketAddr, Packet)> {
        std::iter::from_fn(|| punch.poll_transmit(now)).collect()
    }

    #[test]
    fn each_address_is_asked_every_interval_and_only_so_often() {
        let mut now = crate::clock::monotonic();
        let mut punch = Punch::new(transfer(), [1; 32], &[address("10.0.0.1:5"), address("[2001:db8::1]:5")]);
        let mut count = 0;
        while punch.next_timeout(now).is_some_and(|due| due <= now) {
            count += sent(&mut punch, now).len();
            assert_eq!(punch.poll_transmit(now), None);
            now += PUNCH_INTERVAL;
        }
        assert_eq!(count, 2 * PUNCHES_PER_ADDRESS_MAX);
        assert_eq!(punch.next_timeout(now), None);
    }

    #[test]
    fn an_answer_must_come_from_where_the_ask_went_and_repeat_it() {
        let now = crate::clock::monotonic();
        let (near, far) = (address("10.0.0.1:5"), address("192.0.2.1:5"));
        let mut asking = Punch::new(transfer(), [1; 32], &[near]);
        let mut answering = Punch::new(transfer(), [2; 32], &[]);
        let (to, ask) = asking.poll_transmit(now).unwrap();
        assert_eq!((to, tag_of(&ask)), (near, Some(tag(transfer()))));
        let answer = answering.handle(far, &ask, now).unwrap();
        asking.handle(far, &answer, now);
        let mut forged = answer;
        forged[12] ^= 1;
        asking.handle(near, &forged, now);
        assert_eq!(asking.chosen(now), None);
        asking.handle(near, &answer, now + Duration::from_millis(7));
        assert_eq!(asking.chosen(now + Duration::from_millis(7)), Some((near, Duration::from_millis(7))));
    }

    #[test]
    fn a_better_address_is_waited_for_within_the_grace_only() {
        let now = crate::clock::monotonic();
        let (local, outside) = (address("10.0.0.1:5"), address("192.0.2.1:5"));
        let mut asking = Punch::new(transfer(), [1; 32], &[local, outside]);
        let mut answering = Punch::new(transfer(), [2; 32], &[]);
        let asks = sent(&mut asking, now);
        let answer = |answering: &mut Punch, to: SocketAddr| {
            let (_, ask) = asks.iter().find(|(address, _)| *address == to).unwrap();
            answering.handle(outside, ask, now).unwrap()
        };
        asking.handle(outside, &answer(&mut answering, outside), now);
        assert_eq!(asking.chosen(now), None);
        assert_eq!(asking.chosen(now + PUNCH_GRACE).map(|chosen| chosen.0), Some(outside));
        asking.handle(local, &answer(&mut answering, local), now);
        assert_eq!(asking.chosen(now).map(|chosen| chosen.0), Some(local));
    }

    #[test]
    fn addresses_that_are_no_ones_or_too_many_are_not_asked() {
        let now = crate::clock::monotonic();
        let mut addresses: Vec<SocketAddr> =
            ["255.255.255.255:5", "224.0.0.1:5", "[ff02::1]:5", "0.0.0.0:5", "10.0.0.1:0"].map(address).into();
        addresses.extend((0..100).map(|last| SocketAddr::from(([10, 1, 1, last], 7))));
        let mut punch = Punch::new(transfer(), [1; 32], &addresses);
        let sent = sent(&mut punch, now);
        assert_eq!(sent.len(), ADDRESSES_MAX);
        assert!(sent.iter().all(|(to, _)| to.port() == 7));
    }

    #[test]
    fn what_is_no_punch_packet_has_no_tag() {
        assert_eq!(tag_of(&[]), None);
        assert_eq!(tag_of(&[0x40; PACKET_BYTES]), None);
        assert_eq!(tag_of(&[FIRST_BYTE; PACKET_BYTES]), None);
    }
}
