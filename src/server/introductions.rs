//! The offers and transfers that two sessions are being introduced for, found by either of them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use super::connection::ConnectionKey;
use crate::names::{TransferId, UserName};

/// One offer, or the transfer that it became.
#[derive(Debug)]
pub(super) struct Introduction {
    pub(super) to: UserName,
    pub(super) sender: ConnectionKey,
    pub(super) receiver: Option<ConnectionKey>,
    /// Sessions of the receiver that have declined without a person.
    pub(super) declined: Vec<ConnectionKey>,
}

/// All of them. Whom one is from and to stays as it was.
#[derive(Debug, Default)]
pub(super) struct Introductions {
    open: HashMap<TransferId, Introduction>,
    by_sender: HashMap<ConnectionKey, BTreeSet<TransferId>>,
    by_receiver: HashMap<UserName, BTreeSet<TransferId>>,
}

impl Introductions {
    pub(super) fn begin(&mut self, transfer: TransferId, to: UserName, sender: ConnectionKey) {
        self.by_sender.entry(sender).or_default().insert(transfer);
        self.by_receiver.entry(to).or_default().insert(transfer);
        self.open.insert(transfer, Introduction { to, sender, receiver: None, declined: Vec::new() });
    }

    pub(super) fn get(&self, transfer: TransferId) -> Option<&Introduction> {
        self.open.get(&transfer)
    }

    pub(super) fn get_mut(&mut self, transfer: TransferId) -> Option<&mut Introduction> {
        self.open.get_mut(&transfer)
    }

    pub(super) fn remove(&mut self, transfer: TransferId) {
        if let Some(Introduction { to, sender, .. }) = self.open.remove(&transfer) {
            take_out(&mut self.by_sender, sender, transfer);
            take_out(&mut self.by_receiver, to, transfer);
        }
    }

    /// Those from a session or to a user, rising.
    pub(super) fn of(&self, sender: ConnectionKey, to: UserName) -> Vec<TransferId> {
        let (sent, received) = (self.by_sender.get(&sender), self.by_receiver.get(&to));
        sent.into_iter().chain(received).flatten().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }
}

fn take_out<K: Eq + Hash>(by: &mut HashMap<K, BTreeSet<TransferId>>, key: K, transfer: TransferId) {
    if let Entry::Occupied(mut of_key) = by.entry(key) {
        of_key.get_mut().remove(&transfer);
        if of_key.get().is_empty() {
            of_key.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_found_by_its_sender_and_by_its_receiver_until_it_is_removed() {
        let key = |place| ConnectionKey { place, generation: 0 };
        let user = |name: &str| name.parse::<UserName>().unwrap();
        let transfer = |number: u32| format!("{number:032x}").parse::<TransferId>().unwrap();
        let mut introductions = Introductions::default();
        for (number, to, sender) in [(0, "b", 1), (1, "c", 1), (2, "b", 2), (3, "a", 1), (0xFFFF, "b", 3)] {
            introductions.begin(transfer(number), user(to), key(sender));
        }
        assert_eq!(introductions.of(key(1), user("a")), [0, 1, 3].map(transfer));
        assert_eq!(introductions.of(key(2), user("b")), [0, 2, 0xFFFF].map(transfer));
        introductions.remove(transfer(0));
        introductions.remove(transfer(0));
        assert_eq!(introductions.of(key(1), user("b")), [1, 2, 3, 0xFFFF].map(transfer));
        assert_eq!(introductions.of(key(9), user("d")), []);
        for number in [1, 2, 3, 0xFFFF] {
            introductions.remove(transfer(number));
        }
        assert!(introductions.by_sender.is_empty() && introductions.by_receiver.is_empty());
    }
}
