//! Reading far back: pages of history at random depths, and a thousand sessions that catch up at once.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use messenger::chat::{Policy, Seq};
use messenger::clock;
use messenger::eventlog::{Batch, Disk};
use messenger::names::UserName;
use messenger::server::archive_files::ArchiveFiles;
use messenger::server::segment::Conversation;
use messenger::server::{self, Archive, Hub, HubOptions, Now, Older, Opened, Output};

use crate::generate;

/// Events of a page, as `/history` gives them without a number.
const PAGE_EVENTS: usize = 50;

/// A log, opened, with the archive beside it.
fn open(data: &Path) -> anyhow::Result<(Opened<Disk>, Archive<Disk>)> {
    let disk = Disk::lock(data)?;
    let archive = Archive::new(ArchiveFiles::new(&disk, "reader")?);
    let start = clock::monotonic();
    let mut opened = server::open(disk, uuid::Uuid::nil(), clock::wall(), |_, _| {})?;
    opened.log.tend(clock::monotonic())?;
    let messages = opened.log.seq() + 1 - opened.index.first();
    println!(
        "ready in {:.3} s; {:.1} bytes of memory for each of the {messages} newest events",
        start.elapsed().as_secs_f64(),
        opened.index.heap_bytes() as f64 / messages as f64
    );
    Ok((opened, archive))
}

/// Pages of conversations below random events: the time of each.
pub fn history(data: &Path, pages: u64) -> anyhow::Result<u64> {
    let (opened, mut archive) = open(data)?;
    let first_in_memory = opened.index.first();
    ensure!(first_in_memory > 1, "the log has no closed segment");
    let mut took = Histogram::<u64>::new(3)?;
    let mut events = 0;
    for number in 0..pages {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        let conversation = match number % 4 {
            0 => Conversation::Group(generate::group(mixed)?),
            _ => Conversation::private(generate::user(mixed)?, generate::user(mixed / 200)?),
        };
        let below = 1 + mixed / 7 % first_in_memory;
        let bytes_max = server::limits::HISTORY_BYTES_MAX;
        let start = Instant::now();
        let lines = archive.read(Some(&Older::History { conversation, below, count: PAGE_EVENTS, bytes_max }), &[])?;
        took.record(u64::try_from(start.elapsed().as_micros())?)?;
        events += lines.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    print(&took, "a page");
    Ok(events)
}

/// Sessions that were away for as many events log in at once, and read as fast as they are told.
pub fn catch_up(data: &Path, sessions: u64, behind: u64) -> anyhow::Result<u64> {
    let (opened, mut archive) = open(data)?;
    let Opened { mut log, state, index, .. } = opened;
    let after = log.seq().saturating_sub(behind);
    let mut accounts = (0..200).map(generate::user).collect::<anyhow::Result<messenger::names::NameSet<UserName>>>()?;
    accounts.sort_unstable();
    let options = HubOptions {
        log: log.id(),
        commands_per_second: 0,
        allow_cleartext: false,
        connections_max: usize::try_from(sessions)? + 1,
        console_texts: false,
    };
    let policy = Policy { failures_max: 3, accounts };
    let now = || Now { at: clock::wall(), tick: clock::monotonic() };
    let at = state.at;
    let log_now = move || Now { at: at.max(clock::wall()), ..now() };
    let root = log.root().to_string();
    let mut hub = Hub::new(options, policy, state, index, root, log.room_bytes(), log_now());
    let mut received: HashMap<_, (u64, Seq)> = HashMap::new();
    let mut took = Histogram::<u64>::new(3)?;
    for number in 0..sessions {
        let key = hub.handle_connected([127, 0, 0, 1].into(), log_now());
        let login = format!(
            "{{\"type\":\"login\",\"username\":\"{}\",\"password\":\"x\",\"device\":\"bench{}\",\"after\":{after}}}\n",
            generate::user(number)?,
            number / 200
        );
        hub.handle_bytes(key, login.as_bytes(), log_now());
        received.insert(key, (0, 0));
    }
    let start = Instant::now();
    let mut longest_turn = Duration::ZERO;
    // Each connection has at most one reading under way: as the reader's queue, first come, first served.
    let mut readings = std::collections::VecDeque::new();
    loop {
        let turn = Instant::now();
        while let Some(output) = hub.poll_output(log_now()) {
            match output {
                Output::Append { lines, first, last, at } => {
                    let done = log.append(Batch { lines, first, last, at })?;
                    log.tend(clock::monotonic())?;
                    let root = done.root.to_string();
                    hub.handle_durable(done.lines, done.segment, done.offset, root, done.room_bytes, log_now());
                }
                Output::CheckPassword { connection, .. } => hub.handle_verdict(connection, true, log_now()),
                Output::Read { connection, purpose, older, positions } => {
                    readings.push_back((connection, purpose, older, positions));
                }
                _ => {}
            }
        }
        while let Some(key) = hub.next_touched(true) {
            let (count, last) = received.get_mut(&key).context("a connection")?;
            let told = hub.output(key).collect::<Vec<_>>().concat();
            for line in told.split(|byte| *byte == b'\n') {
                if let Some(rest) = line.strip_prefix(b"{\"seq\":") {
                    let digits: Vec<u8> = rest.iter().copied().take_while(u8::is_ascii_digit).collect();
                    let seq: Seq = std::str::from_utf8(&digits)?.parse()?;
                    ensure!(seq > *last, "event {seq} came behind event {last}");
                    (*count, *last) = (*count + 1, seq);
                }
            }
            hub.handle_sent(key, told.len(), log_now());
        }
        // The first turns are the logins.
        if !took.is_empty() {
            longest_turn = longest_turn.max(turn.elapsed());
        }
        let Some((connection, purpose, older, positions)) = readings.pop_front() else { break };
        let reading = Instant::now();
        let lines = archive.read(older.as_ref(), &positions)?;
        took.record(u64::try_from(reading.elapsed().as_micros())?)?;
        hub.handle_lines(connection, purpose, Some(&lines), log_now());
    }
    let events: u64 = received.values().map(|(count, _)| count).sum();
    let seconds = start.elapsed().as_secs_f64();
    println!("{sessions} sessions, {behind} events behind: {:.0} events a second", events as f64 / seconds);
    println!("the longest turn of the loop after the logins: {:.1} ms", longest_turn.as_secs_f64() * 1e3);
    print(&took, "a reading");
    log.close()?;
    Ok(events)
}

fn print(took: &Histogram<u64>, what: &str) {
    let ms = |quantile: f64| took.value_at_quantile(quantile) as f64 / 1e3;
    println!("{what}: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", ms(0.5), ms(0.99), took.max() as f64 / 1e3);
}
