//! The paths that are gone most often, each as often as wanted on the same input: for counting instructions.

use std::hint::black_box;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use messenger::chat::Event;
use messenger::clock::{self, Timestamp};
use messenger::derive::{Derived, Growth};
use messenger::eventlog::{self, Batch, Disk, EventLine};

use crate::world::World;

/// One way through the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Path {
    /// A message between two, from the bytes that came to the bytes that go.
    Direct,
    /// The same, 64 messages a turn.
    DirectMany,
    /// A message to a group of 100.
    Group,
    /// A login, and the end of its connection.
    Login,
    /// A page of 50 messages of `/history` in the newest segment.
    History,
    /// An event appended to the log alone: file, tree and HEAD.
    Append,
    /// The same, 64 events a batch; counted for each event.
    AppendMany,
    /// A message's line of the log, read.
    Decode,
    /// A message's line of the derived files, made from its line of the log.
    Derive,
}

impl Path {
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it is, for the table.
    pub fn describe(self) -> String {
        self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// Goes it so many times.
    ///
    /// # Errors
    /// What should have been told was not.
    pub fn run(self, times: usize) -> anyhow::Result<()> {
        match self {
            Self::Direct => direct(times, 1),
            Self::DirectMany => direct(times, 64),
            Self::Group => group(times, 100),
            Self::Login => login(times),
            Self::History => history(times),
            Self::Append => append(times, 1),
            Self::AppendMany => append(times, 64),
            Self::Decode => decode(times),
            Self::Derive => derive(times),
        }
    }
}

const TEXT: &str =
    "the quick brown fox jumps over the lazy dog, and the lazy dog sleeps on as if nothing had been said";

fn direct(times: usize, a_turn: usize) -> anyhow::Result<()> {
    let mut world = World::new(2, false)?;
    let from = world.log_in(0, false);
    world.log_in(1, false);
    world.turn()?;
    let told = world.told_connections;
    for turn in (0..times).step_by(a_turn) {
        for _ in turn..times.min(turn + a_turn) {
            world.command(from, &format!("/msgto user1 {TEXT}"));
        }
        world.turn()?;
    }
    let turns = times.div_ceil(a_turn) as u64;
    ensure!(world.told_connections - told == 2 * turns, "each turn tells both");
    Ok(())
}

fn group(times: usize, members: usize) -> anyhow::Result<()> {
    let mut world = World::new(members, false)?;
    let keys: Vec<_> = (0..members).map(|number| world.log_in(number, false)).collect();
    world.turn()?;
    let names: Vec<String> = (1..members).map(crate::world::user).collect();
    world.command(keys[0], &format!("/creategroup all {}", names.join(" ")));
    for key in &keys[1..] {
        world.command(*key, "/joingroup all");
    }
    world.turn()?;
    let told = world.told_connections;
    for _ in 0..times {
        world.command(keys[0], &format!("/groupmsg all {TEXT}"));
        world.turn()?;
    }
    ensure!(world.told_connections - told == (times * members) as u64, "each message is told to all");
    Ok(())
}

fn login(times: usize) -> anyhow::Result<()> {
    let mut world = World::new(1, false)?;
    world.turn()?;
    for _ in 0..times {
        let key = world.log_in(0, false);
        world.turn()?;
        world.disconnect(key);
    }
    ensure!(world.told_connections >= times as u64, "each login is answered");
    Ok(())
}

fn history(times: usize) -> anyhow::Result<()> {
    const PAGE: usize = 50;
    let mut world = World::new(2, true)?;
    let key = world.log_in(0, false);
    for _ in 0..2 * PAGE {
        world.command(key, &format!("/msgto user1 {TEXT}"));
    }
    world.turn()?;
    let told = world.told_bytes;
    for _ in 0..times {
        world.command(key, "/history user1");
        world.turn()?;
    }
    ensure!(world.told_bytes - told > (times * PAGE * TEXT.len()) as u64, "each page is told");
    Ok(())
}

/// The line of a message, with its line feed.
fn line(seq: u64) -> anyhow::Result<Vec<u8>> {
    let event = Event::Message { from: "user0".parse()?, to: "user1".parse()?, text: TEXT.parse()?, origin: None };
    let mut line = Vec::new();
    event.encode(seq, Timestamp::from_ms(1_767_225_600_000 + seq), &mut line);
    line.push(b'\n');
    Ok(line)
}

fn append(times: usize, a_batch: usize) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let at = Timestamp::from_ms(1_767_225_600_000);
    let mut log = eventlog::open(Disk::lock(directory.path())?, uuid::Uuid::nil(), at, |_| {})?.log;
    // The clock stands still: how often HEAD is synced does not depend on the disk.
    let tick = clock::monotonic();
    log.tend(tick)?;
    for turn in (0..times).step_by(a_batch) {
        let (first, last) = (turn as u64 + 1, times.min(turn + a_batch) as u64);
        let mut lines = Vec::new();
        for seq in first..=last {
            lines.append(&mut line(seq)?);
        }
        let at = Timestamp::from_ms(1_767_225_600_000 + last);
        log.append(Batch { lines, first, last, at })?;
    }
    log.close()?;
    Ok(())
}

fn decode(times: usize) -> anyhow::Result<()> {
    let line = line(1_000_000)?;
    let line = line.trim_ascii_end();
    for _ in 0..times {
        black_box(Event::decode(black_box(line))?);
    }
    Ok(())
}

fn derive(times: usize) -> anyhow::Result<()> {
    const LINES_A_WRITE: usize = 100;
    let line = line(1_000_000)?;
    let line = line.trim_ascii_end();
    let mut derived = Derived::default();
    for _ in 0..times / LINES_A_WRITE {
        let mut growth = Growth::default();
        for _ in 0..LINES_A_WRITE {
            let line = EventLine::of(black_box(line)).context("an event's line")?;
            derived.apply_line(&line, &mut growth)?;
        }
        ensure!(black_box(growth.into_lines()).len() == 1, "all lines are of one file");
    }
    Ok(())
}
