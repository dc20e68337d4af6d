//! Telling: every event and answer waits in the batch of what it was decided on, and goes out when that is durable.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::chat::{Event, Refusal, Seq};
use crate::clock::Timestamp;
use crate::names::UserName;
use crate::protocol::{Answer, ErrorAnswer, Id, ServerFrame, ShortAnswer, sentence};

use super::connection::{Connection, ConnectionKey, Dialect, Feed, Now, Phase};
use super::hub::{Hub, Output};
use super::limits;
use super::pending::{Delivery, Pending};
use super::segment::Position;
use super::shared::narrow;

impl Hub {
    /// Applies decided events and puts them into the open batch, with what each receiver is to be told. The
    /// connection whose command made them gets none: its answer says it.
    pub(super) fn commit(&mut self, events: &[Event], origin: Option<ConnectionKey>, now: Now) {
        // The log's times never fall, whatever the shell says.
        let now_at = now.at.max(self.state.at);
        let at = self.log_form.of(now_at);
        for event in events {
            let seq = self.state.seq + 1;
            self.state.apply(seq, now_at, event);
            self.index.add(&self.state, event);
            let pending = &mut self.open;
            if !pending.has_events() {
                pending.first = seq;
            }
            pending.at = now_at;
            let start = pending.lines.len();
            event.encode_at(seq, &at, &mut pending.lines);
            pending.lines.push(b'\n');
            let place = narrow(pending.ends.len());
            pending.ends.push(narrow(pending.lines.len()));
            pending.bytes += (pending.lines.len() - start) as u64;
            let durable_seq = self.durable.seq;
            if let Some(logged_in) = origin.and_then(|key| self.connection_mut(key)?.logged_in_mut()) {
                logged_in.note_own(seq, durable_seq);
            }
            self.address(event, place, origin);
            self.tell_operator(event, now_at);
        }
    }

    /// Queues an event for everybody it is pushed to.
    fn address(&mut self, event: &Event, place: u32, origin: Option<ConnectionKey>) {
        let Self { state, present, watchers, open, .. } = self;
        match event {
            Event::GroupMessage { group, .. } => {
                open.tell_audience(present.of_members(state, *group), origin, place);
                return;
            }
            Event::GroupJoined { .. } | Event::GroupLeft { .. } | Event::GroupCreated { .. } => {
                present.forget_audiences();
            }
            _ => {}
        }
        let mut to_connection = |to: ConnectionKey| {
            if Some(to) != origin {
                open.deliveries.push(Delivery::Event { to, place });
            }
        };
        let mut to_user = |user: UserName| {
            present.of(state, user).iter().copied().for_each(&mut to_connection);
        };
        match event {
            Event::Message { from, to, .. } | Event::TransferOffered { from, to, .. } => {
                to_user(*to);
                if from != to {
                    to_user(*from);
                }
            }
            Event::GroupCreated { by, invited, .. } => {
                invited.iter().copied().for_each(&mut to_user);
                to_user(*by);
            }
            Event::GroupJoined { group, .. } => {
                state.groups.get(group).into_iter().flat_map(|group| group.joined.keys().copied()).for_each(to_user);
            }
            Event::GroupInvited { group, invited, .. } => {
                let joined = state.groups.get(group).into_iter().flat_map(|group| group.joined.keys());
                joined.chain(invited).copied().for_each(to_user);
            }
            Event::GroupLeft { group, user, .. } => {
                let joined = state.groups.get(group).into_iter().flat_map(|group| group.joined.keys());
                joined.chain([user]).copied().for_each(to_user);
            }
            Event::TransferAnswered { transfer, .. } | Event::TransferEnded { transfer, .. } => {
                if let Some(known) = state.transfers.get(transfer) {
                    to_user(known.from);
                    if known.from != known.to {
                        to_user(known.to);
                    }
                }
            }
            Event::Login { .. } | Event::Logout { .. } => watchers.iter().copied().for_each(to_connection),
            Event::LoginFailed { .. }
            | Event::UserBlocked { .. }
            | Event::KeyBound { .. }
            | Event::Erasure { .. }
            // It stands in closed segments only, and is never decided.
            | Event::Erased { .. }
            | Event::ServerStarted { .. }
            | Event::ServerStopped { .. }
            // To its audience, above.
            | Event::GroupMessage { .. } => {}
        }
    }

    /// Answers `ok`.
    pub(super) fn tell_ok(&mut self, key: ConnectionKey, answer: Answer) {
        match self.connection(key).map(|connection| connection.dialect) {
            Some(Some(Dialect::Plain)) => {
                self.tell(key, format!("{}\n", sentence::answer(&answer, Timestamp::to_local_words)).as_bytes());
            }
            Some(_) => self.tell_frame(key, &ServerFrame::Ok(answer)),
            None => {}
        }
    }

    /// Answers with an error, or, where the command was carried out before, with `ok`.
    pub(super) fn tell_refusal(
        &mut self,
        key: ConnectionKey,
        id: Option<Id>,
        refusal: &Refusal,
        command: Option<&str>,
    ) {
        if let Refusal::Duplicate { made } = refusal {
            let answer = Answer {
                id,
                command: command.unwrap_or_default().to_owned(),
                duplicate: Some(true),
                seq: made.map(|(seq, _)| seq),
                ts: made.map(|(_, at)| at),
                ..Answer::default()
            };
            self.tell_ok(key, answer);
            return;
        }
        let message = sentence::refusal(refusal, command);
        if self.connection(key).is_some_and(|connection| connection.dialect == Some(Dialect::Plain)) {
            self.tell(key, format!("{message}\n").as_bytes());
            return;
        }
        let mut error = ErrorAnswer { id, code: refusal.code().to_owned(), message, ..ErrorAnswer::default() };
        match refusal {
            Refusal::BadCredentials { attempts_left } => error.attempts_left = Some(*attempts_left),
            Refusal::Blocked { retry_after_ms, .. } => error.retry_after_ms = Some(*retry_after_ms),
            Refusal::Usage { usage } => error.usage = Some((*usage).to_owned()),
            Refusal::OutOfOrder { expected } => error.expected = Some(*expected),
            Refusal::LimitReached { limit } => error.limit = Some((*limit).to_owned()),
            _ => {}
        }
        self.tell_frame(key, &ServerFrame::Error(error));
    }

    /// Queues a frame for a JSON connection, behind everything decided so far.
    pub(super) fn tell_frame(&mut self, key: ConnectionKey, frame: &ServerFrame) {
        self.note(key, |notes| frame.write(notes));
    }

    /// Queues the answer to a message for a JSON connection, as [`Hub::tell_frame`] would.
    pub(super) fn tell_short(&mut self, key: ConnectionKey, answer: &ShortAnswer<'_>) {
        self.note(key, |notes| answer.write(notes));
    }

    fn tell(&mut self, key: ConnectionKey, text: &[u8]) {
        self.note(key, |notes| notes.extend_from_slice(text));
    }

    /// Queues what `write` appends.
    fn note(&mut self, key: ConnectionKey, write: impl FnOnce(&mut Vec<u8>)) {
        let is_late = self.in_flight.is_some() && !self.open.has_events();
        let pending = self.newest_pending();
        let start = pending.notes.len();
        write(&mut pending.notes);
        let end = pending.notes.len();
        pending.late_bytes += if is_late { end - start } else { 0 };
        let (start, end) = (narrow(start), narrow(end));
        pending.deliveries.push(Delivery::Note { to: key, start, end });
    }

    /// Closes a connection behind everything it has been told.
    pub(super) fn then_close(&mut self, key: ConnectionKey) {
        self.newest_pending().deliveries.push(Delivery::Close { to: key });
    }

    /// Lets the backlog of a login begin behind its answer.
    pub(super) fn then_backlog(&mut self, key: ConnectionKey, after: Seq) {
        self.newest_pending().deliveries.push(Delivery::Backlog { to: key, after });
    }

    /// Reads a history once all that it may hold is durable.
    pub(super) fn then_history(&mut self, key: ConnectionKey) {
        self.newest_pending().deliveries.push(Delivery::History { to: key });
    }

    /// The batch that holds the newest decided event: what is told now waits for it and for no later one.
    fn newest_pending(&mut self) -> &mut Pending {
        match &mut self.in_flight {
            Some(in_flight) if !self.open.has_events() => in_flight,
            _ => &mut self.open,
        }
    }

    /// At the end of a turn: gives the open batch to the log if that is free, or delivers what waits for nothing.
    pub(super) fn finish_turn(&mut self, now: Now) {
        if self.in_flight.is_some() {
            return;
        }
        if !self.open.has_events() {
            // What is delivered may tell more; it is delivered in the same turn, once there is room for it.
            while !self.open.deliveries.is_empty() && !self.is_output_full() {
                let pending = self.take_open();
                self.release(pending, now);
                self.take_up_held(now);
                if self.open.has_events() {
                    break;
                }
            }
            if !self.open.has_events() {
                return;
            }
        }
        let mut pending = self.take_open();
        self.outputs.push_back(Output::Append {
            lines: std::mem::take(&mut pending.lines),
            first: pending.first,
            last: pending.last(),
            at: pending.at,
        });
        self.in_flight = Some(pending);
    }

    fn take_open(&mut self) -> Pending {
        std::mem::replace(&mut self.open, std::mem::take(&mut self.spare_batch))
    }

    /// The log has made the batch durable that it was last given.
    ///
    /// `lines` is the batch's buffer; its first line stands at `offset` of `segment`. `root` is the tree's root behind
    /// it, and `room_bytes` what the log surely takes yet.
    pub fn handle_durable(
        &mut self,
        lines: Vec<u8>,
        segment: Seq,
        offset: u64,
        root: String,
        room_bytes: u64,
        now: Now,
    ) {
        let mut pending = self.in_flight.take().expect("the log answers only for the batch it was given");
        self.room_bytes = room_bytes;
        let mut start = 0;
        for (seq, end) in (pending.first..).zip(&pending.ends) {
            let position = Position { seq, segment, offset: offset + u64::from(start), length: end - start };
            start = *end;
            if let Some(closed) = self.index.place(position) {
                self.outputs.push_back(Output::Archive(closed));
            }
        }
        self.durable.seq = pending.last();
        self.durable.root = root;
        self.durable.at = pending.at;
        pending.lines = lines;
        self.release(pending, now);
        self.take_up_held(now);
    }

    /// All events up to one are archived: what closed segments hold is no longer kept in memory.
    pub fn handle_archived(&mut self, through: Seq) {
        self.index.forget(through);
    }

    /// The log says how much it surely takes, after it was asked for more.
    pub fn handle_room(&mut self, room_bytes: u64, now: Now) {
        self.room_bytes = room_bytes;
        self.asked_for_room = false;
        self.is_disk_full = self.room_left() < limits::LINE_ROOM_BYTES;
        self.take_up_held(now);
    }

    /// Goes on with the connections whose lines had to wait for the log.
    fn take_up_held(&mut self, now: Now) {
        for key in std::mem::take(&mut self.held) {
            self.process(key, now);
        }
    }

    /// How many bytes of events may still be decided on.
    pub(super) fn room_left(&self) -> u64 {
        let in_flight = self.in_flight.as_ref().map_or(0, |pending| pending.bytes);
        let reserved = limits::RESERVE_BYTES + self.session_count * limits::RESERVE_SESSION_BYTES;
        self.room_bytes.saturating_sub(in_flight + self.open.bytes + reserved)
    }

    fn release(&mut self, mut pending: Pending, now: Now) {
        if !pending.console.is_empty() {
            self.outputs.push_back(Output::Console(std::mem::take(&mut pending.console)));
        }
        let (lines, notes) = self.outgoing.shared.begin(&mut pending.lines, &mut pending.notes);
        let mut deliveries = std::mem::take(&mut pending.deliveries);
        for delivery in deliveries.drain(..) {
            match delivery {
                Delivery::Event { to, place } => {
                    self.deliver_event(to, pending.first + Seq::from(place), behind(lines, pending.line(place)));
                }
                Delivery::Audience { audience, except, place } => {
                    let (seq, line) = (pending.first + Seq::from(place), behind(lines, pending.line(place)));
                    for to in pending.audiences[audience as usize].iter().filter(|to| Some(**to) != except) {
                        self.deliver_event(*to, seq, line.clone());
                    }
                }
                Delivery::Note { to, start, end } => {
                    let Some((connection, _, outgoing)) = self.connection_beside(to) else { continue };
                    connection.tell_note(behind(notes, start as usize..end as usize), outgoing);
                    self.touch_answered(to);
                }
                Delivery::Backlog { to, after } => self.begin_backlog(to, after, now),
                Delivery::History { to } => self.begin_history(to),
                Delivery::Close { to } => self.begin_closing(to, now.tick),
            }
        }
        pending.deliveries = deliveries;
        // Not put off by what comes meanwhile: where there is still much to do they grow again, once a second.
        if self.shrink_at.is_none() && (self.outgoing.shared.is_large() || pending.is_large()) {
            self.shrink_at = Some(now.tick + Duration::from_millis(limits::SPARE_BATCH_MS));
        }
        self.spare_batch = pending.emptied();
    }

    /// Gives back what batches have grown to.
    pub(super) fn shrink_batches(&mut self, now: Instant) {
        self.shrink_at = None;
        self.spare_batch.shrink();
        self.open.shrink();
        self.outgoing.shared.shrink();
        if self.outgoing.shared.is_large() {
            // Something in it is still to be sent.
            self.shrink_at = Some(now + Duration::from_millis(limits::SPARE_BATCH_MS));
        }
    }

    fn deliver_event(&mut self, to: ConnectionKey, seq: Seq, line: Range<usize>) {
        let Some((connection, state, outgoing)) = self.connection_beside(to) else { return };
        // Room is left for the answer that is being made.
        let bytes_max = if connection.busy { limits::OUTPUT_COMMAND_BYTES_MAX } else { limits::OUTPUT_BYTES_MAX };
        let full = connection.output_bytes(&outgoing.shared) >= bytes_max;
        let logged_in = match &mut connection.phase {
            Phase::LoggedIn(logged_in) => logged_in,
            // It was decided before the session ended: what comes later is told to others.
            Phase::Ended { live: Some(_) } if !full => {
                connection.tell_event(line, state, outgoing);
                return self.touch(to);
            }
            _ => return,
        };
        if logged_in.feed != Feed::Live {
            // The log has it, and a session that is catching up gets it from there.
            return;
        }
        if full {
            logged_in.feed = Feed::CatchingUp { after: seq - 1, reading: false, announce: false };
            return;
        }
        connection.tell_event(line, state, outgoing);
        self.touch(to);
    }

    /// A line for the operator: who did what, and of private messages only between whom.
    fn tell_operator(&mut self, event: &Event, at: Timestamp) {
        if self.console_has_room() {
            let mut words = std::mem::take(&mut self.console_words);
            let with_texts = self.options.console_texts;
            super::console::tell(event, at, &mut words, with_texts, self.console());
            self.console_words = words;
        }
    }

    /// Adds a line to the operator's console, behind everything decided so far.
    pub(super) fn say_to_operator(&mut self, line: &str) {
        if self.console_has_room() {
            let console = self.console();
            console.extend_from_slice(line.as_bytes());
            console.push(b'\n');
        }
    }

    /// The lines for the operator so far, how many were skipped among them.
    fn console(&mut self) -> &mut Vec<u8> {
        let skipped = std::mem::take(&mut self.console_skipped_lines);
        let console = &mut self.newest_pending().console;
        if skipped > 0 {
            console.extend_from_slice(format!("({skipped} lines skipped)\n").as_bytes());
        }
        console
    }

    /// Whether the console takes a line; one that it does not is counted.
    fn console_has_room(&mut self) -> bool {
        let has_room = self.newest_pending().console.len() < self.console_room_bytes;
        self.console_skipped_lines += u64::from(!has_room);
        has_room
    }

    /// Whether a connection's language is JSON.
    pub(super) fn speaks_json(&self, key: ConnectionKey) -> bool {
        self.connection(key).is_some_and(|connection: &Connection| connection.dialect == Some(Dialect::Json))
    }
}

/// A range of bytes that stand behind others.
fn behind(others: usize, bytes: Range<usize>) -> Range<usize> {
    others + bytes.start..others + bytes.end
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::chat::{Policy, State};
    use crate::server::hub::HubOptions;
    use crate::server::index::Index;
    use crate::server::segment::Segment;

    /// A hub on an empty log that nobody has an account of.
    pub(in super::super) fn hub(start: Now) -> Hub {
        let options = HubOptions {
            log: uuid::Uuid::nil(),
            commands_per_second: 0,
            allow_cleartext: false,
            connections_max: 1_000,
            console_texts: false,
        };
        let policy = Policy { failures_max: 3, accounts: crate::names::NameSet::default() };
        let (state, index) = (State::default(), Index::new(Segment::new(1)));
        Hub::new(options, policy, state, index, String::new(), u64::MAX, start)
    }

    #[test]
    fn times_do_not_fall_though_the_shell_s_do() {
        let at = |ms| Now { at: Timestamp::from_ms(ms), tick: crate::clock::monotonic() };
        let mut hub = hub(at(5_000));
        for ms in [5_002, 5_001, 4_000, 5_003] {
            hub.commit(&[Event::ServerStopped { version: String::new() }], None, at(ms));
        }
        let Some(Output::Archive(_)) = hub.poll_output(at(5_000)) else { panic!() };
        let Some(Output::Append { lines, at, .. }) = hub.poll_output(at(5_000)) else { panic!() };
        let times: Vec<u64> = lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| Event::decode(line).unwrap().at.as_ms())
            .collect();
        assert_eq!(times, [5_000, 5_002, 5_002, 5_002, 5_003]);
        assert_eq!(at.as_ms(), 5_003);
    }

    #[test]
    fn what_a_batch_has_grown_to_is_given_back_though_others_follow() {
        let start = Now { at: Timestamp::from_ms(1), tick: crate::clock::monotonic() };
        let mut hub = hub(start);
        let mut offset = 0;
        let mut turn = |hub: &mut Hub, version_bytes: usize, now: Now| {
            if version_bytes > 0 {
                hub.commit(&[Event::ServerStopped { version: "x".repeat(version_bytes) }], None, now);
            }
            while let Some(output) = hub.poll_output(now) {
                if let Output::Append { lines, .. } = output {
                    let at = offset;
                    offset += lines.len() as u64;
                    hub.handle_durable(lines, 1, at, String::new(), u64::MAX, now);
                }
            }
            hub.handle_timeout(now);
        };
        let is_large = |hub: &Hub| hub.outgoing.shared.is_large() || hub.spare_batch.is_large() || hub.open.is_large();
        turn(&mut hub, 0, start);
        assert!(!is_large(&hub));
        turn(&mut hub, 10 * limits::SPARE_BATCH_BYTES_MAX, start);
        assert!(is_large(&hub));
        let mut now = start;
        // A small one every half second, for as long as it takes for each buffer to come round.
        for _ in 0..20 {
            now = Now { tick: now.tick + Duration::from_millis(limits::SPARE_BATCH_MS / 2), ..now };
            turn(&mut hub, 10, now);
        }
        assert!(!is_large(&hub));
    }
}
