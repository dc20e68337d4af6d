//! What a person does with transfers, and what the engine says of them.

use std::time::{Duration, Instant};

use super::app::App;
use super::contract::{Output, Show, TransferAction};
use super::limits;
use super::requests::{Asked, OWN_USAGES, Request};
use super::transfers::{Receiving, Sending, Side, Transfer};
use crate::chat::{FileOffer, Outcome, TransferPath};
use crate::names::{FormError, TransferId, UserName};
use crate::protocol::{ClientFrame, ReportFrame, sentence};
use crate::transfer::{Failure, TransferEvent};

impl App {
    pub(super) fn take_own_command(&mut self, word: &str, rest: &str) {
        let reply = match word {
            "p2pvideo" => self.share(rest).err(),
            "transfers" if rest.trim().is_empty() => Some(self.tell_transfers()),
            "accept" => self.on_asked(rest, word, Self::accept),
            "decline" => self.on_asked(rest, word, |app, number| app.decline(number, false)),
            "cancel" => match rest.trim().parse() {
                Ok(number) => self.cancel(number),
                Err(_) => Some(usage(word)),
            },
            _ => Some(usage(word)),
        };
        if let Some(reply) = reply {
            self.show(Show::Reply(reply));
        }
    }

    /// The engine has news of a transfer.
    pub fn handle_transfer_event(&mut self, event: TransferEvent, now: Instant) {
        match event {
            TransferEvent::Progress { transfer, done_bytes, total_bytes } => {
                let Some(known) = self.transfers.find_id(transfer) else { return };
                known.done_bytes = done_bytes;
                let (number, name) = (known.number, known.name());
                self.show(Show::Progress { number, name, done_bytes, total_bytes });
            }
            TransferEvent::Done { transfer, bytes, hash, saved_as } => {
                self.finish(transfer, saved_as.map(|path| path.display().to_string()));
                self.report(ReportFrame {
                    bytes: Some(bytes),
                    hash: Some(hash),
                    path: Some(TransferPath::Direct),
                    ..bare_report(transfer, Outcome::Done)
                });
            }
            TransferEvent::Failed { transfer, failure } => self.handle_failure(transfer, &failure, now),
        }
        self.go_on();
    }

    /// Takes up again, after a reconnect, what needs the session: offers went with it.
    pub(super) fn resume_transfers(&mut self) {
        self.signals.retain(|asked| !matches!(asked.request, Request::Offer(_)));
        let mut actions = Vec::new();
        for known in self.transfers.iter_mut() {
            let Side::Sending { path, stage: stage @ Sending::Offered, .. } = &mut known.side else { continue };
            *stage = Sending::Preparing;
            if let Some(transfer) = known.id.take() {
                actions.push(TransferAction::Forget { transfer });
            }
            actions.push(TransferAction::Prepare { number: known.number, path: path.clone() });
        }
        for action in actions {
            self.act(action);
        }
    }

    /// Offers again what is due, and gives up waiting for who does not come back.
    pub(super) fn watch_transfers(&mut self, now: Instant) {
        for number in self.transfers.due(now) {
            let Some(known) = self.transfers.find(number) else { continue };
            match &mut known.side {
                Side::Sending { path, stage, .. } => {
                    *stage = Sending::Preparing;
                    let path = path.clone();
                    self.act(TransferAction::Prepare { number, path });
                }
                Side::Receiving { .. } => {
                    let peer = known.peer;
                    self.fail(number, &format!("{peer} did not come back"));
                }
            }
        }
    }

    /// Gives everything up that is under way.
    pub(super) fn cancel_all_transfers(&mut self) {
        let numbers: Vec<u32> = self.transfers.iter().map(|known| known.number).collect();
        for number in numbers {
            let Some(known) = self.transfers.remove(number) else { continue };
            let Some(transfer) = known.id else { continue };
            if known.is_running() {
                self.act(TransferAction::Cancel { transfer });
            }
            if !known.is_unanswered() {
                self.report(bare_report(transfer, Outcome::Cancelled));
            }
        }
    }

    /// The transfer is done: says so, once.
    pub(super) fn finish(&mut self, transfer: TransferId, saved_as: Option<String>) {
        let Some(known) = self.transfers.remove_id(transfer) else { return };
        let name = known.name();
        self.show(Show::Notice(match (&known.side, saved_as) {
            (Side::Sending { .. }, _) => format!("{name} has been uploaded"),
            (Side::Receiving { .. }, None) => format!("Received {name} from {}", known.peer),
            (Side::Receiving { .. }, Some(path)) => {
                format!("Received {name} from {}\nSaved as {}", known.peer, sentence::visible(&path))
            }
        }));
    }

    /// The transfer is over and the file is not where it should be.
    pub(super) fn fail(&mut self, number: u32, why: &str) {
        let Some(known) = self.transfers.find(number) else { return };
        let (name, peer) = (known.name(), known.peer);
        let why = sentence::visible(why);
        let sentence = match known.side {
            Side::Sending { .. } => format!("{name} was not sent to {peer}: {why}"),
            Side::Receiving { .. } => format!("{name} from {peer} was not received: {why}"),
        };
        self.drop_failed(number, &sentence);
    }

    /// The same, in a sentence of its own.
    pub(super) fn drop_failed(&mut self, number: u32, sentence: &str) {
        if let Some(Transfer { id: Some(transfer), side: Side::Sending { .. }, .. }) = self.transfers.remove(number) {
            self.act(TransferAction::Forget { transfer });
        }
        self.transfers.has_failed = true;
        self.show(Show::Notice(sentence.to_owned()));
    }

    /// Has the sender offer a transfer again that broke; `false` where that was done often enough.
    pub(super) fn offer_again(&mut self, number: u32, why: &str, now: Instant) -> bool {
        let Some(known) = self.transfers.find(number) else { return false };
        let (name, peer) = (known.name(), known.peer);
        let Side::Sending { stage, offers, .. } = &mut known.side else { return false };
        if *offers > limits::OFFERS_AGAIN_MAX {
            return false;
        }
        let pause_ms = limits::OFFER_AGAIN_MS << offers.saturating_sub(1).min(10);
        *stage = Sending::Broken(now + Duration::from_millis(pause_ms));
        self.show(Show::Notice(format!("The transfer of {name} to {peer} broke: {why}; offering it again.")));
        true
    }

    pub(super) fn accept(&mut self, number: u32) -> Option<String> {
        let known = self.transfers.find(number)?;
        let transfer = known.id?;
        let (from, file) = (known.peer, known.file.clone());
        let Side::Receiving { stage, peer, is_offered_again } = &mut known.side else { return None };
        *stage = Receiving::Accepting;
        *is_offered_again = false;
        let (peer_key, addrs) = (peer.key.clone(), peer.addrs.clone());
        self.act(TransferAction::Accept { transfer, from, file, peer_key, addrs });
        None
    }

    pub(super) fn decline(&mut self, number: u32, is_automatic: bool) -> Option<String> {
        let known = self.transfers.remove(number)?;
        self.answer_offer(known.id?, false, is_automatic);
        let because = if is_automatic { " (--accept none)" } else { "" };
        Some(format!("Declined {} from {}{because}.", known.name(), known.peer))
    }

    pub(super) fn report(&mut self, frame: ReportFrame) {
        self.signal(ClientFrame::Transfer(frame.clone()), Request::Report(frame));
    }

    pub(super) fn signal(&mut self, frame: ClientFrame<'static>, request: Request) {
        self.signals.push_back(Asked { frame, request });
    }

    pub(super) fn act(&mut self, action: TransferAction) {
        self.outputs.push_back(Output::Transfer(action));
    }

    fn share(&mut self, rest: &str) -> Result<(), String> {
        let usage = || usage("p2pvideo");
        let (to, path) = rest.trim_start().split_once(' ').ok_or_else(usage)?;
        let path = path.trim();
        if path.is_empty() {
            return Err(usage());
        }
        let to: UserName = to.parse().map_err(|error: FormError| format!("Error. Not a name: {error}."))?;
        if self.engine.is_none() {
            return Err("Error. Transfers are off, because no UDP port could be opened.".into());
        }
        if self.transfers.len() >= limits::TRANSFERS_MAX {
            return Err("Error. Too many transfers at a time; wait for one to end.".into());
        }
        let path = path.to_owned();
        let side = Side::Sending { path: path.clone(), stage: Sending::Preparing, offers: 0 };
        let number = self.transfers.add(None, to, FileOffer { name: path.clone(), size: 0 }, side);
        self.act(TransferAction::Prepare { number, path });
        Ok(())
    }

    fn tell_transfers(&self) -> String {
        let told: Vec<String> = self.transfers.iter().map(Transfer::told).collect();
        if told.is_empty() { "There are no transfers.".into() } else { told.join("\n") }
    }

    /// Does something with an offer that waits for the person's word: the one of that number, or the only one.
    fn on_asked(
        &mut self,
        rest: &str,
        word: &str,
        act: impl FnOnce(&mut Self, u32) -> Option<String>,
    ) -> Option<String> {
        let typed = rest.trim();
        let number = if typed.is_empty() { self.transfers.only_asked() } else { typed.parse().ok() };
        let Some(number) = number else { return Some(usage(word)) };
        if !self.transfers.find(number).is_some_and(|known| known.is_unanswered()) {
            return Some(format!("There is no offer {number} that waits for an answer."));
        }
        if !self.link.is_logged_in() {
            return Some("Not connected now; try again when the server is back.".into());
        }
        act(self, number)
    }

    fn cancel(&mut self, number: u32) -> Option<String> {
        let Some(known) = self.transfers.find(number) else {
            return Some(format!("There is no transfer {number}."));
        };
        if known.is_unanswered() {
            return self.decline(number, false);
        }
        if known.is_running()
            && let Some(transfer) = known.id
        {
            known.is_cancelled = true;
            self.act(TransferAction::Cancel { transfer });
            return None;
        }
        let known = self.transfers.remove(number)?;
        if let Some(transfer) = known.id {
            self.act(TransferAction::Forget { transfer });
            self.report(bare_report(transfer, Outcome::Cancelled));
        }
        Some(format!("The transfer of {} is cancelled.", known.name()))
    }

    fn handle_failure(&mut self, transfer: TransferId, failure: &Failure, now: Instant) {
        let Some(known) = self.transfers.find_id(transfer) else { return };
        let (number, name, peer) = (known.number, known.name(), known.peer);
        if known.is_cancelled {
            self.transfers.remove(number);
            self.report(bare_report(transfer, Outcome::Cancelled));
            self.show(Show::Notice(format!("The transfer of {name} is cancelled.")));
            return;
        }
        let why = failure.to_string();
        if matches!(failure, Failure::Cancelled) {
            self.report(bare_report(transfer, Outcome::Cancelled));
            self.drop_failed(number, &format!("{peer} cancelled the transfer of {name}."));
            return;
        }
        self.report(ReportFrame { reason: Some(why.clone()), ..bare_report(transfer, Outcome::Failed) });
        let may_go_on = matches!(failure, Failure::PeerGone | Failure::TimedOut);
        if may_go_on && self.offer_again(number, &why, now) {
            return;
        }
        let Some(known) = self.transfers.find(number) else { return };
        match &mut known.side {
            Side::Receiving { is_offered_again: true, .. } if may_go_on => drop(self.accept(number)),
            Side::Receiving { stage, .. } if may_go_on => {
                *stage = Receiving::Broken(now + Duration::from_millis(limits::BROKEN_MS));
                let told = format!("The transfer of {name} from {peer} broke: {why}; waiting for {peer}.");
                self.show(Show::Notice(told));
            }
            _ => self.fail(number, &why),
        }
    }
}

/// How a transfer ended, without details.
pub(super) fn bare_report(transfer: TransferId, outcome: Outcome) -> ReportFrame {
    ReportFrame { id: None, transfer, outcome, reason: None, bytes: None, hash: None, path: None }
}

fn usage(word: &str) -> String {
    let usage = OWN_USAGES.iter().find(|usage| usage.word == word).map_or("", |usage| usage.usage);
    format!("Usage: {usage}")
}
