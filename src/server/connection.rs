//! One connection as the hub sees it: bytes in, bytes out, and how far its conversation is.

use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::chat::{Event, Seq, SessionId, State};
use crate::clock::Timestamp;
use crate::protocol::{Id, LineCutter, sentence};

use super::limits::{
    BURST_COMMANDS, OUTPUT_BYTES_MAX, OUTPUT_COMMAND_BYTES_MAX, OUTPUT_SENT_BYTES_MAX, OWN_EVENTS_MAX,
};
use super::shared::{Shared, Source, ToldPlace};
use super::spare::Spare;

/// The bytes that are made room for at once for a connection that is told more than one thing.
const OUTPUT_BYTES_USUAL: usize = 1 << 10;

/// The present, read once a turn: the log's time for what is recorded, and the steady clock for deadlines.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The time of events, which never falls.
    pub at: Timestamp,
    /// The clock of deadlines.
    pub tick: Instant,
}

/// Names a connection for as long as it lives, and nothing afterwards: places are used again, generations are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey {
    /// The place in the hub's table, for the shell to keep the socket under.
    pub place: u32,
    /// Which of the connections that have had this place.
    pub generation: u32,
}

/// The language a connection speaks, fixed by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// One JSON object a line.
    Json,
    /// Commands in, sentences out, for people with `nc`.
    Plain,
}

/// Where a session's events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    /// The login is not durable yet.
    Waiting,
    /// From the batches as they become durable.
    Live,
    /// From the log, until nothing more is there.
    CatchingUp {
        /// The last event sent, or that need not be.
        after: Seq,
        /// Whether lines of the log have been asked for.
        reading: bool,
        /// Whether to say `live` at the end: after a login.
        announce: bool,
    },
}

/// What there is of a connection once it is logged in.
#[derive(Debug)]
pub(super) struct LoggedIn {
    pub(super) session: SessionId,
    /// The place of its user in the state, which knows the rest: names are long.
    pub(super) user: u32,
    pub(super) watch: bool,
    pub(super) feed: Feed,
    /// What this session's own commands made and may yet be read for it from the log: their answers tell of it already.
    pub(super) own: OwnEvents,
    /// The client has said its last word, and is owed the rest of its backlog first.
    pub(super) parting: Option<Box<Parting>>,
}

impl LoggedIn {
    /// Remembers an event that this session's command made. A session that is fed live may fall behind before the
    /// event is durable, and not behind what is.
    pub(super) fn note_own(&mut self, seq: Seq, durable_seq: Seq) {
        if self.feed == Feed::Live {
            self.own.drain_through(durable_seq).for_each(drop);
        }
        self.own.push(seq);
    }
}

/// Numbers of events, rising. Most clients have none, and then they take eight bytes.
#[derive(Debug, Default)]
pub(super) struct OwnEvents(Option<Box<Numbers>>);

#[derive(Debug, Default)]
struct Numbers(Vec<Seq>);

impl OwnEvents {
    pub(super) fn as_slice(&self) -> &[Seq] {
        self.0.as_ref().map_or(&[], |numbers| &numbers.0)
    }

    fn push(&mut self, seq: Seq) {
        self.0.get_or_insert_default().0.push(seq);
    }

    /// Takes those up to one out.
    pub(super) fn drain_through(&mut self, last: Seq) -> impl Iterator<Item = Seq> {
        let count = self.as_slice().partition_point(|seq| *seq <= last);
        self.0.as_mut().into_iter().flat_map(move |numbers| numbers.0.drain(..count))
    }

    /// Gives memory back that nothing is in.
    pub(super) fn shrink(&mut self) {
        if self.as_slice().is_empty() {
            self.0 = None;
        }
    }
}

/// A client's last word.
#[derive(Debug)]
pub(super) enum Parting {
    /// `/logout`, with its number.
    Logout(Option<Id>),
    /// The end of its input.
    InputEnd,
}

/// How far a connection is.
#[derive(Debug)]
pub(super) enum Phase {
    /// No login yet.
    Greeting {
        /// When that becomes too long.
        deadline: Instant,
    },
    /// A user is there.
    LoggedIn(LoggedIn),
    /// The session is over; what it was told last waits for the disk.
    Ended {
        /// The place of its user in the state, where it was fed live: it is still told what was decided before its end.
        live: Option<u32>,
    },
    /// What is in the output is still sent, nothing more is taken.
    Closing {
        /// When the socket is dropped, read or not.
        deadline: Instant,
    },
}

/// Whether the shell is to look at a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touched {
    Not,
    /// It is told something, or may be read again.
    Told,
    /// It has an answer.
    Answered,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) generation: u32,
    pub(super) ip: IpAddr,
    /// Nobody can read or change it on the way.
    pub(super) is_encrypted: bool,
    pub(super) dialect: Option<Dialect>,
    /// Bytes that came and are no whole line yet, or have to wait.
    pub(super) input: Option<Box<LineCutter>>,
    pub(super) input_ended: bool,
    pub(super) phase: Phase,
    /// A password is being checked or the log read for an answer: later lines wait.
    pub(super) busy: bool,
    /// When the next command would be on time, by the rate (GCRA, ITU-T I.371: the theoretical arrival time).
    on_time: Option<Instant>,
    pub(super) throttled_until: Option<Instant>,
    pub(super) last_life: Instant,
    pub(super) pinged: bool,
    pub(super) timer: Option<Instant>,
    pub(super) touched: Touched,
    /// What is to be sent and is the connection's own, from `out_sent` on.
    out: Vec<u8>,
    out_sent: u32,
    /// What is to be sent behind it and stands in the batches that are shared.
    told: Option<ToldPlace>,
}

/// What connections are told stands in, beside their own buffers.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) shared: Shared,
    /// Empty buffers of connections.
    pub(super) spare: Spare,
}

impl Connection {
    pub(super) fn new(generation: u32, ip: IpAddr, login_deadline: Instant, now: Instant) -> Self {
        Self {
            generation,
            ip,
            is_encrypted: false,
            dialect: None,
            input: None,
            input_ended: false,
            phase: Phase::Greeting { deadline: login_deadline },
            busy: false,
            on_time: None,
            throttled_until: None,
            last_life: now,
            pinged: false,
            timer: None,
            touched: Touched::Not,
            out: Vec::new(),
            out_sent: 0,
            told: None,
        }
    }

    pub(super) fn logged_in(&self) -> Option<&LoggedIn> {
        match &self.phase {
            Phase::LoggedIn(logged_in) => Some(logged_in),
            _ => None,
        }
    }

    pub(super) fn logged_in_mut(&mut self) -> Option<&mut LoggedIn> {
        match &mut self.phase {
            Phase::LoggedIn(logged_in) => Some(logged_in),
            _ => None,
        }
    }

    /// Whether nothing the client says matters any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. } | Phase::Closing { .. })
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Whether nothing more is taken from the client until it has read, or has caught up with what it said meanwhile.
    pub(super) fn is_full(&self, shared: &Shared) -> bool {
        let own_events = self.logged_in().map_or(0, |logged_in| logged_in.own.as_slice().len());
        self.output_bytes(shared) >= OUTPUT_COMMAND_BYTES_MAX || own_events >= OWN_EVENTS_MAX
    }

    /// What is to be written to the socket, in order.
    pub(super) fn output<'a>(&'a self, shared: &'a Shared) -> impl Iterator<Item = &'a [u8]> {
        let kept = Some(self.kept()).filter(|kept| !kept.is_empty());
        kept.into_iter().chain(self.told.into_iter().flat_map(|told| shared.slices(told)))
    }

    /// How many bytes that is.
    pub(super) fn output_bytes(&self, shared: &Shared) -> usize {
        self.kept().len() + self.told.map_or(0, |told| shared.bytes(told))
    }

    /// What of it is the connection's own.
    fn kept(&self) -> &[u8] {
        &self.out[self.out_sent as usize..]
    }

    /// Appends an event's line of the batches that are shared (with its line feed), as the dialect has it; `state` knows
    /// the users.
    pub(super) fn tell_event(&mut self, line: Range<usize>, state: &State, outgoing: &mut Outgoing) {
        if self.dialect != Some(Dialect::Plain) {
            return outgoing.shared.tell(&mut self.told, Source::Lines, line);
        }
        if let Some(told) = self.sentence(outgoing.shared.lines(line), state) {
            self.push(told.as_bytes(), outgoing);
        }
    }

    /// Appends a note of the batches that are shared, which is in the connection's dialect already.
    pub(super) fn tell_note(&mut self, note: Range<usize>, outgoing: &mut Outgoing) {
        outgoing.shared.tell(&mut self.told, Source::Notes, note);
    }

    /// Appends an event's line of the log (with its line feed), as the dialect has it; `state` knows the users.
    pub(super) fn push_event(&mut self, line: &[u8], state: &State, outgoing: &mut Outgoing) {
        if self.dialect != Some(Dialect::Plain) {
            self.push(line, outgoing);
        } else if let Some(told) = self.sentence(line, state) {
            self.push(told.as_bytes(), outgoing);
        }
    }

    /// What somebody who speaks the plain dialect is told of an event.
    fn sentence(&self, line: &[u8], state: &State) -> Option<String> {
        let user = match &self.phase {
            Phase::LoggedIn(logged_in) => logged_in.user,
            Phase::Ended { live } => (*live)?,
            _ => return None,
        };
        let (viewer, _) = state.users.get_index(user as usize)?;
        let record = Event::decode(line.trim_ascii_end()).ok()?;
        Some(sentence::event(&record, *viewer, Timestamp::to_local_words) + "\n")
    }

    /// Appends bytes that are in the connection's dialect already.
    pub(super) fn push(&mut self, bytes: &[u8], outgoing: &mut Outgoing) {
        self.keep(outgoing);
        self.append(bytes, &mut outgoing.spare);
    }

    /// Copies what it is told by reference and is not sent, before anything of its own comes behind it or when its socket
    /// takes nothing for now.
    pub(super) fn keep(&mut self, outgoing: &mut Outgoing) {
        let Outgoing { shared, spare } = outgoing;
        let Some(told) = self.told else { return };
        for bytes in shared.slices(told) {
            self.append(bytes, spare);
        }
        shared.take(&mut self.told, shared.bytes(told));
    }

    /// Forgets what it is told, for it is gone.
    pub(super) fn forget_told(&mut self, shared: &mut Shared) {
        if let Some(told) = self.told {
            shared.take(&mut self.told, shared.bytes(told));
        }
    }

    fn append(&mut self, bytes: &[u8], spare: &mut Spare) {
        if self.out.capacity() == 0 {
            self.out = spare.take();
        }
        if self.out_sent as usize > OUTPUT_SENT_BYTES_MAX {
            self.out.drain(..self.out_sent as usize);
            self.out_sent = 0;
        }
        if self.out.capacity() - self.out.len() < bytes.len() {
            let step = match self.out.len() {
                0 => 0,
                // Doubled, a full one would take twice its bound.
                length if length > OUTPUT_BYTES_MAX / 8 => length / 4,
                length => length.max(OUTPUT_BYTES_USUAL),
            };
            self.out.reserve_exact(bytes.len().max(step));
        }
        self.out.extend_from_slice(bytes);
    }

    /// The socket took `count` bytes of the output. The buffer is kept for the next when all is sent.
    pub(super) fn sent(&mut self, count: usize, now: Instant, outgoing: &mut Outgoing) {
        // That the ping itself went out says nothing about who should read it.
        if !self.pinged {
            self.last_life = now;
        }
        let of_kept = count.min(self.kept().len());
        self.out_sent += u32::try_from(of_kept).expect("an output is far shorter than 4 GiB");
        outgoing.shared.take(&mut self.told, count - of_kept);
        if self.kept().is_empty() {
            outgoing.spare.give(std::mem::take(&mut self.out));
            self.out_sent = 0;
        }
    }

    /// Counts one command; `false` where it comes too early, and has to wait until `throttled_until`.
    pub(super) fn take_token(&mut self, commands_per_second: u32, now: Instant) -> bool {
        if commands_per_second == 0 {
            return true;
        }
        let interval = Duration::from_secs(1) / commands_per_second;
        let on_time = self.on_time.map_or(now, |on_time| on_time.max(now));
        let earliest = on_time.checked_sub(interval * (BURST_COMMANDS - 1));
        if let Some(earliest) = earliest.filter(|earliest| *earliest > now) {
            self.throttled_until = Some(earliest);
            return false;
        }
        self.on_time = Some(on_time + interval);
        self.throttled_until = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_events_are_remembered_until_they_are_durable() {
        let mut logged_in =
            LoggedIn { session: 1, user: 0, watch: false, feed: Feed::Live, own: OwnEvents::default(), parting: None };
        (1..=5).for_each(|seq| logged_in.note_own(seq, 0));
        assert_eq!(logged_in.own.as_slice(), [1, 2, 3, 4, 5]);
        logged_in.note_own(6, 3);
        assert_eq!(logged_in.own.as_slice(), [4, 5, 6]);
        logged_in.own.shrink();
        assert_eq!(logged_in.own.drain_through(9).collect::<Vec<_>>(), [4, 5, 6]);
        logged_in.own.shrink();
        assert!(logged_in.own.0.is_none());
    }

    #[test]
    fn a_connection_that_says_nothing_takes_two_hundred_bytes() {
        assert!(size_of::<Connection>() <= 184, "{} bytes", size_of::<Connection>());
    }

    #[test]
    fn a_client_over_its_rate_waits_and_is_never_refused() {
        let start = crate::clock::monotonic() + Duration::from_secs(60);
        let mut connection = Connection::new(0, "127.0.0.1".parse().unwrap(), start, start);
        let mut now = start;
        let mut taken = 0;
        while now <= start + Duration::from_secs(2) {
            match connection.take_token(200, now) {
                true => taken += 1,
                false => now = connection.throttled_until.unwrap(),
            }
        }
        assert_eq!(taken, BURST_COMMANDS + 2 * 200);
        assert!(connection.take_token(0, now), "a rate of 0 is no limit");
    }
}
