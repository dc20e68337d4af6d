//! The connection's life as the core sees it: wanted, up, silent, lost, tried again.

use std::time::{Duration, Instant};

use super::app::{App, Leaving, Phase};
use super::contract::{Ending, Output, Show};
use super::limits;
use super::requests::Request;
use super::transfers::Transfer;
use crate::protocol::ClientFrame;

/// Where the connection stands.
#[derive(Debug)]
enum Stand {
    /// Down, and not wanted before the user has said who to log in.
    Unwanted,
    /// Down, to be tried again at a moment.
    Down(Instant),
    /// Being made.
    Connecting,
    /// There.
    Up {
        last_life: Instant,
        pinged_at: Option<Instant>,
        /// When the answer to a login must be there.
        login_by: Option<Instant>,
        is_logged_in: bool,
    },
}

/// The connection to the server.
#[derive(Debug)]
pub(super) struct Link {
    stand: Stand,
    /// Since when it has been away, after it was there.
    lost_at: Option<Instant>,
    /// Attempts since the last good login.
    attempts: u32,
    /// Whether there has been a good login.
    pub(super) has_logged_in: bool,
    /// The server asked for patience until then.
    not_before: Option<Instant>,
    random: u64,
}

impl Link {
    /// A connection that is wanted at once.
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        Self {
            stand: Stand::Down(now),
            lost_at: None,
            attempts: 0,
            has_logged_in: false,
            not_before: None,
            random: seed | 1,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.stand, Stand::Up { .. })
    }

    pub(super) fn is_logged_in(&self) -> bool {
        matches!(self.stand, Stand::Up { is_logged_in: true, .. })
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost_at.is_some()
    }

    /// Something came from the server.
    pub(super) fn note_life(&mut self, now: Instant) {
        if let Stand::Up { last_life, pinged_at, .. } = &mut self.stand {
            *last_life = now;
            *pinged_at = None;
        }
    }

    /// A login was sent.
    pub(super) fn begin_login(&mut self, now: Instant) {
        if let Stand::Up { login_by, .. } = &mut self.stand {
            *login_by = Some(now + Duration::from_millis(limits::LOGIN_MS));
        }
    }

    /// The login was answered.
    pub(super) fn end_login(&mut self, is_good: bool) {
        if let Stand::Up { login_by, is_logged_in, .. } = &mut self.stand {
            *login_by = None;
            *is_logged_in = is_good;
        }
        if is_good {
            self.attempts = 0;
            self.lost_at = None;
            self.has_logged_in = true;
        }
    }

    /// The connection is wanted, if it is not there.
    pub(super) fn want(&mut self, now: Instant) {
        if matches!(self.stand, Stand::Unwanted) {
            self.stand = Stand::Down(now);
        }
    }

    /// When something is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match &self.stand {
            Stand::Down(at) => Some(*at),
            Stand::Up { login_by: Some(at), .. } => Some(*at),
            Stand::Up { pinged_at: Some(at), .. } => Some(*at + Duration::from_millis(limits::SILENCE_DEAD_MS)),
            Stand::Up { last_life, is_logged_in: true, .. } => {
                Some(*last_life + Duration::from_millis(limits::SILENCE_PING_MS))
            }
            _ => None,
        }
    }

    /// The next pause: doubling, and spread so that not all clients of a server come back at once.
    fn pause(&mut self) -> Duration {
        let doubled = limits::RECONNECT_MS << self.attempts.min(10);
        let pause_ms = doubled.min(limits::RECONNECT_MS_MAX);
        self.attempts += 1;
        // Xorshift (Marsaglia, "Xorshift RNGs", 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Duration::from_millis(pause_ms / 2 + self.random % (pause_ms / 2 + 1))
    }
}

impl App {
    /// Whether a connection is to be made now; [`App::handle_connecting`] is owed.
    pub fn wants_connection(&self, now: Instant) -> bool {
        self.ending.is_none() && matches!(self.link.stand, Stand::Down(at) if at <= now)
    }

    /// A connection is being made.
    pub fn handle_connecting(&mut self) {
        self.link.stand = Stand::Connecting;
    }

    /// The connection is there.
    pub fn handle_connected(&mut self, now: Instant) {
        self.clear_buffers();
        self.link.stand = Stand::Up { last_life: now, pinged_at: None, login_by: None, is_logged_in: false };
        match self.phase {
            Phase::Connecting => self.begin_dialogue(),
            Phase::LoggingIn | Phase::Chatting => self.send_login(now),
            Phase::AskName | Phase::AskPassword | Phase::Opening => {}
        }
    }

    /// No address could be connected to; `why` says what the last one answered.
    pub fn handle_connect_failed(&mut self, why: &str, now: Instant) {
        if !self.link.has_logged_in {
            self.show(Show::Trouble(why.to_owned()));
            self.end(Ending::CannotConnect);
            return;
        }
        self.try_again(now);
    }

    /// Whoever answers is not to be spoken to; `why` says why not. It will not be tried again.
    pub fn handle_untrusted(&mut self, why: &str) {
        self.show(Show::Trouble(why.to_owned()));
        self.end(Ending::CannotConnect);
    }

    /// A thing about the connection that its user should know.
    pub fn handle_notice(&mut self, notice: String) {
        self.show(Show::Trouble(notice));
    }

    /// The connection broke or was closed.
    pub fn handle_disconnected(&mut self, now: Instant) {
        if self.ending.is_some() {
            return;
        }
        let was_leaving = self.awaiting.iter().any(|request| matches!(request, Request::Logout));
        self.clear_buffers();
        self.take_back_requests();
        self.is_catching_up = false;
        self.head_due = None;
        if was_leaving || matches!(self.leaving, Some(Leaving::Now(_))) {
            // The goodbye was said; its answer is lost with the connection.
            self.end_by_own_word();
            return;
        }
        match self.phase {
            Phase::Connecting | Phase::AskName | Phase::AskPassword | Phase::Opening => {
                self.link.stand = Stand::Unwanted;
            }
            Phase::LoggingIn if self.link.attempts >= 3 => {
                self.show(Show::Trouble("The server closes every connection before the login is answered.".into()));
                self.end(Ending::CannotConnect);
            }
            Phase::LoggingIn => self.try_again(now),
            Phase::Chatting => {
                if self.link.lost_at.is_none() {
                    self.link.lost_at = Some(now);
                    self.show(Show::Notice("The connection to the server is lost; trying again.".into()));
                }
                self.try_again(now);
            }
        }
    }

    /// Where this client may be reached by peers, as the connection and the engine have it.
    pub fn set_addresses(&mut self, addresses: Vec<std::net::SocketAddr>) {
        self.addresses = addresses;
    }

    /// Tries again after a pause, or gives up where nobody would see it.
    pub(super) fn try_again(&mut self, now: Instant) {
        let pause = self.link.pause();
        let not_before = self.link.not_before.take().unwrap_or(now);
        self.link.stand = Stand::Down(not_before.max(now + pause));
        if self.leaving == Some(Leaving::Asked) {
            self.end_by_own_word();
            return;
        }
        let patience = Duration::from_millis(limits::SCRIPT_PATIENCE_MS);
        let is_over = self.link.lost_at.is_some_and(|lost_at| now.saturating_duration_since(lost_at) >= patience);
        // A transfer that runs needs no server.
        if is_over && !self.options.is_person && !self.transfers.iter().any(Transfer::is_running) {
            let left = self.outbox.len();
            self.show(Show::Trouble(format!("The server does not come back. {}", super::sentences::left_behind(left))));
            self.end(Ending::CannotConnect);
        }
    }

    /// Tries the login again on another connection, after at least `pause_ms`.
    pub(super) fn log_in_later(&mut self, pause_ms: u64, now: Instant) {
        self.link.not_before = Some(now + Duration::from_millis(pause_ms));
        self.outputs.push_back(Output::Disconnect);
    }

    /// Notices a server that has gone without a word.
    pub(super) fn watch_link(&mut self, now: Instant) {
        let is_due = self.link.next_timeout().is_some_and(|due| due <= now);
        match &mut self.link.stand {
            Stand::Up { login_by: Some(_), .. } | Stand::Up { pinged_at: Some(_), .. } if is_due => {
                self.outputs.push_back(Output::Disconnect);
            }
            Stand::Up { pinged_at, .. } if is_due => {
                *pinged_at = Some(now);
                self.write(&ClientFrame::Ping { id: None });
                self.awaiting.push_back(Request::Ping);
            }
            _ => {}
        }
    }
}
