//! The derived files on the disk: whole lines appended, and the one file that shrinks replaced at once.
//!
//! Each write is of whole lines, and as large as may be. The system copies it page by page and lets the file's length grow
//! with each, so that somebody who reads in that instant may see the beginning of a line whose rest is a page further;
//! smaller writes would not change that, for the line that spans two pages is there in any case, and cost several times
//! as much.
//!
//! Until all that the log holds is in them, files that are made anew stand under names of their own; a crash in between
//! leaves the old ones as they were.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use indexmap::IndexSet;

use super::keeper::DeriveError;
use super::{Journal, USERLOG};
use crate::eventlog::storage::{link_keeps_text, list, open_file};

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

    /// Puts another file of who is logged in, given in parts, in the place of the old one.
    pub(super) fn replace_userlog(&self, mut parts: impl Iterator<Item = Vec<u8>>) -> Result<(), DeriveError> {
        let path = self.directory.join(USERLOG);
        let temporary = temporary(&path);
        let written = create(&temporary).and_then(|mut file| parts.try_for_each(|lines| file.write_all(&lines)));
        written.and_then(|()| std::fs::rename(&temporary, &path)).map_err(failed(&path))
    }

    fn path(&self, journal: Journal) -> PathBuf {
        let path = self.directory.join(journal.file_name());
        if self.hidden.contains(&journal) { temporary(&path) } else { path }
    }
}

/// Tries whether the files in a directory could be made anew: those that are there, and those that always are.
///
/// # Errors
/// What stands in the way of one; nothing is changed.
pub fn check_replaceable(directory: &Path) -> Result<(), DeriveError> {
    let mut names = list(directory).map_err(failed(directory))?;
    names.retain(|name| name.ends_with(&Journal::Messages.file_name()));
    for path in names.into_iter().chain([Journal::Messages.file_name(), USERLOG.to_owned()]) {
        let path = directory.join(path);
        if path.is_symlink() {
            return Err(failed(&path)(link_keeps_text()));
        }
        match open_file(OpenOptions::new().read(true), &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => drop(found.map_err(failed(&path))?),
        }
        let temporary = temporary(&path);
        let is_there = temporary.exists();
        open_file(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600), &temporary)
            .and_then(|_| if is_there { Ok(()) } else { std::fs::remove_file(&temporary) })
            .map_err(failed(&temporary))?;
    }
    Ok(())
}

/// No file of ours has such a name, for no group's name has a dot.
fn temporary(path: &Path) -> PathBuf {
    path.with_extension("txt.tmp")
}

fn create(path: &Path) -> io::Result<File> {
    open_file(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600), path)
}

/// Opens a file that is to be as long as it was left.
fn open_unchanged(path: &Path, length: u64) -> Result<File, DeriveError> {
    let file = match open_file(OpenOptions::new().write(true), path) {
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
