//! The frames by which the server introduces the two sides of a transfer, and the events that record it.

use std::time::Instant;

use super::app::App;
use super::contract::{Accept, Show, TransferAction};
use super::limits;
use super::requests::Request;
use super::transfers::{PeerPoint, Receiving, Sending, Side};
use crate::chat::{Event, FileOffer, Outcome};
use crate::names::{TransferId, UserName};
use crate::protocol::{CandidateFrame, ClientFrame, ErrorAnswer, OfferFrame, VerdictFrame, sentence};

impl App {
    /// The file of a transfer was looked at: a fresh number for the transfer, used unless it has one that its receiver
    /// knows, and the file's name and size; or why it cannot be sent.
    ///
    /// Gives the number under which it is offered.
    pub fn handle_prepared(
        &mut self,
        number: u32,
        looked: Result<(TransferId, String, u64), String>,
    ) -> Option<TransferId> {
        let (key, addrs) = (self.engine_key(), self.addresses.clone());
        let known = self.transfers.find(number)?;
        let (fresh, name, size) = match looked {
            Ok(looked) => looked,
            Err(why) => {
                self.fail(number, &why);
                self.go_on();
                return None;
            }
        };
        let id = *known.id.get_or_insert(fresh);
        known.file = FileOffer { name, size };
        if let Side::Sending { stage, offers, .. } = &mut known.side {
            *stage = Sending::Offered;
            *offers += 1;
        }
        let (to, files) = (Some(known.peer), vec![known.file.clone()]);
        let frame = OfferFrame { id: None, to, from: None, seq: None, transfer: id, files, key, addrs };
        self.signal(ClientFrame::Offer(frame), Request::Offer(id));
        self.go_on();
        Some(id)
    }

    /// Whether a part of an offered file is here from before.
    pub fn handle_considered(&mut self, transfer: TransferId, holds_part: bool) {
        let accept = self.options.accept;
        let Some(known) = self.transfers.find_id(transfer) else { return };
        let (number, from, file) = (known.number, known.peer, known.file.clone());
        let Side::Receiving { stage, .. } = &mut known.side else { return };
        *stage = Receiving::Asked;
        if holds_part || accept == Accept::All {
            let told = format!("{from} sends {}.", sentence::file_list(std::slice::from_ref(&file)));
            self.show(Show::Notice(told));
            self.accept(number);
        } else if accept == Accept::None {
            if let Some(told) = self.decline(number, true) {
                self.show(Show::Notice(told));
            }
        } else {
            self.show(Show::Offer { number, from, file });
        }
        self.go_on();
    }

    /// Whether the engine is ready to receive an offered file, or why not.
    pub fn handle_accepting(&mut self, transfer: TransferId, is_ready: Result<(), String>) {
        let Some(known) = self.transfers.find_id(transfer) else { return };
        let number = known.number;
        match is_ready {
            Ok(()) => {
                if let Side::Receiving { stage, .. } = &mut known.side {
                    *stage = Receiving::Running;
                }
                self.answer_offer(transfer, true, false);
            }
            Err(why) => {
                self.answer_offer(transfer, false, true);
                self.fail(number, &why);
            }
        }
        self.go_on();
    }

    /// Answers an offer. A refusal that no person spoke stands for this session alone.
    pub(super) fn answer_offer(&mut self, transfer: TransferId, accept: bool, is_automatic: bool) {
        let frame = VerdictFrame {
            id: None,
            transfer,
            accept,
            key: accept.then(|| self.engine_key()),
            addrs: if accept { self.addresses.clone() } else { Vec::new() },
            have: None,
            automatic: is_automatic.then_some(true),
        };
        self.signal(ClientFrame::Answer(frame), Request::Verdict(transfer));
    }

    /// The server has passed an offer on.
    pub(super) fn handle_offer_taken(&mut self, transfer: TransferId) {
        let Some(known) = self.transfers.find_id(transfer) else { return };
        if let Side::Sending { offers: 1, .. } = known.side {
            let file = sentence::file_list(std::slice::from_ref(&known.file));
            let told = format!("{file} is offered to {}, transfer {}.", known.peer, known.number);
            self.show(Show::Reply(told));
        }
    }

    pub(super) fn handle_offer_refused(&mut self, transfer: TransferId, error: &ErrorAnswer, now: Instant) {
        let Some(known) = self.transfers.find_id(transfer) else { return };
        let number = known.number;
        let is_first = matches!(known.side, Side::Sending { offers: 1, .. });
        let why = sentence::error(error);
        // Who was receiving before may come back.
        if is_first || error.code != "no_such_peer" || !self.offer_again(number, &why, now) {
            self.drop_failed(number, &why);
        }
    }

    /// An answer to an offer came too late.
    pub(super) fn handle_verdict_refused(&mut self, transfer: TransferId, error: &ErrorAnswer) {
        let Some(known) = self.transfers.remove_id(transfer) else { return };
        if known.is_running() {
            self.act(TransferAction::Cancel { transfer });
            let told = format!("{} from {}: {}", known.name(), known.peer, sentence::error(error));
            self.show(Show::Notice(told));
        }
    }

    /// Somebody offers a file.
    pub(super) fn handle_offer(&mut self, frame: OfferFrame) {
        let OfferFrame { from: Some(from), transfer, files, key, addrs, .. } = frame else { return };
        let is_full = self.transfers.len() >= limits::TRANSFERS_MAX;
        let file = match files.as_slice() {
            [file] if !is_full && self.engine.is_some() => file.clone(),
            _ => {
                let told = format!("{from} offers {}, which cannot be taken here.", sentence::file_list(&files));
                self.show(Show::Notice(told));
                self.answer_offer(transfer, false, true);
                return;
            }
        };
        let peer = PeerPoint { key, addrs };
        if self.transfers.find_id(transfer).is_some() {
            self.handle_offer_again(transfer, from, &file, peer);
            return;
        }
        let side = Side::Receiving { stage: Receiving::Considered, peer, is_offered_again: false };
        self.transfers.add(Some(transfer), from, file.clone(), side);
        self.act(TransferAction::Consider { transfer, from, file });
    }

    /// A transfer that broke is offered again: taken up without asking, once the engine has noticed, too.
    fn handle_offer_again(&mut self, transfer: TransferId, from: UserName, file: &FileOffer, point: PeerPoint) {
        let Some(known) = self.transfers.find_id(transfer).filter(|known| known.peer == from && known.file == *file)
        else {
            self.answer_offer(transfer, false, true);
            return;
        };
        let number = known.number;
        let Side::Receiving { stage, peer, is_offered_again } = &mut known.side else { return };
        *peer = point;
        match stage {
            Receiving::Broken(_) => drop(self.accept(number)),
            Receiving::Running | Receiving::Accepting => *is_offered_again = true,
            Receiving::Asked | Receiving::Considered => {}
        }
    }

    /// An offer was answered: our own by its receiver, or one to us by another session of ours.
    pub(super) fn handle_verdict(&mut self, frame: VerdictFrame) {
        let VerdictFrame { transfer, accept, key, addrs, .. } = frame;
        let Some(known) = self.transfers.find_id(transfer) else { return };
        let (number, name, peer) = (known.number, known.name(), known.peer);
        match (&mut known.side, key) {
            (Side::Sending { stage: stage @ Sending::Offered, .. }, Some(peer_key)) if accept => {
                *stage = Sending::Running;
                self.act(TransferAction::Start { transfer, peer_key, addrs });
            }
            (Side::Sending { stage: Sending::Offered, .. }, _) => self.handle_declined(number, peer, &name),
            (Side::Receiving { stage: Receiving::Asked | Receiving::Considered, .. }, _) => {
                self.transfers.remove(number);
                let what = if accept { "taken" } else { "declined" };
                let told = format!("{name} from {peer} was {what} in another session of yours.");
                self.show(Show::Notice(told));
            }
            _ => {}
        }
    }

    pub(super) fn handle_candidate(&mut self, frame: &CandidateFrame) {
        let (transfer, addr) = (frame.transfer, frame.addr);
        if self.transfers.find_id(transfer).is_some() {
            self.act(TransferAction::AddAddress { transfer, addr });
        }
    }

    /// Takes in what an event says of a transfer; `false` where it is to be shown like any other.
    pub(super) fn handle_transfer_record(&mut self, event: &Event) -> bool {
        match event {
            // The offer itself follows, unless it came and went while this client was away.
            Event::TransferOffered { to, .. } => !(self.is_catching_up && Some(*to) == self.user),
            Event::TransferAnswered { .. } => true,
            Event::TransferEnded { transfer, outcome, .. } => {
                self.handle_ended(*transfer, *outcome);
                true
            }
            _ => false,
        }
    }

    fn handle_ended(&mut self, transfer: TransferId, outcome: Outcome) {
        let Some(known) = self.transfers.find_id(transfer) else { return };
        let (number, name, peer) = (known.number, known.name(), known.peer);
        match (&known.side, outcome) {
            (Side::Sending { .. }, Outcome::Done) => {
                let is_running = known.is_running();
                self.finish(transfer, None);
                if !is_running {
                    self.act(TransferAction::Forget { transfer });
                }
            }
            (Side::Sending { stage: Sending::Offered, .. }, Outcome::Declined) => {
                self.handle_declined(number, peer, &name);
            }
            (Side::Sending { stage: Sending::Offered, .. }, _) => {
                self.drop_failed(number, &format!("{peer} did not answer the offer of {name}."));
            }
            (Side::Receiving { stage: Receiving::Asked | Receiving::Considered, .. }, _) => {
                self.transfers.remove(number);
                self.show(Show::Notice(format!("The offer of {name} by {peer} is no longer there.")));
            }
            (_, Outcome::Cancelled) if known.is_running() => self.act(TransferAction::Cancel { transfer }),
            (_, Outcome::Cancelled) => {
                self.drop_failed(number, &format!("{peer} cancelled the transfer of {name}."));
            }
            // A session that broke off ends a transfer for the server; for the engines it goes on.
            _ => {}
        }
    }

    fn handle_declined(&mut self, number: u32, peer: UserName, name: &str) {
        self.drop_failed(number, &format!("{peer} declined {name}."));
    }

    fn engine_key(&self) -> String {
        self.engine.as_ref().map(|(_, key)| key.clone()).unwrap_or_default()
    }
}
