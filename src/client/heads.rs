//! The heads of the server's log that this client saw: what makes it a witness of any later change.

use std::str::FromStr;

use uuid::Uuid;

use super::limits;
use crate::chat::Seq;

/// The root of a log's tree over its events up to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenHead {
    /// The log.
    pub log: Uuid,
    /// The last event.
    pub seq: Seq,
    /// The root, in hexadecimal.
    pub root: String,
}

/// A head that cannot be if those seen before were true.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Two roots over as many events.
    #[error(
        "The server's log was CHANGED: over its events up to {seq} this client saw the root {seen}, and now the server \
         says {now}"
    )]
    Rewritten {
        /// The last of the events.
        seq: Seq,
        /// The root as it was.
        seen: String,
        /// The root as it is said to be.
        now: String,
    },
    /// Events are gone.
    #[error("The server's log was CUT: it ends with event {now}, and this client saw its event {seen}")]
    Cut {
        /// The last event that was seen.
        seen: Seq,
        /// The last that is said to be there.
        now: Seq,
    },
}

/// What was seen, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenHeads(Vec<SeenHead>);

impl SeenHeads {
    /// Reads the lines of the file. A line that a crash has cut, or that is none, is passed over.
    pub fn read(text: &str) -> Self {
        Self(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// The file's text: a line for each.
    pub fn write(&self) -> String {
        self.0.iter().map(SeenHead::line).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was seen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a head says anything new; it is to be kept with [`SeenHeads::add`] then.
    ///
    /// # Errors
    /// It contradicts what was seen.
    pub fn judge(&self, new: &SeenHead) -> Result<bool, Contradiction> {
        let of_log = || self.0.iter().filter(|head| head.log == new.log);
        if let Some(seen) = of_log().find(|head| head.seq == new.seq && head.root != new.root) {
            let (seen, now) = (seen.root.clone(), new.root.clone());
            return Err(Contradiction::Rewritten { seq: new.seq, seen, now });
        }
        match of_log().map(|head| head.seq).max() {
            Some(seen) if seen > new.seq => Err(Contradiction::Cut { seen, now: new.seq }),
            Some(seen) => Ok(seen < new.seq),
            None => Ok(true),
        }
    }

    /// Keeps a head. Where there are too many, every other of the old ones goes: the newest says the most, and the older
    /// ones say since when.
    pub fn add(&mut self, head: SeenHead) {
        if self.0.len() >= limits::HEADS_MAX {
            let mut keep = false;
            self.0.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.0.push(head);
    }
}

impl SeenHead {
    /// A head as a server says it; `None` if the root is none.
    pub fn new(log: Uuid, seq: Seq, root: String) -> Option<Self> {
        let is_root = root.len() == 64 && root.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_root.then_some(Self { log, seq, root })
    }

    /// Its line of the file, with a line feed.
    pub fn line(&self) -> String {
        format!("{} {}:{}\n", self.log, self.seq, self.root)
    }
}

impl FromStr for SeenHead {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let (log, head) = line.split_once(' ').ok_or(())?;
        let (seq, root) = head.split_once(':').ok_or(())?;
        let (log, seq) = (log.parse().map_err(drop)?, seq.parse().map_err(drop)?);
        Self::new(log, seq, root.to_owned()).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: Seq, digit: char) -> SeenHead {
        SeenHead { log: Uuid::from_u128(7), seq, root: digit.to_string().repeat(64) }
    }

    #[test]
    fn a_log_that_grows_is_no_contradiction_and_one_that_changed_is() {
        let mut heads = SeenHeads::default();
        for new in [head(3, 'a'), head(5, 'b')] {
            assert_eq!(heads.judge(&new), Ok(true));
            heads.add(new);
        }
        assert_eq!(heads.judge(&head(5, 'b')), Ok(false));
        assert_eq!(heads.judge(&head(6, 'c')), Ok(true));
        assert!(matches!(heads.judge(&head(5, 'c')), Err(Contradiction::Rewritten { seq: 5, .. })));
        assert!(matches!(heads.judge(&head(3, 'c')), Err(Contradiction::Rewritten { seq: 3, .. })));
        assert_eq!(heads.judge(&head(4, 'a')), Err(Contradiction::Cut { seen: 5, now: 4 }));
        assert_eq!(heads.judge(&head(3, 'a')), Err(Contradiction::Cut { seen: 5, now: 3 }));
        let other = SeenHead { log: Uuid::nil(), ..head(1, 'd') };
        assert_eq!(heads.judge(&other), Ok(true));
    }

    #[test]
    fn there_are_never_too_many_and_the_newest_stays() {
        let mut heads = SeenHeads::default();
        (1..=10_000).for_each(|seq| heads.add(head(seq, 'a')));
        assert!(heads.len() <= limits::HEADS_MAX && heads.len() > limits::HEADS_MAX / 4);
        assert_eq!(heads.judge(&head(9_999, 'a')), Err(Contradiction::Cut { seen: 10_000, now: 9_999 }));
    }

    #[test]
    fn what_is_written_reads_back_and_a_cut_line_is_passed_over() {
        let mut heads = SeenHeads::default();
        heads.add(head(3, 'a'));
        heads.add(head(5, 'b'));
        assert_eq!(SeenHeads::read(&heads.write()), heads);
        let text = heads.write();
        assert_eq!(SeenHeads::read(&text[..text.len() - 2]).len(), 1);
    }
}
