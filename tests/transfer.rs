//! Peer transfers between engines on the loopback network: whole files or none, whatever the network, the disk or a
//! stranger does.

#[path = "support/random.rs"]
pub mod random;
#[path = "support/transfers.rs"]
mod transfers;

use transfers::{Damage, World};

const MIB: usize = 1 << 20;

#[test]
fn files_of_every_edge_arrive_whole() {
    let mut world = World::new(2, 1);
    for size in [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 12_345] {
        let path = world.file(0, &format!("{size}.bin"), size);
        let transfer = world.introduce(0, 1, &path);
        let saved_as = world.arrives(0, 1, transfer, &path);
        assert_eq!(saved_as.file_name().unwrap().to_str().unwrap(), format!("yoda_{size}.bin"));
    }
    world.run_until("all connections are over", |world| (0..2).all(|place| !world.engine(place).is_busy()));
}

#[test]
fn a_file_arrives_whole_through_a_network_that_loses_doubles_delays_and_damages() {
    for (seed, lost) in [(2, 0), (3, 10), (4, 50)] {
        let mut world = World::new(2, seed);
        let path = world.file(0, "a.bin", 6 * MIB + 7);
        let damage = Damage { lost, doubled: 10, late: 10, flipped: 5, breaks_after: 0 };
        let transfer = world.introduce_through(0, 1, &path, damage);
        world.arrives(0, 1, transfer, &path);
    }
}
