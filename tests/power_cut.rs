//! The real server on a disk whose power is cut while clients talk: what was answered is there once, in order.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

#[path = "support/audit.rs"]
mod audit;
#[path = "support/block_device.rs"]
mod block_device;
#[path = "support/load.rs"]
mod load;
#[path = "support/random.rs"]
mod random;
#[path = "support/server.rs"]
mod server;

use audit::Audit;
use block_device::{Disk, Form, in_own_namespaces, skip};
use load::{Load, Resend, times};
use random::Random;
use server::Server;

/// How often the power is cut on each kind of disk, if it is not to be as often as the test says.
const CUTS: &str = "MESSENGER_TEST_POWER_CUTS";
/// Below how many answers after a start the cut is drawn.
const ANSWERS: usize = 500;
/// Runs a program whose syncs do nothing and succeed.
const WITHOUT_SYNC: &str = "eatmydata";

/// A server whose data directory is the root of a disk's file system.
fn start_on(disk: &Disk) -> Server {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(disk.files(), directory.path().join("data")).unwrap();
    Server::start_in(directory, &["--rate", "0"])
}

/// Cuts the power with some answer. What clients hear from then on is of a world that will not have been. Gives how
/// many bytes of the log had been written, and are not on the disk.
fn cut_in_mid_load(disk: &mut Disk, server: &mut Server, load: &Load, answers: usize) -> u64 {
    load.connect(server);
    load.wait_for_answers(answers);
    let told = load.mark();
    let written = log_bytes(server);
    disk.clone_now();
    server.kill();
    load.wait_for_the_end();
    load.forget_behind(&told);
    disk.return_to_clone();
    written.saturating_sub(log_bytes(server))
}

fn log_bytes(server: &Server) -> u64 {
    let segment = server.data().join("events/00000000000000000001.jsonl");
    segment.metadata().map_or(0, |metadata| metadata.len())
}

fn cut_again_and_again(form: Form, seed: u64) {
    let mut disk = match Disk::make(form) {
        Ok(disk) => disk,
        Err(why) => return skip(&why),
    };
    let mut random = Random::new(seed);
    let mut server = start_on(&disk);
    let load = Load::new(&server, Resend::Numbered);
    let mut audit = Audit::default();
    let cuts = times(CUTS, 20);
    let mut took_back = 0;
    for cut in 1..=cuts {
        took_back += u32::from(cut_in_mid_load(&mut disk, &mut server, &load, random.below(ANSWERS)) > 0);
        server.restart();
        audit.check(&server, &load).unwrap_or_else(|wrong| panic!("{form:?}, cut {cut}: {wrong}"));
    }
    load.end(&mut server);
    audit.check_complete(&mut server, &load).unwrap();
    assert!(took_back > 0, "{form:?}: no cut came between a write and its sync");
    let (messages, torn) = (audit.messages(), server.errors().matches("was never acknowledged").count());
    eprintln!("{form:?}: {messages} messages, {cuts} cuts: {took_back} took back what was written, {torn} tore it");
}

#[test]
fn after_each_cut_on_ext4_everything_answered_is_there_once_in_order() {
    in_own_namespaces("after_each_cut_on_ext4_everything_answered_is_there_once_in_order", || {
        cut_again_and_again(Form::Ext4, 1);
    });
}

#[test]
fn after_each_cut_on_xfs_everything_answered_is_there_once_in_order() {
    in_own_namespaces("after_each_cut_on_xfs_everything_answered_is_there_once_in_order", || {
        cut_again_and_again(Form::Xfs, 2);
    });
}

#[test]
fn after_each_cut_behind_a_cache_that_is_lost_everything_answered_is_there_once_in_order() {
    in_own_namespaces("after_each_cut_behind_a_cache_that_is_lost_everything_answered_is_there_once_in_order", || {
        cut_again_and_again(Form::Ext4BehindCache, 3);
    });
}

#[test]
fn a_server_whose_syncs_do_nothing_is_seen_to_lose() {
    in_own_namespaces("a_server_whose_syncs_do_nothing_is_seen_to_lose", || {
        for form in [Form::Ext4, Form::Xfs, Form::Ext4BehindCache] {
            let mut disk = match Disk::make(form) {
                Ok(disk) => disk,
                Err(why) => return skip(&why),
            };
            let mut server = start_on(&disk);
            let load = Load::new(&server, Resend::Numbered);
            // What comes before is safe, so that only what comes behind can be lost.
            cut_in_mid_load(&mut disk, &mut server, &load, 100);
            server.run_under(Some(WITHOUT_SYNC));
            server.restart();
            Audit::default().check(&server, &load).unwrap();
            cut_in_mid_load(&mut disk, &mut server, &load, 500);
            server.run_under(None);
            let seen = server.try_restart().and_then(|()| Audit::default().check(&server, &load));
            let lost = seen.expect_err("what was never synced is not on the disk");
            assert!(lost.starts_with("lost: "), "{form:?}: {lost}");
            eprintln!("{form:?}: {lost}");
        }
    });
}
