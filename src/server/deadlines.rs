//! What falls due on a connection: the greeting, silence, the end of a pause, the end of a farewell.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use crate::chat::{LogoutReason, Refusal};

use super::connection::{ConnectionKey, Dialect, Now, Phase, Touched};
use super::hub::{Hub, Output};
use super::limits;

impl Hub {
    /// Deadlines may have passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(Reverse((due, key))) = self.timers.peek().copied() {
            if due > now.tick {
                break;
            }
            self.timers.pop();
            let Some(connection) = self.connection_mut(key).filter(|connection| connection.timer == Some(due)) else {
                continue;
            };
            connection.timer = None;
            self.handle_connection_timeout(key, now);
        }
        self.lapse_transfers(now);
        if self.shrink_at.is_some_and(|due| due <= now.tick) {
            self.shrink_batches(now.tick);
        }
    }

    /// When [`Hub::handle_timeout`] is next due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let connection = self.timers.peek().map(|Reverse((due, _))| *due);
        let offer = self.lapsing.peek().map(|Reverse((due, _))| *due);
        connection.into_iter().chain(offer).chain(self.shrink_at).min()
    }

    fn handle_connection_timeout(&mut self, key: ConnectionKey, now: Now) {
        let Some(connection) = self.connection_mut(key) else { return };
        let idle_since = connection.last_life;
        match &connection.phase {
            Phase::Closing { deadline } if *deadline <= now.tick && connection.touched == Touched::Not => {
                self.outputs.push_back(Output::Drop(key));
            }
            Phase::Closing { deadline } => {
                let due = (*deadline).max(now.tick + Duration::from_millis(limits::DRAIN_AGAIN_MS));
                self.schedule(key, due);
            }
            _ if connection.throttled_until.is_some_and(|until| until <= now.tick) => {
                connection.throttled_until = None;
                self.process(key, now);
                self.touch(key);
                self.schedule_next(key, now);
            }
            Phase::Greeting { deadline } if *deadline <= now.tick && !connection.busy => {
                self.close_with(key, &Refusal::NotLoggedIn);
            }
            Phase::Greeting { .. } => self.schedule_next(key, now),
            Phase::Ended { .. } => {}
            Phase::LoggedIn(_) => self.handle_silence(key, now.tick.saturating_duration_since(idle_since), now),
        }
    }

    /// Watches over a logged-in client that may have gone without a word.
    fn handle_silence(&mut self, key: ConnectionKey, silence: Duration, now: Now) {
        let Some((connection, _, outgoing)) = self.connection_beside(key) else { return };
        let spoken_to = connection.dialect == Some(Dialect::Json);
        let server_stopped = connection.busy || connection.throttled_until.is_some();
        if !spoken_to || server_stopped {
            connection.last_life = now.tick;
        } else if silence >= Duration::from_millis(limits::IDLE_CLOSE_MS) && connection.pinged {
            self.end_session(key, LogoutReason::Timeout, now);
            self.close(key);
            return;
        } else if silence >= Duration::from_millis(limits::IDLE_PING_MS) && !connection.pinged {
            connection.pinged = true;
            connection.push(b"{\"type\":\"ping\"}\n", outgoing);
            self.touch(key);
        }
        self.schedule_next(key, now);
    }

    /// Sets the timer for whatever is due next on a connection.
    pub(super) fn schedule_next(&mut self, key: ConnectionKey, now: Now) {
        let Some(connection) = self.connection(key) else { return };
        let after_silence = |ms| connection.last_life + Duration::from_millis(ms);
        let due = match &connection.phase {
            Phase::Greeting { deadline } | Phase::Closing { deadline } => *deadline,
            Phase::Ended { .. } => return,
            Phase::LoggedIn(_) if connection.pinged => after_silence(limits::IDLE_CLOSE_MS),
            Phase::LoggedIn(_) => after_silence(limits::IDLE_PING_MS),
        };
        let due = connection.throttled_until.map_or(due, |until| until.min(due));
        self.schedule(key, due.max(now.tick + Duration::from_millis(1)));
    }

    /// Has [`Hub::handle_connection_timeout`] called for a connection at `due` or before.
    pub(super) fn schedule(&mut self, key: ConnectionKey, due: Instant) {
        let Some(connection) = self.connection_mut(key) else { return };
        if connection.timer.is_none_or(|timer| due < timer) {
            connection.timer = Some(due);
            self.timers.push(Reverse((due, key)));
        }
    }

    /// Begins to shut a connection: from now on only its output matters.
    pub(super) fn begin_closing(&mut self, key: ConnectionKey, now: Instant) {
        let deadline = now + Duration::from_millis(limits::DRAIN_MS);
        if let Some(connection) = self.connection_mut(key) {
            connection.phase = Phase::Closing { deadline };
            connection.throttled_until = None;
        }
        self.schedule(key, deadline);
        self.touch(key);
    }
}
