//! What outlives the client: its device's name, outbox and cursor, in a directory per server, user and device.
//!
//! `$XDG_STATE_HOME/messenger/SERVER/USER/` holds the file `device` with the name that was made once, the input history,
//! and a directory for each device with a lock, the key of its transfers, the heads of the server's log that were seen
//! (`heads`, a line `LOG SEQ:ROOT` each), and the journal: JSON lines, appended as things happen, written anew at each
//! start and when it has grown.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use super::contract::Keep;
use super::heads::{SeenHead, SeenHeads};
use super::journal::{Contents, Line, encode};
use super::limits;
use super::outbox::Outbox;
use crate::chat::Seq;
use crate::names::{DeviceName, UserName};

/// Why the state of a user cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No directory for state is known.
    #[error("there is no place for the client's state: set XDG_STATE_HOME or HOME")]
    NoPlace,
    /// Another program has this device.
    #[error("the device {0} is in use by another messenger; leave --device out, and this one takes a name of its own")]
    InUse(DeviceName),
    /// All names that would be taken are in use.
    #[error("too many messengers of this user are running here")]
    TooMany,
    /// The disk does not give or take it.
    #[error("the client's state in {directory} cannot be used: {error}")]
    Disk {
        /// Where.
        directory: String,
        /// What the system says.
        error: io::Error,
    },
}

/// The state of one device, locked while it is open.
#[derive(Debug)]
pub struct State {
    device: DeviceName,
    user_directory: PathBuf,
    directory: PathBuf,
    /// Held for its lock.
    _lock: File,
    journal: File,
    journal_bytes: u64,
    contents: Contents,
    heads: SeenHeads,
    needs_sync: bool,
    /// Whether the directory of the device was made for this run, and no login has been good yet.
    is_on_trial: bool,
}

/// The directory for the state of all messengers: `$XDG_STATE_HOME/messenger`, by default `~/.local/state/messenger`.
///
/// # Errors
/// Neither variable is set.
pub fn default_root() -> Result<PathBuf, StateError> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Ok(base.ok_or(StateError::NoPlace)?.join("messenger"))
}

/// Reads a file of text that holds a secret, of at most `bytes_max` bytes.
///
/// # Errors
/// It cannot be read, is no text, or is longer.
pub fn read_secret(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_string(&mut text)?;
    if text.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {bytes_max} bytes")));
    }
    Ok(text)
}

impl State {
    /// Opens what is kept for a user of a server, and locks it: of the named device, or of the first that is free.
    ///
    /// # Errors
    /// The device is in use, or the disk fails.
    pub fn open(root: &Path, server: &str, user: UserName, device: Option<DeviceName>) -> Result<Self, StateError> {
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        let server: String = server.chars().map(safe).collect();
        // A user's name may be "..": the sign before it makes it a name like any other.
        let user_directory = root.join(format!("@{server}")).join(format!("@{user}"));
        let failed = |error| StateError::Disk { directory: user_directory.display().to_string(), error };
        make_directory(&user_directory).map_err(failed)?;
        if let Some(device) = device {
            return Self::open_device(&user_directory, device).map_err(failed)?.ok_or(StateError::InUse(device));
        }
        let first = device_name(&user_directory).map_err(failed)?;
        for number in 1..=limits::DEVICES_MAX {
            let name = if number == 1 { first.to_string() } else { format!("{first}-{number}") };
            let Ok(name) = name.parse() else { continue };
            if let Some(state) = Self::open_device(&user_directory, name).map_err(failed)? {
                return Ok(state);
            }
        }
        Err(StateError::TooMany)
    }

    /// The device's name.
    pub fn device(&self) -> DeviceName {
        self.device
    }

    /// What is left to be sent.
    pub fn outbox(&self) -> Outbox {
        Outbox::new(self.contents.settled, self.contents.left.iter().cloned())
    }

    /// The event up to which all has been shown, and its log.
    pub fn cursor(&self) -> Option<(Uuid, Seq)> {
        self.contents.cursor
    }

    /// The heads of logs that were seen.
    pub fn heads(&self) -> SeenHeads {
        self.heads.clone()
    }

    /// Where the key of transfers is kept.
    pub fn key_file(&self) -> PathBuf {
        self.directory.join("key")
    }

    /// Where the lines that were typed are kept.
    pub fn history_file(&self) -> PathBuf {
        self.user_directory.join("history")
    }

    /// Keeps a change.
    ///
    /// # Errors
    /// The disk fails.
    pub fn keep(&mut self, keep: &Keep) -> io::Result<()> {
        if let Keep::Head(head) = keep {
            return self.keep_head(head);
        }
        let Some(line) = Line::of(keep) else {
            self.is_on_trial = false;
            return Ok(());
        };
        // What is sent must be known after a crash; what is known to be done is found out again from the server.
        self.needs_sync |= matches!(line, Line::Added(_) | Line::Base(_) | Line::Refused(_));
        let bytes = encode(&line);
        self.contents.apply(line);
        self.journal.write_all(&bytes)?;
        self.journal_bytes += bytes.len() as u64;
        if self.journal_bytes > limits::JOURNAL_BYTES_MAX.max(2 * self.contents.bytes()) {
            self.rewrite()?;
        }
        Ok(())
    }

    /// Makes durable what must be before anything is sent.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.needs_sync) {
            self.journal.sync_data()?;
        }
        Ok(())
    }

    /// Ends the use of it. What was made for a login that was never good is taken away again.
    pub fn close(self) {
        if self.is_on_trial {
            // Whatever stays does no harm.
            let _ = fs::remove_dir_all(&self.directory);
            let _ = fs::remove_file(self.user_directory.join("device"));
            let _ = fs::remove_dir(&self.user_directory);
            let _ = self.user_directory.parent().map(fs::remove_dir);
        }
    }

    /// Opens and locks a device; `None` where another program has it.
    fn open_device(user_directory: &Path, device: DeviceName) -> io::Result<Option<Self>> {
        let directory = user_directory.join(format!("@{device}"));
        let is_on_trial = !directory.exists();
        make_directory(&directory)?;
        let lock = open_private().create(true).truncate(false).write(true).open(directory.join("lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let path = directory.join("journal");
        let contents = match fs::read(&path) {
            Ok(bytes) => Contents::read(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Contents::default(),
            Err(error) => return Err(error),
        };
        let (journal, journal_bytes) = write_anew(&directory, "journal", &contents.write())?;
        let heads = match fs::read(directory.join("heads")) {
            Ok(bytes) => SeenHeads::read(&String::from_utf8_lossy(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => SeenHeads::default(),
            Err(error) => return Err(error),
        };
        let user_directory = user_directory.to_owned();
        Ok(Some(Self {
            device,
            user_directory,
            directory,
            _lock: lock,
            journal,
            journal_bytes,
            contents,
            heads,
            needs_sync: false,
            is_on_trial,
        }))
    }

    /// Keeps a head; the file is written anew where the old ones are thinned out.
    fn keep_head(&mut self, head: &SeenHead) -> io::Result<()> {
        let before = self.heads.len();
        self.heads.add(head.clone());
        if self.heads.len() <= before {
            return write_anew(&self.directory, "heads", self.heads.write().as_bytes()).map(drop);
        }
        let mut file = open_private().create(true).append(true).open(self.directory.join("heads"))?;
        file.write_all(head.line().as_bytes())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        (self.journal, self.journal_bytes) = write_anew(&self.directory, "journal", &self.contents.write())?;
        self.needs_sync = false;
        Ok(())
    }
}

/// Puts a new file in the place of an old one, whole or not at all.
pub(super) fn write_anew(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<(File, u64)> {
    let (new, path) = (directory.join(format!("{name}.new")), directory.join(name));
    let mut file = open_private().create(true).truncate(true).write(true).open(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&new, &path)?;
    File::open(directory)?.sync_all()?;
    Ok((file, bytes.len() as u64))
}

/// The name of this machine's first device of the user, made once. It says nothing of the machine: others can see it.
fn device_name(user_directory: &Path) -> io::Result<DeviceName> {
    let path = user_directory.join("device");
    let known = |text: String| text.trim().parse::<DeviceName>().ok();
    if let Some(name) = fs::read_to_string(&path).ok().and_then(known) {
        return Ok(name);
    }
    let drawn = getrandom::u32().map_err(io::Error::other)?;
    let name = format!("terminal-{drawn:08x}");
    let mine = user_directory.join(format!("device.{name}"));
    let mut file = open_private().create(true).truncate(true).write(true).open(&mine)?;
    file.write_all(name.as_bytes())?;
    file.sync_data()?;
    // Two that start at once draw a name each: the first to link it has named the device.
    let linked = fs::hard_link(&mine, &path);
    fs::remove_file(&mine)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::read_to_string(&path).map(known)? {
            Some(name) => Ok(name),
            // What is there is no name: it gives way.
            None => {
                fs::remove_file(&path)?;
                device_name(user_directory)
            }
        },
        Err(error) => Err(error),
        Ok(()) => name.parse().map_err(io::Error::other),
    }
}

pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn open_private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn open(root: &Path) -> State {
        State::open(root, "host:5000", "yoda".parse().unwrap(), None).unwrap()
    }

    fn left(state: &State) -> (u64, Vec<String>) {
        (state.outbox().settled(), state.outbox().entries().map(|entry| entry.text.clone()).collect())
    }

    #[test]
    fn what_was_kept_is_there_after_a_crash() {
        let root = tempfile::tempdir().unwrap();
        let log = Uuid::from_u128(7);
        let mut state = open(root.path());
        for keep in [
            Keep::LoggedIn,
            Keep::Base(4),
            Keep::Added("a".into()),
            Keep::Added("b\n".into()),
            Keep::Added("c".into()),
            Keep::Settled(1),
            Keep::Refused(6),
            Keep::Cursor(log, 9),
        ] {
            state.keep(&keep).unwrap();
        }
        let device = state.device();
        drop(state);
        let again = open(root.path());
        assert_eq!((again.device(), again.cursor()), (device, Some((log, 9))));
        assert_eq!(left(&again), (5, vec!["c".to_owned()]));
    }

    #[test]
    fn a_second_terminal_takes_a_name_of_its_own_and_keeps_it() {
        let root = tempfile::tempdir().unwrap();
        let (mut first, mut second) = (open(root.path()), open(root.path()));
        first.keep(&Keep::LoggedIn).unwrap();
        second.keep(&Keep::LoggedIn).unwrap();
        assert_eq!(second.device().to_string(), format!("{}-2", first.device()));
        second.keep(&Keep::Base(8)).unwrap();
        drop(second);
        assert_eq!(left(&open(root.path())).0, 8);
        let named = State::open(root.path(), "host:5000", "yoda".parse().unwrap(), Some(first.device()));
        assert!(matches!(named, Err(StateError::InUse(_))));
    }

    #[test]
    fn heads_that_were_seen_are_there_at_the_next_start_and_never_too_many() {
        let root = tempfile::tempdir().unwrap();
        let mut state = open(root.path());
        let head = |seq: Seq| SeenHead::new(Uuid::from_u128(7), seq, "a".repeat(64)).unwrap();
        state.keep(&Keep::Head(head(4))).unwrap();
        drop(state);
        let mut state = open(root.path());
        assert_eq!(state.heads().write(), head(4).line());
        (5..3_000).for_each(|seq| state.keep(&Keep::Head(head(seq))).unwrap());
        let heads = state.heads();
        drop(state);
        assert!(heads.len() <= limits::HEADS_MAX);
        assert_eq!(open(root.path()).heads(), heads);
    }

    #[test]
    fn nobody_else_can_read_it() {
        let root = tempfile::tempdir().unwrap();
        let state = open(&root.path().join("state"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state.directory), 0o700);
        assert_eq!(mode(&state.directory.join("journal")), 0o600);
        assert_eq!(mode(&state.directory.join("lock")), 0o600);
    }

    #[test]
    fn a_login_that_was_never_good_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        open(root.path()).close();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        let mut state = open(root.path());
        state.keep(&Keep::LoggedIn).unwrap();
        state.close();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_journal_that_has_grown_is_written_anew() {
        let root = tempfile::tempdir().unwrap();
        let mut state = open(root.path());
        for seq in 0..20_000 {
            state.keep(&Keep::Cursor(Uuid::nil(), seq)).unwrap();
        }
        assert!(fs::metadata(state.directory.join("journal")).unwrap().len() <= limits::JOURNAL_BYTES_MAX);
        drop(state);
        assert_eq!(open(root.path()).cursor(), Some((Uuid::nil(), 19_999)));
    }
}
