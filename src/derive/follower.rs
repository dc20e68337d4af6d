//! The thread that keeps a server's derived files: told how far the log is durable, it reads the log for itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{DeriveError, Keeper};
use crate::chat::Seq;
use crate::clock;
use crate::eventlog::LogReader;

/// How long what follows is collected once something was written: at once when it is quiet, seldom under load.
const PAUSE: Duration = Duration::from_millis(200);
/// How long after a failure it is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The thread, as a server holds it.
#[derive(Debug)]
pub struct Follower {
    told: Arc<Told>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Told {
    through: AtomicU64,
    is_closing: AtomicBool,
    /// Whether the thread is to be woken for what it is told.
    is_idle: AtomicBool,
}

impl Follower {
    /// Starts the thread: it makes the files in `data` anew from the log in `events`, durable up to `through`.
    ///
    /// # Errors
    /// The log cannot be read, the directory not be made, or the system has no thread to give.
    pub fn spawn(data: &Path, events: &Path, through: Seq) -> std::io::Result<Self> {
        let reader = LogReader::open(events).map_err(std::io::Error::other)?;
        let keeper = Keeper::new(reader, data).map_err(std::io::Error::other)?;
        let told = Arc::new(Told {
            through: AtomicU64::new(through),
            is_closing: AtomicBool::new(false),
            is_idle: AtomicBool::new(false),
        });
        let heard = Arc::clone(&told);
        let thread = std::thread::Builder::new().name("derive".into()).spawn(move || follow(keeper, &heard))?;
        Ok(Self { told, thread })
    }

    /// What tells the thread how far the log is durable; it never waits.
    pub fn teller(&self) -> impl FnMut(Seq) + use<> {
        let told = Arc::clone(&self.told);
        let thread = self.thread.thread().clone();
        move |through| {
            told.through.store(through, Ordering::SeqCst);
            if told.is_idle.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
    }

    /// Ends the thread once the files hold all that it was told of, or cannot.
    pub fn close(self) {
        self.told.is_closing.store(true, Ordering::SeqCst);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            eprintln!("messenger: the derived files may not be complete; they are made anew at the next start");
        }
    }
}

fn follow(mut keeper: Keeper, told: &Told) {
    let mut complaint = String::new();
    loop {
        // In this order: what was told before the end was asked for is written.
        let is_closing = told.is_closing.load(Ordering::SeqCst);
        let through = told.through.load(Ordering::SeqCst);
        let written = write(&mut keeper, through);
        match &written {
            Ok(()) if !complaint.is_empty() => {
                complaint.clear();
                eprintln!("messenger: the derived files are written again");
            }
            Ok(()) => {}
            Err(error) => complain(&mut complaint, error),
        }
        if is_closing {
            return;
        }
        told.pause(if written.is_ok() { PAUSE } else { RETRY_PAUSE });
        if written.is_ok() {
            told.wait_for_more_than(through);
        }
    }
}

fn write(keeper: &mut Keeper, through: Seq) -> Result<(), DeriveError> {
    keeper.set_end(through);
    match keeper.catch_up() {
        Err(changed @ DeriveError::Changed(_)) => {
            eprintln!("messenger: {changed}; the derived files are made anew");
            keeper.start_over()?;
            keeper.catch_up()
        }
        done => done,
    }
}

/// Says what is wrong, once as long as it stays the same.
fn complain(last: &mut String, error: &DeriveError) {
    let told = error.to_string();
    if *last != told {
        eprintln!("messenger: {told}; trying again");
        *last = told;
    }
}

impl Told {
    /// Lets time pass, unless the end is asked for.
    fn pause(&self, pause: Duration) {
        let due = clock::monotonic() + pause;
        while !self.is_closing.load(Ordering::SeqCst) {
            let left = due.saturating_duration_since(clock::monotonic());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }

    fn wait_for_more_than(&self, through: Seq) {
        self.is_idle.store(true, Ordering::SeqCst);
        while self.through.load(Ordering::SeqCst) == through && !self.is_closing.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.is_idle.store(false, Ordering::SeqCst);
    }
}
