//! Logging in: from the frame over the verdict of the password to the answer and what the session is owed.

use crate::chat::{LoginRequest, LogoutReason, Refusal};
use crate::names::{DeviceName, UserName};
use crate::protocol::{Answer, Id, LoginFrame};

use super::connection::{ConnectionKey, Feed, LoggedIn, Now, Phase};
use super::hub::{Hub, Output};

/// A login whose password is being checked.
#[derive(Debug)]
pub(super) struct Attempt {
    id: Option<Id>,
    user: UserName,
    device: Option<DeviceName>,
    after: Option<u64>,
    udp_port: Option<u16>,
    watch: bool,
}

impl Hub {
    /// The password of a login was found right or wrong.
    pub fn handle_verdict(&mut self, key: ConnectionKey, is_right: bool, now: Now) {
        let Some(attempt) = self.attempts.remove(&key) else { return };
        if self.is_over(key) {
            return;
        }
        // While the password was being checked, the name may have been blocked and the log may have filled up.
        let id = attempt.id.clone();
        let done = self.state.check_block(attempt.user, now.at).and_then(|()| {
            if is_right { self.log_in(key, attempt, now) } else { Err(self.record_wrong_password(key, &attempt, now)) }
        });
        if let Err(refusal) = done {
            self.tell_refusal(key, id, &refusal, Some("login"));
        }
        self.go_on(key, now);
    }

    /// A client wants to log in. Its later lines wait for the verdict.
    pub(super) fn handle_login(&mut self, key: ConnectionKey, frame: LoginFrame, now: Now) -> Result<(), Refusal> {
        if self.session(key).is_some() {
            return Err(Refusal::AlreadyLoggedIn);
        }
        // What is no name has no account: refused like a wrong password, and nothing to record.
        let attempts_left = self.policy.failures_max.saturating_sub(1);
        let no_such_user = Refusal::BadCredentials { attempts_left };
        let user: UserName = frame.username.parse().map_err(|_| no_such_user.clone())?;
        self.state.check_block(user, now.at)?;
        let password = match (frame.password, frame.token) {
            (Some(password), _) => password,
            (None, Some(_)) => return Err(no_such_user),
            (None, None) => return Err(Refusal::BadLine("a login has a password")),
        };
        self.check_room(1_024)?;
        let attempt = Attempt {
            id: frame.id,
            user,
            device: frame.device,
            after: frame.after,
            udp_port: frame.udp_port,
            watch: frame.watch == Some(true),
        };
        self.attempts.insert(key, attempt);
        if let Some(connection) = self.connection_mut(key) {
            connection.busy = true;
        }
        self.outputs.push_back(Output::CheckPassword { connection: key, user, password });
        Ok(())
    }

    fn record_wrong_password(&mut self, key: ConnectionKey, attempt: &Attempt, now: Now) -> Refusal {
        let Some(ip) = self.connection(key).map(|connection| connection.ip) else { return Refusal::NotLoggedIn };
        let (events, refusal) = self.state.decide_wrong_password(&self.policy, now.at, attempt.user, ip);
        self.commit(&events, Some(key), now);
        refusal
    }

    fn log_in(&mut self, key: ConnectionKey, attempt: Attempt, now: Now) -> Result<(), Refusal> {
        let Attempt { id, user, device, after, udp_port, watch } = attempt;
        let ip = self.connection(key).map(|connection| connection.ip).ok_or(Refusal::NotLoggedIn)?;
        let events = self.state.decide_login(&LoginRequest { user, ip, udp_port, device })?;
        self.replace(user, device, now);
        // The replaced session's logout, if any, is committed by its own end above.
        let login = events.into_iter().next_back();
        self.commit(login.as_slice(), Some(key), now);

        let login_seq = self.state.seq;
        let session = self.state.last_session;
        let sent = device.map(|device| self.state.sent(user, device));
        let backlog = after.or_else(|| self.state.resume_after(user)).unwrap_or(login_seq);
        let place = self.state.users.get_index_of(&user).expect("a login has made the user known");
        self.present.add(place, key);
        if let Some(connection) = self.connection_mut(key) {
            let (feed, own) = (Feed::Waiting, Vec::new());
            let user = u32::try_from(place).expect("there are far fewer users than 2^32");
            connection.phase = Phase::LoggedIn(LoggedIn { session, user, watch, feed, own, parting: None });
        }
        self.session_count += 1;
        if watch {
            self.watchers.insert(key);
        }
        let answer = Answer {
            id,
            command: "login".into(),
            user: Some(user),
            session: Some(session),
            seq: Some(login_seq),
            ts: Some(now.at),
            log: Some(self.options.log),
            device,
            sent,
            ..Answer::default()
        };
        self.tell_ok(key, answer);
        self.then_backlog(key, backlog);
        Ok(())
    }

    /// Ends the session of the same user and device, so that a broken connection never stands in the way of the next.
    fn replace(&mut self, user: UserName, device: Option<DeviceName>, now: Now) {
        let Some(device) = device else { return };
        let keys = self.present.of(&self.state, user).to_vec();
        for key in keys {
            if self.session(key).is_some_and(|session| session.device == Some(device)) {
                self.end_session(key, LogoutReason::Replaced, now);
                self.close_with(key, &Refusal::Replaced);
            }
        }
    }
}
