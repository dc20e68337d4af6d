//! The state of the chat: what the log says so far, folded; and the door to every rule.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::transfer::{Phase, Transfer};
use super::{Command, Event, LogoutReason, Origin, Refusal, Seq, SessionId, device, group, login, transfer};
use crate::clock::Timestamp;
use crate::names::{DeviceName, GroupName, NameMap, NameSet, TransferId, UserName};

/// Who asks: a logged-in session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserName,
    /// The device it named at login.
    pub device: Option<DeviceName>,
}

/// An open session of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Its number.
    pub id: SessionId,
    /// When it began.
    pub since: Timestamp,
    /// The number of its `login` event.
    pub login_seq: Seq,
    /// Where it comes from.
    pub ip: IpAddr,
    /// The port on which its client takes peer transfers.
    pub udp_port: Option<u16>,
    /// The device it named.
    pub device: Option<DeviceName>,
}

/// How far the numbered commands of one device have come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: DeviceName,
    /// The highest number carried out.
    pub sent: u64,
    /// The event that number made.
    pub last_seq: Seq,
    /// When.
    pub last_at: Timestamp,
}

/// Wrong passwords in a row, and the block they led to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// How many.
    pub count: u32,
    /// Until when the name is blocked; a moment that has passed sets the count back.
    pub blocked_until: Option<Timestamp>,
}

/// A user who has logged in, or was invited, at least once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Open sessions, oldest first.
    pub sessions: Vec<OpenSession>,
    /// Devices that have sent a numbered command.
    pub devices: Vec<Device>,
    /// Wrong passwords since the last good one.
    pub failures: Failures,
    /// A login without a cursor gets what came after this event.
    pub resume_after: Seq,
    /// Whether there was ever a login.
    pub has_logged_in: bool,
    /// Groups joined now.
    pub groups: BTreeSet<GroupName>,
    /// Groups joined once and left.
    pub past_groups: BTreeSet<GroupName>,
    /// Groups that an invitation is open to.
    pub invitations: BTreeSet<GroupName>,
    /// The key each device last used for transfers.
    pub keys: Vec<(Option<DeviceName>, String)>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Who made it.
    pub creator: UserName,
    /// The members and the event that made each one, in the order in which they joined.
    pub joined: NameMap<UserName, Seq>,
    /// Who may join, in the order of invitation.
    pub invited: NameSet<UserName>,
    /// Former stays, from the event that began to the one that ended each.
    pub past: BTreeMap<UserName, Vec<(Seq, Seq)>>,
}

/// Everything that the events so far add up to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The last event folded in.
    pub seq: Seq,
    /// When it was.
    pub at: Timestamp,
    /// All users that any event was about.
    pub users: NameMap<UserName, User>,
    /// All groups ever made.
    pub groups: NameMap<GroupName, Group>,
    /// Failures of names that never logged in, the longest untouched first; bounded by
    /// [`login::STRANGERS_MAX`].
    pub strangers: NameMap<UserName, Failures>,
    /// All transfers ever offered.
    pub transfers: NameMap<TransferId, Transfer>,
    /// Those that have not ended.
    pub open_transfers: NameSet<TransferId>,
    /// The highest number given to a session.
    pub last_session: SessionId,
}

impl State {
    /// Decides what a logged-in user's command does: the events it makes (none for a query), or why it is refused.
    /// Nothing changes until they are applied.
    ///
    /// `number` is the frame's `id` where it is a whole number: what a device counts its changing commands with.
    ///
    /// # Errors
    /// The refusal, in the order: numbering, existence, membership.
    pub fn decide(
        &self,
        policy: &Policy,
        at: Timestamp,
        who: &Session,
        number: Option<u64>,
        command: &Command,
    ) -> Result<Vec<Event>, Refusal> {
        debug_assert!(at >= self.at, "time never falls");
        let origin = if command.is_changing() { device::check_number(self, who, number)? } else { None };
        match command {
            Command::MessageTo { to, text } => {
                policy.check_account(*to)?;
                Ok(vec![Event::Message { from: who.user, to: *to, text: text.clone(), origin }])
            }
            Command::CreateGroup { group, users } => group::create(self, policy, who, *group, users, origin),
            Command::Invite { group, users } => group::invite(self, policy, who, *group, users, origin),
            Command::JoinGroup { group } => group::join(self, who, *group, origin),
            Command::LeaveGroup { group } => group::leave(self, who, *group, origin),
            Command::GroupMessage { group, text } => group::message(self, who, *group, text, origin),
            Command::History { place, .. } => group::history_span(self, policy, who, *place).map(|_| Vec::new()),
            Command::Logout => Ok(vec![self.logout_event(who, LogoutReason::Logout)]),
            Command::ActiveUsers | Command::Users | Command::Groups | Command::Help => Ok(Vec::new()),
        }
    }

    /// The event that ends a session.
    pub fn logout_event(&self, who: &Session, reason: LogoutReason) -> Event {
        Event::Logout { user: who.user, session: who.id, reason }
    }

    /// The events of a server's start: it ends what the last run left open. A transfer that was accepted goes on without
    /// the server.
    pub fn decide_start(&self, version: &str) -> Vec<Event> {
        let mut events = vec![Event::ServerStarted { version: version.to_owned() }];
        let offered = |id: &&TransferId| self.transfers.get(*id).is_some_and(|known| known.phase == Phase::Offered);
        events.extend(self.open_transfers.iter().filter(offered).map(|id| transfer::broken(self, *id)));
        events
    }

    /// Folds one event. Total: any event can follow any other, and what makes no sense changes nothing.
    pub fn apply(&mut self, seq: Seq, at: Timestamp, event: &Event) {
        self.seq = seq;
        self.at = at;
        device::apply(self, seq, at, event);
        match event {
            Event::Message { .. }
            | Event::GroupMessage { .. }
            | Event::Erasure { .. }
            | Event::Erased { .. }
            | Event::ServerStopped { .. } => {}
            Event::GroupCreated { .. }
            | Event::GroupInvited { .. }
            | Event::GroupJoined { .. }
            | Event::GroupLeft { .. } => group::apply(self, seq, event),
            Event::Login { .. }
            | Event::LoginFailed { .. }
            | Event::UserBlocked { .. }
            | Event::Logout { .. }
            | Event::ServerStarted { .. } => login::apply(self, seq, at, event),
            Event::TransferOffered { .. }
            | Event::TransferAnswered { .. }
            | Event::TransferEnded { .. }
            | Event::KeyBound { .. } => transfer::apply(self, event),
        }
    }

    /// Folds a message as [`State::apply`] does, by all that matters of it.
    pub fn apply_message(&mut self, seq: Seq, at: Timestamp, from: UserName, origin: Option<Origin>) {
        self.seq = seq;
        self.at = at;
        if let Some(origin) = origin {
            device::apply_number(self, seq, at, from, origin);
        }
    }

    /// Whether a user has a session.
    pub fn is_online(&self, user: UserName) -> bool {
        self.users.get(&user).is_some_and(|user| !user.sessions.is_empty())
    }

    /// All open sessions with their users.
    pub fn sessions(&self) -> impl Iterator<Item = (UserName, &OpenSession)> {
        self.users.iter().flat_map(|(name, user)| user.sessions.iter().map(|session| (*name, session)))
    }

    pub(super) fn user_mut(&mut self, name: UserName) -> &mut User {
        self.users.entry(name).or_default()
    }

    /// Panics where the state contradicts itself: for tests, after every event.
    #[doc(hidden)]
    pub fn assert_invariants(&self) {
        assert!(self.strangers.len() <= login::STRANGERS_MAX);
        let mut sessions = BTreeSet::new();
        for (name, user) in &self.users {
            assert!(user.sessions.len() <= super::policy::SESSIONS_PER_USER_MAX, "{name} has too many sessions");
            for session in &user.sessions {
                assert!(sessions.insert(session.id), "session {} is open twice", session.id);
                assert!(session.id <= self.last_session && session.login_seq <= self.seq);
            }
            assert!(user.groups.is_disjoint(&user.invitations), "{name} is joined and invited");
            for group in &user.groups {
                assert!(self.groups[group].joined.contains_key(name), "{name} is not in {group}");
            }
            for group in &user.invitations {
                assert!(self.groups[group].invited.contains(name), "{name} is not invited to {group}");
            }
        }
        for (name, group) in &self.groups {
            for member in group.joined.keys() {
                assert!(self.users[member].groups.contains(name), "{member} does not know of {name}");
            }
            for user in &group.invited {
                assert!(self.users[user].invitations.contains(name), "{user} does not know of {name}");
            }
        }
        for id in &self.open_transfers {
            assert!(!self.transfers[id].has_ended(), "{id} is open and has ended");
        }
    }
}
