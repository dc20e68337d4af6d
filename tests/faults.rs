//! Power cuts between any two calls of the disk, with any part of what was not synced lost; syncs that fail; disks that
//! fill up; erasures that are interrupted. After each: everything acknowledged is there, once, in order.
//!
//! From one recorded run of a server many states of the disk are *drawn*: the call behind which the power is cut, and
//! what of the unsynced changes survives. Each is opened as a server does. Some go on from there, and are cut again, also
//! in the middle of the opening. `FAULT_STATES=1000000 cargo test --test faults` draws as many in all; a failure prints
//! what draws it alone. Each test has a counterpart in which a sync is left out, or another piece of the care that is
//! taken, and which must find the loss.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]
#![allow(clippy::cast_possible_truncation, reason = "numbers of events are small here")]

#[path = "faults/erasure.rs"]
mod erasure;
#[path = "faults/full_disk.rs"]
mod full_disk;
#[path = "support/history.rs"]
mod history;
#[path = "support/random.rs"]
mod random;
#[path = "support/recording.rs"]
mod recording;
#[path = "support/world.rs"]
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use history::History;
use messenger::chat::Seq;
use messenger::clock::Timestamp;
use messenger::eventlog::memory::{DiskImage, Faults, MemoryDisk};
use messenger::server::Opened;
use messenger::server::archive_files::ArchiveFiles;
use random::Random;
use recording::{Recording, SEGMENT_BYTES, by_image};

/// States drawn where nobody asks for more.
const STATES: u64 = 1_000_000;
/// States drawn from one recording.
const STATES_A_RECORDING: u64 = 5_000;
/// How often a log is cut, goes on and is cut again.
const CHAIN_LENGTH_MAX: usize = 4;

/// How the disk fails behind a power cut, where a server goes on.
#[derive(Clone, Copy, Default)]
struct ChainFaults {
    /// From when on a log goes on.
    faults: Faults,
    /// Whether syncs fail now and then.
    syncs_fail: bool,
}

/// Draws states of one recording.
struct Drawing<'a> {
    recording: &'a Recording,
    random: Random,
    chain: ChainFaults,
    /// States that were opened.
    opened: u64,
}

impl<'a> Drawing<'a> {
    fn new(recording: &'a Recording, seed: u64, chain: ChainFaults) -> Self {
        Self { recording, random: Random::new(seed), chain, opened: 0 }
    }

    /// Cuts the power behind a call, opens what is left, and perhaps goes on. Gives what is wrong.
    fn draw(&mut self) -> Result<(), String> {
        let Recording { images, acknowledged, history, now, .. } = self.recording;
        let call = self.random.below(images.len());
        let disk = self.cut(&images[call]);
        match self.random.below(8) {
            0 => self.go_on(disk, acknowledged[call]),
            looks => {
                let opened = self.open(history, &disk, *now, acknowledged[call])?;
                if looks < 4 { self.look(history, &disk, *now, opened) } else { Ok(()) }
            }
        }
        .map_err(|wrong| format!("cut behind call {call} of {}: {wrong}", images.len()))
    }

    /// The disk behind a power cut: of what was not synced nothing survives, all, or each change with some chance.
    fn cut(&mut self, image: &DiskImage) -> MemoryDisk {
        let chance = *self.random.pick(&[0, 1, 4, 7, 8]);
        let mut coins = Random::new(self.random.next());
        image.after_power_cut(|| coins.below(8) < chance)
    }

    fn open(
        &mut self,
        history: &History,
        disk: &MemoryDisk,
        now: Timestamp,
        acknowledged: Seq,
    ) -> Result<Opened<MemoryDisk>, String> {
        self.opened += 1;
        let opened = history.open(disk, now, acknowledged)?;
        let is_usual = |notice: &String| {
            let usual = ["never acknowledged", "cut off while it was made", "one of the two slots of HEAD"];
            usual.iter().any(|words| notice.contains(words))
        };
        match opened.notices.iter().find(|notice| !is_usual(notice)) {
            Some(notice) => Err(format!("the opening says: {notice}")),
            None => Ok(opened),
        }
    }

    /// Looks into the closed segments, and opens the log once more.
    fn look(
        &mut self,
        history: &History,
        disk: &MemoryDisk,
        now: Timestamp,
        opened: Opened<MemoryDisk>,
    ) -> Result<(), String> {
        let conversation = self.random.below(history.conversations().max(1));
        history.read_closed(disk, opened.index.first(), conversation)?;
        let last = opened.log.seq();
        drop(opened);
        let again = self.open(history, disk, now, last)?;
        match (again.log.seq() == last, again.notices.first()) {
            (true, None) => Ok(()),
            (_, said) => Err(format!("opening twice is not the same as once: {said:?}")),
        }
    }

    /// Opens what a power cut left and writes more, then cuts the power again or kills the server, in the middle of
    /// either.
    fn go_on(&mut self, mut disk: MemoryDisk, mut acknowledged: Seq) -> Result<(), String> {
        let mut history = self.recording.history.clone();
        let mut now = self.recording.now;
        for round in 0..CHAIN_LENGTH_MAX {
            now = now.plus_ms(1);
            disk.set_faults(self.chain.faults);
            disk.start_recording();
            let Opened { mut log, .. } = self.open(&history, &disk, now, acknowledged)?;
            let opened = disk.recorded();
            let mut marks = vec![(0, acknowledged), (opened, log.seq())];
            // What the opening has not found is gone from here on, and until here it was not.
            let before = history.clone();
            history.cut(log.seq());
            log.set_segment_bytes_max(SEGMENT_BYTES);
            if self.chain.syncs_fail && self.random.one_in(2) {
                let sync_fails_after = Some(self.random.next() % 6);
                disk.set_faults(Faults { sync_fails_after, ..self.chain.faults });
            }
            let tick = messenger::clock::monotonic();
            let mut has_failed = false;
            for _ in 0..self.random.below(5) {
                let count = self.random.next() % 3 + 1;
                let batch = history.next_batch(count, now, &format!("in round {round}"));
                match log.append(batch) {
                    Ok(durable) => marks.push((disk.recorded(), durable.last)),
                    Err(_) => has_failed = true,
                }
                if has_failed || log.tend(tick).is_err() {
                    break;
                }
            }
            if !has_failed && self.random.one_in(2) {
                // What an archivist cannot write it writes another time.
                let _ = ArchiveFiles::new(&disk, "archivist").unwrap().archive_through(log.seq());
            }
            if !has_failed && self.random.one_in(4) {
                let _ = log.close();
            }
            let images = disk.take_recording();
            // What a failed sync has lost is seen by those who come after it.
            let call = if has_failed { images.len() - 1 } else { self.random.below(images.len()) };
            acknowledged = by_image(images.len(), &marks)[call];
            if call + 1 < opened {
                history = before;
            }
            let is_killed = self.random.one_in(2);
            disk = if is_killed { images[call].after_kill() } else { self.cut(&images[call]) };
        }
        disk = self.cut(&image_of(&disk));
        let opened = self.open(&history, &disk, now, acknowledged)?;
        self.look(&history, &disk, now, opened)
    }
}

/// A disk as it is.
fn image_of(disk: &MemoryDisk) -> DiskImage {
    disk.start_recording();
    disk.take_recording().remove(0)
}

/// Draws from recordings until `states` were opened, on all cores; gives how many were.
fn draw_all(states: u64, chain: ChainFaults) -> u64 {
    let (next_seed, opened) = (AtomicU64::new(0), AtomicU64::new(0));
    let only: Option<u64> = std::env::var("FAULT_SEED").ok().map(|seed| seed.parse().expect("FAULT_SEED is a number"));
    let work = || {
        while opened.load(Ordering::Relaxed) < states {
            let seed = only.unwrap_or_else(|| next_seed.fetch_add(1, Ordering::Relaxed));
            let recording = Recording::make(seed, Faults::default(), seed.is_multiple_of(2));
            let mut drawing = Drawing::new(&recording, seed, chain);
            while drawing.opened < STATES_A_RECORDING.min(states) {
                let wrong = drawing.draw();
                assert!(wrong.is_ok(), "FAULT_SEED={seed}: {}", wrong.unwrap_err());
            }
            opened.fetch_add(drawing.opened, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    opened.into_inner()
}

fn states() -> u64 {
    std::env::var("FAULT_STATES").map_or(STATES, |states| states.parse().expect("FAULT_STATES is a number"))
}

/// Whether drawing finds a loss where the disk has these faults while it is recorded, and those where a log goes on.
fn finds_loss(recorded: Faults, chain: ChainFaults) -> bool {
    (0..8).any(|seed| {
        let recording = Recording::make(seed, recorded, false);
        let mut drawing = Drawing::new(&recording, seed, chain);
        (0..2_000).any(|_| drawing.draw().is_err())
    })
}

#[test]
fn wherever_the_power_is_cut_everything_acknowledged_is_there_once_and_in_order() {
    let opened = draw_all(states(), ChainFaults::default());
    assert!(opened >= states());
    println!("{opened} states were drawn and opened");
}

#[test]
fn whichever_sync_fails_everything_acknowledged_is_there_once_and_in_order() {
    draw_all(states() / 10, ChainFaults { syncs_fail: true, ..ChainFaults::default() });
}

#[test]
fn without_the_sync_of_files_acknowledged_events_are_lost_and_that_is_found() {
    assert!(finds_loss(Faults { file_sync_lies: true, ..Faults::default() }, ChainFaults::default()));
}

#[test]
fn without_the_sync_of_names_acknowledged_events_are_lost_and_that_is_found() {
    assert!(finds_loss(Faults { name_sync_lies: true, ..Faults::default() }, ChainFaults::default()));
}

#[test]
fn without_the_syncs_behind_an_opening_acknowledged_events_are_lost_and_that_is_found() {
    for faults in
        [Faults { file_sync_lies: true, ..Faults::default() }, Faults { name_sync_lies: true, ..Faults::default() }]
    {
        assert!(finds_loss(Faults::default(), ChainFaults { faults, syncs_fail: false }));
    }
}

#[test]
fn an_opening_that_believes_what_is_cached_behind_a_failed_sync_loses_it_and_that_is_found() {
    let faults = Faults { cache_lies: true, ..Faults::default() };
    assert!(finds_loss(Faults::default(), ChainFaults { faults, syncs_fail: true }));
}
