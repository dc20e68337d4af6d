//! Which connections each user is logged in with, by the user's place in the state: users are added there and never
//! taken out, so that no name is kept a second time. And those of all members of the groups that are written to.

use std::sync::Arc;

use super::connection::ConnectionKey;
use super::limits::AUDIENCES_KEYS_MAX;
use crate::chat::State;
use crate::names::{GroupName, NameMap, UserName};

/// The connections of all users that are logged in.
#[derive(Debug, Default)]
pub(super) struct Present {
    users: Vec<Keys>,
    /// Those of members of groups, since anybody last came or went.
    audiences: NameMap<GroupName, Arc<[ConnectionKey]>>,
    /// How many keys those are.
    audiences_keys: usize,
}

/// The connections of one user; nearly everybody has one.
#[derive(Debug, Clone)]
enum Keys {
    One(ConnectionKey),
    /// Or none, which take no memory elsewhere.
    Several(Box<[ConnectionKey]>),
}

impl Keys {
    fn as_slice(&self) -> &[ConnectionKey] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Several(keys) => keys,
        }
    }

    fn from_iter(keys: impl Iterator<Item = ConnectionKey>) -> Self {
        let keys: Box<[ConnectionKey]> = keys.collect();
        match *keys {
            [key] => Self::One(key),
            _ => Self::Several(keys),
        }
    }
}

impl Present {
    /// The connections of a user, in the order of their logins.
    pub(super) fn of(&self, state: &State, user: UserName) -> &[ConnectionKey] {
        let place = state.users.get_index_of(&user);
        place.and_then(|place| self.users.get(place)).map(Keys::as_slice).unwrap_or_default()
    }

    /// The connections of all members of a group, in the order in which they joined.
    pub(super) fn of_members(&mut self, state: &State, group: GroupName) -> Arc<[ConnectionKey]> {
        if let Some(audience) = self.audiences.get(&group) {
            return Arc::clone(audience);
        }
        let members = state.groups.get(&group).into_iter().flat_map(|group| group.joined.keys());
        let audience: Arc<[ConnectionKey]> = members.flat_map(|member| self.of(state, *member)).copied().collect();
        if self.audiences_keys + audience.len() > AUDIENCES_KEYS_MAX {
            self.forget_audiences();
        }
        self.audiences_keys += audience.len();
        self.audiences.insert(group, Arc::clone(&audience));
        audience
    }

    /// The members of a group are others now.
    pub(super) fn forget_audiences(&mut self) {
        self.audiences_keys = 0;
        self.audiences.clear();
    }

    /// The user at this place of the state has logged in.
    pub(super) fn add(&mut self, user: usize, key: ConnectionKey) {
        self.forget_audiences();
        if self.users.len() <= user {
            self.users.resize(user + 1, Keys::Several(Box::default()));
        }
        if let Some(keys) = self.users.get_mut(user) {
            *keys = Keys::from_iter(keys.as_slice().iter().copied().chain([key]));
        }
    }

    /// The user at this place of the state has logged out there.
    pub(super) fn remove(&mut self, user: usize, key: ConnectionKey) {
        self.forget_audiences();
        if let Some(keys) = self.users.get_mut(user) {
            *keys = Keys::from_iter(keys.as_slice().iter().copied().filter(|present| *present != key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_connections_that_were_added_and_not_removed_in_their_order() {
        let key = |place| ConnectionKey { place, generation: 0 };
        let mut present = Present::default();
        let of =
            |present: &Present, user: usize| present.users.get(user).map(Keys::as_slice).unwrap_or_default().to_vec();
        assert_eq!(of(&present, 1), []);
        for place in [5, 3, 4] {
            present.add(1, key(place));
        }
        present.add(0, key(9));
        present.remove(1, key(7));
        assert_eq!(of(&present, 1), [key(5), key(3), key(4)]);
        present.remove(1, key(3));
        assert_eq!(of(&present, 1), [key(5), key(4)]);
        present.remove(1, key(5));
        present.remove(1, key(4));
        assert_eq!((of(&present, 0), of(&present, 1)), (vec![key(9)], vec![]));
        assert_eq!(size_of::<Keys>(), 16);
    }
}
