//! The derived files on the disk: whole lines appended in one write, and the one that shrinks replaced at once.
//!
//! Until all that the log holds is in them, files that are made anew stand under names of their own; a crash in between
//! leaves the old ones as they were.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use indexmap::IndexSet;

use super::keeper::DeriveError;
use super::{Journal, USERLOG};

/// The files of one directory.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    /// How long each file is, in bytes.
    lengths: HashMap<Journal, u64>,
    /// Files that do not have their own names yet.
    hidden: IndexSet<Journal>,
    is_shown: bool,
}

impl Files {
    /// Files to be made anew in a directory, which is made if it is not there.
    pub(super) fn new(directory: &Path) -> Result<Self, DeriveError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(failed(directory))?;
        Ok(Self { directory: directory.to_owned(), lengths: HashMap::new(), hidden: IndexSet::new(), is_shown: false })
    }

    /// Appends whole lines to a file, which is made if it is new, or leaves it as it was.
    pub(super) fn append(&mut self, journal: Journal, lines: &[u8]) -> Result<(), DeriveError> {
        let known = self.lengths.get(&journal).copied();
        if known.is_none() && !self.is_shown {
            self.hidden.insert(journal);
        }
        let path = self.path(journal);
        let length = known.unwrap_or(0);
        let file = match known {
            None => create(&path).map_err(failed(&path))?,
            Some(_) => open_unchanged(&path, length)?,
        };
        if let Err(error) = file.write_all_at(lines, length) {
            // A part of a line must not stay; where even this fails, the next try writes over it.
            let _ = file.set_len(length);
            return Err(failed(&path)(error));
        }
        self.lengths.insert(journal, length + lines.len() as u64);
        Ok(())
    }

    /// Gives the files their names, once all that the log holds is in them.
    pub(super) fn show(&mut self) -> Result<(), DeriveError> {
        while let Some(journal) = self.hidden.last().copied() {
            let path = self.directory.join(journal.file_name());
            std::fs::rename(temporary(&path), &path).map_err(failed(&path))?;
            self.hidden.pop();
        }
        self.is_shown = true;
        Ok(())
    }

    /// Puts another file of who is logged in in the place of the old one.
    pub(super) fn replace_userlog(&self, lines: &[u8]) -> Result<(), DeriveError> {
        let path = self.directory.join(USERLOG);
        let temporary = temporary(&path);
        let written = create(&temporary).and_then(|file| file.write_all_at(lines, 0));
        written.and_then(|()| std::fs::rename(&temporary, &path)).map_err(failed(&path))
    }

    fn path(&self, journal: Journal) -> PathBuf {
        let path = self.directory.join(journal.file_name());
        if self.hidden.contains(&journal) { temporary(&path) } else { path }
    }
}

/// No file of ours has such a name, for no group's name has a dot.
fn temporary(path: &Path) -> PathBuf {
    path.with_extension("txt.tmp")
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Opens a file that is to be as long as it was left.
fn open_unchanged(path: &Path, length: u64) -> Result<File, DeriveError> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(DeriveError::Changed(path.to_owned())),
        file => file.map_err(failed(path))?,
    };
    let found = file.metadata().map_err(failed(path))?.len();
    if found == length { Ok(file) } else { Err(DeriveError::Changed(path.to_owned())) }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> DeriveError {
    let path = path.to_owned();
    move |source| DeriveError::File { path: path.clone(), source }
}
