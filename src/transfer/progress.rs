//! How often progress is told: not more than people and frames can use.

use std::time::Instant;

use super::limits::PROGRESS_INTERVAL;

/// What was told last.
#[derive(Debug, Default)]
pub struct Progress {
    told: Option<(Instant, u64)>,
}

impl Progress {
    /// The number to be told now, if it is new and the last was long enough ago.
    pub fn report(&mut self, done_bytes: u64, now: Instant) -> Option<u64> {
        let is_due = self.told.is_none_or(|(at, bytes)| at + PROGRESS_INTERVAL <= now && bytes != done_bytes);
        is_due.then(|| {
            self.told = Some((now, done_bytes));
            done_bytes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_when_it_is_new_and_not_too_often() {
        let now = crate::clock::monotonic();
        let mut progress = Progress::default();
        assert_eq!(progress.report(0, now), Some(0));
        assert_eq!(progress.report(5, now), None);
        assert_eq!(progress.report(5, now + PROGRESS_INTERVAL), Some(5));
        assert_eq!(progress.report(5, now + PROGRESS_INTERVAL * 3), None);
    }
}
