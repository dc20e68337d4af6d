//! Introducing the two sides of a peer transfer: what is recorded of it, and what is passed on and forgotten.

use std::time::Duration;

use crate::chat::transfer::{self, Phase};
use crate::chat::{Ending, Refusal};
use crate::names::{TransferId, UserName};
use crate::protocol::{Answer, CandidateFrame, Id, OfferFrame, ReportFrame, ServerFrame, VerdictFrame};

use super::connection::{ConnectionKey, Now};
use super::hub::Hub;
use super::limits;

/// The sessions between which a transfer runs: never recorded, gone with the server.
#[derive(Debug)]
pub(super) struct Introduction {
    to: UserName,
    sender: ConnectionKey,
    receiver: Option<ConnectionKey>,
    /// Sessions of the receiver that have declined without a person.
    declined: Vec<ConnectionKey>,
}

impl Hub {
    pub(super) fn handle_offer(
        &mut self,
        key: ConnectionKey,
        frame: OfferFrame,
        bytes: usize,
        now: Now,
    ) -> Result<(), Refusal> {
        let who = self.session(key).ok_or(Refusal::NotLoggedIn)?;
        let to = frame.to.ok_or(Refusal::BadLine("an offer says to whom"))?;
        if bytes > limits::OFFER_BYTES_MAX {
            return Err(Refusal::LimitReached { limit: "bytes of an offer" });
        }
        self.check_room(6 * bytes as u64 + 1_024)?;
        let transfer = frame.transfer;
        let events = self.state.decide_offer(&self.policy, &who, to, transfer, &frame.files, &frame.key)?;
        self.commit(events, Some(key), now);
        self.introductions.insert(transfer, Introduction { to, sender: key, receiver: None, declined: Vec::new() });
        self.lapsing.push_back((now.tick + Duration::from_millis(limits::OFFER_MS), transfer));
        let seq = self.state.seq;
        self.tell_ok(key, signal_answer(frame.id, "offer", Some((seq, now))));
        let offer = OfferFrame { id: None, to: None, from: Some(who.user), seq: Some(seq), ..frame };
        for receiver in self.present.get(&to).cloned().unwrap_or_default() {
            if receiver != key {
                self.tell_signal(receiver, &ServerFrame::Offer(offer.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn handle_answer(
        &mut self,
        key: ConnectionKey,
        frame: VerdictFrame,
        bytes: usize,
        now: Now,
    ) -> Result<(), Refusal> {
        let who = self.session(key).ok_or(Refusal::NotLoggedIn)?;
        self.check_room(6 * bytes as u64 + 1_024)?;
        let transfer = frame.transfer;
        let events = self.state.decide_answer(&who, transfer, frame.accept, frame.key.as_deref())?;
        let sessions = self.present.get(&who.user).cloned().unwrap_or_default();
        let known = self.introductions.get_mut(&transfer).ok_or(Refusal::UnknownTransfer)?;
        if !frame.accept && frame.automatic == Some(true) {
            // No person has spoken: it is declined once every session has.
            known.declined.push(key);
            if !sessions.iter().all(|session| known.declined.contains(session) || *session == known.sender) {
                self.tell_ok(key, signal_answer(frame.id, "answer", None));
                return Ok(());
            }
        }
        known.receiver = frame.accept.then_some(key);
        let sender = known.sender;
        if !frame.accept {
            self.introductions.remove(&transfer);
        }
        self.commit(events, Some(key), now);
        self.tell_ok(key, signal_answer(frame.id, "answer", Some((self.state.seq, now))));
        let closing = VerdictFrame {
            id: None,
            transfer,
            accept: frame.accept,
            key: None,
            addrs: Vec::new(),
            have: None,
            automatic: None,
        };
        self.tell_signal(sender, &ServerFrame::Answer(VerdictFrame { id: None, automatic: None, ..frame }));
        for other in sessions {
            if other != key && other != sender {
                self.tell_signal(other, &ServerFrame::Answer(closing.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn handle_candidate(&mut self, key: ConnectionKey, frame: &CandidateFrame) -> Result<(), Refusal> {
        self.session(key).ok_or(Refusal::NotLoggedIn)?;
        let known = self.introductions.get(&frame.transfer).ok_or(Refusal::UnknownTransfer)?;
        let (sender, receiver) = (known.sender, known.receiver.ok_or(Refusal::UnknownTransfer)?);
        let peer = match key {
            key if key == sender => receiver,
            key if key == receiver => sender,
            _ => return Err(Refusal::UnknownTransfer),
        };
        if frame.id.is_some() {
            self.tell_ok(key, signal_answer(frame.id.clone(), "candidate", None));
        }
        self.tell_signal(peer, &ServerFrame::Candidate(CandidateFrame { id: None, ..*frame }));
        Ok(())
    }

    pub(super) fn handle_report(&mut self, key: ConnectionKey, frame: ReportFrame, now: Now) -> Result<(), Refusal> {
        let who = self.session(key).ok_or(Refusal::NotLoggedIn)?;
        self.check_room(8 * 1_024)?;
        let ReportFrame { id, transfer, outcome, bytes, hash, path, .. } = frame;
        let events = self.state.decide_ending(&who, transfer, Ending { outcome, bytes, hash, path })?;
        let made = (!events.is_empty()).then_some((self.state.seq + 1, now));
        self.commit(events, Some(key), now);
        if made.is_some() {
            self.introductions.remove(&transfer);
        }
        self.tell_ok(key, signal_answer(id, "transfer", made));
        Ok(())
    }

    /// A session is over: its offers are withdrawn, and what it was receiving has failed.
    pub(super) fn end_introductions(&mut self, key: ConnectionKey, user: UserName, now: Now) {
        let concerned: Vec<TransferId> = self
            .introductions
            .iter()
            .filter(|(_, known)| known.sender == key || known.to == user)
            .map(|(transfer, _)| *transfer)
            .collect();
        for transfer in concerned {
            let offered = self.state.transfers.get(&transfer).is_some_and(|known| known.phase == Phase::Offered);
            let Some(known) = self.introductions.get(&transfer) else { continue };
            // An accepted transfer goes on without the sender's session: the receiver will say how it ends.
            let is_broken = match known.receiver {
                Some(receiver) => receiver == key,
                None => known.sender == key || !self.present.contains_key(&user),
            };
            if is_broken || (!offered && known.receiver.is_none()) {
                self.end_transfer(transfer, now);
            }
        }
    }

    /// Offers that nobody has answered for too long are withdrawn.
    pub(super) fn lapse_offers(&mut self, now: Now) {
        while let Some((due, transfer)) = self.lapsing.front().copied() {
            let offered = self.state.transfers.get(&transfer).is_some_and(|known| known.phase == Phase::Offered);
            if offered && due > now.tick {
                break;
            }
            self.lapsing.pop_front();
            if offered {
                self.end_transfer(transfer, now);
            }
        }
    }

    fn end_transfer(&mut self, transfer: TransferId, now: Now) {
        let ended = transfer::broken(&self.state, transfer);
        self.commit(vec![ended], None, now);
        self.introductions.remove(&transfer);
    }

    fn tell_signal(&mut self, key: ConnectionKey, frame: &ServerFrame) {
        if self.speaks_json(key) {
            self.tell_frame(key, frame);
        }
    }
}

fn signal_answer(id: Option<Id>, command: &str, made: Option<(u64, Now)>) -> Answer {
    let (seq, ts) = (made.map(|(seq, _)| seq), made.map(|(_, now)| now.at));
    Answer { id, command: command.to_owned(), seq, ts, ..Answer::default() }
}
