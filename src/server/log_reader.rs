//! The thread that reads lines back from the log, so that the loop never waits for the disk.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};

use super::connection::ConnectionKey;
use super::hub::Purpose;
use super::index::Position;

/// Reads lines of the log, on a thread of its own; `None` where the disk does not give them.
pub type ReadLines = Box<dyn FnMut(&[Position]) -> Option<Vec<u8>> + Send>;

/// Lines asked of the reader.
pub(super) struct ReadJob {
    pub(super) connection: ConnectionKey,
    pub(super) purpose: Purpose,
    pub(super) positions: Vec<Position>,
}

/// What a job brought.
pub(super) struct LinesRead {
    pub(super) job: ReadJob,
    pub(super) lines: Option<Vec<u8>>,
}

/// Starts the thread; it calls `wake` when it has read something, and ends with the channel of its jobs.
///
/// # Errors
/// The system gives no thread.
pub(super) fn spawn(
    mut read_lines: ReadLines,
    wake: impl Fn() + Send + 'static,
) -> io::Result<(Sender<ReadJob>, Receiver<LinesRead>)> {
    let (jobs, todo) = mpsc::channel::<ReadJob>();
    let (done, read) = mpsc::channel();
    std::thread::Builder::new().name("log reader".into()).spawn(move || {
        // Each connection has at most one job under way, so that the queue is bounded by their number.
        for job in todo {
            let lines = read_lines(&job.positions);
            if done.send(LinesRead { job, lines }).is_err() {
                return;
            }
            wake();
        }
    })?;
    Ok((jobs, read))
}
