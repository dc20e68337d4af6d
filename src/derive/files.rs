//! The derived files on the disk: whole lines appended, and the one file that shrinks replaced at once.
//!
//! A file's length grows by pages within one write, so that a reader could see half a line wherever a page ends: each
//! write therefore ends with the last line that ends in its page, and begins with the line that spans two pages, if one
//! does. What is left is that line, in the instant between its pages.
//!
//! Until all that the log holds is in them, files that are made anew stand under names of their own; a crash in between
//! leaves the old ones as they were.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use indexmap::IndexSet;
use memchr::{memchr, memrchr};

use super::keeper::DeriveError;
use super::{Journal, USERLOG};
use crate::eventlog::storage::{link_keeps_text, list, open_file};

/// The smallest page that a system keeps files in, in bytes.
const PAGE_BYTES: u64 = 4_096;

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
        let written = match self.hidden.contains(&journal) {
            true => file.write_all_at(lines, length),
            false => write_lines(&file, length, lines),
        };
        if let Err(error) = written {
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

fn write_lines(file: &File, mut offset: u64, mut lines: &[u8]) -> io::Result<()> {
    while !lines.is_empty() {
        let (now, later) = lines.split_at(one_write(offset, lines));
        file.write_all_at(now, offset)?;
        offset += now.len() as u64;
        lines = later;
    }
    Ok(())
}

/// How many bytes of lines are written at once at an offset: the first line, and those that end in the same page.
fn one_write(offset: u64, lines: &[u8]) -> usize {
    let Some(first_end) = memchr(b'\n', lines) else { return lines.len() };
    let page_end = (offset + first_end as u64) / PAGE_BYTES * PAGE_BYTES + PAGE_BYTES;
    let room = usize::try_from(page_end - offset).unwrap_or(usize::MAX).min(lines.len());
    memrchr(b'\n', &lines[..room]).map_or(lines.len(), |end| end + 1)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> DeriveError {
    let path = path.to_owned();
    move |source| DeriveError::File { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_write_is_of_whole_lines_that_end_in_one_page_and_at_most_its_first_spans_two(
            lengths in proptest::collection::vec(0_usize..6_000, 1..20),
            start in 0_u64..10_000,
        ) {
            let lines: Vec<u8> = lengths.iter().flat_map(|length| [vec![b'x'; *length], vec![b'\n']].concat()).collect();
            let (mut offset, mut rest) = (start, &lines[..]);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(one_write(offset, rest));
                let end = offset + now.len() as u64;
                prop_assert!(now.ends_with(b"\n"));
                let page = (end - 1) / PAGE_BYTES;
                let mut ends = now.iter().zip(offset..).filter(|(byte, _)| **byte == b'\n').map(|(_, place)| place);
                prop_assert!(ends.all(|place| place / PAGE_BYTES == page));
                let next_end = later.iter().zip(end..).find(|(byte, _)| **byte == b'\n').map(|(_, place)| place);
                prop_assert!(next_end.is_none_or(|place| place / PAGE_BYTES > page), "a line more fitted");
                (offset, rest) = (end, later);
            }
            prop_assert_eq!(offset, start + lines.len() as u64);
        }
    }
}
