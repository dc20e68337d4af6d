//! Who is logged in, in the order of the logins: what `userlog.txt` shows.

use std::net::IpAddr;

use crate::chat::SessionId;
use crate::clock::Timestamp;
use crate::names::UserName;

/// An open session.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) session: SessionId,
    pub(super) since: Timestamp,
    pub(super) user: UserName,
    pub(super) ip: IpAddr,
    pub(super) udp_port: Option<u16>,
    /// It has ended, and its place is not used again yet.
    pub(super) has_ended: bool,
}

/// The open sessions by number, which rises with the time of login. There are as many as connections, so that they lie in
/// one list: a tree that is filled from one side is half empty.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    list: Vec<Presence>,
    ended: usize,
}

impl Sessions {
    pub(super) fn add(&mut self, presence: Presence) {
        match self.place(presence.session) {
            Ok(place) => {
                self.ended -= usize::from(self.list[place].has_ended);
                self.list[place] = presence;
            }
            Err(place) => self.list.insert(place, presence),
        }
    }

    /// Ends a session; gives whether it was open.
    pub(super) fn end(&mut self, session: SessionId) -> bool {
        let place = self.place(session);
        let Some(presence) = place.ok().map(|place| &mut self.list[place]).filter(|presence| !presence.has_ended)
        else {
            return false;
        };
        presence.has_ended = true;
        self.ended += 1;
        // Once in as many ends as there are sessions, so that each end costs little.
        if self.ended > self.list.len() / 2 {
            self.list.retain(|presence| !presence.has_ended);
            self.list.shrink_to_fit();
            self.ended = 0;
        }
        true
    }

    /// Ends all; gives whether one was open.
    pub(super) fn end_all(&mut self) -> bool {
        let ended = std::mem::take(self);
        ended.list.len() > ended.ended
    }

    /// The open sessions.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Presence> {
        self.list.iter().filter(|presence| !presence.has_ended)
    }

    fn place(&self, session: SessionId) -> Result<usize, usize> {
        self.list.binary_search_by_key(&session, |presence| presence.session)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn presence(session: SessionId) -> Presence {
        let (user, ip) = ("han".parse().unwrap(), [127, 0, 0, 1].into());
        Presence { session, since: Timestamp::default(), user, ip, udp_port: None, has_ended: false }
    }

    proptest! {
        #[test]
        fn those_are_open_that_have_begun_and_not_ended(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..20), 0..200),
        ) {
            let (mut sessions, mut expected) = (Sessions::default(), BTreeSet::new());
            for (begins, session) in steps {
                if begins {
                    sessions.add(presence(session));
                    expected.insert(session);
                } else {
                    prop_assert_eq!(sessions.end(session), expected.remove(&session));
                }
                prop_assert!(sessions.iter().map(|presence| presence.session).eq(expected.iter().copied()));
                prop_assert!(sessions.list.len() <= 2 * expected.len().max(1));
            }
            prop_assert_eq!(sessions.end_all(), !expected.is_empty());
            prop_assert_eq!(sessions.iter().count(), 0);
        }
    }
}
