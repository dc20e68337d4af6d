//! The file that is received: a part and its side file, beneath the download directory, until it is whole.
//!
//! `.NAME.part` holds the bytes, `.NAME.part.have` what it is a part of and the value of each finished block:
//!
//! ```text
//! length of the key (4, big-endian) | key (JSON) | zeros up to byte 8,192 | a value of 32 bytes for each block
//! ```
//!
//! A value is written after the block's bytes; 32 zeros stand for a block that is not there. Nothing is trusted when a
//! part is taken up again: each block is read and hashed anew, so that nothing need be synced on the way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::names::{TransferId, UserName};

use super::blocks::{self, Root, VALUE_BYTES, Value};
use super::directory::Directory;
use super::failure::Failure;
use super::limits::NAMES_MAX;
use super::path::SafeName;

/// Where the values begin in a side file.
const VALUES_OFFSET: u64 = 8_192;
const ABSENT: Value = [0; VALUE_BYTES];

/// What a part is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartKey {
    /// The transfer that brought it, or that took it up last.
    pub transfer: TransferId,
    /// Who sends it.
    pub from: UserName,
    /// The file's name as its sender has it.
    pub name: String,
    /// Its whole length.
    pub size: u64,
}

impl PartKey {
    /// Whether it is the same file, by all that an offer tells, be it in another transfer.
    fn is_same_file(&self, other: &Self) -> bool {
        (self.from, &self.name, self.size) == (other.from, &other.name, other.size)
    }
}

/// A file that is being received. The part is locked for as long as this lives or until it is released.
#[derive(Debug)]
pub struct Part {
    directory: Directory,
    data: File,
    side: File,
    part_name: String,
    name: SafeName,
    key: PartKey,
    is_new: bool,
}

impl Part {
    /// Opens the part of a file from before, or a new one, and reserves the space for it.
    ///
    /// # Errors
    /// The name names nothing, there is no space, or the disk fails.
    pub fn open(directory: &Path, key: PartKey) -> Result<Self, Failure> {
        let name = SafeName::new(key.from, &key.name).ok_or(Failure::BadOffer("the name names no file"))?;
        let directory = Directory::open(directory)?;
        for number in 0..=NAMES_MAX {
            let part_name = part_name(&name, number);
            let Some((data, side, is_new)) = open_part(&directory, &part_name, &key)? else { continue };
            let part = Self { directory, data, side, part_name, name, key, is_new };
            if let Err(failure) = part.write_key().and_then(|()| part.reserve()) {
                if is_new {
                    part.discard();
                }
                return Err(failure);
            }
            return Ok(part);
        }
        Err(Failure::Limit("there are too many parts of files with this name"))
    }

    /// Whether a part that this very transfer brought is in a directory.
    pub fn exists(directory: &Path, key: &PartKey) -> bool {
        let Some(name) = SafeName::new(key.from, &key.name) else { return false };
        let Ok(directory) = Directory::open(directory) else { return false };
        for number in 0..=NAMES_MAX {
            match directory.open_file(&side_name(&part_name(&name, number)), OFlags::RDONLY) {
                Ok(side) if read_key(&side).as_ref() == Some(key) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// What it is a part of.
    pub fn key(&self) -> &PartKey {
        &self.key
    }

    /// Whether nothing can be there from before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Writes a block whose value was checked, and then its value.
    pub fn write_block(&self, index: u32, value: &Value, bytes: &[u8]) -> Result<(), Failure> {
        self.data.write_all_at(bytes, blocks::offset(index)).map_err(|error| self.failed("written", error))?;
        self.side.write_all_at(value, value_offset(index)).map_err(|error| self.failed("written", error))
    }

    /// Whether a block is there and right; reads it into the buffer.
    pub fn check_block(&self, index: u32, buffer: &mut Vec<u8>) -> bool {
        let Some(value) = self.value(index) else { return false };
        buffer.resize(blocks::length(self.key.size, index), 0);
        let is_read = self.data.read_exact_at(buffer, blocks::offset(index)).is_ok();
        is_read && blocks::value(self.key.size, index, buffer) == value
    }

    /// The value of a block, if it was written.
    pub fn value(&self, index: u32) -> Option<Value> {
        let mut value = ABSENT;
        self.side.read_exact_at(&mut value, value_offset(index)).ok()?;
        (value != ABSENT).then_some(value)
    }

    /// The hash of the whole file, from the values of all blocks.
    pub fn root(&self) -> Option<Value> {
        let mut root = Root::default();
        for index in 0..blocks::count(self.key.size) {
            root.push(self.value(index)?);
        }
        Some(root.finish())
    }

    /// Makes the whole file safe on the disk and gives it its name, which no other file has.
    pub fn finish(&self) -> Result<PathBuf, Failure> {
        self.data.set_len(self.key.size).map_err(|error| self.failed("written", error))?;
        self.data.sync_all().map_err(|error| self.failed("written", error))?;
        for number in 0..=NAMES_MAX {
            let name = self.name.numbered(number);
            match self.directory.rename_new(&self.part_name, &name) {
                Ok(()) => {
                    self.directory.remove(&side_name(&self.part_name));
                    self.directory.sync().map_err(|error| self.failed("written", error.into()))?;
                    return Ok(self.directory.path().join(name));
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed("renamed", error.into())),
            }
        }
        Err(Failure::Limit("there are too many files with this name"))
    }

    /// Removes what was received.
    pub fn discard(&self) {
        self.directory.remove(&self.part_name);
        self.directory.remove(&side_name(&self.part_name));
    }

    /// Lets others take the part up at once. What the worker may still have to write are whole blocks that were checked,
    /// and it writes them before it looks at the part again.
    pub fn release(&self) {
        let _ = rustix::fs::flock(&self.data, FlockOperation::Unlock);
    }

    fn write_key(&self) -> Result<(), Failure> {
        let key = serde_json::to_vec(&self.key).unwrap_or_default();
        let length = u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes();
        let header = [length.as_slice(), &key].concat();
        if header.len() as u64 > VALUES_OFFSET {
            return Err(Failure::BadOffer("the name is too long"));
        }
        self.side.write_all_at(&header, 0).map_err(|error| self.failed("written", error))
    }

    /// Takes the file's space from the disk, so that a disk that is too full is noticed now.
    fn reserve(&self) -> Result<(), Failure> {
        let (needed_bytes, free_bytes) = self.needed_and_free_bytes();
        if free_bytes < needed_bytes {
            return Err(Failure::NoSpace { needed_bytes, free_bytes });
        }
        if self.key.size == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.data, FallocateFlags::KEEP_SIZE, 0, self.key.size) {
            // Not every file system can; the free space was enough a moment ago.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(self.failed("written", error.into())),
        }
    }

    fn needed_and_free_bytes(&self) -> (u64, u64) {
        /// Bytes of what `st_blocks` counts, on every system.
        const COUNTED_BYTES: u64 = 512;
        let taken = rustix::fs::fstat(&self.data).map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or_default());
        let free =
            rustix::fs::fstatvfs(&self.data).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        (self.key.size.saturating_sub(taken * COUNTED_BYTES), free)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Failure {
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => {
                let (needed_bytes, free_bytes) = self.needed_and_free_bytes();
                Failure::NoSpace { needed_bytes, free_bytes }
            }
            _ => Failure::Disk { action, path: self.directory.path().join(&self.part_name), source },
        }
    }
}

/// The part of this name and its side file, locked, and whether they are new; `None` if it is another file's.
fn open_part(directory: &Directory, part_name: &str, key: &PartKey) -> Result<Option<(File, File, bool)>, Failure> {
    let failed = |error: Errno| Failure::Disk {
        action: "written",
        path: directory.path().join(part_name),
        source: error.into(),
    };
    let side_name = side_name(part_name);
    match directory.open_file(part_name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
        Ok(data) => {
            rustix::fs::flock(&data, FlockOperation::NonBlockingLockExclusive).map_err(failed)?;
            // A side file without its part is what a finished file left behind.
            directory.remove(&side_name);
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
            let side = directory.open_file(&side_name, flags).map_err(failed)?;
            Ok(Some((data, side, true)))
        }
        Err(Errno::EXIST) => {
            let Ok(data) = directory.open_file(part_name, OFlags::RDWR) else { return Ok(None) };
            let Ok(side) = directory.open_file(&side_name, OFlags::RDWR) else { return Ok(None) };
            let is_this = read_key(&side).is_some_and(|known| known.is_same_file(key));
            let is_free = rustix::fs::flock(&data, FlockOperation::NonBlockingLockExclusive).is_ok();
            Ok((is_this && is_free).then_some((data, side, false)))
        }
        Err(error) => Err(failed(error)),
    }
}

fn part_name(name: &SafeName, number: u32) -> String {
    format!(".{}.part", name.numbered(number))
}

fn side_name(part_name: &str) -> String {
    format!("{part_name}.have")
}

fn value_offset(index: u32) -> u64 {
    VALUES_OFFSET + u64::from(index) * VALUE_BYTES as u64
}

fn read_key(side: &File) -> Option<PartKey> {
    let mut length = [0; 4];
    side.read_exact_at(&mut length, 0).ok()?;
    let length = u32::from_be_bytes(length) as usize;
    if length as u64 + 4 > VALUES_OFFSET {
        return None;
    }
    let mut key = vec![0; length];
    side.read_exact_at(&mut key, 4).ok()?;
    serde_json::from_slice(&key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, size: u64) -> PartKey {
        let transfer = "0123456789abcdef0123456789abcdef".parse().unwrap();
        PartKey { transfer, from: "yoda".parse().unwrap(), name: name.into(), size }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(part: &Part, index: u32, bytes: &[u8]) {
        part.write_block(index, &blocks::value(part.key.size, index, bytes), bytes).unwrap();
    }

    #[test]
    fn a_part_is_taken_up_with_what_is_right_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let size = 3 * blocks::BLOCK_BYTES as u64;
        let block = vec![7; blocks::BLOCK_BYTES];
        let part = Part::open(directory.path(), key("a", size)).unwrap();
        assert!(part.is_new());
        write(&part, 0, &block);
        write(&part, 2, &block);
        drop(part);
        let path = directory.path().join(".yoda_a.part");
        File::options().write(true).open(path).unwrap().write_all_at(b"x", blocks::offset(2)).unwrap();
        // Another transfer of the same file takes it up, and it is then that one's.
        let other = PartKey { transfer: "f".repeat(32).parse().unwrap(), ..key("a", size) };
        assert!(Part::exists(directory.path(), &key("a", size)) && !Part::exists(directory.path(), &other));
        let part = Part::open(directory.path(), other.clone()).unwrap();
        assert!(!part.is_new() && Part::exists(directory.path(), &other));
        let mut buffer = Vec::new();
        assert_eq!([0, 1, 2].map(|index| part.check_block(index, &mut buffer)), [true, false, false]);
        assert_eq!(part.root(), None);
        write(&part, 1, &block);
        write(&part, 2, &block);
        assert_eq!(part.root(), Some(*blake3::hash(&block.repeat(3)).as_bytes()));
        assert_eq!(part.finish().unwrap(), directory.path().join("yoda_a"));
        assert_eq!(names(directory.path()), ["yoda_a"]);
    }

    #[test]
    fn a_part_is_one_transfers_at_a_time_and_one_files() {
        let directory = tempfile::tempdir().unwrap();
        let first = Part::open(directory.path(), key("a", 5)).unwrap();
        let second = Part::open(directory.path(), key("a", 5)).unwrap();
        assert!(second.is_new(), "the first is locked");
        first.release();
        let again = Part::open(directory.path(), key("a", 5)).unwrap();
        assert!(!again.is_new());
        let other_size = Part::open(directory.path(), key("a", 6)).unwrap();
        assert!(other_size.is_new());
        let parts = [".yoda_a (1).part", ".yoda_a (1).part.have", ".yoda_a (2).part", ".yoda_a (2).part.have"];
        assert_eq!(names(directory.path())[..4], parts);
        again.discard();
        assert_eq!(names(directory.path()), parts);
    }

    #[test]
    fn a_full_disk_is_no_space_and_leaves_nothing_of_a_file_that_was_not_begun() {
        let directory = tempfile::tempdir().unwrap();
        let part = Part::open(directory.path(), key("a", 5)).unwrap();
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(matches!(part.failed("written", errno.into()), Failure::NoSpace { .. }));
        }
        assert!(matches!(part.failed("written", Errno::IO.into()), Failure::Disk { action: "written", .. }));
        part.discard();
        let disk = rustix::fs::statvfs(directory.path()).unwrap();
        let more_than_there_is = disk.f_blocks * disk.f_frsize + 1;
        let refused = Part::open(directory.path(), key("b", more_than_there_is)).unwrap_err();
        assert!(matches!(refused, Failure::NoSpace { needed_bytes, free_bytes } if free_bytes < needed_bytes));
        assert_eq!(names(directory.path()), [""; 0]);
    }
}
