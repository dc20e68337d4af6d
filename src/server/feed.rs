//! Reading the log for clients: the backlog of a login, sessions that fell behind, and answers to `/history`.

use serde_json::value::RawValue;

use crate::chat::{Command, LogoutReason, Place, Refusal, Seq};
use crate::eventlog::event_start;
use crate::protocol::{Answer, Id, ServerFrame};

use super::archive::{Lines, Older};
use super::connection::{Connection, ConnectionKey, Feed, Now};
use super::hub::{Hub, Output, Purpose};
use super::limits;
use super::segment::{Conversation, Owed, Position};

/// A history that has been asked for.
#[derive(Debug)]
pub(super) struct HistoryQuery {
    pub(super) id: Option<Id>,
    pub(super) command: Command,
    pub(super) more: bool,
}

impl Hub {
    /// Lines of the log were read: those that were asked for, in order; or `None` where the disk did not give them.
    pub fn handle_lines(&mut self, key: ConnectionKey, purpose: Purpose, lines: Option<&Lines>, now: Now) {
        match purpose {
            Purpose::CatchUp => self.continue_backlog(key, lines, now),
            Purpose::History => self.answer_history(key, lines, now),
        }
    }

    /// A login is durable and answered: what it is owed follows.
    pub(super) fn begin_backlog(&mut self, key: ConnectionKey, after: Seq, now: Now) {
        if let Some(feed) = self.feed_mut(key) {
            *feed = Feed::CatchingUp { after, reading: false, announce: true };
            self.catch_up(key, now);
        }
    }

    /// Asks for the next lines of a session that is behind, or has it live where there are none.
    pub(super) fn catch_up(&mut self, key: ConnectionKey, now: Now) {
        let Some(connection) = self.connection(key) else { return };
        let Some(logged_in) = connection.logged_in() else { return };
        let Feed::CatchingUp { after, reading: false, announce } = logged_in.feed else { return };
        if connection.output_bytes(&self.outgoing.shared) >= limits::OUTPUT_RESUME_BYTES {
            return;
        }
        let (older, positions) = self.owed(key, after);
        if older.is_some() || !positions.is_empty() {
            if let Some(feed) = self.feed_mut(key) {
                *feed = Feed::CatchingUp { after, reading: true, announce };
            }
            self.outputs.push_back(Output::Read { connection: key, purpose: Purpose::CatchUp, older, positions });
            return;
        }
        let live = ServerFrame::Live { seq: self.durable.seq };
        let speaks_json = self.speaks_json(key);
        let parting = self.connection_mut(key).and_then(Connection::logged_in_mut).and_then(|logged_in| {
            logged_in.feed = Feed::Live;
            logged_in.own.shrink();
            logged_in.parting.take()
        });
        if announce && speaks_json {
            let mut line = Vec::new();
            live.write(&mut line);
            if let Some((connection, _, outgoing)) = self.connection_beside(key) {
                connection.push(&line, outgoing);
            }
            self.touch(key);
        }
        if let Some(parting) = parting {
            self.part(key, *parting, now);
        }
    }

    /// The next lines that a session behind is owed: from closed segments, or, where it is past those, without those
    /// that its own commands have made meanwhile.
    fn owed(&self, key: ConnectionKey, after: Seq) -> (Option<Older>, Vec<Position>) {
        let Some(logged_in) = self.connection(key).and_then(Connection::logged_in) else { return (None, Vec::new()) };
        let Some((user, known)) = self.state.users.get_index(logged_in.user as usize) else {
            return (None, Vec::new());
        };
        let session = known.sessions.iter().find(|open| open.id == logged_in.session);
        let watch_after = session.filter(|_| logged_in.watch).map(|open| open.login_seq);
        let mut owed = Owed::new(&self.state, *user, after, watch_after);
        let through = self.index.first() - 1;
        if after < through {
            return (Some(Older::Owed { owed, through }), Vec::new());
        }
        loop {
            let (events_max, bytes_max) = (limits::CATCH_UP_EVENTS_MAX, limits::CATCH_UP_BYTES_MAX);
            let mut positions = self.index.owed(&owed, events_max, bytes_max);
            let Some(last) = positions.last().map(|position| position.seq) else { return (None, positions) };
            positions.retain(|position| logged_in.own.as_slice().binary_search(&position.seq).is_err());
            if !positions.is_empty() {
                return (None, positions);
            }
            owed.after = last;
        }
    }

    fn continue_backlog(&mut self, key: ConnectionKey, lines: Option<&Lines>, now: Now) {
        let Some(lines) = lines else {
            self.end_session(key, LogoutReason::Disconnected, now);
            self.close_with(key, &Refusal::LogUnreadable);
            return;
        };
        let Some((connection, state, outgoing)) = self.connection_beside(key) else { return };
        let was_full = connection.is_full(&outgoing.shared);
        let own: Option<Vec<Seq>> =
            connection.logged_in_mut().map(|logged_in| logged_in.own.drain_through(lines.last).collect());
        let own = own.unwrap_or_default();
        for line in lines.bytes.split_inclusive(|byte| *byte == b'\n') {
            if own.is_empty() || event_start(line).is_none_or(|(seq, _)| own.binary_search(&seq).is_err()) {
                connection.push_event(line, state, outgoing);
            }
        }
        if let Some(Feed::CatchingUp { after, reading, .. }) = self.feed_mut(key) {
            *after = lines.last;
            *reading = false;
        }
        self.touch(key);
        self.catch_up(key, now);
        if was_full && !self.is_full(key) {
            self.process(key, now);
        }
    }

    /// Takes up a `/history`: later lines wait until it is answered.
    pub(super) fn start_history(&mut self, key: ConnectionKey, id: Option<Id>, command: Command) {
        self.histories.insert(key, HistoryQuery { id, command, more: false });
        if let Some(connection) = self.connection_mut(key) {
            connection.busy = true;
        }
        self.then_history(key);
    }

    /// All that a history may hold is durable: asks for its lines.
    pub(super) fn begin_history(&mut self, key: ConnectionKey) {
        let Some(session) = self.session(key) else { return };
        let Some(query) = self.histories.get_mut(&key) else { return };
        let Command::History { place, count, before } = &query.command else { return };
        let last = self.state.history_span(&self.policy, &session, *place).unwrap_or(0);
        let conversation = match place {
            Place::User(user) => Conversation::private(session.user, *user),
            Place::Group(group) => Conversation::Group(*group),
        };
        let below = before.unwrap_or(Seq::MAX).min(last.saturating_add(1));
        let bytes_max = limits::HISTORY_BYTES_MAX;
        let (positions, more) = self.index.newest(conversation, below, *count, bytes_max);
        query.more = more;
        let bytes: usize = positions.iter().map(|position| position.length as usize).sum();
        let (count, bytes_max) = (*count - positions.len(), bytes_max - bytes);
        let below = below.min(self.index.first());
        let older = (!more && below > 1).then_some(Older::History { conversation, below, count, bytes_max });
        self.outputs.push_back(Output::Read { connection: key, purpose: Purpose::History, older, positions });
    }

    fn answer_history(&mut self, key: ConnectionKey, lines: Option<&Lines>, now: Now) {
        let Some(query) = self.histories.remove(&key) else { return };
        if self.is_over(key) {
            return;
        }
        let events = lines.map(|lines| {
            let events = lines.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let events = events.filter_map(|line| serde_json::from_slice::<Box<RawValue>>(line).ok()).collect();
            (events, query.more || lines.more)
        });
        match events {
            Some((events, more)) => {
                let command = query.command.word().to_owned();
                let (events, more) = (Some(events), Some(more));
                self.tell_ok(key, Answer { id: query.id, command, events, more, ..Answer::default() });
            }
            None => self.tell_refusal(key, query.id, &Refusal::LogUnreadable, Some(query.command.word())),
        }
        self.go_on(key, now);
    }
}
