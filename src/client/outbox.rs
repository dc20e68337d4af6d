//! The outbox: changing commands with their numbers, kept until the server is known to have carried them out.
//!
//! A number is a place: the commands that are left stand behind the last number that is settled, in order. So a
//! refused command gives its number to the next one, and whatever the server says it has is the new beginning.

use std::collections::VecDeque;

/// A command's place in the order in which they were given, for the life of the program; numbers may change.
pub type Ordinal = u64;

/// A command that the server is not known to have carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The command as it was typed.
    pub text: String,
    /// Its place among all commands of this run.
    pub ordinal: Ordinal,
    /// Whether it is under way on the present connection.
    pub is_sent: bool,
}

/// The numbered commands of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outbox {
    /// The highest number that is used up.
    settled: u64,
    entries: VecDeque<Entry>,
    next_ordinal: Ordinal,
}

impl Outbox {
    /// What an earlier run left: the highest number used up, and the commands behind it.
    pub fn new(settled: u64, left: impl IntoIterator<Item = String>) -> Self {
        let mut outbox = Self { settled, ..Self::default() };
        for text in left {
            outbox.add(text);
        }
        outbox
    }

    /// The highest number that is used up.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// How many commands are left.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no command is left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many commands are under way.
    pub fn sent_count(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_sent).count()
    }

    /// The commands that are left, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The ordinal that the next command will get: all given so far are below it.
    pub fn next_ordinal(&self) -> Ordinal {
        self.next_ordinal
    }

    /// Takes a command in.
    pub fn add(&mut self, text: String) -> Ordinal {
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        self.entries.push_back(Entry { text, ordinal, is_sent: false });
        ordinal
    }

    /// The first command that is not under way, with its number.
    pub fn next_unsent(&self) -> Option<(u64, &Entry)> {
        let place = self.entries.iter().position(|entry| !entry.is_sent)?;
        Some((self.number_at(place), self.entries.get(place)?))
    }

    /// Notes whether a command is under way.
    pub fn set_sent(&mut self, ordinal: Ordinal, is_sent: bool) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.ordinal == ordinal) {
            entry.is_sent = is_sent;
        }
    }

    /// The connection is gone, and with it all that was under way.
    pub fn forget_sent(&mut self) {
        for entry in &mut self.entries {
            entry.is_sent = false;
        }
    }

    /// A command was carried out, and so everything before it. Gives how many commands that settles.
    pub fn settle(&mut self, ordinal: Ordinal) -> u64 {
        let mut count = 0;
        while self.entries.front().is_some_and(|entry| entry.ordinal <= ordinal) {
            self.entries.pop_front();
            count += 1;
        }
        self.settled += count;
        count
    }

    /// A command was refused: its number goes to the next. Gives the number.
    pub fn refuse(&mut self, ordinal: Ordinal) -> Option<u64> {
        let place = self.entries.iter().position(|entry| entry.ordinal == ordinal)?;
        self.entries.remove(place);
        Some(self.number_at(place))
    }

    /// The server's log holds numbers up to `sent`: takes out what it has, with the numbers, and counts on from there.
    pub fn resume(&mut self, sent: u64) -> Vec<(u64, Entry)> {
        let mut carried_out = Vec::new();
        while self.settled < sent {
            let Some(entry) = self.entries.pop_front() else { break };
            self.settled += 1;
            carried_out.push((self.settled, entry));
        }
        self.settled = sent;
        carried_out
    }

    /// Numbers all that is left from behind `sent`, whatever was carried out elsewhere.
    pub fn renumber(&mut self, sent: u64) {
        self.settled = sent;
    }

    /// Whether any command given before `ordinal` is left.
    pub fn has_before(&self, ordinal: Ordinal) -> bool {
        self.entries.front().is_some_and(|entry| entry.ordinal < ordinal)
    }

    fn number_at(&self, place: usize) -> u64 {
        self.settled + 1 + place as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(settled: u64, texts: &[&str]) -> Outbox {
        Outbox::new(settled, texts.iter().map(|text| (*text).to_owned()))
    }

    fn numbered(outbox: &Outbox) -> Vec<(u64, &str)> {
        (outbox.settled() + 1..).zip(outbox.entries().map(|entry| entry.text.as_str())).collect()
    }

    #[test]
    fn commands_are_numbered_behind_what_is_settled() {
        let mut outbox = outbox(4, &["a", "b"]);
        assert_eq!(numbered(&outbox), [(5, "a"), (6, "b")]);
        assert_eq!(outbox.settle(0), 1);
        outbox.add("c".into());
        assert_eq!(numbered(&outbox), [(6, "b"), (7, "c")]);
    }

    #[test]
    fn a_refused_command_gives_its_number_to_the_next() {
        let mut outbox = outbox(4, &["a", "b", "c"]);
        assert_eq!(outbox.refuse(0), Some(5));
        assert_eq!(numbered(&outbox), [(5, "b"), (6, "c")]);
        assert_eq!(outbox.refuse(0), None);
    }

    #[test]
    fn what_the_server_has_is_taken_out_and_the_rest_is_sent_again() {
        let mut outbox = outbox(4, &["a", "b", "c"]);
        for ordinal in 0..3 {
            outbox.set_sent(ordinal, true);
        }
        assert_eq!(outbox.next_unsent(), None);
        outbox.forget_sent();
        let had: Vec<(u64, String)> = outbox.resume(6).into_iter().map(|(id, entry)| (id, entry.text)).collect();
        assert_eq!(had, [(5, "a".to_owned()), (6, "b".to_owned())]);
        assert_eq!(outbox.next_unsent().map(|(id, entry)| (id, entry.text.as_str())), Some((7, "c")));
    }

    #[test]
    fn a_server_with_fewer_numbers_gets_everything_that_is_left() {
        let mut outbox = outbox(10, &["a", "b"]);
        assert!(outbox.resume(3).is_empty());
        assert_eq!(numbered(&outbox), [(4, "a"), (5, "b")]);
    }

    #[test]
    fn a_server_with_more_numbers_than_were_given_moves_the_count_on() {
        let mut outbox = outbox(0, &["a"]);
        assert_eq!(outbox.resume(9).len(), 1);
        outbox.add("b".into());
        assert_eq!(numbered(&outbox), [(10, "b")]);
    }
}
