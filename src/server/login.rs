//! Logging in: from the frame over the verdict of the password or token to the answer and what the session is owed.

use crate::chat::{LoginRequest, LogoutReason, Refusal};
use crate::names::{DeviceName, UserName};
use crate::protocol::{Answer, Id, LoginFrame};

use super::connection::{ConnectionKey, Feed, LoggedIn, Now, OwnEvents, Phase};
use super::hub::{Hub, Output};
use super::tokens::Holder;

/// What a login shows.
#[derive(Debug)]
enum Proof {
    Password,
    Token(String),
}

/// A login whose password or token is being checked, or for which a token is being made.
#[derive(Debug)]
pub(super) struct Attempt {
    id: Option<Id>,
    user: UserName,
    device: Option<DeviceName>,
    after: Option<u64>,
    udp_port: Option<u16>,
    watch: bool,
    wants_token: bool,
    proof: Proof,
}

impl Attempt {
    /// Who may have a token by it: only a device that has a name.
    fn holder(&self) -> Option<Holder> {
        self.device.map(|device| Holder { user: self.user, device })
    }
}

impl Hub {
    /// The password or token of a login was found right or wrong.
    pub fn handle_verdict(&mut self, key: ConnectionKey, is_right: bool, now: Now) {
        let Some(attempt) = self.attempts.remove(&key) else { return };
        if self.is_over(key) {
            return;
        }
        let id = attempt.id.clone();
        let done = match (&attempt.proof, is_right) {
            // Strangers can block a name, and nobody can guess a token: it is good all the same, and no try to count.
            (Proof::Token(_), true) => self.admit(key, attempt, now),
            (Proof::Token(_), false) => Err(self.refuse_token(attempt.user, now)),
            // While the password was being checked, the name may have been blocked and the log may have filled up.
            (Proof::Password, _) => self.state.check_block(attempt.user, now.at).and_then(|()| match is_right {
                true => self.admit(key, attempt, now),
                false => Err(self.record_wrong_password(key, &attempt, now)),
            }),
        };
        if !self.attempts.contains_key(&key) {
            self.end_attempt(key, id, done, now);
        }
    }

    /// A token was made for a login, or none is to be had.
    pub fn handle_token(&mut self, key: ConnectionKey, token: Option<String>, now: Now) {
        let Some(attempt) = self.attempts.remove(&key) else { return };
        if self.is_over(key) {
            return;
        }
        let id = attempt.id.clone();
        let done = self.log_in(key, attempt, token, now);
        self.end_attempt(key, id, done, now);
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
        let (output, proof) = match (frame.password, frame.token, frame.device) {
            (Some(password), ..) => {
                self.state.check_block(user, now.at)?;
                (Output::CheckPassword { connection: key, user, password }, Proof::Password)
            }
            (None, Some(token), Some(device)) => {
                (Output::CheckToken(key, Holder { user, device }, token.clone()), Proof::Token(token))
            }
            (None, Some(_), None) => return Err(self.refuse_token(user, now)),
            (None, None, _) => return Err(Refusal::BadLine("a login has a password or a token")),
        };
        self.check_room(1_024)?;
        let attempt = Attempt {
            id: frame.id,
            user,
            device: frame.device,
            after: frame.after,
            udp_port: frame.udp_port,
            watch: frame.watch == Some(true),
            wants_token: frame.want_token == Some(true),
            proof,
        };
        self.attempts.insert(key, attempt);
        if let Some(connection) = self.connection_mut(key) {
            connection.busy = true;
        }
        self.outputs.push_back(output);
        Ok(())
    }

    /// Lets a login in whose password or token is right, once it has the token that it wants.
    fn admit(&mut self, key: ConnectionKey, attempt: Attempt, now: Now) -> Result<(), Refusal> {
        let Some(holder) = attempt.holder().filter(|_| attempt.wants_token) else {
            return self.log_in(key, attempt, None, now);
        };
        // A login that is refused is told no token, and must not end the one that the device has.
        self.state.decide_login(&self.request(key, &attempt)?)?;
        let shown = match &attempt.proof {
            Proof::Password => None,
            Proof::Token(token) => Some(token.clone()),
        };
        self.attempts.insert(key, attempt);
        self.outputs.push_back(Output::MakeToken(key, holder, shown));
        Ok(())
    }

    /// Answers a login that was refused, and takes up what the client sent behind it.
    fn end_attempt(&mut self, key: ConnectionKey, id: Option<Id>, done: Result<(), Refusal>, now: Now) {
        if let Err(refusal) = done {
            self.tell_refusal(key, id, &refusal, Some("login"));
        }
        self.go_on(key, now);
    }

    fn request(&self, key: ConnectionKey, attempt: &Attempt) -> Result<LoginRequest, Refusal> {
        let ip = self.connection(key).map(|connection| connection.ip).ok_or(Refusal::NotLoggedIn)?;
        let Attempt { user, udp_port, device, .. } = *attempt;
        Ok(LoginRequest { user, ip, udp_port, device })
    }

    /// The refusal of a token: as of a wrong password, but nothing is counted.
    fn refuse_token(&self, user: UserName, now: Now) -> Refusal {
        Refusal::BadCredentials { attempts_left: self.state.attempts_left(&self.policy, user, now.at) }
    }

    fn record_wrong_password(&mut self, key: ConnectionKey, attempt: &Attempt, now: Now) -> Refusal {
        let Some(ip) = self.connection(key).map(|connection| connection.ip) else { return Refusal::NotLoggedIn };
        let (events, refusal) = self.state.decide_wrong_password(&self.policy, now.at, attempt.user, ip);
        self.commit(&events, Some(key), now);
        refusal
    }

    fn log_in(&mut self, key: ConnectionKey, attempt: Attempt, token: Option<String>, now: Now) -> Result<(), Refusal> {
        let events = self.state.decide_login(&self.request(key, &attempt)?)?;
        let Attempt { id, user, device, after, watch, .. } = attempt;
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
            let (feed, own) = (Feed::Waiting, OwnEvents::default());
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
            token,
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
