//! What is typed and what the server answers: each command in its turn, each answer to what it belongs to.

use std::time::Instant;

use super::app::{App, Leaving};
use super::contract::{Ending, Keep, Show};
use super::limits;
use super::outbox::Ordinal;
use crate::chat::Command;
use crate::chat::command::{Usage, word_is_changing};
use crate::names::TransferId;
use crate::protocol::{Answer, ClientFrame, CommandFrame, ErrorAnswer, HelpEntry, Id, ReportFrame};

/// The client's own commands.
pub(super) const OWN_USAGES: [Usage; 5] = [
    Usage { word: "p2pvideo", usage: "/p2pvideo USER FILE", help: "Send a file of any kind straight to USER." },
    Usage { word: "accept", usage: "/accept N", help: "Take the file that was offered under this number." },
    Usage { word: "decline", usage: "/decline N", help: "Do not take it." },
    Usage { word: "transfers", usage: "/transfers", help: "Show the transfers that are not over." },
    Usage { word: "cancel", usage: "/cancel N", help: "Give a transfer up." },
];

/// A command that needs no number.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) text: String,
    pub(super) id: Option<Id>,
    /// Asked by the client for itself.
    pub(super) is_quiet: bool,
}

/// A frame about a transfer, and what its answer belongs to.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) frame: ClientFrame<'static>,
    pub(super) request: Request,
}

/// What the server owes an answer to.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Login {
        /// Whether by the token of an earlier one.
        is_by_token: bool,
    },
    Numbered(Ordinal, String),
    Query(Query),
    Logout,
    Offer(TransferId),
    Verdict(TransferId),
    Report(ReportFrame),
    Ping,
    /// For the head of the log, asked by the client for itself.
    Head,
}

impl App {
    pub(super) fn take_command(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        if self.options.echo_frames && line.starts_with('{') {
            return self.take_frame(line);
        }
        self.take_text(line, None);
    }

    /// Takes a frame of a script: the text of a command as if it had been typed, or a ping.
    fn take_frame(&mut self, line: &str) {
        match ClientFrame::parse(line.as_bytes()) {
            Ok(ClientFrame::Command(CommandFrame { id, text })) => self.take_text(&text, id),
            Ok(ClientFrame::Ping { id }) => {
                let frame = ClientFrame::Ping { id };
                self.signals.push_back(Asked { frame, request: Request::Ping });
            }
            Ok(_) => self.handle_bad_line("Only frames of the types command and ping are passed on."),
            Err(bad) => self.handle_bad_line(&format!("Not understood: {}.", bad.why)),
        }
    }

    fn take_text(&mut self, text: &str, id: Option<Id>) {
        let (word, rest) = own_word(text);
        if OWN_USAGES.iter().any(|usage| usage.word == word) {
            return self.take_own_command(word, rest);
        }
        let word = Command::split(text).map_or("", |(usage, _)| usage.word);
        match word {
            "logout" if matches!(Command::parse(text), Ok(Command::Logout)) => self.take_logout(),
            word if word_is_changing(word) => self.take_numbered(text),
            _ => {
                if self.is_full() {
                    return;
                }
                let query = Query { text: text.to_owned(), id, is_quiet: false };
                self.queue.push_back((self.outbox.next_ordinal(), query));
                if self.options.is_person && !self.link.is_logged_in() {
                    self.show(Show::Reply("Not connected now: the answer comes when the server is back.".into()));
                }
            }
        }
    }

    fn take_numbered(&mut self, text: &str) {
        if self.is_full() {
            return;
        }
        self.outbox.add(text.to_owned());
        self.keep(Keep::Added(text.to_owned()));
        if self.options.is_person && !self.link.is_logged_in() {
            self.show(Show::Reply("Not connected now: it will be sent when the server is back.".into()));
        }
    }

    fn is_full(&mut self) -> bool {
        let is_full = self.outbox.len() + self.queue.len() >= limits::COMMANDS_WAITING_MAX;
        if is_full {
            self.handle_bad_line("Too many commands are waiting to be sent; this one was not taken.");
        }
        is_full
    }

    fn take_logout(&mut self) {
        if !self.options.is_person {
            self.leaving = Some(Leaving::WhenDone);
        } else if !self.link.is_logged_in() {
            self.end_by_own_word();
        } else if self.transfers.is_busy() && !std::mem::replace(&mut self.transfers.is_warned, true) {
            self.show(Show::Reply("Transfers are under way: type /logout again to break them off.".into()));
        } else {
            self.cancel_all_transfers();
            self.leaving = Some(Leaving::Asked);
            let query = Query { text: "/logout".into(), id: None, is_quiet: false };
            self.queue.push_back((self.outbox.next_ordinal(), query));
        }
    }

    /// Leaves once nothing is outstanding, if that is wanted.
    pub(super) fn leave_if_done(&mut self) {
        let is_idle = self.outbox.is_empty()
            && self.queue.is_empty()
            && self.signals.is_empty()
            && self.awaiting.is_empty()
            && !self.is_catching_up
            && !self.transfers.is_busy();
        if self.leaving != Some(Leaving::WhenDone) || !is_idle {
            return;
        }
        if self.link.is_logged_in() {
            self.leaving = Some(Leaving::Asked);
            self.send_command(Request::Logout, None, "/logout");
        } else if self.link.is_lost() {
            self.end_by_own_word();
        }
    }

    /// The session is over because the user wanted it so.
    pub(super) fn end_by_own_word(&mut self) {
        if !self.outbox.is_empty() {
            let left = super::sentences::left_behind(self.outbox.len());
            self.show(Show::Notice(left));
        }
        self.end(match self.leaving {
            Some(Leaving::Now(_)) => Ending::Interrupted,
            _ if self.transfers.has_failed => Ending::TransferFailed,
            _ => Ending::Done,
        });
    }

    /// Sends what may be sent: frames of transfers at once; numbered commands in order, some at a time; a query once
    /// all commands before it are answered, because a refusal among them makes the server turn back those behind it.
    pub(super) fn pump(&mut self) {
        while self.link.is_logged_in() && self.output().len() < limits::OUTPUT_BYTES_MAX {
            if let Some(Asked { frame, request }) = self.signals.pop_front() {
                self.write(&frame);
                if !matches!(frame, ClientFrame::Candidate(_)) {
                    self.awaiting.push_back(request);
                }
                continue;
            }
            let next = self.outbox.next_unsent().map(|(number, entry)| (number, entry.ordinal, entry.text.clone()));
            let queried = self.queue.front().map(|(after, _)| *after);
            match (queried, next) {
                (Some(after), next) if next.as_ref().is_none_or(|(_, ordinal, _)| *ordinal >= after) => {
                    if self.outbox.has_before(after) {
                        return;
                    }
                    let Some((_, query)) = self.queue.pop_front() else { return };
                    let (id, text) = (query.id.clone(), query.text.clone());
                    let request = if text == "/logout" { Request::Logout } else { Request::Query(query) };
                    self.send_command(request, id, &text);
                }
                (_, Some((number, ordinal, text))) if self.outbox.sent_count() < limits::COMMANDS_UNDER_WAY_MAX => {
                    self.outbox.set_sent(ordinal, true);
                    self.send_command(Request::Numbered(ordinal, text.clone()), Some(Id::Number(number)), &text);
                }
                _ => return,
            }
        }
    }

    pub(super) fn send_command(&mut self, request: Request, id: Option<Id>, text: &str) {
        if matches!(request, Request::Logout) {
            self.ask_for_head();
        }
        self.write(&ClientFrame::Command(CommandFrame { id, text: text.into() }));
        self.awaiting.push_back(request);
    }

    pub(super) fn write(&mut self, frame: &ClientFrame<'_>) {
        if self.out_sent > limits::OUTPUT_BYTES_MAX {
            self.out.drain(..self.out_sent);
            self.out_sent = 0;
        }
        frame.write(&mut self.out);
    }

    /// The connection is gone: what was asked is asked again, in its order, or known from what the server then says.
    pub(super) fn take_back_requests(&mut self) {
        self.outbox.forget_sent();
        self.signals.retain(|asked| matches!(asked.request, Request::Report(_)));
        for request in std::mem::take(&mut self.awaiting).into_iter().rev() {
            match request {
                Request::Query(query) => self.queue.push_front((0, query)),
                Request::Report(ref frame) => {
                    let frame = ClientFrame::Transfer(frame.clone());
                    self.signals.push_front(Asked { frame, request });
                }
                _ => {}
            }
        }
    }

    pub(super) fn handle_ok(&mut self, mut answer: Answer) {
        match self.awaiting.pop_front() {
            Some(Request::Login { .. }) => self.handle_logged_in(answer),
            Some(Request::Numbered(ordinal, typed)) => {
                let count = self.outbox.settle(ordinal);
                if count > 0 {
                    self.keep(Keep::Settled(count));
                }
                self.learn_from_answer(&answer);
                self.show(Show::Answer { typed, answer });
            }
            Some(Request::Query(query)) => {
                self.learn_from_answer(&answer);
                if query.is_quiet {
                    return;
                }
                if let Some(commands) = &mut answer.commands {
                    commands.extend(OWN_USAGES.iter().map(help_entry));
                }
                self.show(Show::Answer { typed: query.text, answer });
            }
            Some(Request::Logout) => {
                self.show(Show::Answer { typed: "/logout".into(), answer });
                self.end_by_own_word();
            }
            Some(Request::Offer(transfer)) => self.handle_offer_taken(transfer),
            Some(Request::Head) => self.handle_head(&answer),
            Some(Request::Verdict(_) | Request::Report(_) | Request::Ping) | None => {}
        }
    }

    pub(super) fn handle_error(&mut self, error: ErrorAnswer, now: Instant) {
        if matches!(error.code.as_str(), "replaced" | "shutting_down") || !self.belongs(&error) {
            self.handle_last_word(&error);
            return;
        }
        match self.awaiting.pop_front() {
            Some(Request::Login { is_by_token }) => self.handle_login_refused(&error, is_by_token, now),
            Some(Request::Numbered(ordinal, typed)) => self.handle_command_refused(ordinal, typed, error),
            Some(Request::Query(query)) if !query.is_quiet => self.show(Show::Refused { typed: query.text, error }),
            Some(Request::Offer(transfer)) => self.handle_offer_refused(transfer, &error, now),
            Some(Request::Verdict(transfer)) => self.handle_verdict_refused(transfer, &error),
            Some(Request::Logout) => self.end_by_own_word(),
            Some(Request::Query(_) | Request::Report(_) | Request::Ping | Request::Head) | None => {}
        }
    }

    /// Whether an error answers what is owed an answer next, and is not the server's last word to the connection.
    fn belongs(&self, error: &ErrorAnswer) -> bool {
        match self.awaiting.front() {
            None => false,
            Some(Request::Numbered(..)) => {
                error.id.is_some() || matches!(error.code.as_str(), "bad_line" | "line_too_long")
            }
            Some(_) => true,
        }
    }

    fn handle_command_refused(&mut self, ordinal: Ordinal, typed: String, error: ErrorAnswer) {
        if error.code != "out_of_order" {
            if let Some(number) = self.outbox.refuse(ordinal) {
                self.keep(Keep::Refused(number));
            }
            self.show(Show::Refused { typed, error });
            return;
        }
        // One before it was refused, so its number was too high: it is sent again with the right one.
        self.outbox.set_sent(ordinal, false);
        let sent = error.expected.map_or(self.outbox.settled(), |expected| expected.saturating_sub(1));
        if sent != self.outbox.settled() {
            self.outbox.renumber(sent);
            self.keep(Keep::Base(sent));
        }
    }

    fn handle_last_word(&mut self, error: &ErrorAnswer) {
        self.show(Show::Notice(crate::protocol::sentence::error(error)));
        if error.code == "replaced" {
            self.end(Ending::Failed);
        } else if error.code == "cleartext_refused" {
            self.end(Ending::CannotConnect);
        }
    }
}

/// The word a line starts with, without its slash, and the rest behind one space.
fn own_word(line: &str) -> (&str, &str) {
    let line = line.trim_start_matches(' ');
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    (word.strip_prefix('/').unwrap_or(""), rest)
}

fn help_entry(usage: &Usage) -> HelpEntry {
    HelpEntry { usage: usage.usage.to_owned(), help: usage.help.to_owned() }
}
