//! The download directory: names are opened, made and changed in it alone, and no link is followed.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::failure::Failure;

/// The download directory, beneath which alone names are opened.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| Failure::Disk {
            action: "opened",
            path: path.into(),
            source: error.into(),
        })?;
        Ok(Self { descriptor, path: path.into() })
    }

    /// Opens a regular file of this directory, itself and not what a link of its name points to.
    pub fn open_file(&self, name: &str, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let mode = if flags.contains(OFlags::CREATE) { mode } else { Mode::empty() };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let descriptor = match rustix::fs::openat2(&self.descriptor, name, flags, mode, resolve) {
            // An old system, or one that forbids the call.
            Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(&self.descriptor, name, flags, mode)?,
            other => other?,
        };
        let stat = rustix::fs::fstat(&descriptor)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink != 1 {
            return Err(Errno::EXIST);
        }
        Ok(descriptor.into())
    }

    /// Renames a file if no other has the new name.
    pub fn rename_new(&self, from: &str, to: &str) -> Result<(), Errno> {
        let here = &self.descriptor;
        match rustix::fs::renameat_with(here, from, here, to, RenameFlags::NOREPLACE) {
            // Not every file system can.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_new(from, to),
            other => other,
        }
    }

    /// The same in two steps: a link never replaces a name.
    fn link_new(&self, from: &str, to: &str) -> Result<(), Errno> {
        rustix::fs::linkat(&self.descriptor, from, &self.descriptor, to, AtFlags::empty())?;
        rustix::fs::unlinkat(&self.descriptor, from, AtFlags::empty())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes its names safe on the disk.
    pub fn sync(&self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.descriptor)
    }

    /// Removes a name, if it is there.
    pub fn remove(&self, name: &str) {
        let _ = rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_not_replaced_even_where_renaming_cannot_tell() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("to"), b"old").unwrap();
        std::fs::write(path("from"), b"new").unwrap();
        let beneath = Directory::open(directory.path()).unwrap();
        assert_eq!(beneath.rename_new("from", "to"), Err(Errno::EXIST));
        assert_eq!(beneath.link_new("from", "to"), Err(Errno::EXIST));
        assert_eq!(beneath.link_new("from", "free"), Ok(()));
        assert!(!path("from").exists());
        assert_eq!(["to", "free"].map(|name| std::fs::read(path(name)).unwrap()), [*b"old", *b"new"]);
    }

    #[test]
    fn neither_links_nor_names_outside_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(directory.path().join("secret"), b"x").unwrap();
        std::os::unix::fs::symlink(directory.path().join("secret"), inside.join("link")).unwrap();
        std::fs::hard_link(directory.path().join("secret"), inside.join("hard")).unwrap();
        let beneath = Directory::open(&inside).unwrap();
        for name in ["link", "hard", "../secret", "/etc/passwd", "."] {
            assert!(beneath.open_file(name, OFlags::RDONLY).is_err(), "{name}");
        }
    }
}
