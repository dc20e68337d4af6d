//! What the server sends: frames told apart, events shown once each, and the cursor that moves behind them.

use std::time::Instant;

use super::app::App;
use super::contract::{Ending, Keep, Show};
use super::login::TOKEN_REFUSED;
use super::requests::Request;
use crate::chat::{Addressee, Event, Origin, Record, Seq};
use crate::names::{GroupName, UserName};
use crate::protocol::{Answer, ClientFrame, ErrorAnswer, ServerFrame};

impl App {
    pub(super) fn handle_server_line(&mut self, line: &[u8], now: Instant) {
        if line.is_empty() {
            return;
        }
        let frame = ServerFrame::parse(line);
        // What the client asks for itself would only be in a script's way, and so would a token that is no longer good.
        let is_own = match (&frame, self.awaiting.front()) {
            (Ok(ServerFrame::Ok(_)), Some(Request::Head)) => true,
            (Ok(ServerFrame::Error(error)), Some(Request::Login { is_by_token: true })) => error.code == TOKEN_REFUSED,
            _ => false,
        };
        if self.options.echo_frames && !is_own {
            let text = String::from_utf8_lossy(line).into_owned();
            let is_login = matches!(self.awaiting.front(), Some(Request::Login { .. }));
            self.show(Show::Frame(if is_login { without_token(text) } else { text }));
        }
        match frame {
            Ok(ServerFrame::Ok(answer)) => self.handle_ok(answer),
            Ok(ServerFrame::Error(error)) => self.handle_error(error, now),
            Ok(ServerFrame::Event(record)) => self.handle_event(record),
            Ok(ServerFrame::Live { seq }) => self.handle_live(seq, now),
            Ok(ServerFrame::Ping) => self.write(&ClientFrame::Pong),
            Ok(ServerFrame::Offer(frame)) => self.handle_offer(frame),
            Ok(ServerFrame::Answer(frame)) => self.handle_verdict(frame),
            Ok(ServerFrame::Candidate(frame)) => self.handle_candidate(&frame),
            Err(_) => self.handle_unknown(line, now),
        }
    }

    /// A frame of a newer server: an answer still answers, an event still is one, the rest is passed over.
    fn handle_unknown(&mut self, line: &[u8], now: Instant) {
        #[derive(serde::Deserialize)]
        struct Head {
            #[serde(default)]
            r#type: String,
            seq: Option<Seq>,
            ts: Option<crate::clock::Timestamp>,
            message: Option<String>,
        }
        let Ok(head) = serde_json::from_slice::<Head>(line) else {
            // Not a frame at all: no server of any version speaks so.
            self.show(Show::Trouble("The server sends what is no frame: is it a messenger server?".into()));
            self.end(Ending::CannotConnect);
            return;
        };
        match head.r#type.as_str() {
            "ok" => self.handle_ok(Answer::default()),
            "error" => {
                let message = head.message.unwrap_or_else(|| "refused".into());
                self.handle_error(ErrorAnswer { message, ..ErrorAnswer::default() }, now);
            }
            _ => {
                if let (Some(seq), Some(_)) = (head.seq, head.ts) {
                    self.move_cursor(seq);
                }
            }
        }
    }

    fn handle_event(&mut self, record: Record) {
        let seen = self.cursor.map_or(0, |(_, seq)| seq).max(self.skip_through);
        if record.seq <= seen {
            return;
        }
        let seq = record.seq;
        self.learn_from_event(&record.event);
        if let Some(number) = self.own_number(&record.event) {
            self.confirm(number, &record);
        } else if !self.handle_transfer_record(&record.event) {
            self.show(Show::Event(record));
        }
        self.move_cursor(seq);
    }

    fn handle_live(&mut self, seq: Seq, now: Instant) {
        self.is_catching_up = false;
        self.watch_head(now);
        for (_, typed) in std::mem::take(&mut self.unconfirmed) {
            let typed = crate::protocol::sentence::visible(&typed);
            self.show(Show::Notice(format!("Sent before the connection broke: {typed}")));
        }
        self.move_cursor(seq);
    }

    /// The cursor never goes back: `live` may name less than was seen.
    fn move_cursor(&mut self, seq: Seq) {
        let Some(log) = self.log else { return };
        if self.cursor.is_none_or(|(_, seen)| seen < seq) {
            self.cursor = Some((log, seq));
            self.keep(Keep::Cursor(log, seq));
        }
    }

    /// The number of an event that this device's own command made.
    fn own_number(&self, event: &Event) -> Option<u64> {
        let (user, Origin { device, id }) = event.numbering()?;
        let is_own = Some(user) == self.user && Some(device) == self.device;
        is_own.then_some(id)
    }

    /// A command that the server carried out before the connection broke, and whose answer was lost with it.
    fn confirm(&mut self, number: u64, record: &Record) {
        if let Some(place) = self.unconfirmed.iter().position(|(unconfirmed, _)| *unconfirmed == number)
            && let Some((_, typed)) = self.unconfirmed.remove(place)
        {
            self.show(Show::Answer { typed, answer: answer_of(record) });
        }
    }

    fn learn_from_event(&mut self, event: &Event) {
        match event {
            Event::Message { from, to, .. } => self.learn([*from, *to], None),
            Event::GroupMessage { group, from, .. } => self.learn([*from], Some(*group)),
            Event::GroupCreated { group, by, invited, .. } | Event::GroupInvited { group, by, invited, .. } => {
                self.learn(invited.iter().copied().chain([*by]), Some(*group));
            }
            Event::GroupJoined { group, user, .. } => self.learn([*user], Some(*group)),
            _ => {}
        }
    }

    pub(super) fn learn_from_answer(&mut self, answer: &Answer) {
        let entries = answer.users.iter().flatten().map(|entry| entry.user);
        let members = answer.joined.iter().chain(&answer.invited).flatten().copied();
        self.learn(entries.chain(members), answer.group);
        for entry in answer.groups.iter().flatten() {
            self.learn(entry.joined.iter().chain(&entry.invited).copied(), Some(entry.group));
        }
    }

    fn learn(&mut self, users: impl IntoIterator<Item = UserName>, group: Option<GroupName>) {
        if !self.options.learn_names {
            return;
        }
        let before = self.users.len() + self.groups.len();
        let max = super::limits::NAMES_MAX;
        for user in users {
            if self.users.len() < max {
                self.users.insert(user);
            }
        }
        if let Some(group) = group.filter(|_| self.groups.len() < max) {
            self.groups.insert(group);
        }
        self.has_new_names |= self.users.len() + self.groups.len() > before;
    }
}

/// The answer to a login without the token in it, which is for this program alone; otherwise as it came.
fn without_token(line: String) -> String {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_str(&line) else { return line };
    let Some(token) = fields.remove("token") else { return line };
    let field = format!(",\"token\":{token}");
    match line.split_once(&field) {
        Some((before, behind)) => format!("{before}{behind}"),
        // A server that writes otherwise than ours.
        None => serde_json::Value::Object(fields).to_string(),
    }
}

/// The answer that the command of an own event had.
fn answer_of(record: &Record) -> Answer {
    let answer = Answer { seq: Some(record.seq), ts: Some(record.at), ..Answer::default() };
    let word = |word: &str| word.to_owned();
    match &record.event {
        Event::Message { to, .. } | Event::Erased { to: Addressee::User(to), .. } => {
            Answer { command: word("msgto"), to: Some(*to), ..answer }
        }
        Event::GroupMessage { group, .. } | Event::Erased { to: Addressee::Group(group), .. } => {
            Answer { command: word("groupmsg"), group: Some(*group), ..answer }
        }
        Event::GroupCreated { group, by, invited, .. } => Answer {
            command: word("creategroup"),
            group: Some(*group),
            joined: Some(vec![*by]),
            invited: Some(invited.clone()),
            ..answer
        },
        Event::GroupInvited { group, invited, .. } => {
            Answer { command: word("invite"), group: Some(*group), invited: Some(invited.clone()), ..answer }
        }
        Event::GroupJoined { group, .. } => Answer { command: word("joingroup"), group: Some(*group), ..answer },
        Event::GroupLeft { group, .. } => Answer { command: word("leavegroup"), group: Some(*group), ..answer },
        _ => answer,
    }
}
