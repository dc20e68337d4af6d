//! A flipped bit in any file of the data directory: the server refuses to start and says where, or it starts and gives
//! nobody anything but what was acknowledged. And `--verify` reports every single bit of a log.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]
#![allow(clippy::cast_possible_truncation, reason = "numbers of events are small here")]

#[path = "support/history.rs"]
mod history;
#[path = "support/random.rs"]
mod random;
#[path = "support/recording.rs"]
mod recording;
#[path = "support/server.rs"]
mod server;
#[path = "support/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use history::files;
use messenger::chat::Event;
use messenger::clock::Timestamp;
use messenger::eventlog::memory::{DiskImage, Faults, MemoryDisk};
use messenger::eventlog::{self, Batch, Disk, Order, Storage, Verified, VerifyError};
use random::Random;
use recording::Recording;
use serde_json::Value;
use server::{PASSWORD, Server};

/// What became of a flipped bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The server did not start, and said where.
    Refused,
    /// It started and said something.
    Said,
    /// It started, said nothing, and some of the log was not given, with its place.
    NotGiven,
    /// It started, said nothing and gave everything.
    Unseen,
}

/// Flips a bit, starts a server and reads all that is in closed segments.
fn start_with_flipped(recording: &Recording, disk: &MemoryDisk) -> Outcome {
    let Recording { history, now, .. } = recording;
    let opened = match messenger::server::open(disk.clone(), uuid::Uuid::nil(), *now, |_, _| {}) {
        Ok(opened) => opened,
        Err(error) => {
            let told = error.to_string();
            let places = ["event ", "events ", "line 1", "HEAD: ", ".jsonl: the segment does not end"];
            let has_place = places.iter().any(|place| told.contains(place));
            assert!(has_place && (told.contains(".jsonl") || told.contains("HEAD") || told.contains("lost")), "{told}");
            return Outcome::Refused;
        }
    };
    assert_eq!(opened.log.seq(), history.last());
    assert!(&opened.state == history.state(history.last()), "the state is that behind the last event");
    let newest = opened.index.first();
    history.check_segment(disk, newest).unwrap();
    let read = (0..history.conversations()).map(|place| history.read_closed(disk, newest, place));
    let not_given: Vec<String> = read.filter_map(Result::err).collect();
    assert!(not_given.iter().all(|told| told.contains(".jsonl, line ")), "{not_given:?}");
    match (opened.notices.is_empty(), not_given.is_empty()) {
        (_, false) => Outcome::NotGiven,
        (false, _) => Outcome::Said,
        (true, true) => Outcome::Unseen,
    }
}

/// Flips one bit of each byte of every file, each on a disk of its own; gives what became of those of each directory.
fn flip_everywhere(recording: &Recording, disk: &MemoryDisk, image: &DiskImage) -> BTreeMap<(String, Outcome), usize> {
    let files = files(disk);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let work = |part: usize| {
        let mut outcomes: BTreeMap<(String, Outcome), usize> = BTreeMap::new();
        let mut random = Random::new(part as u64);
        for (directory, name, length) in &files {
            for offset in (part..*length).step_by(cores) {
                let flipped = image.after_power_cut(|| true);
                flipped.beside(directory).flip(name, offset, random.below(8) as u32);
                let outcome = start_with_flipped(recording, &flipped);
                let kind = if name == "HEAD" { "HEAD" } else { directory };
                *outcomes.entry((kind.to_owned(), outcome)).or_default() += 1;
            }
        }
        outcomes
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|part| scope.spawn(move || work(part))).collect();
        let mut all = BTreeMap::new();
        for (key, count) in workers.into_iter().flat_map(|worker| worker.join().unwrap()) {
            *all.entry(key).or_default() += count;
        }
        all
    })
}

/// A disk as it is and nothing else: what is on it is durable.
fn image_of(disk: &MemoryDisk) -> DiskImage {
    disk.set_faults(Faults::default());
    disk.start_recording();
    disk.take_recording().remove(0)
}

#[test]
fn whatever_bit_is_flipped_the_server_gives_what_was_acknowledged_or_says_where_it_is_not() {
    let recording = Recording::make(1, Faults::default(), true);
    recording.disk.cut_power(|| true);
    recording.disk.beside("torn").put("00000000000000000001-7-9", b"never acknowledged".to_vec());
    let outcomes = flip_everywhere(&recording, &recording.disk, &image_of(&recording.disk));
    println!("{outcomes:?}");
    let count = |kind: &str, outcome| outcomes.get(&(kind.to_owned(), outcome)).copied().unwrap_or(0);
    // What is derived is made again, or was not needed.
    for kind in ["index", "snapshots", "torn"] {
        assert_eq!((count(kind, Outcome::Refused), count(kind, Outcome::NotGiven)), (0, 0), "{kind}");
    }
    assert!(count("snapshots", Outcome::Said) > 0);
    // Of the two slots the newer one is needed.
    assert_eq!((count("HEAD", Outcome::Unseen), count("HEAD", Outcome::Said)), (0, 256));
    // Of closed segments what nobody asks for is not read: logins, and the lines of commits.
    assert!(count("events", Outcome::Refused) > 0 && count("events", Outcome::NotGiven) > 0);
}

#[test]
fn where_nothing_derived_is_left_a_flipped_bit_of_an_event_is_refused() {
    let recording = Recording::make(1, Faults::default(), true);
    for directory in ["index", "snapshots"] {
        let place = recording.disk.beside(directory);
        place.list().unwrap().iter().for_each(|name| place.remove(name).unwrap());
    }
    recording.disk.cut_power(|| true);
    let image = image_of(&recording.disk);
    let mut seen = 0;
    for segment in eventlog::segments(&recording.disk).unwrap() {
        let name = eventlog::segment_name(segment);
        let content = recording.disk.content(&name).unwrap();
        let mut offset = 0;
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            for place in (offset..offset + line.len()).filter(|_| line.starts_with(b"{\"seq\":")) {
                let flipped = image.after_power_cut(|| true);
                flipped.flip(&name, place, (place % 8) as u32);
                assert_eq!(start_with_flipped(&recording, &flipped), Outcome::Refused, "{name}, byte {place}");
                seen += 1;
            }
            offset += line.len();
        }
    }
    assert!(seen > 2_000, "{seen}");
}

/// A small log on a real disk: four segments, an erased message in the first. Gives its directory of events.
fn small_log(data: &Path) -> PathBuf {
    let disk = Disk::lock(data).unwrap();
    let events = disk.directory().to_owned();
    let mut log = eventlog::open(disk, uuid::Uuid::from_u128(7), Timestamp::from_ms(1), |_| {}).unwrap().log;
    log.set_segment_bytes_max(600);
    for number in 1..=6 {
        let event = match number {
            1 | 2 => Event::ServerStarted { version: "1".into() },
            _ => Event::Message {
                from: "han".parse().unwrap(),
                to: "leia".parse().unwrap(),
                text: format!("number {number} \u{e9}\n").parse().unwrap(),
                origin: None,
            },
        };
        let mut lines = Vec::new();
        event.encode(number, Timestamp::from_ms(number), &mut lines);
        lines.push(b'\n');
        log.append(Batch { lines, first: number, last: number, at: Timestamp::from_ms(number) }).unwrap();
    }
    let order = Order { seqs: [3].into(), by: "admin".into(), reason: "asked for".into() };
    log.erase(&order, Timestamp::from_ms(9)).unwrap();
    log.close().unwrap();
    assert_eq!(fs::read_dir(&events).unwrap().filter(|file| is_log(&file.as_ref().unwrap().path())).count(), 5);
    events
}

fn is_log(path: &Path) -> bool {
    path.ends_with("HEAD") || path.extension().is_some_and(|ending| ending == "jsonl")
}

/// Whether the report names the file that was changed, or the next one, which does not go on from it any more.
fn names_the_place(error: &VerifyError, file: &Path) -> bool {
    match error {
        VerifyError::Damage(damage) => damage.file.ends_with(".jsonl") || file.ends_with(&damage.file),
        VerifyError::Lost { .. } | VerifyError::Newer { .. } => true,
        VerifyError::Read(_) => false,
    }
}

/// Flips every `step`th bit, and gives how many bits verifying did not report.
fn unreported_bits(report: impl Fn(&Path) -> Result<Verified, VerifyError> + Sync) -> (usize, usize) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let work = |part: usize| {
        let data = tempfile::tempdir().unwrap();
        let events = small_log(data.path());
        let intact = report(data.path()).unwrap();
        assert!(!intact.is_head_half_broken && intact.events == 7);
        let (mut flipped, mut unreported) = (0, 0);
        let names: Vec<PathBuf> = fs::read_dir(&events).unwrap().map(|entry| entry.unwrap().path()).collect();
        for file in names.into_iter().filter(|file| is_log(file)) {
            let mut bytes = fs::read(&file).unwrap();
            for bit in (part..bytes.len() * 8).step_by(cores) {
                bytes[bit / 8] ^= 1 << (bit % 8);
                fs::write(&file, &bytes).unwrap();
                let is_reported = match report(data.path()) {
                    Ok(verified) => verified.is_head_half_broken,
                    Err(error) => {
                        assert!(names_the_place(&error, &file), "{}, bit {bit}: {error}", file.display());
                        true
                    }
                };
                flipped += 1;
                unreported += usize::from(!is_reported);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(report(data.path()).unwrap(), intact, "all is as it was");
        (flipped, unreported)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|part| scope.spawn(move || work(part))).collect();
        let counts = workers.into_iter().map(|worker| worker.join().unwrap());
        counts.fold((0, 0), |(flipped, unreported), one| (flipped + one.0, unreported + one.1))
    })
}

#[test]
fn verifying_reports_every_single_bit_of_a_log() {
    let (flipped, unreported) = unreported_bits(eventlog::verify);
    println!("{flipped} bits were flipped");
    assert!(flipped > 20_000 && unreported == 0, "{unreported} of {flipped}");
}

#[test]
fn a_reader_that_checks_the_lines_alone_does_not_see_most_bits() {
    // The same flips, and a report by whoever only reads the events, without the tree and the checks.
    let read = |data: &Path| {
        let intact = Verified { events: 7, seq: 7, root: eventlog::Tree::default().root(), ..Verified::default() };
        let mut seq = 0;
        let mut names: Vec<PathBuf> =
            fs::read_dir(data.join("events")).unwrap().map(|file| file.unwrap().path()).collect();
        names.sort();
        for file in names.iter().filter(|file| file.extension().is_some()) {
            for line in
                fs::read(file).unwrap().split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"seq\":"))
            {
                seq += 1;
                if Event::decode(line).map(|record| record.seq).ok() != Some(seq) {
                    return Err(VerifyError::Lost { from: seq, to: 7 });
                }
            }
        }
        if seq == 7 { Ok(intact) } else { Err(VerifyError::Lost { from: seq, to: 7 }) }
    };
    let (flipped, unreported) = unreported_bits(read);
    assert!(unreported > flipped / 4, "{unreported} of {flipped}");
}

/// Every file below a directory, but for the lock, which is empty.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .filter(|path| fs::metadata(path).unwrap().len() > 0)
        .collect();
    files.sort();
    files
}

/// What han and leia said to each other, by the server; `None` if it does not give that.
fn texts(server: &Server) -> Option<Vec<String>> {
    let mut han = server.connect();
    han.send(&format!(r#"{{"type":"login","username":"han","password":"{PASSWORD}","after":0}}"#));
    loop {
        let line = han.line();
        let frame: Value = serde_json::from_str(&line).ok()?;
        match frame["type"].as_str()? {
            "live" => han.send(r#"{"type":"command","text":"/history leia"}"#),
            "ok" if frame["command"] == "history" => {
                let events = frame["events"].as_array()?.iter();
                return Some(events.filter_map(|event| Some(event["text"].as_str()?.to_owned())).collect());
            }
            "error" => return None,
            _ => {}
        }
    }
}

/// Starts the server again on what lies there; whether it started.
fn restart(server: &mut Server) -> bool {
    // A server that does not listen is a panic of the helper, which has waited for the end of the process by then.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.restart())).is_ok()
}

#[test]
fn a_real_server_on_a_flipped_bit_of_any_of_its_files_goes_on_or_names_the_file() {
    let mut server = Server::start();
    let mut han = server.login("han");
    han.command("/creategroup jedi leia");
    for number in 0..20 {
        han.command(&format!("/msgto leia number {number}"));
        han.command(&format!("/groupmsg jedi number {number}"));
    }
    let victim = han.command("/msgto leia a secret")["seq"].to_string();
    assert!(server.stop().success());
    // The newest segment is closed by it, and the next start makes its index and a snapshot.
    let erased = ["erase", "--seq", &victim, "--by", "admin", "--reason", "asked for", &server.data_argument()];
    assert!(server::run(&erased).status.success());
    server.restart();
    let expected = texts(&server);
    assert_eq!(expected.as_ref().map(Vec::len), Some(20));
    assert!(server.stop().success());

    let data = server.data();
    let kinds =
        ["events/HEAD", ".jsonl", ".idx", "snapshots/", "keys/checkpoint", "messagelog.txt", "jedi_messagelog.txt"];
    let files = files_below(&data);
    assert!(kinds.iter().all(|kind| files.iter().any(|file| file.to_str().unwrap().contains(kind))), "{files:?}");
    let mut random = Random::new(3);
    let (mut started, mut refused) = (0, 0);
    let kept = server.directory().join("kept");
    copy(&data, &kept);
    for file in files {
        let good = fs::read(&file).unwrap();
        for place in [0, random.below(good.len()), random.below(good.len()), good.len() - 1] {
            let mut bytes = good.clone();
            bytes[place] ^= 1 << random.below(8);
            fs::write(&file, &bytes).unwrap();
            let said_before = server.errors().len();
            let has_started = restart(&mut server);
            let found = has_started.then(|| texts(&server)).flatten();
            if has_started {
                assert!(server.stop().success());
            }
            let said = server.errors().split_off(said_before);
            let place = format!("{}, byte {place}: {said}", file.display());
            if found.is_none() {
                let name = file.file_name().unwrap().to_str().unwrap();
                assert!(said.contains(name), "{place}");
            } else {
                assert_eq!(found, expected, "{place}");
            }
            *(if has_started { &mut started } else { &mut refused }) += 1;
            fs::remove_dir_all(&data).unwrap();
            copy(&kept, &data);
        }
    }
    assert!(started > 20 && refused > 5, "{started} started, {refused} refused");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        match entry.is_dir() {
            true => copy(&entry, &target),
            false => assert!(fs::copy(&entry, &target).is_ok()),
        }
    }
}
