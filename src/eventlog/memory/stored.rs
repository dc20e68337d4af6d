//! What a disk in memory holds, as programs see it and as it is without power; and what a power cut makes of it.
//!
//! Since its last sync a file has been written to and cut. Of these changes any may be lost, whatever became of those
//! before and behind; of a write that is not lost any of its 512-byte sectors may be, and the length that it gave the
//! file may be reached, or not, or in part. Names change one by one, each lost or not until their directory is synced;
//! a renaming is lost or not as one. Clones share all content, so that a disk can be kept as it was at each call.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::eventlog::format::SECTOR_BYTES;

type Names = BTreeMap<Arc<str>, usize>;

/// The files and their names.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored {
    files: Vec<StoredFile>,
    names: Arc<Names>,
    durable_names: Arc<Names>,
    /// Changes of names since they were last synced, in order.
    name_changes: Vec<NameChange>,
}

/// A change of a directory.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Set { name: Arc<str>, number: usize },
    Rename { from: Arc<str>, to: Arc<str>, number: usize },
    Remove { name: Arc<str> },
}

/// A file, whatever names it has.
#[derive(Debug, Clone, Default)]
pub(super) struct StoredFile {
    /// As programs see it.
    bytes: Arc<Vec<u8>>,
    /// As it was last synced.
    durable: Arc<Vec<u8>>,
    /// What was done to it since.
    changes: Vec<Change>,
    /// What a sync that failed was to make durable: no other one does, and it is lost with what is cached.
    forgotten: Vec<Change>,
    /// Whether programs see what a failed sync has lost.
    is_cache_ahead: bool,
    reserved_end: u64,
}

#[derive(Debug, Clone)]
enum Change {
    Write { start: usize, bytes: Arc<[u8]> },
    Cut(usize),
}

impl Stored {
    /// All names, sorted, each with its file.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.names.iter().map(|(name, number)| (&**name, *number))
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    pub(super) fn file(&self, number: usize) -> Option<&StoredFile> {
        self.files.get(number)
    }

    pub(super) fn file_mut(&mut self, number: usize) -> Option<&mut StoredFile> {
        self.files.get_mut(number)
    }

    pub(super) fn add_file(&mut self) -> usize {
        self.files.push(StoredFile::default());
        self.files.len() - 1
    }

    /// Puts a file there, durably.
    pub(super) fn put(&mut self, name: String, bytes: Vec<u8>) {
        let bytes = Arc::new(bytes);
        self.files.push(StoredFile { bytes: Arc::clone(&bytes), durable: bytes, ..StoredFile::default() });
        let change = NameChange::Set { name: name.into(), number: self.files.len() - 1 };
        apply(&mut self.names, &change);
        apply(&mut self.durable_names, &change);
    }

    /// Gives the bytes of room of a file that has no name any more.
    pub(super) fn change_name(&mut self, change: NameChange) -> u64 {
        let replaced = match &change {
            NameChange::Set { name, .. } | NameChange::Rename { to: name, .. } | NameChange::Remove { name } => name,
        };
        let room = self.find(replaced).and_then(|number| self.file(number)).map_or(0, StoredFile::room);
        apply(&mut self.names, &change);
        self.name_changes.push(change);
        room
    }

    /// Makes the names of one directory durable, whose names all begin with `prefix`.
    pub(super) fn sync_names(&mut self, prefix: &str) {
        let is_here = |name: &str| name.strip_prefix(prefix).is_some_and(|name| !name.contains('/'));
        let (here, elsewhere) = self.name_changes.drain(..).partition(|change| match change {
            NameChange::Set { name, .. } | NameChange::Rename { to: name, .. } | NameChange::Remove { name } => {
                is_here(name)
            }
        });
        self.name_changes = elsewhere;
        let here: Vec<NameChange> = here;
        here.iter().for_each(|change| apply(&mut self.durable_names, change));
    }

    /// The power is cut. `survives` is asked for each change, and for the sectors of writes.
    pub(super) fn lose_unsynced(&mut self, survives: &mut impl FnMut() -> bool) {
        for change in std::mem::take(&mut self.name_changes) {
            if survives() {
                apply(&mut self.durable_names, &change);
            }
        }
        self.names = Arc::clone(&self.durable_names);
        for file in &mut self.files {
            file.lose_unsynced(survives);
        }
    }
}

fn apply(names: &mut Arc<Names>, change: &NameChange) {
    let names = Arc::make_mut(names);
    match change {
        NameChange::Set { name, number } => {
            names.insert(Arc::clone(name), *number);
        }
        NameChange::Rename { from, to, number } => {
            names.remove(from);
            names.insert(Arc::clone(to), *number);
        }
        NameChange::Remove { name } => {
            names.remove(name);
        }
    }
}

impl StoredFile {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of the disk that it takes.
    fn room(&self) -> u64 {
        self.reserved_end.max(self.bytes.len() as u64)
    }

    /// Bytes that it takes more if it is to reach up to `end`.
    pub(super) fn room_needed(&self, end: u64) -> u64 {
        end.saturating_sub(self.room())
    }

    pub(super) fn reserve(&mut self, end: u64) {
        self.reserved_end = self.reserved_end.max(end);
    }

    pub(super) fn write(&mut self, start: usize, bytes: &[u8]) {
        let change = Change::Write { start, bytes: bytes.into() };
        change.apply(Arc::make_mut(&mut self.bytes));
        self.changes.push(change);
    }

    /// Gives the bytes of room that came free.
    pub(super) fn cut(&mut self, length: usize) -> u64 {
        let before = self.room();
        self.reserved_end = 0;
        if length < self.bytes.len() {
            let change = Change::Cut(length);
            change.apply(Arc::make_mut(&mut self.bytes));
            self.changes.push(change);
        }
        before - self.room()
    }

    pub(super) fn sync(&mut self) {
        self.forgotten.clear();
        if self.is_cache_ahead {
            let durable = Arc::make_mut(&mut self.durable);
            self.changes.iter().for_each(|change| change.apply(durable));
        } else {
            self.durable = Arc::clone(&self.bytes);
        }
        self.changes.clear();
    }

    pub(super) fn fail_sync(&mut self) {
        self.is_cache_ahead |= !self.changes.is_empty();
        self.forgotten.append(&mut self.changes);
    }

    /// What programs see comes from the disk again, but for what is still to be written.
    pub(super) fn forget_cached(&mut self) {
        self.forgotten.clear();
        self.is_cache_ahead = false;
        self.bytes = Arc::clone(&self.durable);
        if !self.changes.is_empty() {
            let bytes = Arc::make_mut(&mut self.bytes);
            self.changes.iter().for_each(|change| change.apply(bytes));
        }
    }

    pub(super) fn flip(&mut self, offset: usize, bit: u32) {
        for bytes in [&mut self.bytes, &mut self.durable] {
            if let Some(byte) = Arc::make_mut(bytes).get_mut(offset) {
                *byte ^= 1 << bit;
            }
        }
    }

    fn lose_unsynced(&mut self, survives: &mut impl FnMut() -> bool) {
        let changes = [std::mem::take(&mut self.forgotten), std::mem::take(&mut self.changes)].concat();
        if !changes.is_empty() {
            let durable = Arc::make_mut(&mut self.durable);
            changes.iter().for_each(|change| change.apply_in_part(durable, survives));
        }
        self.bytes = Arc::clone(&self.durable);
        self.is_cache_ahead = false;
        self.reserved_end = self.reserved_end.max(self.bytes.len() as u64);
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { start, bytes } => {
                let end = start + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*start..end].copy_from_slice(bytes);
            }
            Self::Cut(length) => file.truncate(*length),
        }
    }

    /// Applies as much of it as survives: all, nothing, or of a write the sectors that do.
    fn apply_in_part(&self, file: &mut Vec<u8>, survives: &mut impl FnMut() -> bool) {
        let Self::Write { start, bytes } = self else {
            if survives() {
                self.apply(file);
            }
            return;
        };
        if survives() {
            return self.apply(file);
        }
        if !survives() {
            return;
        }
        let end = start + bytes.len();
        // A write begins in the middle of a sector or not: what is written as one ends where the sector does.
        let sector_end = |from: usize| (from / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES).min(end);
        if file.len() < end {
            let mut length = file.len();
            while length < end && survives() {
                length = sector_end(length);
            }
            file.resize(length, 0);
        }
        let mut from = *start;
        while from < end {
            let to = sector_end(from);
            if survives() && from < file.len() {
                let to = to.min(file.len());
                file[from..to].copy_from_slice(&bytes[from - start..to - start]);
            }
            from = to;
        }
    }
}
