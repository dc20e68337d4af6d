//! The rules of peer transfers as the server sees them: offered, answered, ended once.

use serde::{Deserialize, Serialize};

use super::policy::{FILE_BYTES_MAX, OFFERS_PENDING_PER_USER_MAX, Policy};
use super::state::{Session, State};
use super::{Event, FileOffer, Outcome, Refusal, TransferPath};
use crate::names::{TransferId, UserName};

/// A transfer between two users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Who sends.
    pub from: UserName,
    /// Who receives.
    pub to: UserName,
    /// How far it is.
    pub phase: Phase,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It waits for the receiver's word.
    Offered,
    /// The receiver wants it.
    Accepted,
    /// It is over.
    Ended(Outcome),
}

impl Transfer {
    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }
}

/// What one side says at the end of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// How it ended.
    pub outcome: Outcome,
    /// How many bytes arrived.
    pub bytes: Option<u64>,
    /// The BLAKE3 hash of the whole, in hexadecimal.
    pub hash: Option<String>,
    /// Which way they went.
    pub path: Option<TransferPath>,
}

impl Ending {
    /// An end without details.
    pub fn bare(outcome: Outcome) -> Self {
        Self { outcome, bytes: None, hash: None, path: None }
    }
}

impl State {
    /// A user offers files to another, and shows the key that the peer is to expect.
    ///
    /// # Errors
    /// Nobody there to receive, a limit, or a number that belongs to another transfer.
    pub fn decide_offer(
        &self,
        policy: &Policy,
        who: &Session,
        to: UserName,
        transfer: TransferId,
        files: &[FileOffer],
        key: &str,
    ) -> Result<Vec<Event>, Refusal> {
        if !key_is_well_formed(key) {
            return Err(Refusal::BadLine("the key of an offer is the hexadecimal of a public key"));
        }
        if files.is_empty() || files.iter().any(|file| file.name.is_empty()) {
            return Err(Refusal::BadLine("an offer names at least one file, each by a name"));
        }
        policy.check_account(to)?;
        if !self.is_online(to) {
            return Err(Refusal::NoSuchPeer(to));
        }
        if let Some(known) = self.transfers.get(&transfer) {
            // A broken transfer may be offered again under its number, by the same to the same.
            let again = known.from == who.user && known.to == to && known.phase == Phase::Ended(Outcome::Failed);
            if !again {
                return Err(Refusal::UnknownTransfer);
            }
        }
        if files.iter().any(|file| file.size > FILE_BYTES_MAX) {
            return Err(Refusal::LimitReached { limit: "bytes of a file" });
        }
        let pending = self.open_transfers.iter().filter_map(|id| self.transfers.get(id));
        let pending = pending.filter(|open| open.from == who.user && open.phase == Phase::Offered).count();
        if pending >= OFFERS_PENDING_PER_USER_MAX {
            return Err(Refusal::LimitReached { limit: "offers waiting for an answer" });
        }
        let mut events: Vec<Event> = self.bind_key(who, key).into_iter().collect();
        events.push(Event::TransferOffered { from: who.user, to, transfer, files: files.to_vec() });
        Ok(events)
    }

    /// The receiver takes an offer (with a key) or declines it.
    ///
    /// # Errors
    /// No such offer is waiting for this user.
    pub fn decide_answer(
        &self,
        who: &Session,
        transfer: TransferId,
        accept: bool,
        key: Option<&str>,
    ) -> Result<Vec<Event>, Refusal> {
        let known = self.transfers.get(&transfer);
        if !known.is_some_and(|known| known.to == who.user && known.phase == Phase::Offered) {
            return Err(Refusal::UnknownTransfer);
        }
        if !accept {
            return Ok(vec![
                Event::TransferAnswered { transfer, user: who.user, accept },
                ended(transfer, Ending::bare(Outcome::Declined)),
            ]);
        }
        let key = key.filter(|key| key_is_well_formed(key));
        let key = key.ok_or(Refusal::BadLine("who accepts shows the hexadecimal of a public key"))?;
        let mut events: Vec<Event> = self.bind_key(who, key).into_iter().collect();
        events.push(Event::TransferAnswered { transfer, user: who.user, accept });
        Ok(events)
    }

    /// One side says how a transfer ended. That it is done counts by the receiver's word alone; what comes after the
    /// end changes nothing.
    ///
    /// # Errors
    /// The user has no part in such a transfer.
    pub fn decide_ending(&self, who: &Session, transfer: TransferId, ending: Ending) -> Result<Vec<Event>, Refusal> {
        let known = self.transfers.get(&transfer).filter(|known| known.from == who.user || known.to == who.user);
        let known = known.ok_or(Refusal::UnknownTransfer)?;
        if ending.hash.as_ref().is_some_and(|hash| !hash_is_well_formed(hash)) {
            return Err(Refusal::BadLine("the hash of a file is 64 hexadecimal digits"));
        }
        let by_receiver = known.to == who.user;
        let counts = match ending.outcome {
            Outcome::Done => by_receiver && known.phase == Phase::Accepted,
            Outcome::Declined => by_receiver && known.phase == Phase::Offered,
            Outcome::Cancelled | Outcome::Failed => true,
        };
        Ok(if counts && !known.has_ended() { vec![ended(transfer, ending)] } else { Vec::new() })
    }

    fn bind_key(&self, who: &Session, key: &str) -> Option<Event> {
        let keys = self.users.get(&who.user).map(|user| user.keys.as_slice()).unwrap_or_default();
        let known = keys.iter().any(|(device, known)| *device == who.device && known == key);
        (!known).then(|| Event::KeyBound { user: who.user, device: who.device, key: key.to_owned() })
    }
}

/// The event for a transfer of which nobody will say how it ended: an offer is withdrawn, what ran has failed.
pub fn broken(state: &State, transfer: TransferId) -> Event {
    let phase = state.transfers.get(&transfer).map(|known| known.phase);
    let outcome = if phase == Some(Phase::Accepted) { Outcome::Failed } else { Outcome::Cancelled };
    ended(transfer, Ending::bare(outcome))
}

pub(super) fn apply(state: &mut State, event: &Event) {
    match event {
        Event::TransferOffered { from, to, transfer, .. } => {
            state.transfers.insert(*transfer, Transfer { from: *from, to: *to, phase: Phase::Offered });
            state.open_transfers.insert(*transfer);
        }
        Event::TransferAnswered { transfer, accept: true, .. } => {
            if let Some(known) = state.transfers.get_mut(transfer).filter(|known| !known.has_ended()) {
                known.phase = Phase::Accepted;
            }
        }
        Event::TransferEnded { transfer, outcome, .. } => {
            if let Some(known) = state.transfers.get_mut(transfer) {
                known.phase = Phase::Ended(*outcome);
                state.open_transfers.shift_remove(transfer);
            }
        }
        Event::KeyBound { user, device, key } => {
            let keys = &mut state.user_mut(*user).keys;
            match keys.iter_mut().find(|(known, _)| known == device) {
                Some((_, known)) => known.clone_from(key),
                None => keys.push((*device, key.clone())),
            }
        }
        _ => {}
    }
}

fn ended(transfer: TransferId, ending: Ending) -> Event {
    let Ending { outcome, bytes, hash, path } = ending;
    Event::TransferEnded { transfer, outcome, bytes, hash, path }
}

/// The hexadecimal of 32 bytes: the form of a BLAKE3 hash.
fn hash_is_well_formed(hash: &str) -> bool {
    hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Hexadecimal of at most 256 bytes: the form of a public key, whatever its kind.
fn key_is_well_formed(key: &str) -> bool {
    (2..=512).contains(&key.len()) && key.len().is_multiple_of(2) && key.bytes().all(|byte| byte.is_ascii_hexdigit())
}
