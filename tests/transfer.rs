//! Peer transfers between engines on the loopback network: whole files or none, whatever the network, the disk, a peer
//! or a stranger does.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/random.rs"]
mod random;
#[path = "support/transfers.rs"]
mod transfers;

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

use messenger::chat::FileOffer;
use messenger::transfer::{Engine, Failure, limits};
use rustls::pki_types::{Der, TrustAnchor};
use transfers::{Damage, World, user};

const MIB: usize = 1 << 20;

#[test]
fn files_of_every_edge_arrive_whole_one_after_the_other() {
    let mut world = World::new(2, 1);
    for size in [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 12_345] {
        let path = world.file(0, &format!("{size}.bin"), size);
        let transfer = world.introduce(0, 1, &path);
        let saved_as = world.arrives(0, 1, transfer, &path);
        assert_eq!(saved_as, world.in_dir(1).join(format!("yoda_{size}.bin")));
        assert_eq!(std::fs::metadata(&saved_as).unwrap().mode() & 0o777, 0o600);
    }
    world.run_until("all connections are over", |world| (0..2).all(|place| !world.engine(place).is_busy()));
    assert_eq!(world.received_names(1).len(), 6, "nothing but the files is left: {:?}", world.received_names(1));
}

#[test]
fn a_file_arrives_whole_through_a_network_that_loses_doubles_delays_and_damages() {
    for (seed, lost) in [(2, 0), (3, 10), (4, 50)] {
        let mut world = World::new(2, seed);
        let path = world.file(0, "a.bin", 6 * MIB + 7);
        let damage = Damage { lost, doubled: 10, late: 10, flipped: 5, breaks_after_bytes: 0 };
        let transfer = world.introduce_through(0, 1, &path, damage);
        world.arrives(0, 1, transfer, &path);
    }
}

#[test]
fn content_that_looks_like_the_protocol_is_only_content() {
    let mut world = World::new(2, 5);
    let path = world.file(0, "tricky.bin", 0);
    let words = b"\x06\0\0\0\x20EOF\r\n.\r\nDONE{\"type\":\"transfer\",\"outcome\":\"done\"}\0\0".repeat(40_000);
    std::fs::write(&path, words).unwrap();
    let transfer = world.introduce(0, 1, &path);
    world.arrives(0, 1, transfer, &path);
}

#[test]
fn several_files_go_both_ways_at_once() {
    let mut world = World::new(2, 6);
    let mut under_way = Vec::new();
    for number in 0..limits::TRANSFERS_MAX {
        for (from, to) in [(0, 1), (1, 0)] {
            let path = world.file(from, &format!("{number}.bin"), 2 * MIB + number);
            under_way.push((from, to, world.introduce(from, to, &path), path));
        }
    }
    for (from, to, transfer, path) in under_way {
        world.arrives(from, to, transfer, &path);
    }
}

#[test]
fn one_transfer_more_than_the_limit_is_refused_on_either_side() {
    let mut world = World::new(2, 7);
    let path = world.file(0, "a.bin", MIB);
    let (key, now) = (world.key(0), world.now());
    let offer = world.offer(&path);
    for _ in 0..limits::TRANSFERS_MAX {
        let (first, second) = (world.transfer_id(), world.transfer_id());
        world.engine(1).accept(first, user(0), &offer, &key, &[], now).unwrap();
        world.engine(1).start(second, Engine::prepare(&path).unwrap(), &key, &[], now);
    }
    let transfer = world.transfer_id();
    let refused = world.engine(1).accept(transfer, user(0), &offer, &key, &[], now);
    assert!(matches!(refused, Err(Failure::Limit(_))), "{refused:?}");
    world.engine(1).start(transfer, Engine::prepare(&path).unwrap(), &key, &[], now);
    let [ending] = world.endings([1], transfer);
    assert_eq!(ending, Err("a limit of transfers was reached: too many transfers are under way".into()));
}

#[test]
fn who_does_not_hold_the_introduced_key_gets_nothing() {
    const SENTENCE: &str = "the peer does not hold the key that it was introduced with; nothing was sent";
    // The sender was told of another receiver, and the receiver of another sender.
    for wrong in [0, 1] {
        let mut world = World::new(3, 8);
        let path = world.file(0, "a.bin", 3 * MIB);
        let (transfer, now) = (world.transfer_id(), world.now());
        let (sender, receiver) = (world.address(0), world.address(1));
        let mut keys = [world.key(0), world.key(1)];
        keys[wrong] = world.key(2);
        let offer = world.offer(&path);
        world.engine(1).accept(transfer, user(0), &offer, &keys[0], &[sender], now).unwrap();
        world.engine(0).start(transfer, Engine::prepare(&path).unwrap(), &keys[1], &[receiver], now);
        let [sent] = world.endings([0], transfer);
        assert_eq!(sent, Err(SENTENCE.into()));
        world.run_until("the false peer's connection is over", |world| !world.engine(0).is_busy());
        assert!(world.engine(1).is_busy(), "the true peer may still come");
        world.skip(limits::AWAIT_SENDER);
        let [received] = world.endings([1], transfer);
        assert!(received.is_err_and(|sentence| sentence == SENTENCE || sentence.contains("too long")));
        assert_eq!(world.peers[1].events.len(), 1, "no byte was taken: {:?}", world.peers[1].events);
    }
}

#[test]
fn a_key_that_is_none_is_refused() {
    let mut world = World::new(1, 9);
    let path = world.file(0, "a.bin", 1);
    let (transfer, now, offer) = (world.transfer_id(), world.now(), world.offer(&path));
    let refused = world.engine(0).accept(transfer, user(1), &offer, "d75a", &[], now);
    assert!(matches!(refused, Err(Failure::BadKey)), "{refused:?}");
    world.engine(0).start(transfer, Engine::prepare(&path).unwrap(), "", &[], now);
    let [sent] = world.endings([0], transfer);
    assert_eq!(sent, Err("the key that the peer was introduced with is no key".into()));
}

#[test]
fn strangers_are_not_answered_and_do_no_harm() {
    let mut world = World::new(3, 10);
    let path = world.file(0, "a.bin", 8 * MIB);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let receiver = world.address(1);
    // A stranger that is a client itself tries the handshake of a transfer that the receiver did not accept.
    let (unknown, receiver_key, now) = (world.transfer_id(), world.key(1), world.now());
    let other = world.file(2, "b.bin", MIB);
    world.engine(2).start(unknown, Engine::prepare(&other).unwrap(), &receiver_key, &[receiver], now);
    let transfer = world.introduce(0, 1, &path);
    // While the sender is awaited: a true handshake, and one of a version that nobody speaks.
    let mut first = first_packet(receiver, now);
    stranger.send_to(&first, receiver).unwrap();
    first[1..5].copy_from_slice(&0x0A0A_0A0A_u32.to_be_bytes());
    stranger.send_to(&first, receiver).unwrap();
    world.run_until("the file has arrived and much was thrown at it", |world| {
        for length in [1, 19, 64, 1_200, 1_400] {
            let mut bytes: Vec<u8> = (0..length).map(|_| world.random.next().to_le_bytes()[0]).collect();
            let first = [0x00, 0x04, 0x40, 0xC0, 0xC3, 0xE0, 0xF0];
            bytes[0] = *world.random.pick(&first);
            if let (true, Some(version)) = (world.random.one_in(2), bytes.get_mut(1..5)) {
                // The version that is spoken, so that it is looked at further.
                version.copy_from_slice(&1_u32.to_be_bytes());
            }
            let _ = stranger.send_to(&bytes, receiver);
        }
        world.ending(1, transfer).is_some()
    });
    world.arrives(0, 1, transfer, &path);
    let heard = stranger.recv_from(&mut [0; 2_000]);
    assert_eq!(heard.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the port is silent");
    world.skip(limits::HANDSHAKE);
    let [sent] = world.endings([2], unknown);
    assert_eq!(sent, Err("none of the peer's addresses can be reached directly".into()));
}

#[test]
fn one_address_of_several_is_enough_and_may_come_later() {
    let mut world = World::new(2, 11);
    let path = world.file(0, "a.bin", MIB);
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for is_late in [false, true] {
        let (transfer, now) = (world.transfer_id(), world.now());
        let (sender_key, receiver_key) = (world.key(0), world.key(1));
        let (offer, receiver) = (world.offer(&path), world.address(1));
        world.engine(1).accept(transfer, user(0), &offer, &sender_key, &[dead], now).unwrap();
        let known = if is_late { vec![dead] } else { vec![dead, "[::1]:9".parse().unwrap(), receiver] };
        world.engine(0).start(transfer, Engine::prepare(&path).unwrap(), &receiver_key, &known, now);
        if is_late {
            world.skip(Duration::from_secs(5));
            let now = world.now();
            world.engine(0).add_address(transfer, receiver, now);
        }
        world.arrives(0, 1, transfer, &path);
    }
}

#[test]
fn a_transfer_is_cancelled_by_either_side_and_leaves_nothing() {
    for side in [0, 1] {
        let mut world = World::new(2, 12);
        let path = world.file(0, "a.bin", 20 * MIB);
        let transfer = world.transfer_id();
        world.break_after(transfer, 0, 1, &path, 5 * MIB);
        world.mend();
        let now = world.now();
        world.engine(side).cancel(transfer, now);
        let [sent, received] = world.endings([0, 1], transfer);
        assert_eq!([sent, received], [(); 2].map(|()| Err("the transfer was cancelled".to_owned())));
        world.run_until("the part is removed", |world| world.received_names(1).is_empty());
        world.run_until("all connections are over", |world| (0..2).all(|place| !world.engine(place).is_busy()));
    }
}

#[test]
fn a_transfer_is_cancelled_while_it_is_only_accepted() {
    let mut world = World::new(2, 13);
    let path = world.file(0, "a.bin", MIB);
    let (transfer, now, key, offer) = (world.transfer_id(), world.now(), world.key(0), world.offer(&path));
    world.engine(1).accept(transfer, user(0), &offer, &key, &[], now).unwrap();
    world.engine(1).cancel(transfer, now);
    let [received] = world.endings([1], transfer);
    assert_eq!(received, Err("the transfer was cancelled".into()));
    world.run_until("the part is removed", |world| world.received_names(1).is_empty());
    assert!(!world.engine(1).is_busy());
}

#[test]
fn a_peer_that_is_killed_is_noticed_and_one_that_quits_says_so() {
    for (killed, quits) in [(0, false), (1, false), (0, true), (1, true)] {
        let mut world = World::new(2, 14);
        let path = world.file(0, "a.bin", 20 * MIB);
        let transfer = world.transfer_id();
        world.break_after(transfer, 0, 1, &path, 5 * MIB);
        world.mend();
        let engine = world.peers[killed].engine.take().unwrap();
        if quits {
            engine.close();
        } else {
            drop(engine);
            world.wait_until("the silence is noticed", |world| world.ending(1 - killed, transfer).is_some());
        }
        let [ending] = world.endings([1 - killed], transfer);
        let sentence = if quits { "the peer has gone" } else { "nothing was heard from the peer for too long" };
        assert_eq!(ending, Err(sentence.into()));
        world.run_until("all connections are over", |world| !world.engine(1 - killed).is_busy());
    }
}

#[test]
fn a_broken_transfer_is_taken_up_again_where_it_broke() {
    // The receiver is killed, or the network breaks.
    for is_killed in [true, false] {
        let mut world = World::new(2, 15);
        let path = world.file(0, "a.bin", 16 * MIB + 5);
        let (transfer, offer) = (world.transfer_id(), world.offer(&path));
        let part = world.in_dir(1).join(".yoda_a.bin.part");
        world.break_once(transfer, [0, 1], &path, "some blocks are there", || held_blocks(&part) > 3);
        if is_killed {
            drop(world.peers[1].engine.take());
            world.run_until("its files are closed", |_| is_unlocked(&part));
            world.start_program(1);
        }
        world.wait_until("the sender notices", |world| world.ending(0, transfer).is_some());
        world.wait_until("the receiver notices", |world| is_killed || world.ending(1, transfer).is_some());
        world.run_until("the part is free", |_| is_unlocked(&part));
        assert_eq!(world.received_names(1), [".yoda_a.bin.part", ".yoda_a.bin.part.have"]);
        assert!(world.engine(1).holds_part(transfer, user(0), &offer));
        let other = world.transfer_id();
        assert!(!world.engine(1).holds_part(other, user(0), &offer));
        assert!(!world.engine(1).holds_part(transfer, user(2), &offer));

        let held = held_blocks(&part);
        world.peers.iter_mut().for_each(|peer| peer.events.clear());
        let addresses = world.relay(0, 1, Damage::default());
        world.introduce_by(transfer, 0, 1, &path, addresses);
        world.arrives(0, 1, transfer, &path);
        let passed = world.passed_bytes();
        // Besides the rest: headers, the search for the largest datagram, and what a full buffer lost.
        let enough = 17 * MIB - held * MIB + 3 * MIB;
        assert!(held > 3 && passed < enough as u64, "what was there is not sent again: {held} {passed}");
        assert_eq!(world.received_names(1), ["yoda_a.bin"]);
    }
}

#[test]
fn a_part_that_was_damaged_or_is_of_another_version_is_mended() {
    let mut world = World::new(2, 16);
    let path = world.file(0, "a.bin", 8 * MIB);
    let transfer = world.transfer_id();
    world.break_after(transfer, 0, 1, &path, 5 * MIB);
    world.wait_until("both notice", |world| (0..2).all(|place| world.ending(place, transfer).is_some()));
    // A byte of a finished block is turned on the receiver's disk, and the file changes at the sender.
    let part = world.in_dir(1).join(".yoda_a.bin.part");
    world.run_until("the part is free", |_| is_unlocked(&part));
    flip_byte(&part, 5);
    flip_byte(&path, MIB + 5);
    world.peers.iter_mut().for_each(|peer| peer.events.clear());
    let addresses = [world.address(0), world.address(1)];
    world.introduce_by(transfer, 0, 1, &path, addresses);
    world.arrives(0, 1, transfer, &path);
}

#[test]
fn a_repeated_offer_takes_the_place_of_the_transfer_that_hangs() {
    let mut world = World::new(2, 17);
    let path = world.file(0, "a.bin", 8 * MIB);
    let transfer = world.transfer_id();
    world.break_after(transfer, 0, 1, &path, 5 * MIB);
    let addresses = [world.address(0), world.address(1)];
    world.introduce_by(transfer, 0, 1, &path, addresses);
    world.arrives(0, 1, transfer, &path);
    assert_eq!(world.received_names(1), ["yoda_a.bin"]);
}

#[test]
fn files_of_one_name_do_not_replace_each_other() {
    let mut world = World::new(2, 18);
    let path = world.file(0, "a.tar.gz", 3 * MIB);
    std::os::unix::fs::symlink("/etc/passwd", world.in_dir(1).join("yoda_a.tar.gz")).unwrap();
    let first = world.introduce(0, 1, &path);
    let second = world.introduce(0, 1, &path);
    let mut names = [first, second].map(|transfer| world.arrives(0, 1, transfer, &path));
    names.sort();
    assert_eq!(names, ["yoda_a.tar (1).gz", "yoda_a.tar (2).gz"].map(|name| world.in_dir(1).join(name)));
}

#[test]
fn nothing_is_written_through_a_link_or_outside_of_the_directory() {
    let mut world = World::new(2, 19);
    let target = world.peers[1].directory.path().join("target");
    std::fs::write(&target, b"untouched").unwrap();
    for name in [".yoda_x.part", ".yoda_x (1).part.have"] {
        std::os::unix::fs::symlink(&target, world.in_dir(1).join(name)).unwrap();
    }
    let path = world.file(0, "x", MIB);
    let (transfer, now) = (world.transfer_id(), world.now());
    let (keys, addresses) = ([world.key(0), world.key(1)], [world.address(0), world.address(1)]);
    let offer = FileOffer { name: "../../x".into(), ..world.offer(&path) };
    world.engine(1).accept(transfer, user(0), &offer, &keys[0], &addresses[..1], now).unwrap();
    assert!(world.received_names(1).iter().all(|name| name.starts_with(".yoda_x")));
    // The sender names another file than the one that was accepted.
    world.engine(0).start(transfer, Engine::prepare(&path).unwrap(), &keys[1], &addresses[1..], now);
    let [sent, received] = world.endings([0, 1], transfer);
    assert_eq!(sent, Err("the offer is not as agreed: the peer refused what it was sent".into()));
    assert!(received.unwrap_err().contains("another file than the one that was accepted"));
    assert_eq!(std::fs::read(&target).unwrap(), b"untouched");
}

#[test]
fn offers_that_cannot_be_taken_are_refused() {
    let mut world = World::new(1, 20);
    let (key, now) = (world.key(0), world.now());
    let refused = |world: &mut World, name: &str, size: u64| {
        let transfer = world.transfer_id();
        let offer = FileOffer { name: name.into(), size };
        world.engine(0).accept(transfer, user(1), &offer, &key, &[], now).unwrap_err()
    };
    assert!(matches!(refused(&mut world, "a/..", 1), Failure::BadOffer(_)));
    assert!(matches!(refused(&mut world, &"x".repeat(9_000), 1), Failure::BadOffer(_)));
    assert!(matches!(refused(&mut world, "a", (1 << 40) + 1), Failure::Limit(_)));
    assert_eq!(world.received_names(0).len(), 0);
    std::fs::set_permissions(world.in_dir(0), PermissionsExt::from_mode(0o500)).unwrap();
    std::fs::rename(world.in_dir(0), world.peers[0].directory.path().join("gone")).unwrap();
    assert!(matches!(refused(&mut world, "a", 1), Failure::Disk { .. }));
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_not_passed_off_as_whole() {
    let mut world = World::new(2, 21);
    let path = world.file(0, "a.bin", 30 * MIB);
    let transfer = world.transfer_id();
    world.break_after(transfer, 0, 1, &path, 5 * MIB);
    world.mend();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(29 * MIB as u64).unwrap();
    let [sent, received] = world.endings([0, 1], transfer);
    let sentence = "the file changed while it was sent; send it again";
    assert_eq!([sent, received], [(); 2].map(|()| Err(sentence.to_owned())));
}

#[test]
fn nobody_there_is_a_clear_failure() {
    let mut world = World::new(2, 22);
    let path = world.file(0, "a.bin", 1);
    let (transfer, now, key) = (world.transfer_id(), world.now(), world.key(1));
    world.engine(0).start(transfer, Engine::prepare(&path).unwrap(), &key, &[], now);
    world.skip(limits::HANDSHAKE);
    let [sent] = world.endings([0], transfer);
    assert_eq!(sent, Err("none of the peer's addresses can be reached directly".into()));
    let (offer, key) = (world.offer(&path), world.key(0));
    world.engine(1).accept(transfer, user(0), &offer, &key, &[], now).unwrap();
    world.skip(limits::AWAIT_SENDER);
    let [received] = world.endings([1], transfer);
    assert_eq!(received, Err("nothing was heard from the peer for too long".into()));
}

#[test]
fn addresses_are_those_of_this_machine_and_loopback_only_for_a_chat_on_it() {
    let mut world = World::new(1, 23);
    let loopback = "127.0.0.1".parse().unwrap();
    // Bound to one address, it has no other.
    let only = SocketAddr::new(loopback, world.engine(0).udp_port());
    assert_eq!(world.engine(0).addresses(loopback), [only]);
    world.start_program_at(0, "0.0.0.0:0".parse().unwrap());
    let port = world.engine(0).udp_port();
    let near = world.engine(0).addresses(loopback);
    assert_eq!(near.first(), Some(&SocketAddr::new(loopback, port)));
    let far = world.engine(0).addresses("192.0.2.1".parse().unwrap());
    assert!(far.iter().all(|address| address.port() == port && address.is_ipv4() && !address.ip().is_loopback()));
    assert_eq!(near[1..], far);
}

#[test]
fn a_socket_for_both_families_reaches_both() {
    if UdpSocket::bind("[::1]:0").is_err() {
        // A machine without IPv6 has no such socket.
        return;
    }
    let mut world = World::new(2, 24);
    world.start_program_at(0, "[::]:0".parse().unwrap());
    for (receiver_at, heard_at) in [("[::]:0", "::1"), ("[::]:0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.1")] {
        world.start_program_at(1, receiver_at.parse().unwrap());
        let path = world.file(0, "a.bin", MIB + 1);
        let transfer = world.transfer_id();
        let heard_at = heard_at.parse().unwrap();
        let addresses = [0, 1].map(|place| SocketAddr::new(heard_at, world.engine(place).udp_port()));
        world.introduce_by(transfer, 0, 1, &path, addresses);
        world.arrives(0, 1, transfer, &path);
    }
}

#[test]
fn a_receiver_that_quits_as_soon_as_it_is_done_does_not_make_the_sender_fail() {
    let mut world = World::new(2, 25);
    let path = world.file(0, "a.bin", 3 * MIB);
    let transfer = world.introduce(0, 1, &path);
    world.run_until("the receiver is done", |world| world.ending(1, transfer).is_some());
    world.peers[1].engine.take().unwrap().close();
    world.arrives(0, 1, transfer, &path);
}

/// The first packet of a handshake by one who was not introduced.
fn first_packet(to: SocketAddr, now: Instant) -> Vec<u8> {
    let mut roots = rustls::RootCertStore::empty();
    let (subject, subject_public_key_info) = (Der::from_slice(&[]), Der::from_slice(&[]));
    roots.roots.push(TrustAnchor { subject, subject_public_key_info, name_constraints: None });
    let config = noq_proto::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
    let mut endpoint = noq_proto::Endpoint::new(Arc::default(), None, true);
    let (_, mut connection) = endpoint.connect(now, config, to, "peer.invalid").unwrap();
    let mut packet = Vec::new();
    let transmit = connection.poll_transmit(now, NonZeroUsize::MIN, &mut packet).unwrap();
    packet.truncate(transmit.size);
    packet
}

fn is_unlocked(path: &std::path::Path) -> bool {
    let file = std::fs::File::open(path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Blocks that a part's side file says are there.
fn held_blocks(part: &std::path::Path) -> usize {
    let side = std::fs::read(part.with_extension("part.have")).unwrap_or_default();
    side.get(8_192..).unwrap_or_default().chunks(32).filter(|value| value.iter().any(|byte| *byte != 0)).count()
}

fn flip_byte(path: &std::path::Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}
