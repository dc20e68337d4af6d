//! A disk in memory whose plug can be pulled between any two calls: what was not synced may be lost, whole or in parts.
//!
//! For tests and simulations. `stored.rs` says what a power cut leaves. What changes the disk is a *call*; they are
//! counted, can be made to fail from one on, and can be recorded: then the disk behind each of them is kept, and the
//! power can be cut there as often as wanted, each time with something else lost.

mod stored;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::storage::{EVENTS, Storage, StorageFile, TORN};
use stored::{NameChange, Stored, StoredFile};

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
    contents: Arc<Mutex<Contents>>,
    number: usize,
}

#[derive(Debug, Default)]
struct Contents {
    stored: Stored,
    faults: Faults,
    /// The disk behind each call, where that is wanted.
    recording: Option<Vec<DiskImage>>,
}

/// What the disk does wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The call from which on the power is off, counted down by each: it and all behind it fail, and change nothing.
    pub power_fails_after: Option<u64>,
    /// The sync that fails, counted down by each: what it was to make durable is forgotten by those to come, and lost
    /// with what is cached.
    pub sync_fails_after: Option<u64>,
    /// Whether the sync of a file does nothing and claims success: for the test that must see loss.
    pub file_sync_lies: bool,
    /// The same for the sync of names.
    pub name_sync_lies: bool,
    /// Whether nothing that is cached is ever forgotten, also what a failed sync has lost: for the test that must see
    /// loss.
    pub cache_lies: bool,
    /// Bytes that can be written or reserved yet, over all files; `None` is no limit. Files that are cut, removed or
    /// replaced give theirs back.
    pub room_bytes: Option<u64>,
    /// Whether room that is given back is taken by somebody else.
    pub freed_room_is_taken: bool,
}

/// The disk as it was behind a call.
#[derive(Debug, Clone)]
pub struct DiskImage(Stored);

impl DiskImage {
    /// The disk for whoever comes after a process that was killed here: nothing is lost, and nothing more is durable.
    pub fn after_kill(&self) -> MemoryDisk {
        let contents = Contents { stored: self.0.clone(), ..Contents::default() };
        MemoryDisk { contents: Arc::new(Mutex::new(contents)), prefix: String::new() }
    }

    /// A disk on which the power was cut here; `survives` is asked as for [`MemoryDisk::cut_power`].
    pub fn after_power_cut(&self, mut survives: impl FnMut() -> bool) -> MemoryDisk {
        let disk = self.after_kill();
        disk.cut_power(&mut survives);
        disk
    }
}

impl MemoryDisk {
    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.contents().faults = faults;
    }

    /// The power is cut and comes back. `survives` is asked for each change that was not synced, and for the sectors of
    /// each write.
    pub fn cut_power(&self, mut survives: impl FnMut() -> bool) {
        self.contents().stored.lose_unsynced(&mut survives);
    }

    /// Records from now on, beginning with the disk as it is.
    pub fn start_recording(&self) {
        let mut contents = self.contents();
        contents.recording = Some(vec![DiskImage(contents.stored.clone())]);
    }

    /// How many images were recorded so far.
    pub fn recorded(&self) -> usize {
        self.contents().recording.as_ref().map_or(0, Vec::len)
    }

    /// Ends the recording, and gives the disk as it was at its start and behind each call since.
    pub fn take_recording(&self) -> Vec<DiskImage> {
        self.contents().recording.take().unwrap_or_default()
    }

    /// The tails that were cut off so far.
    pub fn torn(&self) -> Vec<Vec<u8>> {
        let contents = self.contents();
        let torn = contents.stored.names().filter(|(name, _)| name.starts_with(TORN));
        torn.filter_map(|(_, number)| Some(contents.stored.file(number)?.bytes().to_vec())).collect()
    }

    /// A file's content as programs see it.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.with_content(name, <[u8]>::to_vec)
    }

    /// Looks at a file's content as programs see it.
    pub fn with_content<R>(&self, name: &str, look: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let contents = self.contents();
        let number = contents.stored.find(&self.path(name))?;
        Some(look(contents.stored.file(number)?.bytes()))
    }

    /// Puts a file there, durably, whatever was there before.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.contents().stored.put(self.path(name), bytes);
    }

    /// Changes a bit of a file where it lies, durably, also for those who have it open.
    pub fn flip(&self, name: &str, offset: usize, bit: u32) {
        let mut contents = self.contents();
        let number = contents.stored.find(&self.path(name));
        if let Some(file) = number.and_then(|number| contents.stored.file_mut(number)) {
            file.flip(offset, bit);
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        lock(&self.contents)
    }
}

fn lock(contents: &Mutex<Contents>) -> MutexGuard<'_, Contents> {
    // A test that panicked elsewhere has failed already.
    contents.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Contents {
    /// Carries out a call, unless the power is off.
    fn call<R>(&mut self, change: impl FnOnce(&mut Self) -> io::Result<R>) -> io::Result<R> {
        match &mut self.faults.power_fails_after {
            Some(0) => return Err(io::Error::other("the power is off")),
            Some(left) => *left -= 1,
            None => {}
        }
        let done = change(self);
        if let Some(recording) = &mut self.recording {
            recording.push(DiskImage(self.stored.clone()));
        }
        done
    }

    /// Carries out a call on a file.
    fn call_on<R>(
        &mut self,
        number: usize,
        change: impl FnOnce(&mut StoredFile, &mut Faults) -> io::Result<R>,
    ) -> io::Result<R> {
        self.call(|contents| {
            let file = contents.stored.file_mut(number).ok_or(io::ErrorKind::NotFound)?;
            change(file, &mut contents.faults)
        })
    }

    /// Changes a name; a file that loses its own by it gives its room back.
    fn change_name(&mut self, change: NameChange) {
        let replaced = self.stored.change_name(change);
        self.faults.give_back(replaced);
    }
}

impl Faults {
    fn count_sync(&mut self) -> io::Result<()> {
        match &mut self.sync_fails_after {
            Some(0) => return Err(io::Error::other("the disk failed")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn take_room(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(room) = &mut self.room_bytes {
            *room = room.checked_sub(bytes).ok_or(io::ErrorKind::StorageFull)?;
        }
        Ok(())
    }

    fn give_back(&mut self, bytes: u64) {
        if let Some(room) = self.room_bytes.as_mut().filter(|_| !self.freed_room_is_taken) {
            *room += bytes;
        }
    }
}

impl Storage for MemoryDisk {
    type File = MemoryFile;

    fn beside(&self, directory: &str) -> Self {
        let prefix = if directory == EVENTS { String::new() } else { format!("{directory}/") };
        Self { contents: Arc::clone(&self.contents), prefix }
    }

    /// All directories are there.
    fn make(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn unmake(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let contents = self.contents();
        let names = contents.stored.names().filter_map(|(name, _)| name.strip_prefix(&self.prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let number = self.contents().stored.find(&self.path(name)).ok_or(io::ErrorKind::NotFound)?;
        Ok(MemoryFile { contents: Arc::clone(&self.contents), number })
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let path = self.path(name);
        let number = self.contents().call(|contents| match contents.stored.find(&path) {
            Some(number) => {
                let freed = contents.stored.file_mut(number).map_or(0, |file| file.cut(0));
                contents.faults.give_back(freed);
                Ok(number)
            }
            None => {
                let number = contents.stored.add_file();
                contents.change_name(NameChange::Set { name: path.into(), number });
                Ok(number)
            }
        })?;
        Ok(MemoryFile { contents: Arc::clone(&self.contents), number })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        self.contents().call(|contents| {
            let number = contents.stored.find(&from).ok_or(io::ErrorKind::NotFound)?;
            contents.change_name(NameChange::Rename { from: from.into(), to: to.into(), number });
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let name = self.path(name);
        self.contents().call(|contents| {
            contents.stored.find(&name).ok_or(io::ErrorKind::NotFound)?;
            contents.change_name(NameChange::Remove { name: name.into() });
            Ok(())
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.contents().call(|contents| {
            contents.faults.count_sync()?;
            if !contents.faults.name_sync_lies {
                contents.stored.sync_names(&self.prefix);
            }
            Ok(())
        })
    }

    fn keep_torn(&self, name: &str, bytes: &[u8]) -> io::Result<String> {
        let torn = self.beside(TORN);
        let file = torn.create(name)?;
        file.write_at(0, bytes)?;
        file.sync()?;
        torn.sync_names()?;
        Ok(torn.path(name))
    }
}

impl MemoryFile {
    fn with<R>(&self, look: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
        let contents = lock(&self.contents);
        Ok(look(contents.stored.file(self.number).ok_or(io::ErrorKind::NotFound)?.bytes()))
    }
}

impl StorageFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|bytes| bytes.len() as u64)
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        self.with(<[u8]>::to_vec)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|bytes| {
            let there = usize::try_from(offset).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
            let count = buffer.len().min(there.len());
            buffer[..count].copy_from_slice(&there[..count]);
            count
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        lock(&self.contents).call_on(self.number, |file, faults| {
            faults.take_room(file.room_needed((start + bytes.len()) as u64))?;
            file.write(start, bytes);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        lock(&self.contents).call_on(self.number, |file, faults| {
            faults.count_sync().inspect_err(|_| file.fail_sync())?;
            if !faults.file_sync_lies {
                file.sync();
            }
            Ok(())
        })
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        lock(&self.contents).call_on(self.number, |file, faults| {
            faults.give_back(file.cut(length));
            Ok(())
        })
    }

    fn reserve(&self, end: u64) -> io::Result<()> {
        lock(&self.contents).call_on(self.number, |file, faults| {
            faults.take_room(file.room_needed(end))?;
            file.reserve(end);
            Ok(())
        })
    }

    fn forget_cached(&self) {
        let mut contents = lock(&self.contents);
        if !contents.faults.cache_lies
            && let Some(file) = contents.stored.file_mut(self.number)
        {
            file.forget_cached();
        }
    }
}
