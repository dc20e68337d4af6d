//! The index of a closed segment as a file beside the log: how it is written and read. `docs/eventlog.md` has the form.
//!
//! Whatever is read is checked: the first line and each entry and block by a CRC-32C, each place in the segment by the
//! number of the event that stands there, and its line by a CRC-32C. What is wrong is never an answer, but a reason to make the file anew.

use std::collections::BTreeMap;
use std::io;

use memchr::memchr;
use serde::Deserialize;
use uuid::Uuid;

use super::segment::{Conversation, SegmentBuilder};
use crate::chat::Seq;
use crate::eventlog::{ClosedSegment, Hash, StorageFile, checked, is_checked};
use crate::names::{GroupName, TransferId, UserName};

/// The form that this program writes.
const FORMAT: u64 = 2;
/// Bytes of a list that are checked as one, with the check before them.
const BLOCK_BYTES: usize = 4 << 10;
/// Events in a block.
const BLOCK_EVENTS: usize = BLOCK_BYTES / 4 - 1;
/// Bytes of what a list is found by: a kind and two names, filled up with zeros.
const KEY_BYTES: usize = 1 + 2 * UserName::BYTES_MAX;
/// Bytes of an entry of the directory: the key, the place of the list, its length and a check.
const ENTRY_BYTES: usize = KEY_BYTES + 12;
/// Bytes of the place of an event: where its line begins, and the check of the line.
const PLACE_BYTES: usize = 8;
/// Places of events read at once.
const PLACES_READ: u32 = 1 << 9;
/// Bytes read at first to find the end of the first line.
const HEADER_BYTES: usize = 8 << 10;
/// The longest first line: it names the transfers that are open.
const HEADER_BYTES_MAX: usize = 64 << 20;

/// A list of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// A conversation as it is asked for by `/history`, or all logins and logouts.
    Of(Conversation),
    /// All private conversations of a user, and the invitations.
    Owed(UserName),
}

/// Why an index is not used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The disk failed, or has no such file.
    #[error("{0}")]
    Disk(#[from] io::Error),
    /// It is not as it was written, or is that of other events.
    #[error("{0}")]
    Damaged(&'static str),
}

#[derive(Debug, Deserialize)]
struct Header {
    format: u64,
    log: Uuid,
    first: Seq,
    last: Seq,
    root: Hash,
    lists: u32,
    directory: u64,
    transfers: Vec<(TransferId, UserName, UserName)>,
}

/// The bytes of an index that is read.
#[derive(Debug)]
pub enum Bytes<F> {
    /// On the disk.
    File(F),
    /// In memory, where the disk has no room.
    Memory(Vec<u8>),
}

/// An index that is read.
#[derive(Debug)]
pub struct IndexFile<F> {
    bytes: Bytes<F>,
    header: Header,
    /// Where the first line ends; all places count from there.
    start: u64,
}

/// The bytes of the index of a segment.
pub fn encode(segment: &ClosedSegment, builder: &SegmentBuilder) -> Vec<u8> {
    // Behind the end of the last line there is nothing to be checked.
    let checks = builder.checks.iter().copied().chain([0]);
    let places = builder.segment.offsets().zip(checks).flat_map(|(offset, check)| [offset, check]);
    let mut body: Vec<u8> = places.flat_map(u32::to_le_bytes).collect();
    let mut directory = Vec::new();
    let lists = lists(builder);
    for (key, events) in &lists {
        let mut entry = key.to_vec();
        entry.extend_from_slice(&in_file(body.len()).to_le_bytes());
        entry.extend_from_slice(&in_file(events.len()).to_le_bytes());
        entry.extend_from_slice(&crc32c::crc32c(&entry).to_le_bytes());
        directory.append(&mut entry);
        for block in events.chunks(BLOCK_EVENTS) {
            let block: Vec<u8> = block.iter().copied().flat_map(u32::to_le_bytes).collect();
            body.extend_from_slice(&crc32c::crc32c(&block).to_le_bytes());
            body.extend_from_slice(&block);
        }
    }
    let transfers = builder.transfers.iter().map(|(id, (from, to))| format!(r#"["{id}","{from}","{to}"]"#));
    let mut file = checked(&format!(
        r#"{{"type":"index","format":{FORMAT},"log":"{}","first":{},"last":{},"root":"{}","lists":{},"directory":{},"transfers":[{}]"#,
        segment.log,
        segment.first,
        segment.last,
        segment.root,
        lists.len(),
        body.len(),
        transfers.collect::<Vec<_>>().join(",")
    ));
    file.append(&mut body);
    file.append(&mut directory);
    file
}

/// The lists by their keys: the conversations, and of each user all that the user is owed whatever the group.
fn lists(builder: &SegmentBuilder) -> BTreeMap<[u8; KEY_BYTES], Vec<u32>> {
    let mut lists: BTreeMap<[u8; KEY_BYTES], Vec<u32>> = BTreeMap::new();
    for (conversation, events) in builder.segment.lists() {
        let owners = match conversation {
            Conversation::Private(one, other) if one == other => [Some(one), None],
            Conversation::Private(one, other) => [Some(one), Some(other)],
            Conversation::Personal(user) => [Some(user), None],
            Conversation::Group(_) | Conversation::Presence => [None, None],
        };
        for user in owners.into_iter().flatten() {
            lists.entry(List::Owed(user).key()).or_default().extend_from_slice(events);
        }
        if !matches!(conversation, Conversation::Personal(_)) {
            lists.insert(List::Of(conversation).key(), events.to_vec());
        }
    }
    for events in lists.values_mut() {
        events.sort_unstable();
        events.dedup();
    }
    lists
}

fn in_file(count: usize) -> u32 {
    u32::try_from(count).expect("the index of a segment is far shorter than 4 GiB")
}

impl List {
    fn key(self) -> [u8; KEY_BYTES] {
        let (kind, one, other): (u8, &str, &str) = match &self {
            Self::Of(Conversation::Private(one, other)) => (b'p', one.as_str(), other.as_str()),
            Self::Of(Conversation::Group(group)) => (b'g', group.as_str(), ""),
            Self::Of(Conversation::Personal(user)) | Self::Owed(user) => (b'o', user.as_str(), ""),
            Self::Of(Conversation::Presence) => (b'w', "", ""),
        };
        const { assert!(GroupName::BYTES_MAX <= UserName::BYTES_MAX) };
        let mut key = [0; KEY_BYTES];
        key[0] = kind;
        key[1..=one.len()].copy_from_slice(one.as_bytes());
        key[1 + UserName::BYTES_MAX..][..other.len()].copy_from_slice(other.as_bytes());
        key
    }
}

impl<F: StorageFile> IndexFile<F> {
    /// Takes up the index of a segment.
    ///
    /// # Errors
    /// It is not as it was written, or that of other events.
    pub fn open(bytes: Bytes<F>, segment: &ClosedSegment) -> Result<Self, IndexError> {
        let line = read_line(&bytes)?;
        if !is_checked(&line) {
            return Err(IndexError::Damaged("its first line is not as it was written"));
        }
        let header: Header =
            serde_json::from_slice(&line).map_err(|_| IndexError::Damaged("its first line is that of no index"))?;
        if header.format != FORMAT {
            return Err(IndexError::Damaged("it has another format"));
        }
        let ClosedSegment { log, first, last, root } = *segment;
        if (header.log, header.first, header.last, header.root) != (log, first, last, root) {
            return Err(IndexError::Damaged("it is the index of other events"));
        }
        let start = line.len() as u64 + 1;
        let length = start + header.directory + u64::from(header.lists) * ENTRY_BYTES as u64;
        if bytes.length()? != length {
            return Err(IndexError::Damaged("its length is not that of what it holds"));
        }
        Ok(Self { bytes, header, start })
    }

    /// Whether it is in memory, because the disk had no room.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.bytes, Bytes::Memory(_))
    }

    /// The last event of its segment.
    pub fn last(&self) -> Seq {
        self.header.last
    }

    /// The transfers that are open behind the last event.
    pub fn transfers(&self) -> BTreeMap<TransferId, (UserName, UserName)> {
        self.header.transfers.iter().map(|(id, from, to)| (*id, (*from, *to))).collect()
    }

    /// Where the events stand in the segment.
    pub fn places(&self) -> Places<'_, F> {
        Places { file: self, first: 0, read: Vec::new() }
    }

    /// Finds a list.
    ///
    /// # Errors
    /// The disk failed, or an entry is not as it was written.
    pub fn find(&self, list: List) -> Result<Events<'_, F>, IndexError> {
        let key = list.key();
        let (mut low, mut high) = (0, self.header.lists);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut entry = [0; ENTRY_BYTES];
            self.bytes.read(self.start + self.header.directory + u64::from(middle) * ENTRY_BYTES as u64, &mut entry)?;
            if crc32c::crc32c(&entry[..ENTRY_BYTES - 4]) != read_u32(&entry, ENTRY_BYTES - 4) {
                return Err(IndexError::Damaged("an entry of its directory is not as it was written"));
            }
            match entry[..KEY_BYTES].cmp(&key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    let (start, count) = (read_u32(&entry, KEY_BYTES), read_u32(&entry, KEY_BYTES + 4));
                    return Ok(Events { file: self, start, count, block: None });
                }
            }
        }
        Ok(Events { file: self, start: 0, count: 0, block: None })
    }
}

/// The events of a list, counted from the segment's first and rising, read by blocks.
#[derive(Debug)]
pub struct Events<'a, F> {
    file: &'a IndexFile<F>,
    start: u32,
    count: u32,
    /// The block read last.
    block: Option<(u32, Vec<u32>)>,
}

/// Where an event's line stands in its segment.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes to read from there: the line with its line feed, and a commit that may stand behind it.
    pub length: u32,
    /// The CRC-32C of the line without its line feed.
    pub check: u32,
}

/// Where the events stand in their segment, read some at a time.
#[derive(Debug)]
pub struct Places<'a, F> {
    file: &'a IndexFile<F>,
    first: u32,
    read: Vec<u8>,
}

impl<F: StorageFile> Places<'_, F> {
    /// Where an event stands, counted from the segment's first.
    ///
    /// # Errors
    /// The disk failed, or the place cannot be right.
    pub fn get(&mut self, event: u32) -> Result<Place, IndexError> {
        let has = |places: &Self| {
            event >= places.first && (event - places.first + 2) as usize * PLACE_BYTES <= places.read.len()
        };
        if !has(self) {
            let count = u32::try_from(self.file.header.last - self.file.header.first + 2).unwrap_or(u32::MAX);
            // Histories go backward, what is owed forward: both find some of the next ones.
            let first = event.saturating_sub(PLACES_READ / 2).min(count.saturating_sub(PLACES_READ));
            self.read.resize(PLACES_READ.min(count) as usize * PLACE_BYTES, 0);
            self.first = first;
            self.file.bytes.read(self.file.start + PLACE_BYTES as u64 * u64::from(first), &mut self.read)?;
        }
        let at = (event - self.first) as usize * PLACE_BYTES;
        let (offset, stop) = (read_u32(&self.read, at), read_u32(&self.read, at + PLACE_BYTES));
        match stop.checked_sub(offset) {
            Some(length) if length > 0 => {
                Ok(Place { offset: u64::from(offset), length, check: read_u32(&self.read, at + 4) })
            }
            _ => Err(IndexError::Damaged("its places do not rise")),
        }
    }
}

impl<F: StorageFile> Events<'_, F> {
    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The event at a place below [`Events::count`].
    ///
    /// # Errors
    /// The disk failed, or the block is not as it was written.
    pub fn get(&mut self, place: u32) -> Result<u32, IndexError> {
        let each = u32::try_from(BLOCK_EVENTS).expect("a block holds some hundreds of events");
        let number = place / each;
        if self.block.as_ref().is_none_or(|(read, _)| *read != number) {
            self.block = Some((number, self.read(number)?));
        }
        let found = self.block.as_ref().and_then(|(_, events)| events.get((place % each) as usize).copied());
        found.ok_or(IndexError::Damaged("a list is shorter than its entry says"))
    }

    /// How many events are below one.
    ///
    /// # Errors
    /// As [`Events::get`].
    pub fn below(&mut self, event: u64) -> Result<u32, IndexError> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if u64::from(self.get(middle)?) < event {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn read(&self, number: u32) -> Result<Vec<u32>, IndexError> {
        let left = (self.count as usize).saturating_sub(number as usize * BLOCK_EVENTS);
        let mut bytes = vec![0; 4 + 4 * left.min(BLOCK_EVENTS)];
        let place = u64::from(self.start) + u64::from(number) * BLOCK_BYTES as u64;
        self.file.bytes.read(self.file.start + place, &mut bytes)?;
        if crc32c::crc32c(&bytes[4..]) != read_u32(&bytes, 0) {
            return Err(IndexError::Damaged("a list is not as it was written"));
        }
        Ok(bytes[4..].chunks_exact(4).map(|event| read_u32(event, 0)).collect())
    }
}

impl<F: StorageFile> Bytes<F> {
    fn length(&self) -> Result<u64, IndexError> {
        Ok(match self {
            Self::File(file) => file.length()?,
            Self::Memory(bytes) => bytes.len() as u64,
        })
    }

    /// Fills the whole of `buffer`.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), IndexError> {
        let count = match self {
            Self::File(file) => file.read_at(offset, buffer)?,
            Self::Memory(bytes) => {
                let there = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
                let count = there.len().min(buffer.len());
                buffer[..count].copy_from_slice(&there[..count]);
                count
            }
        };
        if count == buffer.len() { Ok(()) } else { Err(IndexError::Damaged("it is cut off")) }
    }
}

/// The first line, without its line feed.
fn read_line<F: StorageFile>(bytes: &Bytes<F>) -> Result<Vec<u8>, IndexError> {
    let length = usize::try_from(bytes.length()?).unwrap_or(usize::MAX).min(HEADER_BYTES_MAX);
    let mut line = vec![0; HEADER_BYTES.min(length)];
    loop {
        bytes.read(0, &mut line)?;
        if let Some(end) = memchr(b'\n', &line) {
            line.truncate(end);
            return Ok(line);
        }
        if line.len() == length {
            return Err(IndexError::Damaged("its first line has no end"));
        }
        line.resize((line.len() * 2).min(length), 0);
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}
