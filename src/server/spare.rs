//! Buffers of connections that everything was sent from, kept to be used again: a message to many would else ask the
//! system for memory for each of them, and give it back at once.

use super::limits::{SPARE_BUFFER_BYTES_MAX, SPARE_BYTES_MAX};

/// Empty buffers; what came last goes first, for it is in the processor's cache.
#[derive(Debug, Default)]
pub(super) struct Spare {
    buffers: Vec<Vec<u8>>,
    /// The memory of them all.
    bytes: usize,
}

impl Spare {
    /// A buffer with nothing in it, and perhaps with room.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps a buffer, unless it is large or there are enough.
    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        if (1..=SPARE_BUFFER_BYTES_MAX).contains(&bytes) && self.bytes + bytes <= SPARE_BYTES_MAX {
            buffer.clear();
            self.bytes += bytes;
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_taken_again_and_never_more_than_a_bound_is_kept() {
        let mut spare = Spare::default();
        assert_eq!(spare.take().capacity(), 0);
        let mut used = Vec::with_capacity(100);
        used.push(1);
        spare.give(used);
        let again = spare.take();
        assert_eq!((again.len(), again.capacity()), (0, 100));
        spare.give(Vec::new());
        spare.give(Vec::with_capacity(SPARE_BUFFER_BYTES_MAX + 1));
        assert_eq!(spare.take().capacity(), 0, "neither nothing nor much is worth keeping");
        for _ in 0..2 * SPARE_BYTES_MAX / 1_000 {
            spare.give(Vec::with_capacity(1_000));
        }
        assert_eq!(spare.buffers.len(), SPARE_BYTES_MAX / 1_000);
        assert!(spare.bytes <= SPARE_BYTES_MAX);
    }
}
