//! The disk behind a trait, so that tests can pull its plug; and the real one.

use std::fs::{DirBuilder, File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, FlockOperation};

/// A directory of a server's data, of which its owner is the only writer: that of the log, or one beside it.
pub trait Storage: Send + Sized + std::fmt::Debug + 'static {
    /// An open file.
    type File: StorageFile + std::fmt::Debug;

    /// Another directory of the same data: [`EVENTS`], or one for what is derived from it. As long as that is not there, it
    /// is an empty one, in which nothing can be created.
    fn beside(&self, directory: &str) -> Self;

    /// Makes the directory, unless it is there; gives whether it was not.
    ///
    /// # Errors
    /// It cannot be made.
    fn make(&self) -> io::Result<bool>;
    /// Removes the directory.
    ///
    /// # Errors
    /// It is not empty, or may not be removed.
    fn unmake(&self) -> io::Result<()>;

    /// The names of all files.
    ///
    /// # Errors
    /// The directory cannot be read; [`io::ErrorKind::NotFound`] if a link stands in its place that leads nowhere.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file to read and write.
    ///
    /// # Errors
    /// It is not there, or not ours.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Makes a file, empty, in place of any that has the name.
    ///
    /// # Errors
    /// There is no room, or it is not allowed.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Whether a file is a symbolic link, so that what it leads to stays when it is removed.
    fn is_link(&self, _name: &str) -> bool {
        false
    }
    /// Gives a file another name.
    ///
    /// # Errors
    /// The directory cannot be written.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The directory cannot be written.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable: what was created, renamed and removed.
    ///
    /// # Errors
    /// The disk failed.
    fn sync_names(&self) -> io::Result<()>;
    /// Keeps bytes that are about to be cut off, durably, outside the log. Gives the place, for people.
    ///
    /// # Errors
    /// There is no room.
    fn keep_torn(&self, name: &str, bytes: &[u8]) -> io::Result<String>;
}

/// An open file of a log.
pub trait StorageFile: Send + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The disk failed.
    fn length(&self) -> io::Result<u64>;
    /// Reads all of it.
    ///
    /// # Errors
    /// The disk failed.
    fn read(&self) -> io::Result<Vec<u8>>;
    /// Fills as much of `buffer` as there is at `offset`; gives the bytes read, fewer only at the end.
    ///
    /// # Errors
    /// The disk failed.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes at an offset, and makes the file longer where it must.
    ///
    /// # Errors
    /// The disk failed or is full.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes content and length durable.
    ///
    /// # Errors
    /// The disk failed. What is then on it is unknown: another try proves nothing.
    fn sync(&self) -> io::Result<()>;
    /// Cuts it, and gives back what was reserved behind.
    ///
    /// # Errors
    /// The disk failed.
    fn cut(&self, length: u64) -> io::Result<()>;
    /// Reserves room up to an offset, without changing the length.
    ///
    /// # Errors
    /// There is not as much.
    fn reserve(&self, end: u64) -> io::Result<()>;
    /// Forgets what the system remembers of its content, so that the next read comes from the disk.
    fn forget_cached(&self);
}

/// The name of the file that says who writes the log.
pub const LOCK: &str = "LOCK";
/// The name of the directory of a log in the data directory.
pub const EVENTS: &str = "events";
/// The name of the directory for the indexes of closed segments.
pub const INDEX: &str = "index";
/// The name of the directory for the states behind closed segments.
pub const SNAPSHOTS: &str = "snapshots";
/// The name of the directory for tails that were cut off.
pub const TORN: &str = "torn";

/// Why a log's directory cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else does.
    #[error("the data directory {0} is in use by another server; stop that one, or name another directory with --data")]
    Held(PathBuf),
    /// Something else stands in the place of the log's directory or of the lock.
    #[error("{path} cannot be used: {what}; move it elsewhere")]
    NoFile {
        /// In which place.
        path: PathBuf,
        /// What stands there, for people.
        what: String,
    },
    /// The system refused.
    #[error("the data directory cannot be used: {path}: {source}")]
    Refused {
        /// Which directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A directory on a real disk, whose data is locked for as long as this or one beside it lives.
#[derive(Debug)]
pub struct Disk {
    data: PathBuf,
    directory: PathBuf,
    lock: Arc<File>,
}

impl Disk {
    /// Takes the log in a data directory, which is made if it is not there.
    ///
    /// # Errors
    /// Another server has it, or the system refuses.
    pub fn lock(data: &Path) -> Result<Self, LockError> {
        let refused = |path: &Path, source| match NoFile::of(&source) {
            Some(what) => LockError::NoFile { path: path.to_owned(), what: what.to_string() },
            None => LockError::Refused { path: path.to_owned(), source },
        };
        make_directory(data).map_err(|source| LockError::Refused { path: data.to_owned(), source })?;
        let events = data.join(EVENTS);
        make_directory(&events).map_err(|source| refused(&events, source))?;
        let path = events.join(LOCK);
        check_link(&path).map_err(|source| refused(&path, source))?;
        let opened = open_file(options().create(true).truncate(false), &path);
        let lock = opened.map_err(|source| refused(&path, source))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { data: data.to_owned(), directory: events, lock: Arc::new(lock) }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held(data.to_owned())),
            Err(error) => Err(refused(&path, error.into())),
        }
    }

    /// Where the log's files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether somebody else has locked a data directory; nothing is made.
    pub fn is_in_use(data: &Path) -> bool {
        let lock = open_file(OpenOptions::new().read(true), &data.join(EVENTS).join(LOCK));
        let tried = lock.map(|lock| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared));
        matches!(tried, Ok(Err(rustix::io::Errno::WOULDBLOCK)))
    }

    /// What is in a directory beside the log that is not there: nothing.
    fn or_nothing<T: Default>(&self, found: io::Result<T>) -> io::Result<T> {
        match found {
            // A link that leads nowhere is not nothing: what it led to may come back.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && error.get_ref().is_none()
                    && !self.directory.ends_with(EVENTS) =>
            {
                Ok(T::default())
            }
            found => found,
        }
    }
}

impl Storage for Disk {
    type File = File;

    fn beside(&self, directory: &str) -> Self {
        Self { data: self.data.clone(), directory: self.data.join(directory), lock: Arc::clone(&self.lock) }
    }

    fn make(&self) -> io::Result<bool> {
        if self.directory.is_dir() {
            return Ok(false);
        }
        make_directory(&self.directory).map(|()| true)
    }

    fn unmake(&self) -> io::Result<()> {
        std::fs::remove_dir(&self.directory)?;
        File::open(&self.data)?.sync_all()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.or_nothing(list(&self.directory))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        open_file(&options(), &self.directory.join(name))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let path = self.directory.join(name);
        if path.is_symlink() {
            // What it leads to is none of ours.
            std::fs::remove_file(&path)?;
        }
        open_file(options().create(true).truncate(true), &path)
    }

    fn is_link(&self, name: &str) -> bool {
        self.directory.join(name).is_symlink()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.directory.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.or_nothing(File::open(&self.directory).and_then(|directory| directory.sync_all()))
    }

    fn keep_torn(&self, name: &str, bytes: &[u8]) -> io::Result<String> {
        let torn = self.data.join(TORN);
        make_directory(&torn)?;
        let path = torn.join(name);
        let file = options().create(true).truncate(true).open(&path)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        File::open(&torn)?.sync_all()?;
        Ok(path.display().to_string())
    }
}

impl StorageFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.length()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn reserve(&self, end: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, FallocateFlags::KEEP_SIZE, 0, end) {
            // A file system that cannot reserve says so at the write, if it ever comes to that.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            done => Ok(done?),
        }
    }

    fn forget_cached(&self) {
        // Advice only: where it is not taken, the pages are read as they are.
        let _ = rustix::fs::fadvise(self, 0, None, Advice::DontNeed);
    }
}

/// A file of a log open for reading, beside whoever writes it.
#[derive(Debug)]
pub struct ReadFile(File);

impl ReadFile {
    /// Opens a file.
    ///
    /// # Errors
    /// It is not there, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        open_to_read(path).map(Self)
    }

    /// Its length now, in bytes.
    ///
    /// # Errors
    /// The disk failed.
    pub fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    /// All that it holds now.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        StorageFile::read(&self.0)
    }

    /// Fills as much of `buffer` as there is at `offset`.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        StorageFile::read_at(&self.0, offset, buffer)
    }
}

/// Where a log is, by what a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory with segments.
    Events(PathBuf),
    /// One segment.
    Segment(PathBuf),
}

impl Place {
    /// Finds the log in a data directory, an events directory or one file.
    ///
    /// # Errors
    /// There is nothing of this name.
    pub fn find(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path)?.is_file() {
            return Ok(Self::Segment(path.to_owned()));
        }
        let inner = path.join(EVENTS);
        Ok(Self::Events(if inner.is_dir() { inner } else { path.to_owned() }))
    }
}

/// The names of the files in a directory.
///
/// # Errors
/// It cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<String>> {
    check_directory(directory)?;
    std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Something else stands where a file or a directory should.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it is {found}, and no {wanted}")]
pub(super) struct NoFile {
    found: &'static str,
    wanted: &'static str,
}

impl From<NoFile> for io::Error {
    fn from(no_file: NoFile) -> Self {
        Self::new(io::ErrorKind::InvalidData, no_file)
    }
}

impl NoFile {
    /// What stands there, if that is why it could not be opened.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

/// A symbolic link stands in the place of a directory or file, and what it leads to is not there: perhaps not yet.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it is a symbolic link that leads nowhere: bring back what it leads to, or remove the link")]
struct LeadsNowhere;

/// A file whose text is to be erased is a symbolic link.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it is a symbolic link, and what it leads to would keep the text: put the file itself in its place")]
struct LinkKeepsText;

/// Why a text cannot be erased from a file that is a symbolic link.
pub(crate) fn link_keeps_text() -> io::Error {
    io::Error::other(LinkKeepsText)
}

/// Says what else stands in the place of a directory; whatever else is wrong is said by who uses it.
pub(super) fn check_directory(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path).map(|found| found.file_type()) {
        Ok(kind) if !kind.is_dir() => Err(NoFile { found: kind_name(kind), wanted: "directory" }.into()),
        _ => check_link(path),
    }
}

/// Says whether a link stands in a place that leads nowhere.
pub(super) fn check_link(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            Err(io::Error::new(error.kind(), LeadsNowhere))
        }
        _ => Ok(()),
    }
}

/// Opens a file for reading.
pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    open_file(OpenOptions::new().read(true), path)
}

/// Opens a file, and nothing else: on the other end of a pipe nobody would ever write, and a device may do anything.
pub(crate) fn open_file(options: &OpenOptions, path: &Path) -> io::Result<File> {
    match std::fs::metadata(path).map(|found| found.file_type()) {
        Ok(kind) if !kind.is_file() => Err(NoFile { found: kind_name(kind), wanted: "file" }.into()),
        // What is not there may be about to be made; else the opening says why.
        _ => options.open(path),
    }
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_file() => "a file",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Makes a directory, and those above it that are not there. A new name is durable only once the directory that holds it
/// is.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    check_directory(path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_directory(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    File::open(parent)?.sync_all()
}
