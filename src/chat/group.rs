//! The rules of groups: who may make, invite, join, leave and speak, and what each may see.

use super::policy::{GROUP_USERS_MAX, GROUPS_MAX, Policy};
use super::state::{Group, Session, State};
use super::{Event, Origin, Place, Refusal, Seq};
use crate::names::{GroupName, NameMap, Text, UserName};

pub(super) fn create(
    state: &State,
    policy: &Policy,
    who: &Session,
    group: GroupName,
    users: &[UserName],
    origin: Option<Origin>,
) -> Result<Vec<Event>, Refusal> {
    // The maker's own name in the list counts once: as the maker.
    let invited: Vec<UserName> = users.iter().copied().filter(|user| *user != who.user).collect();
    if invited.is_empty() {
        return Err(usage("creategroup"));
    }
    if state.groups.contains_key(&group) {
        return Err(Refusal::GroupExists(group));
    }
    invited.iter().try_for_each(|user| policy.check_account(*user))?;
    if state.groups.len() >= GROUPS_MAX {
        return Err(Refusal::LimitReached { limit: "groups" });
    }
    check_size(1 + invited.len())?;
    Ok(vec![Event::GroupCreated { group, by: who.user, invited, origin }])
}

pub(super) fn invite(
    state: &State,
    policy: &Policy,
    who: &Session,
    name: GroupName,
    users: &[UserName],
    origin: Option<Origin>,
) -> Result<Vec<Event>, Refusal> {
    let invited: Vec<UserName> = users.iter().copied().filter(|user| *user != who.user).collect();
    if invited.is_empty() {
        return Err(usage("invite"));
    }
    let group = find(state, name)?;
    invited.iter().try_for_each(|user| policy.check_account(*user))?;
    check_joined(group, name, who.user)?;
    for user in &invited {
        if group.joined.contains_key(user) {
            return Err(Refusal::AlreadyJoined { group: name, user: *user });
        }
        if group.invited.contains(user) {
            return Err(Refusal::AlreadyInvited { group: name, user: *user });
        }
    }
    check_size(group.joined.len() + group.invited.len() + invited.len())?;
    Ok(vec![Event::GroupInvited { group: name, by: who.user, invited, origin }])
}

pub(super) fn join(
    state: &State,
    who: &Session,
    name: GroupName,
    origin: Option<Origin>,
) -> Result<Vec<Event>, Refusal> {
    let group = find(state, name)?;
    if group.joined.contains_key(&who.user) {
        return Err(Refusal::AlreadyJoined { group: name, user: who.user });
    }
    if !group.invited.contains(&who.user) {
        return Err(Refusal::NotInvited(name));
    }
    Ok(vec![Event::GroupJoined { group: name, user: who.user, origin }])
}

pub(super) fn leave(
    state: &State,
    who: &Session,
    name: GroupName,
    origin: Option<Origin>,
) -> Result<Vec<Event>, Refusal> {
    check_joined(find(state, name)?, name, who.user)?;
    Ok(vec![Event::GroupLeft { group: name, user: who.user, origin }])
}

pub(super) fn message(
    state: &State,
    who: &Session,
    name: GroupName,
    text: &Text,
    origin: Option<Origin>,
) -> Result<Vec<Event>, Refusal> {
    check_joined(find(state, name)?, name, who.user)?;
    Ok(vec![Event::GroupMessage { group: name, from: who.user, text: text.clone(), origin }])
}

/// The last event of a conversation that somebody may see, `Seq::MAX` where there is no end.
pub(super) fn history_span(state: &State, policy: &Policy, who: &Session, place: Place) -> Result<Seq, Refusal> {
    match place {
        Place::User(user) => {
            // Who lost the account keeps a history: what was said stays readable.
            if !state.users.contains_key(&user) {
                policy.check_account(user)?;
            }
            Ok(Seq::MAX)
        }
        Place::Group(name) => {
            let group = find(state, name)?;
            if group.joined.contains_key(&who.user) {
                return Ok(Seq::MAX);
            }
            let left = group.past.get(&who.user).and_then(|stays| stays.last());
            left.map(|(_, end)| *end).ok_or(not_joined(group, name, who.user))
        }
    }
}

impl State {
    /// The last event of a conversation that a session may see, `Seq::MAX` where there is no end.
    ///
    /// # Errors
    /// An unknown user or group, or a group never joined.
    pub fn history_span(&self, policy: &Policy, who: &Session, place: Place) -> Result<Seq, Refusal> {
        history_span(self, policy, who, place)
    }

    /// The spans of events, both ends included, during which a user was a member of a group.
    pub fn membership_spans(&self, user: UserName, group: GroupName) -> Vec<(Seq, Seq)> {
        let Some(group) = self.groups.get(&group) else { return Vec::new() };
        let mut spans = group.past.get(&user).cloned().unwrap_or_default();
        spans.extend(group.joined.get(&user).map(|from| (*from, Seq::MAX)));
        spans
    }
}

pub(super) fn apply(state: &mut State, seq: Seq, event: &Event) {
    match event {
        Event::GroupCreated { group, by, invited, .. } => {
            if state.groups.contains_key(group) {
                return;
            }
            let made = Group {
                creator: *by,
                joined: NameMap::from_iter([(*by, seq)]),
                invited: invited.iter().copied().collect(),
                past: std::collections::BTreeMap::new(),
            };
            state.groups.insert(*group, made);
            state.user_mut(*by).groups.insert(*group);
            for user in invited {
                state.user_mut(*user).invitations.insert(*group);
            }
        }
        Event::GroupInvited { group, invited, .. } => {
            let Some(known) = state.groups.get_mut(group) else { return };
            known.invited.extend(invited);
            for user in invited {
                state.user_mut(*user).invitations.insert(*group);
            }
        }
        Event::GroupJoined { group, user, .. } => {
            let Some(known) = state.groups.get_mut(group) else { return };
            known.invited.shift_remove(user);
            known.joined.insert(*user, seq);
            let user = state.user_mut(*user);
            user.invitations.remove(group);
            user.groups.insert(*group);
        }
        Event::GroupLeft { group, user, .. } => {
            let Some(known) = state.groups.get_mut(group) else { return };
            let Some(from) = known.joined.shift_remove(user) else { return };
            known.past.entry(*user).or_default().push((from, seq));
            let user = state.user_mut(*user);
            user.groups.remove(group);
            user.past_groups.insert(*group);
        }
        _ => {}
    }
}

fn usage(word: &str) -> Refusal {
    Refusal::Usage { usage: super::command::usage_of(word).map_or("", |usage| usage.usage) }
}

fn find(state: &State, name: GroupName) -> Result<&Group, Refusal> {
    state.groups.get(&name).ok_or(Refusal::UnknownGroup(name))
}

fn not_joined(group: &Group, name: GroupName, user: UserName) -> Refusal {
    Refusal::NotJoined { group: name, invited: group.invited.contains(&user) }
}

fn check_joined(group: &Group, name: GroupName, user: UserName) -> Result<(), Refusal> {
    if group.joined.contains_key(&user) { Ok(()) } else { Err(not_joined(group, name, user)) }
}

fn check_size(users: usize) -> Result<(), Refusal> {
    if users > GROUP_USERS_MAX { Err(Refusal::LimitReached { limit: "users in a group" }) } else { Ok(()) }
}
