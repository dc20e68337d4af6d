//! The thread that reads lines back from the log, so that the loop never waits for the disk.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};

use super::archive::{Lines, Older};
use super::connection::ConnectionKey;
use super::hub::Purpose;
use super::limits;
use super::segment::Position;

/// Reads lines of the log, on a thread of its own; `None` where the disk does not give them.
pub type ReadLines = Box<dyn FnMut(Option<&Older>, &[Position]) -> Option<Lines> + Send>;

/// Lines asked of the reader.
pub(super) struct ReadJob {
    pub(super) connection: ConnectionKey,
    pub(super) purpose: Purpose,
    pub(super) older: Option<Older>,
    pub(super) positions: Vec<Position>,
}

/// What a job brought.
pub(super) struct LinesRead {
    pub(super) connection: ConnectionKey,
    pub(super) purpose: Purpose,
    pub(super) lines: Option<Lines>,
}

/// Jobs in the order in which they are done. Each connection has at most one under way, so that they are bounded by
/// their number, and each is served in turn.
#[derive(Default)]
struct Jobs {
    /// Answers somebody waits for at a keyboard; they go before the long readings, one after each of those at least.
    histories: VecDeque<ReadJob>,
    backlogs: VecDeque<ReadJob>,
    last_was_history: bool,
}

/// Starts the thread; it calls `wake` when it has read something, and ends with the channel of its jobs.
///
/// # Errors
/// The system gives no thread.
pub(super) fn spawn(
    mut read_lines: ReadLines,
    wake: impl Fn() + Send + 'static,
) -> io::Result<(Sender<ReadJob>, Receiver<LinesRead>)> {
    let (sender, todo) = mpsc::channel::<ReadJob>();
    let (done, read) = mpsc::sync_channel(limits::CHUNKS_PER_TURN);
    std::thread::Builder::new().name("log reader".into()).spawn(move || {
        let mut jobs = Jobs::default();
        while let Some(ReadJob { connection, purpose, older, positions }) = jobs.next(&todo) {
            let lines = read_lines(older.as_ref(), &positions);
            if done.send(LinesRead { connection, purpose, lines }).is_err() {
                return;
            }
            wake();
        }
    })?;
    Ok((sender, read))
}

impl Jobs {
    /// The next job; `None` once nobody can give any.
    fn next(&mut self, todo: &Receiver<ReadJob>) -> Option<ReadJob> {
        if self.histories.is_empty() && self.backlogs.is_empty() {
            self.add(todo.recv().ok()?);
        }
        while let Ok(job) = todo.try_recv() {
            self.add(job);
        }
        let take_history = self.backlogs.is_empty() || (!self.histories.is_empty() && !self.last_was_history);
        self.last_was_history = take_history;
        if take_history { self.histories.pop_front() } else { self.backlogs.pop_front() }
    }

    fn add(&mut self, job: ReadJob) {
        match job.purpose {
            Purpose::History => self.histories.push_back(job),
            Purpose::CatchUp => self.backlogs.push_back(job),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(place: u32, purpose: Purpose) -> ReadJob {
        ReadJob { connection: ConnectionKey { place, generation: 0 }, purpose, older: None, positions: Vec::new() }
    }

    #[test]
    fn each_waits_for_its_turn_and_a_history_for_one_long_reading_at_most() {
        let (sender, todo) = mpsc::channel();
        for place in 0..3 {
            sender.send(job(place, Purpose::CatchUp)).unwrap();
        }
        sender.send(job(7, Purpose::History)).unwrap();
        sender.send(job(8, Purpose::History)).unwrap();
        drop(sender);
        let mut jobs = Jobs::default();
        let order: Vec<u32> = std::iter::from_fn(|| jobs.next(&todo)).map(|job| job.connection.place).collect();
        assert_eq!(order, [7, 0, 8, 1, 2]);
    }
}
