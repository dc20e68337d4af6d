//! The real server, killed again and again while clients talk: what was answered is there once, in order.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/audit.rs"]
mod audit;
#[path = "support/load.rs"]
mod load;
#[path = "support/random.rs"]
mod random;
#[path = "support/server.rs"]
mod server;

use std::path::Path;

use audit::{Audit, Derived, check_derived};
use load::{Load, Resend, times};
use random::Random;
use server::Server;

/// How often the server is killed, if it is not to be as often as the test says.
const KILLS: &str = "MESSENGER_TEST_KILLS";
/// Below how many answers after a start the kill is drawn.
const ANSWERS: usize = 100;

/// Kills a server that was just started: with some answer, or in one start of eight while they still connect.
fn kill_in_mid_load(server: &mut Server, load: &Load, random: &mut Random) {
    load.connect(server);
    let answers = if random.one_in(8) { 0 } else { random.below(ANSWERS) };
    load.wait_for_answers(answers);
    server.kill();
    load.wait_for_the_end();
}

#[test]
fn after_each_of_200_kills_in_mid_load_everything_answered_is_there_once_in_order() {
    let mut random = Random::new(9);
    let mut server = Server::start_with(&["--rate", "0"]);
    let load = Load::new(&server, Resend::Numbered);
    let mut audit = Audit::default();
    let kills = times(KILLS, 200);
    for kill in 1..=kills {
        kill_in_mid_load(&mut server, &load, &mut random);
        if kill % 10 == 0 {
            check_derived(&server, Derived::Beginning).unwrap_or_else(|wrong| panic!("kill {kill}: {wrong}"));
        }
        server.restart();
        audit.check(&server, &load).unwrap_or_else(|wrong| panic!("kill {kill}: {wrong}"));
    }
    load.end(&mut server);
    audit.check_complete(&mut server, &load).unwrap();
    eprintln!("{} messages through {kills} kills", audit.messages());
}

#[test]
fn clients_that_send_again_without_numbers_are_seen_to_double() {
    let mut random = Random::new(10);
    let mut server = Server::start_with(&["--rate", "0"]);
    let load = Load::new(&server, Resend::Unnumbered);
    let mut audit = Audit::default();
    let doubled = (0..20).find_map(|_| {
        kill_in_mid_load(&mut server, &load, &mut random);
        server.restart();
        audit.check(&server, &load).err()
    });
    let doubled = doubled.expect("what was carried out and not answered is carried out again");
    assert!(doubled.contains("is there twice"), "{doubled}");
}

#[test]
fn a_log_that_goes_back_to_an_earlier_state_between_two_starts_is_seen_to_have_lost() {
    let mut random = Random::new(11);
    let mut server = Server::start_with(&["--rate", "0"]);
    let load = Load::new(&server, Resend::Numbered);
    kill_in_mid_load(&mut server, &load, &mut random);
    let earlier = tempfile::tempdir().unwrap();
    let events = server.data().join("events");
    copy_files(&events, earlier.path());
    server.restart();
    Audit::default().check(&server, &load).unwrap();
    load.connect(&server);
    load.wait_for_answers(1_000);
    server.kill();
    load.wait_for_the_end();
    // Whole and consistent, as if the disk had taken back what it had confirmed: the server cannot know.
    copy_files(earlier.path(), &events);
    server.restart();
    let lost = Audit::default().check(&server, &load).unwrap_err();
    assert!(lost.starts_with("lost: "), "{lost}");
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
