//! How much a peer may send before it is read: as little as keeps the path busy, for what is on its way may find the
//! system's buffer full.

use std::time::{Duration, Instant};

use super::limits::{LOCAL_ROUND_TRIP, RECEIVE_WINDOW_MAX_BYTES};

/// A receive window that grows with the path.
#[derive(Debug)]
pub struct Window {
    bytes: u32,
    /// A path on which packets wait is not longer for that, so the shortest counts.
    shortest: Duration,
    round_began: Option<Instant>,
    read_bytes: u64,
}

impl Window {
    /// A window that begins with so many bytes.
    pub fn new(bytes: u32) -> Self {
        Self { bytes, shortest: Duration::MAX, round_began: None, read_bytes: 0 }
    }

    /// Notes that bytes were read; gives the new size when the window grows.
    ///
    /// It doubles when more than half of it was read within a round trip: the sender waited for it. On a local network
    /// it stays, since there it only fills the system's buffer.
    pub fn note_read(&mut self, bytes: u64, round_trip: Duration, now: Instant) -> Option<u32> {
        self.read_bytes += bytes;
        self.shortest = self.shortest.min(round_trip);
        let began = *self.round_began.get_or_insert(now);
        if now.saturating_duration_since(began) < self.shortest {
            return None;
        }
        let is_filled = self.read_bytes > u64::from(self.bytes / 2);
        (self.round_began, self.read_bytes) = (Some(now), 0);
        if !is_filled || self.shortest < LOCAL_ROUND_TRIP || self.bytes >= RECEIVE_WINDOW_MAX_BYTES {
            return None;
        }
        self.bytes = self.bytes.saturating_mul(2).min(RECEIVE_WINDOW_MAX_BYTES);
        Some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;

    fn grown(round_trip: Duration, bytes_per_round: u64) -> Vec<u32> {
        let mut now = crate::clock::monotonic();
        let mut window = Window::new(MIB);
        let mut sizes = Vec::new();
        for _ in 0..20 {
            sizes.extend(window.note_read(bytes_per_round, round_trip, now));
            now += round_trip;
        }
        sizes
    }

    #[test]
    fn a_window_doubles_while_a_long_path_fills_it() {
        assert_eq!(grown(Duration::from_millis(50), 100 << 20), [2 * MIB, 4 * MIB, 8 * MIB, 12 * MIB]);
        assert_eq!(grown(Duration::from_millis(50), u64::from(MIB)), [2 * MIB]);
    }

    #[test]
    fn a_window_does_not_grow_because_packets_wait() {
        let mut now = crate::clock::monotonic();
        let mut window = Window::new(MIB);
        assert_eq!(window.note_read(0, Duration::from_micros(300), now), None);
        for _ in 0..20 {
            now += Duration::from_millis(10);
            assert_eq!(window.note_read(100 << 20, Duration::from_millis(10), now), None);
        }
    }

    #[test]
    fn a_window_stays_on_a_local_network_or_when_it_is_not_filled() {
        assert_eq!(grown(Duration::from_millis(1), 100 << 20), [0; 0]);
        assert_eq!(grown(Duration::from_millis(50), 1_000), [0; 0]);
    }
}
