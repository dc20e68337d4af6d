//! The rules of logging in: counting wrong passwords, blocking, sessions and what a login is owed.

use std::net::IpAddr;

use super::policy::{BLOCK_MS, Policy, SESSIONS_PER_USER_MAX};
use super::state::{Failures, OpenSession, State};
use super::{Event, LogoutReason, Refusal, Seq, device};
use crate::clock::Timestamp;
use crate::names::{DeviceName, UserName};

/// How many names without any login have their failures remembered. Beyond that the name untouched for longest is
/// forgotten, which the log decides the same way on every replay.
pub const STRANGERS_MAX: usize = 10_000;

/// A login whose password has been found right.
#[derive(Debug, Clone, Copy)]
pub struct LoginRequest {
    /// Who.
    pub user: UserName,
    /// From where.
    pub ip: IpAddr,
    /// The port for peer transfers.
    pub udp_port: Option<u16>,
    /// The device that numbers its commands.
    pub device: Option<DeviceName>,
}

impl State {
    /// Refuses an attempt on a name that is blocked, whatever its password: such attempts neither count nor are
    /// they recorded, so that nobody is locked out for longer by strangers.
    ///
    /// # Errors
    /// [`Refusal::Blocked`] with the time left.
    pub fn check_block(&self, user: UserName, at: Timestamp) -> Result<(), Refusal> {
        match self.failures(user).blocked_until {
            Some(until) if until > at => Err(Refusal::Blocked { retry_after_ms: until.ms_since(at), by_this: false }),
            _ => Ok(()),
        }
    }

    /// What a wrong password does: the events that record it, and the refusal for whoever typed it.
    pub fn decide_wrong_password(
        &self,
        policy: &Policy,
        at: Timestamp,
        user: UserName,
        ip: IpAddr,
    ) -> (Vec<Event>, Refusal) {
        let before = self.failures(user);
        // A block that is over sets the count back.
        let failures = if before.blocked_until.is_some() { 1 } else { before.count + 1 };
        let mut events = vec![Event::LoginFailed { user, ip, failures }];
        if failures < policy.failures_max {
            return (events, Refusal::BadCredentials { attempts_left: policy.failures_max - failures });
        }
        events.push(Event::UserBlocked { user, until: at.plus_ms(BLOCK_MS) });
        (events, Refusal::Blocked { retry_after_ms: BLOCK_MS, by_this: true })
    }

    /// How many wrong passwords block a name, after those there were.
    pub fn attempts_left(&self, policy: &Policy, user: UserName, at: Timestamp) -> u32 {
        let Failures { count, blocked_until } = self.failures(user);
        match blocked_until {
            Some(until) if until > at => 0,
            Some(_) => policy.failures_max,
            None => policy.failures_max.saturating_sub(count).max(1),
        }
    }

    /// What a right password does: the login, and before it the end of the session it takes the place of.
    ///
    /// # Errors
    /// Too many sessions or devices.
    pub fn decide_login(&self, request: &LoginRequest) -> Result<Vec<Event>, Refusal> {
        let LoginRequest { user, ip, udp_port, device } = *request;
        let sessions = self.users.get(&user).map(|user| user.sessions.as_slice()).unwrap_or_default();
        let replaced = sessions.iter().find(|session| device.is_some() && session.device == device);
        if sessions.len() - usize::from(replaced.is_some()) >= SESSIONS_PER_USER_MAX {
            return Err(Refusal::TooManySessions);
        }
        if let Some(device) = device {
            device::check_count(self, user, device)?;
        }
        let mut events = Vec::with_capacity(2);
        if let Some(OpenSession { id, .. }) = replaced {
            events.push(Event::Logout { user, session: *id, reason: LogoutReason::Replaced });
        }
        events.push(Event::Login { user, session: self.last_session + 1, ip, udp_port, device });
        Ok(events)
    }

    /// The highest number that the log holds from a user and device, 0 if none.
    pub fn sent(&self, user: UserName, device: DeviceName) -> u64 {
        device::sent(self, user, device)
    }

    /// The event after which the backlog of a login without a cursor begins, asked once the login is applied:
    /// `None` while another session of the user is there.
    pub fn resume_after(&self, user: UserName) -> Option<Seq> {
        self.users.get(&user).filter(|user| user.sessions.len() <= 1).map(|user| user.resume_after)
    }

    fn failures(&self, user: UserName) -> Failures {
        let known = self.users.get(&user).filter(|user| user.has_logged_in).map(|user| user.failures);
        known.or_else(|| self.strangers.get(&user).copied()).unwrap_or_default()
    }

    fn set_failures(&mut self, name: UserName, failures: Failures) {
        if let Some(user) = self.users.get_mut(&name).filter(|user| user.has_logged_in) {
            user.failures = failures;
            return;
        }
        self.strangers.shift_remove(&name);
        self.strangers.insert(name, failures);
        if self.strangers.len() > STRANGERS_MAX {
            self.strangers.shift_remove_index(0);
        }
    }
}

pub(super) fn apply(state: &mut State, seq: Seq, at: Timestamp, event: &Event) {
    match event {
        Event::LoginFailed { user, failures, .. } => {
            state.set_failures(*user, Failures { count: *failures, blocked_until: None });
        }
        Event::UserBlocked { user, until } => {
            let count = state.failures(*user).count;
            state.set_failures(*user, Failures { count, blocked_until: Some(*until) });
        }
        Event::Login { user, session, ip, udp_port, device } => {
            state.strangers.shift_remove(user);
            state.last_session = state.last_session.max(*session);
            let user = state.user_mut(*user);
            user.has_logged_in = true;
            user.failures = Failures::default();
            // A user has one as a rule, and there are as many users as connections.
            user.sessions.reserve_exact(1);
            user.sessions.push(OpenSession {
                id: *session,
                since: at,
                login_seq: seq,
                ip: *ip,
                udp_port: *udp_port,
                device: *device,
            });
        }
        Event::Logout { user, session, reason } => {
            let Some(user) = state.users.get_mut(user) else { return };
            let Some(place) = user.sessions.iter().position(|open| open.id == *session) else { return };
            let ended = user.sessions.remove(place);
            if user.sessions.is_empty() {
                let by_own_word = *reason == LogoutReason::Logout;
                user.resume_after = if by_own_word { seq } else { ended.login_seq };
            }
        }
        Event::ServerStarted { .. } => {
            for user in state.users.values_mut() {
                // Whoever was there when the last run broke off may have missed anything since the oldest login.
                if let Some(oldest) = user.sessions.iter().map(|session| session.login_seq).min() {
                    user.resume_after = oldest;
                    user.sessions = Vec::new();
                }
            }
        }
        _ => {}
    }
}
