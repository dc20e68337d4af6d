//! The arithmetic of blocks: how a file is cut, which blocks are there, and how their values make the file's hash.
//!
//! A block of 1 MiB is a whole subtree of the BLAKE3 tree, so its value stands for its bytes, and the values of all
//! blocks make the hash that `b3sum FILE` prints. A file of one block has no inner value: its value is the hash itself.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes of a block: 1,024 chunks of BLAKE3, so that every block but the last is a complete subtree.
pub const BLOCK_BYTES: usize = 1 << 20;
/// Bytes of a value or hash.
pub const VALUE_BYTES: usize = 32;

/// The value of a block: the chaining value of its subtree.
pub type Value = [u8; VALUE_BYTES];

/// The blocks of a file of `size` bytes; an empty file has none.
pub fn count(size: u64) -> u32 {
    // A file has at most 2^40 bytes, which are 2^20 blocks.
    u32::try_from(size.div_ceil(BLOCK_BYTES as u64)).unwrap_or(u32::MAX)
}

/// Where a block begins, in bytes.
pub fn offset(index: u32) -> u64 {
    u64::from(index) * BLOCK_BYTES as u64
}

/// Bytes of a block; 0 for one that is not there.
pub fn length(size: u64, index: u32) -> usize {
    let left = size.saturating_sub(offset(index)).min(BLOCK_BYTES as u64);
    usize::try_from(left).unwrap_or(BLOCK_BYTES)
}

/// The value of a block's bytes.
pub fn value(size: u64, index: u32, bytes: &[u8]) -> Value {
    if size <= BLOCK_BYTES as u64 {
        return *blake3::hash(bytes).as_bytes();
    }
    blake3::Hasher::new().set_input_offset(offset(index)).update(bytes).finalize_non_root()
}

/// The file's hash, from the values of its blocks in ascending order; holds a value a level of the tree.
#[derive(Debug, Default)]
pub struct Root {
    /// Values of complete subtrees, the largest first.
    stack: Vec<Value>,
    count: u64,
}

impl Root {
    /// Takes the value of the next block.
    pub fn push(&mut self, value: Value) {
        // Subtrees are joined only when another block follows them: the last joint is the root and made otherwise.
        while self.stack.len() > self.count.count_ones() as usize {
            self.join();
        }
        self.stack.push(value);
        self.count += 1;
    }

    /// The hash, once all blocks have been taken.
    pub fn finish(mut self) -> Value {
        while self.stack.len() > 2 {
            self.join();
        }
        match self.stack.as_slice() {
            [left, right] => *merge_subtrees_root(left, right, Mode::Hash).as_bytes(),
            [only] => *only,
            _ => *blake3::hash(b"").as_bytes(),
        }
    }

    fn join(&mut self) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            self.stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }
}

/// Which blocks are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    count: u32,
    set: u32,
}

impl Bitmap {
    /// None of `count` blocks.
    pub fn new(count: u32) -> Self {
        Self { bytes: vec![0; byte_count(count)], count, set: 0 }
    }

    /// Reads a bitmap of `count` blocks as [`Bitmap::as_bytes`] gives it; `None` if its length or a spare bit is wrong.
    pub fn from_bytes(count: u32, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != byte_count(count) {
            return None;
        }
        let set = bytes.iter().map(|byte| byte.count_ones()).sum();
        let this = Self { bytes: bytes.to_vec(), count, set };
        let spare_is_clear = (count..count.next_multiple_of(8)).all(|index| !this.bit(index));
        spare_is_clear.then_some(this)
    }

    /// A bit a block, the lowest bit of a byte first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a block is there.
    pub fn has(&self, index: u32) -> bool {
        index < self.count && self.bit(index)
    }

    /// Notes that a block is there; false if it was already, or does not exist.
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= self.count || self.bit(index) {
            return false;
        }
        if let Some(byte) = self.bytes.get_mut(index as usize / 8) {
            *byte |= 1 << (index % 8);
            self.set += 1;
        }
        true
    }

    /// Notes that a block is not there; false if it was not.
    pub fn remove(&mut self, index: u32) -> bool {
        if !self.has(index) {
            return false;
        }
        if let Some(byte) = self.bytes.get_mut(index as usize / 8) {
            *byte &= !(1 << (index % 8));
            self.set -= 1;
        }
        true
    }

    /// How many blocks the file has.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether all blocks are there.
    pub fn is_full(&self) -> bool {
        self.set == self.count
    }

    /// Bytes of the blocks that are there, of a file of `size` bytes.
    pub fn set_bytes(&self, size: u64) -> u64 {
        let whole = u64::from(self.set) * BLOCK_BYTES as u64;
        match self.count.checked_sub(1) {
            Some(last) if self.has(last) => whole - (BLOCK_BYTES - length(size, last)) as u64,
            _ => whole,
        }
    }

    fn bit(&self, index: u32) -> bool {
        self.bytes.get(index as usize / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }
}

fn byte_count(count: u32) -> usize {
    count.div_ceil(8) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root_of(bytes: &[u8]) -> Value {
        let size = bytes.len() as u64;
        let mut root = Root::default();
        for (index, block) in (0..).zip(bytes.chunks(BLOCK_BYTES)) {
            assert_eq!(block.len(), length(size, index));
            root.push(value(size, index, block));
        }
        root.finish()
    }

    #[test]
    fn the_values_of_blocks_make_the_hash_of_the_file_at_every_edge() {
        let bytes: Vec<u8> = (0..9 * BLOCK_BYTES + 1).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let sizes = (0..10).flat_map(|blocks| {
            let whole = blocks * BLOCK_BYTES;
            [whole.saturating_sub(1), whole, whole + 1, whole + 1_024, whole + 1_025]
        });
        for size in sizes.filter(|size| *size <= bytes.len()) {
            assert_eq!(root_of(&bytes[..size]), *blake3::hash(&bytes[..size]).as_bytes(), "{size}");
        }
    }

    #[test]
    fn a_file_is_cut_into_blocks_that_cover_it() {
        let mib = BLOCK_BYTES as u64;
        assert_eq!([0, 1, mib - 1, mib, mib + 1, 1 << 40].map(count), [0, 1, 1, 1, 2, 1 << 20]);
        assert_eq!([0, 1, 2].map(|index| length(mib + 5, index)), [BLOCK_BYTES, 5, 0]);
    }

    #[test]
    fn a_bitmap_of_another_length_or_with_spare_bits_is_refused() {
        assert_eq!(Bitmap::from_bytes(9, &[0xFF]), None);
        assert_eq!(Bitmap::from_bytes(9, &[0xFF, 0b10]), None);
        assert!(Bitmap::from_bytes(9, &[0xFF, 0b1]).is_some_and(|bitmap| bitmap.is_full()));
        assert!(Bitmap::from_bytes(0, &[]).is_some_and(|bitmap| bitmap.is_full()));
    }

    proptest! {
        #[test]
        fn a_bitmap_agrees_with_a_set(count in 0_u32..200, steps in prop::collection::vec((any::<bool>(), 0_u32..220), 0..100)) {
            let mut model = std::collections::BTreeSet::new();
            let mut bitmap = Bitmap::new(count);
            let size = u64::from(count) * BLOCK_BYTES as u64 - u64::from(count.min(7));
            for (adds, index) in steps {
                if adds {
                    prop_assert_eq!(bitmap.insert(index), index < count && model.insert(index));
                } else {
                    prop_assert_eq!(bitmap.remove(index), model.remove(&index));
                }
            }
            prop_assert_eq!(bitmap.set as usize, model.len());
            let bytes: usize = model.iter().map(|index| length(size, *index)).sum();
            prop_assert_eq!(bitmap.set_bytes(size), bytes as u64);
            prop_assert!((0..220).all(|index| bitmap.has(index) == model.contains(&index)));
            prop_assert_eq!(Bitmap::from_bytes(count, bitmap.as_bytes()), Some(bitmap));
        }
    }
}
