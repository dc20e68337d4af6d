//! A bar that shows how far something long has come, on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::clock;

/// What is done sooner needs no bar.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// How often it is drawn on a terminal.
const DRAWN_EVERY: Duration = Duration::from_millis(100);
/// Its width, in characters.
const WIDTH: usize = 40;

/// A bar: on a terminal one line that changes, elsewhere a line for each tenth.
#[derive(Debug)]
pub struct ProgressBar {
    what: &'static str,
    is_terminal: bool,
    due: Instant,
    tenths: u64,
    is_shown: bool,
}

impl ProgressBar {
    /// A bar that is not seen yet.
    pub fn new(what: &'static str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { what, is_terminal, due: clock::monotonic() + SHOWN_AFTER, tenths: 0, is_shown: false }
    }

    /// So much is done of the whole.
    pub fn show(&mut self, done: u64, total: u64) {
        let now = clock::monotonic();
        if now < self.due || total == 0 {
            return;
        }
        self.due = now + DRAWN_EVERY;
        let tenths = done.saturating_mul(10) / total;
        if self.is_terminal {
            self.is_shown = true;
            // Who cannot see it misses nothing.
            let _ = write!(std::io::stderr(), "\r{}", bar(self.what, done, total));
        } else if tenths > self.tenths {
            self.tenths = tenths;
            let _ = writeln!(std::io::stderr(), "messenger: {}", bar(self.what, done, total));
        }
    }

    /// Ends it, so that what is said next begins a line.
    pub fn end(&self) {
        if self.is_shown {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn bar(what: &str, done: u64, total: u64) -> String {
    let percent = (done.saturating_mul(100) / total.max(1)).min(100);
    let filled = usize::try_from(percent).unwrap_or(100) * WIDTH / 100;
    format!("{what} [{}{}] {percent:3} %", "#".repeat(filled), "-".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_up() {
        assert_eq!(bar("reading", 1, 4), format!("reading [{}{}]  25 %", "#".repeat(10), "-".repeat(30)));
        assert_eq!(bar("reading", 4, 4), format!("reading [{}] 100 %", "#".repeat(40)));
    }
}
