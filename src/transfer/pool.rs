//! Buffers of one block each, a fixed number for each transfer: who has none waits, so memory is bounded.

use std::sync::mpsc::{self, Receiver, Sender};

use super::blocks::BLOCK_BYTES;

/// Lends buffers.
#[derive(Debug)]
pub struct Pool {
    returned: Receiver<Vec<u8>>,
    give_back: Sender<Vec<u8>>,
    /// Buffers that may still be made.
    unmade: usize,
}

/// An empty buffer with room for a block; goes back to its pool when it is dropped, on whatever thread.
#[derive(Debug)]
pub struct Buffer {
    /// At most [`BLOCK_BYTES`].
    bytes: Vec<u8>,
    give_back: Sender<Vec<u8>>,
}

impl Pool {
    /// A pool that lends at most `count_max` buffers at once.
    pub fn new(count_max: usize) -> Self {
        let (give_back, returned) = mpsc::channel();
        Self { returned, give_back, unmade: count_max }
    }

    /// Lends a buffer, if one is free.
    pub fn take(&mut self) -> Option<Buffer> {
        let bytes = match self.returned.try_recv() {
            Ok(bytes) => bytes,
            Err(_) => {
                self.unmade = self.unmade.checked_sub(1)?;
                Vec::with_capacity(BLOCK_BYTES)
            }
        };
        Some(Buffer { bytes, give_back: self.give_back.clone() })
    }
}

impl Buffer {
    /// The bytes in it, to be added to.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        // The pool may be gone already, and the buffer goes after it.
        let _ = self.give_back.send(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_lends_so_many_and_takes_them_back_from_any_thread() {
        let mut pool = Pool::new(2);
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_none());
        std::thread::spawn(move || drop(first)).join().unwrap();
        let again = pool.take().unwrap();
        assert!(pool.take().is_none() && again.as_ref().is_empty());
        drop((second, again));
        assert!(pool.take().is_some() && pool.take().is_some());
    }
}
