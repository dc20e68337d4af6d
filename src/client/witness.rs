//! The client as a witness: it asks for the head of the server's log, keeps it, and says when the log is not what it was.

use std::time::{Duration, Instant};

use super::app::App;
use super::contract::{Keep, Show};
use super::heads::SeenHead;
use super::limits;
use super::requests::Request;
use crate::protocol::{Answer, ClientFrame};

impl App {
    /// Asks for the head now, and again after a while.
    pub(super) fn watch_head(&mut self, now: Instant) {
        self.head_due = Some(now + Duration::from_millis(limits::HEAD_EVERY_MS));
        self.ask_for_head();
    }

    pub(super) fn ask_for_head(&mut self) {
        self.write(&ClientFrame::Ping { id: None });
        self.awaiting.push_back(Request::Head);
    }

    pub(super) fn handle_head(&mut self, answer: &Answer) {
        let (Some(log), Some(seq), Some(root)) = (self.log, answer.seq, answer.root.clone()) else { return };
        // A log without events has nothing that could be changed.
        let Some(head) = SeenHead::new(log, seq, root).filter(|head| head.seq > 0) else { return };
        match self.heads.judge(&head) {
            Ok(true) => {
                self.heads.add(head.clone());
                self.keep(Keep::Head(head));
            }
            Ok(false) => {}
            // What was seen stays as evidence.
            Err(contradiction) if !std::mem::replace(&mut self.has_told_contradiction, true) => {
                self.show(Show::Trouble(format!(
                    "{contradiction}. Ask who runs it; `messenger replay --verify --heads` with the file of heads in \
                     this client's state shows since when."
                )));
            }
            Err(_) => {}
        }
    }
}
