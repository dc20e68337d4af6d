//! The rules of exactly once: a device numbers its changing commands, and the number is in the event.

use super::policy::DEVICES_PER_USER_MAX;
use super::state::{Device, Session, State};
use super::{Event, Origin, Refusal, Seq};
use crate::clock::Timestamp;
use crate::names::{DeviceName, UserName};

/// Checks the number of a changing command. Without a device there is nothing to check.
pub(super) fn check_number(state: &State, who: &Session, number: Option<u64>) -> Result<Option<Origin>, Refusal> {
    let Some(device) = who.device else { return Ok(None) };
    let known = find(state, who.user, device);
    let sent = known.map_or(0, |known| known.sent);
    match number {
        Some(id) if id == sent + 1 => Ok(Some(Origin { device, id })),
        Some(id) if (1..=sent).contains(&id) => {
            let made = known.filter(|known| known.sent == id).map(|known| (known.last_seq, known.last_at));
            Err(Refusal::Duplicate { made })
        }
        _ => Err(Refusal::OutOfOrder { expected: sent + 1 }),
    }
}

/// The highest number that the log holds from a user and device.
pub(super) fn sent(state: &State, user: UserName, device: DeviceName) -> u64 {
    find(state, user, device).map_or(0, |known| known.sent)
}

/// Refuses a new device of a user who has too many.
pub(super) fn check_count(state: &State, user: UserName, device: DeviceName) -> Result<(), Refusal> {
    let full = state.users.get(&user).is_some_and(|user| user.devices.len() >= DEVICES_PER_USER_MAX);
    if full && find(state, user, device).is_none() {
        return Err(Refusal::LimitReached { limit: "devices of a user" });
    }
    Ok(())
}

pub(super) fn apply(state: &mut State, seq: Seq, at: Timestamp, event: &Event) {
    if let Some((user, origin)) = event.numbering() {
        apply_number(state, seq, at, user, origin);
    }
}

/// Folds the number of an event of a user.
pub(super) fn apply_number(state: &mut State, seq: Seq, at: Timestamp, user: UserName, origin: Origin) {
    let Origin { device, id } = origin;
    let devices = &mut state.user_mut(user).devices;
    let now = Device { name: device, sent: id, last_seq: seq, last_at: at };
    match devices.iter_mut().find(|known| known.name == device) {
        Some(known) => *known = now,
        None => devices.push(now),
    }
}

fn find(state: &State, user: UserName, device: DeviceName) -> Option<&Device> {
    state.users.get(&user)?.devices.iter().find(|known| known.name == device)
}
