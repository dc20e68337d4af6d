//! An erasure that is interrupted between any two calls of the disk: afterwards the log opens, and each text is wholly
//! there, or, once the command had reported success, nowhere.

use messenger::chat::{Event, Seq};
use messenger::clock::Timestamp;
use messenger::eventlog::memory::{DiskImage, Faults, MemoryDisk};
use messenger::eventlog::{self, Order, Replayed, Storage, Visitor, segment_name};
use messenger::server;

use crate::history::{History, files};
use crate::random::Random;
use crate::recording::Recording;

const RECORDINGS: u64 = 24;
const STATES_A_RECORDING: usize = 400;

/// An erasure that was recorded.
struct Erasure {
    images: Vec<DiskImage>,
    /// The first image behind which the command has reported success.
    done: usize,
    /// The texts that it takes away.
    texts: Vec<String>,
    before: History,
    after: History,
    now: Timestamp,
}

struct Nobody;

impl Visitor for Nobody {
    fn event(&mut self, _: Replayed<'_>) {}
}

impl Erasure {
    /// Erases some messages from a log, as `messenger erase` does, on a disk with these faults.
    fn make(seed: u64, faults: Faults) -> Self {
        let Recording { history: before, disk, now, .. } = Recording::make(seed, Faults::default(), true);
        disk.cut_power(|| true);
        let mut random = Random::new(seed);
        let messages: Vec<(Seq, String)> =
            (1..=before.last()).filter_map(|seq| Some((seq, text(&before, seq)?))).collect();
        let chosen: Vec<&(Seq, String)> = (0..random.below(4) + 1).map(|_| random.pick(&messages)).collect();
        let seqs = chosen.iter().map(|(seq, _)| *seq).collect();
        let texts: Vec<String> = chosen.iter().map(|(_, text)| text.clone()).collect();
        // A tail that was cut off may hold the text too.
        disk.beside("torn").put("00000000000000000001-7-9", texts[0].clone().into_bytes());

        disk.set_faults(faults);
        disk.start_recording();
        let segments = eventlog::segments(&disk).unwrap();
        let after = segments.last().unwrap() - 1;
        let opened = eventlog::open_after(disk.clone(), uuid::Uuid::nil(), now, after, &mut Nobody).unwrap();
        let mut log = opened.log;
        log.erase(&Order { seqs, by: "admin".into(), reason: "asked for".into() }, now).unwrap();
        let done = disk.recorded() - 1;
        log.close().unwrap();
        let images = disk.take_recording();
        let after = History::new(&event_lines(&disk));
        assert_eq!(after.last(), before.last() + 1);
        assert!(texts.iter().all(|text| !holds(&disk, text)));
        Self { images, done, texts, before, after, now }
    }

    /// Cuts the power somewhere, perhaps also in the opening that follows, and looks at what is left.
    fn draw(&self, random: &mut Random) -> Result<(), String> {
        let call = random.below(self.images.len());
        let is_done = call >= self.done;
        let mut disk = cut_or_kill(&self.images[call], random);
        if is_done && self.texts.iter().any(|text| holds(&disk, text)) {
            return Err(format!("call {call}: success was reported, and the text is there"));
        }
        if random.one_in(2) {
            disk.start_recording();
            let opened = server::open(disk.clone(), uuid::Uuid::nil(), self.now, |_, _| {});
            opened.map_err(|error| format!("call {call}: the server refuses to start: {error}"))?;
            let images = disk.take_recording();
            disk = cut_or_kill(&images[random.below(images.len())], random);
        }
        let opened = server::open(disk.clone(), uuid::Uuid::nil(), self.now, |_, _| {});
        let opened = opened.map_err(|error| format!("call {call}: the server refuses to start: {error}"))?;
        let is_ordered = opened.log.seq() == self.after.last();
        // What an opening has found and done is not undone by a power cut.
        disk.cut_power(|| false);
        if is_done && !is_ordered {
            return Err(format!("call {call}: success was reported, and the order is not in the log"));
        }
        let history = if is_ordered { &self.after } else { &self.before };
        history.check(&disk, &opened, self.before.last())?;
        if is_ordered && self.texts.iter().any(|text| holds(&disk, text)) {
            return Err(format!("call {call}: the text is there behind an opening that found the order"));
        }
        let conversation = random.below(history.conversations());
        history.read_closed(&disk, opened.index.first(), conversation)
    }
}

/// The text of a message; each has a number of its own.
fn text(history: &History, seq: Seq) -> Option<String> {
    match Event::decode(history.line(seq).trim_ascii_end()).unwrap().event {
        Event::Message { text, .. } | Event::GroupMessage { text, .. } => {
            Some(format!("{} ", text.as_str().trim_end()))
        }
        _ => None,
    }
}

/// Whether any file that has a name holds a text: the words up to its number.
fn holds(disk: &MemoryDisk, text: &str) -> bool {
    let start: Vec<&str> = text.split(' ').take(2).collect();
    let start = format!("\"{}", start.join(" "));
    files(disk).iter().any(|(directory, name, _)| {
        let place = disk.beside(directory);
        let holds = |content: &[u8]| {
            let content = String::from_utf8_lossy(content);
            [' ', '"'].iter().any(|end| content.contains(&format!("{start}{end}"))) || content.contains(text)
        };
        place.with_content(name, holds).unwrap()
    })
}

fn event_lines(disk: &MemoryDisk) -> String {
    let segments = eventlog::segments(disk).unwrap();
    let text =
        segments.into_iter().map(|first| String::from_utf8(disk.content(&segment_name(first)).unwrap()).unwrap());
    text.collect::<String>().split_inclusive('\n').filter(|line| line.starts_with("{\"seq\":")).collect()
}

fn cut(image: &DiskImage, random: &mut Random) -> MemoryDisk {
    let chance = *random.pick(&[0, 1, 4, 7, 8]);
    let mut coins = Random::new(random.next());
    image.after_power_cut(|| coins.below(8) < chance)
}

fn cut_or_kill(image: &DiskImage, random: &mut Random) -> MemoryDisk {
    if random.one_in(3) { image.after_kill() } else { cut(image, random) }
}

fn finds_loss(faults: Faults) -> bool {
    (0..RECORDINGS).any(|seed| {
        let (erasure, mut random) = (Erasure::make(seed, faults), Random::new(seed));
        (0..STATES_A_RECORDING).any(|_| erasure.draw(&mut random).is_err())
    })
}

#[test]
fn wherever_an_erasure_is_interrupted_a_text_is_whole_or_gone_and_the_log_opens() {
    for seed in 0..RECORDINGS {
        let (erasure, mut random) = (Erasure::make(seed, Faults::default()), Random::new(seed));
        for state in 0..STATES_A_RECORDING {
            let wrong = erasure.draw(&mut random);
            assert!(wrong.is_ok(), "recording {seed}, state {state}: {}", wrong.unwrap_err());
        }
    }
}

#[test]
fn without_the_syncs_of_an_erasure_a_text_comes_back_and_that_is_found() {
    assert!(finds_loss(Faults { file_sync_lies: true, ..Faults::default() }));
    assert!(finds_loss(Faults { name_sync_lies: true, ..Faults::default() }));
}
