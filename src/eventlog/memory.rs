//! A disk in memory whose plug can be pulled: what was not synced may be lost, whole or in parts.
//!
//! For tests and simulations. Writes since the last sync survive a power cut by 512-byte sectors, each or not; names
//! survive one by one in the order in which they changed, up to some point.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::format::SECTOR_BYTES;
use super::storage::{EVENTS, Storage, StorageFile, TORN};

/// The disk, as one directory of it is seen. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    contents: Arc<Mutex<Contents>>,
    /// What stands before the names of this directory's files: nothing for the log's own.
    prefix: String,
}

/// One open file.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    disk: MemoryDisk,
    number: usize,
}

#[derive(Debug, Default)]
struct Contents {
    files: Vec<FileContents>,
    /// The names as programs see them, and as they would be after a power cut.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since they were last synced.
    renamings: Vec<Renaming>,
    faults: Faults,
}

#[derive(Debug, Clone)]
enum Renaming {
    Set(String, usize),
    Remove(String),
}

#[derive(Debug, Clone, Default)]
struct FileContents {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    reserved_end: u64,
}

/// What the disk does wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The sync that fails, counted down by each; what it was to make durable stays undecided.
    pub sync_fails_after: Option<u64>,
    /// Whether a sync does nothing and claims success: for the test that must see loss.
    pub sync_lies: bool,
    /// Bytes that can be reserved yet, over all files; `None` is no limit.
    pub room_bytes: Option<u64>,
}

impl MemoryDisk {
    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.contents().faults = faults;
    }

    /// The power is cut and comes back. `survives` is asked for each sector that was written and not synced, and for
    /// each change of a name in turn, of which all behind the first lost one are lost too.
    pub fn cut_power(&self, mut survives: impl FnMut() -> bool) {
        let mut contents = self.contents();
        let renamings = std::mem::take(&mut contents.renamings);
        for renaming in renamings.into_iter().take_while(|_| survives()) {
            apply(&mut contents.durable_names, renaming);
        }
        contents.names = contents.durable_names.clone();
        for file in &mut contents.files {
            file.lose_unsynced(&mut survives);
        }
    }

    /// The tails that were cut off so far.
    pub fn torn(&self) -> Vec<Vec<u8>> {
        let contents = self.contents();
        let torn = contents.names.iter().filter(|(name, _)| name.starts_with(TORN));
        torn.filter_map(|(_, number)| Some(contents.files.get(*number)?.bytes.clone())).collect()
    }

    /// A file's content as programs see it.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let contents = self.contents();
        let number = *contents.names.get(&self.path(name))?;
        Some(contents.files.get(number)?.bytes.clone())
    }

    /// Puts a file there, durably, whatever was there before.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut contents = self.contents();
        let number = contents.files.len();
        contents.files.push(FileContents { durable: bytes.clone(), bytes, reserved_end: 0 });
        contents.names.insert(self.path(name), number);
        contents.durable_names.insert(self.path(name), number);
    }

    /// Changes a bit of a file where it lies, durably, also for those who have it open.
    pub fn flip(&self, name: &str, offset: usize, bit: u32) {
        let mut contents = self.contents();
        let number = contents.names.get(&self.path(name)).copied();
        let Some(file) = number.and_then(|number| contents.files.get_mut(number)) else { return };
        for bytes in [&mut file.bytes, &mut file.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << bit;
            }
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // A test that panicked elsewhere has failed already.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(names: &mut BTreeMap<String, usize>, renaming: Renaming) {
    match renaming {
        Renaming::Set(name, number) => {
            names.insert(name, number);
        }
        Renaming::Remove(name) => {
            names.remove(&name);
        }
    }
}

impl Contents {
    fn change_name(&mut self, renaming: Renaming) {
        apply(&mut self.names, renaming.clone());
        self.renamings.push(renaming);
    }

    /// Counts a sync; `Ok(false)` is one that claims to have happened.
    fn count_sync(&mut self) -> io::Result<bool> {
        match &mut self.faults.sync_fails_after {
            Some(0) => return Err(io::Error::other("the disk failed")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(!self.faults.sync_lies)
    }
}

impl FileContents {
    /// After a power cut: the longer of the two lengths or the durable one, and in it each sector new or old.
    fn lose_unsynced(&mut self, survives: &mut impl FnMut() -> bool) {
        if self.bytes == self.durable {
            return;
        }
        let length = if survives() { self.bytes.len() } else { self.durable.len().min(self.bytes.len()) };
        let mut after = self.durable.clone();
        after.resize(length, 0);
        for (sector, old) in after.chunks_mut(SECTOR_BYTES).enumerate() {
            let start = sector * SECTOR_BYTES;
            let new = &self.bytes[start..start + old.len()];
            if new != &*old && survives() {
                old.copy_from_slice(new);
            }
        }
        self.durable.clone_from(&after);
        self.bytes = after;
    }
}

impl Storage for MemoryDisk {
    type File = MemoryFile;

    fn beside(&self, directory: &str) -> io::Result<Self> {
        let prefix = if directory == EVENTS { String::new() } else { format!("{directory}/") };
        Ok(Self { contents: Arc::clone(&self.contents), prefix })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let contents = self.contents();
        let names = contents.names.keys().filter_map(|name| name.strip_prefix(&self.prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let number = self.contents().names.get(&self.path(name)).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(MemoryFile { disk: self.clone(), number })
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut contents = self.contents();
        let number = contents.files.len();
        contents.files.push(FileContents::default());
        contents.change_name(Renaming::Set(self.path(name), number));
        Ok(MemoryFile { disk: self.clone(), number })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut contents = self.contents();
        let number = contents.names.get(&self.path(from)).copied().ok_or(io::ErrorKind::NotFound)?;
        contents.change_name(Renaming::Set(self.path(to), number));
        contents.change_name(Renaming::Remove(self.path(from)));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.contents().change_name(Renaming::Remove(self.path(name)));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut contents = self.contents();
        if contents.count_sync()? {
            contents.renamings.clear();
            contents.durable_names = contents.names.clone();
        }
        Ok(())
    }

    fn keep_torn(&self, name: &str, bytes: &[u8]) -> io::Result<String> {
        let path = format!("{TORN}/{name}");
        self.beside(EVENTS)?.put(&path, bytes.to_vec());
        Ok(path)
    }
}

impl MemoryFile {
    fn with<R>(&self, act: impl FnOnce(&mut FileContents) -> R) -> io::Result<R> {
        let mut contents = self.disk.contents();
        Ok(act(contents.files.get_mut(self.number).ok_or(io::ErrorKind::NotFound)?))
    }
}

impl StorageFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|file| file.bytes.len() as u64)
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        self.with(|file| file.bytes.clone())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|file| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.bytes.len());
            let count = buffer.len().min(file.bytes.len() - start);
            buffer[..count].copy_from_slice(&file.bytes[start..start + count]);
            count
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|file| {
            if file.bytes.len() < start + bytes.len() {
                file.bytes.resize(start + bytes.len(), 0);
            }
            file.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        })
    }

    fn sync(&self) -> io::Result<()> {
        let is_true = self.disk.contents().count_sync()?;
        self.with(|file| {
            if is_true {
                file.durable.clone_from(&file.bytes);
            }
        })
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.with(|file| {
            file.bytes.truncate(length);
            file.reserved_end = length as u64;
        })
    }

    fn reserve(&self, end: u64) -> io::Result<()> {
        let mut contents = self.disk.contents();
        let reserved = contents.files.get(self.number).map_or(0, |file| file.reserved_end);
        let wanted = end.saturating_sub(reserved);
        if let Some(room) = &mut contents.faults.room_bytes {
            *room = room.checked_sub(wanted).ok_or(io::ErrorKind::StorageFull)?;
        }
        if let Some(file) = contents.files.get_mut(self.number) {
            file.reserved_end = reserved.max(end);
        }
        Ok(())
    }

    fn forget_cached(&self) {}
}
