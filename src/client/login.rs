//! Logging in: the dialogue before it, the frame, its answer, and what is taken up again after a break.

use std::time::Instant;

use super::app::{App, Phase};
use super::contract::{Ending, Keep, Opened, Output, Show};
use super::requests::{Query, Request};
use crate::names::UserName;
use crate::protocol::{Answer, ClientFrame, ErrorAnswer, LoginFrame, sentence};

/// The code of the answer to a token that is not, or no longer, good.
pub(super) const TOKEN_REFUSED: &str = "bad_credentials";

impl App {
    pub(super) fn begin_dialogue(&mut self) {
        self.show(Show::Notice("Please login".into()));
        match self.user {
            Some(user) if self.options.password.is_some() => self.open(user),
            Some(_) => self.phase = Phase::AskPassword,
            None => self.phase = Phase::AskName,
        }
    }

    pub(super) fn take_name(&mut self, line: &str) {
        match line.trim().parse::<UserName>() {
            Ok(user) => {
                self.user = Some(user);
                if self.options.password.is_some() {
                    self.open(user);
                } else {
                    self.phase = Phase::AskPassword;
                }
            }
            Err(error) => {
                self.show(Show::Notice(format!("Error. Not a name: {error}.")));
                if !self.options.is_person {
                    self.end(Ending::LoginRefused);
                }
            }
        }
    }

    pub(super) fn take_password(&mut self, line: &str, now: Instant) {
        line.clone_into(&mut self.password);
        let Some(user) = self.user else { return };
        if self.device.is_none() {
            self.open(user);
        } else {
            self.phase = Phase::LoggingIn;
            self.log_in(now);
        }
    }

    /// The user's state and the engine are open.
    pub fn handle_opened(&mut self, opened: Opened, now: Instant) {
        let Opened { device, outbox, cursor, heads, engine } = opened;
        self.device = Some(device);
        self.outbox = outbox;
        self.cursor = cursor;
        self.heads = heads;
        self.engine = engine;
        self.phase = Phase::LoggingIn;
        self.log_in(now);
    }

    /// The user's state could not be opened.
    pub fn handle_not_opened(&mut self, why: &str) {
        self.show(Show::Trouble(why.to_owned()));
        self.end(Ending::Failed);
    }

    pub(super) fn send_login(&mut self, now: Instant) {
        let Some(user) = self.user else { return };
        // With a token a login is good also while strangers have the name blocked.
        let token = self.token.clone();
        let request = Request::Login { is_by_token: token.is_some() };
        let frame = LoginFrame {
            id: None,
            username: user.to_string(),
            password: token.is_none().then(|| self.password.clone()),
            token,
            device: self.device,
            after: self.cursor.map(|(_, seq)| seq),
            udp_port: self.engine.as_ref().map(|(port, _)| *port),
            watch: None,
            want_token: Some(true),
        };
        self.write(&ClientFrame::Login(frame));
        self.awaiting.push_back(request);
        self.link.begin_login(now);
    }

    pub(super) fn handle_logged_in(&mut self, mut answer: Answer) {
        // Out of the answer, which is shown. The one before stays good where there is no other.
        self.token = answer.token.take().or(self.token.take());
        let is_first = !self.link.has_logged_in;
        let was_lost = self.link.is_lost();
        self.link.end_login(true);
        self.phase = Phase::Chatting;
        self.is_catching_up = true;
        self.has_told_contradiction = false;
        if is_first {
            self.keep(Keep::LoggedIn);
            self.show(Show::Answer { typed: String::new(), answer: answer.clone() });
        } else if was_lost {
            self.show(Show::Notice("Connected again.".into()));
        }
        self.check_log(&answer);
        self.resume_outbox(answer.sent.unwrap_or(0));
        self.resume_transfers();
        if is_first && self.options.learn_names {
            self.ask_quietly("/users");
            self.ask_quietly("/groups");
        }
    }

    pub(super) fn handle_login_refused(&mut self, error: &ErrorAnswer, is_by_token: bool, now: Instant) {
        self.link.end_login(false);
        if is_by_token && error.code == TOKEN_REFUSED {
            self.token = None;
            self.send_login(now);
            return;
        }
        if self.link.has_logged_in && error.code != "bad_credentials" {
            // Whatever stands in the way will pass: a block by strangers, too many sessions, a full disk.
            self.log_in_later(error.retry_after_ms.unwrap_or(0), now);
            return;
        }
        self.show(Show::Notice(sentence::error(error)));
        match error.code.as_str() {
            "bad_credentials" if self.options.is_person => self.phase = Phase::AskPassword,
            "cleartext_refused" => self.end(Ending::CannotConnect),
            _ => self.end(Ending::LoginRefused),
        }
    }

    fn open(&mut self, user: UserName) {
        self.phase = Phase::Opening;
        self.outputs.push_back(Output::Open(user));
    }

    fn log_in(&mut self, now: Instant) {
        if self.link.is_up() {
            self.send_login(now);
        } else {
            self.link.want(now);
        }
    }

    /// Starts over from the head where the log is another than before, or an older copy of it.
    fn check_log(&mut self, answer: &Answer) {
        let (Some(log), Some(head)) = (answer.log, answer.seq) else { return };
        self.log = Some(log);
        self.skip_through = 0;
        let Some((known, seen)) = self.cursor else { return };
        if known == log && head > seen {
            return;
        }
        self.show(Show::Notice(if known == log {
            format!("The server's log ends at {head}, before what was seen of it ({seen}): it was restored from an older copy. Starting over from there.")
        } else {
            "The server has another log than before. Starting over from its end; /history shows what was before.".into()
        }));
        self.skip_through = head;
        self.cursor = Some((log, head));
        self.keep(Keep::Cursor(log, head));
        if known != log {
            // Numbers of the other log say nothing about this one.
            let sent = answer.sent.unwrap_or(0);
            self.outbox.renumber(sent);
            self.keep(Keep::Base(sent));
        }
    }

    /// Takes out of the outbox what the server has carried out, and counts on from there.
    fn resume_outbox(&mut self, sent: u64) {
        let before = self.outbox.settled();
        let carried_out = self.outbox.resume(sent);
        if !carried_out.is_empty() {
            self.keep(Keep::Settled(carried_out.len() as u64));
        }
        if before + carried_out.len() as u64 != sent {
            self.keep(Keep::Base(sent));
        }
        self.unconfirmed.extend(carried_out.into_iter().map(|(number, entry)| (number, entry.text)));
    }

    fn ask_quietly(&mut self, text: &str) {
        let query = Query { text: text.to_owned(), id: None, is_quiet: true };
        self.queue.push_front((0, query));
    }
}
