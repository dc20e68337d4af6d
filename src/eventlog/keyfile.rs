//! Small files beside a log: the key that signs its heads, made once and readable by its owner only; heads and proofs
//! that people name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::checkpoint::{NoteKey, SEED_BYTES, written_key};
use super::storage::{NoFile, Place, check_directory, check_link, make_directory, open_file, open_to_read};

/// More than a key takes, in bytes.
const FILE_BYTES_MAX: u64 = 1_024;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It was not made yet.
    #[error("there is no key at {0}: `messenger serve` makes it when it starts on this log")]
    None(PathBuf),
    /// Something else stands in its place.
    #[error("the key {path} cannot be used: {what}; move it elsewhere, and `serve` makes a new one")]
    NoFile {
        /// In which place.
        path: PathBuf,
        /// What stands there, for people.
        what: String,
    },
    /// The disk fails.
    #[error("the key {path} cannot be used: {source}")]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may have it, too.
    #[error("the key {0} can be read by others: take that away with chmod 600")]
    Open(PathBuf),
    /// It is no key, or another log's.
    #[error("{0} holds no key of this log; move it elsewhere, and `serve` makes a new one")]
    Broken(PathBuf),
}

impl KeyError {
    /// Whether what is there is not as it was written.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::NoFile { .. } | Self::Broken(_))
    }

    fn disk(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match NoFile::of(&source) {
            Some(what) => Self::NoFile { path, what: what.to_string() },
            None => Self::Disk { path, source },
        }
    }
}

/// Makes the key of a log in its data directory, unless it is there.
///
/// # Errors
/// The disk fails, or what is there is not the key of this log or can be read by others.
pub fn make_key(data: &Path, log: Uuid) -> Result<(), KeyError> {
    let path = path(data);
    match read(&path, log) {
        Err(KeyError::None(_)) => make(&path, log),
        other => other.map(drop),
    }
}

/// Checks the key in a data directory, or, if there is none, that one can be made.
///
/// # Errors
/// It cannot be used, or is another log's; something else stands in its place.
pub fn check_key(data: &Path, log: Uuid) -> Result<(), KeyError> {
    let path = path(data);
    match read(&path, log) {
        Err(KeyError::None(_)) => match open_to_read(&unfinished(&path)) {
            Err(error) if NoFile::of(&error).is_some() => Err(KeyError::disk(&unfinished(&path), error)),
            _ => Ok(()),
        },
        other => other.map(drop),
    }
}

/// Reads the key of a log: of a data directory, an events directory or one segment's file.
///
/// # Errors
/// There is none, or it cannot be used.
pub fn read_key(place: &Path, log: Uuid) -> Result<NoteKey, KeyError> {
    let disk = |source| KeyError::Disk { path: place.to_owned(), source };
    let events = match Place::find(place).map_err(disk)? {
        Place::Events(directory) => directory,
        Place::Segment(file) => file.parent().map(Path::to_owned).unwrap_or_default(),
    };
    read(&path(&events.join("..")), log)
}

/// Reads a file that somebody names, of at most `bytes_max` bytes.
///
/// # Errors
/// It cannot be read, or is longer.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn path(data: &Path) -> PathBuf {
    data.join("keys").join("checkpoint")
}

fn read(path: &Path, log: Uuid) -> Result<NoteKey, KeyError> {
    let disk = |source| KeyError::disk(path, source);
    let directory = directory(path);
    check_directory(directory).map_err(|source| KeyError::disk(directory, source))?;
    let file = match open_to_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            check_link(path).map_err(disk)?;
            return Err(KeyError::None(path.to_owned()));
        }
        other => other.map_err(disk)?,
    };
    if file.metadata().map_err(disk)?.mode() & 0o077 != 0 {
        return Err(KeyError::Open(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(disk)?;
    let key = std::str::from_utf8(&bytes).ok().and_then(|written| NoteKey::parse(log, written));
    key.ok_or_else(|| KeyError::Broken(path.to_owned()))
}

/// Makes a key under another name first: a crash leaves a whole one or none.
fn make(path: &Path, log: Uuid) -> Result<(), KeyError> {
    let (directory, new) = (directory(path), unfinished(path));
    make_directory(directory).map_err(|source| KeyError::disk(directory, source))?;
    let made = || {
        let mut seed = [0; SEED_BYTES];
        getrandom::fill(&mut seed)?;
        let mut file = open_file(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600), &new)?;
        file.write_all(written_key(log, &seed).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(directory)?.sync_all()
    };
    made().map_err(|source| KeyError::disk(&new, source))
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LOG: Uuid = Uuid::from_u128(7);

    #[test]
    fn a_key_is_made_once_and_is_its_owners_only() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("events")).unwrap();
        assert!(matches!(read_key(data.path(), LOG), Err(KeyError::None(_))));
        make_key(data.path(), LOG).unwrap();
        let key = read_key(data.path(), LOG).unwrap();
        make_key(data.path(), LOG).unwrap();
        assert_eq!(read_key(&data.path().join("events"), LOG).unwrap().verifier(), key.verifier());
        assert_eq!(fs::metadata(path(data.path())).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(data.path().join("keys")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(data.path().join("keys")).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_is_anothers_or_that_others_can_read_is_refused() {
        let data = tempfile::tempdir().unwrap();
        make_key(data.path(), LOG).unwrap();
        assert!(matches!(make_key(data.path(), Uuid::nil()), Err(KeyError::Broken(_))));
        fs::set_permissions(path(data.path()), Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(make_key(data.path(), LOG), Err(KeyError::Open(_))));
    }
}
