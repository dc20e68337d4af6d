//! What the log adds up to at a point: who was logged in, blocked, and in which group.
//!
//! Any point is near: the fold begins with the newest snapshot before it, and messages, which are most of a log and change
//! nothing of this, are known by their bytes and passed over.

use std::net::IpAddr;
use std::thread;

use serde::Serialize;

use super::{ReplayError, check_beginning};
use crate::chat::state::Failures;
use crate::chat::{Event, Record, Seq, SessionId, State};
use crate::clock::Timestamp;
use crate::eventlog::{EventLine, LogReader, event_kind};
use crate::names::{DeviceName, GroupName, UserName};

/// So many events are folded side by side: more than a segment usually has, and few enough to be kept in memory.
const SIDE_BY_SIDE_EVENTS_MAX: u64 = 1 << 20;

/// A point in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Its end.
    End,
    /// Behind an event.
    Event(Seq),
    /// A moment: behind the last event up to it.
    Moment(Timestamp),
}

/// The state at a point, as it is shown.
#[derive(Debug, Serialize)]
pub struct StateAt {
    /// The last event up to there, 0 before the first.
    seq: Seq,
    /// The moment asked for, else that of the event.
    ts: Timestamp,
    /// Open sessions, by the order of their logins.
    logged_in: Vec<LoggedIn>,
    /// Names that nobody could log in with, those that are free again first.
    blocked: Vec<Blocked>,
    /// All groups, in the order in which they were made.
    groups: Vec<GroupAt>,
}

/// An open session.
#[derive(Debug, Serialize)]
struct LoggedIn {
    user: UserName,
    session: SessionId,
    since: Timestamp,
    ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceName>,
}

/// A blocked name.
#[derive(Debug, Serialize)]
struct Blocked {
    /// The name.
    user: UserName,
    /// Until when.
    until: Timestamp,
}

/// A group.
#[derive(Debug, Serialize)]
struct GroupAt {
    /// Its name.
    group: GroupName,
    /// Who made it.
    creator: UserName,
    /// Members, in the order in which they joined.
    joined: Vec<UserName>,
    /// Who may join, in the order of invitation.
    invited: Vec<UserName>,
}

/// Folds a log up to a point. Gives the state there, and why snapshots that were nearer could not be used.
///
/// # Errors
/// The log cannot be read, has no beginning, or does not go as far.
pub fn state_at(mut reader: LogReader, point: Point) -> Result<(StateAt, Vec<String>), ReplayError> {
    check_beginning(&reader)?;
    let through = last_event(&mut reader, point)?;
    let found = reader.snapshot(through)?;
    let mut state = found.state.unwrap_or_default();
    // Few events are folded by two cores, which have to keep what they find until all before it is there.
    let mut from = state.seq + 1;
    if through - state.seq <= SIDE_BY_SIDE_EVENTS_MAX {
        let middle = from + (through - state.seq) / 2;
        let mut beside = reader.beside();
        let (early, late) = thread::scope(|scope| {
            let early = scope.spawn(|| collected(&mut beside, from, middle));
            let late = collected(&mut reader, middle, through + 1);
            (early.join().expect("a reader does not panic"), late)
        });
        for record in early?.into_iter().chain(late?) {
            state.apply(record.seq, record.at, &record.event);
        }
        from = through + 1;
    }
    for_each_that_counts(&mut reader, from, through + 1, |record| state.apply(record.seq, record.at, &record.event))?;
    let moment = match point {
        Point::Moment(moment) => moment,
        Point::End | Point::Event(_) => state.at,
    };
    Ok((StateAt::of(&state, moment), found.notices))
}

/// The events that count between two, of which the second is none of them.
fn collected(reader: &mut LogReader, from: Seq, to: Seq) -> Result<Vec<Record>, ReplayError> {
    let mut records = Vec::new();
    for_each_that_counts(reader, from, to, |record| records.push(record))?;
    Ok(records)
}

/// Gives the events between two that change what is shown, and the last in any case, for its time.
fn for_each_that_counts(
    reader: &mut LogReader,
    from: Seq,
    to: Seq,
    mut each: impl FnMut(Record),
) -> Result<(), ReplayError> {
    reader.seek(from)?;
    while reader.next_seq() < to {
        let last = reader.next_seq() - 1;
        let Some(line) = reader.next_line()? else { return Err(ReplayError::NoSuchEvent { asked: to - 1, last }) };
        if line.seq + 1 < to && changes_nothing(&line) {
            continue;
        }
        each(Event::decode(line.bytes).map_err(|source| ReplayError::Event { seq: line.seq, source })?);
    }
    Ok(())
}

/// The last event up to a point, 0 before the first.
fn last_event(reader: &mut LogReader, point: Point) -> Result<Seq, ReplayError> {
    let last = reader.end();
    match point {
        Point::End => Ok(last),
        Point::Event(asked) if asked > last => Err(ReplayError::NoSuchEvent { asked, last }),
        Point::Event(asked) => Ok(asked),
        Point::Moment(moment) => {
            reader.seek_time(moment.plus_ms(1))?;
            Ok(reader.next_seq().saturating_sub(1))
        }
    }
}

/// Whether an event is one of those that a [`StateAt`] does not depend on, by its bytes. (They count the commands of
/// devices, which are not shown.)
fn changes_nothing(event: &EventLine<'_>) -> bool {
    matches!(event_kind(event.bytes), Some(b"message" | b"group_message" | b"erased"))
}

impl StateAt {
    fn of(state: &State, moment: Timestamp) -> Self {
        let mut logged_in: Vec<LoggedIn> = state
            .sessions()
            .map(|(user, session)| LoggedIn {
                user,
                session: session.id,
                since: session.since,
                ip: session.ip,
                udp_port: session.udp_port,
                device: session.device,
            })
            .collect();
        logged_in.sort_by_key(|session| session.session);
        let known = state.users.iter().map(|(name, user)| (*name, user.failures));
        let strangers = state.strangers.iter().map(|(name, failures)| (*name, *failures));
        let blocked = known.chain(strangers).filter_map(|(user, Failures { blocked_until, .. })| {
            blocked_until.filter(|until| *until > moment).map(|until| Blocked { user, until })
        });
        let mut blocked: Vec<Blocked> = blocked.collect();
        // Not in the order of users, which messages have a part in.
        blocked.sort_by_key(|blocked| (blocked.until, blocked.user));
        let groups = state.groups.iter().map(|(name, group)| GroupAt {
            group: *name,
            creator: group.creator,
            joined: group.joined.keys().copied().collect(),
            invited: group.invited.iter().copied().collect(),
        });
        Self { seq: state.seq, ts: moment, logged_in, blocked, groups: groups.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::samples::event;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_passed_over_is_nothing_that_is_shown(events in vec(event(), 1..60), ms in 0_u64..100) {
            let (mut all, mut some) = (State::default(), State::default());
            for (seq, event) in (1..).zip(&events) {
                let at = Timestamp::from_ms(seq);
                let mut line = Vec::new();
                event.encode(seq, at, &mut line);
                all.apply(seq, at, event);
                if seq == events.len() as u64 || !changes_nothing(&EventLine::of(&line).unwrap()) {
                    some.apply(seq, at, event);
                }
            }
            let shown = |state: &State| serde_json::to_string(&StateAt::of(state, Timestamp::from_ms(ms))).unwrap();
            prop_assert_eq!(shown(&all), shown(&some));
        }
    }
}
