//! Reading the log for clients: the backlog of a login, sessions that fell behind, and answers to `/history`.

use std::collections::VecDeque;

use serde_json::value::RawValue;

use crate::chat::{Command, Place, Refusal, Seq};
use crate::protocol::{Answer, Id, ServerFrame};

use super::connection::{Connection, ConnectionKey, Feed, Now};
use super::hub::{Hub, Output, Purpose};
use super::index::{Conversation, Position};
use super::limits;

/// A history that has been asked for.
#[derive(Debug)]
pub(super) struct HistoryQuery {
    pub(super) id: Option<Id>,
    pub(super) command: Command,
    pub(super) more: bool,
}

impl Hub {
    /// Lines of the log were read: those that were asked for, in order, each with its line feed; or `None` where the
    /// disk did not give them.
    pub fn handle_lines(&mut self, key: ConnectionKey, purpose: Purpose, lines: Option<&[u8]>, last: Seq, now: Now) {
        match purpose {
            Purpose::CatchUp => self.continue_backlog(key, lines, last, now),
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
        if connection.output().len() >= limits::OUTPUT_RESUME_BYTES {
            return;
        }
        let Some(logged_in) = connection.logged_in() else { return };
        let Feed::CatchingUp { after, reading: false, announce } = logged_in.feed else { return };
        let positions = self.owed(key, after);
        if !positions.is_empty() {
            if let Some(feed) = self.feed_mut(key) {
                *feed = Feed::CatchingUp { after, reading: true, announce };
            }
            self.outputs.push_back(Output::Read { connection: key, purpose: Purpose::CatchUp, positions });
            return;
        }
        let live = ServerFrame::Live { seq: self.durable.seq };
        let speaks_json = self.speaks_json(key);
        let parting = self.connection_mut(key).and_then(Connection::logged_in_mut).and_then(|logged_in| {
            logged_in.feed = Feed::Live;
            logged_in.own = VecDeque::new();
            logged_in.parting.take()
        });
        if announce && speaks_json {
            let mut line = Vec::new();
            live.write(&mut line);
            if let Some(connection) = self.connection_mut(key) {
                connection.push(&line);
            }
            self.touch(key);
        }
        if let Some(parting) = parting {
            self.part(key, parting, now);
        }
    }

    /// The next lines that a session behind is owed: without those that its own commands have made meanwhile.
    fn owed(&self, key: ConnectionKey, mut after: Seq) -> Vec<Position> {
        let Some(logged_in) = self.connection(key).and_then(Connection::logged_in) else { return Vec::new() };
        let watch_after = logged_in.watch.then_some(logged_in.login_seq);
        let user = logged_in.session.user;
        loop {
            let (events_max, bytes_max) = (limits::CATCH_UP_EVENTS_MAX, limits::CATCH_UP_BYTES_MAX);
            let mut positions = self.index.owed(&self.state, user, after, watch_after, events_max, bytes_max);
            let Some(last) = positions.last().map(|position| position.seq) else { return positions };
            positions.retain(|position| logged_in.own.binary_search(&position.seq).is_err());
            if !positions.is_empty() {
                return positions;
            }
            after = last;
        }
    }

    fn continue_backlog(&mut self, key: ConnectionKey, lines: Option<&[u8]>, last: Seq, now: Now) {
        let Some(lines) = lines else {
            self.close_with(key, &Refusal::StorageFailed);
            return;
        };
        let Some(connection) = self.connection_mut(key) else { return };
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            connection.push_event(line);
        }
        if let Some(Feed::CatchingUp { after, reading, .. }) = self.feed_mut(key) {
            *after = last;
            *reading = false;
        }
        self.touch(key);
        self.catch_up(key, now);
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
        let (positions, more) = self.index.newest(conversation, last, *before, *count, limits::HISTORY_BYTES_MAX);
        query.more = more;
        self.outputs.push_back(Output::Read { connection: key, purpose: Purpose::History, positions });
    }

    fn answer_history(&mut self, key: ConnectionKey, lines: Option<&[u8]>, now: Now) {
        let Some(query) = self.histories.remove(&key) else { return };
        if self.is_over(key) {
            return;
        }
        let events = lines.map(|lines| {
            let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.filter_map(|line| serde_json::from_slice::<Box<RawValue>>(line).ok()).collect()
        });
        match events {
            Some(events) => {
                let command = query.command.word().to_owned();
                let (events, more) = (Some(events), Some(query.more));
                self.tell_ok(key, Answer { id: query.id, command, events, more, ..Answer::default() });
            }
            None => self.tell_refusal(key, query.id, &Refusal::StorageFailed, Some(query.command.word())),
        }
        self.go_on(key, now);
    }
}
