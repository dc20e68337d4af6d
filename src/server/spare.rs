//! Memory that is kept to be used again: buffers of connections that everything was sent from, and those of batches.

use super::limits::{SPARE_BATCH_BYTES_MAX, SPARE_BUFFER_BYTES_MAX, SPARE_BYTES_MAX};

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

/// Gives the memory of a batch's list back if that is large and nothing is in it.
pub(super) fn shrink<T>(list: &mut Vec<T>) {
    if list.is_empty() && is_large(list) {
        *list = Vec::new();
    }
}

/// Whether the memory of a batch's list is more than is kept for long.
pub(super) fn is_large<T>(list: &Vec<T>) -> bool {
    list.capacity() * size_of::<T>() > SPARE_BATCH_BYTES_MAX
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
