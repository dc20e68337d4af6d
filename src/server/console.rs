//! The lines that an operator follows on standard output, printed by a thread that a stalled pager may stall.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::chat::Event;
use crate::clock::{LocalWords, Timestamp};
use crate::protocol::sentence;

/// How long lines are gathered before the next are printed.
const PAUSE: Duration = Duration::from_millis(20);

/// Appends an event as the console tells it, with its line feed: who wrote to whom, and the text only where that is
/// wanted.
pub(super) fn tell(event: &Event, at: Timestamp, words: &mut LocalWords, with_texts: bool, out: &mut Vec<u8>) {
    let (from, to, text) = match event {
        Event::Message { from, to, text, .. } => (from, [&b" message to "[..], to.as_bytes()], text),
        Event::GroupMessage { group, from, text, .. } => (from, [&b" message to group "[..], group.as_bytes()], text),
        _ => {
            // As `sentence::past_event` would: in a storm of logins most are of the same second.
            out.extend_from_slice(words.of(at).as_bytes());
            out.extend_from_slice(b", ");
            out.extend_from_slice(sentence::happening(event, Timestamp::to_local_words).as_bytes());
            out.push(b'\n');
            return;
        }
    };
    let mut put = |part: &[u8]| out.extend_from_slice(part);
    put(from.as_bytes());
    to.into_iter().for_each(&mut put);
    if with_texts {
        put(b" \"");
        put(sentence::visible(text.as_str()).as_bytes());
        put(b"\"");
    }
    put(b" at ");
    put(words.of(at).as_bytes());
    put(b".\n");
}

/// The thread that prints, with a bound on what waits for it.
pub(super) struct Console {
    lines: Option<Sender<Vec<u8>>>,
    waiting_bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    printer: Option<JoinHandle<()>>,
}

impl Console {
    /// Starts the thread; at most about `bytes_max` bytes wait for it.
    pub(super) fn spawn(bytes_max: usize) -> Self {
        let (lines, todo) = mpsc::channel::<Vec<u8>>();
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&waiting_bytes);
        let printer = std::thread::Builder::new().name("console".into()).spawn(move || {
            while let Ok(mut lines) = todo.recv() {
                todo.try_iter().for_each(|more| lines.extend_from_slice(&more));
                let mut out = std::io::stdout().lock();
                // Who reads the console may go away; the server stays.
                let _ = out.write_all(&lines).and_then(|()| out.flush());
                waiting.fetch_sub(lines.len(), Ordering::Relaxed);
                // Thousands of batches a second would each wake this thread; nobody reads so fast.
                std::thread::park_timeout(PAUSE);
            }
        });
        Self { lines: Some(lines), waiting_bytes, bytes_max, printer: printer.ok() }
    }

    /// How many bytes it takes yet.
    pub(super) fn room_bytes(&self) -> usize {
        self.bytes_max.saturating_sub(self.waiting_bytes.load(Ordering::Relaxed))
    }

    /// Has lines printed, each with its line feed.
    pub(super) fn print(&self, lines: Vec<u8>) {
        self.waiting_bytes.fetch_add(lines.len(), Ordering::Relaxed);
        if let Some(thread) = &self.lines {
            let _ = thread.send(lines);
        }
    }

    /// Waits until all is printed, unless nobody is reading.
    pub(super) fn close(&mut self) {
        self.lines = None;
        let deadline = crate::clock::monotonic() + Duration::from_secs(1);
        if let Some(printer) = &self.printer {
            printer.thread().unpark();
        }
        while let Some(printer) = self.printer.take_if(|_| true) {
            if printer.is_finished() || crate::clock::monotonic() > deadline {
                return;
            }
            self.printer = Some(printer);
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}
