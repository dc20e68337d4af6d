//! A log of as many events as wanted, that of a team: private and group messages, and now and then a login.

use std::path::Path;

use messenger::chat::{Event, Origin, Seq};
use messenger::clock::Timestamp;
use messenger::eventlog::{self, Batch, Disk};
use messenger::names::{DeviceName, GroupName, Text, UserName};

pub fn user(number: u64) -> anyhow::Result<UserName> {
    Ok(format!("user{:03}", number % 200).parse()?)
}

pub fn group(number: u64) -> anyhow::Result<GroupName> {
    Ok(format!("group{:02}", number % 50).parse()?)
}

/// The event of a number: a mixture that does not repeat soon.
pub fn event(seq: Seq) -> anyhow::Result<Event> {
    let mixed = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let from = user(mixed)?;
    if seq <= 50 {
        let invited = (0..20).map(|other| user(seq + other)).collect::<Result<_, _>>()?;
        return Ok(Event::GroupCreated { group: group(seq)?, by: from, invited, origin: None });
    }
    if seq.is_multiple_of(500) {
        let device: DeviceName = "laptop".parse()?;
        return Ok(Event::Login {
            user: from,
            session: seq,
            ip: [10, 0, 0, 1].into(),
            udp_port: None,
            device: Some(device),
        });
    }
    let text: Text =
        format!("event {seq}: the quick brown fox jumps over the lazy dog, {mixed} times in a row").parse()?;
    let origin = Some(Origin { device: "laptop".parse()?, id: seq });
    Ok(if seq.is_multiple_of(5) {
        Event::GroupMessage { group: group(mixed)?, from, text, origin }
    } else {
        Event::Message { from, to: user(mixed / 200)?, text, origin }
    })
}

/// Appends events to a log until it has so many.
///
/// # Errors
/// The disk does not take them.
pub fn generate(data: &Path, events: u64) -> anyhow::Result<u64> {
    const BATCH_EVENTS: u64 = 10_000;
    let start = Timestamp::from_ms(1_767_225_600_000);
    let mut log = eventlog::open(Disk::lock(data)?, uuid::Uuid::new_v4(), start, |_| {})?.log;
    let mut seq = log.seq();
    while seq < events {
        let (first, last) = (seq + 1, (seq + BATCH_EVENTS).min(events));
        let mut lines = Vec::new();
        for seq in first..=last {
            event(seq)?.encode(seq, start.plus_ms(seq * 3_000), &mut lines);
            lines.push(b'\n');
        }
        log.append(Batch { lines, first, last, at: start.plus_ms(last * 3_000) })?;
        seq = last;
    }
    log.close()?;
    Ok(events)
}
