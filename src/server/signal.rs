//! Introducing the two sides of a peer transfer: what is recorded of it, and what is passed on and forgotten.

use std::cmp::Reverse;
use std::time::Duration;

use crate::chat::transfer::{self, Phase};
use crate::chat::{Ending, Refusal, Session};
use crate::names::{TransferId, UserName};
use crate::protocol::{Answer, CandidateFrame, Id, OfferFrame, ReportFrame, ServerFrame, VerdictFrame};

use super::connection::{ConnectionKey, Now};
use super::hub::Hub;
use super::limits;

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
        // Who speaks plain lines cannot take a file, and nobody takes the own session's.
        let receivers: Vec<ConnectionKey> = self.present.of(&self.state, to).to_vec();
        if !receivers.is_empty() && !receivers.iter().any(|other| *other != key && self.speaks_json(*other)) {
            return Err(Refusal::NoSuchPeer(to));
        }
        let events = self.state.decide_offer(&self.policy, &who, to, transfer, &frame.files, &frame.key)?;
        self.commit(&events, Some(key), now);
        self.introductions.begin(transfer, to, key);
        self.lapse_later(transfer, limits::OFFER_MS, now);
        let seq = self.state.seq;
        self.tell_ok(key, signal_answer(frame.id, "offer", Some((seq, now))));
        let offer = OfferFrame { id: None, to: None, from: Some(who.user), seq: Some(seq), ..frame };
        for receiver in receivers.into_iter().filter(|receiver| *receiver != key) {
            self.tell_signal(receiver, &ServerFrame::Offer(offer.clone()));
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
        let known = self.introductions.get_mut(transfer).ok_or(Refusal::UnknownTransfer)?;
        if !frame.accept && frame.automatic == Some(true) {
            // No person has spoken: it is declined once every session has.
            if !known.declined.contains(&key) {
                known.declined.push(key);
            }
            if !self.all_have_declined(transfer) {
                self.tell_ok(key, signal_answer(frame.id, "answer", None));
                return Ok(());
            }
        }
        self.commit(&events, Some(key), now);
        self.tell_ok(key, signal_answer(frame.id.clone(), "answer", Some((self.state.seq, now))));
        self.pass_on(VerdictFrame { id: None, automatic: None, ..frame }, Some(key));
        Ok(())
    }

    /// Tells the sender of a verdict, and the receiver's other sessions that there is one.
    fn pass_on(&mut self, verdict: VerdictFrame, by: Option<ConnectionKey>) {
        let (transfer, accept) = (verdict.transfer, verdict.accept);
        let Some(known) = self.introductions.get_mut(transfer) else { return };
        known.receiver = by.filter(|_| accept);
        let (to, sender) = (known.to, known.sender);
        if !accept {
            self.introductions.remove(transfer);
        }
        let (addrs, none) = (Vec::new(), None);
        let closing = VerdictFrame { id: None, transfer, accept, key: None, addrs, have: none, automatic: None };
        self.tell_signal(sender, &ServerFrame::Answer(verdict));
        for other in self.present.of(&self.state, to).to_vec() {
            if Some(other) != by && other != sender {
                self.tell_signal(other, &ServerFrame::Answer(closing.clone()));
            }
        }
    }

    /// Whether every session that could take an offer has declined it without a person.
    fn all_have_declined(&self, transfer: TransferId) -> bool {
        let Some(known) = self.introductions.get(transfer) else { return false };
        let mut sessions = self.present.of(&self.state, known.to).iter();
        // Where there is none that could, nobody has: it stays open for one that comes.
        !known.declined.is_empty()
            && sessions.all(|key| known.declined.contains(key) || *key == known.sender || !self.speaks_json(*key))
    }

    pub(super) fn handle_candidate(&mut self, key: ConnectionKey, frame: &CandidateFrame) -> Result<(), Refusal> {
        self.session(key).ok_or(Refusal::NotLoggedIn)?;
        let known = self.introductions.get(frame.transfer).ok_or(Refusal::UnknownTransfer)?;
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
        self.commit(&events, Some(key), now);
        if made.is_some() {
            self.introductions.remove(transfer);
        }
        self.tell_ok(key, signal_answer(id, "transfer", made));
        Ok(())
    }

    /// A session is over: its offers are withdrawn; what it was receiving goes on for a moment, in which its client may
    /// come back; and an offer that all others have declined is declined.
    pub(super) fn end_introductions(&mut self, key: ConnectionKey, user: UserName, now: Now) {
        for transfer in self.introductions.of(key, user) {
            let Some(known) = self.introductions.get(transfer) else { continue };
            match known.receiver {
                // An accepted transfer goes on without the sender's session: the receiver will say how it ends.
                Some(receiver) if receiver != key => {}
                Some(_) => {
                    self.introductions.remove(transfer);
                    self.lapse_later(transfer, limits::RECEIVER_AWAY_MS, now);
                }
                None if known.sender == key || !self.state.is_online(user) => self.end_transfer(transfer, now),
                None if self.all_have_declined(transfer) => self.decline_for_all(transfer, user, now),
                None => {}
            }
        }
    }

    fn decline_for_all(&mut self, transfer: TransferId, user: UserName, now: Now) {
        let who = Session { id: 0, user, device: None };
        if let Ok(events) = self.state.decide_answer(&who, transfer, false, None) {
            self.commit(&events, None, now);
        }
        let (addrs, have) = (Vec::new(), None);
        self.pass_on(VerdictFrame { id: None, transfer, accept: false, key: None, addrs, have, automatic: None }, None);
    }

    /// After a start: whoever was receiving may still be, and say so after the next login.
    pub(super) fn await_receivers(&mut self, now: Now) {
        for transfer in self.state.open_transfers.clone() {
            self.lapse_later(transfer, limits::START_AWAY_MS, now);
        }
    }

    fn lapse_later(&mut self, transfer: TransferId, after_ms: u64, now: Now) {
        self.lapsing.push(Reverse((now.tick + Duration::from_millis(after_ms), transfer)));
    }

    /// Offers that nobody has answered for too long are withdrawn, and transfers fail of whose receiver nothing is left.
    pub(super) fn lapse_transfers(&mut self, now: Now) {
        while let Some(Reverse((due, transfer))) = self.lapsing.peek().copied() {
            if due > now.tick {
                break;
            }
            self.lapsing.pop();
            let Some(known) = self.state.transfers.get(&transfer) else { continue };
            let is_running = self.introductions.get(transfer).is_some_and(|known| known.receiver.is_some());
            match known.phase {
                Phase::Accepted if is_running => {}
                // The receiver is here again, and will say how it ends.
                Phase::Accepted if self.state.is_online(known.to) => {
                    self.lapse_later(transfer, limits::START_AWAY_MS, now);
                }
                Phase::Offered | Phase::Accepted => self.end_transfer(transfer, now),
                Phase::Ended(_) => {}
            }
        }
    }

    fn end_transfer(&mut self, transfer: TransferId, now: Now) {
        let ended = transfer::broken(&self.state, transfer);
        self.commit(&[ended], None, now);
        self.introductions.remove(transfer);
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
