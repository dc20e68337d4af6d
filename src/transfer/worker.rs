//! The thread that hashes and touches the disk, so that the loop never waits for either.
//!
//! Jobs are done in the order in which they were given. Their number is bounded by the buffers that they carry, or by
//! who gives them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use super::blocks::{self, Value};
use super::failure::Failure;
use super::file::Source;
use super::part::Part;
use super::pool::Buffer;

/// Blocks of a part from before that are checked in one job, so that other transfers get their turn.
const CHECKED_PER_JOB: u32 = 64;

/// Which transfer, in this process, a job or a report belongs to.
pub type Ticket = u64;

/// Something to be done.
#[derive(Debug)]
pub struct Job {
    /// Whose.
    pub ticket: Ticket,
    /// What.
    pub task: Task,
}

/// What can be done.
#[derive(Debug)]
pub enum Task {
    /// Read a block of the source and find its value.
    Read(Arc<Source>, u32, Buffer),
    /// See whether the source changed.
    CheckSource(Arc<Source>),
    /// Check the blocks of a part from before, from this one on.
    CheckPart(Arc<Part>, u32, Buffer),
    /// Check a block that arrived with this value, and write it.
    Store(Arc<Part>, u32, Value, Buffer),
    /// Compare the value that the sender has for a block with ours.
    Compare(Arc<Part>, u32, Value),
    /// Check the hash of the whole file, and give the file its name.
    Finish(Arc<Part>, Value),
    /// Remove a part; nothing is reported.
    Discard(Arc<Part>),
}

/// What was done.
#[derive(Debug)]
pub struct Report {
    /// For whom.
    pub ticket: Ticket,
    /// What came of it.
    pub outcome: Result<Outcome, Failure>,
}

/// What came of a task.
#[derive(Debug)]
pub enum Outcome {
    /// A block of the source.
    Read(u32, Value, Buffer),
    /// The source is what it was.
    SourceUnchanged,
    /// These blocks of a part are right; the check goes on from that one.
    PartChecked(Vec<u32>, u32),
    /// A block is written.
    Stored(u32),
    /// A block's bytes do not have its value; it was not written.
    Wrong(u32),
    /// Whether the sender's value of a block is ours.
    Compared(u32, bool),
    /// The file has its name.
    Finished(std::path::PathBuf),
}

/// The loop's end of the thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    jobs: Sender<Job>,
    reports: Receiver<Report>,
}

impl Worker {
    /// Starts the thread; `wake` is called after each report.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn(wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (done, reports) = mpsc::channel();
        std::thread::Builder::new().name("transfers".into()).spawn(move || {
            for Job { ticket, task } in todo {
                let Some(outcome) = perform(task).transpose() else { continue };
                if done.send(Report { ticket, outcome }).is_err() {
                    return;
                }
                wake();
            }
        })?;
        Ok(Self { jobs, reports })
    }

    /// Gives a job to the thread.
    pub fn submit(&self, ticket: Ticket, task: Task) {
        // The thread ends only after this has been dropped.
        let _ = self.jobs.send(Job { ticket, task });
    }

    /// The next report, if there is one.
    pub fn try_report(&self) -> Option<Report> {
        self.reports.try_recv().ok()
    }
}

fn perform(task: Task) -> Result<Option<Outcome>, Failure> {
    Ok(Some(match task {
        Task::Read(source, index, mut buffer) => {
            source.read_block(index, buffer.bytes_mut())?;
            let value = blocks::value(source.size_bytes(), index, buffer.as_ref());
            Outcome::Read(index, value, buffer)
        }
        Task::CheckSource(source) => {
            source.check_unchanged()?;
            Outcome::SourceUnchanged
        }
        Task::CheckPart(part, first, mut buffer) => {
            let end = blocks::count(part.key().size).min(first.saturating_add(CHECKED_PER_JOB));
            let right = (first..end).filter(|index| part.check_block(*index, buffer.bytes_mut())).collect();
            Outcome::PartChecked(right, end)
        }
        Task::Store(part, index, value, buffer) => {
            if blocks::value(part.key().size, index, buffer.as_ref()) != value {
                return Ok(Some(Outcome::Wrong(index)));
            }
            part.write_block(index, &value, buffer.as_ref())?;
            Outcome::Stored(index)
        }
        Task::Compare(part, index, value) => Outcome::Compared(index, part.value(index) == Some(value)),
        Task::Finish(part, root) => {
            if part.root() != Some(root) {
                return Err(Failure::VerifyFailed);
            }
            Outcome::Finished(part.finish()?)
        }
        Task::Discard(part) => {
            part.discard();
            return Ok(None);
        }
    }))
}
