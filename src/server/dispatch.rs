//! From the bytes of a client to what they ask for: lines, frames, commands, each answered once and in order.

use crate::chat::command::{self, USAGES};
use crate::chat::state::{Group, OpenSession};
use crate::chat::{Command, LogoutReason, Refusal, Session};
use crate::names::UserName;
use crate::protocol::{
    Answer, CLIENT_LINE_BYTES_MAX, ClientFrame, CommandFrame, CutLine, GroupEntry, HelpEntry, Id, LineCutter,
    LoginFrame, SERVER_LINE_BYTES_MAX, ShortAnswer, UserEntry,
};

use super::connection::{Connection, ConnectionKey, Dialect, Feed, Now, Parting};
use super::hub::{Hub, Output};
use super::limits;

impl Hub {
    /// Works through the lines of a connection as far as they may be taken now.
    pub(super) fn process(&mut self, key: ConnectionKey, now: Now) {
        if let Some(input) = self.take_input(key) {
            self.process_input(key, input, now);
        }
    }

    /// What a connection holds of its input, or an empty buffer that all share: nearly always a turn's bytes are whole
    /// lines, and nothing is left to be kept for the connection.
    pub(super) fn take_input(&mut self, key: ConnectionKey) -> Option<Box<LineCutter>> {
        let held = self.connection_mut(key)?.input.take();
        let input = held.or_else(|| self.spare_input.take());
        Some(input.unwrap_or_else(|| Box::new(LineCutter::new(CLIENT_LINE_BYTES_MAX))))
    }

    /// The same, of an input that was taken.
    pub(super) fn process_input(&mut self, key: ConnectionKey, mut input: Box<LineCutter>, now: Now) {
        while let Some(line) = self.next_line(key, &mut input, now) {
            self.handle_line(key, line, now);
        }
        let Some(connection) = self.connection_mut(key) else { return };
        if !input.is_empty() {
            input.release();
            connection.input = Some(input);
        } else if self.spare_input.is_none() {
            self.spare_input = Some(input);
        }
        let Some(connection) = self.connection_mut(key) else { return };
        if let Some(until) = connection.throttled_until {
            self.schedule(key, until);
        }
        self.touch(key);
    }

    /// Takes up the lines of a connection again that had to wait.
    pub(super) fn go_on(&mut self, key: ConnectionKey, now: Now) {
        if let Some(connection) = self.connection_mut(key).filter(|connection| !connection.is_over()) {
            connection.busy = false;
            self.schedule_next(key, now);
            self.process(key, now);
        }
    }

    /// The next line, if one is there and may be taken.
    fn next_line<'a>(&mut self, key: ConnectionKey, input: &'a mut LineCutter, now: Now) -> Option<Line<'a>> {
        let commands_per_second = self.options.commands_per_second;
        let (allow_cleartext, overloaded) = (self.options.allow_cleartext, self.is_overloaded());
        let (connection, _, outgoing) = self.connection_beside(key)?;
        let full = connection.is_full(&outgoing.shared);
        let is_parting = connection.logged_in().is_some_and(|logged_in| logged_in.parting.is_some());
        if connection.busy || full || connection.is_over() || is_parting {
            return None;
        }
        if overloaded || self.waits_for_room() {
            self.held.push(key);
            return None;
        }
        let connection = self.connection_mut(key)?;
        if connection.dialect.is_none() {
            let Some(first) = input.first_byte() else { return connection.input_ended.then_some(Line::End) };
            connection.dialect = Some(if first == b'{' { Dialect::Json } else { Dialect::Plain });
            let is_private = connection.is_encrypted || connection.ip.to_canonical().is_loopback();
            if !is_private && !allow_cleartext {
                return Some(Line::Cleartext);
            }
        }
        if !input.has_line() {
            return connection.input_ended.then_some(Line::End);
        }
        if !connection.take_token(commands_per_second, now.tick) {
            return None;
        }
        Some(match input.next_line() {
            Some(CutLine::Whole(line)) => Line::Whole(line),
            Some(CutLine::TooLong) => Line::TooLong,
            None => return None,
        })
    }

    fn handle_line(&mut self, key: ConnectionKey, line: Line<'_>, now: Now) {
        match line {
            Line::Cleartext => self.close_with(key, &Refusal::CleartextRefused),
            Line::TooLong => self.tell_refusal(key, None, &Refusal::LineTooLong, None),
            Line::Whole([]) => {}
            Line::Whole(line) if self.speaks_json(key) => self.handle_frame(key, line, now),
            Line::Whole(line) => self.handle_plain(key, line, now),
            Line::End => self.part(key, Parting::InputEnd, now),
        }
    }

    fn handle_plain(&mut self, key: ConnectionKey, line: &[u8], now: Now) {
        let Ok(text) = std::str::from_utf8(line) else {
            self.tell_refusal(key, None, &Refusal::BadLine("the line is not UTF-8"), None);
            return;
        };
        let frame = match plain_login(text) {
            Some(Ok(login)) => ClientFrame::Login(login),
            Some(Err(refusal)) => return self.tell_refusal(key, None, &refusal, None),
            None => ClientFrame::Command(CommandFrame { id: None, text: text.into() }),
        };
        self.handle_client_frame(key, frame, line.len(), now);
    }

    fn handle_frame(&mut self, key: ConnectionKey, line: &[u8], now: Now) {
        match ClientFrame::parse(line) {
            Ok(frame) => self.handle_client_frame(key, frame, line.len(), now),
            Err(bad) => self.tell_refusal(key, bad.id, &Refusal::BadLine(bad.why), None),
        }
    }

    fn handle_client_frame(&mut self, key: ConnectionKey, frame: ClientFrame<'_>, bytes: usize, now: Now) {
        let (id, done, word) = match frame {
            ClientFrame::Login(login) => (login.id.clone(), self.handle_login(key, login, now), Some("login")),
            ClientFrame::Command(CommandFrame { id, text }) => {
                if let Err(refusal) = self.handle_command(key, id.clone(), &text, bytes, now) {
                    let word = Command::split(&text).ok().map(|(usage, _)| usage.word);
                    self.tell_refusal(key, id, &refusal, word);
                }
                return;
            }
            ClientFrame::Ping { id } => {
                let (seq, root, at) = (self.durable.seq, self.durable.root.clone(), self.durable.at);
                let (seq, root, ts) = (Some(seq), Some(root), Some(at));
                self.tell_ok(key, Answer { id, command: "ping".into(), seq, root, ts, ..Answer::default() });
                return;
            }
            ClientFrame::Pong => return,
            ClientFrame::Offer(frame) => (frame.id.clone(), self.handle_offer(key, frame, bytes, now), Some("offer")),
            ClientFrame::Answer(frame) => {
                (frame.id.clone(), self.handle_answer(key, frame, bytes, now), Some("answer"))
            }
            ClientFrame::Candidate(frame) => (frame.id.clone(), self.handle_candidate(key, &frame), Some("candidate")),
            ClientFrame::Transfer(frame) => (frame.id.clone(), self.handle_report(key, frame, now), Some("transfer")),
        };
        if let Err(refusal) = done {
            self.tell_refusal(key, id, &refusal, word);
        }
    }

    fn handle_command(
        &mut self,
        key: ConnectionKey,
        id: Option<Id>,
        text: &str,
        bytes: usize,
        now: Now,
    ) -> Result<(), Refusal> {
        let who = self.session(key).ok_or(Refusal::NotLoggedIn)?;
        let command = Command::parse(text)?;
        let number = match id {
            Some(Id::Number(number)) => Some(number),
            _ => None,
        };
        let events = self.state.decide(&self.policy, now.at, &who, number, &command)?;
        if !events.is_empty() && command.is_changing() {
            // Escaped, a byte of text takes at most six in the log; the rest of a line is names.
            self.check_room(6 * bytes as u64 + 1_024)?;
        }
        match &command {
            Command::History { .. } => self.start_history(key, id, command),
            Command::Logout => self.part(key, Parting::Logout(id), now),
            _ => {
                self.commit(&events, Some(key), now);
                if self.answer_message(key, id.as_ref(), &command, now) {
                    return Ok(());
                }
                let answer = self.answer(key, id, &who, &command, now);
                self.tell_checked(key, answer);
            }
        }
        Ok(())
    }

    /// Ends a session by its client's word, once it has all that it is owed: what it left unread on its own word would
    /// never come again.
    pub(super) fn part(&mut self, key: ConnectionKey, parting: Parting, now: Now) {
        let logged_in = self.connection_mut(key).and_then(Connection::logged_in_mut);
        if let Some(logged_in) = logged_in.filter(|logged_in| logged_in.feed != Feed::Live) {
            logged_in.parting = Some(Box::new(parting));
            return;
        }
        match parting {
            Parting::InputEnd => self.end_session(key, LogoutReason::Disconnected, now),
            Parting::Logout(id) => {
                let user = self.session(key).map(|session| session.user);
                self.end_session(key, LogoutReason::Logout, now);
                self.tell_ok(key, Answer { id, command: "logout".into(), user, ..Answer::default() });
            }
        }
        self.close(key);
    }

    /// Refuses what the log has no room for, and asks for more.
    pub(super) fn check_room(&mut self, bytes: u64) -> Result<(), Refusal> {
        if self.room_left() >= bytes {
            return Ok(());
        }
        self.ask_for_room();
        Err(Refusal::StorageFailed)
    }

    /// Whether lines wait until the log has said whether there is more room: only a full disk refuses.
    fn waits_for_room(&mut self) -> bool {
        if self.is_disk_full || self.room_left() >= limits::LINE_ROOM_BYTES {
            return false;
        }
        self.ask_for_room();
        true
    }

    fn ask_for_room(&mut self) {
        if !self.asked_for_room {
            self.asked_for_room = true;
            self.outputs.push_back(Output::AskForRoom);
        }
    }

    /// Answers a message that was sent, to a client that speaks JSON; all else is for the general way.
    fn answer_message(&mut self, key: ConnectionKey, id: Option<&Id>, command: &Command, now: Now) -> bool {
        let (to, group) = match command {
            Command::MessageTo { to, .. } => (Some(*to), None),
            Command::GroupMessage { group, .. } => (None, Some(*group)),
            _ => return false,
        };
        if !self.speaks_json(key) {
            return false;
        }
        let (seq, ts) = (Some(self.state.seq), Some(self.log_form.of(now.at)));
        let online = to.map(|to| self.state.is_online(to));
        self.tell_short(
            key,
            &ShortAnswer { id, command: command.word(), seq, ts, to, online, group, ..ShortAnswer::default() },
        );
        true
    }

    /// The answer to a command that was carried out.
    fn answer(&mut self, key: ConnectionKey, id: Option<Id>, who: &Session, command: &Command, now: Now) -> Answer {
        let (seq, ts) = (Some(self.state.seq), Some(now.at));
        let answer = Answer { id, command: command.word().to_owned(), ..Answer::default() };
        match command {
            Command::MessageTo { to, .. } => {
                Answer { seq, ts, to: Some(*to), online: Some(self.state.is_online(*to)), ..answer }
            }
            Command::GroupMessage { group, .. } | Command::LeaveGroup { group } => {
                Answer { seq, ts, group: Some(*group), ..answer }
            }
            Command::CreateGroup { group, .. } | Command::Invite { group, .. } | Command::JoinGroup { group } => {
                let known = self.state.groups.get(group);
                let joined = known.map(|known| known.joined.keys().copied().collect());
                let invited = known.map(|known| known.invited.iter().copied().collect());
                Answer { seq, ts, group: Some(*group), joined, invited, ..answer }
            }
            Command::ActiveUsers => {
                self.say_to_operator(&format!("{} issued /activeuser command", who.user));
                let others = self.state.sessions().filter(|(user, _)| *user != who.user);
                Answer { users: Some(others.map(|(user, open)| active_user(user, open)).collect()), ..answer }
            }
            Command::Users => {
                let entry = |user: &UserName| {
                    let online = Some(self.state.is_online(*user));
                    UserEntry { user: *user, since: None, ip: None, udp_port: None, online }
                };
                Answer { users: Some(self.policy.accounts.iter().map(entry).collect()), ..answer }
            }
            Command::Groups => {
                let known = self.state.users.get(&who.user);
                let names = known.into_iter().flat_map(|user| user.groups.union(&user.invitations));
                let entries = names.filter_map(|name| Some(group_entry(*name, self.state.groups.get(name)?)));
                Answer { groups: Some(entries.collect()), ..answer }
            }
            Command::Help => {
                let mut commands: Vec<HelpEntry> = USAGES.iter().map(help_entry).collect();
                if !self.speaks_json(key) {
                    commands.insert(0, help_entry(&LOGIN_USAGE));
                }
                Answer { commands: Some(commands), ..answer }
            }
            Command::History { .. } | Command::Logout => answer,
        }
    }

    /// Answers, unless the answer is longer than a line may be.
    fn tell_checked(&mut self, key: ConnectionKey, answer: Answer) {
        let entries = answer.users.as_ref().map_or(0, Vec::len)
            + answer.joined.as_ref().map_or(0, Vec::len)
            + answer.invited.as_ref().map_or(0, Vec::len)
            + answer.groups.iter().flatten().map(|group| 2 + group.joined.len() + group.invited.len()).sum::<usize>();
        // An entry of a list is at most a name with its quotes, or a session with its moment and address.
        if entries * 160 < SERVER_LINE_BYTES_MAX
            || serde_json::to_vec(&answer).is_ok_and(|line| line.len() < SERVER_LINE_BYTES_MAX - 16)
        {
            self.tell_ok(key, answer);
        } else {
            self.tell_refusal(
                key,
                answer.id,
                &Refusal::LimitReached { limit: "bytes of an answer" },
                Some(&answer.command),
            );
        }
    }
}

/// A line as it is taken from a connection.
#[derive(Clone, Copy)]
enum Line<'a> {
    Cleartext,
    Whole(&'a [u8]),
    TooLong,
    End,
}

/// How the plain dialect logs in.
const LOGIN_USAGE: command::Usage = command::Usage {
    word: "login",
    usage: "/login USER PASSWORD",
    help: "Log in; the password is the rest of the line.",
};

/// `/login USER PASSWORD` of the plain dialect, if the line is one.
fn plain_login(text: &str) -> Option<Result<LoginFrame, Refusal>> {
    let rest = text.trim_start_matches(' ').strip_prefix("/login")?;
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let Some((user, password)) = rest.trim_start_matches(' ').split_once(' ') else {
        return Some(Err(Refusal::Usage { usage: LOGIN_USAGE.usage }));
    };
    Some(Ok(LoginFrame {
        id: None,
        username: user.to_owned(),
        password: Some(password.to_owned()),
        token: None,
        device: None,
        after: None,
        udp_port: None,
        watch: None,
        want_token: None,
    }))
}

fn active_user(user: UserName, open: &OpenSession) -> UserEntry {
    UserEntry { user, since: Some(open.since), ip: Some(open.ip), udp_port: open.udp_port, online: None }
}

fn group_entry(name: crate::names::GroupName, group: &Group) -> GroupEntry {
    GroupEntry {
        group: name,
        creator: group.creator,
        joined: group.joined.keys().copied().collect(),
        invited: group.invited.iter().copied().collect(),
    }
}

fn help_entry(usage: &command::Usage) -> HelpEntry {
    HelpEntry { usage: usage.usage.to_owned(), help: usage.help.to_owned() }
}
