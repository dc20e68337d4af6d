//! How far something long has come, on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::clock;

/// What is done sooner needs no bar.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// How often it is drawn on a terminal.
const DRAWN_EVERY: Duration = Duration::from_millis(100);
/// Its width, in characters.
const WIDTH: usize = 40;

/// A bar on a terminal, which is one line that changes; elsewhere a plain line for each tenth.
#[derive(Debug)]
pub struct ProgressBar {
    drawing: Drawing,
}

impl ProgressBar {
    /// A bar that is not seen yet.
    pub fn new(what: &'static str) -> Self {
        Self { drawing: Drawing::new(what, std::io::stderr().is_terminal(), clock::monotonic()) }
    }

    /// So much is done of the whole.
    pub fn show(&mut self, done: u64, total: u64) {
        if let Some(drawn) = self.drawing.draw(clock::monotonic(), done, total) {
            // Who cannot see it misses nothing.
            let _ = std::io::stderr().write_all(drawn.as_bytes());
        }
    }

    /// Ends it, so that what is said next begins a line.
    pub fn end(&self) {
        if self.drawing.is_line_open {
            let _ = writeln!(std::io::stderr());
        }
    }
}

/// What is to be written, and when.
#[derive(Debug)]
struct Drawing {
    what: &'static str,
    is_terminal: bool,
    /// From when on something may be written.
    due: Instant,
    tenths: u64,
    is_line_open: bool,
}

impl Drawing {
    fn new(what: &'static str, is_terminal: bool, start: Instant) -> Self {
        Self { what, is_terminal, due: start + SHOWN_AFTER, tenths: 0, is_line_open: false }
    }

    /// What is to be written at a moment, if anything is.
    fn draw(&mut self, now: Instant, done: u64, total: u64) -> Option<String> {
        if now < self.due || total == 0 {
            return None;
        }
        let percent = (done.saturating_mul(100) / total).min(100);
        let tenths = percent / 10;
        if self.is_terminal {
            self.due = now + DRAWN_EVERY;
            self.is_line_open = true;
            let filled = usize::try_from(percent).unwrap_or(100) * WIDTH / 100;
            let bar = "#".repeat(filled) + &"-".repeat(WIDTH - filled);
            return Some(format!("\r{} [{bar}] {percent:3} %", self.what));
        }
        if tenths == self.tenths {
            return None;
        }
        self.tenths = tenths;
        Some(format!("messenger: {}: {percent} %\n", self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written when a hundredth is done every so many milliseconds.
    fn written(is_terminal: bool, step_ms: u64) -> Vec<String> {
        let start = clock::monotonic();
        let mut drawing = Drawing::new("reading", is_terminal, start);
        let draw = |hundredth| drawing.draw(start + Duration::from_millis(step_ms * hundredth), hundredth, 100);
        (0..=100).filter_map(draw).collect()
    }

    #[test]
    fn what_is_done_within_a_second_shows_nothing() {
        assert_eq!(written(true, 9), [""; 0]);
        assert_eq!(written(false, 9), [""; 0]);
    }

    #[test]
    fn on_a_terminal_one_line_is_drawn_again_from_the_first_second_on_every_tenth_of_a_second() {
        let drawn = written(true, 40);
        assert_eq!(drawn[0], format!("\rreading [{}{}]  25 %", "#".repeat(10), "-".repeat(30)));
        assert_eq!(drawn[1], format!("\rreading [{}{}]  28 %", "#".repeat(11), "-".repeat(29)));
        assert_eq!(drawn.len(), 26);
        assert_eq!(drawn[25], format!("\rreading [{}] 100 %", "#".repeat(40)));
        assert!(drawn.iter().all(|line| line.chars().count() < 80 && !line.contains('\n')));
    }

    #[test]
    fn elsewhere_there_is_a_plain_line_for_each_tenth() {
        let drawn = written(false, 40);
        assert_eq!(drawn[..2], ["messenger: reading: 25 %\n", "messenger: reading: 30 %\n"]);
        assert_eq!(drawn.len(), 9);
        assert!(drawn.iter().all(|line| line.matches(char::is_control).eq(["\n"])));
    }
}
