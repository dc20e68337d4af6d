//! The log's own thread: while it makes one batch durable the loop fills the next (group commit).

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;

use super::append::{AppendError, Batch, Durable, Log};
use super::storage::Storage;
use crate::clock;

/// What the log's thread has done.
#[derive(Debug)]
pub enum Report {
    /// A batch is on stable storage.
    Durable(Durable),
    /// The log was asked for room.
    Room {
        /// How many bytes of events it surely takes.
        room_bytes: u64,
    },
    /// It failed, and takes no more.
    Failed(AppendError),
}

enum Order {
    Append(Batch),
    AskForRoom,
}

/// The thread, as the loop holds it.
#[derive(Debug)]
pub struct Writer {
    orders: Sender<Order>,
    reports: Receiver<Report>,
    thread: JoinHandle<Result<(), AppendError>>,
}

impl Writer {
    /// Starts the thread; `wake` is called behind each report.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn<S: Storage>(log: Log<S>, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (orders, todo) = mpsc::channel();
        let (done, reports) = mpsc::channel();
        let work = move || {
            let report = |report| {
                // A loop that is gone hears nothing; the channel of orders ends the thread then.
                let _ = done.send(report);
                wake();
            };
            run(log, &todo, &report)
        };
        let thread = std::thread::Builder::new().name("log".into()).spawn(work)?;
        Ok(Self { orders, reports, thread })
    }

    /// Gives a batch to be made durable. One at a time: [`Report::Durable`] is owed before the next.
    pub fn submit(&self, batch: Batch) {
        // A thread that has failed has reported why.
        let _ = self.orders.send(Order::Append(batch));
    }

    /// Asks for more room; [`Report::Room`] is owed.
    pub fn ask_for_room(&self) {
        let _ = self.orders.send(Order::AskForRoom);
    }

    /// What was done since the last call, one report at a time.
    pub fn try_report(&self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// Ends the thread once all it was given is durable, HEAD too.
    ///
    /// # Errors
    /// The disk failed.
    pub fn close(self) -> Result<(), AppendError> {
        drop(self.orders);
        self.thread.join().expect("the log's thread does not panic")
    }
}

fn run<S: Storage>(mut log: Log<S>, todo: &Receiver<Order>, report: &dyn Fn(Report)) -> Result<(), AppendError> {
    loop {
        let now = clock::monotonic();
        if let Err(error) = log.tend(now) {
            return fail(error, report);
        }
        let order = match log.next_timeout(now) {
            Some(due) => todo.recv_timeout(due.saturating_duration_since(now)),
            None => todo.recv().map_err(RecvTimeoutError::from),
        };
        match order {
            Ok(Order::Append(batch)) => match log.append(batch) {
                Ok(durable) => report(Report::Durable(durable)),
                Err(error) => return fail(error, report),
            },
            Ok(Order::AskForRoom) => {
                if let Err(error) = log.tend(clock::monotonic()) {
                    return fail(error, report);
                }
                report(Report::Room { room_bytes: log.room_bytes() });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return log.close(),
        }
    }
}

/// Reports a failure. The sync is not tried again: what a failed one left undone, a later one would pass over.
fn fail(error: AppendError, report: &dyn Fn(Report)) -> Result<(), AppendError> {
    report(Report::Failed(error));
    Ok(())
}
