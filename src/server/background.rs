//! The threads beside the loop that only read the log: orders go to them, and what they have done comes back.

use std::io;
use std::sync::mpsc::{Receiver, Sender};

use super::archivist::{self, ArchiveThrough};
use super::connection::Now;
use super::hub::Hub;
use super::limits;
use super::log_reader::{self, LinesRead, ReadJob, ReadLines};
use crate::chat::Seq;

/// The threads, as the loop holds them. They end with it.
pub(super) struct Background {
    jobs: Sender<ReadJob>,
    read: Receiver<LinesRead>,
    closed: Sender<Seq>,
    archived: Receiver<Seq>,
    /// Whether as much was read from the log as is taken in one turn.
    pub(super) has_more: bool,
}

impl Background {
    /// Starts them; `wake` wakes the loop.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn spawn(
        read_lines: ReadLines,
        archive_through: ArchiveThrough,
        wake: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let (closed, archived) = archivist::spawn(archive_through, wake.clone())?;
        let (jobs, read) = log_reader::spawn(read_lines, wake)?;
        Ok(Self { jobs, read, closed, archived, has_more: false })
    }

    /// Has lines read.
    pub(super) fn read(&self, job: ReadJob) {
        // The reader ends only with the loop.
        let _ = self.jobs.send(job);
    }

    /// Has closed segments archived.
    pub(super) fn archive(&self, through: Seq) {
        // So does the archivist.
        let _ = self.closed.send(through);
    }

    /// Gives the hub what was done, as much as is taken in one turn; of lines nothing while as much waits for the disk as
    /// may, for each answer would wait, too.
    pub(super) fn take_reports(&mut self, hub: &mut Hub, now: Now) {
        while let Ok(through) = self.archived.try_recv() {
            hub.handle_archived(through);
        }
        self.has_more = true;
        for _ in 0..limits::CHUNKS_PER_TURN {
            if hub.is_overloaded() {
                break;
            }
            let Ok(LinesRead { connection, purpose, lines }) = self.read.try_recv() else {
                self.has_more = false;
                break;
            };
            hub.handle_lines(connection, purpose, lines.as_ref(), now);
        }
    }
}
