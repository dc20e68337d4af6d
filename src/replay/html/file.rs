//! The file of a page: written beside its place and renamed, so that there is always the old one or the whole new one.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes that are written at once.
const WRITE_BYTES: usize = 256 << 10;

/// A file that has not got its name yet; without [`PageFile::show`] it goes away again.
#[derive(Debug)]
pub struct PageFile {
    out: BufWriter<File>,
    /// Where the page is to stand, behind all links.
    path: PathBuf,
    temporary: PathBuf,
}

impl PageFile {
    /// Begins a page that is to stand at `path`.
    ///
    /// # Errors
    /// Something else than a file stands there, or the directory takes none.
    pub fn create(path: &Path) -> io::Result<Self> {
        // A link stays, and what it leads to is replaced.
        let path = match std::fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        if std::fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::other("something that is no file stands there"));
        }
        let mut temporary = path.clone().into_os_string();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(temporary);
        // What is said in private stands in the page as in the log.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        Ok(Self { out: BufWriter::with_capacity(WRITE_BYTES, file), path, temporary })
    }

    /// Gives the file its name, in place of an older one; its length in bytes.
    ///
    /// # Errors
    /// It cannot be written, and the older one stands as it was.
    pub fn show(mut self) -> io::Result<u64> {
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        let bytes = self.out.get_ref().metadata()?.len();
        std::fs::rename(&self.temporary, &self.path)?;
        Ok(bytes)
    }
}

impl Write for PageFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for PageFile {
    fn drop(&mut self) {
        // Behind its renaming nothing stands there any more.
        let _ = std::fs::remove_file(&self.temporary);
    }
}
