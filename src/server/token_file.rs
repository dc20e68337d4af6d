//! The file of login tokens, `DATA/tokens`: a line a change, the last one about a device counts. It gives nobody a token
//! (`src/server/tokens.rs`), and is not synced: who loses it logs in by password.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::limits;
use super::tokens::{Record, Tokens};
use crate::clock::Timestamp;
use crate::eventlog::storage::open_file;
use crate::names::UserName;
use crate::protocol::{CutLine, LineCutter};

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Ends what a failed write has left of a line, so that it is none: no line has this character.
const BROKEN_END: &[u8] = b"?\n";

/// The file, open to be added to.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    /// What it is written by, or why it cannot be.
    file: Result<File, String>,
    /// Whether it may end with a part of a line.
    is_torn: bool,
}

/// What was read of a file.
#[derive(Debug, Default)]
struct Found {
    lines: usize,
    /// The number of the first line that is none, and of how many.
    broken: Option<(usize, usize)>,
    /// Lines of users who have no account any more.
    gone: usize,
    is_torn: bool,
}

impl TokenFile {
    /// Reads the file of a data directory into an empty table, or makes one. Nothing that is wrong with it keeps a server
    /// from starting: it is told in what is given back.
    pub fn open(
        data: &Path,
        tokens: &mut Tokens,
        has_account: impl Fn(UserName) -> bool,
        now: Timestamp,
    ) -> (Self, Vec<String>) {
        let path = data.join("tokens");
        let mut notices = Vec::new();
        let opened = open_to_append(&path).and_then(|file| Ok((file, fold(&path, tokens, has_account, now)?)));
        let (mut file, found) = match opened {
            Ok((file, found)) => (Ok(file), found),
            Err(error) => {
                // What was read so far may have been ended by what was not.
                *tokens = Tokens::default();
                (Err(error.to_string()), Found::default())
            }
        };
        if let Err(error) = &file {
            notices.push(format!(
                "{}: {error}; no login tokens are given or taken until it is moved elsewhere and the server started \
                 anew: clients log in by password",
                path.display()
            ));
        }
        if let Some((line, count)) = found.broken {
            notices.push(format!(
                "{}, line {line}: no login token can be read there, the first of {count} such lines; whose they were \
                 log in by password",
                path.display()
            ));
        }
        tokens.forget_ended(now);
        let mut is_torn = found.is_torn;
        let dead = found.lines - tokens.len().min(found.lines);
        let is_mostly_dead = dead > limits::TOKEN_LINES_DEAD_MAX && dead > tokens.len();
        if found.broken.is_some() || found.gone > 0 || is_mostly_dead {
            match write_anew(&path, tokens, now) {
                Ok(new) => (file, is_torn) = (Ok(new), false),
                Err(error) => notices.push(format!(
                    "{}: it cannot be written anew: {error}; it stays as it is, which the next start tries again",
                    path.display()
                )),
            }
        }
        (Self { path, file, is_torn }, notices)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there to be written.
    pub fn is_open(&self) -> bool {
        self.file.is_ok()
    }

    /// Takes nothing more, or again.
    #[cfg(test)]
    pub(super) fn set_failing(&mut self, is_failing: bool) {
        let opened = if is_failing { File::open(&self.path) } else { open_to_append(&self.path) };
        self.file = opened.map_err(|error| error.to_string());
    }

    /// Adds records.
    ///
    /// # Errors
    /// The disk does not take them; they count as not written.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let file = self.file.as_mut().map_err(|why| io::Error::other(why.clone()))?;
        let mut bytes = if self.is_torn { BROKEN_END.to_vec() } else { Vec::new() };
        records.iter().for_each(|record| record.write(&mut bytes));
        self.is_torn = true;
        file.write_all(&bytes)?;
        self.is_torn = false;
        Ok(())
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    let file = open_file(OpenOptions::new().append(true).create(true).mode(0o600), path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Applies each record of a file.
fn fold(path: &Path, tokens: &mut Tokens, has_account: impl Fn(UserName) -> bool, now: Timestamp) -> io::Result<Found> {
    let mut found = Found::default();
    found.is_torn = each_line(path, |line| {
        found.lines += 1;
        match line.and_then(|line| Record::parse(line, now)) {
            Some(record) if has_account(record.user()) => tokens.apply(record),
            Some(_) => found.gone += 1,
            None => {
                let (first, count) = found.broken.unwrap_or((found.lines, 0));
                found.broken = Some((first, count + 1));
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// Writes those lines of a file that say how things stand to another, which takes its place.
fn write_anew(path: &Path, tokens: &Tokens, now: Timestamp) -> io::Result<File> {
    let new = path.with_extension("new");
    let made = || {
        let file = open_file(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600), &new)?;
        let mut out = BufWriter::new(file);
        let mut line_out = Vec::new();
        each_line(path, |line| {
            if let Some(record) = line.and_then(|line| Record::parse(line, now)).filter(|record| tokens.stands(record))
            {
                line_out.clear();
                record.write(&mut line_out);
                out.write_all(&line_out)?;
            }
            Ok(())
        })?;
        // A name must not lead to bytes that never came to the disk.
        out.into_inner()?.sync_all()?;
        std::fs::rename(&new, path)?;
        open_to_append(path)
    };
    made().inspect_err(|_| drop(std::fs::remove_file(&new)))
}

/// Gives each line, `None` for one that is too long, and last what is left without a line feed; gives whether there was
/// such a rest.
fn each_line(path: &Path, mut take: impl FnMut(Option<&[u8]>) -> io::Result<()>) -> io::Result<bool> {
    let mut file = open_file(OpenOptions::new().read(true), path)?;
    let mut cutter = LineCutter::new(limits::TOKEN_LINE_BYTES_MAX);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        cutter.push(&buffer[..count]);
        while let Some(line) = cutter.next_line() {
            match line {
                CutLine::Whole([]) => {}
                CutLine::Whole(line) => take(Some(line))?,
                CutLine::TooLong => take(None)?,
            }
        }
        if count == 0 {
            break;
        }
    }
    let is_torn = cutter.last_line().is_some();
    if is_torn {
        take(None)?;
    }
    Ok(is_torn)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::tokens::{Holder, LoginToken, Shown};
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_795_327_800_123);
    const ENTRY: &str = "secret";

    fn holder(user: &str, device: usize) -> Holder {
        Holder { user: user.parse().unwrap(), device: device.to_string().parse().unwrap() }
    }

    fn token(number: usize) -> LoginToken {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        LoginToken::from_random(bytes)
    }

    fn open(data: &Path, now: Timestamp) -> (Tokens, TokenFile, Vec<String>) {
        let mut tokens = Tokens::default();
        let (file, notices) = TokenFile::open(data, &mut tokens, |user| user.as_str() != "gone", now);
        (tokens, file, notices)
    }

    fn issue(tokens: &mut Tokens, file: &mut TokenFile, holder: &Holder, number: usize) {
        let record = tokens.issue(holder, ENTRY, &token(number), false, NOW);
        file.append(std::slice::from_ref(&record)).unwrap();
        tokens.apply(record);
    }

    fn knows(tokens: &Tokens, holder: &Holder, number: usize) -> bool {
        tokens.check(holder, ENTRY, &token(number), NOW) == Shown::Right
    }

    fn lines(data: &Path) -> usize {
        fs::read_to_string(data.join("tokens")).unwrap().lines().count()
    }

    #[test]
    fn what_was_written_is_read_by_the_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        let (mut tokens, mut file, notices) = open(data.path(), NOW);
        assert_eq!(notices, [""; 0]);
        for number in 0..3 {
            issue(&mut tokens, &mut file, &holder("yoda", number), number);
        }
        fs::set_permissions(file.path(), Permissions::from_mode(0o644)).unwrap();
        let (tokens, file, notices) = open(data.path(), NOW);
        assert_eq!(notices, [""; 0]);
        assert!((0..3).all(|number| knows(&tokens, &holder("yoda", number), number)));
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let written = fs::read_to_string(file.path()).unwrap();
        assert!(!written.contains(&token(1).to_text()) && !written.contains(ENTRY), "{written}");
    }

    #[test]
    fn a_broken_line_is_said_with_its_place_and_costs_no_other() {
        let data = tempfile::tempdir().unwrap();
        let (mut tokens, mut file, _) = open(data.path(), NOW);
        issue(&mut tokens, &mut file, &holder("yoda", 1), 1);
        fs::write(
            file.path(),
            [&fs::read(file.path()).unwrap()[..], &[0xff, b'\n', b' ', b'\n'], &[b'x'; 5_000], b"\n"].concat(),
        )
        .unwrap();
        let (mut tokens, mut file, notices) = open(data.path(), NOW);
        let [notice] = &notices[..] else { panic!("{notices:?}") };
        assert!(notice.contains("tokens, line 2: ") && notice.contains("of 3 such lines"), "{notice}");
        issue(&mut tokens, &mut file, &holder("yoda", 2), 2);
        let (tokens, _, notices) = open(data.path(), NOW);
        assert_eq!(notices, [""; 0], "what is broken was taken out");
        assert!(knows(&tokens, &holder("yoda", 1), 1) && knows(&tokens, &holder("yoda", 2), 2));
    }

    #[test]
    fn lines_of_who_has_no_account_are_taken_out_for_good() {
        let data = tempfile::tempdir().unwrap();
        let (mut tokens, mut file, _) = open(data.path(), NOW);
        issue(&mut tokens, &mut file, &holder("gone", 1), 1);
        issue(&mut tokens, &mut file, &holder("yoda", 1), 2);
        let (tokens, _, notices) = open(data.path(), NOW);
        assert_eq!((tokens.len(), notices.len(), lines(data.path())), (1, 0, 1));
        assert!(knows(&tokens, &holder("yoda", 1), 2));
    }

    #[test]
    fn a_file_that_is_mostly_dead_is_written_anew() {
        let data = tempfile::tempdir().unwrap();
        let (mut tokens, mut file, _) = open(data.path(), NOW);
        for number in 0..=limits::TOKEN_LINES_DEAD_MAX {
            issue(&mut tokens, &mut file, &holder("yoda", 1), number);
        }
        issue(&mut tokens, &mut file, &holder("yoda", 2), 2);
        let held = open(data.path(), NOW).0;
        assert_eq!(lines(data.path()), limits::TOKEN_LINES_DEAD_MAX + 2, "not yet");
        assert_eq!(held.len(), 2);
        issue(&mut tokens, &mut file, &holder("yoda", 1), 5_000);
        let (mut tokens, mut file, notices) = open(data.path(), NOW);
        assert_eq!((lines(data.path()), notices.len()), (2, 0));
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1, "nothing else is left");
        issue(&mut tokens, &mut file, &holder("yoda", 3), 3);
        let (tokens, ..) = open(data.path(), NOW);
        assert!([(1, 5_000), (2, 2), (3, 3)].iter().all(|(device, number)| knows(
            &tokens,
            &holder("yoda", *device),
            *number
        )));
    }

    #[test]
    fn what_is_no_file_gives_no_tokens_and_is_said() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("tokens")).unwrap();
        let (tokens, mut file, notices) = open(data.path(), NOW);
        assert!(tokens.is_empty() && notices.len() == 1 && notices[0].contains("a directory"), "{notices:?}");
        assert!(file.append(&[Record::Ended("yoda".parse().unwrap())]).is_err());
    }

    #[test]
    fn what_a_failed_write_left_of_a_line_is_none() {
        let data = tempfile::tempdir().unwrap();
        let (mut tokens, mut file, _) = open(data.path(), NOW);
        issue(&mut tokens, &mut file, &holder("yoda", 1), 1);
        let record = tokens.issue(&holder("yoda", 2), ENTRY, &token(2), false, NOW);
        let mut line = Vec::new();
        record.write(&mut line);
        file.file.as_mut().unwrap().write_all(&line[..line.len() - 1]).unwrap();
        file.is_torn = true;
        issue(&mut tokens, &mut file, &holder("yoda", 3), 3);
        let (tokens, _, notices) = open(data.path(), NOW);
        assert!(notices[0].contains("line 2"), "{notices:?}");
        assert!([1, 3].iter().all(|number| knows(&tokens, &holder("yoda", *number), *number)));
        assert_eq!(tokens.len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_file_cut_anywhere_is_as_if_what_followed_had_not_been(changes in proptest::collection::vec(0..6_usize, 1..12), cut: prop::sample::Index) {
            let data = tempfile::tempdir().unwrap();
            let (mut tokens, mut file, _) = open(data.path(), NOW);
            // Behind each change, how long the file is.
            let mut lengths = vec![0];
            for (number, change) in (0..).zip(&changes) {
                let holder = holder("yoda", change % 3);
                let record = match change {
                    5 => tokens.end_all(holder.user),
                    change => Some(tokens.issue(&holder, ENTRY, &token(number), *change > 2, NOW)),
                };
                if let Some(record) = record {
                    file.append(std::slice::from_ref(&record)).unwrap();
                    tokens.apply(record);
                }
                lengths.push(fs::metadata(file.path()).unwrap().len());
            }
            let bytes = fs::read(file.path()).unwrap();
            let cut = cut.index(bytes.len() + 1);
            fs::write(file.path(), &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);

            let (read, mut file, notices) = open(data.path(), NOW);
            prop_assert_eq!(notices.len(), usize::from(whole < cut));
            let mut expected = Tokens::default();
            for line in bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                expected.apply(Record::parse(line, NOW).unwrap());
            }
            prop_assert_eq!(read.len(), expected.len());
            let numbers = 0..changes.len();
            for (device, number) in (0..3).flat_map(|device| numbers.clone().map(move |number| (device, number))) {
                let check = |tokens: &Tokens| tokens.check(&holder("yoda", device), ENTRY, &token(number), NOW);
                prop_assert_eq!(check(&read), check(&expected));
            }
            // And goes on from there.
            let mut read = read;
            issue(&mut read, &mut file, &holder("yoda", 9), 200);
            prop_assert!(knows(&open(data.path(), NOW).0, &holder("yoda", 9), 200));
        }
    }
}
