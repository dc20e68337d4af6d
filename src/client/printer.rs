//! A thread that prints, so that a stalled terminal or pager never stalls the client.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::interface::Wake;

/// Prints above a line that is being edited.
pub(super) type PrintAbove = Box<dyn FnMut(String) -> bool + Send>;

/// How long the end waits for a reader who does not read.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// The thread, and what it shares.
pub(super) struct Printer {
    texts: Option<Sender<String>>,
    shared: Arc<Shared>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    is_broken: AtomicBool,
}

impl Printer {
    /// A printer to standard output, or above the line that is being edited. `wake` is called when all is printed.
    pub(super) fn spawn(print_above: Option<PrintAbove>, wake: Wake) -> std::io::Result<Self> {
        let (texts, todo) = mpsc::channel();
        let (is_done, done) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let mine = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("printer".into()).spawn(move || {
            print_all(&todo, print_above, &mine, &wake);
            let _ = is_done.send(());
        })?;
        Ok(Self { texts: Some(texts), shared, done, thread: Some(thread) })
    }

    /// Has a text printed, as it is.
    pub(super) fn print(&self, text: String) {
        self.shared.waiting_bytes.fetch_add(text.len(), Ordering::Relaxed);
        if let Some(texts) = &self.texts {
            let _ = texts.send(text);
        }
    }

    /// Bytes that wait to be printed.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.shared.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Whether nobody reads any more.
    pub(super) fn is_broken(&self) -> bool {
        self.shared.is_broken.load(Ordering::Relaxed)
    }

    /// Waits until all is printed, unless nobody is reading.
    pub(super) fn close(&mut self) {
        self.texts = None;
        if self.done.recv_timeout(CLOSE_PATIENCE).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn print_all(todo: &Receiver<String>, mut print_above: Option<PrintAbove>, shared: &Shared, wake: &Wake) {
    for text in todo {
        let length = text.len();
        let is_printed = match &mut print_above {
            Some(print) => print(text),
            None => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
            }
        };
        if !is_printed {
            shared.is_broken.store(true, Ordering::Relaxed);
        }
        if shared.waiting_bytes.fetch_sub(length, Ordering::Relaxed) == length || !is_printed {
            wake();
        }
    }
    if let Some(print) = &mut print_above {
        // The editor takes a text when it has printed the one before: two that show nothing (a line up and a line
        // down) see to it that the last one is on the screen.
        for _ in 0..2 {
            print("\x1b[A\n".into());
        }
    }
}
