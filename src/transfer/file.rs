//! The file that is sent: opened and checked once, read by blocks, and compared with itself at the end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::blocks;
use super::failure::{Failure, SourceError};
use super::limits::FILE_BYTES_MAX;

/// A file that can be sent.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: PathBuf,
    name: String,
    stamp: Stamp,
}

/// What shows that a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size_bytes: u64,
    modified: (i64, i64),
    file: (u64, u64),
}

impl Stamp {
    #[expect(clippy::unnecessary_cast, reason = "the types of these fields differ between systems")]
    fn of(stat: &Stat) -> Self {
        Self {
            size_bytes: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: (stat.st_mtime as i64, i64::try_from(stat.st_mtime_nsec).unwrap_or_default()),
            file: (stat.st_dev as u64, stat.st_ino as u64),
        }
    }
}

impl Source {
    /// Opens a file and checks that it can be sent; reads nothing of it.
    ///
    /// # Errors
    /// It cannot be opened, is no regular file, is too large, or has no name that can be written.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let unreadable =
            |source: rustix::io::Errno| SourceError::Unreadable { path: path.into(), source: source.into() };
        // Without waiting: to open a pipe could take for ever.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let descriptor = rustix::fs::open(path, flags, Mode::empty()).map_err(unreadable)?;
        let stat = rustix::fs::fstat(&descriptor).map_err(unreadable)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(SourceError::NotRegular { path: path.into() });
        }
        let stamp = Stamp::of(&stat);
        if stamp.size_bytes > FILE_BYTES_MAX {
            return Err(SourceError::TooLarge { path: path.into(), size_bytes: stamp.size_bytes });
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| SourceError::BadName { path: path.into() })?.to_owned();
        Ok(Self { file: descriptor.into(), path: path.into(), name, stamp })
    }

    /// The last component of its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its length.
    pub fn size_bytes(&self) -> u64 {
        self.stamp.size_bytes
    }

    /// Reads a block into an empty buffer.
    pub(super) fn read_block(&self, index: u32, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        buffer.resize(blocks::length(self.size_bytes(), index), 0);
        match self.file.read_exact_at(buffer, blocks::offset(index)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Failure::SourceChanged),
            Err(source) => Err(self.unreadable(source)),
        }
    }

    /// Checks that it is what it was when it was opened.
    pub(super) fn check_unchanged(&self) -> Result<(), Failure> {
        let stat = rustix::fs::fstat(&self.file).map_err(|error| self.unreadable(error.into()))?;
        if Stamp::of(&stat) == self.stamp { Ok(()) } else { Err(Failure::SourceChanged) }
    }

    fn unreadable(&self, source: io::Error) -> Failure {
        Failure::Disk { action: "read", path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_can_be_sent() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Source::open(directory.path()), Err(SourceError::NotRegular { .. })));
        assert!(matches!(Source::open(Path::new("/dev/null")), Err(SourceError::NotRegular { .. })));
        assert!(matches!(Source::open(&directory.path().join("none")), Err(SourceError::Unreadable { .. })));
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(Source::open(&socket).is_err());
    }

    #[test]
    fn a_name_that_is_no_text_and_a_file_that_is_too_large_are_refused() {
        use std::os::unix::ffi::OsStrExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(std::ffi::OsStr::from_bytes(b"a\xFF"));
        std::fs::write(&path, b"x").unwrap();
        assert!(matches!(Source::open(&path), Err(SourceError::BadName { .. })));
        let path = directory.path().join("large");
        // A file with a hole takes no space; a file system that cannot have one this large proves nothing.
        if File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).is_ok() {
            assert!(matches!(Source::open(&path), Err(SourceError::TooLarge { .. })));
        }
    }

    #[test]
    fn a_change_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.bin");
        std::fs::write(&path, b"first").unwrap();
        let source = Source::open(&path).unwrap();
        assert_eq!((source.name(), source.size_bytes()), ("a.bin", 5));
        assert!(source.check_unchanged().is_ok());
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(matches!(source.check_unchanged(), Err(Failure::SourceChanged)));
        file.set_len(2).unwrap();
        assert!(matches!(source.read_block(0, &mut Vec::new()), Err(Failure::SourceChanged)));
    }
}
