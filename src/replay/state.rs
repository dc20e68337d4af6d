//! What the log adds up to at a point: who was logged in, blocked, and in which group.

use std::net::IpAddr;

use serde::Serialize;

use super::{ReplayError, check_beginning};
use crate::chat::state::Failures;
use crate::chat::{Event, Seq, SessionId, State};
use crate::clock::Timestamp;
use crate::eventlog::LogReader;
use crate::names::{DeviceName, GroupName, UserName};

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
    /// Names that nobody could log in with.
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

/// Folds a log from its beginning to a point.
///
/// # Errors
/// The log cannot be read, has no beginning, or does not go as far.
pub fn state_at(mut reader: LogReader, point: Point) -> Result<StateAt, ReplayError> {
    check_beginning(&reader)?;
    let mut state = State::default();
    while let Some(line) = reader.next_line()? {
        let record = Event::decode(line.bytes).map_err(|source| ReplayError::Event { seq: line.seq, source })?;
        let is_behind = match point {
            Point::End => false,
            Point::Event(seq) => record.seq > seq,
            Point::Moment(moment) => record.at > moment,
        };
        if is_behind {
            break;
        }
        state.apply(record.seq, record.at, &record.event);
    }
    match point {
        Point::Event(asked) if asked > state.seq => Err(ReplayError::NoSuchEvent { asked, last: state.seq }),
        Point::Moment(moment) => Ok(StateAt::of(&state, moment)),
        _ => Ok(StateAt::of(&state, state.at)),
    }
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
        let groups = state.groups.iter().map(|(name, group)| GroupAt {
            group: *name,
            creator: group.creator,
            joined: group.joined.keys().copied().collect(),
            invited: group.invited.iter().copied().collect(),
        });
        Self { seq: state.seq, ts: moment, logged_in, blocked: blocked.collect(), groups: groups.collect() }
    }
}
