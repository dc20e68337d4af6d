//! The thread that archives: when a segment is closed it makes its index and a snapshot, from the disk alone.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::limits;
use crate::chat::Seq;
use crate::clock;

/// What came of archiving.
#[derive(Debug, Clone, Default)]
pub struct Archived {
    /// Whether the segments up to the event have what stands for them, so that they need not be kept in memory.
    pub is_done: bool,
    /// Whether something is left to be made: it is tried again.
    pub is_owing: bool,
    /// What the operator should know.
    pub notices: Vec<String>,
}

/// Archives the closed segments up to an event, on a thread of its own.
pub type ArchiveThrough = Box<dyn FnMut(Seq) -> Archived + Send>;

/// Starts the thread; it is given the last events of closed segments and gives those up to which all is archived. It
/// calls `wake` then, and ends with the channel.
///
/// # Errors
/// The system gives no thread.
pub(super) fn spawn(
    archive_through: ArchiveThrough,
    wake: impl Fn() + Send + 'static,
) -> io::Result<(Sender<Seq>, Receiver<Seq>)> {
    let (orders, todo) = mpsc::channel::<Seq>();
    let (done, archived) = mpsc::channel();
    std::thread::Builder::new().name("archivist".into()).spawn(move || {
        // The loop has the machine first. Where the system does not take it, nothing is lost but a little speed.
        let _ = rustix::process::nice(10);
        let report = |through| {
            // A loop that is gone hears nothing; the channel of orders ends the thread then.
            let _ = done.send(through);
            wake();
        };
        archive(&todo, archive_through, report, Debts::new(Duration::from_millis(limits::ARCHIVE_AGAIN_MS)));
    })?;
    Ok((orders, archived))
}

fn archive(todo: &Receiver<Seq>, mut archive_through: ArchiveThrough, report: impl Fn(Seq), mut debts: Debts) {
    let mut through = 0;
    loop {
        let order = match debts.next_timeout() {
            Some(due) => todo.recv_timeout(due.saturating_duration_since(clock::monotonic())),
            None => todo.recv().map_err(RecvTimeoutError::from),
        };
        match order {
            Ok(closed) => through = closed,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let archived = archive_through(through);
        if archived.is_done {
            report(through);
        }
        for notice in debts.handle_archived(archived, clock::monotonic()) {
            eprintln!("messenger: {notice}");
        }
    }
}

/// What failed is tried again, ever more seldom, and said once.
#[derive(Debug)]
struct Debts {
    first_pause: Duration,
    /// How long the last failure was waited with, and until when; `None` while nothing is owed.
    waiting: Option<(Duration, Instant)>,
    /// What was said since something is owed.
    said: Vec<String>,
}

impl Debts {
    fn new(first_pause: Duration) -> Self {
        Self { first_pause, waiting: None, said: Vec::new() }
    }

    /// When what is owed is to be tried again.
    fn next_timeout(&self) -> Option<Instant> {
        self.waiting.map(|(_, due)| due)
    }

    /// Takes in what came of a try; gives what is to be said.
    fn handle_archived(&mut self, archived: Archived, now: Instant) -> Vec<String> {
        let mut notices = archived.notices;
        notices.retain(|notice| !self.said.contains(notice));
        if archived.is_owing {
            let longest = Duration::from_millis(limits::ARCHIVE_AGAIN_MS_MAX);
            self.waiting = Some(match self.waiting {
                None => (self.first_pause, now + self.first_pause),
                // Tried before its time, for another segment was closed.
                Some((pause, due)) if now < due => (pause, due),
                Some((pause, _)) => {
                    let pause = longest.min(2 * pause);
                    (pause, now + pause)
                }
            });
            self.said.extend_from_slice(&notices);
        } else if self.waiting.take().is_some() {
            self.said.clear();
            notices.push("the indexes and snapshots are written again".to_owned());
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(why: &str) -> Archived {
        Archived { is_done: false, is_owing: true, notices: vec![why.to_owned()] }
    }

    fn done() -> Archived {
        Archived { is_done: true, ..Archived::default() }
    }

    #[test]
    fn a_failure_is_said_once_and_tried_again_ever_more_seldom_until_its_end_which_is_said_once() {
        let mut debts = Debts::new(Duration::from_millis(limits::ARCHIVE_AGAIN_MS));
        let mut now = clock::monotonic();
        for failures in 0..2 {
            assert_eq!(debts.next_timeout(), None, "nothing is waited for where nothing is owed");
            assert_eq!(debts.handle_archived(done(), now), [""; 0], "after {failures} failures");
            for (place, seconds) in [60, 120, 240, 480, 600, 600].into_iter().enumerate() {
                let said = debts.handle_archived(failed("the disk is full"), now);
                assert_eq!(said, if place == 0 { vec!["the disk is full"] } else { Vec::new() });
                assert_eq!(debts.next_timeout(), Some(now + Duration::from_secs(seconds)));
                debts.handle_archived(failed("the disk is full"), now + Duration::from_secs(1));
                assert_eq!(debts.next_timeout(), Some(now + Duration::from_secs(seconds)), "as at that try");
                now = debts.next_timeout().unwrap();
            }
            assert_eq!(debts.handle_archived(failed("the disk fails"), now), ["the disk fails"], "that is news");
            assert_eq!(debts.handle_archived(done(), now), ["the indexes and snapshots are written again"]);
        }
    }

    #[test]
    fn what_failed_is_tried_again_without_being_asked_for() {
        let (orders, todo) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let mut failures = 3;
        let archive_through = move |through| {
            assert_eq!(through, 7);
            failures -= 1;
            if failures > 0 { failed("the disk is full") } else { done() }
        };
        orders.send(7).unwrap();
        let work = std::thread::spawn(move || {
            let report = |through| tell.send(through).unwrap();
            archive(&todo, Box::new(archive_through), report, Debts::new(Duration::from_millis(1)));
        });
        assert_eq!(told.recv(), Ok(7));
        drop(orders);
        work.join().unwrap();
        assert!(told.recv().is_err(), "what is done is not done again");
    }
}
