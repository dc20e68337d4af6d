//! The log on a disk in memory: every row of the table of opening, power cuts drawn by seed, and the negative control.

use proptest::prelude::*;
use uuid::Uuid;

use super::format::SegmentLine;
use super::memory::{Faults, MemoryDisk};
use super::opening::{HEAD, NEXT};
use super::storage::Storage;
use super::{Batch, Head, Log, OpenError, Opened, Replayed, open, segment_name};
use crate::chat::{Event, Record, Seq};
use crate::clock::{Timestamp, monotonic};

const LOG: Uuid = Uuid::from_u128(1);

fn at(seq: Seq) -> Timestamp {
    Timestamp::from_ms(1_700_000_000_000 + seq)
}

fn event(seq: Seq) -> Event {
    Event::ServerStarted { version: format!("version {seq}, and so on {}", "x".repeat((seq % 7) as usize * 100)) }
}

fn batch(first: Seq, last: Seq) -> Batch {
    let mut lines = Vec::new();
    for seq in first..=last {
        event(seq).encode(seq, at(seq), &mut lines);
        lines.push(b'\n');
    }
    Batch { lines, first, last, at: at(last) }
}

/// Opens, and checks that what is replayed is what was written.
fn reopen(disk: &MemoryDisk) -> Result<(Opened<MemoryDisk>, Seq), OpenError> {
    let mut last = 0;
    let opened = open(disk.clone(), LOG, at(0), |replayed: Replayed<'_>| {
        last += 1;
        let record = Record { seq: last, at: at(last), event: event(last) };
        assert_eq!((replayed.seq, replayed.at), (last, at(last)));
        assert_eq!(Event::decode(replayed.line).unwrap(), record);
        let content = disk.content(&segment_name(replayed.segment)).unwrap();
        let start = usize::try_from(replayed.offset).unwrap();
        let line = &content[start..start + replayed.length as usize];
        assert_eq!(Event::decode(line.trim_ascii_end()).unwrap(), record);
    })?;
    assert_eq!(opened.log.seq(), last);
    Ok((opened, last))
}

fn append(log: &mut Log<MemoryDisk>, count: u64) {
    let first = log.seq() + 1;
    log.append(batch(first, first + count - 1)).unwrap();
}

/// A log of three batches, two events each.
fn three_batches() -> (MemoryDisk, String, Vec<u8>) {
    let disk = MemoryDisk::default();
    let (mut opened, _) = reopen(&disk).unwrap();
    for _ in 0..3 {
        append(&mut opened.log, 2);
    }
    opened.log.close().unwrap();
    let name = segment_name(1);
    let content = disk.content(&name).unwrap();
    (disk, name, content)
}

/// HEAD as it was when only events up to `seq` had been acknowledged.
fn set_head(disk: &MemoryDisk, content: &[u8], seq: Seq) {
    let end = match seq {
        0 => 0,
        _ => {
            let commit = format!("{{\"type\":\"commit\",\"seq\":{seq},");
            let start = memchr::memmem::find(content, commit.as_bytes()).unwrap();
            start + memchr::memchr(b'\n', &content[start..]).unwrap() + 1
        }
    };
    disk.put(HEAD, [Head { seq, end: end as u64 }.to_slot(); 2].concat());
}

fn line_of(content: &[u8], number: usize) -> std::ops::Range<usize> {
    let mut start = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n').take(number - 1) {
        start += line.len();
    }
    start..start + memchr::memchr(b'\n', &content[start..]).unwrap() + 1
}

fn failure(disk: &MemoryDisk) -> String {
    let before: Vec<_> = disk.list().unwrap().into_iter().map(|name| disk.content(&name)).collect();
    let error = reopen(disk).unwrap_err().to_string();
    let after: Vec<_> = disk.list().unwrap().into_iter().map(|name| disk.content(&name)).collect();
    assert_eq!(before, after, "a refusal changes nothing");
    error
}

#[test]
fn a_clean_log_goes_on() {
    let (disk, name, content) = three_batches();
    let (mut opened, last) = reopen(&disk).unwrap();
    assert_eq!((last, opened.notices.len()), (6, 0));
    append(&mut opened.log, 1);
    assert!(disk.content(&name).unwrap().starts_with(&content));
    assert_eq!(reopen(&disk).unwrap().1, 7);
}

#[test]
fn what_is_durable_and_was_not_acknowledged_stays() {
    let (disk, _, content) = three_batches();
    set_head(&disk, &content, 2);
    assert_eq!(reopen(&disk).unwrap().1, 6);
    let (head, _) = (Head::parse(&disk.content(HEAD).unwrap()).unwrap().head, ());
    assert_eq!(head.seq, 6, "opening acknowledges what it found");
}

#[test]
fn acknowledged_events_that_are_gone_are_refused_and_counted() {
    let (disk, name, content) = three_batches();
    let cut = line_of(&content, 6).start;
    disk.put(&name, content[..cut].to_vec());
    let error = failure(&disk);
    assert!(error.contains("changed or lost, from 3 to 6 (4 of them)"), "{error}");
    disk.remove(&name).unwrap();
    let error = failure(&disk);
    assert!(error.contains("changed or lost, from 1 to 6 (6 of them)"), "{error}");
}

#[test]
fn a_log_with_commits_and_without_head_is_damaged() {
    let (disk, _, _) = three_batches();
    let head = disk.content(HEAD).unwrap();
    disk.put(HEAD, vec![0; 256]);
    assert!(failure(&disk).contains("HEAD: it is missing or both its slots are broken"));
    disk.remove(HEAD).unwrap();
    assert!(failure(&disk).contains("HEAD"));
    let mut half = head;
    half[3] ^= 1;
    disk.put(HEAD, half);
    let error = reopen(&disk).map(|(opened, _)| opened.notices);
    match error {
        Ok(notices) => assert!(notices[0].contains("one of the two slots"), "{notices:?}"),
        Err(error) => assert!(error.to_string().contains("lost"), "the broken slot was the newer: {error}"),
    }
}

#[test]
fn damage_before_the_last_batch_is_refused_with_its_place() {
    let (disk, name, mut content) = three_batches();
    set_head(&disk, &content, 0);
    let event_three = line_of(&content, 5);
    content[event_three.start + 60] ^= 1;
    disk.put(&name, content);
    let error = failure(&disk);
    assert!(error.contains("00000000000000000001.jsonl, line 7, event 3: events 3 to 4 are not those"), "{error}");
}

#[test]
fn a_whole_write_with_a_wrong_byte_is_damage_and_no_torn_write() {
    let (disk, name, mut content) = three_batches();
    set_head(&disk, &content, 4);
    let event_five = line_of(&content, 8);
    content[event_five.start + 60] ^= 1;
    disk.put(&name, content);
    assert!(failure(&disk).contains("line 10, event 5"));
}

#[test]
fn a_torn_batch_is_kept_aside_and_cut_off() {
    let (disk, name, content) = three_batches();
    let good = line_of(&content, 7).end;
    for end in [content.len() - 1, good + 1, line_of(&content, 8).end, line_of(&content, 9).end] {
        disk.put(&name, content[..end].to_vec());
        set_head(&disk, &content, 4);
        let (opened, last) = reopen(&disk).unwrap();
        assert_eq!(last, 4);
        assert!(opened.notices[0].contains("never acknowledged"), "{:?}", opened.notices);
        assert_eq!(disk.torn().pop().unwrap(), content[good..end]);
        assert_eq!(disk.content(&name).unwrap(), content[..good]);
    }
    let mut sector_lost = content.clone();
    let sector = good / 512 * 512 + 512;
    sector_lost[sector..sector + 512].fill(0);
    disk.put(&name, sector_lost);
    set_head(&disk, &content, 4);
    assert_eq!(reopen(&disk).unwrap().1, 4);
}

#[test]
fn a_segment_cut_off_while_it_was_made_is_removed() {
    let (disk, name, content) = three_batches();
    for begun in [vec![], b"{\"type\":\"segm".to_vec()] {
        disk.put(&segment_name(7), begun);
        let (mut opened, last) = reopen(&disk).unwrap();
        assert_eq!(last, 6);
        assert!(opened.notices[0].contains("cut off while it was made"));
        assert_eq!(disk.content(&segment_name(7)), None);
        append(&mut opened.log, 1);
        disk.put(&name, content.clone());
        set_head(&disk, &content, 6);
    }
}

#[test]
fn a_segment_whose_first_line_is_broken_is_damage_once_anything_in_it_was_acknowledged() {
    let (disk, name, mut content) = three_batches();
    content[30] ^= 1;
    disk.put(&name, content);
    assert!(failure(&disk).contains("line 1, event 1: its first line is not as it was written"));
}

#[test]
fn gaps_and_missing_segments_and_wrong_roots_are_refused() {
    let (disk, name, content) = three_batches();
    let (opened, _) = reopen(&disk).unwrap();
    let begin = |first: Seq, edit: &dyn Fn(&mut SegmentLine)| {
        let mut tree = super::Tree::default();
        (1..=6).for_each(|seq| {
            let mut line = Vec::new();
            event(seq).encode(seq, at(seq), &mut line);
            tree.push(super::Hash::of_leaf(&line));
        });
        assert_eq!(tree.root(), opened.log.root());
        let mut header = SegmentLine { log: LOG, first: 7, at: at(6), tree };
        edit(&mut header);
        let mut line = Vec::new();
        header.encode(&mut line);
        disk.put(&segment_name(first), line);
        let error = reopen(&disk).map(|(_, last)| last).map_err(|error| error.to_string());
        disk.remove(&segment_name(first)).unwrap();
        error
    };
    assert_eq!(begin(7, &|_| {}), Ok(6));
    assert!(begin(7, &|header| header.log = Uuid::from_u128(2)).unwrap_err().contains("belongs to log"));
    assert!(begin(8, &|_| {}).unwrap_err().contains("names event 7 as its first"));
    let other_tree = begin(7, &|header| {
        let mut subtrees = header.tree.subtrees().to_vec();
        subtrees.reverse();
        header.tree = super::Tree::from_subtrees(6, subtrees).unwrap();
    });
    assert!(other_tree.unwrap_err().contains("its root is not the one"));
    disk.put(&name, content.clone());
    let gap = [&content[..line_of(&content, 2).start], &content[line_of(&content, 3).start..]].concat();
    disk.put(&name, gap);
    set_head(&disk, &content, 0);
    assert!(failure(&disk).contains("event 2 stands where event 1 should"));
}

#[test]
fn a_newer_programs_log_is_refused_and_never_guessed_at() {
    let disk = MemoryDisk::default();
    let (mut opened, _) = reopen(&disk).unwrap();
    let line = br#"{"seq":1,"ts":"2026-11-22T06:10:00.123Z","type":"reaction","user":"yoda"}"#;
    let lines = [&line[..], b"\n"].concat();
    opened.log.append(Batch { lines, first: 1, last: 1, at: at(1) }).unwrap();
    let error = open(disk.clone(), LOG, at(0), |_| {}).unwrap_err().to_string();
    assert!(error.contains("newer program's") && error.contains("reaction") && error.contains("line 2"), "{error}");
}

#[test]
fn a_file_that_is_no_part_of_a_log_is_named() {
    let (disk, _, _) = three_batches();
    disk.put("notes.txt", vec![]);
    assert!(failure(&disk).contains("\"notes.txt\""));
    disk.remove("notes.txt").unwrap();
    disk.put(NEXT, b"half".to_vec());
    assert_eq!(reopen(&disk).unwrap().1, 6, "what is being made ready is passed over");
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let (disk, _, _) = three_batches();
    let (mut opened, _) = reopen(&disk).unwrap();
    disk.set_faults(Faults { sync_fails_after: Some(0), ..Faults::default() });
    assert!(opened.log.append(batch(7, 7)).is_err());
    let head = Head::parse(&disk.content(HEAD).unwrap()).unwrap().head;
    assert_eq!(head.seq, 6);
}

#[test]
fn a_name_that_was_not_synced_before_the_server_ended_is_synced_at_the_next_opening() {
    let disk = MemoryDisk::default();
    let (mut opened, _) = reopen(&disk).unwrap();
    opened.log.set_segment_bytes_max(1);
    append(&mut opened.log, 1);
    // The next segment has its first line and its name, and then its directory cannot be synced.
    disk.set_faults(Faults { sync_fails_after: Some(1), ..Faults::default() });
    assert!(opened.log.append(batch(2, 2)).is_err());
    disk.set_faults(Faults::default());
    assert!(disk.content(&segment_name(2)).is_some());
    // The machine goes on, and another server writes where that one left off.
    let (mut opened, _) = reopen(&disk).unwrap();
    append(&mut opened.log, 1);
    drop(opened);
    disk.cut_power(|| false);
    assert_eq!(reopen(&disk).unwrap().1, 2);
}

#[test]
fn room_is_what_is_reserved_and_comes_back() {
    let disk = MemoryDisk::default();
    let (mut opened, _) = reopen(&disk).unwrap();
    let log = &mut opened.log;
    assert_eq!(log.room_bytes(), 0);
    disk.set_faults(Faults { room_bytes: Some(1 << 20), ..Faults::default() });
    log.tend(monotonic()).unwrap();
    let room = log.room_bytes();
    assert!((512 << 10..=1 << 20).contains(&room), "{room}");
    append(log, 2);
    assert!(log.room_bytes() < room);
    disk.set_faults(Faults::default());
    log.tend(monotonic()).unwrap();
    assert!(log.room_bytes() > room);
}

#[test]
fn a_segment_ends_at_the_first_commit_past_its_length_and_the_next_goes_on() {
    let disk = MemoryDisk::default();
    let mut opened = open(disk.clone(), LOG, at(0), |_| {}).unwrap();
    let log = &mut opened.log;
    for first in (1..=140).step_by(2) {
        let mut lines = Vec::new();
        for seq in [first, first + 1] {
            Event::ServerStarted { version: "x".repeat(1 << 19) }.encode(seq, at(seq), &mut lines);
            lines.push(b'\n');
        }
        log.tend(monotonic()).unwrap();
        assert!(log.room_bytes() > lines.len() as u64);
        log.append(Batch { lines, first, last: first + 1, at: at(first + 1) }).unwrap();
    }
    let root = log.root();
    let names: Vec<String> = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".jsonl")).collect();
    assert_eq!(names, [segment_name(1), segment_name(129)]);
    let mut count = 0;
    let again = open(disk, LOG, at(0), |_| count += 1).unwrap();
    assert_eq!((count, again.log.root()), (140, root));
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Tend,
    Reopen,
    PowerCut,
    FailedSync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..5).prop_map(Step::Append),
        2 => Just(Step::Tend),
        1 => Just(Step::Reopen),
        2 => Just(Step::PowerCut),
        1 => Just(Step::FailedSync),
    ]
}

/// A power cut in the middle of a batch: written, not synced, some sectors of it on the disk.
fn cut_in_mid_batch(log: &mut Log<MemoryDisk>, disk: &MemoryDisk, coins: &mut impl FnMut() -> bool) {
    disk.set_faults(Faults { sync_fails_after: Some(0), ..Faults::default() });
    let first = log.seq() + 1;
    let _ = log.append(batch(first, first + 3));
    disk.set_faults(Faults::default());
    disk.cut_power(coins);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_cut_all_that_was_acknowledged_is_there(
        steps in proptest::collection::vec(step(), 1..30),
        seed in any::<u64>(),
    ) {
        let mut random = seed | 1;
        let mut coins = move || {
            // xorshift64 (Marsaglia, 2003): only spread matters here.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random & 1 == 0
        };
        let disk = MemoryDisk::default();
        let mut acknowledged = 0;
        let (mut opened, _) = reopen(&disk).unwrap();
        for step in steps {
            match step {
                Step::Append(count) => {
                    append(&mut opened.log, count);
                    acknowledged += count;
                    continue;
                }
                Step::Tend => {
                    opened.log.tend(monotonic()).unwrap();
                    continue;
                }
                Step::Reopen => {}
                Step::PowerCut => disk.cut_power(&mut coins),
                Step::FailedSync => cut_in_mid_batch(&mut opened.log, &disk, &mut coins),
            }
            let (again, last) = reopen(&disk).unwrap();
            prop_assert!(last >= acknowledged, "{last} of {acknowledged}");
            let twice = reopen(&disk).unwrap();
            prop_assert_eq!(twice.1, last, "opening twice is the same as once");
            prop_assert_eq!(twice.0.notices.len(), 0);
            acknowledged = last;
            opened = again;
        }
    }

    #[test]
    fn without_the_sync_acknowledged_events_are_lost_and_that_is_seen(count in 1_u64..40) {
        let disk = MemoryDisk::default();
        let (mut opened, _) = reopen(&disk).unwrap();
        opened.log.tend(monotonic()).unwrap();
        disk.set_faults(Faults { file_sync_lies: true, ..Faults::default() });
        append(&mut opened.log, count);
        disk.set_faults(Faults::default());
        disk.cut_power(|| false);
        prop_assert_eq!(reopen(&disk).unwrap().1, 0);
    }

    #[test]
    fn every_flipped_bit_of_what_was_acknowledged_is_reported(place in any::<prop::sample::Index>(), bit in 0..8) {
        let (disk, name, mut content) = three_batches();
        let place = place.index(content.len());
        content[place] ^= 1_u8 << bit;
        disk.put(&name, content);
        prop_assert!(reopen(&disk).is_err());
    }
}
