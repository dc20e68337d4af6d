//! The lines that an operator follows on standard output, printed by a thread that a stalled pager may stall.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use crate::chat::{Event, Record};
use crate::clock::Timestamp;
use crate::protocol::sentence;

/// An event as the console tells it: who wrote to whom, and the text of a private message only where that is wanted.
pub(super) fn told(event: &Event, at: Timestamp, with_texts: bool) -> String {
    match event {
        Event::Message { from, to, text, .. } if with_texts => {
            format!("{from} message to {to} \"{}\" at {}.", sentence::visible(text.as_str()), at.to_local_words())
        }
        Event::Message { from, to, .. } => format!("{from} message to {to} at {}.", at.to_local_words()),
        Event::GroupMessage { group, from, text, .. } if with_texts => {
            let text = sentence::visible(text.as_str());
            format!("{from} message to group {group} \"{text}\" at {}.", at.to_local_words())
        }
        Event::GroupMessage { group, from, .. } => {
            format!("{from} message to group {group} at {}.", at.to_local_words())
        }
        _ => sentence::past_event(&Record { seq: 0, at, event: event.clone() }, Timestamp::to_local_words),
    }
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
            for lines in todo {
                let mut out = std::io::stdout().lock();
                // Who reads the console may go away; the server stays.
                let _ = out.write_all(&lines).and_then(|()| out.flush());
                waiting.fetch_sub(lines.len(), Ordering::Relaxed);
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
        let deadline = crate::clock::monotonic() + std::time::Duration::from_secs(1);
        while let Some(printer) = self.printer.take_if(|_| true) {
            if printer.is_finished() || crate::clock::monotonic() > deadline {
                return;
            }
            self.printer = Some(printer);
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }
}
